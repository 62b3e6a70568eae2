/* snapshot: of a VM in any state. */
#include "vm_priv.h"

#include "args.h"
#include "auto.h"
#include "bases.h"
#include "disk_id.h"
#include "log.h"

#include <string.h>

#define LONG_PAUSE_MS 100

/* Only QEMU's own word tells that not one instruction was done since: a guest that went on and then found no space stands too. */
static bool is_used_up(struct vm *vm)
{
    char run_state[32];
    struct err ignored;

    return vm->present && machine_run_state(vm->present->machine, run_state, &ignored) &&
           strcmp(run_state, "postmigrate") == 0;
}

/* A completed save uses a QEMU process up: it cannot be saved again before it has run. So that a VM that stands, by its user or for
 * want of space, can be snapshotted again and again without a single instruction between, it goes on in a process that has loaded
 * what was just saved. */
static void used_guest_renew(struct vm *vm, const struct config *snapshot)
{
    struct guest_options options;
    AUTO_FREE char *nvram = NULL;
    AUTO_FREE char *state_path = vm_snapshot_state_path(vm, snapshot);
    struct err err;

    if (!state_path || !vm_guest_options(vm, vm->present->config, &options, &nvram, &err))
        return;
    options.state_path = state_path;
    options.memory_id = &snapshot->memory;
    options.hold_host_resources = true;
    if (!guest_reload(vm->present, &options, &err)) {
        log_error("the paused VM stays in its used process, it must be resumed before the next snapshot: %s",
                  err.text);
        return;
    }
    if (!guest_take_resources(vm->present, &err))
        log_error("%s", err.text);
}

/* How a guest that changed its memory faster than it was copied came to stand longer than one should; NULL: it did not. */
static json_t *pause_warning(const struct vm_plan_run *run)
{
    uint64_t pause_ms = run->saved.machine.pause_us / 1000;
    uint64_t changed_mib = run->saved.ram.resent_pages * RAM_PAGE_BYTES >> 20;

    if (pause_ms < LONG_PAUSE_MS)
        return NULL;
    return json_sprintf("the guest stood still for %llu ms: it had changed %llu MiB of its memory while that was copied",
                        (unsigned long long)pause_ms, (unsigned long long)changed_mib);
}

json_t *vm_snapshot_answer(const struct config *snapshot, const struct vm_plan_run *run, enum plan_machine now,
                           int64_t total_us)
{
    bool memory = snapshot->state_when_taken != STATE_OFF;
    bool saved_now = run->saved.ram.stream_bytes > 0;

    const char *mode = !saved_now ? NULL : run->saved.machine.background ? "background" : "pre-copy";
    const struct machine_save_result *saved = &run->saved.machine;

    return json_pack("{s:s, s:s, s:s, s:s?, s:I, s:I, s:I, s:I, s:b, s:I, s:I, s:I, s:s, s:o?}", "guid",
                     snapshot->snapshot.text, "name", snapshot->name, "state_when_taken",
                     config_state_name(snapshot->state_when_taken), "mode", mode, "pause_us", (json_int_t)saved->pause_us,
                     "pauses", (json_int_t)saved->pauses, "paused_us", (json_int_t)saved->paused_us, "passes",
                     (json_int_t)saved->passes, "too_fast", saved->too_fast, "copied_us", (json_int_t)saved->total_us,
                     "total_us", (json_int_t)total_us, "memory_bytes",
                     (json_int_t)(memory ? snapshot->memory_bytes : 0), "state", vm_state_name(now), "warning", pause_warning(run));
}

/* What could go wrong with the memory of now is told before anything is done. One that stands can only be saved as it is now. */
static bool point_now_check(struct vm *vm, enum plan_machine machine, struct err *err)
{
    char run_state[32];
    bool runs;

    if (machine != MACHINE_RUNNING)
        return true;
    if (!guest_runs(vm->present, run_state, &runs, err))
        return false;
    if (!runs || machine_can_save_background(vm->present->machine, err))
        return true;
    return err_prefix(err, "snapshot: %s: the point cannot be the moment of the request", vm_config(vm)->name);
}

bool vm_snapshot_request(struct vm *vm, struct plan_snapshot *ret_request, struct err *err)
{
    struct plan_snapshot request = {0};

    if (!vm_planned_state(vm, &request.machine, err))
        return false;
    if (vm->present) {
        request.qemu_version = qmp_version(machine_qmp(vm->present->machine));
        request.accel_used = vm->present->accel;
    }
    if (vm->present ? !machine_can_save(vm->present->machine, err) : !disk_chains_check(vm_config(vm), err))
        return err_prefix(err, "snapshot: %s", vm_config(vm)->name);
    *ret_request = request;
    return true;
}

bool op_snapshot(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
                 struct err *err)
{
    AUTO_PLAN struct plan *plan = NULL;
    struct plan_source source = vm_plan_source();
    struct plan_snapshot request = {0};
    struct vm_plan_run run = {.progress = progress};
    int64_t start_us = vm_now_us();
    struct guid guid;
    bool dry_run = false;

    if (!vm_snapshot_request(vm, &request, err) || !args_string(args, "name", &request.name, err) ||
        !args_string(args, "notes", &request.notes, err) || !args_bool(args, "dry_run", &dry_run, err) ||
        !args_bool(args, "scheduled", &request.scheduled, err) || !args_bool(args, "point_now", &run.point_now, err))
        return false;
    if (run.point_now && !point_now_check(vm, request.machine, err))
        return false;
    if (!plan_snapshot(store_tree(vm->store), &source, &request, &plan, &guid, err))
        return false;
    if (dry_run)
        return vm_answer_room(vm, plan, ret_value, err);
    /* Where a machine writes to what is being sealed, it is noted when it has ended. */
    if (!vm->present && !bases_note_plan(store_tree(vm->store), plan, vm_config(vm), /* with_tops= */ true, err))
        return err_prefix(err, "snapshot: %s", vm_config(vm)->name);
    if (!vm_run_plan(vm, plan, &run, err))
        return err_prefix(err, "snapshot: %s", vm_config(vm)->name);
    const struct config *snapshot = tree_by_guid(store_tree(vm->store), &guid);
    if (!snapshot)
        return err_set(err, ERR_INTERNAL, "the snapshot %s is not in the tree", guid.text);
    vm_handle_events(vm);
    enum plan_machine now = vm_waits_for_space(vm) ? MACHINE_PAUSED : request.machine;
    if (now == MACHINE_PAUSED && is_used_up(vm))
        used_guest_renew(vm, snapshot);
    return vm_answer(vm_snapshot_answer(snapshot, &run, now, vm_now_us() - start_us), ret_value, err);
}
