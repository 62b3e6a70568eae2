/* Merges are cut off behind every step and at every call that changes the disk, by kills and power cuts: every snapshot and the VM read as
 * before, and whoever comes next finds what is pending from the files alone: when he has merged it, nothing is left that an undisturbed
 * merge would not have left.
 *
 * $BOUGH_TEST_SEEDS power cuts at each call. */
#include "crash_operations.h"

#include "auto.h"
#include "random.h"

/* base (0) - L1 (1); base - L2 (2) - L3 (3) - L4 (the VM) */
struct merge_case {
    const char *name;
    enum plan_machine machine;
    size_t deleted[4]; /* snapshots, counted from 1; 0: no more */
    bool is_quiet;     /* a snapshot in which nothing was written is taken first, and deleted */
    bool up;           /* the direction, where there are two */
    bool is_forked;    /* L3 has another image over it, a fifth snapshot's, and the VM a new one */
};

static const struct merge_case CASES[] = {
    {"down", MACHINE_OFF, .deleted = {3}},
    {"up", MACHINE_OFF, .deleted = {3}, .up = true},
    {"the VM's top down", MACHINE_SAVED, .deleted = {4}},
    {"the VM's top up", MACHINE_OFF, .deleted = {4}, .up = true},
    {"into the base", MACHINE_OFF, .deleted = {1, 2}},
    {"several, down", MACHINE_SAVED, .deleted = {3, 4}},
    {"several, up", MACHINE_OFF, .deleted = {3, 4}, .up = true},
    {"everything", MACHINE_OFF, .deleted = {1, 2, 3, 4}},
    {"one below a fork", MACHINE_OFF, .deleted = {1, 3}},
    {"down, with several above", MACHINE_OFF, .deleted = {3}, .is_forked = true},
    {"up, with several above", MACHINE_OFF, .deleted = {3}, .up = true, .is_forked = true},
    {"an empty one is taken out", MACHINE_OFF, .is_quiet = true},
    {"an empty one among others", MACHINE_SAVED, .deleted = {4}, .is_quiet = true},
};

static unsigned long long step_points, power_points, merges;

/* --- a merge --- */

/* Nothing is written between the two. */
static void take_quiet_snapshots(struct lab *lab)
{
    struct plan_snapshot request = {.machine = lab->machine, .name = "quiet"};
    struct guid guids[2];
    struct err err;

    for (unsigned i = 0; i < 2; i++) {
        struct plan_source source = lab_source(lab);
        AUTO_PLAN struct plan *plan = NULL;
        LAB_OK(plan_snapshot(store_tree(lab->store), &source, &request, &plan, &guids[i], &err) &&
               lab_run(lab, plan, &err));
        struct lab_taken *taken = &lab->taken[lab->taken_count++];
        taken->guid = guids[i];
        memcpy(taken->sectors, lab->instant, sizeof taken->sectors);
    }
    LAB_OK(lab_delete(lab, &guids[1], /* subtree= */ false, &err));
}

static void begin(const struct merge_case *merge, struct lab *lab)
{
    struct err err;

    lab_new(lab, true);
    lab_prepare(lab, merge->machine);
    if (merge->is_quiet)
        take_quiet_snapshots(lab);
    if (merge->is_forked) {
        lab_snapshot(lab, merge->machine);
        lab_apply(lab, 3, (struct plan_apply){.machine = merge->machine});
    }
    for (size_t i = 0; i < ARRAY_SIZE(merge->deleted) && merge->deleted[i]; i++)
        LAB_OK(lab_delete(lab, &lab->taken[merge->deleted[i] - 1].guid, /* subtree= */ false, &err));
    io_memory_sync_all(lab->place.memory);
}

static struct plan_merging *first_pending(struct store_merges *found, size_t skipped)
{
    for (size_t i = 0; i < found->count; i++)
        if (found->mergings[i].kept == MERGE_NOT_KEPT && skipped-- == 0)
            return &found->mergings[i];
    return NULL;
}

