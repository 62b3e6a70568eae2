/* check --repair: what is done to a VM's files. Inside of repair*.c.
 *
 * Nothing is guessed: what is done follows from what the files say of each other. What is taken out of use is put aside, not removed, but
 * for what invariant 5 calls garbage. Both locks of the VM are held throughout. */
#pragma once

#include "store_look.h"
#include "vm.h"

/* An image in the VM's folder, or one that a chain goes through. */
struct repair_image {
    char *path; /* owned */
    uint64_t device, inode;
    char id[33], parent_id[33]; /* 32 hexadecimal digits; parent_id "" where it has none */
    bool is_inside;             /* in the VM's folder: others outside may depend on those there, which are left alone */
    bool is_moved;              /* by us; in a dry run it is still where it was */
    bool has_link;              /* the parent is found by what the image says */
    bool is_seen;               /* by a walk */
    bool is_renewed;            /* it was as the VM's file notes it, and we changed it */
    bool is_parent, is_shared;  /* for a rebuild: something lies over it; more than one snapshot names it */
    const struct config *snapshot; /* for a rebuild: one that names it */
    ptrdiff_t parent;           /* index; -1: none, or not known */
};

struct repair {
    const struct vm_repair_options *options;
    const struct progress *progress;
    struct store_look *look; /* with both locks */
    json_t *done, *choices;  /* references of its own: {"file", "text"}; {"guid", "name", "text"} */
    struct repair_image *images;
    size_t image_count;
};

/* Something was done, or in a dry run would be. */
void repair_tell(struct repair *repair, const char *path, const char *format, ...) __attribute__((format(printf, 3, 4)));
/* Where one has to choose. */
void repair_offer(struct repair *repair, const struct config *snapshot, const char *text);
/* Why something is not done. */
void repair_cannot(struct repair *repair, const char *why);
/* ERR_NO_MEMORY and ERR_CANCELLED end a repair; every other error is of the file, and the check behind the repair tells of it. */
bool repair_may_go_on(const struct err *err);

/* --- repair_images.c --- */
/* Footers, images that were moved within the folder, and parents' places. Fills repair->images. */
bool repair_images(struct repair *repair, struct err *err) MUST_CHECK;
void repair_images_done(struct repair *repair);
/* One that was made, or in a dry run would be. */
bool repair_image_note(struct repair *repair, const char *path, const char *parent_path, struct err *err) MUST_CHECK;
/* -1: there is none at the path. */
ptrdiff_t repair_image_at(const struct repair *repair, const char *path);

/* --- repair_settings.c --- */
/* List, parents, and the VM's file as a whole. */
bool repair_settings(struct repair *repair, struct err *err) MUST_CHECK;

/* --- repair_rebuild.c --- */
/* The VM's file from its snapshots' files and the chains. *ret_config NULL: it cannot be known; the reason was told. */
bool repair_rebuild(struct repair *repair, struct config **ret_config, struct err *err) MUST_CHECK;

/* --- repair_aside.c --- */
/* The path gets the name `<path>.lost`, with a number behind it where that is taken. What is not there is fine. */
bool repair_put_aside(struct repair *repair, const char *path, const char *why, struct err *err) MUST_CHECK;
/* Of the folder that the path is in. */
bool repair_sync_dir_of(const char *path, struct err *err) MUST_CHECK;
/* Layers that these settings and snapshots do not need: they may be all that is left of a snapshot whose settings are lost. They go to
 * `Snapshots/<VMGUID>.lost/`. Nothing is done where not all chains are known. */
bool repair_layers_aside(struct repair *repair, const struct config *vm, struct err *err) MUST_CHECK;
/* ERR_BUSY: another VM needs one of them. Before anything is put aside. */
bool repair_layers_spare(struct repair *repair, const struct config *vm, struct err *err) MUST_CHECK;
bool repair_write_config(struct repair *repair, const struct config *config, struct err *err) MUST_CHECK;

/* --- repair_modes.c --- */
typedef bool mode_fn(void *context, const char *path, unsigned mode, unsigned better, struct err *err);
/* Files and folders of the VM that their owner cannot use, or others may change. */
bool modes_look(const char *vm_dir, mode_fn *each, void *context, struct err *err) MUST_CHECK;
bool repair_modes(struct repair *repair, struct err *err) MUST_CHECK;
