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

/* Another VM's disk may have one of these images for its base. */
static bool is_one_of(const char *path, const struct plan_layer *layers, size_t layer_count)
{
    struct io_stat wanted, stat;

    for (size_t i = 0; i < layer_count; i++)
        if (io_real.ops->stat(&io_real, path, &wanted) == 0 && io_real.ops->stat(&io_real, layers[i].path, &stat) == 0 &&
            stat.device == wanted.device && stat.inode == wanted.inode)
            return true;
    return false;
}

static bool needed_by(const char *name, const struct plan_layer *layers, size_t layer_count, struct err *err)
{
    AUTO_FREE char *dir = NULL;
    AUTO_TREE struct tree *tree = NULL;
    struct plan_layer *theirs;
    size_t their_count;
    bool is_free = true;

    if (!store_find(&io_real, name, &dir, err) || !store_read(&io_real, dir, &tree, err) ||
        !store_tree_layers(&io_real, tree, &theirs, &their_count, err))
        return true; /* one that cannot be read must not keep others from being removed */
    for (size_t i = 0; i < their_count && is_free; i++)
        if (!path_is_inside(theirs[i].path, dir) && is_one_of(theirs[i].path, layers, layer_count))
            is_free = err_set(err, ERR_BUSY, "%s: the VM '%s' needs it", theirs[i].path, name);
    store_layers_free(theirs, their_count);
    return is_free;
}

bool vm_others_spare(struct vm *vm, const struct plan_layer *layers, size_t count, struct err *err)
{
    char **names;
    bool is_free = true;

    if (count == 0)
        return true;
    if (!store_list(&io_real, &names, err))
        return false;
    for (size_t i = 0; names[i] && is_free; i++)
        is_free = strcmp(names[i], path_base(vm->dir)) == 0 || needed_by(names[i], layers, count, err);
    store_list_free(names);
    return is_free;
}

bool vm_others_spare_all(struct vm *vm, struct err *err)
{
    struct plan_layer *layers;
    size_t count, inside = 0;

    if (!store_layers(vm->store, &layers, &count, err))
        return false;
    for (size_t i = 0; i < count; i++) { /* those that are in the folder come first */
        struct plan_layer layer = layers[i];
        if (!path_is_inside(layer.path, vm->dir))
            continue;
        layers[i] = layers[inside];
        layers[inside++] = layer;
    }
    bool is_free = vm_others_spare(vm, layers, inside, err);
    store_layers_free(layers, count);
    return is_free;
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
