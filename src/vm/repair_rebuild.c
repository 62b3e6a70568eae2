/* A VM's file from what is left: its snapshots' files say what the machine was like, parent links which of them its working disks lie
 * over. Changes of the settings since that snapshot are lost, and told to be. */
#include "repair.h"

#include "auto.h"
#include "buf.h"
#include "file.h"
#include "name_list.h"
#include "vhd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

struct rebuild {
    struct repair *repair;
    const struct config **snapshots; /* those that can be listed; owned array */
    size_t count;
};

static void rebuild_done(struct rebuild *rebuild)
{
    free(rebuild->snapshots);
}

/* --- which snapshots --- */

static bool state_exists(const struct repair *repair, const struct config *snapshot, const char *suffix)
{
    AUTO_FREE char *path = string_printf("%s/Snapshots/%s/%s%s", repair->look->vm_dir, snapshot->snapshot.text,
                                         snapshot->snapshot.text, suffix);

    return path && io_exists(&io_real, path);
}

/* A snapshot that is being deleted, or was never finished, lacks some. What is there and damaged is told by the check. */
static bool has_its_files(const struct repair *repair, const struct config *snapshot)
{
    for (size_t i = 0; i < snapshot->disk_count; i++)
        if (!snapshot->disks[i].is_cdrom && !io_exists(&io_real, snapshot->disks[i].path) &&
            repair_image_at(repair, snapshot->disks[i].path) < 0)
            return false;
    return snapshot->state_when_taken == STATE_OFF ||
           (state_exists(repair, snapshot, ".bin") && state_exists(repair, snapshot, ".vsv"));
}

/* Which images are a snapshot's disks, and which have others over them. */
static void images_mark(struct rebuild *rebuild)
{
    struct repair_image *images = rebuild->repair->images;

    for (size_t i = 0; i < rebuild->repair->image_count; i++)
        if (images[i].parent >= 0)
            images[images[i].parent].is_parent = true;
    for (size_t i = 0; i < rebuild->count; i++) {
        const struct config *snapshot = rebuild->snapshots[i];
        for (size_t j = 0; j < snapshot->disk_count; j++) {
            ptrdiff_t at = snapshot->disks[j].is_cdrom ? -1 : repair_image_at(rebuild->repair, snapshot->disks[j].path);
            if (at < 0)
                continue;
            images[at].is_shared |= images[at].snapshot != NULL;
            images[at].snapshot = snapshot;
        }
    }
}

static bool rebuild_begin(struct rebuild *rebuild, struct err *err)
{
    const struct store_look *look = rebuild->repair->look;

    rebuild->snapshots = calloc(look->snapshot_count + 1, sizeof *rebuild->snapshots);
    if (!rebuild->snapshots)
        return err_oom(err);
    for (size_t i = 0; i < look->snapshot_count; i++)
        if (guid_equal(&look->snapshots[i]->guid, &look->guid) && has_its_files(rebuild->repair, look->snapshots[i]))
            rebuild->snapshots[rebuild->count++] = look->snapshots[i];
    images_mark(rebuild);
    return true;
}

static const struct config *listable_find(const struct rebuild *rebuild, const struct guid *guid)
{
    for (size_t i = 0; guid_is_set(guid) && i < rebuild->count; i++)
        if (guid_equal(&rebuild->snapshots[i]->snapshot, guid))
            return rebuild->snapshots[i];
    return NULL;
}

/* The nearest image below the one at index that is a snapshot's disk; -1: none. */
static ptrdiff_t named_below(const struct repair *repair, ptrdiff_t index)
{
    for (size_t steps = 0; index >= 0 && steps <= repair->image_count; steps++) {
        index = repair->images[index].parent;
        if (index >= 0 && repair->images[index].snapshot)
            return index;
    }
    return -1;
}

/* Its own file says it, unless that one was deleted since: then the images do, if they agree. */
static struct guid parent_of(const struct rebuild *rebuild, const struct config *snapshot)
{
    const struct config *parent = listable_find(rebuild, &snapshot->parent);
    const struct guid none = {0};

    if (parent || !guid_is_set(&snapshot->parent))
        return parent ? parent->snapshot : none;
    for (size_t i = 0; i < snapshot->disk_count; i++) {
        ptrdiff_t at = snapshot->disks[i].is_cdrom ? -1 : repair_image_at(rebuild->repair, snapshot->disks[i].path);
        if (at < 0 || (at = named_below(rebuild->repair, at)) < 0)
            continue;
        const struct repair_image *image = &rebuild->repair->images[at];
        if (image->is_shared || (parent && image->snapshot != parent))
            return none;
        parent = image->snapshot;
    }
    return parent ? parent->snapshot : none;
}