/* UP is possible wherever the parent lies over something and is Bough's. */
static void choose(struct lab *lab, const struct merge_case *merge, const struct store_merges *found,
                   struct plan_merging *merging)
{
    for (size_t i = 0; i < found->layer_count; i++)
        if (!merging->child_is_empty && strcmp(found->layers[i].path, merging->parent) == 0 && found->layers[i].parent &&
            tree_is_layer(store_tree(lab->store), merging->parent))
            merging->direction = merge->up ? MERGE_UP : MERGE_DOWN;
}

/* *ret_more false: nothing was pending but what has turned out not to be empty. */
static bool merge_one(struct lab *lab, const struct merge_case *merge, size_t *skipped, bool *ret_more, struct err *err)
{
    AUTO(store_merges_done) struct store_merges found = {0};
    AUTO_PLAN struct plan *plan = NULL;

    if (!store_merges_read(lab->place.io, store_tree(lab->store), lab->machine, false, &found, err))
        return false;
    struct plan_merging *merging = first_pending(&found, *skipped);
    *ret_more = merging != NULL;
    if (!merging)
        return true;
    choose(lab, merge, &found, merging);
    if (!store_merges_plan(&found, store_tree(lab->store), merging, &plan, err) || !lab_run(lab, plan, err)) {
        bool is_full = merging->child_is_empty && err->code == ERR_STATE;
        *skipped += is_full;
        return is_full;
    }
    merges++;
    return true;
}

static bool merge_all(struct lab *lab, const struct merge_case *merge, struct err *err)
{
    size_t skipped = 0;
    bool more = true;

    for (unsigned i = 0; more && i < 30; i++)
        if (!merge_one(lab, merge, &skipped, &more, err))
            return false;
    return !more || err_set(err, ERR_INTERNAL, "merging has no end");
}

/* --- what it leaves --- */

/* The same direction, or the other one, may be the one that whoever goes on takes. */
static void finals_take(const struct merge_case *merge, struct pictures *ret_finals)
{
    struct merge_case other = *merge;
    struct pictures finals = {0};
    struct lab lab;
    struct err err;

    for (unsigned i = 0; i < 2; i++, other.up = !other.up) {
        begin(&other, &lab);
        LAB_OK(merge_all(&lab, &other, &err));
        lab_check(&lab, merge->name);
        finals.pictures[finals.count++] = lab_picture(&lab);
        lab_done(&lab);
    }
    *ret_finals = finals;
}

static size_t layer_count(const struct lab *lab)
{
    struct plan_layer *layers;
    size_t count;
    struct err err;

    LAB_OK(store_layers(lab->store, &layers, &count, &err));
    store_layers_free(layers, count);
    return count;
}

/* Which file stays may differ where directions were mixed; how many do, may not. */
static void check_and_go_on(struct lab *lab, const struct merge_case *merge, const struct pictures *finals, size_t layers,
                            const char *where)
{
    struct err err;

    lab_check(lab, where);
    lab->stop_after = 0;
    if (!merge_all(lab, merge, &err))
        fail_msg("%s: %s", where, err.text);
    lab_check(lab, where);
    AUTO_FREE char *now = lab_picture(lab);
    if (pictures_find(finals, now) < finals->count || layer_count(lab) == layers)
        return;
    fprintf(stderr, "%s\n--- undisturbed\n%s--- now\n%s", where, finals->pictures[0], now);
    fail_msg("%s: something is left", where);
}

/* --- cuts --- */

static void stop_behind(const struct merge_case *merge, size_t step, bool with_power, const struct pictures *finals,
                        size_t layers)
{
    struct lab lab;
    struct err err;
    char where[160];
    size_t skipped = 0;
    bool more;

    snprintf(where, sizeof where, "%s, %s behind step %zu", merge->name, with_power ? "power cut" : "killed", step);
    begin(merge, &lab);
    lab.stop_after = step;
    (void)!merge_one(&lab, merge, &skipped, &more, &err);
    if (with_power)
        lab_power_cut(&lab, step);
    else
        lab_kill(&lab);
    lab_recover(&lab);
    check_and_go_on(&lab, merge, finals, layers, where);
    lab_done(&lab);
    step_points++;
}

