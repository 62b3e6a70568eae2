/* export: a VM as a folder that goes anywhere, or one snapshot of it as a machine of its own. */
#include "vm_priv.h"

#include "args.h"
#include "auto.h"
#include "bases.h"
#include "disk_id.h"
#include "file.h"
#include "folder.h"

#include <stdlib.h>
#include <string.h>

#define ATTEMPTS 3

struct export_request {
    const char *vm_dir;
    const char *snapshot, *dir, *name; /* borrowed; name NULL: as it is */
    bool disks_only, dry_run;
    struct folder_target folder; /* owned */
};

static void request_done(struct export_request *request)
{
    folder_target_done(&request->folder);
}

static struct plan_target plan_target_of(const struct export_request *request)
{
    return (struct plan_target){.dir = request->folder.dir,
                                .temporary = request->folder.temporary,
                                .name = request->name ? request->name : path_base(request->vm_dir)};
}

/* A copy of a folder in itself would have no end. */
static bool target_check(const struct export_request *request, struct err *err)
{
    AUTO_FREE char *real = realpath(request->vm_dir, NULL);

    if (!real)
        return err_set(err, ERR_NOT_FOUND, "%s: is not there", request->vm_dir);
    if (strcmp(real, request->folder.dir) == 0 || path_is_inside(request->folder.dir, real))
        return err_set(err, ERR_INVALID, "%s: lies in the VM's own folder", request->folder.dir);
    if (io_exists(&io_real, request->folder.dir))
        return err_set(err, ERR_EXISTS, "%s: is there already", request->folder.dir);
    return true;
}

static bool request_read(const char *vm_dir, const json_t *args, struct export_request *ret_request, struct err *err)
{
    static const char *const KNOWN[] = {"dir", "disks_only", "dry_run", "name", "snapshot", NULL};
    struct export_request request = {.vm_dir = vm_dir};

    if (!args_known(args, KNOWN, err) || !args_required(args, "dir", &request.dir, err) ||
        !args_string(args, "snapshot", &request.snapshot, err) || !args_string(args, "name", &request.name, err) ||
        !args_bool(args, "disks_only", &request.disks_only, err) || !args_bool(args, "dry_run", &request.dry_run, err) ||
        (request.name && !config_check_vm_name(request.name, err)))
        return false;
    if (request.disks_only && !request.snapshot)
        return err_set(err, ERR_USAGE, "only a snapshot can be exported without its memory");
    if (request.dir[0] != '/')
        return err_set(err, ERR_USAGE, "'%s' must be an absolute path", request.dir);
    if (!folder_target_find(request.dir, request.name ? request.name : path_base(vm_dir), &request.folder, err))
        return false;
    if (!target_check(&request, err)) {
        request_done(&request);
        return false;
    }
    *ret_request = request;
    return true;
}

/* outside: stolen, NULL is out of memory. */
static bool answer(const struct export_request *request, json_t *outside, json_t **ret_value, struct err *err)
{
    return vm_answer(outside ? json_pack("{s:s, s:o}", "path", request->folder.dir, "outside", outside) : NULL,
                     ret_value, err);
}

/* --- the whole --- */

static bool export_open(const struct export_request *request, struct vm **ret_vm, struct err *err)
{
    enum store_lock_state state;
    struct store_owner owner;
    struct err ignored;
    unsigned waited_ms = 0;

    do {
        if (vm_open(request->vm_dir, "export", ret_vm, err))
            return true;
    } while (err->code == ERR_BUSY && folder_wait(request->vm_dir, &waited_ms));
    if (err->code == ERR_BUSY && store_probe(request->vm_dir, &state, &owner, &ignored) && state == STORE_MANAGED &&
        strcmp(owner.what, "worker") == 0)
        return err_set(err, ERR_STATE,
                       "the VM runs, and its present changes: save or stop it first, or export one of its snapshots");
    return false;
}

/* The copy would not know of it. */
static bool bases_are_as_noted(const struct tree *tree, struct err *err)
{
    bool ok = bases_check(tree, tree->vm, err);

    for (size_t i = 0; ok && i < tree->snapshot_count; i++)
        ok = tree_has_dependants(tree, &tree->snapshots[i]->snapshot) || bases_check(tree, tree->snapshots[i], err);
    return ok;
}

