/* Shared by the files of store/. */
#pragma once

#include "store.h"

#include "file.h"

#define VM_FOLDER        "Virtual Machines"
#define SNAPSHOTS_FOLDER "Snapshots"

/* Folders being made or removed; a dot in front hides them from store_list(). */
#define NEW_SUFFIX     ".new~"
#define REMOVED_SUFFIX ".removed~"

struct store {
    const struct io *io;
    char *vm_dir;
    struct guid guid;
    struct tree *tree;
    char what[64];  /* what the lock's text says that we do */
    int manager_fd; /* byte 0 is ours */
    int alive_fd;   /* byte 1 is ours, on a description of its own; -1: not */
    bool is_uncertain;
    bool is_stale; /* the tree could not be read again behind a commit */
};

/* --- store_lock.c --- */
/* Takes byte 0 and writes who has it. ERR_BUSY names the owner. */
bool lock_manager(const char *vm_dir, const struct guid *guid, const char *what, int *ret_fd,
                  struct err *err) MUST_CHECK;
/* The text is erased, unless a machine is alive, and fd is closed. */
void lock_release(const char *vm_dir, const struct guid *guid, const char *what, int fd);
/* Asked before each commit: the lock file may have been replaced (store_unlock()) by somebody who believed this host dead. ERR_STATE. */
bool lock_is_ours(const struct store *store, struct err *err) MUST_CHECK;
/* Takes byte 1 on a new description; *ret_fd -1 if another has it. */
bool lock_alive(const char *vm_dir, const struct guid *guid, int *ret_fd, struct err *err) MUST_CHECK;

/* --- store.c --- */
/* As store_reload(), but reads of the snapshots only those that were not known and that the plan did not write: under our lock
 * nobody else writes. */
bool reload_listed(struct store *store, const struct plan *plan, struct err *err) MUST_CHECK;

/* --- store_load.c --- */
/* The VM's GUID from the name of its file. ERR_NOT_FOUND: no VM here; ERR_CORRUPT: two. */
bool load_guid(const struct io *io, const char *vm_dir, struct guid *ret_guid, struct err *err) MUST_CHECK;
/* known (may be NULL): snapshots that it holds are taken from it, not read, but for those that the plan (may be NULL) writes. */
bool load_tree(const struct io *io, const char *vm_dir, const struct guid *guid, const struct tree *known,
               const struct plan *plan, struct tree **ret_tree, struct err *err) MUST_CHECK;
/* One file of settings, which is the one that its name says. */
bool load_vm(const struct io *io, const char *vm_dir, const struct guid *guid, struct config **ret_vm,
             struct err *err) MUST_CHECK;
bool load_snapshot(const struct io *io, const char *vm_dir, const struct guid *guid, struct config **ret_snapshot,
                   struct err *err) MUST_CHECK;
/* `<GUID><end>`: its GUID. */
bool name_parse(const char *name, const char *end, struct guid *ret_guid);

/* --- store_steps.c --- */
/* A step that is about files. *ret_uncertain: a rename was done and its folder could not be synced. progress: of
 * STEP_MERGE_DATA. */
bool step_do(struct store *store, const struct step *step, const struct progress *progress, bool *ret_uncertain,
             struct err *err) MUST_CHECK;

/* --- store_merge.c --- */
bool merge_data(const struct io *io, const struct step *step, const struct progress *progress, struct err *err) MUST_CHECK;

bool make_dir(const struct io *io, const char *path, struct err *err) MUST_CHECK; /* STEP_MAKE_DIR */
bool share_file(const struct io *io, const struct step *step, struct err *err) MUST_CHECK;

/* --- store_copy.c --- */
/* A durable copy. Holes stay holes; extents are shared where the file system can. progress: bytes of the file, in the phase "copy". */
bool copy_file(const struct io *io, const char *from, const char *to, const struct progress *progress,
               struct err *err) MUST_CHECK;

/* --- store_home.c --- */
/* The lock of those who make or remove folders in this one, shared; what is left of makers that have died is removed first. -1 where it
 * cannot be had, which is no reason not to go on. */
int home_lock(const struct io *io, const char *home);
/* A folder that is nobody's yet or no more, whatever it holds. */
void remove_all(const struct io *io, const char *path);
/* Or a link to one. */
bool is_folder(const struct io *io, const char *path);
/* Of the host's file system, since the seam follows links: what lies behind one need not be the VM's. */
bool is_link(const char *path);

/* --- store_sweep.c --- */
/* What the steps up to and with index have made and the tree does not name. Never fails: what stays is
 * garbage for the next recovery. */
void sweep_plan(struct store *store, const struct plan *plan, size_t index);
/* A folder with everything in it that is not a folder with something in it. */
void remove_folder(const struct io *io, const char *path);

/* --- store_layers.c --- */
struct chain_file {
    char *path;   /* owned */
    char *parent; /* the path of another one; owned, NULL at a base */
    uint64_t device, inode;
    bool is_followed; /* parent is known, and what follows: */
    bool is_linked, may_be_empty;
    bool has_moved; /* its header has: it was given another parent, or size, once */
    uint64_t size_bytes, allocated_bytes;
    char id[33];
};

struct chains {
    struct chain_file *files;
    size_t count;
    size_t named_count; /* the first ones: settings name them */
    size_t *slots; /* index + 1 into files, by device and inode; 0: free */
    size_t slot_count; /* a power of two, at least twice the count */
    char *alias; /* owned: another name that settings have for: */
    size_t alias_of;
};

/* The file of that identity; NULL if there is none. Valid until another is added. */
struct chain_file *chains_find(const struct chains *chains, uint64_t device, uint64_t inode);

/* Every image of the chains of the VM and the listed snapshots, each file once. */
bool chains_read(const struct io *io, const struct tree *tree, struct chains *ret_chains,
                 struct err *err) MUST_CHECK;
/* The same behind what is in chains already, which the caller ends in any case: an error leaves what could be followed. */
bool chains_add(const struct io *io, const struct tree *tree, struct chains *chains, struct err *err) MUST_CHECK;
/* The same of every image in the folder and two below: what a VM may need whose settings are lost. What cannot be looked at is passed over. */
bool chains_add_images(const struct io *io, const char *dir, struct chains *chains, struct err *err) MUST_CHECK;
void chains_done(struct chains *chains);