static bool list_make(const struct rebuild *rebuild, struct config *vm, struct err *err)
{
    for (size_t i = 0; i < rebuild->count; i++) {
        const struct config *snapshot = rebuild->snapshots[i];
        struct config_listed listed = {.guid = snapshot->snapshot, .parent = parent_of(rebuild, snapshot)};
        if (!config_add_listed(vm, &listed, err))
            return false;
        if (snapshot->created_ms < vm->created_ms)
            vm->created_ms = snapshot->created_ms;
    }
    return true;
}

/* --- which of them the VM lay over --- */

/* A layer that nothing lies over and no snapshot names was a working disk, or stands over one and is empty: that reads the same. */
static bool is_working(const struct repair *repair, const struct repair_image *image)
{
    if (image->parent < 0 || image->is_parent || image->snapshot)
        return false;
    AUTO_FREE char *dir = string_printf("%s/Snapshots/%s", repair->look->vm_dir, repair->look->guid.text);
    return dir && path_is_inside(image->path, dir);
}

/* The working disk over the image at that path; *ret_count: how many there are. */
static ptrdiff_t working_over(const struct repair *repair, const char *path, size_t *ret_count)
{
    ptrdiff_t under = repair_image_at(repair, path), found = -1;

    *ret_count = 0;
    for (size_t i = 0; under >= 0 && i < repair->image_count; i++) {
        if (!is_working(repair, &repair->images[i]) || named_below(repair, (ptrdiff_t)i) != under)
            continue;
        found = (ptrdiff_t)i;
        ++*ret_count;
    }
    return found;
}

enum fit { FITS_NOT, FITS_IN_SEVERAL_WAYS, FITS };

static enum fit snapshot_fits(const struct repair *repair, const struct config *snapshot)
{
    enum fit fit = FITS_NOT;

    for (size_t i = 0; i < snapshot->disk_count; i++) {
        size_t count;
        if (snapshot->disks[i].is_cdrom)
            continue;
        ptrdiff_t at = working_over(repair, snapshot->disks[i].path, &count);
        if (at < 0)
            return FITS_NOT;
        bool is_clear = count == 1 && !repair->images[named_below(repair, at)].is_shared;
        fit = is_clear && fit != FITS_IN_SEVERAL_WAYS ? FITS : FITS_IN_SEVERAL_WAYS;
    }
    return fit;
}

/* All of them, with what speaks for each. */
static void offer_all(const struct rebuild *rebuild)
{
    repair_cannot(rebuild->repair,
                  rebuild->count == 0
                      ? "the VM's file cannot be made again: there is no snapshot to take its settings from"
                      : "the VM's file can be made again, but what the VM lay over is not clear: choose by --from SNAPSHOT");
    for (size_t i = 0; i < rebuild->count; i++) {
        enum fit fit = snapshot_fits(rebuild->repair, rebuild->snapshots[i]);
        repair_offer(rebuild->repair, rebuild->snapshots[i],
                     fit == FITS       ? "there is a working disk over each of its disks"
                     : fit == FITS_NOT ? "not all of its disks have a working disk over them: those without get an empty one"
                                       : "a disk of it has more than one working disk over it: move the wrong ones away first");
    }
}

static bool matches(const struct config *snapshot, const char *selector)
{
    return strcmp(snapshot->name, selector) == 0 || (strlen(selector) >= 4 && guid_has_prefix(&snapshot->snapshot, selector));
}

/* The one that was asked for, or the only one that fits. NULL: told why not. */
static const struct config *present_find(const struct rebuild *rebuild, struct err *err)
{
    const char *from = rebuild->repair->options->from;
    const struct config *found = NULL;
    size_t count = 0;

    for (size_t i = 0; i < rebuild->count; i++) {
        enum fit fit = snapshot_fits(rebuild->repair, rebuild->snapshots[i]);
        if (from ? !matches(rebuild->snapshots[i], from) : fit == FITS_NOT)
            continue;
        found = rebuild->snapshots[i];
        count += from || fit == FITS ? 1 : 2; /* one with several ways is no clear case */
    }
    if (count == 1)
        return found;
    if (from)
        (void)err_set(err, count ? ERR_AMBIGUOUS : ERR_NOT_FOUND, "--from: %s snapshot with its files answers to '%s'",
                      count ? "more than one" : "no", from);
    else
        offer_all(rebuild);
    return NULL;
}

/* --- the VM's own parts --- */

