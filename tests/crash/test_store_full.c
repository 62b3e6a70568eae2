/* A disk that is full, over its quota or broken from the n-th call on, or for that call alone, at every call that takes space, of each
 * operation: what failed has changed nothing. The VM and all listed snapshots are as they were, to the last file, and read as they did;
 * the guest goes on. Only where a machine runs a state between two commits may be left, if it fails behind the instant or there is no space
 * to take the first one back: a layer that no snapshot names, or a snapshot of the present that was not yet gone back from. And what was
 * renamed into its place before a folder's sync failed stays if the file of before cannot be written again. */
#include "crash_operations.h"

#include "auto.h"

static const struct {
    int errnum;
    bool again; /* it stays so */
} KINDS[] = {{ENOSPC, false}, {ENOSPC, true}, {EDQUOT, false}, {EDQUOT, true}, {EIO, false}, {EIO, true}};

static unsigned long long points, refused, kept_layer, uncertain;

/* Every call in the long run; else one in so many, another one for each operation and kind. */
static unsigned stride(void)
{
    return operation_seeds(1) > 1 ? 1 : 23;
}

static void assert_as_before(const struct lab *lab, const struct pictures *pictures, bool may_be_between, const char *where)
{
    AUTO_FREE char *now = lab_picture(lab);
    size_t found = pictures_find(pictures, now);

    if (found == 0)
        return;
    if (found == pictures->count || !may_be_between) {
        fprintf(stderr, "--- before\n%s--- now\n%s", pictures->pictures[0], now);
        fail_msg("%s: it failed, and is not as before", where);
    }
    kept_layer++;
}

static bool fails_at(const struct operation *operation, const struct io_fault *fault, const struct pictures *pictures)
{
    struct lab lab;
    struct err err = ERR_INIT;
    char where[160];

    snprintf(where, sizeof where, "%s, error %d%s at call %llu", operation->name, fault->errnum, fault->again ? " for good" : "",
             (unsigned long long)fault->nth);
    operation_begin(operation, &lab);
    io_failing_set(lab.place.failing, *fault);
    bool ok = operation_run(operation, &lab, &err);
    bool struck = io_failing_struck(lab.place.failing);
    bool is_uncertain = store_is_uncertain(lab.store);
    if (!ok && !operation->is_refused) {
        refused++;
        uncertain += is_uncertain;
        if (!is_uncertain)
            assert_as_before(&lab, pictures,
                             fault->again || operation->machine == MACHINE_RUNNING || operation->machine == MACHINE_PAUSED, where);
    }
    io_failing_set(lab.place.failing, (struct io_fault){0});
    operation_end(&lab, pictures, fault->nth, where);
    points++;
    return struck;
}

static void what_fails_for_want_of_space_changes_nothing(void **state)
{
    unsigned step = stride();

    (void)state;
    for (size_t i = 0; i < OPERATION_COUNT; i++) {
        struct pictures pictures;
        pictures_take(&OPERATIONS[i], &pictures);
        for (size_t kind = 0; kind < ARRAY_SIZE(KINDS); kind++) {
            struct io_fault fault = {.calls = IO_CALLS_SPACE,
                                     .nth = 1 + (i * 5 + kind * 7) % step,
                                     .errnum = KINDS[kind].errnum,
                                     .again = KINDS[kind].again};
            while (fails_at(&OPERATIONS[i], &fault, &pictures))
                fault.nth += step;
        }
        pictures_done(&pictures);
    }
    printf("%llu points, %llu operations failed, %llu left a layer, %llu are uncertain\n", points, refused, kept_layer, uncertain);
    assert_true(refused > points / 4);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_fails_for_want_of_space_changes_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
