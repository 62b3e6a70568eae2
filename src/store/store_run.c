/* Plans, done. */
#include "store_private.h"

#include "auto.h"
#include "log.h"

#include <stdlib.h>

static bool needs_machine(enum step_kind kind)
{
    return kind == STEP_PREPARE_TOPS || kind == STEP_SAVE_MEMORY || kind == STEP_SAVE_THUMBNAIL ||
           kind == STEP_FLUSH_SEALED || kind == STEP_START_TARGET || kind == STEP_STOP_PRESENT ||
           kind == STEP_DROP_PRESENT || kind == STEP_RUN_TARGET;
}

/* A commit of a plan that has another one behind it. */
struct committed {
    const char *path;      /* the plan's */
    struct config *before; /* what the VM's file was; owned; NULL: there is no such commit, or it cannot be taken back */
};

static void committed_done(struct committed *committed)
{
    config_free(committed->before);
}

/* The index of the first step that nothing can be undone behind; the count where there is no commit. */
static size_t behind_last_commit(const struct plan *plan)
{
    for (size_t i = plan->step_count; i-- > 0;)
        if (plan->steps[i].kind == STEP_COMMIT)
            return i + 1;
    return plan->step_count;
}

static bool is_machines(const struct store_machine *machine, const struct step *step)
{
    return machine && (needs_machine(step->kind) || (machine->takes && machine->takes(machine->context, step)));
}

static bool do_step(struct store *store, struct plan *plan, size_t index, const struct store_machine *machine,
                    const struct progress *progress, bool *ret_uncertain, struct err *err)
{
    const struct step *step = &plan->steps[index];

    log_debug("%s: %s %s", plan->summary, step_name(step->kind), step->path ? step->path : "");
    *ret_uncertain = false;
    if (is_machines(machine, step))
        return machine->step(machine->context, plan, index, err);
    return step_do(store, step, progress, ret_uncertain, err);
}

/* What has been committed stays so, whether or not it can be read. */
static void reload(struct store *store)
{
    struct err err;

    store->is_stale = true;
    if (!store_reload(store, &err))
        log_debug("%s", err.text);
}

/* The VM's file of before a commit, written again as durably as any. */
static bool take_back(struct store *store, const char *path, struct config *before, bool *ret_uncertain)
{
    struct step step = {.kind = STEP_COMMIT, .path = (char *)(uintptr_t)path, .config = before};
    struct err err;

    if (step_do(store, &step, /* progress= */ NULL, ret_uncertain, &err))
        return true;
    log_debug("%s: cannot be taken back: %s", path, err.text);
    return false;
}

/* The commit that was done is taken back where nothing has come of it. If the file cannot be written it stays done. */
static void go_back(struct store *store, struct committed *committed, const struct store_machine *machine,
                    bool *is_uncertain)
{
    if (!committed->before || *is_uncertain || store->is_stale || !machine || !machine->may_go_back ||
        !machine->may_go_back(machine->context))
        return;
    if (!take_back(store, committed->path, committed->before, is_uncertain))
        return;
    reload(store);
    /* That it cannot be read must not look like the commit: the machine asks the tree which disks are its own. */
    if (store->is_stale) {
        config_free(store->tree->vm);
        store->tree->vm = TAKE(committed->before);
    }
}

/* Does it write a snapshot anew that we know? */
static bool rewrites_listed(const struct store *store, const struct plan *plan)
{
    for (size_t i = 0; i < plan->step_count; i++) {
        const struct step *step = &plan->steps[i];
        if (step->kind == STEP_WRITE_CONFIG && tree_by_guid(store->tree, &step->config->snapshot))
            return true;
    }
    return false;
}

static void run_failed(struct store *store, const struct plan *plan, size_t index, struct committed *committed,
                       const struct store_machine *machine, bool is_uncertain)
{
    bool ignored;

    /* A commit was renamed into its place, and then the folder could not be synced: after a power cut either file may be found.
     * The one of before makes it certain that nothing has happened. A tree that could not be read behind an earlier commit is
     * not the one of before. */
    if (is_uncertain && !store->is_stale &&
        take_back(store, plan->steps[index].path, store->tree->vm, &ignored))
        is_uncertain = false;
    go_back(store, committed, machine, &is_uncertain);
    if (is_uncertain) {
        store->is_uncertain = true;
        reload(store);
    }
    if (rewrites_listed(store, plan))
        reload(store);
    if (machine && machine->abort)
        machine->abort(machine->context, plan, index);
    if (!is_uncertain && !store->is_stale)
        sweep_plan(store, plan, index);
}

/* A chain of a thousand snapshots is not read again for each new one. */
static void reload_behind_commit(struct store *store, const struct plan *plan)
{
    struct err err;

    if (store->is_stale || !reload_listed(store, plan, &err))
        reload(store);
}

static bool run_to_commit(struct store *store, struct plan *plan, size_t end,
                          const struct store_machine *machine, const struct progress *progress,
                          struct err *err)
{
    AUTO(committed_done) struct committed committed = {0};

    for (size_t i = 0; i < end; i++) {
        bool is_uncertain = false;
        AUTO_CONFIG struct config *before =
            plan->steps[i].kind == STEP_COMMIT && i + 1 < end ? config_copy(store->tree->vm) : NULL;
        bool ok = progress_cancelled(progress) ? err_set(err, ERR_CANCELLED, "%s: cancelled", plan->summary)
                                               : do_step(store, plan, i, machine, progress, &is_uncertain, err);
        if (!ok) {
            run_failed(store, plan, i, &committed, machine, is_uncertain);
            return false;
        }
        if (plan->steps[i].kind == STEP_COMMIT) {
            store->is_uncertain = false;
            reload_behind_commit(store, plan);
            committed_done(&committed);
            committed = (struct committed){.path = plan->steps[i].path, .before = TAKE(before)};
        }
    }
    return true;
}

/* What stands behind the last commit is done as far as it can be: what is not removed is garbage, which the
 * next recovery sees. A machine that does not go on is worth telling. */
static bool run_behind(struct store *store, struct plan *plan, size_t start,
                       const struct store_machine *machine, struct err *err)
{
    bool ok = true;

    for (size_t i = start; i < plan->step_count; i++) {
        struct err step_err;
        bool is_uncertain;
        if (do_step(store, plan, i, machine, /* progress= */ NULL, &is_uncertain, &step_err))
            continue;
        log_debug("%s: %s: %s", plan->summary, step_name(plan->steps[i].kind), step_err.text);
        if (ok && needs_machine(plan->steps[i].kind)) {
            *err = step_err;
            ok = false;
        }
    }
    return ok;
}

bool store_run(struct store *store, struct plan *plan, const struct store_machine *machine,
               const struct progress *progress, struct err *err)
{
    size_t end = behind_last_commit(plan);
    bool has_commit = end > 0 && plan->steps[end - 1].kind == STEP_COMMIT;

    if (store->is_stale) {
        reload(store);
        return err_set(err, ERR_BUSY,
                       "%s: the VM's folder could not be read when it was changed last; try again",
                       plan->summary);
    }
    if (!run_to_commit(store, plan, end, machine, progress, err) ||
        !run_behind(store, plan, end, machine, err))
        return false;
    bool is_read = store->is_stale ? store_reload(store, err) : has_commit || reload_listed(store, plan, err);
    if (!is_read) {
        store->is_stale = true;
        return err_prefix(err, "%s: done, but cannot be read again", plan->summary);
    }
    return true;
}
