/* check --repair: the order of it. Images first, since the settings lean on them; then the settings; then what is garbage by settings
 * that are sound; and then a check of all tells what is left. */
#include "repair.h"

#include "auto.h"
#include "check.h"
#include "dirty_log.h"
#include "disk.h"
#include "file.h"
#include "runtime.h"
#include "text_json.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

/* --- telling --- */

void repair_tell(struct repair *repair, const char *path, const char *format, ...)
{
    char text[400];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    json_array_append_new(repair->done, json_pack("{s:o, s:o}", "file", text_json(path), "text", text_json(text)));
}

void repair_offer(struct repair *repair, const struct config *snapshot, const char *text)
{
    json_array_append_new(repair->choices, json_pack("{s:s, s:s, s:s}", "guid", snapshot->snapshot.text, "name", snapshot->name,
                                                     "text", text));
}

void repair_cannot(struct repair *repair, const char *why)
{
    json_array_append_new(repair->choices, json_pack("{s:n, s:n, s:s}", "guid", "name", "text", why));
}

bool repair_may_go_on(const struct err *err)
{
    return err->code != ERR_NO_MEMORY && err->code != ERR_CANCELLED;
}

static void fault_ignored(void *context, const struct store_fault *fault)
{
    (void)context;
    (void)fault;
}

/* --- before anything else --- */

/* With both locks: whoever has the VM works on these files. */
static bool look_alone(const char *vm_dir, struct store_look **ret_look, struct err *err)
{
    AUTO_STORE_LOOK struct store_look *look = NULL;

    if (!store_look_open(&io_real, vm_dir, "check --repair", fault_ignored, NULL, &look, err))
        return false;
    if (guid_is_set(&look->guid) && !look->is_alone)
        return err_set(err, ERR_BUSY, "%s: the VM runs, or another command works on it: stop it first", vm_dir);
    *ret_look = TAKE(look);
    return true;
}

/* What stood here before may be another thing now. */
static bool look_again(struct repair *repair, struct err *err)
{
    AUTO_FREE char *vm_dir = strdup(repair->look->vm_dir);

    store_look_close(TAKE(repair->look));
    return vm_dir ? look_alone(vm_dir, &repair->look, err) : err_oom(err);
}

/* What a killed worker had answered comes to its place first. */
static bool settle(const struct repair *repair, struct err *err)
{
    const struct store_look *look = repair->look;
    AUTO_FREE char *log_dir = NULL;
    AUTO_FREE char *layers = string_printf("%s/Snapshots/%s", look->vm_dir, look->guid.text);

    if (!layers)
        return err_oom(err);
    if (repair->options->dry_run || !runtime_dirty_dir(&log_dir, err))
        return true;
    if ((!dirty_log_replay_all(&io_real, log_dir, look->vm_dir, err) ||
         (guid_is_set(&look->guid) && !dirty_log_replay_all(&io_real, log_dir, layers, err))) &&
        !repair_may_go_on(err))
        return false;
    for (size_t i = 0; look->vm && i < look->vm->disk_count; i++)
        if (!look->vm->disks[i].is_cdrom && !disk_settle(&io_real, log_dir, look->vm->disks[i].path, err) && !repair_may_go_on(err))
            return false;
    return true;
}

/* --- garbage --- */

struct sweep {
    struct repair *repair;
    const struct store_look *look;
};

static void sweep_one(void *context, const struct store_fault *fault)
{
    const struct sweep *sweep = context;

    if (strcmp(fault->kind, "extra") == 0 && store_look_is_own(sweep->look, fault->path) &&
        (sweep->repair->options->dry_run || store_look_remove(sweep->look, fault->path)))
        repair_tell(sweep->repair, fault->path, "removed: nothing named it");
}

static bool thumbnails_remove(struct repair *repair, const json_t *faults)
{
    size_t i;
    json_t *fault;

    json_array_foreach((json_t *)faults, i, fault)
    {
        const char *path = json_string_value(json_object_get(fault, "file"));
        if (strcmp(json_string_value(json_object_get(fault, "kind")), "thumbnail") == 0 &&
            (repair->options->dry_run || store_look_remove(repair->look, path)))
            repair_tell(repair, path, "removed: it was no whole picture");
    }
    return true;
}

/* An image that was given another parent may still have its old one after a power cut, unless that is on the disk. */
static bool images_sync(const struct check *check)
{
    struct err ignored;

    for (size_t i = 0; i < check->image_count; i++) {
        AUTO_IO struct io_file *file = NULL;
        if (path_is_inside(check->images[i].path, check->look->vm_dir) &&
            (!io_open(&io_real, check->images[i].path, IO_READ_ONLY, &file, &ignored) || !io_sync(file, &ignored)))
            return false;
    }
    return true;
}

/* On what is sound by now, read anew. */
static bool garbage_remove(struct repair *repair, struct err *err)
{
    AUTO(check_done) struct check check = {.faults = json_array(), .progress = repair->progress};
    AUTO_FREE char *folder = string_printf("%s/Virtual Machines", repair->look->vm_dir);
    struct sweep sweep = {.repair = repair};
    struct err ignored;

    if (!check.faults || !folder)
        return err_oom(err);
    if (!repair->options->dry_run && !look_again(repair, err))
        return false;
    /* A rename that no sync has made certain: after a power cut the file before it would be back, and miss what is removed here. */
    if (!io_sync_dir(&io_real, folder, &ignored))
        return true;
    sweep.look = check.look = repair->look;
    if (!check_settings(&check, err) || !thumbnails_remove(repair, check.faults))
        return false;
    bool layers_known = !check.chains_are_broken && (repair->options->dry_run || images_sync(&check));
    return store_look_extras(check.look, layers_known ? &(struct store_look_images){check_holds, &check} : NULL, sweep_one, &sweep,
                             err);
}

/* --- the whole --- */

/* Settings that could not be read for their modes can be now. */
static bool modes_first(struct repair *repair, struct err *err)
{
    if (!repair_modes(repair, err))
        return false;
    return repair->options->dry_run || json_array_size(repair->done) == 0 || look_again(repair, err);
}

static bool repair_all(struct repair *repair, struct err *err)
{
    if (!guid_is_set(&repair->look->guid)) /* nor is there a lock, by which one knew that nobody uses the files */
        return repair_settings(repair, err);
    if (!modes_first(repair, err) || !settle(repair, err))
        return false;
    if (repair->look->is_unsure) {
        repair_cannot(repair, "settings are there that cannot be read, though they may be sound: without them nothing is repaired");
        return true;
    }
    return repair_images(repair, err) && repair_settings(repair, err) && garbage_remove(repair, err);
}

static void repair_done(struct repair *repair)
{
    repair_images_done(repair);
    store_look_close(repair->look);
    json_decref(repair->done);
    json_decref(repair->choices);
}

bool vm_repair(const char *vm_dir, const struct vm_repair_options *options, const struct progress *progress, json_t **ret_value,
               struct err *err)
{
    AUTO(repair_done)
    struct repair repair = {.options = options, .progress = progress, .done = json_array(), .choices = json_array()};
    json_t *value;

    if (!repair.done || !repair.choices)
        return err_oom(err);
    if (!look_alone(vm_dir, &repair.look, err) || !repair_all(&repair, err))
        return false;
    store_look_close(TAKE(repair.look)); /* the check takes the locks itself */
    if (!vm_check(vm_dir, progress, &value, err))
        return false;
    json_object_set(value, "repaired", repair.done);
    json_object_set(value, "choices", repair.choices);
    json_object_set_new(value, "dry_run", json_boolean(options->dry_run));
    *ret_value = value;
    return true;
}
