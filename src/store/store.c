#include "store_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

void store_close(struct store *store)
{
    if (!store)
        return;
    store_alive_unlock(store);
    if (store->manager_fd >= 0)
        lock_release(store->vm_dir, &store->guid, store->what, store->manager_fd);
    tree_free(store->tree);
    free(store->vm_dir);
    free(store);
}

const struct tree *store_tree(const struct store *store)
{
    return store->tree;
}

bool store_is_uncertain(const struct store *store)
{
    return store->is_uncertain;
}

static bool reload(struct store *store, const struct tree *known, const struct plan *plan, struct err *err)
{
    struct tree *tree;

    if (!load_tree(store->io, store->vm_dir, &store->guid, known, plan, &tree, err))
        return false;
    tree_free(store->tree);
    store->tree = tree;
    store->is_stale = false;
    return true;
}

bool store_reload(struct store *store, struct err *err)
{
    return reload(store, /* known= */ NULL, /* plan= */ NULL, err);
}

bool store_moved(struct store *store, const char *vm_dir, struct err *err)
{
    char *dir = path_absolute(vm_dir);

    if (!dir)
        return err_oom(err);
    free(store->vm_dir);
    store->vm_dir = dir;
    return store_reload(store, err);
}

bool store_refresh(struct store *store, struct err *err)
{
    return !store->is_stale || store_reload(store, err);
}

bool reload_listed(struct store *store, const struct plan *plan, struct err *err)
{
    return reload(store, store->tree, plan, err);
}

/* With both locks there is nobody who could be using what looks like garbage. */
static bool open_locked(struct store *store, bool recover, bool *ret_alive, struct err *err)
{
    AUTO_FD int alive_fd = -1;

    if (!lock_alive(store->vm_dir, &store->guid, &alive_fd, err) || !store_reload(store, err))
        return false;
    if (alive_fd >= 0 && recover && !store_recover(store, err))
        return false;
    *ret_alive = alive_fd < 0;
    return true;
}

bool store_open(const struct io *io, const char *vm_dir, const char *what, bool recover,
                struct store **ret_store, bool *ret_alive, struct err *err)
{
    AUTO_STORE struct store *store = calloc(1, sizeof *store);

    if (!store)
        return err_oom(err);
    *store = (struct store){.io = io, .manager_fd = -1, .alive_fd = -1, .vm_dir = path_absolute(vm_dir)};
    if (!store->vm_dir)
        return err_oom(err);
    snprintf(store->what, sizeof store->what, "%s", what);
    if (!load_guid(io, store->vm_dir, &store->guid, err) ||
        !lock_manager(store->vm_dir, &store->guid, what, &store->manager_fd, err) ||
        !open_locked(store, recover, ret_alive, err))
        return false;
    *ret_store = TAKE(store);
    return true;
}
