/* Invariant 5: what no listed snapshot, and no chain of the VM, needs is garbage, if Bough made it. Bough's
 * own are the names that it gives: a GUID with a suffix of its own in its own place. All else is left alone.
 */
#include "store_look.h"
#include "store_private.h"

#include "log.h"
#include "name_list.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static const char *const STATE_SUFFIXES[] = {".bin", ".vsv", ".nvram", ".png"};

/* What is in the folder now; nothing if there is no such folder, or if it is a link to one: that may be another VM's. Taken whole before
 * anything is removed. */
static bool folder_read(const struct io *io, const char *dir, struct name_list *names, struct err *err)
{
    return is_link(dir) || name_list_read(io, dir, names, err) || err->code == ERR_NOT_FOUND || err->sys == ENOTDIR;
}

/* `<GUID>.bin` and the like, also half written. */
static bool is_state_name(const char *name, struct guid *ret_guid)
{
    for (size_t i = 0; i < ARRAY_SIZE(STATE_SUFFIXES); i++) {
        char temporary[24];
        snprintf(temporary, sizeof temporary, "%s" FILE_TEMPORARY_SUFFIX, STATE_SUFFIXES[i]);
        if (name_parse(name, STATE_SUFFIXES[i], ret_guid) || name_parse(name, temporary, ret_guid))
            return true;
    }
    return false;
}

/* --- removing --- */
static void remove_file(const struct io *io, const char *path)
{
    struct err err;

    log_debug("remove %s", path);
    if (!io_unlink(io, path, &err) && err.code != ERR_NOT_FOUND)
        log_debug("%s", err.text);
}

/* Stays if it holds something. */
static void remove_if_empty(const struct io *io, const char *path)
{
    int errnum = io->ops->remove_dir(io, path);

    log_debug("remove folder %s: %s", path, errnum == 0 ? "done" : strerror(errnum));
}

void remove_folder(const struct io *io, const char *path)
{
    AUTO_NAME_LIST struct name_list names = {0};
    struct err err;
    struct guid guid;

    if (!folder_read(io, path, &names, &err)) {
        log_debug("%s", err.text);
        return;
    }
    for (size_t i = 0; i < names.count; i++) {
        AUTO_FREE char *file = path_join(path, names.items[i]);
        if (file && is_state_name(names.items[i], &guid) && !is_folder(io, file))
            remove_file(io, file);
    }
    remove_if_empty(io, path);
}

/* --- what is needed --- */
static bool names_state(const struct config *vm, const char *name)
{
    struct guid guid;

    if (!is_state_name(name, &guid) || strstr(name, FILE_TEMPORARY_SUFFIX))
        return false;
    return guid_equal(&guid, &vm->saved) || guid_equal(&guid, &vm->nvram);
}

static bool is_unlisted(const struct tree *tree, const char *name, const char *end)
{
    struct guid guid;

    return name_parse(name, end, &guid) && !tree_by_guid(tree, &guid) && !guid_equal(&guid, &tree->vm->guid);
}

/* --- the places where Bough makes files --- */
static bool sweep_state_dir(struct store *store, struct err *err)
{
    AUTO_FREE char *dir = tree_vm_state_dir(store->tree);
    AUTO_NAME_LIST struct name_list names = {0};
    struct guid guid;

    if (!dir)
        return err_oom(err);
    if (!folder_read(store->io, dir, &names, err))
        return false;
    for (size_t i = 0; i < names.count; i++) {
        AUTO_FREE char *path = path_join(dir, names.items[i]);
        if (!path)
            return err_oom(err);
        if (is_state_name(names.items[i], &guid) && !names_state(store->tree->vm, names.items[i]) &&
            !is_folder(store->io, path))
            remove_file(store->io, path);
    }
    return true;
}

/* `<GUID>.xml` half written, whosoever. */
static bool sweep_temporaries(struct store *store, const char *folder, struct err *err)
{
    AUTO_FREE char *dir = path_join(store->vm_dir, folder);
    AUTO_NAME_LIST struct name_list names = {0};
    struct guid guid;

    if (!dir)
        return err_oom(err);
    if (!folder_read(store->io, dir, &names, err))
        return false;
    for (size_t i = 0; i < names.count; i++) {
        AUTO_FREE char *path = path_join(dir, names.items[i]);
        if (!path)
            return err_oom(err);
        if (name_parse(names.items[i], ".xml" FILE_TEMPORARY_SUFFIX, &guid))
            remove_file(store->io, path);
    }
    return true;
}

