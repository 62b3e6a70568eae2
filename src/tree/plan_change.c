/* Deleting snapshots, and changes of the VM's and a snapshot's own file. */
#include "tree_private.h"

#include "file.h"

#include <stdlib.h>
#include <string.h>

static size_t index_of(const struct tree *tree, const struct config *snapshot)
{
    size_t i = 0;

    while (tree->snapshots[i] != snapshot)
        i++;
    return i;
}

/* Is one of those above it marked, or it itself? The tree was checked: walks end. */
static bool descends_from(const struct tree *tree, const struct config *snapshot, const struct guid *ancestor)
{
    for (; snapshot; snapshot = tree_by_guid(tree, &snapshot->parent))
        if (guid_equal(&snapshot->snapshot, ancestor))
            return true;
    return false;
}

/* The nearest one, going up from guid, that stays. */
static struct guid nearest_kept(const struct tree *tree, const bool *deleted, struct guid guid)
{
    const struct config *snapshot = tree_by_guid(tree, &guid);

    while (snapshot && deleted[index_of(tree, snapshot)])
        snapshot = tree_by_guid(tree, &snapshot->parent);
    return snapshot ? snapshot->snapshot : (struct guid){0};
}

static void unlist(const struct tree *tree, const bool *deleted, struct config *vm)
{
    size_t kept = 0;

    for (size_t i = 0; i < vm->listed_count; i++) {
        struct config_listed *listed = &vm->listed[i];
        if (deleted[index_of(tree, tree_by_guid(tree, &listed->guid))])
            continue;
        vm->listed[kept++] = (struct config_listed){.guid = listed->guid,
                                                    .parent = nearest_kept(tree, deleted, listed->parent)};
    }
    vm->listed_count = kept;
    vm->parent = nearest_kept(tree, deleted, vm->parent);
}

/* The settings go before what they name, so that no crash leaves settings that name nothing. */
static void remove_snapshots(struct build *build, const bool *deleted)
{
    const struct tree *tree = build->tree;

    for (size_t i = 0; i < tree->snapshot_count; i++) {
        if (!deleted[i])
            continue;
        build_step(build, STEP_REMOVE_FILE, tree_snapshot_xml_path(tree, &tree->snapshots[i]->snapshot));
        build_step(build, STEP_REMOVE_DIR, tree_snapshot_dir(tree, &tree->snapshots[i]->snapshot));
    }
}

bool plan_delete(const struct tree *tree, const struct guid *snapshot, bool subtree,
                 const struct plan_layer *layers, size_t layer_count, struct plan **ret_plan, struct err *err)
{
    const struct config *top = tree_by_guid(tree, snapshot);
    AUTO_FREE bool *deleted = calloc(tree->snapshot_count + 1, sizeof *deleted);
    AUTO_CONFIG struct config *vm = config_copy(tree->vm);
    struct build build;
    size_t count = 0;

    if (!deleted || !vm)
        return err_oom(err);
    if (!top)
        return err_set(err, ERR_NOT_FOUND, "has no snapshot %s", snapshot->text);
    for (size_t i = 0; i < tree->snapshot_count; i++) {
        deleted[i] = subtree ? descends_from(tree, tree->snapshots[i], snapshot) : tree->snapshots[i] == top;
        count += deleted[i];
    }
    unlist(tree, deleted, vm);
    build_begin(&build, tree, /* source= */ NULL, err);
    build_commit(&build, vm);
    remove_snapshots(&build, deleted);
    build_remove_layers(&build, vm, deleted, layers, layer_count);
    return build_end(&build, ret_plan, "delete %s: '%s'%s", tree->vm->name, top->name,
                     count > 1 ? " and all that descend from it" : "");
}

/* A VM's file that forgets a listed snapshot would have it swept away. */
static bool same_tree(const struct config *vm, const struct config *old)
{
    if (vm->is_snapshot || !guid_equal(&vm->guid, &old->guid) || !guid_equal(&vm->parent, &old->parent) ||
        vm->listed_count != old->listed_count)
        return false;
    for (size_t i = 0; i < vm->listed_count; i++)
        if (!guid_equal(&vm->listed[i].guid, &old->listed[i].guid) ||
            !guid_equal(&vm->listed[i].parent, &old->listed[i].parent))
            return false;
    return true;
}

bool plan_settings(const struct tree *tree, const struct config *vm, const char *what, struct plan **ret_plan,
                   struct err *err)
{
    AUTO_CONFIG struct config *config = config_copy(vm);
    struct build build;

    if (!config)
        return err_oom(err);
    if (!same_tree(config, tree->vm))
        return err_set(err, ERR_INTERNAL, "%s: new settings must not change what the VM is or descends from",
                       tree->vm->name);
    if (!tree_check_disks(tree, config, err))
        return false;
    if (!guid_is_set(&config->saved))
        config_clear_saved(config);
    build_begin(&build, tree, /* source= */ NULL, err);
    build_commit(&build, config);
    build_remove_state(&build, config);
    return build_end(&build, ret_plan, "%s %s", what, tree->vm->name);
}

bool plan_snapshot_text(const struct tree *tree, const struct guid *snapshot, const char *name,
                        const char *notes, struct plan **ret_plan, struct err *err)
{
    const struct config *old = tree_by_guid(tree, snapshot);
    struct build build;

    if (!old)
        return err_set(err, ERR_NOT_FOUND, "has no snapshot %s", snapshot->text);
    if (name && !config_check_snapshot_name(name, err))
        return false;
    AUTO_CONFIG struct config *config = config_copy(old);
    if (!config)
        return err_oom(err);
    if ((name && !config_set_string(&config->name, name, err)) ||
        (notes && !config_set_string(&config->notes, notes, err)))
        return false;
    build_begin(&build, tree, /* source= */ NULL, err);
    build_write_snapshot(&build, config);
    return build_end(&build, ret_plan, "change the text of %s, snapshot '%s'", tree->vm->name, old->name);
}

bool plan_save(const struct tree *tree, const struct plan_source *source, const struct plan_save *request,
               struct plan **ret_plan, struct err *err)
{
    AUTO_CONFIG struct config *config = config_copy(tree->vm);
    AUTO_FREE char *dir = tree_vm_state_dir(tree);
    struct build build;

    if (!config || !dir || !config_set_string(&config->qemu_version, request->qemu_version, err))
        return err_oom(err);
    if (request->machine != MACHINE_RUNNING && request->machine != MACHINE_PAUSED)
        return err_set(err, ERR_STATE, "%s: does not run", tree->vm->name);
    build_begin(&build, tree, source, err);
    config->saved = config->memory = build_guid(&build);
    config->saved_state = request->machine == MACHINE_RUNNING ? STATE_RUNNING : STATE_PAUSED;
    config->accel_used = request->accel_used;
    build_step(&build, STEP_MAKE_DIR, strdup(dir));
    build_step(&build, STEP_SYNC_DIR, path_dir(dir));
    build_plain(&build, STEP_STOP_PRESENT, STATE_OFF);
    struct step *save = build_step(&build, STEP_SAVE_MEMORY, tree_state_path(dir, &config->saved, ""));
    if (save)
        save->state = STATE_PAUSED; /* stays stopped: what it wrote behind this would not fit its memory */
    build_step(&build, STEP_SYNC_DIR, strdup(dir));
    build_commit(&build, config);
    build_plain(&build, STEP_DROP_PRESENT, STATE_OFF);
    build_remove_state(&build, config);
    return build_end(&build, ret_plan, "save %s", tree->vm->name);
}
