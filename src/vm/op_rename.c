/* rename: another name for a VM's folder, which is the VM's name. */
#include "vm_priv.h"

#include "args.h"
#include "auto.h"
#include "file.h"
#include "log.h"
#include "store_folder.h"

#include <stdlib.h>
#include <string.h>

/* The worker, its engines and QEMU know their files by the folder's old name. */
static bool name_check(struct vm *vm, const char *name, struct err *err)
{
    if (!config_check_vm_name(name, err))
        return false;
    if (vm->present)
        return err_set(err, ERR_STATE, "the VM runs, and its processes have its files open by this name: stop or save it first");
    if (strcmp(name, path_base(vm->dir)) == 0)
        return err_set(err, ERR_EXISTS, "it has that name");
    return vm_others_spare_all(vm, err); /* their parent links lead to it by its name */
}

static bool folder_is(struct vm *vm, const char *dir, struct err *err)
{
    char *copy = strdup(dir);

    if (!copy)
        return err_oom(err);
    free(vm->dir);
    vm->dir = copy;
    if (!store_moved(vm->store, dir, err))
        return false;
    vm_follow_name(vm);
    return true;
}

bool op_rename(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value, struct err *err)
{
    AUTO_FREE char *home = path_dir(vm->dir);
    AUTO_PLAN struct plan *plan = NULL;
    const char *name;
    bool dry_run = false;

    if (!home)
        return err_oom(err);
    if (!args_required(args, "name", &name, err) || !args_bool(args, "dry_run", &dry_run, err) ||
        !name_check(vm, name, err))
        return err_prefix(err, "rename: %s", path_base(vm->dir));
    AUTO_FREE char *dir = path_join(home, name);
    if (!dir)
        return err_oom(err);
    if (!plan_move(store_tree(vm->store), dir, &plan, err))
        return false;
    if (dry_run)
        return vm_answer_plan(plan, ret_value, err);
    if (!store_run_folder(&io_real, plan, NULL, progress, err) || !folder_is(vm, dir, err))
        return err_prefix(err, "rename: %s", path_base(vm->dir));
    return vm_answer(json_pack("{s:s, s:s}", "name", name, "path", dir), ret_value, err);
}

/* The folder's name is the VM's, also where it was moved or copied by other means; what the settings say follows when the VM is opened
 * next. That fails only where nothing can be written, and then it is no matter. */
void vm_follow_name(struct vm *vm)
{
    AUTO_FREE char *home = NULL;
    AUTO_FREE char *parent = path_dir(vm->dir);
    AUTO_CONFIG struct config *config = NULL;
    AUTO_PLAN struct plan *plan = NULL;
    const char *name = path_base(vm->dir);
    struct err err;

    if (!parent || !store_home(&home, &err) || strcmp(home, parent) != 0 || strcmp(vm_config(vm)->name, name) == 0 ||
        !config_check_vm_name(name, &err))
        return;
    if (!(config = config_copy(vm_config(vm))) || !config_set_string(&config->name, name, &err) ||
        !plan_settings(store_tree(vm->store), config, "name", &plan, &err) ||
        !store_run(vm->store, plan, NULL, NULL, &err))
        log_debug("%s: its settings keep the name '%s'", vm->dir, vm_config(vm)->name);
}
