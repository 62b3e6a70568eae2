#include "vm_priv.h"

#include "args.h"
#include "auto.h"
#include "buf.h"
#include "dirty_log.h"
#include "file.h"
#include "last_end.h"
#include "log.h"
#include "runtime.h"

#include <errno.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

enum operation_needs {
    NEEDS_NOTHING,  /* done in any state by whoever holds the lock */
    NEEDS_MACHINE,  /* there must be a machine already */
    MAKES_MACHINE,  /* starts one */
    MAY_MAKE_MACHINE, /* starts one if the snapshot has memory */
};

static const struct operation {
    const char *name;
    vm_operation *run;
    enum operation_needs needs;
    const char *known[8]; /* arguments */
} OPERATIONS[] = {
    {"apply", op_apply, MAY_MAKE_MACHINE,
     {"snapshot", "snapshot_first", "no_start", "disks_only", "verify", "dry_run"}},
    {"cancel", op_cancel, NEEDS_NOTHING, {NULL}},
    {"console", op_console, NEEDS_MACHINE, {NULL}},
    {"delete", op_delete, NEEDS_NOTHING, {"snapshot", "subtree", "no_merge", "dry_run"}},
    {"display", op_display, NEEDS_MACHINE, {NULL}},
    {"merge", op_merge, NEEDS_NOTHING, {"into_base", "dry_run"}},
    {"notes", op_notes, NEEDS_NOTHING, {"snapshot", "text", "dry_run"}},
    {"pause", op_pause, NEEDS_MACHINE, {NULL}},
    {"reconnect", op_reconnect, NEEDS_NOTHING, {"dry_run"}},
    {"remove", op_remove, NEEDS_NOTHING, {"dry_run"}},
    {"rename", op_rename, NEEDS_NOTHING, {"name", "dry_run"}},
    {"rename-snapshot", op_rename_snapshot, NEEDS_NOTHING, {"snapshot", "name", "dry_run"}},
    {"resume", op_resume, NEEDS_MACHINE, {NULL}},
    {"revert", op_revert, MAY_MAKE_MACHINE, {"snapshot", "no_start", "disks_only", "verify", "snapshot_first", "dry_run"}},
    {"save", op_save, NEEDS_MACHINE, {"dry_run"}},
    {"screenshot", op_screenshot, NEEDS_MACHINE, {"path"}},
    {"set", op_set, NEEDS_NOTHING, {"settings", "dry_run"}},
    {"snapshot", op_snapshot, NEEDS_NOTHING, {"name", "notes", "scheduled", "point_now", "dry_run"}},
    {"start", op_start, MAKES_MACHINE, {"paused", "dry_run"}},
    {"status", op_status, NEEDS_NOTHING, {NULL}},
    {"stop", op_stop, NEEDS_NOTHING, {"force", "timeout_s", "dry_run"}},
};

static const struct operation *operation_find(const char *name)
{
    for (size_t i = 0; i < ARRAY_SIZE(OPERATIONS); i++)
        if (strcmp(OPERATIONS[i].name, name) == 0)
            return &OPERATIONS[i];
    return NULL;
}

const struct config *vm_config(const struct vm *vm)
{
    return store_tree(vm->store)->vm;
}

/* What a worker that was killed had answered and not yet flushed comes to its place before anything is done with the disks. */
static bool disks_settle(struct vm *vm, struct err *err)
{
    AUTO_FREE char *log_dir = NULL;
    AUTO_FREE char *vm_dir = path_absolute(vm->dir);
    const struct config *config = vm_config(vm);

    if (!vm_dir)
        return err_oom(err);
    AUTO_FREE char *layers_dir = string_printf("%s/Snapshots/%s", vm_dir, config->guid.text);
    if (!layers_dir)
        return err_oom(err);
    if (!runtime_dirty_dir(&log_dir, err) || !dirty_log_replay_all(&io_real, log_dir, vm_dir, err) ||
        !dirty_log_replay_all(&io_real, log_dir, layers_dir, err))
        return false;
    /* One that is used in place may lie elsewhere. */
    for (size_t i = 0; i < config->disk_count; i++)
        if (!config->disks[i].is_cdrom && !path_is_inside(config->disks[i].path, vm_dir) &&
            !disk_settle(&io_real, log_dir, config->disks[i].path, err))
            return false;
    return true;
}

bool vm_open_locked(const char *vm_dir, const char *what, struct vm **ret_vm, bool *ret_alive, struct err *err)
{
    struct vm *vm = calloc(1, sizeof *vm);

    if (!vm || !(vm->dir = strdup(vm_dir))) {
        free(vm);
        return err_oom(err);
    }
    if (!runtime_dir(vm_dir, &vm->runtime_dir, err) || !merger_new(&vm->merger, err) ||
        !store_open(&io_real, vm_dir, what, /* recover= */ false, &vm->store, ret_alive, err)) {
        vm_close(vm);
        return false;
    }
    *ret_vm = vm;
    return true;
}

