/* A VM's folder: create, find, lock, load, run a plan's steps, recover. The folder is the truth; nothing of
 * it is cached beyond `struct store`. */
#pragma once

#include "plan.h"
#include "progress.h"
#include "tree.h"

struct store;

/* The home of VMs: $BOUGH_HOME, $XDG_DATA_HOME/bough, ~/.local/share/bough. Owned string. */
bool store_home(char **ret_home, struct err *err) MUST_CHECK;
/* The folder of the VM of that name, or ERR_NOT_FOUND. Checks the name. */
bool store_find(const struct io *io, const char *name, char **ret_vm_dir, struct err *err) MUST_CHECK;
/* Every folder in the home that holds a VM's XML; names sorted. Owned array of owned strings, NULL at the
 * end. */
bool store_list(const struct io *io, char ***ret_names, struct err *err) MUST_CHECK;
/* The same with the folders that held one, whose own file is missing: store_find() refuses them, and says so. */
bool store_list_with_lost(const struct io *io, char ***ret_names, struct err *err) MUST_CHECK;
/* The same with all other folders of the home: in one of them there may be a VM whose XML is lost. */
bool store_list_folders(const struct io *io, char ***ret_names, struct err *err) MUST_CHECK;
void store_list_free(char **names);

/* Makes the folder of S1 with the VM's XML and its lock file, whole or not at all (built under a temporary
 * name, then renamed). vm->disks name existing images, or images inside the folder that `make_files` creates
 * in the folder that it is given (the temporary one: it must not be remembered). ERR_EXISTS if the name is
 * taken. */
bool store_create(const struct io *io, const struct config *vm,
                  bool (*make_files)(void *context, const char *dir, struct err *err), void *context,
                  char **ret_vm_dir, struct err *err) MUST_CHECK;

/* The tree without any lock, for looking: read again if a concurrent commit made it inconsistent (at most 10
 * times). */
bool store_read(const struct io *io, const char *vm_dir, struct tree **ret_tree, struct err *err) MUST_CHECK;

/* The VM's own settings alone: they are one file, replaced as a whole. */
bool store_read_vm(const struct io *io, const char *vm_dir, struct config **ret_vm, struct err *err) MUST_CHECK;

enum store_lock_state {
    STORE_FREE,      /* nobody */
    STORE_MANAGED,   /* byte 0: a command or a worker has it */
    STORE_UNMANAGED, /* byte 0 free, byte 1 held: the machine is alive and its worker is gone */
    STORE_ELSEWHERE, /* byte 0 free for us, but another host has not let the VM go: a guest may run there */
};
struct store_owner {
    int64_t pid;             /* 0 if not known */
    char host[65], what[64]; /* host name; what it does, e.g. "worker", "delete" */
    bool this_boot;          /* of this kernel: pid means something here */
    bool is_elsewhere;       /* another host's */
    bool has_guest;          /* so says the text */
    bool machine_is_alive;   /* byte 1 is held, whoever has byte 0 */
};
bool store_probe(const char *vm_dir, enum store_lock_state *ret_state, struct store_owner *ret_owner,
                 struct err *err) MUST_CHECK;

/* The error for STORE_ELSEWHERE: always false. */
bool store_elsewhere(const char *vm_dir, const struct store_owner *owner, struct err *err);
/* Breaks the lock of another host, by its name (ERR_MISMATCH: another one has it). Whoever asks for it answers for it that the host is dead,
 * or has neither a guest nor a command of this VM. ERR_STATE: there is nothing to break. */
bool store_unlock(const char *vm_dir, const char *host, struct err *err) MUST_CHECK;

/* Takes byte 0 (never waits: ERR_BUSY names the owner and what it does; ERR_STATE: another host has not let it go) and loads the tree. `what` is written
 * into the lock file. If byte 1 is free too, recovers first. *ret_alive: byte 1 is held by a machine. recover
 * = false: look at the folder, remove nothing. */
bool store_open(const struct io *io, const char *vm_dir, const char *what, bool recover,
                struct store **ret_store, bool *ret_alive, struct err *err) MUST_CHECK;
void store_close(struct store *store); /* accepts NULL; releases byte 0, and byte 1 as far as it is ours */
AUTO_DEFINE(auto_store_close, struct store, store_close)
#define AUTO_STORE AUTO(auto_store_close)

const struct tree *store_tree(const struct store *store); /* as of the last commit or reload */
/* Byte 1 (machine is alive; shared among those of one VM) on a description of its own: *ret_fd is inherited by QEMU (the caller clears
 * FD_CLOEXEC in the child); the lock ends when the last holder ends. The fd stays the store's. ERR_BUSY if
 * another holds it. */
bool store_alive_lock(struct store *store, int *ret_fd, struct err *err) MUST_CHECK;
/* Beside a machine that is alive and that we adopt: byte 1 is ours too, for further machines that we start. */
bool store_alive_share(struct store *store, struct err *err) MUST_CHECK;
void store_alive_unlock(struct store *store); /* our copy alone */

/* The VM's folder has another name now. */
bool store_moved(struct store *store, const char *vm_dir, struct err *err) MUST_CHECK;
/* Reads the tree again: after a plan without a commit (the text of a snapshot). */
bool store_reload(struct store *store, struct err *err) MUST_CHECK;

