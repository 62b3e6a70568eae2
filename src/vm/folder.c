#include "folder.h"

#include "auto.h"
#include "buf.h"
#include "extents.h"
#include "file.h"
#include "memory.h"
#include "ram.h"
#include "store_folder.h"
#include "vm_priv.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/statvfs.h>
#include <time.h>

/* --- space --- */

/* The first file that is copied as it is. */
static const char *first_copied(const struct plan *plan)
{
    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == STEP_COPY_FILE)
            return plan->steps[i].from;
    return NULL;
}

static const char *plan_dir(const struct plan *plan)
{
    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == STEP_RENAME)
            return plan->steps[i].path;
    return "/";
}

static bool space_look(const struct plan *plan, uint64_t *ret_needs, uint64_t *ret_free, struct err *err)
{
    AUTO_FREE char *dir = path_dir(plan_dir(plan));
    const char *copied = first_copied(plan);
    struct store_folder_bytes bytes;
    struct statvfs fs;

    if (!dir)
        return err_oom(err);
    if (!store_folder_bytes(&io_real, plan, &bytes, err))
        return false;
    if (statvfs(dir, &fs) != 0)
        return err_sys(err, errno, "ask for the free space of %s", dir);
    if (copied && extents_can_be_shared(copied, dir))
        bytes.copied = 0;
    *ret_needs = bytes.copied + bytes.flattened;
    *ret_free = (uint64_t)fs.f_bavail * fs.f_frsize;
    return true;
}

static bool space_check(const struct plan *plan, struct err *err)
{
    uint64_t needs, has;

    if (!space_look(plan, &needs, &has, err))
        return false;
    if (needs <= has)
        return true;
    return err_set(err, ERR_NO_SPACE, "%s: needs %llu MiB, and %llu MiB are free", plan_dir(plan),
                   (unsigned long long)(needs >> 20), (unsigned long long)(has >> 20));
}

/* --- doing --- */

static bool memory_step(void *context, struct plan *plan, size_t index, struct err *err)
{
    const struct step *step = &plan->steps[index];
    AUTO_FREE char *vsv = string_printf("%s.vsv", step->path);
    AUTO_FREE char *bin = string_printf("%s.bin", step->path);

    if (!vsv || !bin)
        return err_oom(err);
    return memory_check(step->path, step->config, &step->config->memory, err) &&
           (step->kind != STEP_VERIFY_MEMORY || ram_verify(vsv, bin, context, err));
}

bool folder_make(struct plan *plan, const struct progress *progress, struct err *err)
{
    const struct store_machine machine = {.step = memory_step, .context = (void *)(uintptr_t)progress};

    return space_check(plan, err) && store_run_folder(&io_real, plan, &machine, progress, err);
}

bool folder_answer_plan(const struct plan *plan, json_t **ret_value, struct err *err)
{
    uint64_t needs, has;

    if (!space_look(plan, &needs, &has, err) || !vm_answer_plan(plan, ret_value, err))
        return false;
    json_object_set_new(*ret_value, "needs_bytes", json_integer((json_int_t)needs));
    json_object_set_new(*ret_value, "free_bytes", json_integer((json_int_t)has));
    return true;
}

#define WAIT_EVERY_MS 20
#define WAIT_FOR_MS   5000

bool folder_wait(const char *vm_dir, unsigned *waited_ms)
{
    enum store_lock_state state;
    struct store_owner owner;
    struct err ignored;

    if (*waited_ms >= WAIT_FOR_MS || !store_probe(vm_dir, &state, &owner, &ignored) || owner.has_guest || owner.is_elsewhere)
        return false;
    nanosleep(&(struct timespec){.tv_nsec = WAIT_EVERY_MS * 1000000L}, NULL);
    *waited_ms += WAIT_EVERY_MS;
    return true;
}

/* --- where to --- */

void folder_target_done(struct folder_target *target)
{
    free(target->dir);
    free(target->temporary);
    *target = (struct folder_target){0};
}

/* By the folder that it will be in, links resolved: paths in the settings and in parent locators are compared as text. */
bool folder_target_set(const char *dir, struct folder_target *ret_target, struct err *err)
{
    AUTO_FREE char *parent = path_dir(dir);
    AUTO_FREE char *real = parent ? realpath(parent, NULL) : NULL;
    struct folder_target target = {0};

    if (!parent)
        return err_oom(err);
    if (!real)
        return err_sys(err, errno, "%s", parent);
    target.dir = path_join(real, path_base(dir));
    target.temporary = target.dir ? store_temporary_dir(target.dir) : NULL;
    if (!target.temporary) {
        folder_target_done(&target);
        return err_oom(err);
    }
    *ret_target = target;
    return true;
}

bool folder_target_find(const char *dir, const char *name, struct folder_target *ret_target, struct err *err)
{
    AUTO_FREE char *inside = path_join(dir, name);
    struct io_stat stat;

    if (!inside)
        return err_oom(err);
    bool is_there = io_real.ops->stat(&io_real, dir, &stat) == 0;
    if (is_there && !stat.is_directory)
        return err_set(err, ERR_EXISTS, "%s: is there already, and is no folder", dir);
    AUTO_FREE char *vm = path_join(dir, "Virtual Machines");
    if (!vm)
        return err_oom(err);
    if (io_exists(&io_real, vm))
        return err_set(err, ERR_EXISTS, "%s: holds a VM already", dir);
    return folder_target_set(is_there ? inside : dir, ret_target, err);
}

/* --- what stays outside --- */

static bool outside_add(json_t *list, const struct tree *tree, const char *path)
{
    size_t i;
    json_t *known;

    if (!path || path_is_inside(path, tree->vm_dir))
        return true;
    json_array_foreach (list, i, known) {
        if (strcmp(json_string_value(known), path) == 0)
            return true;
    }
    json_t *text = json_string(path);
    return text && json_array_append_new(list, text) == 0;
}

static bool outside_of(json_t *list, const struct tree *tree, const struct config *config)
{
    bool ok = outside_add(list, tree, config->kernel) && outside_add(list, tree, config->initrd);

    for (size_t i = 0; ok && i < config->disk_count; i++)
        if (config->disks[i].is_cdrom)
            ok = outside_add(list, tree, config->disks[i].path);
    return ok;
}

json_t *folder_outside(const struct tree *tree, const struct config *only)
{
    json_t *list = json_array();
    bool ok = list && outside_of(list, tree, only ? only : tree->vm);

    for (size_t i = 0; ok && !only && i < tree->snapshot_count; i++)
        ok = outside_of(list, tree, tree->snapshots[i]);
    if (ok)
        return list;
    json_decref(list);
    return NULL;
}