/* First what waits for an image, then the image, if nothing needs it: no log stays behind it. */
bool vm_recover(struct vm *vm, struct err *err)
{
    return disks_settle(vm, err) && store_recover(vm->store, err);
}

bool vm_recover_dead(struct vm *vm, struct err *err)
{
    if (!guid_is_set(&vm_config(vm)->saved))
        last_end_keep(vm->runtime_dir);
    runtime_sweep(vm->runtime_dir, /* kept= */ NULL, 0);
    return vm_recover(vm, err);
}

bool vm_open(const char *vm_dir, const char *what, struct vm **ret_vm, struct err *err)
{
    struct vm *vm;
    bool alive;

    if (!vm_open_locked(vm_dir, what, &vm, &alive, err))
        return false;
    if (alive) {
        vm_close(vm);
        return err_set(err, ERR_BUSY, "%s: its guest runs and its worker has just ended", path_base(vm_dir));
    }
    if (!vm_recover_dead(vm, err)) {
        vm_close(vm);
        return false;
    }
    vm_follow_name(vm);
    *ret_vm = vm;
    return true;
}

void vm_close(struct vm *vm)
{
    if (!vm)
        return;
    merger_end(vm);
    merger_free(vm->merger);
    claim_release(TAKE(vm->claim), /* still_runs= */ vm->present != NULL);
    if (vm->present)
        guest_release(vm->present);
    store_close(vm->store);
    free(vm->runtime_dir);
    free(vm->dir);
    free(vm);
}

bool vm_is_alive(const struct vm *vm)
{
    return vm->present != NULL;
}

int vm_machine_fd(const struct vm *vm)
{
    return vm->present ? machine_pidfd(vm->present->machine) : -1;
}

int vm_monitor_fd(const struct vm *vm)
{
    return vm->present ? qmp_fd(machine_qmp(vm->present->machine)) : -1;
}

void vm_present_end(struct vm *vm)
{
    struct err err;

    if (!vm->present)
        return;
    merger_end(vm);
    if (!guest_end(TAKE(vm->present), /* dropped= */ NULL, &err))
        log_error("close the disks: %s", err.text);
    store_alive_unlock(vm->store);
    claim_release(TAKE(vm->claim), /* still_runs= */ false);
}

static bool machine_has_ended(const struct vm *vm)
{
    struct pollfd pidfd = {.fd = vm_machine_fd(vm), .events = POLLIN};

    return poll(&pidfd, 1, 0) > 0;
}

/* Nobody has asked for it. */
static void end_tell(struct vm *vm)
{
    struct machine *machine = vm->present->machine;
    const char *reason = vm->present->shutdown_reason;
    char words[512];
    bool in_order = machine_ended_in_order(machine);
    struct err ignored;

    /* What it said last may have come together with its end. */
    for (json_t *event; qmp_next_event(machine_qmp(machine), 0, &event, &ignored) && event; json_decref(event))
        guest_hear(vm->present, event);
    machine_last_words(machine, words, sizeof words);
    log_info("QEMU has ended (%s): %s", reason[0] ? reason : "no reason told", words);
    if (in_order && strcmp(reason, "guest-shutdown") == 0)
        last_end_write(vm->runtime_dir, END_GUEST_SHUTDOWN, "the guest has switched itself off");
    else if (in_order && strcmp(reason, "guest-panic") == 0)
        last_end_write(vm->runtime_dir, END_GUEST_PANICKED, "the guest has panicked");
    else
        last_end_write(vm->runtime_dir, in_order ? END_QEMU_ENDED : END_QEMU_FAILED, words);
}

bool vm_handle_events(struct vm *vm)
{
    bool heard = false;
    struct err err;

    if (!vm->present)
        return false;

    while (!machine_has_ended(vm)) {
        json_t *event;
        if (!qmp_next_event(machine_qmp(vm->present->machine), 0, &event, &err)) {
            /* The monitor closes a moment before the process is gone: its end is what counts. */
            struct pollfd pidfd = {.fd = vm_machine_fd(vm), .events = POLLIN};
            log_debug("monitor: %s", err.text);
            if (poll(&pidfd, 1, 2000) > 0)
                break;
            log_error("the monitor of QEMU is gone (%s): ending it", err.text);
            last_end_write(vm->runtime_dir, END_QEMU_FAILED, err.text);
            vm_present_end(vm);
            return true;
        }
        if (!event)
            return heard;
        log_debug("event %s", qmp_event_name(event, NULL));
        guest_hear(vm->present, event);
        json_decref(event);
        heard = true;
    }
    end_tell(vm);
    vm_present_end(vm);
    return true;
}

