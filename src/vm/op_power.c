/* start, stop, pause, resume, save. */
#include "vm_priv.h"

#include "args.h"
#include "auto.h"
#include "file.h"
#include "bases.h"
#include "clock.h"
#include "last_end.h"
#include "log.h"

#include <poll.h>

#define STOP_TIMEOUT_S 60
#define RESUME_LOOK_MS 500

/* The saved memory is used up by a start: the settings without it are committed before the guest goes on, because old memory must
 * never meet newer disks. */
static bool saved_state_plan(struct vm *vm, const char *what, struct plan **ret_plan, struct err *err)
{
    AUTO_CONFIG struct config *config = config_copy(vm_config(vm));

    if (!config)
        return err_oom(err);
    config->saved = (struct guid){0};
    config->memory = (struct guid){0};
    config->accel_used = ACCEL_AUTO;
    return plan_settings(store_tree(vm->store), config, what, ret_plan, err);
}

static bool saved_state_drop(struct vm *vm, const char *what, struct err *err)
{
    AUTO_PLAN struct plan *plan = NULL;
    struct vm_plan_run run = {0};

    return saved_state_plan(vm, what, &plan, err) && vm_run_plan(vm, plan, &run, err);
}

/* Of what start and stop do to files there is nothing but the end of saved memory. */
static bool dry_answer(struct vm *vm, const char *what, bool drops_saved, json_t **ret_value, struct err *err)
{
    AUTO_PLAN struct plan *plan = NULL;

    if (drops_saved)
        return saved_state_plan(vm, what, &plan, err) && vm_answer_plan(plan, ret_value, err);
    json_t *summary = json_sprintf("%s %s", what, vm_config(vm)->name);
    return vm_answer(json_pack("{s:{s:o, s:[]}}", "plan", "summary", summary, "steps"), ret_value, err);
}

static bool saved_accel_check(const struct config *config, struct err *err)
{
    enum config_accel accel;

    if (!accel_resolve(config->accel, &accel, err))
        return false;
    if (config->accel_used == ACCEL_AUTO || config->accel_used == accel)
        return true;
    return err_set(err, ERR_UNSUPPORTED, "%s: the memory was saved under %s, this host runs it under %s",
                   config->name, config_accel_name(config->accel_used), config_accel_name(accel));
}

static bool start_guest(struct vm *vm, bool is_to_run, struct guest **ret_guest, struct err *err)
{
    const struct config *config = vm_config(vm);
    struct guest_options options;
    AUTO_FREE char *nvram = NULL;
    AUTO_FREE char *state_path = NULL;

    if (guid_is_set(&config->saved)) {
        if (!saved_accel_check(config, err))
            return false;
        if (!(state_path = vm_saved_state_path(vm, config)))
            return err_oom(err);
    }
    if (!vm_guest_options(vm, config, &options, &nvram, err))
        return false;
    options.state_path = state_path;
    options.memory_id = &config->memory;
    options.is_to_run = is_to_run;
    return guest_start(config, &options, ret_guest, err);
}

/* A folder copied by hard links (cp -al) shares the images that are written: two machines would write to one (invariant 3). */
static bool tops_are_alone(const struct vm *vm, struct err *err)
{
    const struct config *config = vm_config(vm);
    struct io_stat stat;

    for (size_t i = 0; i < config->disk_count; i++) {
        const char *path = config->disks[i].path;
        if (config->disks[i].is_cdrom || !path_is_inside(path, vm->dir))
            continue;
        if (!io_stat_path(&io_real, path, &stat, err))
            return false;
        if (stat.links > 1)
            return err_set(err, ERR_STATE, "%s: is written by this VM and has another name in the file system, as in a copy made by "
                           "hard links: `bough import --copy` makes a VM of its own of a folder", path);
    }
    return true;
}

