/* The planner: (tree, operation) -> a list of steps. Pure: no I/O, no clock, no random numbers of its own.
 * The executor is store.h's; `--dry-run` prints plans; the crash tests stop between the steps.
 *
 * Each STEP_COMMIT is an atomic replacement of the VM's XML. Most plans have one, a live snapshot has two, a live snapshot with an
 * apply behind it at most three. What stands before the first only makes new files beside the old; what stands behind the last only
 * removes what nothing names any more. So a plan that is cut off anywhere needs no undo: recovery sweeps (invariant 5). */
#pragma once

#include "tree.h"

enum step_kind {
    STEP_MAKE_DIR,     /* path; fine if it is there */
    STEP_CREATE_LAYER, /* path: a new empty .avhd, durable, over parent */
    STEP_SHARE_FILE,   /* path: a hard link to, else a copy of, from: a file that is never written again */
    STEP_COPY_FILE,    /* path: a durable copy of from, of its own: it will be written */
    STEP_WRITE_CONFIG, /* path: config as XML, replaced atomically and durable */
    STEP_SYNC_DIR,     /* path */
    STEP_SYNC_FILE,    /* path: whoever was cut off may have left what he wrote to it in the system's memory */
    STEP_COMMIT,       /* path: the VM's XML becomes config */
    STEP_MERGE_DATA,   /* what the image path has and its parent `from` has not goes to from (direction MERGE_UP: the other way),
                          durable; no parent is changed. Begun again it goes on */
    STEP_EMPTY_LAYER,  /* path: nothing of what it has itself is needed, its parent has it too */
    STEP_CHECK_EMPTY,  /* path: has nothing of its own, or the plan ends */
    STEP_REPARENT,     /* path: from becomes its parent, durable, at once or not at all */
    STEP_REMOVE_FILE,  /* path; fine if it is gone */
    STEP_REMOVE_DIR,   /* path with the files of ours in it; fine if it is gone, stays if it holds others */
    /* Steps of plans about a folder as a whole (plan_folder.h). */
    STEP_COPY_OPTIONAL, /* as STEP_COPY_FILE; fine if from is not there */
    STEP_LINK_PARENT,   /* path: an image whose parent is from; it is told so unless it finds it */
    STEP_FLATTEN,       /* path: a new dynamic .vhd, durable, of what the chain of from shows; both are compared */
    STEP_RENAME,        /* path is from's new name, durable; it must be free. The commit of such a plan */
    STEP_REMOVE_TREE,   /* path with all that is in it */
    STEP_CHECK_MEMORY,  /* path.bin and path.vsv are of config; handed to the caller, as is: */
    STEP_VERIFY_MEMORY, /* the same, with all their sums */
    /* Steps of a machine that runs: the executor hands them to its caller. */
    STEP_PREPARE_TOPS, /* engines open the layers of config's disks as their next tops */
    STEP_SAVE_MEMORY, /* guest memory to path.bin and path.vsv, with the id `memory` of the next step's config
                         that has one; the engines switch at the instant. from (NULL: none): the UEFI variables
                         as they are at that instant go beside path, named by `nvram` of the same config */
    STEP_SAVE_THUMBNAIL, /* path: a small PNG of the screen as it was when STEP_SAVE_MEMORY's machine went on, durable. A picture that
                            cannot be had is no failure: the file is then not there */
    STEP_FLUSH_SEALED, /* the sealed layers are durable */
    STEP_START_TARGET, /* a second machine from config, stopped, memory loaded from path.bin and path.vsv,
                          whose id is config's `memory` */
    STEP_STOP_PRESENT, /* the present machine stands still, its disks flushed */
    STEP_DROP_PRESENT, /* the present machine is ended and its engines are closed */
    STEP_RUN_TARGET,   /* the target takes the present's place and goes on (state: running or paused) */
};

/* Where the sectors of two neighbours go: into the parent, or into the child. */
enum merge_direction { MERGE_DOWN, MERGE_UP };

const char *step_name(enum step_kind kind); /* "make-dir", ... for JSON and people */

struct step {
    enum step_kind kind;
    char *path;              /* absolute; NULL where the kind has none */
    char *from;              /* STEP_SHARE_FILE, STEP_COPY_FILE, STEP_SAVE_MEMORY: source; STEP_CREATE_LAYER,
                                STEP_MERGE_DATA, STEP_REPARENT: parent image */
    struct config *config;   /* owned by the step; NULL where the kind has none */
    enum config_state state; /* STEP_RUN_TARGET, STEP_SAVE_MEMORY: what the machine is to be afterwards */
    enum merge_direction direction; /* STEP_MERGE_DATA */
};

struct plan {
    char *summary; /* one line for people: "snapshot VM: take 'name'" */
    struct step *steps;
    size_t step_count;
};

/* Of a STEP_SAVE_MEMORY: the config that a later step writes with the id of that memory, NULL if there is none; and where the
 * UEFI variables go (owned; NULL without `from`, or when out of memory). */
struct config *plan_memory_config(const struct plan *plan, size_t index);
char *plan_nvram_path(const struct plan *plan, size_t index);

