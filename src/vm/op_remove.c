/* remove: a VM with all that Bough made of it. */
#include "vm_priv.h"

#include "auto.h"
#include "file.h"
#include "runtime.h"

#include <errno.h>
#include <ftw.h>
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

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *walk)
{
    (void)stat;
    (void)walk;
    /* A `create` at the same time clears such folders away too. */
    return (type == FTW_DP ? rmdir(path) : unlink(path)) == 0 || errno == ENOENT ? 0 : -1;
}

/* The folder gets another name first: then the VM is gone as a whole, whatever becomes of the rest. */
static bool folder_remove(struct vm *vm, struct err *err)
{
    AUTO_FREE char *home = path_dir(vm->dir);
    AUTO_FREE char *away = home ? string_printf("%s/.%s.removed~", home, vm_config(vm)->guid.text) : NULL;

    if (!away)
        return err_oom(err);
    if (!io_rename(&io_real, vm->dir, away, err) || !io_sync_dir(&io_real, home, err))
        return false;
    if (nftw(away, remove_one, 16, FTW_DEPTH | FTW_PHYS) != 0 && errno != ENOENT)
        return err_sys(err, errno, "remove %s", away);
    return true;
}

bool op_remove(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
               struct err *err)
{
    const char *name = vm_config(vm)->name;

    (void)args;
    (void)progress;
    if (vm->present)
        return err_set(err, ERR_STATE, "remove: %s: the VM runs: stop it first", name);
    if (!only_ours(vm, err) || !folder_remove(vm, err))
        return err_prefix(err, "remove: %s", name);
    runtime_remove(vm->runtime_dir);
    return vm_answer(json_object(), ret_value, err);
}
