/* Going back to a snapshot with one of the present taken first. */
#include "tree_private.h"

#include <stdlib.h>
#include <string.h>

struct first {
    const struct plan_snapshot *request;
    struct config *snapshot; /* owned, as are: */
    struct config *before;   /* NULL with one commit: the VM with new tops over the present's */
    struct config *after;    /* the same, the snapshot listed */
};

static void first_done(struct first *first)
{
    config_free(first->snapshot);
    config_free(first->before);
    config_free(first->after);
}

static void build_first_memory(struct build *build, const struct first *first)
{
    build_plain(build, STEP_STOP_PRESENT, STATE_OFF);
    /* Stays stopped: what it did behind the snapshot would be lost. */
    build_snapshot_memory(build, first->snapshot, STATE_PAUSED);
}

/* The present's tops become the snapshot's by the same commit that gives the VM others. */
static void plan_at_once(struct build *build, const struct apply *apply, const struct first *first, struct config *config)
{
    build_apply_prepare(build, apply, config);
    build_step(build, STEP_MAKE_DIR, tree_snapshot_dir(build->tree, &first->snapshot->snapshot));
    if (apply->is_alive)
        build_first_memory(build, first);
    else
        build_snapshot_still(build, apply->request->machine, first->snapshot);
    build_write_snapshot(build, first->snapshot);
    build_apply_commit(build, apply, config);
    /* Nothing is unneeded: all that the present was is the snapshot's. */
}

static bool with_tops(struct build *build, struct first *first, struct err *err)
{
    const struct guid *guid = &first->snapshot->snapshot;

    if (!(first->before = config_copy(build->tree->vm)))
        return false;
    build_snapshot_dirs(build, guid);
    build_new_layers(build, first->before);
    return (first->after = config_copy(first->before)) && plan_list_snapshot(first->after, guid, err);
}

/* The snapshot is committed before the target starts. */
static void plan_one_by_one(struct build *build, const struct apply *apply, struct first *first, struct config *config,
                            struct err *err)
{
    const struct tree *tree = build->tree;
    struct tree later;

    if (!with_tops(build, first, err) || !tree_with(tree, first->after, first->snapshot, &later, err)) {
        build_fail(build);
        return;
    }
    build_snapshot_tops(build, first->before);
    build_first_memory(build, first);
    build_write_snapshot(build, first->snapshot);
    build_commit(build, first->after);
    build->tree = &later;
    build_apply(build, apply, config);
    build->tree = tree;
    tree_with_done(&later);
}

bool plan_apply_first(const struct tree *tree, const struct plan_source *source, const struct plan_snapshot *request,
                      const struct plan_apply *back, bool target_needs_place, struct plan **ret_plan,
                      struct guid *ret_first, struct err *err)
{
    AUTO(first_done) struct first first = {.request = request};
    struct apply apply;
    struct build build;

    if (!plan_snapshot_check(tree, request, err) || !apply_begin(tree, back, &apply, err))
        return false;
    if (request->machine != back->machine)
        return err_set(err, ERR_INTERNAL, "%s: is in two states at once", tree->vm->name);
    build_begin(&build, tree, source, err);
    struct guid guid = build_guid(&build);
    struct config_listed listed = {.guid = guid, .parent = tree->vm->parent};
    first.snapshot = build_snapshot_config(&build, request, &guid, err);
    AUTO_CONFIG struct config *config = build_present_again(&build, &apply, err);
    if (!first.snapshot || !config || !config_add_listed(config, &listed, err))
        build_fail(&build);
    else if (apply.is_alive && apply.starts && target_needs_place)
        plan_one_by_one(&build, &apply, &first, config, err);
    else
        plan_at_once(&build, &apply, &first, config);
    if (!build_end(&build, ret_plan, "apply %s: take '%s', then go back to '%s'", tree->vm->name,
                   first.snapshot ? first.snapshot->name : "", apply.snapshot->name))
        return false;
    *ret_first = guid;
    return true;
}
