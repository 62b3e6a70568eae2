/* What the files of vm/ share: the VM itself, and one function an operation. */
#pragma once

#include "claim.h"
#include "guest.h"
#include "merger.h"
#include "store.h"
#include "vm.h"

struct vm {
    char *dir;            /* the VM's folder */
    char *runtime_dir;
    struct store *store;
    struct guest *present; /* NULL: Off or Saved */
    struct guest *target;  /* during an apply alone */
    struct claim *claim;   /* of the VM's GUID, with a machine; else NULL */
    struct merger *merger; /* NULL while it is opened */
};

typedef bool vm_operation(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
                          struct err *err);

vm_operation op_cancel, op_start, op_stop, op_pause, op_resume, op_save, op_snapshot, op_apply, op_revert, op_delete,
    op_merge, op_rename, op_rename_snapshot, op_notes, op_set, op_reconnect, op_remove, op_screenshot, op_console, op_display, op_status;

/* Both locks or, of a machine that is alive (*ret_alive), byte 0 alone; nothing is changed yet. */
bool vm_open_locked(const char *vm_dir, const char *what, struct vm **ret_vm, bool *ret_alive, struct err *err) MUST_CHECK;
/* What waits for images is put in place, what nothing needs is removed. Nobody but us may be using either. */
bool vm_recover(struct vm *vm, struct err *err) MUST_CHECK;
/* The same, and what dead processes left in the runtime directory. */
bool vm_recover_dead(struct vm *vm, struct err *err) MUST_CHECK;

const struct config *vm_config(const struct vm *vm);
/* What the VM is now, for people. run_state (may be NULL) gets QEMU's word, or "". */
bool vm_machine_state(struct vm *vm, enum plan_machine *ret_machine, char run_state[32], struct err *err) MUST_CHECK;
/* For the planner: one that stands only until there is space is one that runs, as its user sees it. */
bool vm_planned_state(struct vm *vm, enum plan_machine *ret_machine, struct err *err) MUST_CHECK;
bool vm_waits_for_space(const struct vm *vm);
const char *vm_state_name(enum plan_machine machine); /* "off", "running", "paused", "saved" */
/* ERR_STATE unless there is a machine; operation for the message. */
bool vm_require_machine(const struct vm *vm, const char *operation, struct err *err) MUST_CHECK;
/* The name in the settings follows that of the folder. */
void vm_follow_name(struct vm *vm);
/* {"state": ...} */
bool vm_answer_state(struct vm *vm, json_t **ret_value, struct err *err) MUST_CHECK;

struct plan_source vm_plan_source(void);
/* Options for a guest of these settings, with the VM's alive lock taken. *ret_nvram is owned and what the options point to; NULL
 * for generation 1. */
bool vm_guest_options(struct vm *vm, const struct config *config, struct guest_options *ret_options,
                      char **ret_nvram, struct err *err) MUST_CHECK;
/* The machine is ended if it lives, the disks are closed, the alive lock is let go: Off. */
void vm_present_end(struct vm *vm);

/* Runs a plan, with its machine steps. saved (may be NULL) tells of STEP_SAVE_MEMORY. */
struct vm_plan_run {
    const struct progress *progress;
    bool point_now; /* memory as it is when it is asked for */
    struct guest_saved saved;
    int64_t target_ran_us; /* monotonic clock when the target went on; 0: it did not */
};
bool vm_run_plan(struct vm *vm, struct plan *plan, struct vm_plan_run *run, struct err *err) MUST_CHECK;
/* Of a snapshot of the VM as it is now: what the planner wants to know. Refused where it could not be taken. */
bool vm_snapshot_request(struct vm *vm, struct plan_snapshot *ret_request, struct err *err) MUST_CHECK;
/* total_us: from the request until it was durable. NULL: out of memory. */
json_t *vm_snapshot_answer(const struct config *snapshot, const struct vm_plan_run *run, enum plan_machine now,
                           int64_t total_us);
/* --- op_merge.c --- */
/* Merges all that is pending of a VM without a machine; what was done goes to `merged`, [{"path", "into", "bytes"}], also on failure.
 * Whatever ends it, what is left is pending again. */
bool vm_merge_pending(struct vm *vm, bool into_base, const struct progress *progress, json_t *merged, struct err *err) MUST_CHECK;
/* What is pending, and what is kept: docs/operations.md, "merging". NULL when out of memory. */
json_t *vm_mergings(struct vm *vm);

/* --- others.c --- */
/* ERR_BUSY: a chain of another VM of this home, as far as it can be followed, goes through one of the images. ERR_STATE: nothing of it
 * can be looked at. */
bool vm_others_spare(const char *vm_dir, const struct plan_layer *layers, size_t count, struct err *err) MUST_CHECK;
/* The same of those that lie in the VM's folder; they are put first. */
bool vm_others_spare_inside(const char *vm_dir, struct plan_layer *layers, size_t count, struct err *err) MUST_CHECK;
/* The same of all images in the VM's folder. */
bool vm_others_spare_all(struct vm *vm, struct err *err) MUST_CHECK;

/* The answer of a dry run. */
bool vm_answer_plan(const struct plan *plan, json_t **ret_value, struct err *err) MUST_CHECK;
/* With what it needs of the file system, and what is free. */
bool vm_answer_room(const struct vm *vm, const struct plan *plan, json_t **ret_value, struct err *err) MUST_CHECK;
/* The memory that the VM last had saved on its way to these settings, for the new one to share; owned, NULL if there is none. */
char *vm_parent_bin(const struct vm *vm, const struct config *naming);

int64_t vm_now_us(void); /* monotonic */
/* Packs an answer; NULL from jansson is out of memory. */
bool vm_answer(json_t *value, json_t **ret_value, struct err *err) MUST_CHECK;
/* A snapshot's or the VM's saved memory: <dir>/<GUID> without the suffix; owned, NULL when out of memory. */
char *vm_snapshot_state_path(const struct vm *vm, const struct config *snapshot);
char *vm_saved_state_path(const struct vm *vm, const struct config *config);
