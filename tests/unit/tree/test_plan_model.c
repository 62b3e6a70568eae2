/* Any sequence of operations, planned and played on a model of the folder. Behind every step the committed tree names only files that
 * are there (invariants 2 and 3), nothing but a commit changes it (4), every snapshot reads as when it was taken (1, S8, S9), the VM
 * reads what its guest wrote, and what is not needed can be told as garbage (5); what a commit names is durable (6). Plans are cut off
 * anywhere, by a kill or a power cut: recovery leaves nothing but what is needed.
 *
 * test_plan_model [SEED]; $BOUGH_TEST_SEEDS histories of 60 operations each. */
#include "plan_model.h"

static struct plan_source source(struct model *model)
{
    struct plan_source plain = SAMPLE_SOURCE(&model->counter);

    plain.now_ms += model->counter;
    return plain;
}

static bool is_alive(const struct model *model)
{
    return model->machine == MACHINE_RUNNING || model->machine == MACHINE_PAUSED;
}

static struct plan_snapshot snapshot_request(const struct model *model)
{
    return (struct plan_snapshot){.machine = model->machine, .qemu_version = "7.2.1", .accel_used = ACCEL_TCG};
}

static void do_snapshot(struct model *model)
{
    struct plan_source from = source(model);
    struct plan_snapshot request = snapshot_request(model);
    AUTO_PLAN struct plan *plan = NULL;
    struct guid guid;
    struct err err;

    if (!plan_snapshot(model->tree, &from, &request, &plan, &guid, &err))
        BAD(model, "%s", err.text);
    if (model_play(model, plan, NULL) && !tree_by_guid(model->tree, &guid))
        BAD(model, "%s is not listed", guid.text);
}

static const struct config *any_snapshot(struct model *model)
{
    return model->tree->snapshots[model_draw(model, model->tree->snapshot_count)];
}

static const struct content *taken_content(const struct model *model, const struct guid *guid)
{
    for (size_t i = 0; i < model->taken_count; i++)
        if (guid_equal(&model->taken[i].guid, guid))
            return &model->taken[i].content;
    return NULL;
}

static enum plan_machine machine_after(const struct plan_apply *request, const struct config *snapshot)
{
    enum config_state taken = request->disks_only ? STATE_OFF : snapshot->state_when_taken;

    if (taken == STATE_OFF)
        return MACHINE_OFF;
    if (request->no_start)
        return MACHINE_SAVED;
    return taken == STATE_RUNNING ? MACHINE_RUNNING : MACHINE_PAUSED;
}

static struct plan *plan_back(struct model *model, struct plan_apply *request, struct guid *ret_first)
{
    struct plan_source from = source(model);
    struct plan_snapshot first = snapshot_request(model);
    struct plan_layer *layers;
    struct plan *plan;
    struct err err;

    *ret_first = (struct guid){0};
    model_layers(model, &layers, &request->layer_count);
    request->layers = layers;
    bool ok = model_draw(model, 2) ? plan_apply(model->tree, &from, request, &plan, &err)
                                   : plan_apply_first(model->tree, &from, &first, request, model_draw(model, 2), &plan,
                                                      ret_first, &err);
    if (!ok)
        BAD(model, "%s", err.text);
    model_layers_free(layers, request->layer_count);
    return plan;
}

static void do_apply(struct model *model, const struct config *snapshot)
{
    struct plan_apply request = {.machine = model->machine,
                                 .snapshot = snapshot->snapshot,
                                 .no_start = model_draw(model, 2),
                                 .disks_only = model_draw(model, 4) == 0};
    enum plan_machine end = machine_after(&request, snapshot);
    struct content after = *taken_content(model, &request.snapshot);
    struct guid first;
    AUTO_PLAN struct plan *plan = plan_back(model, &request, &first);

    if (!model_play(model, plan, &after))
        return;
    if (is_alive(model) && model->machine != end)
        BAD(model, "ends as another machine");
    model->machine = end;
    if (!guid_equal(&model->tree->vm->parent, &request.snapshot))
        BAD(model, "the VM does not descend from what it went back to");
    if (guid_is_set(&first) && !tree_by_guid(model->tree, &first))
        BAD(model, "%s is not listed", first.text);
}

static void do_revert(struct model *model)
{
    const struct config *parent = tree_by_guid(model->tree, &model->tree->vm->parent);

    if (parent)
        do_apply(model, parent);
}

/* Nobody but the deleted ones goes, and who descended from them descends from what is left above. */
static void check_deleted(struct model *model, const struct guid *guid, bool subtree, size_t before)
{
    if (tree_by_guid(model->tree, guid))
        BAD(model, "%s is still listed", guid->text);
    if (!subtree && model->tree->snapshot_count != before - 1)
        BAD(model, "more than one was deleted");
}

