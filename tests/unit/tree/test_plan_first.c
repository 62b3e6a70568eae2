/* The shapes of plans that take a snapshot of the present and go back to another one, as one operation. */
#include "tree_sample.h"

#include "auto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define TOP SAMPLE_LAYERS "/web_0000000F-0000-4000-8000-00000000000F.avhd"

static void assert_shape(const struct plan *plan, const char *expected)
{
    AUTO_BUF struct buf text = BUF_INIT;

    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind != STEP_MAKE_DIR && plan->steps[i].kind != STEP_SYNC_DIR)
            assert_true(buf_printf(&text, "%s%s", text.length ? " " : "", step_name(plan->steps[i].kind)));
    assert_string_equal((char *)text.data, expected);
}

/* One snapshot over the base, the VM on a working layer over it. */
static struct tree *one_snapshot(enum config_state taken, enum plan_machine machine)
{
    struct config *vm = sample_vm(SAMPLE_DIR);
    struct err err;

    if (machine == MACHINE_SAVED) {
        vm->saved = sample_guid(700);
        vm->memory = sample_guid(701);
        vm->saved_state = STATE_RUNNING;
        sample_check(config_set_string(&vm->qemu_version, "7.2.1", &err), &err);
    }
    struct config *snapshot = sample_listed(vm, 1, 0, taken);
    vm->parent = snapshot->snapshot;
    sample_check(config_set_string(&vm->disks[0].path, TOP, &err) &&
                     config_set_string(&snapshot->disks[0].path, SAMPLE_DIR "/web.vhd", &err),
                 &err);
    return sample_tree(vm, &snapshot, 1);
}

static struct plan *go_back(const struct tree *tree, struct plan_apply request, bool needs_place, struct guid *ret_first)
{
    static const struct plan_layer LAYERS[] = {{.path = TOP, .parent = SAMPLE_DIR "/web.vhd"}, {.path = SAMPLE_DIR "/web.vhd"}};
    struct plan_snapshot first = {.machine = request.machine, .qemu_version = "7.2.1", .accel_used = ACCEL_TCG};
    unsigned counter = 200;
    struct plan_source source = SAMPLE_SOURCE(&counter);
    struct plan *plan;
    struct err err;

    request.snapshot = sample_guid(1);
    request.layers = LAYERS;
    request.layer_count = 2;
    if (!plan_apply_first(tree, &source, &first, &request, needs_place, &plan, ret_first, &err))
        fail_msg("%s", err.text);
    return plan;
}

static const struct config *last_config(const struct plan *plan, enum step_kind kind)
{
    const struct config *config = NULL;

    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == kind)
            config = plan->steps[i].config;
    assert_non_null(config);
    return config;
}

static void assert_plan(enum config_state taken, struct plan_apply request, bool needs_place, const char *expected)
{
    AUTO_TREE struct tree *tree = one_snapshot(taken, request.machine);
    struct guid first;
    AUTO_PLAN struct plan *plan = go_back(tree, request, needs_place, &first);
    const struct config *vm = last_config(plan, STEP_COMMIT), *snapshot = last_config(plan, STEP_WRITE_CONFIG);

    assert_shape(plan, expected);
    /* The present is the snapshot's, on the tops that it had. */
    assert_string_equal(snapshot->snapshot.text, first.text);
    assert_string_equal(snapshot->disks[0].path, TOP);
    assert_int_equal(snapshot->state_when_taken != STATE_OFF, request.machine != MACHINE_OFF);
    /* The VM descends from what it went back to; both are listed, the new one under what the VM was of. */
    assert_string_equal(vm->parent.text, sample_guid(1).text);
    assert_int_equal(vm->listed_count, 2);
    assert_string_equal(vm->listed[1].guid.text, first.text);
    assert_string_equal(vm->listed[1].parent.text, sample_guid(1).text);
    assert_string_not_equal(vm->disks[0].path, TOP);
    for (size_t i = 0; i < plan->step_count; i++)
        if (plan->steps[i].kind == STEP_REMOVE_FILE)
            assert_string_not_equal(plan->steps[i].path, TOP);
}

