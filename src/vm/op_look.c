/* status, console, display, screenshot: looking at a VM. */
#include "vm_priv.h"

#include "args.h"
#include "auto.h"
#include "file.h"

#include <string.h>
#include <unistd.h>

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
        json_pack("{s:s, s:s, s:s, s:s?, s:o, s:o, s:s?, s:n, s:s?}", "name", config->name, "guid",
                  config->guid.text, "state", vm_state_name(machine), "accelerator",
                  present ? config_accel_name(present->accel) : NULL, "qemu_pid",
                  present ? json_integer(machine_pid(present->machine)) : json_null(), "worker_pid",
                  present ? json_integer(getpid()) : json_null(), "qemu_version",
                  present ? qmp_version(machine_qmp(present->machine)) : NULL, "operation", "run_state",
                  present ? run_state : NULL),
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