/* What has not been noted yet is; that this cannot be written is no reason not to start. */
static bool bases_look(struct vm *vm, struct err *err)
{
    AUTO_CONFIG struct config *config = config_copy(vm_config(vm));
    AUTO_PLAN struct plan *plan = NULL;
    struct vm_plan_run run = {0};
    struct err note_err;
    bool changed = false;

    if (!config)
        return err_oom(err);
    if (!bases_check(store_tree(vm->store), vm_config(vm), err))
        return false;
    if ((!bases_note(config, vm->dir, vm_config(vm), /* with_tops= */ false, &changed, &note_err) || changed) &&
        (!changed || !plan_settings(store_tree(vm->store), config, "start", &plan, &note_err) ||
         !vm_run_plan(vm, plan, &run, &note_err)))
        log_warning("what the bases are is not noted: %s", note_err.text);
    return true;
}

bool op_start(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
              struct err *err)
{
    bool paused = false, dry_run = false;
    struct guest *guest;
    struct err ignored;

    (void)progress;
    if (!args_bool(args, "paused", &paused, err) || !args_bool(args, "dry_run", &dry_run, err))
        return false;
    if (vm->present)
        return err_set(err, ERR_STATE, "start: %s: the VM runs already", vm_config(vm)->name);
    bool saved = guid_is_set(&vm_config(vm)->saved);
    if (!tops_are_alone(vm, err) || (dry_run ? !bases_check(store_tree(vm->store), vm_config(vm), err) : !bases_look(vm, err)))
        return err_prefix(err, "start: %s", vm_config(vm)->name);
    if (dry_run)
        return dry_answer(vm, "start", saved, ret_value, err);
    if (saved && vm_config(vm)->saved_state == STATE_PAUSED)
        paused = true;
    json_auto_t *ended = saved ? json_null() : last_end_read(vm->runtime_dir);
    if (!start_guest(vm, !paused, &guest, err)) {
        store_alive_unlock(vm->store);
        return err_prefix(err, "start: %s", vm_config(vm)->name);
    }
    if (saved && !saved_state_drop(vm, "start", err)) {
        guest_end(guest, /* dropped= */ NULL, &ignored);
        store_alive_unlock(vm->store);
        return false;
    }
    vm->present = guest;
    if (!paused && !guest_continue(guest, err))
        return false;
    return vm_answer_state(vm, ret_value, err) &&
           (json_object_set(*ret_value, "ended", ended) == 0 || err_oom(err));
}

/* Waits until the machine has ended. */
static bool wait_for_end(struct vm *vm, uint64_t timeout_s, const struct progress *progress, struct err *err)
{
    int64_t deadline = vm_now_us() + (int64_t)timeout_s * 1000000;
    int64_t start = vm_now_us();

    while (vm->present) {
        struct pollfd fds[2] = {{.fd = vm_machine_fd(vm), .events = POLLIN},
                                {.fd = vm_monitor_fd(vm), .events = POLLIN}};
        (void)!poll(fds, 2, 100);
        vm_handle_events(vm);
        vm_tend(vm); /* a guest writes much while it shuts down */
        if (progress_cancelled(progress))
            return err_set(err, ERR_CANCELLED, "stop: %s: cancelled; the guest may still shut down",
                           vm_config(vm)->name);
        if (vm->present && vm_now_us() > deadline && vm_waits_for_space(vm))
            return err_set(err, ERR_NO_SPACE, "stop: %s: the guest cannot shut down, there is no space for %s",
                           vm_config(vm)->name, guest_space_path(vm->present));
        if (vm->present && vm_now_us() > deadline)
            return err_set(err, ERR_TIMEOUT,
                           "stop: %s: the guest did not shut down within %llu seconds; --force ends it",
                           vm_config(vm)->name, (unsigned long long)timeout_s);
        progress_report(progress, "waiting for the guest to shut down",
                        (uint64_t)(vm_now_us() - start) / 1000000, timeout_s);
    }
    return true;
}

static bool stop_gently(struct vm *vm, uint64_t timeout_s, const struct progress *progress, struct err *err)
{
    enum plan_machine machine;

    if (!vm_machine_state(vm, &machine, NULL, err))
        return false;
    if (machine != MACHINE_RUNNING && vm_waits_for_space(vm))
        return err_set(err, ERR_STATE,
                       "stop: %s: the guest cannot shut down, it stands for want of space for %s; make room, or use "
                       "--force", vm_config(vm)->name, guest_space_path(vm->present));
    if (machine != MACHINE_RUNNING)
        return err_set(err, ERR_STATE, "stop: %s: a paused guest cannot shut down; resume it, or use --force",
                       vm_config(vm)->name);
    return machine_power_button(vm->present->machine, err) && wait_for_end(vm, timeout_s, progress, err);
}