static bool export_plan(struct vm *vm, const struct export_request *request, struct plan **ret_plan, struct err *err)
{
    struct plan_target target = plan_target_of(request);
    struct plan_source source = vm_plan_source();
    struct plan_layer *layers;
    size_t layer_count;

    if (!bases_are_as_noted(store_tree(vm->store), err))
        return false;
    if (!store_layers(vm->store, &layers, &layer_count, err))
        return false;
    bool planned = plan_copy(store_tree(vm->store), &source, &target, /* new_identity= */ false, layers, layer_count,
                             ret_plan, err);
    store_layers_free(layers, layer_count);
    return planned;
}

static bool export_whole(const struct export_request *request, const struct progress *progress, json_t **ret_value,
                         struct err *err)
{
    AUTO_PLAN struct plan *plan = NULL;
    struct vm *vm;

    if (!export_open(request, &vm, err))
        return false;
    bool done = export_plan(vm, request, &plan, err);
    if (done && request->dry_run)
        done = folder_answer_plan(plan, ret_value, err);
    else if (done)
        done = folder_make(plan, progress, err) &&
               answer(request, folder_outside(store_tree(vm->store), /* only= */ NULL), ret_value, err);
    vm_close(vm);
    return done;
}

/* --- one snapshot --- */

/* Without the VM's lock: what a listed snapshot names is sealed, and the VM may run. */
static bool export_try(const struct export_request *request, const struct tree *tree, const struct progress *progress,
                       json_t **ret_value, struct err *err)
{
    struct plan_target target = plan_target_of(request);
    struct plan_source source = vm_plan_source();
    AUTO_PLAN struct plan *plan = NULL;
    const struct config *snapshot;

    if (!tree_find(tree, request->snapshot, &snapshot, err) || !disk_ids_check(snapshot, err) ||
        !disk_chains_check(snapshot, err) || !bases_check(tree, snapshot, err) ||
        !plan_extract(tree, &source, &target, &snapshot->snapshot, request->disks_only, &plan, err))
        return false;
    if (request->dry_run)
        return folder_answer_plan(plan, ret_value, err);
    return folder_make(plan, progress, err) && answer(request, folder_outside(tree, snapshot), ret_value, err);
}

/* Did a delete or a merge give the snapshot's files other names meanwhile? */
static bool has_moved(const struct export_request *request, const struct tree *tree)
{
    AUTO_TREE struct tree *now = NULL;
    const struct config *before, *after;
    struct err ignored;

    if (!tree_find(tree, request->snapshot, &before, &ignored) || !store_read(&io_real, request->vm_dir, &now, &ignored))
        return false;
    after = tree_by_guid(now, &before->snapshot);
    if (!after || after->disk_count != before->disk_count)
        return true;
    for (size_t i = 0; i < after->disk_count; i++)
        if (!after->disks[i].is_cdrom && strcmp(after->disks[i].path, before->disks[i].path) != 0)
            return true;
    return false;
}

static bool export_snapshot(const struct export_request *request, const struct progress *progress, json_t **ret_value,
                            struct err *err)
{
    for (unsigned i = 0;; i++) {
        AUTO_TREE struct tree *tree = NULL;
        if (!store_read(&io_real, request->vm_dir, &tree, err))
            return false;
        if (export_try(request, tree, progress, ret_value, err))
            return true;
        if (i + 1 == ATTEMPTS || (err->code != ERR_NOT_FOUND && err->code != ERR_MISMATCH && err->code != ERR_BUSY) ||
            !has_moved(request, tree))
            return false;
    }
}

bool vm_export(const char *vm_dir, const json_t *arguments, const struct progress *progress, json_t **ret_value,
               struct err *err)
{
    AUTO(request_done) struct export_request request = {0};

    if (!request_read(vm_dir, arguments, &request, err))
        return false;
    return request.snapshot ? export_snapshot(&request, progress, ret_value, err)
                            : export_whole(&request, progress, ret_value, err);
}
