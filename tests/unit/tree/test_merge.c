/* Which images are merged, in which direction, by which steps, and which are kept. */
#include "tree_sample.h"

#include "auto.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#define BASE    SAMPLE_DIR "/web.vhd"
#define OUTSIDE "/srv/web.vhd"
#define LAYER(number) SAMPLE_LAYERS "/web_0000000" #number "-0000-4000-8000-00000000000" #number ".avhd"

/* A VM on LAYER(top) over LAYER(...) down to a base, as a list from the base up; snapshots name some of them. */
struct lab {
    struct config *vm;
    struct config *snapshots[8];
    size_t snapshot_count;
    struct plan_layer layers[12];
    size_t layer_count;
    enum plan_machine machine;
    bool into_base, copied;
    struct tree *tree;
    struct plan_merging *mergings;
    size_t count;
};

static void lab_new(struct lab *lab, const char *top)
{
    struct err err;

    *lab = (struct lab){.vm = sample_vm(SAMPLE_DIR), .machine = MACHINE_OFF};
    sample_check(config_set_string(&lab->vm->disks[0].path, top, &err), &err);
}

static struct plan_layer *layer(struct lab *lab, const char *path, const char *parent, uint64_t allocated)
{
    struct plan_layer *made = &lab->layers[lab->layer_count++];

    *made = (struct plan_layer){.path = path, .parent = parent, .size_bytes = 1U << 30, .allocated_bytes = allocated};
    snprintf(made->id, sizeof made->id, "%032zu", lab->layer_count);
    return made;
}

static void point(struct lab *lab, const char *path, const char *id)
{
    unsigned number = (unsigned)lab->snapshot_count + 1;
    struct config *snapshot = sample_listed(lab->vm, number, 0, STATE_OFF);
    struct err err;

    sample_check(config_set_string(&snapshot->disks[0].path, path, &err), &err);
    snprintf(snapshot->disks[0].image_id, sizeof snapshot->disks[0].image_id, "%s", id);
    lab->snapshots[lab->snapshot_count++] = snapshot;
}

static struct plan_merge request_of(const struct lab *lab)
{
    return (struct plan_merge){.machine = lab->machine,
                               .layers = lab->layers,
                               .layer_count = lab->layer_count,
                               .into_base = lab->into_base,
                               .copied = lab->copied};
}

static void derive(struct lab *lab)
{
    struct plan_merge request = request_of(lab);
    struct err err;

    if (!lab->tree)
        lab->tree = sample_tree(lab->vm, lab->snapshots, lab->snapshot_count);
    free(lab->mergings);
    if (!plan_mergings(lab->tree, &request, &lab->mergings, &lab->count, &err))
        fail_msg("%s", err.text);
}

static void lab_done(struct lab *lab)
{
    free(lab->mergings);
    tree_free(lab->tree);
}

/* "kind PATH<FROM ..." with layers by their number alone. */
static char *steps_of(struct lab *lab, size_t index)
{
    struct plan_merge request = request_of(lab);
    struct buf text = BUF_INIT;
    AUTO_PLAN struct plan *plan = NULL;
    struct err err;

    if (!plan_merge(lab->tree, &request, &lab->mergings[index], &plan, &err))
        fail_msg("%s", err.text);
    for (size_t i = 0; i < plan->step_count; i++) {
        const struct step *step = &plan->steps[i];
        buf_printf(&text, "%s%s", i ? " " : "", step_name(step->kind));
        if (step->kind == STEP_MERGE_DATA)
            buf_printf(&text, step->direction == MERGE_UP ? "-up" : "-down");
        const char *name = strrchr(step->path, '/') + 1;
        if (strlen(name) > 12 && strncmp(name, "web_", 4) == 0)
            buf_printf(&text, " %c", name[11]);
        if (step->from && strchr(step->from, '_'))
            buf_printf(&text, "<%c", (strrchr(step->from, '/') + 1)[11]);
        else if (step->from)
            buf_printf(&text, "<base");
    }
    return buf_take_string(&text);
}

static void assert_steps(struct lab *lab, size_t index, const char *expected)
{
    AUTO_FREE char *text = steps_of(lab, index);

    assert_string_equal(text, expected);
}

