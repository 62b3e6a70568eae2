/* Merges planned one after the other in thought, each on what the one before would leave. */
#include "tree_private.h"

#include <stdlib.h>
#include <string.h>

struct rehearsal {
    struct tree *tree; /* a copy, as it is behind what has been planned */
    struct plan_layer *layers;
    struct plan_merge request;
    struct build build;
};

/* The tree with that VM's file, which lists no snapshot that the tree has not. */
static bool tree_copy(const struct tree *tree, const struct config *now, struct tree **ret_tree, struct err *err)
{
    AUTO_CONFIG struct config *vm = config_copy(now);
    struct config **snapshots = calloc(now->listed_count + 1, sizeof(struct config *));
    bool ok = vm && snapshots;

    for (size_t i = 0; ok && i < now->listed_count; i++) {
        const struct config *snapshot = tree_by_guid(tree, &now->listed[i].guid);
        ok = snapshot && (snapshots[i] = config_copy(snapshot)) != NULL;
    }
    if (!ok)
        (void)err_oom(err);
    if (ok && tree_new(tree->vm_dir, vm, snapshots, now->listed_count, ret_tree, err)) {
        TAKE(vm);
        return true;
    }
    for (size_t i = 0; snapshots && i < now->listed_count; i++)
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

/* From that VM's file and those layers on. */
static bool rehearse(const struct tree *tree, const struct config *vm, const struct plan_merge *request,
                     struct plan **ret_plan, struct err *err)
{
    AUTO_TREE struct tree *copy = NULL;
    AUTO_FREE struct plan_layer *layers = calloc(request->layer_count + 1, sizeof *layers);
    struct rehearsal all = {.layers = layers, .request = *request};
    bool more = true;

    if (!layers)
        return err_oom(err);
    if (!tree_copy(tree, vm, &copy, err))
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

bool plan_merge_all(const struct tree *tree, const struct plan_merge *request, struct plan **ret_plan, struct err *err)
{
    return rehearse(tree, tree->vm, request, ret_plan, err);
}

static bool removes(const struct plan *plan, const char *path)
{
    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == STEP_REMOVE_FILE && strcmp(plan->steps[i].path, path) == 0)
            return true;
    return false;
}

static bool append(struct plan *plan, struct plan *behind, struct err *err)
{
    struct step *steps = reallocarray(plan->steps, plan->step_count + behind->step_count + 1, sizeof *steps);

    if (!steps)
        return err_oom(err);
    plan->steps = steps;
    for (size_t i = 0; i < behind->step_count; i++) {
        steps[plan->step_count++] = behind->steps[i];
        behind->steps[i] = (struct step){0};
    }
    return true;
}

bool plan_merge_behind(const struct tree *tree, const struct plan_merge *request, struct plan *plan, struct err *err)
{
    AUTO_FREE struct plan_layer *layers = calloc(request->layer_count + 1, sizeof *layers);
    AUTO_PLAN struct plan *behind = NULL;
    struct plan_merge now = *request;
    const struct config *vm = tree->vm;

    if (!layers)
        return err_oom(err);
    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == STEP_COMMIT)
            vm = plan->steps[i].config;
    now.layers = layers;
    now.layer_count = 0;
    for (size_t i = 0; i < request->layer_count; i++)
        if (!removes(plan, request->layers[i].path))
            layers[now.layer_count++] = request->layers[i];
    return rehearse(tree, vm, &now, &behind, err) && append(plan, behind, err);
}
