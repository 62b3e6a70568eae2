/* merge: what deleted snapshots have left in the chains of a VM. */
#include "vm_priv.h"

#include "args.h"
#include "auto.h"
#include "bytes.h"
#include "mergings.h"
#include "text_json.h"

/* The progress of several merges as one. */
struct merge_run {
    const struct progress *progress; /* the caller's */
    uint64_t done_bytes, total_bytes, item_bytes; /* item: the one that is copied now */
};

static void report(void *context, const char *phase, uint64_t done, uint64_t total)
{
    struct merge_run *run = context;
    uint64_t part = total > 0 ? (uint64_t)((double)done / (double)total * (double)run->item_bytes) : 0;

    progress_report(run->progress, phase, min_u64(run->done_bytes + part, run->total_bytes), run->total_bytes);
}

static bool is_cancelled(void *context)
{
    return progress_cancelled(((struct merge_run *)context)->progress);
}

/* Those that have failed come first in each list, as they did before: it is by depth, and they change nothing. */
static const struct plan_merging *next_pending(const struct store_merges *merges, size_t failed)
{
    for (size_t i = 0; i < merges->count; i++)
        if (merges->mergings[i].kept == MERGE_NOT_KEPT && failed-- == 0)
            return &merges->mergings[i];
    return NULL;
}

static uint64_t pending_bytes(const struct store_merges *merges)
{
    uint64_t bytes = 0;

    for (size_t i = 0; i < merges->count; i++)
        if (merges->mergings[i].kept == MERGE_NOT_KEPT)
            bytes += merges->mergings[i].bytes;
    return bytes;
}

static bool merge_one(struct vm *vm, struct merge_run *run, struct store_merges *merges, const struct plan_merging *merging,
                      json_t *merged, struct err *err)
{
    const struct progress progress = {.report = report, .cancelled = is_cancelled, .context = run};
    struct vm_plan_run plan_run = {.progress = &progress};
    AUTO_PLAN struct plan *plan = NULL;

    run->item_bytes = merging->bytes;
    if (!store_merges_plan(merges, store_tree(vm->store), merging, &plan, err) || !vm_run_plan(vm, plan, &plan_run, err))
        return false;
    run->done_bytes += merging->bytes;
    json_array_append_new(merged, json_pack("{s:o, s:o, s:I}", "path", text_json(merging_gone(merging)), "into",
                                            text_json(merging_stays(merging)), "bytes", (json_int_t)merging->bytes));
    return store_merges_next(merges, store_tree(vm->store), merging, err);
}

static bool merges_read(struct vm *vm, bool into_base, struct store_merges *ret_merges, struct err *err)
{
    enum plan_machine machine;

    return vm_machine_state(vm, &machine, NULL, err) &&
           store_merges_read(&io_real, store_tree(vm->store), machine, into_base, ret_merges, err);
}

/* Damage in one image is no reason to leave the others, nor is one that does not fit: they may be smaller, and make room. What ends this
 * process's work, or meets all of them, is. */
static bool is_of_one_image(const struct err *err)
{
    return err->code == ERR_CORRUPT || err->code == ERR_MISMATCH || err->code == ERR_UNSUPPORTED || err->code == ERR_STATE ||
           err->code == ERR_NO_SPACE;
}

bool vm_merge_pending(struct vm *vm, bool into_base, const struct progress *progress, json_t *merged, struct err *err)
{
    struct merge_run run = {.progress = progress};
    AUTO(store_merges_done) struct store_merges merges = {0};
    const struct plan_merging *merging;
    size_t failed = 0;

    if (!merges_read(vm, into_base, &merges, err))
        return false;
    run.total_bytes = pending_bytes(&merges);
    while ((merging = next_pending(&merges, failed)) != NULL) {
        struct err one_err;
        if (merge_one(vm, &run, &merges, merging, merged, &one_err))
            continue;
        if (failed++ == 0)
            *err = one_err;
        if (!is_of_one_image(&one_err))
            return false;
        store_merges_done(&merges);
        if (!merges_read(vm, into_base, &merges, &one_err))
            return false;
    }
    return failed == 0;
}

json_t *vm_mergings(struct vm *vm)
{
    struct store_merges merges;
    struct err ignored;

    if (!merges_read(vm, /* into_base= */ false, &merges, &ignored))
        return json_array();
    json_t *list = mergings_json(&merges);
    store_merges_done(&merges);
    return list;
}

static bool answer_dry_run(struct vm *vm, bool into_base, json_t **ret_value, struct err *err)
{
    AUTO_PLAN struct plan *plan = NULL;
    struct store_merges merges;

    if (!merges_read(vm, into_base, &merges, err))
        return false;
    bool ok = store_merges_plan_all(&merges, store_tree(vm->store), &plan, err);
    store_merges_done(&merges);
    return ok && vm_answer_room(vm, plan, ret_value, err);
}

static bool merge_now(struct vm *vm, bool into_base, const struct progress *progress, json_t **ret_value, struct err *err)
{
    json_auto_t *merged = json_array();

    if (!merged)
        return err_oom(err);
    bool done = !vm->present || merger_run(vm, progress, merged, err);
    if (done && !vm->present)
        done = vm_merge_pending(vm, into_base, progress, merged, err);
    return done &&
           vm_answer(json_pack("{s:O, s:o}", "merged", merged, "merging", vm_mergings(vm)), ret_value, err);
}

bool op_merge(struct vm *vm, const json_t *args, const struct progress *progress, json_t **ret_value, struct err *err)
{
    bool into_base = false, dry_run = false;

    if (!args_bool(args, "into_base", &into_base, err) || !args_bool(args, "dry_run", &dry_run, err))
        return false;
    if (vm->present && into_base)
        return err_set(err, ERR_STATE, "merge: %s: the VM runs: stop or save it before a base elsewhere is written to",
                       vm_config(vm)->name);
    if (!(dry_run ? answer_dry_run(vm, into_base, ret_value, err) : merge_now(vm, into_base, progress, ret_value, err)))
        return err_prefix(err, "merge: %s", vm_config(vm)->name);
    return true;
}