/* Whoever goes on is cut off too. */
static void go_on_and_cut(struct lab *lab, const struct merge_case *merge, uint64_t seed)
{
    struct random random = {seed};
    struct err err;

    lab_recover(lab);
    io_failing_set(lab->place.failing, (struct io_fault){.calls = IO_CALLS_CHANGES,
                                                         .nth = 1 + random_below(&random, 20),
                                                         .errnum = EIO,
                                                         .done_anyway = random_below(&random, 2),
                                                         .forever = true});
    (void)!merge_all(lab, merge, &err);
    lab_power_cut(lab, seed);
}

static bool cut_at(const struct merge_case *merge, uint64_t nth, uint64_t seed, const struct pictures *finals,
                   size_t layers)
{
    struct lab lab;
    struct err err;
    char where[160];
    struct random random = {seed};

    snprintf(where, sizeof where, "%s, call %llu, seed %llu", merge->name, (unsigned long long)nth,
             (unsigned long long)seed);
    begin(merge, &lab);
    io_failing_set(lab.place.failing, (struct io_fault){.calls = IO_CALLS_CHANGES,
                                                        .nth = nth,
                                                        .errnum = EIO,
                                                        .done_anyway = random_below(&random, 2),
                                                        .forever = true});
    bool ok = merge_all(&lab, merge, &err);
    bool struck = io_failing_struck(lab.place.failing);
    uint64_t kind = random_below(&random, 4);
    lab_kill(&lab);
    /* Now and then only the process dies, somebody recovers, and then the power goes. */
    if (kind == 1) {
        lab_recover(&lab);
        store_close(TAKE(lab.store));
    }
    if (kind != 3)
        io_memory_crash(lab.place.memory, seed);
    if (kind == 2)
        go_on_and_cut(&lab, merge, seed);
    lab_recover(&lab);
    check_and_go_on(&lab, merge, finals, layers, where);
    if (ok && struck)
        fail_msg("%s: success was told", where);
    lab_done(&lab);
    power_points += struck;
    return struck;
}

/* A full disk, or an error, and the process lives on. */
static bool error_at(const struct merge_case *merge, uint64_t nth, int errnum, const struct pictures *finals, size_t layers)
{
    struct lab lab;
    struct err err;
    char where[160];

    snprintf(where, sizeof where, "%s, error %d at call %llu", merge->name, errnum, (unsigned long long)nth);
    begin(merge, &lab);
    io_failing_set(lab.place.failing, (struct io_fault){.calls = errnum == EIO ? IO_CALLS_ALL : IO_CALL_WRITE | IO_CALL_ALLOCATE |
                                                                 IO_CALL_CREATE | IO_CALL_SYNC | IO_CALL_TRUNCATE,
                                                        .nth = nth,
                                                        .errnum = errnum});
    (void)!merge_all(&lab, merge, &err);
    bool struck = io_failing_struck(lab.place.failing);
    io_failing_set(lab.place.failing, (struct io_fault){0});
    if (!store_is_uncertain(lab.store) && store_refresh(lab.store, &err))
        check_and_go_on(&lab, merge, finals, layers, where);
    lab_power_cut(&lab, nth);
    lab_recover(&lab);
    check_and_go_on(&lab, merge, finals, layers, where);
    lab_done(&lab);
    return struck;
}

static size_t steps_of(const struct merge_case *merge, size_t *ret_layers)
{
    struct lab lab;
    struct err err;
    size_t skipped = 0;
    bool more;

    begin(merge, &lab);
    LAB_OK(merge_one(&lab, merge, &skipped, &more, &err));
    assert_true(more);
    size_t steps = lab.steps;
    LAB_OK(merge_all(&lab, merge, &err));
    *ret_layers = layer_count(&lab);
    lab_done(&lab);
    return steps;
}

