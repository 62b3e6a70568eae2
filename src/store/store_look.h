/* A VM's folder that may be damaged: what of it can be read, and what is wrong with the rest. Nothing is changed. */
#pragma once

#include "buf.h"
#include "store.h"

struct store_fault {
    const char *kind; /* "settings", "tree", "disk", "memory", "nvram", "medium", "extra": what kind of file it is about */
    bool harmless;    /* nothing is lost, or read wrongly, by it */
    const char *path, *text; /* borrowed for the call */
};
typedef void store_fault_fn(void *context, const struct store_fault *fault);

struct store_look {
    const struct io *io;
    char *vm_dir; /* absolute, clean */
    struct guid guid;      /* unset: nothing tells it, or not all the same */
    bool is_lost;          /* the VM's file is not there */
    bool is_unsure;        /* some settings are there and could not be read, for another reason than damage */
    bool is_alone;         /* the VM's lock is ours: nothing changes meanwhile */
    int manager_fd, alive_fd;
    struct config *vm;     /* NULL: it cannot be read */
    struct config **snapshots; /* those that the VM lists, or all that are there where it cannot be read; without damaged ones */
    size_t snapshot_count;
    struct buf vm_xml;     /* the VM's file, as it was */
};

/* The folder of the VM of that name, also if its settings are lost. */
bool store_find_damaged(const struct io *io, const char *name, char **ret_vm_dir, struct err *err) MUST_CHECK;
/* Takes the lock where nobody has it; recovers nothing. Reports what is wrong with settings and list. Fails only where nothing
 * can be looked at. */
bool store_look_open(const struct io *io, const char *vm_dir, const char *what, store_fault_fn *report, void *context,
                     struct store_look **ret_look, struct err *err) MUST_CHECK;
void store_look_close(struct store_look *look); /* accepts NULL */
AUTO_DEFINE(auto_store_look_close, struct store_look, store_look_close)
#define AUTO_STORE_LOOK AUTO(auto_store_look_close)

/* Reports what is in the folders that are Bough's and is named by nothing, if all settings could be read and nobody else is at work
 * there. images: those that a
 * chain goes through; NULL: not all are known. */
struct store_look_images {
    bool (*holds)(void *context, uint64_t device, uint64_t inode);
    void *context;
};
bool store_look_extras(const struct store_look *look, const struct store_look_images *images, store_fault_fn *report,
                       void *context, struct err *err) MUST_CHECK;
/* Is the path, one that store_look_extras() told, named and placed as only Bough names and places files? Then it is garbage by
 * invariant 5. */
bool store_look_is_own(const struct store_look *look, const char *path);
/* A file, or a folder with what is in it under names of ours. False: it is still there. */
bool store_look_remove(const struct store_look *look, const char *path);
/* Did somebody commit since it was opened? Then what was reported may have been true only for a moment. */
bool store_look_has_changed(const struct store_look *look);
