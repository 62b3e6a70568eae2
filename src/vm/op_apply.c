/* apply and revert: going back to a snapshot. */
#include "vm_priv.h"

#include "args.h"
#include "auto.h"
#include "bases.h"
#include "buf.h"
#include "disk_id.h"
#include "log.h"
#include "memory.h"

#include <stdio.h>
#include <string.h>

struct apply_request {
    const struct config *snapshot;
    bool snapshot_first, no_start, disks_only, verify, dry_run;
    int64_t start_us;
};

static bool flags_read(const json_t *args, struct apply_request *request, struct err *err)
{
    return args_bool(args, "snapshot_first", &request->snapshot_first, err) &&
           args_bool(args, "no_start", &request->no_start, err) &&
           args_bool(args, "disks_only", &request->disks_only, err) &&
           args_bool(args, "verify", &request->verify, err) && args_bool(args, "dry_run", &request->dry_run, err);
}

/* The same virtual hardware must be had here. */
static bool hardware_usable(const struct config *snapshot, struct err *err)
{
    enum config_accel accel;
    struct qemu qemu;

    if (!accel_resolve(snapshot->accel, &accel, err) || !qemu_find(&qemu, err))
        return false;
    if (accel != snapshot->accel_used)
        return err_set(err, ERR_UNSUPPORTED, "the snapshot was taken under %s, this host runs it under %s",
                       config_accel_name(snapshot->accel_used), config_accel_name(accel));
    if (qemu_check_machine(&qemu, snapshot->machine, err))
        return true;
    return err->code == ERR_UNSUPPORTED &&
           err_set(err, ERR_UNSUPPORTED, "the snapshot is of a machine %s, which QEMU %s does not offer",
                   snapshot->machine, qemu.version);
}

static bool files_usable(const struct vm *vm, const struct apply_request *request, const struct progress *progress,
                         struct err *err)
{
    const struct config *snapshot = request->snapshot;
    AUTO_FREE char *state_path = vm_snapshot_state_path(vm, snapshot);
    AUTO_FREE char *vsv = state_path ? string_printf("%s.vsv", state_path) : NULL;
    AUTO_FREE char *bin = state_path ? string_printf("%s.bin", state_path) : NULL;

    if (!vsv || !bin)
        return err_oom(err);
    return memory_check(state_path, snapshot, &snapshot->memory, err) &&
           (!request->verify || ram_verify(vsv, bin, progress, err));
}

/* What must hold on this host before anything of the present is touched. */
static bool memory_usable(const struct vm *vm, const struct apply_request *request,
                          const struct progress *progress, struct err *err)
{
    if (hardware_usable(request->snapshot, err) && files_usable(vm, request, progress, err))
        return true;
    size_t length = strlen(err->text);
    if (err->code != ERR_NO_MEMORY && err->code != ERR_CANCELLED)
        snprintf(err->text + length, sizeof err->text - length, "; --disks-only goes back without its memory");
    return false;
}

/* Damage in another chain than the snapshot's is no reason not to go back to it: what is needed is not known then, and all stays. */
static bool layers_read(struct vm *vm, const struct config *snapshot, struct plan_layer **ret_layers, size_t *ret_count,
                        struct err *err)
{
    if (store_chains_check(&io_real, snapshot, err) && store_present_layers(vm->store, ret_layers, ret_count, err))
        return true;
    if (err->code == ERR_NO_MEMORY || !disk_chains_check(snapshot, err))
        return false;
    log_warning("%s: not all of its disks can be followed, unneeded ones stay", vm_config(vm)->name);
    *ret_layers = NULL;
    *ret_count = 0;
    return true;
}

/* ret_first: the GUID of the snapshot of the present; unset where none is wanted. */
static bool plan_make(struct vm *vm, const struct apply_request *request, struct plan **ret_plan,
                      struct guid *ret_first, struct err *err)
{
    struct plan_source source = vm_plan_source();
    struct plan_apply apply = {
        .snapshot = request->snapshot->snapshot,
        .no_start = request->no_start,
        .disks_only = request->disks_only,
    };
    struct plan_snapshot first = {0};
    struct plan_layer *layers;
    size_t layer_count;

    *ret_first = (struct guid){0};
    if (!vm_planned_state(vm, &apply.machine, err) ||
        (request->snapshot_first && !vm_snapshot_request(vm, &first, err)) ||
        !layers_read(vm, request->snapshot, &layers, &layer_count, err))
        return false;
    apply.layers = layers;
    apply.layer_count = layer_count;
    bool planned = request->snapshot_first
                       ? plan_apply_first(store_tree(vm->store), &source, &first, &apply,
                                          !machine_can_hold(request->snapshot), ret_plan, ret_first, err)
                       : plan_apply(store_tree(vm->store), &source, &apply, ret_plan, err);
    store_layers_free(layers, layer_count);
    return planned;
}