static void cut_everywhere(const struct merge_case *merge)
{
    struct pictures finals;
    size_t layers, steps = steps_of(merge, &layers);
    unsigned seeds = operation_seeds(1);
    uint64_t nth = 1;

    finals_take(merge, &finals);
    for (size_t step = 1; step <= steps; step++) {
        stop_behind(merge, step, false, &finals, layers);
        stop_behind(merge, step, true, &finals, layers);
    }
    for (bool struck = true; struck; nth++) {
        struck = false;
        for (uint64_t seed = 1; seed <= seeds; seed++)
            struck |= cut_at(merge, nth, seed * 1000 + nth, &finals, layers);
    }
    assert_true(nth > 3);
    pictures_done(&finals);
}

static void a_merge_cut_off_anywhere_changes_nothing_and_is_found_again(void **state)
{
    const char *only = *state;

    for (size_t i = 0; i < ARRAY_SIZE(CASES); i++)
        if (!only || strstr(CASES[i].name, only))
            cut_everywhere(&CASES[i]);
    printf("%zu merges: %llu stops behind a step, %llu power cuts and kills at a call\n", ARRAY_SIZE(CASES), step_points,
           power_points);
}

static void an_error_at_any_call_of_a_merge_changes_nothing(void **state)
{
    const char *only = *state;
    unsigned stride = operation_seeds(1) > 1 ? 1 : 5;

    for (size_t i = 0; i < ARRAY_SIZE(CASES); i++) {
        struct pictures finals;
        size_t layers;
        if (only && !strstr(CASES[i].name, only))
            continue;
        steps_of(&CASES[i], &layers);
        finals_take(&CASES[i], &finals);
        for (uint64_t nth = 1 + i % stride; error_at(&CASES[i], nth, EIO, &finals, layers); nth += stride)
            ;
        for (uint64_t nth = 1 + i % stride; error_at(&CASES[i], nth, ENOSPC, &finals, layers); nth += stride)
            ;
        pictures_done(&finals);
    }
}

/* An export of a snapshot, a check, a disk that is served: they opened the chain before, and read it behind. */
static void read_meanwhile(const struct merge_case *merge)
{
    struct disk *readers[LAB_TAKEN] = {NULL};
    const struct lab_taken *taken[LAB_TAKEN];
    struct disk_options options = {0};
    struct lab lab;
    struct err err;

    begin(merge, &lab);
    options.io = lab.place.plain;
    const struct tree *tree = store_tree(lab.store);
    for (size_t i = 0; i < tree->snapshot_count; i++) {
        taken[i] = lab_taken_of(&lab, &tree->snapshots[i]->snapshot);
        LAB_OK(disk_open(tree->snapshots[i]->disks[0].path, &options, &readers[i], &err));
    }
    LAB_OK(merge_all(&lab, merge, &err));
    for (size_t i = 0; readers[i]; i++) {
        unsigned sectors[LAB_SECTORS];
        lab_read_open(readers[i], sectors, merge->name);
        if (memcmp(sectors, taken[i]->sectors, sizeof sectors) != 0)
            fail_msg("%s: who read snapshot %zu meanwhile has read something else", merge->name, i);
        disk_abandon(readers[i]);
    }
    lab_done(&lab);
}

static void who_has_a_chain_open_reads_the_same_behind_a_merge(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(CASES); i++)
        read_meanwhile(&CASES[i]);
}

int main(int argc, char **argv)
{
    char *only = argc > 1 ? argv[1] : NULL;
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(who_has_a_chain_open_reads_the_same_behind_a_merge),
        cmocka_unit_test_prestate(a_merge_cut_off_anywhere_changes_nothing_and_is_found_again, only),
        cmocka_unit_test_prestate(an_error_at_any_call_of_a_merge_changes_nothing, only),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