/* Settings first: what is left of a snapshot without them is recognised again. */
static bool sweep_snapshots(struct store *store, struct err *err)
{
    AUTO_FREE char *dir = tree_snapshots_dir(store->tree);
    AUTO_NAME_LIST struct name_list names = {0};

    if (!dir)
        return err_oom(err);
    if (!folder_read(store->io, dir, &names, err))
        return false;
    for (int folders = 0; folders <= 1; folders++) {
        for (size_t i = 0; i < names.count; i++) {
            AUTO_FREE char *path = path_join(dir, names.items[i]);
            if (!path)
                return err_oom(err);
            if (!folders && is_unlisted(store->tree, names.items[i], ".xml"))
                remove_file(store->io, path);
            else if (folders && is_unlisted(store->tree, names.items[i], ""))
                remove_folder(store->io, path);
        }
    }
    return true;
}

/* By what the file is, not by what it is called: a parent link may reach it by another path. */
static void sweep_candidates(struct store *store, const struct name_list *candidates, const struct chains *chains)
{
    for (size_t i = 0; i < candidates->count; i++) {
        struct io_stat stat;
        if (store->io->ops->stat(store->io, candidates->items[i], &stat) == 0 && stat.is_regular &&
            !chains_find(chains, stat.device, stat.inode))
            remove_file(store->io, candidates->items[i]);
    }
}

/* Layers that no settings name: needed only if a chain goes through them. */
static bool layer_candidates(struct store *store, const char *dir, struct name_list *ret_candidates,
                             struct err *err)
{
    AUTO_NAME_LIST struct name_list names = {0};

    if (!folder_read(store->io, dir, &names, err))
        return false;
    for (size_t i = 0; i < names.count; i++) {
        AUTO_FREE char *path = path_join(dir, names.items[i]);
        if (!path)
            return err_oom(err);
        if (tree_is_layer(store->tree, path) && !tree_names_disk(store->tree, path) &&
            !name_list_add(ret_candidates, path, err))
            return false;
    }
    return true;
}

/* Who died while it gave an image another parent may have left that in the system's memory: after a power cut the image would have its
 * old parent again, and miss it. */
static bool sync_moved(const struct io *io, const struct chains *chains, struct err *err)
{
    for (size_t i = 0; i < chains->count; i++) {
        AUTO_IO struct io_file *file = NULL;
        if (chains->files[i].has_moved &&
            (!io_open(io, chains->files[i].path, IO_READ_ONLY, &file, err) || !io_sync(file, err)))
            return false;
    }
    return true;
}

static bool sweep_layers(struct store *store, struct err *err)
{
    AUTO_FREE char *dir = tree_layers_dir(store->tree);
    AUTO_NAME_LIST struct name_list candidates = {0};
    struct chains chains;
    struct err chain_err;

    if (!dir)
        return err_oom(err);
    if (!layer_candidates(store, dir, &candidates, err))
        return false;
    if (candidates.count > 0) {
        if (!chains_read(store->io, store->tree, &chains, &chain_err)) {
            log_warning("%s: unneeded disks, if any, stay: %s", store->tree->vm->name, chain_err.text);
            return true;
        }
        if (sync_moved(store->io, &chains, &chain_err))
            sweep_candidates(store, &candidates, &chains);
        else
            log_warning("%s: unneeded disks stay: %s", store->tree->vm->name, chain_err.text);
        chains_done(&chains);
    }
    remove_if_empty(store->io, dir);
    return true;
}

/* `<folder><name>` with nothing below it: the name, else NULL. */
static const char *name_in(const char *path, const char *folder)
{
    size_t length = strlen(folder);

    return strncmp(path, folder, length) == 0 && !strchr(path + length, '/') ? path + length : NULL;
}

static bool is_layer_name(const struct store_look *look, const char *path)
{
    struct config vm = {.guid = look->guid};
    struct tree tree = {.vm_dir = look->vm_dir, .vm = &vm};

    return tree_is_layer(&tree, path);
}

bool store_look_is_own(const struct store_look *look, const char *path)
{
    size_t dir_length = strlen(look->vm_dir) + 1;
    AUTO_FREE char *state_dir = string_printf(VM_FOLDER "/%s/", look->guid.text);
    const char *inside = path_is_inside(path, look->vm_dir) ? path + dir_length : NULL;
    const char *name;
    struct guid guid;

    if (!inside || !state_dir)
        return false;
    if ((name = name_in(inside, VM_FOLDER "/")))
        return name_parse(name, ".xml" FILE_TEMPORARY_SUFFIX, &guid);
    if ((name = name_in(inside, state_dir)))
        return is_state_name(name, &guid);
    if ((name = name_in(inside, SNAPSHOTS_FOLDER "/")))
        return name_parse(name, ".xml", &guid) || name_parse(name, ".xml" FILE_TEMPORARY_SUFFIX, &guid) ||
               name_parse(name, "", &guid);
    if (is_layer_name(look, path))
        return true;
    for (size_t i = 0; i < look->snapshot_count; i++) {
        AUTO_FREE char *dir = string_printf(SNAPSHOTS_FOLDER "/%s/", look->snapshots[i]->snapshot.text);
        if (dir && (name = name_in(inside, dir)))
            return is_state_name(name, &guid);
    }
    return false;
}