int vm_wait_ms(const struct vm *vm)
{
    return vm->present && !store_is_uncertain(vm->store) ? guest_wait_ms(vm->present) : -1;
}

bool vm_tend(struct vm *vm)
{
    return vm_wait_ms(vm) >= 0 && guest_tend(vm->present);
}

bool vm_waits_for_space(const struct vm *vm)
{
    return vm->present && guest_waits_for_space(vm->present);
}

bool vm_planned_state(struct vm *vm, enum plan_machine *ret_machine, struct err *err)
{
    enum plan_machine machine;

    vm_handle_events(vm);
    if (!vm_machine_state(vm, &machine, NULL, err))
        return false;
    *ret_machine = machine == MACHINE_PAUSED && vm_waits_for_space(vm) ? MACHINE_RUNNING : machine;
    return true;
}

bool vm_machine_state(struct vm *vm, enum plan_machine *ret_machine, char run_state[32], struct err *err)
{
    char state[32] = "";
    bool runs;

    if (!vm->present) {
        *ret_machine = guid_is_set(&vm_config(vm)->saved) ? MACHINE_SAVED : MACHINE_OFF;
    } else {
        if (!guest_runs(vm->present, state, &runs, err))
            return false;
        *ret_machine = runs ? MACHINE_RUNNING : MACHINE_PAUSED;
    }
    if (run_state)
        memcpy(run_state, state, sizeof state);
    return true;
}

const char *vm_state_name(enum plan_machine machine)
{
    static const char *const NAMES[] = {
        [MACHINE_OFF] = "off", [MACHINE_RUNNING] = "running", [MACHINE_PAUSED] = "paused", [MACHINE_SAVED] = "saved"};

    return NAMES[machine];
}

bool vm_require_machine(const struct vm *vm, const char *operation, struct err *err)
{
    if (vm->present)
        return true;
    return err_set(err, ERR_STATE, "%s: %s: the VM is %s", operation, vm_config(vm)->name,
                   guid_is_set(&vm_config(vm)->saved) ? "saved; start it first" : "off");
}

bool vm_answer(json_t *value, json_t **ret_value, struct err *err)
{
    if (!value)
        return err_oom(err);
    *ret_value = value;
    return true;
}

bool vm_answer_state(struct vm *vm, json_t **ret_value, struct err *err)
{
    enum plan_machine machine;

    if (!vm_machine_state(vm, &machine, NULL, err))
        return false;
    return vm_answer(json_pack("{s:s}", "state", vm_state_name(machine)), ret_value, err);
}

int64_t vm_now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000LL + now.tv_nsec / 1000;
}

/* Does the operation end with a machine where there is none yet? */
static bool ends_with_memory(struct vm *vm, const struct operation *operation, const json_t *args)
{
    const struct tree *tree = store_tree(vm->store);
    const struct config *snapshot = NULL;
    struct err ignored;

    if (json_is_true(json_object_get(args, "no_start")) || json_is_true(json_object_get(args, "disks_only")) ||
        json_is_true(json_object_get(args, "dry_run")))
        return false;
    const char *selector = json_string_value(json_object_get(args, "snapshot"));
    if (!selector && operation->run == op_revert)
        snapshot = tree_by_guid(tree, &tree->vm->parent);
    else if (!selector || !tree_find(tree, selector, &snapshot, &ignored))
        return false;
    return snapshot && snapshot->state_when_taken != STATE_OFF;
}

bool vm_needs_worker(struct vm *vm, const char *operation, const json_t *arguments)
{
    const struct operation *found = operation_find(operation);

    if (!found)
        return false;
    return (found->needs == MAKES_MACHINE && !json_is_true(json_object_get(arguments, "dry_run"))) ||
           (found->needs == MAY_MAKE_MACHINE && ends_with_memory(vm, found, arguments));
}

bool vm_run(struct vm *vm, const char *operation, const json_t *arguments, const struct progress *progress,
            json_t **ret_value, struct err *err)
{
    const struct operation *found = operation_find(operation);
    struct err ignored;

    if (!found)
        return err_set(err, ERR_USAGE, "unknown operation '%.100s'", operation);
    if (!args_known(arguments, found->known, err))
        return err_prefix(err, "%s", operation);
    if (found->needs == NEEDS_MACHINE && !vm_require_machine(vm, operation, err))
        return false;
    (void)!store_refresh(vm->store, &ignored); /* a guest can be stopped also where its folder cannot be read */
    merger_make_way(vm, operation);
    bool done = found->run(vm, arguments, progress, ret_value, err);
    merger_go_on(vm, operation, done);
    return done;
}
