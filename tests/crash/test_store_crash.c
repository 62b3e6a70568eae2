/* Each operation on a VM is cut off: behind every step of its plan, and by a power cut at every call that changes the disk, which keeps,
 * drops or tears what was not synced. Recovery, itself cut off now and then, leaves the VM as before, as after, or as behind a commit in
 * between; whole; every snapshot reads as when it was taken, and nothing else is left.
 *
 * $BOUGH_TEST_SEEDS power cuts at each call. */
#include "crash_operations.h"

#include "auto.h"
#include "random.h"


static unsigned long long step_points, power_points;

/* --- behind each step --- */

static void stop_behind(const struct operation *operation, size_t step, bool with_power, const struct pictures *pictures)
{
    struct lab lab;
    struct err err;
    char where[160];

    snprintf(where, sizeof where, "%s, %s behind step %zu", operation->name, with_power ? "power cut" : "killed", step);
    operation_begin(operation, &lab);
    lab.stop_after = step;
    (void)!operation_run(operation, &lab, &err);
    if (with_power)
        lab_power_cut(&lab, step);
    else
        lab_kill(&lab);
    lab_recover(&lab);
    operation_check(&lab, pictures, where);
    lab_done(&lab);
    step_points++;
}

/* --- at each call --- */

/* Recovery is itself cut off, at a call that the seed draws, and begins again. */
static void recover_twice(struct lab *lab, uint64_t seed)
{
    struct random random = {seed};
    struct store *store = NULL;
    struct err err;
    bool is_alive;

    io_failing_set(lab->place.failing, (struct io_fault){.calls = IO_CALLS_CHANGES,
                                                         .nth = 1 + random_below(&random, 8),
                                                         .errnum = EIO,
                                                         .done_anyway = random_below(&random, 2),
                                                         .forever = true});
    if (store_open(lab->place.io, lab->place.vm_dir, "recover", true, &store, &is_alive, &err))
        store_close(store);
    io_failing_set(lab->place.failing, (struct io_fault){0});
    io_memory_crash(lab->place.memory, seed);
}

/* False: the operation was over before the call came. */
static bool cut_at(const struct operation *operation, uint64_t nth, uint64_t seed, const struct pictures *pictures)
{
    struct lab lab;
    struct err err;
    char where[160];
    struct random random = {seed};
    bool is_done_anyway = random_below(&random, 2);
    uint64_t kind = random_below(&random, 3);

    snprintf(where, sizeof where, "%s, call %llu, seed %llu", operation->name, (unsigned long long)nth,
             (unsigned long long)seed);
    operation_begin(operation, &lab);
    io_failing_set(lab.place.failing, (struct io_fault){.calls = IO_CALLS_CHANGES,
                                                        .nth = nth,
                                                        .errnum = EIO,
                                                        .done_anyway = is_done_anyway,
                                                        .forever = true});
    bool ok = operation_run(operation, &lab, &err);
    bool struck = io_failing_struck(lab.place.failing);
    lab_kill(&lab);
    /* Now and then only the process dies, somebody recovers, and then the power goes. */
    if (kind == 1) {
        lab_recover(&lab);
        store_close(TAKE(lab.store));
    }
    io_memory_crash(lab.place.memory, seed);
    if (kind == 2)
        recover_twice(&lab, seed);
    lab_recover(&lab);
    operation_check(&lab, pictures, where);
    if (ok) { /* success was told: that it is lost would be a lie */
        AUTO_FREE char *now = lab_picture(&lab);
        assert_string_equal(now, pictures->pictures[operation->is_refused ? 0 : pictures->count - 1]);
    }
    lab_done(&lab);
    power_points += struck;
    return struck;
}

static void cut_everywhere(const struct operation *operation)
{
    struct pictures pictures;
    unsigned seeds = operation_seeds(1);
    uint64_t nth = 1;

    pictures_take(operation, &pictures);
    for (size_t step = 1; step <= pictures.steps; step++) {
        stop_behind(operation, step, false, &pictures);
        stop_behind(operation, step, true, &pictures);
    }
    for (bool struck = true; struck; nth++) {
        struck = false;
        for (uint64_t seed = 1; seed <= seeds; seed++)
            struck |= cut_at(operation, nth, seed * 1000 + nth, &pictures);
    }
    if (nth <= 3)
        fail_msg("%s: has no calls", operation->name);
    pictures_done(&pictures);
}

static void an_operation_cut_off_anywhere_is_as_before_or_as_after(void **state)
{
    const char *only = *state;

    for (size_t i = 0; i < OPERATION_COUNT; i++)
        if (!only || strstr(OPERATIONS[i].name, only))
            cut_everywhere(&OPERATIONS[i]);
    printf("%zu operations: %llu stops behind a step, %llu power cuts at a call\n", OPERATION_COUNT, step_points,
           power_points);
}

/* An argument: only the operations with that in their names. */
int main(int argc, char **argv)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_prestate(an_operation_cut_off_anywhere_is_as_before_or_as_after, argc > 1 ? argv[1] : NULL),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