static void do_delete(struct model *model)
{
    struct guid guid = any_snapshot(model)->snapshot;
    size_t before = model->tree->snapshot_count;
    bool subtree = model_draw(model, 4) == 0;
    AUTO_PLAN struct plan *plan = NULL;
    struct plan_layer *layers;
    size_t count;
    struct err err;

    model_layers(model, &layers, &count);
    if (!plan_delete(model->tree, &guid, subtree, layers, count, &plan, &err))
        BAD(model, "%s", err.text);
    if (model_play(model, plan, NULL))
        check_deleted(model, &guid, subtree, before);
    model_layers_free(layers, count);
}

static void do_text(struct model *model)
{
    struct guid guid = any_snapshot(model)->snapshot;
    AUTO_PLAN struct plan *plan = NULL;
    struct err err;

    if (!plan_snapshot_text(model->tree, &guid, "renamed", NULL, &plan, &err))
        BAD(model, "%s", err.text);
    if (model_play(model, plan, NULL) && strcmp(tree_by_guid(model->tree, &guid)->name, "renamed") != 0)
        BAD(model, "the name did not change");
}

static void do_set(struct model *model)
{
    AUTO_CONFIG struct config *vm = config_copy(model->tree->vm);
    struct content after = model->now;
    AUTO_PLAN struct plan *plan = NULL;
    struct err err;

    vm->cpus = after.cpus = 1 + (unsigned)model_draw(model, 16);
    if (!plan_settings(model->tree, vm, "set", &plan, &err))
        BAD(model, "%s", err.text);
    model_play(model, plan, &after);
}

/* False: it was cut off. */
static bool drop_saved(struct model *model)
{
    AUTO_CONFIG struct config *vm = config_copy(model->tree->vm);
    AUTO_PLAN struct plan *plan = NULL;
    struct err err;

    vm->saved = (struct guid){0};
    if (!plan_settings(model->tree, vm, "start", &plan, &err))
        BAD(model, "%s", err.text);
    return model_play(model, plan, NULL);
}

static void do_save(struct model *model)
{
    struct plan_source from = source(model);
    struct plan_save request = {.machine = model->machine, .qemu_version = "7.2.1", .accel_used = ACCEL_TCG};
    AUTO_PLAN struct plan *plan = NULL;
    struct err err;

    if (!plan_save(model->tree, &from, &request, &plan, &err))
        BAD(model, "%s", err.text);
    if (model_play(model, plan, NULL))
        model->machine = MACHINE_SAVED;
}

/* A live snapshot whose saving fails: a layer without a name stays in the VM's chain. */
static void do_failed_snapshot(struct model *model)
{
    struct plan_source from = source(model);
    struct plan_snapshot request = snapshot_request(model);
    AUTO_PLAN struct plan *plan = NULL;
    struct guid guid;
    struct err err;
    size_t end = 0;

    if (!plan_snapshot(model->tree, &from, &request, &plan, &guid, &err))
        BAD(model, "%s", err.text);
    while (plan->steps[end].kind != STEP_SAVE_MEMORY)
        end++;
    model_play_to(model, plan, end, /* is_torn= */ false, NULL);
    config_free(TAKE(model->engines));
    AUTO_FREE char *dir = tree_snapshot_dir(model->tree, &guid);
    model_drop_dir(model, dir);
}

/* When all is merged, nothing is left of a merge that was cut off: an image that others lie over and whose content its parent has. */
static void check_no_leftover(struct model *model, const struct plan_merging *mergings, size_t count)
{
    static const unsigned NOTHING[MODEL_SECTORS];

    for (size_t i = 0; i < count; i++) {
        const struct entry *fork = model_find(model, mergings[i].parent);
        const struct entry *under = fork->parent ? model_find(model, fork->parent) : NULL;
        bool is_other = !under || memcmp(fork->sectors, NOTHING, sizeof NOTHING) == 0;
        for (unsigned j = 0; under && j < MODEL_SECTORS; j++)
            is_other |= fork->sectors[j] && fork->sectors[j] != under->sectors[j];
        if (mergings[i].kept == MERGE_KEPT_FORK && !is_other)
            BAD(model, "%s is what a merge has left", fork->path);
    }
}

/* A new top over one disk of a guest that runs, so that the old one can be merged. */
static void do_seal(struct model *model)
{
    struct plan_source from = source(model);
    const char *top = model->tree->vm->disks[model_draw(model, MODEL_DISKS)].path;
    AUTO_PLAN struct plan *plan = NULL;
    struct err err;

    if (!plan_seal(model->tree, &from, top, &plan, &err))
        BAD(model, "%s", err.text);
    model_play(model, plan, NULL);
    config_free(TAKE(model->engines)); /* they switch behind it */
}