static void assert_kept(struct lab *lab, enum merge_kept kept, const char *says)
{
    struct plan_merge request = request_of(lab);
    struct plan *plan;
    struct err err;
    char reason[320];

    derive(lab);
    assert_int_equal(lab->count, 1);
    assert_int_equal(lab->mergings[0].kept, kept);
    merging_reason(&lab->mergings[0], reason, sizeof reason);
    if (!strstr(reason, says))
        fail_msg("'%s' does not say '%s'", reason, says);
    assert_false(plan_merge(lab->tree, &request, &lab->mergings[0], &plan, &err));
    assert_int_equal(err.code, ERR_STATE);
}

/* base <- 1 <- 2 <- 3 (now); 1 is no point. */
static void three(struct lab *lab, bool name_two, uint64_t allocated_one, uint64_t allocated_two)
{
    lab_new(lab, LAYER(3));
    layer(lab, BASE, NULL, 9000);
    layer(lab, LAYER(1), BASE, allocated_one);
    layer(lab, LAYER(2), LAYER(1), allocated_two);
    layer(lab, LAYER(3), LAYER(2), 10);
    point(lab, BASE, "");
    if (name_two)
        point(lab, LAYER(2), "00000000000000000000000000000003");
}

static void what_all_points_need_is_not_merged(void **state)
{
    struct lab lab;

    (void)state;
    lab_new(&lab, LAYER(2));
    layer(&lab, BASE, NULL, 1);
    layer(&lab, LAYER(1), BASE, 1)->may_be_empty = true;
    layer(&lab, LAYER(2), LAYER(1), 1)->may_be_empty = true;
    point(&lab, BASE, "");
    point(&lab, LAYER(1), "");
    derive(&lab);
    assert_int_equal(lab.count, 0);
    lab_done(&lab);
}

static void the_cheaper_direction_is_taken(void **state)
{
    struct lab lab;

    (void)state;
    three(&lab, /* name_two= */ true, 1000, 100);
    derive(&lab);
    assert_int_equal(lab.count, 1);
    assert_int_equal(lab.mergings[0].direction, MERGE_DOWN);
    assert_int_equal(lab.mergings[0].bytes, 100);
    assert_string_equal(merging_gone(&lab.mergings[0]), LAYER(2));
    assert_string_equal(merging_stays(&lab.mergings[0]), LAYER(1));
    assert_steps(&lab, 0, "merge-data-down 2<1 empty-layer 2 write-config reparent 3<1 remove-file 2");
    lab_done(&lab);
    three(&lab, /* name_two= */ true, 100, 1000);
    derive(&lab);
    assert_int_equal(lab.mergings[0].direction, MERGE_UP);
    assert_int_equal(lab.mergings[0].bytes, 100);
    assert_string_equal(merging_gone(&lab.mergings[0]), LAYER(1));
    assert_string_equal(merging_stays(&lab.mergings[0]), LAYER(2));
    assert_steps(&lab, 0, "merge-data-up 2<1 reparent 2<base remove-file 1");
    lab_done(&lab);
}

static void a_snapshot_gets_path_and_id_of_the_image_that_stays(void **state)
{
    struct plan_merge request;
    struct plan *plan;
    struct err err;
    struct lab lab;

    (void)state;
    three(&lab, /* name_two= */ true, 1000, 100);
    derive(&lab);
    request = request_of(&lab);
    assert_true(plan_merge(lab.tree, &request, &lab.mergings[0], &plan, &err));
    const struct step *write = &plan->steps[2];
    assert_int_equal(write->kind, STEP_WRITE_CONFIG);
    assert_string_equal(write->config->snapshot.text, sample_guid(2).text);
    assert_string_equal(write->config->disks[0].path, LAYER(1));
    assert_string_equal(write->config->disks[0].image_id, "00000000000000000000000000000002");
    plan_free(plan);
    lab_done(&lab);
}

/* Its settings do not know an id, and nobody says now that this is the one. */
static void an_id_that_was_not_noted_is_not_made_up(void **state)
{
    struct plan_merge request;
    struct plan *plan;
    struct err err;
    struct lab lab;

    (void)state;
    three(&lab, /* name_two= */ false, 1000, 100);
    point(&lab, LAYER(2), "");
    derive(&lab);
    request = request_of(&lab);
    assert_true(plan_merge(lab.tree, &request, &lab.mergings[0], &plan, &err));
    assert_string_equal(plan->steps[2].config->disks[0].image_id, "");
    plan_free(plan);
    lab_done(&lab);
}

