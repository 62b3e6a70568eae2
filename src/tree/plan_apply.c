/* Going back to a snapshot. */
#include "tree_private.h"

#include "file.h"

#include <stdlib.h>
#include <string.h>

struct config *build_present_again(struct build *build, const struct apply *apply, struct err *err)
{
    const struct config *vm = build->tree->vm;
    AUTO_CONFIG struct config *config = config_copy(apply->snapshot);

    if (!config || !config_set_string(&config->name, vm->name, err) ||
        !config_set_string(&config->notes, vm->notes, err))
        return NULL;
    config->is_snapshot = config->is_scheduled = false;
    config->snapshot = (struct guid){0};
    config->state_when_taken = STATE_OFF;
    config->pause_us = 0;
    config->created_ms = vm->created_ms;
    config->parent = apply->snapshot->snapshot;
    for (size_t i = 0; i < vm->listed_count; i++)
        if (!config_add_listed(config, &vm->listed[i], err))
            return NULL;
    if (!config_bases_copy(config, vm, err))
        return NULL;
    config->generation_id = build_guid(build);
    if (guid_is_set(&apply->snapshot->nvram))
        config->nvram = build_guid(build);
    if (apply->has_memory && !apply->starts) {
        config->saved = build_guid(build);
        config->saved_state = apply->snapshot->state_when_taken;
    } else {
        config_clear_saved(config);
    }
    return TAKE(config);
}

/* Saved memory is never written again, so that it is shared; NVRAM is what the firmware writes. */
static void build_state(struct build *build, const struct apply *apply, const struct config *config)
{
    const struct config *snapshot = apply->snapshot;
    bool is_saved = guid_is_set(&config->saved);
    bool has_nvram = guid_is_set(&config->nvram);

    if (!is_saved && !has_nvram)
        return;
    AUTO_FREE char *from = tree_snapshot_dir(build->tree, &snapshot->snapshot);
    AUTO_FREE char *to = tree_vm_state_dir(build->tree);
    build_step(build, STEP_MAKE_DIR, to ? strdup(to) : NULL);
    if (is_saved) {
        build_state_file(build, STEP_SHARE_FILE, from, &snapshot->snapshot, to, &config->saved, ".bin");
        build_state_file(build, STEP_SHARE_FILE, from, &snapshot->snapshot, to, &config->saved, ".vsv");
    }
    if (has_nvram)
        build_state_file(build, STEP_COPY_FILE, from, &snapshot->nvram, to, &config->nvram, ".nvram");
    build_step(build, STEP_SYNC_DIR, to ? strdup(to) : NULL);
    build_step(build, STEP_SYNC_DIR, to ? path_dir(to) : NULL);
}

/* The target is loaded and checked before the present is touched. */
static void build_target(struct build *build, const struct apply *apply, const struct config *config)
{
    AUTO_FREE char *dir = tree_snapshot_dir(build->tree, &apply->snapshot->snapshot);
    struct config *target = config_copy(config);

    if (target)
        target->memory = apply->snapshot->memory;
    build_config(build, STEP_START_TARGET, dir ? tree_state_path(dir, &apply->snapshot->snapshot, "") : NULL,
                 target);
}

void build_apply_prepare(struct build *build, const struct apply *apply, struct config *config)
{
    build_snapshot_dirs(build, /* snapshot= */ NULL);
    build_new_layers(build, config);
    build_sync_snapshots(build);
    build_state(build, apply, config);
    if (apply->starts)
        build_target(build, apply, config);
}

void build_apply_commit(struct build *build, const struct apply *apply, const struct config *config)
{
    build_commit(build, config);
    if (apply->is_alive)
        build_plain(build, STEP_DROP_PRESENT, STATE_OFF);
    if (apply->starts)
        build_plain(build, STEP_RUN_TARGET, apply->snapshot->state_when_taken);
    build_remove_state(build, config);
}

void build_apply(struct build *build, const struct apply *apply, struct config *config)
{
    build_apply_prepare(build, apply, config);
    if (apply->is_alive)
        build_plain(build, STEP_STOP_PRESENT, STATE_OFF);
    build_apply_commit(build, apply, config);
    build_remove_layers(build, config, /* deleted= */ NULL, apply->request->layers,
                        apply->request->layer_count);
}

bool apply_begin(const struct tree *tree, const struct plan_apply *request, struct apply *ret_apply, struct err *err)
{
    struct apply apply = {.request = request, .snapshot = tree_by_guid(tree, &request->snapshot)};

    if (!apply.snapshot)
        return err_set(err, ERR_NOT_FOUND, "has no snapshot %s", request->snapshot.text);
    apply.has_memory = apply.snapshot->state_when_taken != STATE_OFF && !request->disks_only;
    apply.starts = apply.has_memory && !request->no_start;
    apply.is_alive = request->machine == MACHINE_RUNNING || request->machine == MACHINE_PAUSED;
    *ret_apply = apply;
    return true;
}

bool plan_apply(const struct tree *tree, const struct plan_source *source, const struct plan_apply *request,
                struct plan **ret_plan, struct err *err)
{
    struct apply apply;
    struct build build;

    if (!apply_begin(tree, request, &apply, err))
        return false;
    build_begin(&build, tree, source, err);
    AUTO_CONFIG struct config *config = build_present_again(&build, &apply, err);
    if (config)
        build_apply(&build, &apply, config);
    else
        build_fail(&build);
    return build_end(&build, ret_plan, "apply %s: go back to '%s'", tree->vm->name, apply.snapshot->name);
}
