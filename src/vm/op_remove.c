/* remove: a VM with all that Bough made of it. */
#include "vm_priv.h"

#include "args.h"
#include "auto.h"
#include "file.h"
#include "runtime.h"
#include "store_folder.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct stranger_scan {
    struct vm *vm;
    const struct plan_layer *layers;
    size_t layer_count;
    char *stranger; /* the first one; owned */
};

/* In the VM's folder only its two subfolders and the images of its chains are ours. */
static int look_for_stranger(void *context, const char *name)
{
    struct stranger_scan *scan = context;
    AUTO_FREE char *path = path_join(scan->vm->dir, name);

    if (!path)
        return ENOMEM;
    if (scan->stranger || strcmp(name, "Virtual Machines") == 0 || strcmp(name, "Snapshots") == 0)
        return 0;
    for (size_t i = 0; i < scan->layer_count; i++)
        if (strcmp(scan->layers[i].path, path) == 0)
            return 0;
    scan->stranger = TAKE(path);
    return 0;
}

static bool only_ours(struct vm *vm, struct err *err)
{
    struct stranger_scan scan = {.vm = vm};
    struct plan_layer *layers;

    if (!store_layers(vm->store, &layers, &scan.layer_count, err))
        return false;
    scan.layers = layers;
    bool listed = io_list(&io_real, vm->dir, look_for_stranger, &scan, err);
    store_layers_free(layers, scan.layer_count);
    AUTO_FREE char *stranger = scan.stranger;
    if (listed && stranger)
        return err_set(err, ERR_STATE, "%s: is not part of the VM: move it away first", stranger);
    return listed;
}

bool op_remove(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
               struct err *err)
{
    AUTO_FREE char *away = store_removed_dir(vm->dir);
    AUTO_PLAN struct plan *plan = NULL;
    const char *name = path_base(vm->dir);
    bool dry_run = false;

    if (!away)
        return err_oom(err);
    if (!args_bool(args, "dry_run", &dry_run, err))
        return false;
    if (vm->present)
        return err_set(err, ERR_STATE, "remove: %s: the VM runs: stop it first", name);
    if (!only_ours(vm, err) || !vm_others_spare_all(vm, err) || !plan_remove(store_tree(vm->store), away, &plan, err))
        return err_prefix(err, "remove: %s", name);
    if (dry_run)
        return vm_answer_plan(plan, ret_value, err);
    if (!store_run_folder(&io_real, plan, NULL, progress, err))
        return err_prefix(err, "remove: %s", name);
    runtime_remove(vm->runtime_dir);
    return vm_answer(json_object(), ret_value, err);
}
