/* What a repair takes out of use is kept under another name, which no recovery takes for garbage. */
#include "repair.h"

#include "auto.h"
#include "buf.h"
#include "file.h"
#include "vm_priv.h"

#include <stdlib.h>
#include <string.h>

#define NAMES_TRIED 1000

static char *free_name(const char *path)
{
    for (unsigned i = 0; i < NAMES_TRIED; i++) {
        char *name = i == 0 ? string_printf("%s.lost", path) : string_printf("%s.lost%u", path, i + 1);
        if (!name || !io_exists(&io_real, name))
            return name;
        free(name);
    }
    return NULL;
}

bool repair_sync_dir_of(const char *path, struct err *err)
{
    AUTO_FREE char *dir = path_dir(path);

    return dir ? io_sync_dir(&io_real, dir, err) : err_oom(err);
}

bool repair_put_aside(struct repair *repair, const char *path, const char *why, struct err *err)
{
    if (!io_exists(&io_real, path))
        return true;
    AUTO_FREE char *name = free_name(path);
    if (!name)
        return err_set(err, ERR_EXISTS, "%s: there is no name left to keep it under", path);
    if (!repair->options->dry_run && (!io_rename(&io_real, path, name, err) || !repair_sync_dir_of(path, err)))
        return false;
    repair_tell(repair, path, "%s: kept as %s", why, path_base(name));
    return true;
}

/* --- layers --- */

/* False: some chain does not end at a base that is there. */
static bool mark_chain(struct repair *repair, const char *top)
{
    ptrdiff_t at = repair_image_at(repair, top);

    while (at >= 0 && !repair->images[at].is_seen) {
        repair->images[at].is_seen = true;
        if (repair->images[at].parent_id[0] == '\0')
            return true;
        at = repair->images[at].parent;
    }
    return at >= 0;
}

static bool mark_config(struct repair *repair, const struct config *config)
{
    bool whole = true;

    for (size_t i = 0; i < config->disk_count; i++)
        whole &= config->disks[i].is_cdrom || mark_chain(repair, config->disks[i].path);
    return whole;
}

static bool is_listed(const struct config *vm, const struct config *snapshot)
{
    for (size_t i = 0; i < vm->listed_count; i++)
        if (guid_equal(&vm->listed[i].guid, &snapshot->snapshot))
            return true;
    return false;
}

static bool mark_all(struct repair *repair, const struct config *vm)
{
    bool whole = true;

    for (size_t i = 0; i < repair->image_count; i++)
        repair->images[i].is_seen = false;
    for (size_t i = 0; i < repair->look->snapshot_count; i++)
        if (is_listed(vm, repair->look->snapshots[i]))
            whole &= mark_config(repair, repair->look->snapshots[i]);
    return mark_config(repair, vm) && whole;
}

static bool layer_aside(struct repair *repair, const char *path, const char *dir, struct err *err)
{
    AUTO_FREE char *to = path_join(dir, path_base(path));

    if (!to)
        return err_oom(err);
    if (!repair->options->dry_run &&
        (!dir_make_all(&io_real, dir, err) || !io_rename(&io_real, path, to, err) || !io_sync_dir(&io_real, dir, err) ||
         !repair_sync_dir_of(path, err)))
        return false;
    repair_tell(repair, path, "no settings that can be read need it: kept in %s", path_base(dir));
    return true;
}

/* *ret_paths: those that go aside; an owned array of the images' paths. */
static bool find_spare(struct repair *repair, const struct config *vm, const char ***ret_paths, size_t *ret_count, struct err *err)
{
    AUTO_FREE char *layers = string_printf("%s/Snapshots/%s", repair->look->vm_dir, vm->guid.text);
    const char **paths = layers ? calloc(repair->image_count + 1, sizeof *paths) : NULL;
    size_t count = 0;

    if (!paths)
        return err_oom(err);
    bool whole = mark_all(repair, vm);
    for (size_t i = 0; whole && i < repair->image_count; i++)
        if (!repair->images[i].is_seen && path_is_inside(repair->images[i].path, layers))
            paths[count++] = repair->images[i].path;
    *ret_paths = paths;
    *ret_count = count;
    return true;
}

bool repair_layers_spare(struct repair *repair, const struct config *vm, struct err *err)
{
    AUTO_FREE const char **paths = NULL;
    size_t count;

    if (!find_spare(repair, vm, &paths, &count, err))
        return false;
    AUTO_FREE struct plan_layer *layers = calloc(count + 1, sizeof *layers);
    if (!layers)
        return err_oom(err);
    for (size_t i = 0; i < count; i++)
        layers[i].path = paths[i];
    return vm_others_spare(repair->look->vm_dir, layers, count, err);
}

bool repair_layers_aside(struct repair *repair, const struct config *vm, struct err *err)
{
    AUTO_FREE char *plain = string_printf("%s/Snapshots/%s.lost", repair->look->vm_dir, vm->guid.text);
    AUTO_FREE const char **paths = NULL;
    size_t count;

    if (!plain)
        return err_oom(err);
    /* A folder of that name that a repair made before takes more. */
    if (!find_spare(repair, vm, &paths, &count, err))
        return false;
    for (size_t i = 0; i < count; i++)
        if (!layer_aside(repair, paths[i], plain, err))
            return false;
    return true;
}

/* --- the VM's file --- */

bool repair_write_config(struct repair *repair, const struct config *config, struct err *err)
{
    AUTO_FREE char *path = string_printf("%s/Virtual Machines/%s.xml", repair->look->vm_dir, config->guid.text);
    AUTO_FREE char *xml = NULL;
    size_t length;
    bool renamed;

    if (!path)
        return err_oom(err);
    return config_format(config, repair->look->vm_dir, &xml, &length, err) &&
           (repair->options->dry_run || file_replace(&io_real, path, xml, length, &renamed, err));
}