/* 1 and 2 are no points: 1 goes first, then what came of it. */
static void two_in_a_row_are_merged_one_after_the_other(void **state)
{
    struct lab lab;

    (void)state;
    three(&lab, /* name_two= */ false, 1000, 100);
    derive(&lab);
    assert_int_equal(lab.count, 2);
    assert_steps(&lab, 0, "merge-data-down 2<1 empty-layer 2 reparent 3<1 remove-file 2");
    merging_apply(&lab.mergings[0], lab.layers, &lab.layer_count);
    assert_int_equal(lab.layer_count, 3);
    derive(&lab);
    assert_int_equal(lab.count, 1);
    assert_int_equal(lab.mergings[0].direction, MERGE_DOWN);
    assert_true(lab.mergings[0].child_is_top);
    assert_steps(&lab, 0, "merge-data-down 3<1 commit remove-file 3");
    merging_apply(&lab.mergings[0], lab.layers, &lab.layer_count);
    assert_int_equal(lab.layer_count, 2);
    lab_done(&lab);
}

static void the_vm_itself_is_merged_by_a_commit(void **state)
{
    struct plan_merge request;
    struct plan *plan;
    struct err err;
    struct lab lab;

    (void)state;
    lab_new(&lab, LAYER(1));
    layer(&lab, BASE, NULL, 1000);
    layer(&lab, LAYER(1), BASE, 5000);
    derive(&lab);
    assert_int_equal(lab.count, 1);
    assert_steps(&lab, 0, "merge-data-down 1<base commit remove-file 1");
    request = request_of(&lab);
    assert_true(plan_merge(lab.tree, &request, &lab.mergings[0], &plan, &err));
    assert_string_equal(plan->steps[1].config->disks[0].path, BASE);
    plan_free(plan);
    lab_done(&lab);
}

static void a_running_vm_keeps_what_it_writes_over(void **state)
{
    struct lab lab;

    (void)state;
    lab_new(&lab, LAYER(1));
    layer(&lab, BASE, NULL, 1000);
    layer(&lab, LAYER(1), BASE, 5000);
    lab.machine = MACHINE_RUNNING;
    assert_kept(&lab, MERGE_KEPT_WRITTEN, "web_00000001");
    lab_done(&lab);
    three(&lab, /* name_two= */ true, 1000, 100);
    lab.machine = MACHINE_PAUSED;
    derive(&lab);
    assert_int_equal(lab.mergings[0].kept, MERGE_NOT_KEPT); /* both are sealed */
    lab_done(&lab);
}

static void several_dependants_keep_an_image(void **state)
{
    struct lab lab;

    (void)state;
    lab_new(&lab, LAYER(3));
    layer(&lab, BASE, NULL, 1000);
    layer(&lab, LAYER(1), BASE, 5);
    layer(&lab, LAYER(3), BASE, 5);
    point(&lab, LAYER(1), "");
    assert_kept(&lab, MERGE_KEPT_FORK, "web.vhd is needed by 2 others");
    assert_string_equal(merging_gone(&lab.mergings[0]), BASE);
    assert_null(merging_stays(&lab.mergings[0]));
    lab_done(&lab);
}

/* A VM on layer 1 over a base of its own: what keeps it from being merged. */
static struct plan_layer *own_base(struct lab *lab, const char *path)
{
    lab_new(lab, LAYER(1));
    struct plan_layer *base = layer(lab, path, NULL, 1000);
    layer(lab, LAYER(1), path, 5);
    return base;
}

static void a_base_that_others_may_use_is_kept(void **state)
{
    struct lab lab;

    (void)state;
    own_base(&lab, OUTSIDE);
    assert_kept(&lab, MERGE_KEPT_OUTSIDE, "outside the VM's folder");
    lab.into_base = true;
    derive(&lab);
    assert_int_equal(lab.mergings[0].kept, MERGE_NOT_KEPT);
    lab_done(&lab);
    own_base(&lab, BASE)->is_elsewhere = true;
    assert_kept(&lab, MERGE_KEPT_OUTSIDE, "outside the VM's folder");
    lab_done(&lab);
    for (int into_base = 0; into_base <= 1; into_base++) {
        own_base(&lab, into_base ? OUTSIDE : BASE)->is_linked = true;
        lab.into_base = into_base;
        assert_kept(&lab, MERGE_KEPT_LINKED, "another name");
        lab_done(&lab);
        own_base(&lab, into_base ? OUTSIDE : BASE)->user = "other";
        lab.into_base = into_base;
        assert_kept(&lab, MERGE_KEPT_USED, "'other'");
        lab_done(&lab);
    }
}

