/* Plans of a VM that runs: the steps that need its machine. */
#include "vm_priv.h"

#include "auto.h"
#include "bases.h"
#include "log.h"
#include "room.h"
#include "thumbnail.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

struct plan_context {
    struct vm *vm;
    struct vm_plan_run *run;
    bool present_stopped;       /* by us: it goes on if the plan fails */
    bool wants_screen;          /* a later step saves a thumbnail */
    int screen_fd;              /* owned; -1: none, or not yet */
    struct guest *dropped;      /* owned: the present whose process is being killed */
    const char **dropped_paths; /* owned array of the plan's paths, for dropped_layers */
    struct guest_dropped dropped_layers;
};

static struct guid fresh_guid(void *context)
{
    (void)context;
    return guid_new();
}

struct plan_source vm_plan_source(void)
{
    struct timespec now;

    clock_gettime(CLOCK_REALTIME, &now);
    return (struct plan_source){
        .fresh_guid = fresh_guid,
        .now_ms = now.tv_sec * 1000LL + now.tv_nsec / 1000000,
    };
}

static bool present_runs(struct vm *vm, bool *ret_runs, struct err *err)
{
    char run_state[32];

    return guest_runs(vm->present, run_state, ret_runs, err);
}

/* As near to the instant as can be without being part of the guest's pause, or of what it waits for. */
static void screen_take(void *opaque)
{
    struct plan_context *context = opaque;
    struct err err;

    if (context->wants_screen &&
        !machine_screen_read(context->vm->present->machine, &context->screen_fd, &err))
        log_warning("the snapshot gets no thumbnail: %s", err.text);
}

static void save_thumbnail(struct plan_context *context, const struct step *step)
{
    AUTO_FD int fd = TAKE_FD(context->screen_fd);
    struct err err;

    if (fd >= 0 && !thumbnail_write(fd, step->path, &err))
        log_warning("the snapshot gets no thumbnail: %s", err.text);
}

static bool saves_thumbnail(const struct plan *plan)
{
    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == STEP_SAVE_THUMBNAIL)
            return true;
    return false;
}

/* The memory that the VM last had saved on its way here, for the new one to share. Any would do: it is
 * compared, not trusted. NULL if there is none; sharing is not worth a failure. */
char *vm_parent_bin(const struct vm *vm, const struct config *naming)
{
    const struct tree *tree = store_tree(vm->store);
    const struct config *parent = tree_by_guid(tree, &naming->parent);

    while (parent && (parent->state_when_taken == STATE_OFF || parent->memory_bytes != naming->memory_bytes))
        parent = tree_by_guid(tree, &parent->parent);
    AUTO_FREE char *dir = parent ? tree_snapshot_dir(tree, &parent->snapshot) : NULL;
    return dir ? tree_state_path(dir, &parent->snapshot, ".bin") : NULL;
}

static bool save_memory(struct plan_context *context, struct plan *plan, size_t index, struct err *err)
{
    const struct step *step = &plan->steps[index];
    struct vm *vm = context->vm;
    struct config *naming = plan_memory_config(plan, index);
    bool runs;

    if (!naming)
        return err_set(err, ERR_INTERNAL, "the plan saves memory that nothing names");
    /* What is dirty now need not be flushed between STOP and the instant: that is part of the pause. */
    if (!guest_flush(vm->present, err) || !present_runs(vm, &runs, err))
        return false;
    AUTO_FREE char *nvram_copy = NULL;
    if (step->from && !(nvram_copy = plan_nvram_path(plan, index)))
        return err_oom(err);
    AUTO_FREE char *parent = vm_parent_bin(vm, naming);
    struct guest_save save = {
        .state_path = step->path,
        .parent_bin = parent,
        .nvram = step->from,
        .nvram_copy = nvram_copy,
        .memory_id = naming->memory,
        .stay_stopped = !runs || step->state != STATE_RUNNING,
        .point_now = context->run->point_now,
        .progress = context->run->progress,
        .went_on = screen_take,
        .context = context,
    };
    context->present_stopped |= runs && save.stay_stopped;
    if (!guest_save(vm->present, &save, &context->run->saved, err))
        return false;
    naming->pause_us = context->run->saved.machine.pause_us;
    return true;
}