bool store_look_remove(const struct store_look *look, const char *path)
{
    if (is_folder(look->io, path))
        remove_folder(look->io, path);
    else
        remove_file(look->io, path);
    return !io_exists(look->io, path);
}

bool store_recover(struct store *store, struct err *err)
{
    AUTO_FREE char *dir = path_join(store->vm_dir, VM_FOLDER);
    AUTO_FREE char *snapshots_dir = path_join(store->vm_dir, SNAPSHOTS_FOLDER);
    struct err sync_err;

    if (!dir || !snapshots_dir)
        return err_oom(err);
    /* The VM's file, or a snapshot's, may be there by a rename that no sync has made certain: after a power cut the one before
     * it would be back, and miss what is removed here. */
    if (!io_sync_dir(store->io, dir, &sync_err) ||
        (!io_sync_dir(store->io, snapshots_dir, &sync_err) && sync_err.code != ERR_NOT_FOUND)) {
        log_warning("%s: nothing is cleaned up: %s", store->tree->vm->name, sync_err.text);
        return true;
    }
    return sweep_temporaries(store, VM_FOLDER, err) && sweep_temporaries(store, SNAPSHOTS_FOLDER, err) &&
           sweep_state_dir(store, err) && sweep_snapshots(store, err) && sweep_layers(store, err);
}

/* --- after a plan that failed --- */
static void sweep_made_file(struct store *store, const char *path, const char *suffix)
{
    const struct tree *tree = store->tree;
    AUTO_FREE char *file = string_printf("%s%s", path, suffix);
    AUTO_FREE char *dir = path_dir(path);
    AUTO_FREE char *state_dir = tree_vm_state_dir(tree);
    AUTO_FREE char *snapshots_dir = tree_snapshots_dir(tree);
    struct guid guid;

    if (!file || !dir || !state_dir || !snapshots_dir)
        return;
    const char *name = path_base(file);
    bool is_garbage = false;
    if (tree_is_layer(tree, file))
        is_garbage = !tree_names_disk(tree, file); /* the plan's layers are tops: no chain goes through one */
    else if (strcmp(dir, state_dir) == 0)
        is_garbage = is_state_name(name, &guid) && !names_state(tree->vm, name);
    else if (strcmp(dir, snapshots_dir) == 0)
        is_garbage = is_unlisted(tree, name, ".xml");
    else if (is_state_name(name, &guid))
        is_garbage = is_unlisted(tree, path_base(dir), "");
    if (is_garbage && io_exists(store->io, file))
        remove_file(store->io, file);
}

/* The folders of S1 and others' stay; one that holds something cannot be removed. */
static void sweep_made_dir(struct store *store, const char *path)
{
    AUTO_FREE char *layers_dir = tree_layers_dir(store->tree);
    AUTO_FREE char *snapshots_dir = tree_snapshots_dir(store->tree);
    AUTO_FREE char *dir = path_dir(path);

    if (!layers_dir || !snapshots_dir || !dir)
        return;
    bool is_snapshots = strcmp(dir, snapshots_dir) == 0 && is_unlisted(store->tree, path_base(path), "");
    if (is_snapshots || strcmp(path, layers_dir) == 0)
        remove_if_empty(store->io, path);
}

static void sweep_nvram(struct store *store, const struct plan *plan, size_t index)
{
    AUTO_FREE char *path = plan_nvram_path(plan, index);

    if (path)
        sweep_made_file(store, path, "");
}

void sweep_plan(struct store *store, const struct plan *plan, size_t index)
{
    for (size_t i = index + 1; i-- > 0;) {
        const struct step *step = &plan->steps[i];
        switch (step->kind) {
        case STEP_CREATE_LAYER:
        case STEP_SHARE_FILE:
        case STEP_COPY_FILE:
        case STEP_WRITE_CONFIG:
        case STEP_SAVE_THUMBNAIL:
            sweep_made_file(store, step->path, "");
            break;
        case STEP_SAVE_MEMORY:
            sweep_made_file(store, step->path, ".bin");
            sweep_made_file(store, step->path, ".vsv");
            sweep_nvram(store, plan, i);
            break;
        case STEP_MAKE_DIR:
            sweep_made_dir(store, step->path);
            break;
        default:
            break;
        }
    }
}