static void an_image_that_the_snapshot_does_not_mean_is_kept(void **state)
{
    struct lab lab;

    (void)state;
    three(&lab, /* name_two= */ false, 1000, 100);
    point(&lab, LAYER(2), "0000000000000000000000000000000F");
    derive(&lab);
    assert_int_equal(lab.mergings[0].direction, MERGE_UP); /* which does not touch what the snapshot names */
    lab.layers[1].is_linked = false;
    lab.layers[2].is_linked = true;
    derive(&lab);
    assert_int_equal(lab.mergings[0].kept, MERGE_KEPT_LINKED);
    lab_done(&lab);
}

static void an_image_over_the_child_must_be_writable(void **state)
{
    struct lab lab;

    (void)state;
    three(&lab, /* name_two= */ true, 1000, 100);
    lab.layers[3].is_linked = true;
    derive(&lab);
    assert_int_equal(lab.mergings[0].direction, MERGE_UP);
    assert_int_equal(lab.mergings[0].kept, MERGE_NOT_KEPT);
    lab_done(&lab);
}

static void sizes_that_would_show_what_is_hidden_are_kept(void **state)
{
    struct lab lab;

    (void)state;
    own_base(&lab, BASE)->size_bytes = 2U << 30; /* larger than what lies over it */
    assert_kept(&lab, MERGE_KEPT_SIZE, "size");
    lab_done(&lab);
    own_base(&lab, BASE)->size_bytes = 1U << 29; /* grown first */
    derive(&lab);
    assert_int_equal(lab.mergings[0].kept, MERGE_NOT_KEPT);
    lab_done(&lab);
    three(&lab, /* name_two= */ true, 100, 1000);
    lab.layers[1].size_bytes = 1U << 29; /* what the base holds behind it is hidden: neither direction */
    derive(&lab);
    assert_int_equal(lab.mergings[0].kept, MERGE_KEPT_SIZE);
    lab_done(&lab);
}

/* As a merge leaves them that was cut off: 2 has been emptied, the snapshot names 1, and 4 has it as its parent already. */
static void an_empty_image_is_taken_out_whatever_lies_over_it(void **state)
{
    struct lab lab;

    (void)state;
    lab_new(&lab, LAYER(3));
    layer(&lab, BASE, NULL, 9000);
    layer(&lab, LAYER(1), BASE, 1000);
    layer(&lab, LAYER(2), LAYER(1), 8)->may_be_empty = true;
    layer(&lab, LAYER(3), LAYER(2), 10);
    layer(&lab, LAYER(4), LAYER(1), 10);
    layer(&lab, LAYER(5), LAYER(2), 10);
    point(&lab, BASE, "");
    point(&lab, LAYER(4), "");
    point(&lab, LAYER(5), "");
    point(&lab, LAYER(1), "");
    derive(&lab);
    assert_int_equal(lab.count, 1);
    assert_true(lab.mergings[0].child_is_empty);
    assert_steps(&lab, 0, "check-empty 2 sync-file 4 sync-dir reparent 3<1 reparent 5<1 remove-file 2");
    merging_apply(&lab.mergings[0], lab.layers, &lab.layer_count);
    derive(&lab);
    assert_int_equal(lab.count, 0);
    lab_done(&lab);
}

static void a_copied_merge_is_the_same_without_the_copying(void **state)
{
    struct lab lab;

    (void)state;
    three(&lab, /* name_two= */ true, 1000, 100);
    lab.copied = true;
    derive(&lab);
    assert_steps(&lab, 0, "empty-layer 2 write-config reparent 3<1 remove-file 2");
    lab_done(&lab);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_all_points_need_is_not_merged),
        cmocka_unit_test(the_cheaper_direction_is_taken),
        cmocka_unit_test(a_snapshot_gets_path_and_id_of_the_image_that_stays),
        cmocka_unit_test(an_id_that_was_not_noted_is_not_made_up),
        cmocka_unit_test(two_in_a_row_are_merged_one_after_the_other),
        cmocka_unit_test(the_vm_itself_is_merged_by_a_commit),
        cmocka_unit_test(a_running_vm_keeps_what_it_writes_over),
        cmocka_unit_test(several_dependants_keep_an_image),
        cmocka_unit_test(a_base_that_others_may_use_is_kept),
        cmocka_unit_test(an_image_that_the_snapshot_does_not_mean_is_kept),
        cmocka_unit_test(an_image_over_the_child_must_be_writable),
        cmocka_unit_test(sizes_that_would_show_what_is_hidden_are_kept),
        cmocka_unit_test(an_empty_image_is_taken_out_whatever_lies_over_it),
        cmocka_unit_test(a_copied_merge_is_the_same_without_the_copying),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
