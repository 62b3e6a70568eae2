/* Merging: which are pending, and the copying of one. */
#include "store_private.h"

#include "disk_tools.h"
#include "vhd.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define STEP_BYTES (16U << 20)

/* --- the copying --- */
static bool merge_all(struct disk_merging *merging, const struct progress *progress, struct err *err)
{
    uint64_t done, total;
    bool more = true;

    while (more) {
        disk_merging_progress(merging, &done, &total);
        progress_report(progress, "merge", done, total);
        if (progress_cancelled(progress))
            return err_set(err, ERR_CANCELLED, "the merge was cancelled; it goes on with the next one");
        if (!disk_merging_step(merging, STEP_BYTES, &more, err))
            return false;
    }
    return true;
}

bool merge_data(const struct io *io, const struct step *step, const struct progress *progress, struct err *err)
{
    const struct disk_merge_options options = { /* first, as it is read until the merging is closed */
        .direction = step->direction == MERGE_UP ? DISK_MERGE_UP : DISK_MERGE_DOWN,
        .into_base = true, /* the plan knows whether it may be */
        .parent_path = step->from,
    };
    AUTO_DISK_MERGING struct disk_merging *merging = NULL;
    struct err ignored;

    if (!disk_merging_open(io, step->path, &options, progress, &merging, err))
        return false;
    bool copied = merge_all(merging, progress, err);
    /* What has been copied is kept, so that whoever goes on has less to do. */
    return disk_merging_finish(merging, copied ? err : &ignored) && copied;
}

/* --- can there be any? --- */
struct layer_search {
    const struct tree *tree;
    const char *dir;
    bool found;
};

static int look_at_layer(void *context, const char *name)
{
    struct layer_search *search = context;
    AUTO_FREE char *path = path_join(search->dir, name);

    if (!path)
        return ENOMEM;
    search->found |= tree_is_layer(search->tree, path) && !tree_names_disk(search->tree, path);
    return 0;
}

/* Is there a layer that no settings name? */
static bool has_unnamed(const struct io *io, const struct tree *tree, bool *ret_has, struct err *err)
{
    AUTO_FREE char *dir = tree_layers_dir(tree);
    struct layer_search search = {.tree = tree, .dir = dir};

    if (!dir)
        return err_oom(err);
    if (!io_list(io, dir, look_at_layer, &search, err) && err->code != ERR_NOT_FOUND && err->sys != ENOTDIR)
        return false;
    *ret_has = search.found;
    return true;
}

/* Does the one that config descends from have the same disk in the same place? Then it is no lowest image. */
static bool has_ancestor(const struct config *from, const struct config_disk *disk)
{
    for (size_t i = 0; from && i < from->disk_count; i++) {
        const struct config_disk *other = &from->disks[i];
        if (!other->is_cdrom && other->bus == disk->bus && other->slot == disk->slot)
            return tree_same_stem(other->path, disk->path);
    }
    return false;
}

/* Of the lowest images that settings name: does one lie over something? */
static bool lowest_lies_over(const struct io *io, const struct tree *tree, const struct config *config, bool *ret_lies,
                             struct err *err)
{
    const struct config *from = tree_by_guid(tree, &config->parent);

    for (size_t i = 0; i < config->disk_count; i++) {
        AUTO_VHD struct vhd *image = NULL;
        if (config->disks[i].is_cdrom || has_ancestor(from, &config->disks[i]))
            continue;
        if (!vhd_open(io, config->disks[i].path, IO_READ_ONLY, &image, err))
            return false;
        *ret_lies |= image->type == VHD_DIFFERENCING;
    }
    return true;
}

static bool may_be_any(const struct io *io, const struct tree *tree, bool *ret_may, struct err *err)
{
    bool may = false;

    if (!has_unnamed(io, tree, &may, err) || !lowest_lies_over(io, tree, tree->vm, &may, err))
        return false;
    for (size_t i = 0; !may && i < tree->snapshot_count; i++)
        if (!lowest_lies_over(io, tree, tree->snapshots[i], &may, err))
            return false;
    *ret_may = may;
    return true;
}

/* --- other VMs --- */
struct others {
    const struct io *io;
    const char *home, *vm_dir; /* vm_dir: ours */
    struct store_merges *merges;
};

static void note_user(struct others *others, const struct chains *chains, const char *name, bool all_known)
{
    for (size_t i = 0; i < others->merges->layer_count; i++) {
        struct plan_layer *layer = &others->merges->layers[i];
        struct io_stat stat;
        bool used = !all_known && !layer->parent; /* what it uses is not known: no base is written to */
        if (others->io->ops->stat(others->io, layer->path, &stat) != 0)
            continue;
        if (used || chains_find(chains, stat.device, stat.inode))
            layer->user = name;
    }
}

static bool is_same_folder(const struct io *io, const char *a, const char *b)
{
    struct io_stat first, second;

    return io->ops->stat(io, a, &first) == 0 && io->ops->stat(io, b, &second) == 0 && first.device == second.device &&
           first.inode == second.inode;
}

/* A VM whose settings cannot be read, or are lost, may be repaired: it may need what its images lie over. Of a folder that is none, and
 * never was, its images tell all. */