/* That the guest has switched itself off is what was asked for; that QEMU crashed meanwhile is not. */
static void shutdown_forget(struct vm *vm)
{
    json_auto_t *ended = last_end_read(vm->runtime_dir);

    if (!last_end_is_fault(ended))
        last_end_forget(vm->runtime_dir);
}

bool op_stop(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
             struct err *err)
{
    bool force = false, dry_run = false;
    uint64_t timeout_s = STOP_TIMEOUT_S;

    if (!args_bool(args, "force", &force, err) || !args_bool(args, "dry_run", &dry_run, err) || !args_uint(args, "timeout_s", 86400, &timeout_s, err))
        return false;
    bool saved = guid_is_set(&vm_config(vm)->saved);
    if (dry_run && (force || !saved))
        return dry_answer(vm, "stop", saved, ret_value, err);
    if (!vm->present) {
        if (!saved)
            return vm_answer_state(vm, ret_value, err); /* what is asked for is so already */
        if (!force)
            return err_set(err, ERR_STATE, "stop: %s: the VM is saved; start it, or use --force to drop its "
                                           "saved memory", vm_config(vm)->name);
        return saved_state_drop(vm, "stop", err) && vm_answer_state(vm, ret_value, err);
    }
    if (force)
        vm_present_end(vm);
    else if (!stop_gently(vm, timeout_s, progress, err))
        return false;
    shutdown_forget(vm);
    return vm_answer_state(vm, ret_value, err);
}

bool op_pause(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
              struct err *err)
{
    (void)args;
    (void)progress;
    return guest_pause(vm->present, err) && vm_answer_state(vm, ret_value, err);
}

/* Does a guest that had no space find none again? QEMU repeats its requests at once. */
static bool stops_again(struct vm *vm)
{
    for (int64_t end = clock_ms() + RESUME_LOOK_MS; vm->present && clock_ms() < end;) {
        struct pollfd fd = {.fd = vm_monitor_fd(vm), .events = POLLIN};
        (void)!poll(&fd, 1, 20);
        vm_handle_events(vm);
        if (vm->present)
            guest_look_for_space(vm->present);
        if (vm_waits_for_space(vm))
            return true;
    }
    return false;
}

bool op_resume(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
               struct err *err)
{
    (void)args;
    (void)progress;
    if (store_is_uncertain(vm->store))
        return err_set(err, ERR_STATE, "resume: %s: it is not known which disks a power cut would leave the VM: stop it",
                       vm_config(vm)->name);
    vm_handle_events(vm);
    if (!vm_require_machine(vm, "resume", err))
        return false;
    bool had_no_space = vm->present->space.stopped;
    if (!guest_continue(vm->present, err))
        return false;
    if (had_no_space && stops_again(vm))
        return err_set(err, ERR_NO_SPACE, "resume: %s: there is still no space for %s; it goes on by itself when there is",
                       vm_config(vm)->name, guest_space_path(vm->present));
    return vm_answer_state(vm, ret_value, err);
}

bool op_save(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
             struct err *err)
{
    AUTO_PLAN struct plan *plan = NULL;
    struct plan_source source = vm_plan_source();
    struct plan_save request = {.accel_used = vm->present->accel,
                                .qemu_version = qmp_version(machine_qmp(vm->present->machine))};
    struct vm_plan_run run = {.progress = progress};
    bool dry_run = false;

    if (!args_bool(args, "dry_run", &dry_run, err) ||
        !vm_planned_state(vm, &request.machine, err) || !vm_require_machine(vm, "save", err) ||
        !plan_save(store_tree(vm->store), &source, &request, &plan, err))
        return false;
    if (!machine_can_save(vm->present->machine, err))
        return err_prefix(err, "save: %s", vm_config(vm)->name);
    if (dry_run)
        return vm_answer_room(vm, plan, ret_value, err);
    return vm_run_plan(vm, plan, &run, err) && vm_answer_state(vm, ret_value, err);
}