/* The same if the last reading, behind a commit, has failed: until then the tree may name what is gone. */
bool store_refresh(struct store *store, struct err *err) MUST_CHECK;

/* Steps that need a machine. A plan of an Off VM has none; then NULL will do. */
struct store_machine {
    /* Does it, or fails; on failure before the last commit the plan ends and `abort` is called. May change
     * step->config of later steps (plan is ours). */
    bool (*step)(void *context, struct plan *plan, size_t index, struct err *err);
    /* A plan failed at step index: set the machine right (the present goes on). The VM's file names what a
     * commit before index says (store_tree()); files that the plan made and it does not name are removed
     * behind this. But if store_is_uncertain(), nothing is removed, and either file may be found after a
     * power cut: the present may go on only with disks that are true in both (the old tops of a live
     * snapshot), and with memory that neither names (it stays stopped behind a save). */
    void (*abort)(void *context, const struct plan *plan, size_t index);
    /* A plan failed behind a commit that is not its last: has nothing been done with what that commit names, so that
     * the VM's file of before can be written back? Asked before `abort`. NULL: never. */
    bool (*may_go_back)(void *context);
    /* Steps about files that it does itself, with `step`, because it has those files open. NULL: none. */
    bool (*takes)(void *context, const struct step *step);
    void *context;
};
/* Runs the steps in order. After a failure before the (next) commit: a commit that may be taken back is (if its file
 * can be written: the disk may be full), abort, then a sweep of what the plan made. After a failure of the directory sync behind a commit's rename (outcome unknown): the tree is read
 * again, abort, nothing is swept. Removals that fail behind the last commit are left to the next recovery,
 * not reported; a machine's step that fails there is reported when the rest has been done. The tree is
 * reloaded after each commit, and at the end of a plan without one. Cancelling is obeyed up to the last
 * commit. */
bool store_run(struct store *store, struct plan *plan, const struct store_machine *machine,
               const struct progress *progress, struct err *err) MUST_CHECK;

/* The last commit's rename was done but its folder could not be synced: until a later one succeeds, a power
 * cut may bring back the state before it. */
bool store_is_uncertain(const struct store *store);

/* Removes by invariant 5 what nothing needs. Needs both locks. Called by store_open(); public for tests and
 * `check`. Layers all stay where some chain cannot be followed: what is needed is then not known. */
bool store_recover(struct store *store, struct err *err) MUST_CHECK;
/* For plan_delete() and plan_apply(): every layer of the VM's and of all listed snapshots' chains with its
 * parent, each file once however it is reached. Owned array. Errors: those of opening images. */
bool store_tree_layers(const struct io *io, const struct tree *tree, struct plan_layer **ret_layers,
                       size_t *ret_count, struct err *err) MUST_CHECK;
bool store_layers(struct store *store, struct plan_layer **ret_layers, size_t *ret_count,
                  struct err *err) MUST_CHECK;
/* For plan_apply() alone, where there may be thousands of snapshots: the VM's tops, each with what it lies over, if a listed snapshot
 * names that: what is needed under it is that snapshot's. Else all of them, as store_layers(): others may need it too. */
bool store_present_layers(struct store *store, struct plan_layer **ret_layers, size_t *ret_count,
                          struct err *err) MUST_CHECK;
/* Can each chain of these settings be followed to its base, with the parents' ids? No contents are read. */
bool store_chains_check(const struct io *io, const struct config *config, struct err *err) MUST_CHECK;
void store_layers_free(struct plan_layer *layers, size_t count);

/* --- merging --- */
/* What plan_mergings() finds in a VM's files. Read it again when somebody else may have changed them. */
struct store_merges {
    struct plan_merging *mergings; /* owned, as is all that is below; what they name is the layers' */
    size_t count;
    struct plan_layer *layers; /* as of now; strings are those of: */
    size_t layer_count;
    struct plan_layer *read_layers;
    size_t read_count;
    char **users; /* store_list()'s */
    enum plan_machine machine;
    bool into_base;
};
/* Looks first whether there can be any, by the names in the layers' folder and the lowest image of each disk: then alone all images
 * are opened, and where one is pending, the other VMs' too: a disk of theirs may lie over one of these. machine: what it is now. into_base: see struct plan_merge. */
bool store_merges_read(const struct io *io, const struct tree *tree, enum plan_machine machine, bool into_base,
                       struct store_merges *ret_merges, struct err *err) MUST_CHECK;
/* The plan of one of them. */
bool store_merges_plan(const struct store_merges *merges, const struct tree *tree, const struct plan_merging *merging,
                       struct plan **ret_plan, struct err *err) MUST_CHECK;
/* All of them, to be shown. */
bool store_merges_plan_all(const struct store_merges *merges, const struct tree *tree, struct plan **ret_plan,
                           struct err *err) MUST_CHECK;
/* What would be pending behind a plan without a machine (a delete) is added to its steps, to be shown. */
bool store_merges_behind(const struct io *io, const struct tree *tree, struct plan *plan, struct err *err) MUST_CHECK;
/* One of them was done: what is left. tree: as it is now. */
bool store_merges_next(struct store_merges *merges, const struct tree *tree, const struct plan_merging *merged,
                       struct err *err) MUST_CHECK;
void store_merges_done(struct store_merges *merges);