void plan_free(struct plan *plan); /* accepts NULL */
AUTO_DEFINE(auto_plan_free, struct plan, plan_free)
#define AUTO_PLAN AUTO(auto_plan_free)

/* Where fresh GUIDs and the time come from: real ones, or a test's. */
struct plan_source {
    struct guid (*fresh_guid)(void *context);
    int64_t now_ms;
    void *context;
};

/* What the machine is when the operation starts. */
enum plan_machine { MACHINE_OFF, MACHINE_RUNNING, MACHINE_PAUSED, MACHINE_SAVED };

struct plan_snapshot {
    enum plan_machine machine;
    const char *name;  /* NULL: "VM - (date - time)" by local time */
    const char *notes; /* NULL: "" */
    bool scheduled;    /* marked as a timer's: `prune` may delete it */
    /* of a machine that runs: */
    const char *qemu_version;
    enum config_accel accel_used;
};

/* Off: layers, snapshot's XML, one commit. Saved: the same, saved files shared into the snapshot. Running,
 * Paused: prepare, first commit (VM names the new tops; none without hard disks), save memory, thumbnail (where there is
 * a display: <SNAPGUID>.png, which no settings name), flush sealed,
 * snapshot's XML, second commit (listed). *ret_snapshot names the new snapshot. STEP_WRITE_CONFIG of the
 * snapshot's XML is found by its config's is_snapshot: the caller may fill pause_us in it between
 * STEP_SAVE_MEMORY and that step. */
bool plan_snapshot(const struct tree *tree, const struct plan_source *source,
                   const struct plan_snapshot *request, struct plan **ret_plan, struct guid *ret_snapshot,
                   struct err *err) MUST_CHECK;

/* Every layer of the VM's and all snapshots' chains, with what lies under it: the planner does no I/O
 * (store_layers()). What stands behind the parent is for merging alone. */
struct plan_layer {
    const char *path, *parent; /* absolute; parent NULL at the base */
    uint64_t size_bytes;       /* as a guest sees it */
    uint64_t allocated_bytes;  /* of the file system */
    char id[33];               /* its unique id, 32 hexadecimal digits */
    bool is_linked;            /* the file has another name */
    bool is_elsewhere;         /* the path is a symbolic link: the file may lie outside the VM's folder */
    bool may_be_empty;         /* its file is too small for anything of its own, or no settings name it: its table tells */
    const char *user;          /* another VM one of whose chains goes through it, NULL: none is known; borrowed */
};

struct plan_apply {
    enum plan_machine machine;
    struct guid snapshot;
    const struct plan_layer *layers;
    size_t layer_count;
    bool no_start;   /* a snapshot with memory ends Saved */
    bool disks_only; /* disks and settings, no memory: ends Off */
};

/* Going back, to any listed snapshot (revert is apply of the tree's vm->parent). New working layers over the
 * snapshot's sealed ones, settings of the snapshot, identity and list of the VM; with memory and not no_start
 * the target is started stopped before the commit and runs behind it; the present's saved state, its working
 * layers, and what is under them and nobody else's, are removed at the end. Base images and files that Bough
 * did not make are never removed. A layer that is not in `layers` stays (the next recovery sees it), but for
 * the present's tops. */
bool plan_apply(const struct tree *tree, const struct plan_source *source, const struct plan_apply *request,
                struct plan **ret_plan, struct err *err) MUST_CHECK;

/* Going back with a snapshot of the present taken first, as one operation. One commit does both: the present's tops, which nobody writes
 * any more, become the snapshot's, so that nothing has happened or all has. The target is loaded before the present is stopped for good:
 * what cannot be gone back to costs nothing. The present stands while its memory is saved: nothing that it does is behind the snapshot.
 * target_needs_place: present and target cannot live at the same time (a TAP interface). Then the snapshot has its own commits, as
 * plan_snapshot()'s, and the target is started behind them: what is found then may be "snapshot taken, not applied". */
bool plan_apply_first(const struct tree *tree, const struct plan_source *source, const struct plan_snapshot *request,
                      const struct plan_apply *back, bool target_needs_place, struct plan **ret_plan,
                      struct guid *ret_first, struct err *err) MUST_CHECK;

/* Takes the point away: commit without it, its XML and saved state removed, layers that nothing needs removed
 * upward; children and the VM now descend from its parent. Layers still needed stay (merging is plans of its
 * own). subtree: all that descend from it too. The VM's own chain always stays. */
bool plan_delete(const struct tree *tree, const struct guid *snapshot, bool subtree,
                 const struct plan_layer *layers, size_t layer_count, struct plan **ret_plan,
                 struct err *err) MUST_CHECK;

/* The VM's settings replaced as a whole (set, rename, memory saved or dropped): one commit. What the new
 * config no longer names of saved state is removed behind it. Takes nothing: copies. */
bool plan_settings(const struct tree *tree, const struct config *vm, const char *what, struct plan **ret_plan,
                   struct err *err) MUST_CHECK;