/* Does a later step set the target going? */
static bool target_is_to_run(const struct plan *plan)
{
    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == STEP_RUN_TARGET)
            return plan->steps[i].state == STATE_RUNNING;
    return false;
}

static bool start_target(struct plan_context *context, const struct plan *plan, const struct step *step, struct err *err)
{
    struct vm *vm = context->vm;
    struct guest_options options;
    AUTO_FREE char *nvram = NULL;

    /* A TAP interface cannot be held by two processes: the present must go first. If the target fails then,
     * the VM is Off. */
    if (vm->present && !machine_can_hold(step->config))
        vm_present_end(vm);
    if (!vm_guest_options(vm, step->config, &options, &nvram, err))
        return false;
    options.state_path = step->path;
    options.memory_id = &step->config->memory;
    options.hold_host_resources = vm->present != NULL;
    options.is_to_run = target_is_to_run(plan);
    return guest_start(step->config, &options, &vm->target, err);
}

static bool stop_present(struct plan_context *context, struct err *err)
{
    struct vm *vm = context->vm;
    bool runs;

    if (!vm->present)
        return true;
    if (!present_runs(vm, &runs, err))
        return false;
    if (!runs)
        return true;
    context->present_stopped = true;
    return machine_stop(vm->present->machine, err);
}

/* Working layers that the plan removes need not reach the disk any more; all else is closed in order. */
static void dropped_end(struct plan_context *context)
{
    struct err err;

    if (context->dropped && !guest_end(TAKE(context->dropped), &context->dropped_layers, &err))
        log_error("close the disks: %s", err.text);
}

/* The end of a process takes as long as the giving back of its memory. A target does not wait for it: nothing
 * of the two is the same, but for the host's resources. */
static bool drop_present(struct plan_context *context, const struct plan *plan, struct err *err)
{
    struct vm *vm = context->vm;

    if (!(context->dropped_paths = calloc(plan->step_count + 1, sizeof *context->dropped_paths)))
        return err_oom(err);
    context->dropped_layers.paths = context->dropped_paths;
    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == STEP_REMOVE_FILE)
            context->dropped_paths[context->dropped_layers.count++] = plan->steps[i].path;
    context->present_stopped = false;
    context->dropped = TAKE(vm->present);
    guest_end_start(context->dropped);
    if (vm->target)
        return true;
    dropped_end(context);
    store_alive_unlock(vm->store);
    return true;
}

static bool run_target(struct plan_context *context, const struct step *step, struct err *err)
{
    struct vm *vm = context->vm;

    if (!vm->target)
        return err_set(err, ERR_INTERNAL, "the plan runs a target that was not started");
    vm->present = TAKE(vm->target);
    if (step->state == STATE_RUNNING && !guest_continue(vm->present, err))
        return false;
    context->run->target_ran_us = vm_now_us();
    dropped_end(context);
    /* A forwarded port that is taken meanwhile is no reason to lose the guest that runs again. */
    struct err resource_err;
    if (!guest_take_resources(vm->present, &resource_err))
        log_error("%s", resource_err.text);
    return true;
}

static bool machine_step(void *opaque, struct plan *plan, size_t index, struct err *err)
{
    struct plan_context *context = opaque;
    const struct step *step = &plan->steps[index];
    struct vm *vm = context->vm;

    switch (step->kind) {
    case STEP_PREPARE_TOPS:
        return guest_prepare_tops(vm->present, step->config, err);
    case STEP_SAVE_MEMORY:
        return save_memory(context, plan, index, err);
    case STEP_SAVE_THUMBNAIL:
        save_thumbnail(context, step);
        return true;
    case STEP_FLUSH_SEALED:
        return guest_flush(vm->present, err);
    case STEP_START_TARGET:
        return start_target(context, plan, step, err);
    case STEP_STOP_PRESENT:
        return stop_present(context, err);
    case STEP_DROP_PRESENT:
        return drop_present(context, plan, err);
    case STEP_RUN_TARGET:
        return run_target(context, step, err);
    case STEP_REPARENT:
        return guest_reparent(vm->present, step->path, step->from, err);
    default:
        return err_set(err, ERR_INTERNAL, "step %s needs no machine", step_name(step->kind));
    }
}

