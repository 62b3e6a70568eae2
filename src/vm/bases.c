#include "bases.h"

#include "auto.h"
#include "disk.h"
#include "file.h"
#include "vhd.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

char *base_text(const struct config_base *base, char text[static 80])
{
    time_t seconds = (time_t)base->mtime_seconds;
    char day[32] = "?";
    struct tm tm;

    if (gmtime_r(&seconds, &tm))
        strftime(day, sizeof day, "%Y-%m-%d %H:%M:%S", &tm);
    snprintf(text, 80, "%" PRIu64 " bytes, modified %s.%09" PRIu32, base->size_bytes, day, base->mtime_ns);
    return text;
}

static struct config_base base_of(const char *path, const struct io_stat *stat)
{
    return (struct config_base){.path = (char *)(uintptr_t)path,
                                .size_bytes = stat->size_bytes,
                                .mtime_seconds = stat->mtime_seconds,
                                .mtime_ns = stat->mtime_ns,
                                .inode = stat->inode};
}

bool base_read(const char *path, struct config_base *ret_base, struct err *err)
{
    struct io_stat stat;

    if (!io_stat_path(&io_real, path, &stat, err))
        return false;
    *ret_base = base_of(path, &stat);
    return true;
}

static bool is_same(const struct config_base *noted, const struct config_base *now)
{
    return noted->size_bytes == now->size_bytes && noted->mtime_seconds == now->mtime_seconds && noted->mtime_ns == now->mtime_ns;
}

static bool is_copied(const struct config_base *noted, const struct config_base *now, const char *vm_dir)
{
    return noted->inode != now->inode && path_is_inside(noted->path, vm_dir);
}

bool base_is_as_noted(const struct config_base *noted, const struct config_base *now, const char *vm_dir)
{
    return is_same(noted, now) || is_copied(noted, now, vm_dir);
}

/* --- the images under disks --- */

typedef bool base_each_fn(void *context, const struct config_base *now, struct err *err);

struct base_walk {
    const struct config *vm; /* whose disks are written: those are no bases */
    const char *vm_dir;
    bool with_tops;          /* these are being sealed */
    base_each_fn *each;
    void *context;
};

static bool is_base(const struct base_walk *walk, const char *path)
{
    const struct tree tree = {.vm_dir = (char *)(uintptr_t)walk->vm_dir, .vm = (struct config *)(uintptr_t)walk->vm};

    if (tree_is_layer(&tree, path))
        return false;
    for (size_t i = 0; !walk->with_tops && i < walk->vm->disk_count; i++)
        if (!walk->vm->disks[i].is_cdrom && strcmp(walk->vm->disks[i].path, path) == 0)
            return false;
    return true;
}

static bool image_visit(const struct base_walk *walk, const struct vhd *image, struct err *err)
{
    struct io_stat stat;

    if (!is_base(walk, image->path))
        return true;
    if (!io_stat_file(image->file, &stat, err))
        return false;
    struct config_base now = base_of(image->path, &stat);
    return walk->each(walk->context, &now, err);
}

static bool chain_walk(const struct base_walk *walk, const char *top, struct err *err)
{
    AUTO_VHD struct vhd *image = NULL;

    if (!vhd_open(&io_real, top, IO_READ_ONLY, &image, err))
        return false;
    for (unsigned depth = 0; depth < DISK_DEFAULT_MAX_DEPTH; depth++) {
        struct vhd *parent = NULL;
        if (!image_visit(walk, image, err))
            return false;
        if (image->type != VHD_DIFFERENCING)
            return true;
        if (!vhd_open_parent(image, &parent, err))
            return false;
        vhd_close(image);
        image = parent;
    }
    return err_set(err, ERR_CORRUPT, "%s: its chain of parents has no end", top);
}

static bool walk_disks(const struct base_walk *walk, const struct config *of, struct err *err)
{
    for (size_t i = 0; i < of->disk_count; i++)
        if (!of->disks[i].is_cdrom && io_exists(&io_real, of->disks[i].path) && !chain_walk(walk, of->disks[i].path, err))
            return false;
    return true;
}

/* --- checking --- */

struct base_checking {
    const struct tree *tree;
    bool refused;
};

static bool check_one(void *context, const struct config_base *now, struct err *err)
{
    struct base_checking *check = context;
    const struct config_base *noted = config_base_find(check->tree->vm, now->path);
    char was[80], is[80];

    if (!noted || base_is_as_noted(noted, now, check->tree->vm_dir))
        return true;
    check->refused = true;
    return err_set(err, ERR_MISMATCH, "%s: was changed by somebody else: noted are %s, now it has %s; `bough reconnect` takes it as it is",
                   now->path, base_text(noted, was), base_text(now, is));
}