/* Name and notes of a snapshot: its own file alone is replaced. NULL: unchanged. */
bool plan_snapshot_text(const struct tree *tree, const struct guid *snapshot, const char *name,
                        const char *notes, struct plan **ret_plan, struct err *err) MUST_CHECK;
/* save: memory to the VM's own state folder, then a commit that names it: saved, saved_state, and with it
 * memory (the id in .vsv), accel_used and qemu_version in the VM's own config. start of a Saved VM is
 * plan_settings() with those unset. */
struct plan_save {
    enum plan_machine machine; /* MACHINE_RUNNING or MACHINE_PAUSED */
    const char *qemu_version;
    enum config_accel accel_used;
};
bool plan_save(const struct tree *tree, const struct plan_source *source, const struct plan_save *request,
               struct plan **ret_plan, struct err *err) MUST_CHECK;

/* --- merging ---
 * An image is a point if a listed snapshot names it, or the VM. One that is none (the parent) and that one other lies over (the
 * child) is merged with it; with more over it, it stays until one of them goes. Which merges are pending follows from files
 * and settings alone, so that whoever was cut off at any step finds his merge again. Each step leaves all that is seen as it was:
 *
 *   DOWN  the child's sectors go into the parent, which nobody looks at but through the child, where they are hidden by the
 *         same ones; then all that named the child names the parent: a snapshot's file by its own rename, images over the child
 *         by a new parent, the VM by the commit. With one image done and another not, the parent would have two over it, and nobody
 *         could tell that it holds the child: so the child is emptied first. An image that is empty and no point is taken
 *         out of its chains (parent: what lies under it), whatever lies over it.
 *   UP    the sectors of the parent that the child lacks go into the child, which then gets the parent's parent.
 */
enum merge_kept {
    MERGE_NOT_KEPT,
    MERGE_KEPT_WRITTEN, /* the VM runs and writes to the child: it must be sealed first */
    MERGE_KEPT_FORK,    /* several images lie over it */
    MERGE_KEPT_OUTSIDE, /* outside the VM's folder */
    MERGE_KEPT_LINKED,  /* has another name in the file system */
    MERGE_KEPT_USED,    /* another VM's */
    MERGE_KEPT_SIZE,    /* sizes that would bring into sight what is hidden */
    MERGE_KEPT_NAME,    /* would have to be removed, and Bough has not made it */
    MERGE_KEPT_CHANGED, /* a snapshot that names the child means another image */
};

/* One that is pending, or why it is kept. Strings are borrowed from the layers. */
struct plan_merging {
    const char *parent, *child; /* child NULL: MERGE_KEPT_FORK */
    enum merge_direction direction;
    bool child_is_empty;        /* no point and likely empty: it is only taken out */
    bool child_is_top;          /* the VM's own */
    uint64_t bytes;             /* to copy, about */
    enum merge_kept kept;
    const char *kept_path;      /* of whom that is said */
    const char *kept_user;      /* MERGE_KEPT_USED */
    size_t dependants;          /* MERGE_KEPT_FORK */
};
/* The file that goes, and the one that stays with what both have (NULL: MERGE_KEPT_FORK). */
const char *merging_gone(const struct plan_merging *merging);
const char *merging_stays(const struct plan_merging *merging);
/* Why it is kept, for people. */
void merging_reason(const struct plan_merging *merging, char *text, size_t size);

struct plan_merge {
    enum plan_machine machine;
    const struct plan_layer *layers; /* all of them, as of now */
    size_t layer_count;
    bool into_base; /* also into a base outside the VM's folder */
    bool copied;    /* plan_merge(): STEP_MERGE_DATA has been done by other means, durable */
};
/* For one that is kept as written to (MERGE_KEPT_WRITTEN), the child being the top: the VM, which runs, gets a new, empty top over it
 * and a file that names it. The engine is prepared; whoever runs the plan switches it behind that. */
bool plan_seal(const struct tree *tree, const struct plan_source *source, const char *top, struct plan **ret_plan,
               struct err *err) MUST_CHECK;
/* Owned array (free()), what lies under others first. */
bool plan_mergings(const struct tree *tree, const struct plan_merge *request, struct plan_merging **ret_mergings,
                   size_t *ret_count, struct err *err) MUST_CHECK;
/* The steps of one that is not kept (or, copied, of one whose child was kept as the VM's top and is sealed now). */
bool plan_merge(const struct tree *tree, const struct plan_merge *request, const struct plan_merging *merging,
                struct plan **ret_plan, struct err *err) MUST_CHECK;
/* All that are pending, one after the other, as one plan to be shown (a merge that fails must end the run: run them one by one). */
bool plan_merge_all(const struct tree *tree, const struct plan_merge *request, struct plan **ret_plan,
                    struct err *err) MUST_CHECK;
/* The steps of all that are pending behind a plan (of a delete) are added to it, to be shown. request: as before it. */
bool plan_merge_behind(const struct tree *tree, const struct plan_merge *request, struct plan *plan,
                       struct err *err) MUST_CHECK;
/* The layers as they are behind it: the one that has gone is taken out, *count is less by one. Strings stay borrowed. */
void merging_apply(const struct plan_merging *merging, struct plan_layer *layers, size_t *count);