static void one_commit_takes_the_present_and_goes_back(void **state)
{
    (void)state;
    assert_plan(STATE_OFF, (struct plan_apply){.machine = MACHINE_OFF}, false, "create-layer write-config commit");
    assert_plan(STATE_RUNNING, (struct plan_apply){.machine = MACHINE_OFF}, true,
                "create-layer start-target write-config commit run-target");
    assert_plan(STATE_OFF, (struct plan_apply){.machine = MACHINE_SAVED}, false,
                "create-layer share-file share-file write-config commit remove-file remove-file");
    assert_plan(STATE_OFF, (struct plan_apply){.machine = MACHINE_RUNNING}, true,
                "create-layer stop-present save-memory flush-sealed write-config commit drop-present");
    /* What cannot be loaded is found before the present is stopped. */
    assert_plan(STATE_PAUSED, (struct plan_apply){.machine = MACHINE_RUNNING}, false,
                "create-layer start-target stop-present save-memory flush-sealed write-config commit drop-present "
                "run-target");
    assert_plan(STATE_RUNNING, (struct plan_apply){.machine = MACHINE_PAUSED, .no_start = true}, true,
                "create-layer share-file share-file stop-present save-memory flush-sealed write-config commit "
                "drop-present");
}

static void a_target_that_needs_the_presents_place_comes_behind_the_snapshot(void **state)
{
    (void)state;
    assert_plan(STATE_RUNNING, (struct plan_apply){.machine = MACHINE_RUNNING}, true,
                "create-layer prepare-tops commit stop-present save-memory flush-sealed write-config commit "
                "create-layer start-target stop-present commit drop-present run-target remove-file");
}

static void the_first_ones_memory_is_saved_under_its_own_id(void **state)
{
    AUTO_TREE struct tree *tree = one_snapshot(STATE_RUNNING, MACHINE_RUNNING);
    struct guid first;
    AUTO_PLAN struct plan *plan = go_back(tree, (struct plan_apply){.machine = MACHINE_RUNNING}, false, &first);

    (void)state;
    for (size_t i = 0; i < plan->step_count; i++) {
        const struct step *step = &plan->steps[i];
        if (step->kind != STEP_SAVE_MEMORY)
            continue;
        assert_ptr_equal(plan_memory_config(plan, i), last_config(plan, STEP_WRITE_CONFIG));
        assert_non_null(strstr(step->path, first.text));
        assert_int_equal(step->state, STATE_PAUSED); /* it does nothing behind it */
        return;
    }
    fail_msg("no memory is saved");
}

static void a_present_in_two_states_is_refused(void **state)
{
    AUTO_TREE struct tree *tree = one_snapshot(STATE_OFF, MACHINE_OFF);
    struct plan_snapshot first = {.machine = MACHINE_OFF};
    struct plan_apply request = {.machine = MACHINE_RUNNING, .snapshot = sample_guid(1)};
    unsigned counter = 200;
    struct plan_source source = SAMPLE_SOURCE(&counter);
    struct plan *plan;
    struct guid guid;
    struct err err;

    (void)state;
    assert_false(plan_apply_first(tree, &source, &first, &request, false, &plan, &guid, &err));
    assert_int_equal(err.code, ERR_INTERNAL);
    request = (struct plan_apply){.machine = MACHINE_OFF, .snapshot = sample_guid(9)};
    assert_false(plan_apply_first(tree, &source, &first, &request, false, &plan, &guid, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(one_commit_takes_the_present_and_goes_back),
        cmocka_unit_test(a_target_that_needs_the_presents_place_comes_behind_the_snapshot),
        cmocka_unit_test(the_first_ones_memory_is_saved_under_its_own_id),
        cmocka_unit_test(a_present_in_two_states_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