/* One that is pending; false: none is. A guest that runs has its top written to, so that is kept. */
static bool merge_one(struct model *model)
{
    struct plan_merge request = {.machine = model->machine, .into_base = model->may_fill_base};
    AUTO_PLAN struct plan *plan = NULL;
    struct plan_merging *mergings;
    struct plan_layer *layers;
    size_t count, pending = 0;
    struct err err;

    model_layers(model, &layers, &request.layer_count);
    request.layers = layers;
    if (!plan_mergings(model->tree, &request, &mergings, &count, &err))
        BAD(model, "%s", err.text);
    for (size_t i = 0; i < count; i++)
        if (mergings[i].kept == MERGE_NOT_KEPT)
            mergings[pending++] = mergings[i];
    if (pending == 0)
        check_no_leftover(model, mergings, count);
    if (pending > 0 &&
        !plan_merge(model->tree, &request, &mergings[model_draw(model, pending)], &plan, &err))
        BAD(model, "%s", err.text);
    free(mergings);
    model_layers_free(layers, request.layer_count);
    /* A plan knows nothing of what the engines have open: they go on with that. */
    if (is_alive(model))
        model->engines = config_copy(model->tree->vm);
    if (pending > 0)
        model_play(model, plan, NULL);
    config_free(TAKE(model->engines));
    model->merges += pending > 0;
    return pending > 0;
}

/* All of them, now and then: an end comes. */
static void do_merge(struct model *model)
{
    unsigned tries = model_draw(model, 2) ? 1 : 200;
    uint64_t cuts = model->cuts;
    bool is_more = true, is_all = tries > 1;

    model->may_fill_base |= model_draw(model, 40) == 0;
    while (tries > 0 && is_more) {
        is_more = merge_one(model);
        tries--;
    }
    if (is_all && is_more && cuts == model->cuts)
        BAD(model, "merging has no end");
}

static void do_power(struct model *model)
{
    if (is_alive(model)) {
        model_flush(model);
        model->machine = MACHINE_OFF;
        return;
    }
    if (model->machine == MACHINE_SAVED && !drop_saved(model))
        return;
    model->machine = model_draw(model, 2) ? MACHINE_RUNNING : MACHINE_PAUSED;
}

static const struct {
    const char *name;
    void (*run)(struct model *model);
    unsigned weight;
} OPERATIONS[] = {
    {"snapshot", do_snapshot, 10},
    {"revert", do_revert, 2},
    {"save", do_save, 3},
    {"failed snapshot", do_failed_snapshot, 2},
    {"power", do_power, 4},
    {"set", do_set, 1},
    {"merge", do_merge, 6},
    {"seal", do_seal, 2},
};
static const struct {
    const char *name;
    void (*run)(struct model *model);
} OF_SNAPSHOTS[] = {
    {"delete", do_delete},
    {"text", do_text},
};

static void do_without_snapshot(struct model *model, size_t index)
{
    void (*run)(struct model *model) = OPERATIONS[index].run;

    model->what = OPERATIONS[index].name;
    if ((run == do_save || run == do_failed_snapshot || run == do_seal) && !is_alive(model))
        return;
    if (run == do_set && model->machine != MACHINE_OFF)
        return;
    run(model);
}

static void do_something(struct model *model)
{
    uint64_t draw = model_draw(model, 48);
    size_t index = 0;

    if (draw >= 30 && model->tree->snapshot_count > 0) {
        bool is_apply = draw >= 42;
        size_t other = draw >= 41;
        model->what = is_apply ? "apply" : OF_SNAPSHOTS[other].name;
        if (is_apply)
            do_apply(model, any_snapshot(model));
        else
            OF_SNAPSHOTS[other].run(model);
    } else if (draw < 30) {
        while (draw >= OPERATIONS[index].weight)
            draw -= OPERATIONS[index++].weight;
        do_without_snapshot(model, index);
    }
    if (is_alive(model))
        model_guest_writes(model);
    model_check_clean(model);
}

static void any_sequence_of_operations_keeps_the_invariants(void **state)
{
    const char *text = getenv("BOUGH_TEST_SEEDS"), *first = *state;
    uint64_t seeds = text ? strtoul(text, NULL, 10) : 0, start = first ? strtoul(first, NULL, 10) : 1;
    uint64_t plans = 0, steps = 0, cuts = 0, merges = 0;

    for (uint64_t seed = start; seed < start + (seeds ? seeds : 30); seed++) {
        struct model model;
        model_new(&model, seed);
        for (unsigned i = 0; i < 60; i++)
            do_something(&model);
        plans += model.plans;
        steps += model.steps;
        cuts += model.cuts;
        merges += model.merges;
        model_done(&model);
    }
    printf("%llu plans, %llu of them merges; %llu steps, each looked at; %llu plans cut off\n", (unsigned long long)plans,
           (unsigned long long)merges, (unsigned long long)steps, (unsigned long long)cuts);
    assert_true(cuts > 0 && plans > cuts && merges > 0);
}

int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(any_sequence_of_operations_keeps_the_invariants, argc > 1 ? argv[1] : NULL),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