static bool layer_make(struct repair *repair, struct config_disk *disk, struct err *err)
{
    struct config vm = {.guid = repair->look->guid};
    struct tree tree = {.vm_dir = repair->look->vm_dir, .vm = &vm};
    struct guid guid = guid_new();
    char *path = tree_layer_path(&tree, disk->path, &guid);
    AUTO_FREE char *dir = path ? path_dir(path) : NULL;
    struct vhd_create_options options = {.type = VHD_DIFFERENCING, .parent_path = disk->path};

    if (!dir) {
        free(path);
        return err_oom(err);
    }
    if (!repair->options->dry_run && (!dir_make_all(&io_real, dir, err) || !vhd_create(&io_real, path, &options, err) ||
                                      !io_sync_dir(&io_real, dir, err))) {
        free(path);
        return false;
    }
    repair_tell(repair, path, "an empty disk over %s was made: no working disk was left there", path_base(disk->path));
    bool noted = repair_image_note(repair, path, disk->path, err);
    free(disk->path);
    disk->path = path;
    return noted;
}

static bool disks_choose(struct repair *repair, struct config *vm, struct err *err)
{
    for (size_t i = 0; i < vm->disk_count; i++) {
        struct config_disk *disk = &vm->disks[i];
        size_t count;
        if (disk->is_cdrom)
            continue;
        ptrdiff_t index = working_over(repair, disk->path, &count);
        if (count > 1)
            return err_set(err, ERR_AMBIGUOUS, "%s: more than one working disk lies over it: move the wrong ones away", disk->path);
        if (count == 0 ? !layer_make(repair, disk, err) : !config_set_string(&disk->path, repair->images[index].path, err))
            return false;
        disk->image_id[0] = '\0';
    }
    return true;
}

struct state_files {
    char **names; /* owned */
    size_t count, nvram_count;
};

static int state_file_add(void *context, const char *name)
{
    struct state_files *files = context;
    const char *end = strrchr(name, '.');

    if (!end || (size_t)(end - name) != GUID_LENGTH ||
        (strcmp(end, ".nvram") != 0 && strcmp(end, ".bin") != 0 && strcmp(end, ".vsv") != 0))
        return 0;
    char **grown = reallocarray(files->names, files->count + 1, sizeof *grown);
    if (!grown)
        return ENOMEM;
    files->names = grown;
    if (!(grown[files->count] = strdup(name)))
        return ENOMEM;
    files->nvram_count += strcmp(end, ".nvram") == 0;
    files->count++;
    return 0;
}

static void state_files_done(struct state_files *files)
{
    for (size_t i = 0; i < files->count; i++)
        free(files->names[i]);
    free(files->names);
}

/* As the snapshot has them. */
static bool nvram_copy(struct repair *repair, const struct config *snapshot, const char *dir, struct config *vm, struct err *err)
{
    AUTO_FREE char *from = string_printf("%s/Snapshots/%s/%s.nvram", repair->look->vm_dir, snapshot->snapshot.text,
                                         snapshot->nvram.text);
    AUTO_FREE char *to = NULL;
    AUTO_BUF struct buf content = BUF_INIT;
    bool renamed;

    vm->nvram = guid_new();
    to = string_printf("%s/%s.nvram", dir, vm->nvram.text);
    if (!from || !to)
        return err_oom(err);
    if (!file_read_all(&io_real, from, 64U << 20, &content, err) ||
        (!repair->options->dry_run && (!dir_make_all(&io_real, dir, err) ||
                                       !file_replace(&io_real, to, content.data, content.length, &renamed, err))))
        return false;
    repair_tell(repair, to, "the UEFI variables are those of the snapshot now");
    return true;
}

/* The only one that is there is the VM's. */
static bool nvram_take(const struct state_files *files, struct config *vm)
{
    char text[GUID_LENGTH + 1] = {0};

    for (size_t i = 0; i < files->count; i++) {
        if (!strstr(files->names[i], ".nvram") || files->nvram_count != 1)
            continue;
        memcpy(text, files->names[i], GUID_LENGTH);
        return guid_parse(text, &vm->nvram);
    }
    return false;
}

/* Whether saved memory belongs to the disks as they are now cannot be known: old memory must never meet newer disks. */
static bool state_choose(struct repair *repair, const struct config *snapshot, struct config *vm, struct err *err)
{
    AUTO_FREE char *dir = string_printf("%s/Virtual Machines/%s", repair->look->vm_dir, vm->guid.text);
    AUTO(state_files_done) struct state_files files = {0};
    bool has_nvram = guid_is_set(&vm->nvram);

    if (!dir)
        return err_oom(err);
    if (!io_list(&io_real, dir, state_file_add, &files, err) && err->code != ERR_NOT_FOUND)
        return false;
    bool keeps_nvram = has_nvram && nvram_take(&files, vm);
    for (size_t i = 0; i < files.count; i++) {
        AUTO_FREE char *path = path_join(dir, files.names[i]);
        if (!path)
            return err_oom(err);
        bool is_nvram = strstr(files.names[i], ".nvram") != NULL;
        if (!(is_nvram && keeps_nvram) &&
            !repair_put_aside(repair, path, is_nvram ? "which UEFI variables are the VM's is not clear"
                                                     : "saved memory cannot be matched with the disks, the VM is off", err))
            return false;
    }
    return !has_nvram || keeps_nvram || nvram_copy(repair, snapshot, dir, vm, err);
}

