/* delete, rename-snapshot, notes: the tree, without the machine. */
#include "vm_priv.h"

#include "args.h"
#include "auto.h"
#include "text_json.h"

static bool plan_delete_make(struct vm *vm, const struct guid *guid, bool subtree, struct plan **ret_plan,
                             struct err *err)
{
    struct plan_layer *layers;
    size_t layer_count;

    if (!store_layers(vm->store, &layers, &layer_count, err))
        return false;
    bool planned = plan_delete(store_tree(vm->store), guid, subtree, layers, layer_count, ret_plan, err);
    store_layers_free(layers, layer_count);
    return planned;
}

/* The GUIDs that the tree had and has no more. */
static json_t *deleted_guids(const json_t *before, const struct tree *now)
{
    json_t *deleted = json_array();
    json_t *text;
    size_t i;

    json_array_foreach((json_t *)before, i, text)
    {
        struct guid guid;
        if (guid_parse(json_string_value(text), &guid) && !tree_by_guid(now, &guid))
            json_array_append(deleted, text);
    }
    return deleted;
}

static json_t *listed_guids(const struct tree *tree)
{
    json_t *guids = json_array();

    for (size_t i = 0; i < tree->snapshot_count; i++)
        json_array_append_new(guids, json_string(tree->snapshots[i]->snapshot.text));
    return guids;
}

/* The layers of the deleted snapshots that others still need. */
static json_t *kept_layers(const struct config *snapshot)
{
    json_t *kept = json_array();

    for (size_t i = 0; i < snapshot->disk_count; i++) {
        const struct config_disk *disk = &snapshot->disks[i];
        if (!disk->is_cdrom && disk->path && io_exists(&io_real, disk->path))
            json_array_append_new(kept, text_json(disk->path));
    }
    return kept;
}

struct delete_request {
    const struct config *snapshot;
    bool subtree, no_merge, dry_run;
};

/* The snapshot is gone by then: that its layers could not be merged, or not all, is no failure of the deletion. *ret_stopped NULL:
 * they were, or it was not tried. */
static json_t *merge_what_is_left(struct vm *vm, const struct delete_request *request, const struct progress *progress,
                                  json_t **ret_stopped)
{
    json_t *merged = json_array();
    struct err err;

    *ret_stopped = NULL;
    if (merged && !vm->present && !request->no_merge &&
        !vm_merge_pending(vm, /* into_base= */ false, progress, merged, &err))
        *ret_stopped = json_pack("{s:s, s:o}", "code", err_name(err.code), "message", text_json(err.text));
    return merged;
}

static json_t *delete_answer(struct vm *vm, const struct delete_request *request, const struct config *gone,
                             const json_t *before, const struct progress *progress)
{
    json_t *stopped;
    json_t *merged = merge_what_is_left(vm, request, progress, &stopped);

    return json_pack("{s:o, s:o, s:o, s:o, s:o?}", "deleted", deleted_guids(before, store_tree(vm->store)), "kept_layers",
                     kept_layers(gone), "merged", merged, "merging", vm_mergings(vm), "merge_stopped", stopped);
}

static bool delete_snapshot(struct vm *vm, const struct delete_request *request, const struct progress *progress,
                            json_t **ret_value, struct err *err)
{
    AUTO_PLAN struct plan *plan = NULL;
    AUTO_CONFIG struct config *gone = config_copy(request->snapshot);
    struct vm_plan_run run = {.progress = progress};

    if (!gone)
        return err_oom(err);
    if (!plan_delete_make(vm, &gone->snapshot, request->subtree, &plan, err))
        return false;
    if (request->dry_run)
        return (vm->present || request->no_merge || store_merges_behind(&io_real, store_tree(vm->store), plan, err)) &&
               vm_answer_room(vm, plan, ret_value, err);
    json_t *before = listed_guids(store_tree(vm->store));
    bool done = vm_run_plan(vm, plan, &run, err) &&
                vm_answer(delete_answer(vm, request, gone, before, progress), ret_value, err);
    json_decref(before);
    return done;
}

bool op_delete(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
               struct err *err)
{
    struct delete_request request = {0};
    const char *selector;

    if (!args_required(args, "snapshot", &selector, err) || !args_bool(args, "subtree", &request.subtree, err) ||
        !args_bool(args, "no_merge", &request.no_merge, err) || !args_bool(args, "dry_run", &request.dry_run, err) ||
        !tree_find(store_tree(vm->store), selector, &request.snapshot, err) ||
        !delete_snapshot(vm, &request, progress, ret_value, err))
        return err_prefix(err, "delete: %s", vm_config(vm)->name);
    return true;
}

/* *ret_value: the plan, of a dry run; else it is left to the caller. */
static bool text_change(struct vm *vm, const json_t *args, const char *name, const char *notes,
                        struct guid *ret_guid, json_t **ret_value, struct err *err)
{
    AUTO_PLAN struct plan *plan = NULL;
    struct vm_plan_run run = {0};
    const struct config *snapshot;
    const char *selector;
    bool dry_run = false;

    if (!args_required(args, "snapshot", &selector, err) || !args_bool(args, "dry_run", &dry_run, err) ||
        !tree_find(store_tree(vm->store), selector, &snapshot, err))
        return false;
    struct guid guid = snapshot->snapshot;
    if (!plan_snapshot_text(store_tree(vm->store), &guid, name, notes, &plan, err))
        return false;
    if (dry_run)
        return vm_answer_plan(plan, ret_value, err);
    if (!vm_run_plan(vm, plan, &run, err))
        return false;
    *ret_guid = guid;
    return true;
}

bool op_rename_snapshot(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
                        struct err *err)
{
    const char *name;
    struct guid guid;
    json_t *plan = NULL;

    (void)progress;
    if (!args_required(args, "name", &name, err) || !config_check_snapshot_name(name, err) ||
        !text_change(vm, args, name, /* notes= */ NULL, &guid, &plan, err))
        return err_prefix(err, "rename-snapshot: %s", vm_config(vm)->name);
    return vm_answer(plan ? plan : json_pack("{s:s, s:s}", "guid", guid.text, "name", name), ret_value, err);
}

bool op_notes(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value,
              struct err *err)
{
    const char *text;
    struct guid guid;
    json_t *plan = NULL;

    (void)progress;
    if (!args_required(args, "text", &text, err) ||
        !text_change(vm, args, /* name= */ NULL, text, &guid, &plan, err))
        return err_prefix(err, "notes: %s", vm_config(vm)->name);
    return vm_answer(plan ? plan : json_pack("{s:s, s:s}", "guid", guid.text, "notes", text), ret_value, err);
}