/* Does the VM's file name the prepared tops, for certain? */
static bool tops_are_named(const struct vm *vm)
{
    const struct config *next = vm->present->next;
    const struct config *named = vm_config(vm);

    if (!next || store_is_uncertain(vm->store) || next->disk_count != named->disk_count)
        return false;
    for (size_t i = 0; i < next->disk_count; i++)
        if (!next->disks[i].is_cdrom && strcmp(next->disks[i].path, named->disks[i].path) != 0)
            return false;
    return true;
}

/* The writes must go where the VM's file says. Behind the first commit of a snapshot that could not be taken
 * back that is the new tops, which are empty so far; else they are not its yet, or, where nobody knows which
 * file a power cut would leave, may not become it: the old tops are right under both. */
static void tops_set_right(struct vm *vm)
{
    if (tops_are_named(vm))
        guest_switch_tops(vm->present);
    else if (vm->present->next)
        guest_give_up_tops(vm->present);
}

static void machine_abort(void *opaque, const struct plan *plan, size_t index)
{
    struct plan_context *context = opaque;
    struct vm *vm = context->vm;
    struct err err;

    (void)index;
    if (vm->target)
        guest_end(TAKE(vm->target), /* dropped= */ NULL, &err);
    if (!vm->present) {
        store_alive_unlock(vm->store);
        return;
    }
    tops_set_right(vm);
    /* Where a power cut may bring back either file, what the guest wrote on could belong to neither. */
    if (context->present_stopped && store_is_uncertain(vm->store))
        log_error("%s: it is not known whether it is durable: the VM stays paused", plan->summary);
    else if (context->present_stopped && !guest_continue(vm->present, &err))
        log_error("the VM could not be set running again: %s", err.text);
}

/* Before the instant nobody writes to the prepared tops. */
static bool tops_are_unused(void *opaque)
{
    const struct plan_context *context = opaque;

    return context->vm->present && context->vm->present->next;
}

/* Images that its engines have open. */
static bool takes(void *opaque, const struct step *step)
{
    const struct plan_context *context = opaque;

    return context->vm->present && step->kind == STEP_REPARENT;
}

static void plan_context_done(struct plan_context *context)
{
    dropped_end(context);
    free(context->dropped_paths);
    if (context->screen_fd >= 0)
        close(context->screen_fd);
}

/* What a base was is no more said before we write to it ourselves. */
static bool written_forget(struct vm *vm, struct plan *plan, struct err *err)
{
    AUTO_PLAN struct plan *first = NULL;

    return bases_forget_written(store_tree(vm->store), plan, &first, err) &&
           (!first || store_run(vm->store, first, NULL, NULL, err));
}

/* What lies over an image that a guest writes to is lost already. */
static bool is_written(const struct vm *vm, const char *path)
{
    for (size_t i = 0; vm->present && i < vm_config(vm)->disk_count; i++)
        if (!vm_config(vm)->disks[i].is_cdrom && strcmp(vm_config(vm)->disks[i].path, path) == 0)
            return true;
    return false;
}

/* Another VM's disk may lie over a sealed layer that would go. A merge has looked for that itself. */
static bool removed_are_spare(struct vm *vm, const struct plan *plan, struct err *err)
{
    AUTO_FREE struct plan_layer *layers = calloc(plan->step_count + 1, sizeof *layers);
    size_t count = 0;

    if (!layers)
        return err_oom(err);
    for (size_t i = 0; i < plan->step_count; i++) {
        const struct step *step = &plan->steps[i];
        if (step->kind == STEP_REPARENT || step->kind == STEP_MERGE_DATA || step->kind == STEP_CHECK_EMPTY)
            return true;
        if (step->kind == STEP_REMOVE_FILE && tree_is_layer(store_tree(vm->store), step->path) && !is_written(vm, step->path))
            layers[count++] = (struct plan_layer){.path = step->path};
    }
    return vm_others_spare(vm->dir, layers, count, err);
}