static bool vm_make(const struct rebuild *rebuild, const struct config *snapshot, struct config *vm, struct err *err)
{
    struct repair *repair = rebuild->repair;
    const struct guid none = {0};

    vm->is_snapshot = false;
    vm->snapshot = none;
    vm->state_when_taken = STATE_OFF;
    vm->pause_us = 0;
    vm->parent = snapshot->snapshot;
    vm->generation_id = guid_new();
    config_clear_saved(vm);
    return config_set_string(&vm->name, path_base(repair->look->vm_dir), err) && config_set_string(&vm->notes, "", err) &&
           list_make(rebuild, vm, err) && disks_choose(repair, vm, err) && state_choose(repair, snapshot, vm, err);
}

/* What is there of snapshots that are not listed would be garbage behind the commit. */
static bool unlisted_aside(const struct rebuild *rebuild, struct err *err)
{
    struct repair *repair = rebuild->repair;

    for (size_t i = 0; i < repair->look->snapshot_count; i++) {
        const struct config *snapshot = repair->look->snapshots[i];
        if (listable_find(rebuild, &snapshot->snapshot))
            continue;
        AUTO_FREE char *dir = string_printf("%s/Snapshots/%s", repair->look->vm_dir, snapshot->snapshot.text);
        AUTO_FREE char *xml = dir ? string_printf("%s.xml", dir) : NULL;
        if (!xml)
            return err_oom(err);
        if (!repair_put_aside(repair, xml, "files of this snapshot are missing", err) ||
            !repair_put_aside(repair, dir, "files of this snapshot are missing", err))
            return false;
    }
    return true;
}

/* The GUID of a snapshot whose settings could not be read: such a file or folder. */
static bool is_stray(const struct store_look *look, const char *name, struct guid *ret_guid)
{
    char text[GUID_LENGTH + 1] = {0};

    memcpy(text, name, strnlen(name, GUID_LENGTH));
    if (!guid_parse(text, ret_guid) || (name[GUID_LENGTH] != '\0' && strcmp(name + GUID_LENGTH, ".xml") != 0) ||
        guid_equal(ret_guid, &look->guid))
        return false;
    for (size_t i = 0; i < look->snapshot_count; i++)
        if (guid_equal(ret_guid, &look->snapshots[i]->snapshot))
            return false;
    return true;
}

static bool strays_aside(struct repair *repair, struct err *err)
{
    AUTO_FREE char *dir = string_printf("%s/Snapshots", repair->look->vm_dir);
    AUTO_NAME_LIST struct name_list names = {0};
    struct guid guid;

    if (!dir)
        return err_oom(err);
    bool ok = name_list_read(&io_real, dir, &names, err) || err->code == ERR_NOT_FOUND;
    for (size_t i = 0; ok && i < names.count; i++) {
        if (!is_stray(repair->look, names.items[i], &guid))
            continue;
        AUTO_FREE char *folder = string_printf("%s/%s", dir, guid.text);
        AUTO_FREE char *xml = folder ? string_printf("%s.xml", folder) : NULL;
        ok = xml ? repair_put_aside(repair, xml, "these settings cannot be read", err) &&
                       repair_put_aside(repair, folder, "the settings of this snapshot are lost", err)
                 : err_oom(err);
    }
    return ok;
}

bool repair_rebuild(struct repair *repair, struct config **ret_config, struct err *err)
{
    *ret_config = NULL;
    if (!guid_is_set(&repair->look->guid)) {
        repair_cannot(repair, "which VM this is cannot be told: there is more than one VM's file, or no snapshot's file and no lock file");
        return true;
    }
    AUTO(rebuild_done) struct rebuild rebuild = {.repair = repair};
    if (!rebuild_begin(&rebuild, err))
        return false;
    *err = ERR_INIT;
    const struct config *snapshot = present_find(&rebuild, err);
    if (!snapshot)
        return err->code == ERR_NONE;
    AUTO_CONFIG struct config *vm = config_copy(snapshot);
    if (!vm)
        return err_oom(err);
    if (!vm_make(&rebuild, snapshot, vm, err) || !repair_layers_spare(repair, vm, err) || !unlisted_aside(&rebuild, err) || !strays_aside(repair, err) ||
        !repair_layers_aside(repair, vm, err))
        return false;
    *ret_config = TAKE(vm);
    return true;
}