/* Then whoever follows a chain meets none that is not. */
static bool all_are_as_noted(const struct tree *tree)
{
    for (size_t i = 0; i < tree->vm->base_count; i++) {
        const struct config_base *noted = &tree->vm->bases[i];
        struct config_base now;
        struct err ignored;
        if (!base_read(noted->path, &now, &ignored) || !base_is_as_noted(noted, &now, tree->vm_dir))
            return false;
    }
    return true;
}

bool bases_check(const struct tree *tree, const struct config *of, struct err *err)
{
    struct base_checking check = {.tree = tree};
    const struct base_walk walk = {.vm = tree->vm, .vm_dir = tree->vm_dir, .each = check_one, .context = &check};

    /* A chain can be a thousand images deep, and is opened by others too. */
    if (all_are_as_noted(tree))
        return true;
    /* What keeps a chain from being followed is told by who opens it. */
    return walk_disks(&walk, of, err) || (!check.refused && err->code != ERR_NO_MEMORY);
}

/* --- noting --- */

struct noting {
    struct config *vm;
    const char *vm_dir;
    bool changed;
};

static bool note_one(void *context, const struct config_base *now, struct err *err)
{
    struct noting *noting = context;
    const struct config_base *noted = config_base_find(noting->vm, now->path);

    if (noted && (is_same(noted, now) || !is_copied(noted, now, noting->vm_dir)))
        return true;
    noting->changed = true;
    return config_base_set(noting->vm, now, err);
}

static bool tops_forget(struct config *vm)
{
    bool changed = false;

    for (size_t i = 0; i < vm->disk_count; i++)
        changed |= !vm->disks[i].is_cdrom && config_base_forget(vm, vm->disks[i].path);
    return changed;
}

bool bases_note(struct config *vm, const char *vm_dir, const struct config *of, bool with_tops, bool *ret_changed, struct err *err)
{
    struct noting noting = {.vm = vm, .vm_dir = vm_dir};
    const struct base_walk walk = {.vm = vm, .vm_dir = vm_dir, .with_tops = with_tops, .each = note_one, .context = &noting};

    if (!walk_disks(&walk, of, err))
        return false;
    *ret_changed = tops_forget(vm) || noting.changed;
    return true;
}

bool bases_note_plan(const struct tree *tree, struct plan *plan, const struct config *of, bool with_tops, struct err *err)
{
    bool ignored;

    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == STEP_COMMIT &&
            !bases_note(plan->steps[i].config, tree->vm_dir, of, with_tops, &ignored, err))
            return false;
    return true;
}

/* --- what we write to ourselves --- */

static const char *written_by(const struct step *step)
{
    if (step->kind == STEP_MERGE_DATA)
        return step->direction == MERGE_DOWN ? step->from : step->path;
    return step->kind == STEP_EMPTY_LAYER || step->kind == STEP_REPARENT ? step->path : NULL;
}

static void commits_forget(struct plan *plan, const char *path)
{
    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == STEP_COMMIT)
            config_base_forget(plan->steps[i].config, path);
}

bool bases_forget_written(const struct tree *tree, struct plan *plan, struct plan **ret_first, struct err *err)
{
    AUTO_CONFIG struct config *vm = config_copy(tree->vm);
    bool changed = false;

    *ret_first = NULL;
    if (!vm)
        return err_oom(err);
    for (size_t i = 0; i < plan->step_count; i++) {
        const char *path = written_by(&plan->steps[i]);
        if (!path || !config_base_forget(vm, path))
            continue;
        commits_forget(plan, path);
        changed = true;
    }
    return !changed || plan_settings(tree, vm, "forget what a base was", ret_first, err);
}

/* --- taking them as they are --- */

bool bases_accept(struct config *vm, const char *vm_dir, base_changed_fn *each, void *context, bool *ret_changed, struct err *err)
{
    AUTO_CONFIG struct config *before = config_copy(vm);

    if (!before)
        return err_oom(err);
    *ret_changed = false;
    for (size_t i = 0; i < before->base_count; i++) {
        struct config_base now;
        struct err stat_err;
        if (!base_read(before->bases[i].path, &now, &stat_err)) {
            if (stat_err.code != ERR_NOT_FOUND) {
                *err = stat_err;
                return false;
            }
            continue; /* another disk may lie over it no more */
        }
        if (is_same(&before->bases[i], &now))
            continue;
        if (!is_copied(&before->bases[i], &now, vm_dir))
            each(context, &before->bases[i], &now);
        *ret_changed = true;
        if (!config_base_set(vm, &now, err))
            return false;
    }
    return true;
}
