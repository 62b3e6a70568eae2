/* status, console, display, screenshot: looking at a VM. */
#include "vm_priv.h"

#include "args.h"
#include "auto.h"
#include "file.h"
#include "last_end.h"

#include <string.h>
#include <unistd.h>

/* Why a VM stands that its user did not pause, as an error is told; null for any other. */
static json_t *paused_for(const struct vm *vm, enum plan_machine machine, const char *run_state)
{
    struct err err;
    char text[sizeof err.text];

    if (machine != MACHINE_PAUSED)
        return json_null();
    if (strcmp(run_state, "guest-panicked") == 0 || strcmp(run_state, "internal-error") == 0)
        return json_pack("{s:s, s:s}", "code", run_state, "message",
                         run_state[0] == 'g' ? "the guest has panicked" : "QEMU cannot go on with this guest");
    if (!vm_waits_for_space(vm))
        return json_null();
    (void)err_set(&err, ERR_NO_SPACE, "no space left for %s; it goes on by itself when there is",
                  guest_space_path(vm->present));
    err_text_utf8(&err, text);
    return json_pack("{s:s, s:s}", "code", err_name(err.code), "message", text);
}

static json_t *disk_errors(const struct guest *guest)
{
    json_t *list = json_array();

    for (size_t i = 0; guest && i < guest->disk_count; i++) {
        const struct guest_disk_errors *errors = &guest->errors[i];
        char id[32];
        machine_disk_id(&guest->config->disks[i], id);
        if (errors->count > 0)
            json_array_append_new(list, json_pack("{s:s, s:s*, s:I, s:s, s:s}", "disk", id, "path",
                                                  guest->config->disks[i].path, "count", (json_int_t)errors->count,
                                                  "operation", errors->operation, "reason", errors->reason));
    }
    return list;
}

bool op_status(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
               struct err *err)
{
    const struct config *config = vm_config(vm);
    const struct guest *present = vm->present;
    enum plan_machine machine;
    char run_state[32];

    (void)args;
    (void)progress;
    if (!vm_machine_state(vm, &machine, run_state, err))
        return false;
    return vm_answer(
        json_pack("{s:s, s:s, s:s, s:s?, s:o, s:o, s:s?, s:n, s:s?, s:o, s:o, s:i, s:o, s:o}", "name", config->name, "guid",
                  config->guid.text, "state", vm_state_name(machine), "accelerator",
                  present ? config_accel_name(present->accel) : NULL, "qemu_pid",
                  present ? json_integer(machine_pid(present->machine)) : json_null(), "worker_pid",
                  present ? json_integer(getpid()) : json_null(), "qemu_version",
                  present ? qmp_version(machine_qmp(present->machine)) : NULL, "operation", "run_state",
                  present ? run_state : NULL, "paused_for", paused_for(vm, machine, run_state), "ended",
                  machine == MACHINE_OFF ? last_end_read(vm->runtime_dir) : json_null(), "resets",
                  present ? (int)present->resets : 0, "disk_errors", disk_errors(present),
                  "merging", merger_json(vm)),
        ret_value, err);
}

/* Where an operation is in progress, the worker's control socket answers in its place. */
bool op_cancel(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
               struct err *err)
{
    (void)vm;
    (void)args;
    (void)progress;
    return vm_answer(json_pack("{s:n}", "cancelled"), ret_value, err);
}

static bool answer_socket(struct vm *vm, const char *name, json_t **ret_value, struct err *err)
{
    AUTO_FREE char *path = path_join(vm->present->process_dir, name);

    if (!path)
        return err_oom(err);
    return vm_answer(json_pack("{s:s}", "socket", path), ret_value, err);
}

bool op_console(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
                struct err *err)
{
    (void)args;
    (void)progress;
    return answer_socket(vm, "console.sock", ret_value, err);
}

bool op_display(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
                struct err *err)
{
    (void)args;
    (void)progress;
    if (vm->present->config->display == DISPLAY_NONE)
        return err_set(err, ERR_STATE, "display: %s: the VM has no display (set display=vnc)",
                       vm_config(vm)->name);
    return answer_socket(vm, "vnc.sock", ret_value, err);
}

bool op_screenshot(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
                   struct err *err)
{
    const char *path;

    (void)progress;
    if (!args_required(args, "path", &path, err))
        return false;
    if (path[0] != '/')
        return err_set(err, ERR_USAGE, "screenshot: '%s' must be an absolute path", path);
    if (!machine_screenshot(vm->present->machine, path, err))
        return err_prefix(err, "screenshot: %s", vm_config(vm)->name);
    return vm_answer(json_pack("{s:s}", "path", path), ret_value, err);
}