static bool look_at_folder(struct others *others, const char *name, struct err *err)
{
    AUTO_FREE char *dir = path_join(others->home, name);
    AUTO_FREE char *folder = dir ? path_join(dir, VM_FOLDER) : NULL;
    AUTO_TREE struct tree *tree = NULL;
    struct chains chains = {0};
    struct err ignored;

    if (!folder)
        return err_oom(err);
    if (is_same_folder(others->io, dir, others->vm_dir))
        return true;
    bool all_known = store_read(others->io, dir, &tree, &ignored) && chains_add(others->io, tree, &chains, &ignored);
    bool ok = all_known || chains_add_images(others->io, dir, &chains, err);
    note_user(others, &chains, name, all_known || !io_exists(others->io, folder));
    chains_done(&chains);
    return ok;
}

static bool note_users(const struct io *io, const struct tree *tree, struct store_merges *merges, struct err *err)
{
    AUTO_FREE char *home = NULL;
    struct others others = {.io = io, .vm_dir = tree->vm_dir, .merges = merges};

    if (!store_home(&home, err) || !store_list_folders(io, &merges->users, err))
        return false;
    others.home = home;
    for (size_t i = 0; merges->users[i]; i++)
        if (!look_at_folder(&others, merges->users[i], err))
            return false;
    return true;
}

/* --- all --- */
void store_merges_done(struct store_merges *merges)
{
    free(merges->mergings);
    free(merges->layers);
    store_layers_free(merges->read_layers, merges->read_count);
    store_list_free(merges->users);
    *merges = (struct store_merges){0};
}

static struct plan_merge request_of(const struct store_merges *merges)
{
    return (struct plan_merge){.machine = merges->machine,
                               .layers = merges->layers,
                               .layer_count = merges->layer_count,
                               .into_base = merges->into_base};
}

static bool derive(struct store_merges *merges, const struct tree *tree, struct err *err)
{
    struct plan_merge request = request_of(merges);
    struct plan_merging *mergings;
    size_t count;

    if (!plan_mergings(tree, &request, &mergings, &count, err))
        return false;
    free(merges->mergings);
    merges->mergings = mergings;
    merges->count = count;
    return true;
}

static struct plan_layer *layer_of(const struct store_merges *merges, const char *path)
{
    for (size_t i = 0; i < merges->layer_count; i++)
        if (strcmp(merges->layers[i].path, path) == 0)
            return &merges->layers[i];
    return NULL;
}

static bool is_any_pending(const struct store_merges *merges)
{
    for (size_t i = 0; i < merges->count; i++)
        if (merges->mergings[i].kept == MERGE_NOT_KEPT)
            return true;
    return false;
}

/* The sizes of files say which may be empty; of the few that it matters for the tables are asked. */
static bool settle_empty(const struct io *io, const struct tree *tree, struct store_merges *merges, struct err *err)
{
    bool found = false;

    for (size_t i = 0; i < merges->count; i++) {
        const struct plan_merging *merging = &merges->mergings[i];
        if (!merging->child_is_empty || vhd_check_empty(io, merging->child, err))
            continue;
        if (err->code == ERR_NO_MEMORY)
            return false;
        layer_of(merges, merging->child)->may_be_empty = false;
        found = true;
    }
    return !found || derive(merges, tree, err);
}

static bool layers_read(const struct io *io, const struct tree *tree, struct store_merges *merges, struct err *err)
{
    if (!store_tree_layers(io, tree, &merges->read_layers, &merges->read_count, err))
        return false;
    merges->layer_count = merges->read_count;
    merges->layers = calloc(merges->read_count + 1, sizeof *merges->layers);
    if (!merges->layers)
        return err_oom(err);
    memcpy(merges->layers, merges->read_layers, merges->read_count * sizeof *merges->layers);
    return true;
}

static bool read_all(const struct io *io, const struct tree *tree, struct store_merges *merges, struct err *err)
{
    return layers_read(io, tree, merges, err) && derive(merges, tree, err) && settle_empty(io, tree, merges, err) &&
           (!is_any_pending(merges) || (note_users(io, tree, merges, err) && derive(merges, tree, err)));
}

bool store_merges_read(const struct io *io, const struct tree *tree, enum plan_machine machine, bool into_base,
                       struct store_merges *ret_merges, struct err *err)
{
    struct store_merges merges = {.machine = machine, .into_base = into_base};
    bool may;

    if (!may_be_any(io, tree, &may, err))
        return false;
    if (may && !read_all(io, tree, &merges, err)) {
        store_merges_done(&merges);
        return false;
    }
    *ret_merges = merges;
    return true;
}

bool store_merges_plan(const struct store_merges *merges, const struct tree *tree, const struct plan_merging *merging,
                       struct plan **ret_plan, struct err *err)
{
    struct plan_merge request = request_of(merges);

    return plan_merge(tree, &request, merging, ret_plan, err);
}

bool store_merges_plan_all(const struct store_merges *merges, const struct tree *tree, struct plan **ret_plan,
                           struct err *err)
{
    struct plan_merge request = request_of(merges);

    return plan_merge_all(tree, &request, ret_plan, err);
}

bool store_merges_behind(const struct io *io, const struct tree *tree, struct plan *plan, struct err *err)
{
    AUTO(store_merges_done) struct store_merges merges = {.machine = MACHINE_OFF};

    if (!layers_read(io, tree, &merges, err) || !note_users(io, tree, &merges, err))
        return false;
    struct plan_merge request = request_of(&merges);
    return plan_merge_behind(tree, &request, plan, err);
}

bool store_merges_next(struct store_merges *merges, const struct tree *tree, const struct plan_merging *merged,
                       struct err *err)
{
    merging_apply(merged, merges->layers, &merges->layer_count);
    return derive(merges, tree, err);
}