bool vm_run_plan(struct vm *vm, struct plan *plan, struct vm_plan_run *run, struct err *err)
{
    AUTO(plan_context_done)
    struct plan_context context = {
        .vm = vm, .run = run, .wants_screen = saves_thumbnail(plan), .screen_fd = -1};
    struct store_machine machine = {
        .step = machine_step, .abort = machine_abort, .may_go_back = tops_are_unused, .takes = takes, .context = &context};

    if (store_is_uncertain(vm->store))
        return err_set(
            err, ERR_STATE,
            "%s: an earlier change could not be made durable, and not be taken back: mend the file system, "
            "then stop the VM",
            plan->summary);
    return removed_are_spare(vm, plan, err) && room_check(vm, plan, err) && written_forget(vm, plan, err) &&
           store_run(vm->store, plan, &machine, run->progress, err);
}

bool vm_answer_room(const struct vm *vm, const struct plan *plan, json_t **ret_value, struct err *err)
{
    struct room room;

    if (!room_look(vm, plan, &room, err) || !vm_answer_plan(plan, ret_value, err))
        return false;
    json_object_set_new(*ret_value, "needs_bytes", json_integer((json_int_t)room.needs_bytes));
    json_object_set_new(*ret_value, "free_bytes", json_integer((json_int_t)room.fs.free_bytes));
    return true;
}

bool vm_answer_plan(const struct plan *plan, json_t **ret_value, struct err *err)
{
    json_t *steps = json_array();

    for (size_t i = 0; steps && i < plan->step_count; i++) {
        const struct step *step = &plan->steps[i];
        json_t *entry = json_pack("{s:s, s:s*, s:s*}", "step", step_name(step->kind), "path", step->path,
                                  "from", step->from);
        if (json_array_append_new(steps, entry) != 0) {
            json_decref(steps);
            steps = NULL;
        }
    }
    return vm_answer(json_pack("{s:{s:s, s:o}}", "plan", "summary", plan->summary, "steps", steps), ret_value,
                     err);
}

bool vm_guest_options(struct vm *vm, const struct config *config, struct guest_options *ret_options,
                      char **ret_nvram, struct err *err)
{
    int alive_fd;
    AUTO_FREE char *dir = NULL;
    AUTO_FREE char *nvram = NULL;

    if (guid_is_set(&config->nvram)) {
        dir = tree_vm_state_dir(store_tree(vm->store));
        nvram = dir ? tree_state_path(dir, &config->nvram, ".nvram") : NULL;
        if (!nvram)
            return err_oom(err);
    }
    if ((!vm->claim && !claim_take(&config->guid, vm->dir, &vm->claim, err)) ||
        !store_alive_lock(vm->store, &alive_fd, err))
        return false;
    *ret_nvram = TAKE(nvram);
    *ret_options =
        (struct guest_options){.runtime_dir = vm->runtime_dir, .alive_fd = alive_fd, .nvram = *ret_nvram};
    return true;
}

char *vm_snapshot_state_path(const struct vm *vm, const struct config *snapshot)
{
    const struct tree *tree = store_tree(vm->store);
    AUTO_FREE char *dir = tree_snapshot_dir(tree, &snapshot->snapshot);

    return dir ? tree_state_path(dir, &snapshot->snapshot, "") : NULL;
}

char *vm_saved_state_path(const struct vm *vm, const struct config *config)
{
    AUTO_FREE char *dir = tree_vm_state_dir(store_tree(vm->store));

    return dir ? tree_state_path(dir, &config->saved, "") : NULL;
}
