/* The steps of one merge. */
#include "tree_private.h"

#include "bytes.h"
#include "file.h"

#include <stdlib.h>
#include <string.h>

static const struct plan_layer *layer_find(const struct plan_merge *request, const char *path)
{
    for (size_t i = 0; i < request->layer_count; i++)
        if (strcmp(request->layers[i].path, path) == 0)
            return &request->layers[i];
    return NULL;
}

static bool lies_over(const struct plan_layer *layer, const char *path)
{
    return layer->parent && strcmp(layer->parent, path) == 0;
}

static bool has_children(const struct plan_merge *request, const char *path)
{
    for (size_t i = 0; i < request->layer_count; i++)
        if (lies_over(&request->layers[i], path))
            return true;
    return false;
}

static void reparent_children(struct build *build, const struct plan_merge *request, const char *path, const char *parent)
{
    for (size_t i = 0; i < request->layer_count; i++)
        if (lies_over(&request->layers[i], path))
            build_from(build, STEP_REPARENT, strdup(request->layers[i].path), strdup(parent));
}

/* A copy of config whose disks name `now` in place of `old`; NULL: none of them names it, or out of memory, which build knows. */
static struct config *renamed(struct build *build, const struct config *config, const char *old, const struct plan_layer *now)
{
    AUTO_CONFIG struct config *copy = NULL;

    for (size_t i = 0; i < config->disk_count; i++) {
        if (config->disks[i].is_cdrom || strcmp(config->disks[i].path, old) != 0)
            continue;
        if (!copy && !(copy = config_copy(config))) {
            build_fail(build);
            return NULL;
        }
        struct config_disk *disk = &copy->disks[i];
        free(disk->path);
        if (!(disk->path = strdup(now->path))) {
            build_fail(build);
            return NULL;
        }
        if (disk->image_id[0] != '\0')
            memcpy(disk->image_id, now->id, sizeof disk->image_id);
    }
    return TAKE(copy);
}

static void rename_in_snapshots(struct build *build, const char *old, const struct plan_layer *now)
{
    for (size_t i = 0; i < build->tree->snapshot_count; i++) {
        AUTO_CONFIG struct config *snapshot = renamed(build, build->tree->snapshots[i], old, now);
        if (snapshot)
            build_write_snapshot(build, snapshot);
    }
}

static void merge_data(struct build *build, const struct plan_merge *request, const struct plan_merging *merging)
{
    if (request->copied)
        return;
    build_from(build, STEP_MERGE_DATA, strdup(merging->child), strdup(merging->parent));
    if (build->plan && build->plan->step_count > 0)
        build->plan->steps[build->plan->step_count - 1].direction = merging->direction;
}

/* The snapshots before the images: with a snapshot's file renamed the child is no point any more, empty, and is taken out
 * wherever this ends. */
static void build_down(struct build *build, const struct plan_merge *request, const struct plan_merging *merging,
                       const struct plan_layer *parent)
{
    merge_data(build, request, merging);
    if (has_children(request, merging->child))
        build_step(build, STEP_EMPTY_LAYER, strdup(merging->child));
    rename_in_snapshots(build, merging->child, parent);
    reparent_children(build, request, merging->child, merging->parent);
    AUTO_CONFIG struct config *vm = renamed(build, build->tree->vm, merging->child, parent);
    if (vm)
        build_commit(build, vm);
    build_step(build, STEP_REMOVE_FILE, strdup(merging->child));
}

static void build_up(struct build *build, const struct plan_merge *request, const struct plan_merging *merging,
                     const struct plan_layer *parent)
{
    merge_data(build, request, merging);
    build_from(build, STEP_REPARENT, strdup(merging->child), strdup(parent->parent));
    build_step(build, STEP_REMOVE_FILE, strdup(merging->parent));
}

/* What names the parent already may have been given it by whoever was cut off here. */
static void sync_siblings(struct build *build, const struct plan_merge *request, const struct plan_merging *merging)
{
    for (size_t i = 0; i < request->layer_count; i++)
        if (lies_over(&request->layers[i], merging->parent) && strcmp(request->layers[i].path, merging->child) != 0)
            build_step(build, STEP_SYNC_FILE, strdup(request->layers[i].path));
    build_step(build, STEP_SYNC_DIR, tree_snapshots_dir(build->tree));
}

static void build_take_out(struct build *build, const struct plan_merge *request, const struct plan_merging *merging)
{
    build_step(build, STEP_CHECK_EMPTY, strdup(merging->child));
    sync_siblings(build, request, merging);
    reparent_children(build, request, merging->child, merging->parent);
    build_step(build, STEP_REMOVE_FILE, strdup(merging->child));
}

bool plan_merge(const struct tree *tree, const struct plan_merge *request, const struct plan_merging *merging,
                struct plan **ret_plan, struct err *err)
{
    const struct plan_layer *parent = layer_find(request, merging->parent);
    struct build build;

    if (merging->kept != MERGE_NOT_KEPT) {
        char reason[320];
        merging_reason(merging, reason, sizeof reason);
        return err_set(err, ERR_STATE, "%s: is not merged: %s", merging->child ? merging->child : merging->parent, reason);
    }
    if (!parent || !layer_find(request, merging->child))
        return err_set(err, ERR_INTERNAL, "%s: is not among the VM's images", parent ? merging->child : merging->parent);
    build_begin(&build, tree, /* source= */ NULL, err);
    if (merging->child_is_empty)
        build_take_out(&build, request, merging);
    else if (merging->direction == MERGE_UP)
        build_up(&build, request, merging, parent);
    else
        build_down(&build, request, merging, parent);
    return build_end(&build, ret_plan, "merge %s: %s into %s", tree->vm->name, path_base(merging_gone(merging)),
                     path_base(merging_stays(merging)));
}

void merging_apply(const struct plan_merging *merging, struct plan_layer *layers, size_t *count)
{
    const char *gone_path = merging_gone(merging), *stays_path = merging_stays(merging);
    struct plan_layer gone = {0};
    size_t kept = 0;

    for (size_t i = 0; i < *count; i++) {
        if (strcmp(layers[i].path, gone_path) == 0)
            gone = layers[i];
        else
            layers[kept++] = layers[i];
    }
    *count = kept;
    for (size_t i = 0; gone.path && i < kept; i++) {
        struct plan_layer *layer = &layers[i];
        bool stays = strcmp(layer->path, stays_path) == 0;
        if (lies_over(layer, gone_path))
            layer->parent = merging->direction == MERGE_UP ? gone.parent : stays_path;
        if (stays && !merging->child_is_empty) {
            layer->allocated_bytes += gone.allocated_bytes;
            layer->may_be_empty = layer->may_be_empty && gone.may_be_empty;
            if (merging->direction == MERGE_DOWN)
                layer->size_bytes = max_u64(layer->size_bytes, gone.size_bytes);
        }
    }
}