static bool apply_answer(struct vm *vm, const struct guid *guid, int64_t start_us, int64_t ran_us, json_t *first,
                         json_t **ret_value, struct err *err)
{
    enum plan_machine machine;

    if (!vm_machine_state(vm, &machine, NULL, err))
        return false;
    return vm_answer(json_pack("{s:s, s:s, s:o, s:O?}", "state", vm_state_name(machine), "guid", guid->text,
                               "running_us", ran_us ? json_integer(ran_us - start_us) : json_null(), "first", first),
                     ret_value, err);
}

/* What was done of the two is told: it cannot be seen from the reason. */
static bool first_failed(const struct vm *vm, const struct guid *first, struct err *err)
{
    const struct config *taken = tree_by_guid(store_tree(vm->store), first);

    if (!taken)
        return err_prefix(err, "nothing was applied, and no snapshot taken");
    if (guid_equal(&vm_config(vm)->parent, first))
        return err_prefix(err, "the snapshot '%.100s' was taken, nothing was applied", taken->name);
    return err_prefix(err, "the snapshot '%.100s' was taken, and the other one applied", taken->name);
}

/* NULL where there was none. */
static json_t *first_answer(const struct vm *vm, const struct guid *guid, const struct vm_plan_run *run,
                            int64_t start_us)
{
    const struct config *taken = guid_is_set(guid) ? tree_by_guid(store_tree(vm->store), guid) : NULL;
    enum plan_machine was = MACHINE_OFF;

    if (!taken)
        return NULL;
    if (taken->state_when_taken != STATE_OFF && run->saved.ram.stream_bytes == 0)
        was = MACHINE_SAVED;
    else if (taken->state_when_taken != STATE_OFF)
        was = taken->state_when_taken == STATE_RUNNING ? MACHINE_RUNNING : MACHINE_PAUSED;
    return vm_snapshot_answer(taken, run, was, vm_now_us() - start_us);
}

static bool bases_note_all(const struct vm *vm, const struct apply_request *request, struct plan *plan, struct err *err)
{
    const struct tree *tree = store_tree(vm->store);

    return bases_note_plan(tree, plan, request->snapshot, /* with_tops= */ false, err) &&
           (!request->snapshot_first || bases_note_plan(tree, plan, tree->vm, /* with_tops= */ true, err));
}

static bool run(struct vm *vm, const struct apply_request *request, const struct progress *progress,
                json_t **ret_value, struct err *err)
{
    AUTO_PLAN struct plan *plan = NULL;
    struct vm_plan_run plan_run = {.progress = progress};
    struct guid guid = request->snapshot->snapshot, first;

    if (!plan_make(vm, request, &plan, &first, err))
        return false;
    if (request->dry_run)
        return vm_answer_room(vm, plan, ret_value, err);
    if (!vm->present && !bases_note_all(vm, request, plan, err))
        return false;
    if (!vm_run_plan(vm, plan, &plan_run, err))
        return guid_is_set(&first) && first_failed(vm, &first, err);
    json_t *answer = first_answer(vm, &first, &plan_run, request->start_us);
    bool done = apply_answer(vm, &guid, request->start_us, plan_run.target_ran_us, answer, ret_value, err);
    json_decref(answer);
    return done;
}

static bool apply(struct vm *vm, struct apply_request *request, const struct progress *progress,
                  json_t **ret_value, struct err *err)
{
    bool memory = request->snapshot->state_when_taken != STATE_OFF && !request->disks_only;

    request->start_us = vm_now_us();
    return disk_ids_check(request->snapshot, err) && bases_check(store_tree(vm->store), request->snapshot, err) &&
           (!memory || memory_usable(vm, request, progress, err)) && run(vm, request, progress, ret_value, err);
}

bool op_apply(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
              struct err *err)
{
    struct apply_request request = {0};
    const char *selector;

    if (!args_required(args, "snapshot", &selector, err) || !flags_read(args, &request, err) ||
        !tree_find(store_tree(vm->store), selector, &request.snapshot, err) ||
        !apply(vm, &request, progress, ret_value, err))
        return err_prefix(err, "apply: %s", vm_config(vm)->name);
    return true;
}

bool op_revert(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
               struct err *err)
{
    struct apply_request request = {0};
    const struct tree *tree = store_tree(vm->store);
    const char *selector = NULL;

    if (!flags_read(args, &request, err) || !args_string(args, "snapshot", &selector, err))
        return false;
    if (!selector)
        request.snapshot = tree_by_guid(tree, &tree->vm->parent);
    else if (!tree_find(tree, selector, &request.snapshot, err))
        return err_prefix(err, "revert: %s", tree->vm->name);
    if (!request.snapshot)
        return err_set(err, ERR_STATE, "revert: %s: the VM descends from no snapshot", tree->vm->name);
    if (!apply(vm, &request, progress, ret_value, err))
        return err_prefix(err, "revert: %s", vm_config(vm)->name);
    return true;
}
