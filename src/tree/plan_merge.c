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

/* --- all of them, in thought --- */
struct rehearsal {
    struct tree *tree; /* a copy, as it is behind what has been planned */
    struct plan_layer *layers;
    struct plan_merge request;
    struct build build;
};

static bool tree_copy(const struct tree *tree, struct tree **ret_tree, struct err *err)
{
    AUTO_CONFIG struct config *vm = config_copy(tree->vm);
    struct config **snapshots = calloc(tree->snapshot_count + 1, sizeof(struct config *));
    bool ok = vm && snapshots;

    for (size_t i = 0; ok && i < tree->snapshot_count; i++)
        ok = (snapshots[i] = config_copy(tree->snapshots[i])) != NULL;
    if (!ok)
        (void)err_oom(err);
    if (ok && tree_new(tree->vm_dir, vm, snapshots, tree->snapshot_count, ret_tree, err)) {
        TAKE(vm);
        return true;
    }
    for (size_t i = 0; snapshots && i < tree->snapshot_count; i++)
        config_free(snapshots[i]);
    free(snapshots);
    return false;
}

static bool take_disks(struct config *config, const struct config *from, struct err *err)
{
    for (size_t i = 0; i < config->disk_count; i++) {
        if (!config_set_string(&config->disks[i].path, from->disks[i].path, err))
            return false;
        memcpy(config->disks[i].image_id, from->disks[i].image_id, sizeof config->disks[i].image_id);
    }
    return true;
}

/* The settings that the step writes become the copy's; the step moves to the plan of all. */
static bool rehearse_step(struct rehearsal *all, struct step *step, struct err *err)
{
    struct config *config = step->kind == STEP_COMMIT ? all->tree->vm : NULL;

    if (step->kind == STEP_WRITE_CONFIG)
        config = (struct config *)tree_by_guid(all->tree, &step->config->snapshot);
    if (config && !take_disks(config, step->config, err))
        return false;
    struct step *taken = build_step(&all->build, step->kind, step->path ? TAKE(step->path) : strdup(""));
    if (taken) {
        taken->from = TAKE(step->from);
        taken->config = TAKE(step->config);
        taken->direction = step->direction;
    }
    return !all->build.failed;
}

/* *ret_more false: nothing is pending any more. */
static bool rehearse_one(struct rehearsal *all, bool *ret_more, struct err *err)
{
    AUTO_FREE struct plan_merging *mergings = NULL;
    AUTO_PLAN struct plan *plan = NULL;
    size_t count, next = 0;

    if (!plan_mergings(all->tree, &all->request, &mergings, &count, err))
        return false;
    while (next < count && mergings[next].kept != MERGE_NOT_KEPT)
        next++;
    *ret_more = next < count;
    if (next == count)
        return true;
    if (!plan_merge(all->tree, &all->request, &mergings[next], &plan, err))
        return false;
    for (size_t i = 0; i < plan->step_count; i++)
        if (!rehearse_step(all, &plan->steps[i], err))
            return false;
    merging_apply(&mergings[next], all->layers, &all->request.layer_count);
    return true;
}

bool plan_merge_all(const struct tree *tree, const struct plan_merge *request, struct plan **ret_plan, struct err *err)
{
    AUTO_TREE struct tree *copy = NULL;
    AUTO_FREE struct plan_layer *layers = calloc(request->layer_count + 1, sizeof *layers);
    struct rehearsal all = {.layers = layers, .request = *request};
    bool more = true;

    if (!layers)
        return err_oom(err);
    if (!tree_copy(tree, &copy, err))
        return false;
    if (request->layer_count > 0)
        memcpy(layers, request->layers, request->layer_count * sizeof *layers);
    all.tree = copy;
    all.request.layers = layers;
    build_begin(&all.build, tree, /* source= */ NULL, err);
    while (more && rehearse_one(&all, &more, err))
        ;
    if (more) {
        plan_free(all.build.plan);
        return false;
    }
    return build_end(&all.build, ret_plan, "merge %s", tree->vm->name);
}
