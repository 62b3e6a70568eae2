/* Each operation on a VM meets a full disk, or an error, at each call, and the process lives on: the VM is as before or as after (or as
 * behind a commit in between), whole, also behind a power cut; a guest that ran goes on. The same for errors of recovery: what it cannot
 * read must not look like garbage to it. */
#include "crash_operations.h"

#include "auto.h"

static unsigned long long points;

/* Every second or third call, in turn, and all of them in the long run; all of a commit that is taken back too. */
static unsigned stride(const struct operation *operation, unsigned standard)
{
    return operation_seeds(1) > 1 || operation->is_refused ? 1 : standard;
}

static void assert_found(const struct lab *lab, const struct pictures *pictures, const char *where)
{
    AUTO_FREE char *now = lab_picture(lab);

    if (pictures_find(pictures, now) == pictures->count) {
        fprintf(stderr, "--- before\n%s--- now\n%s", pictures->pictures[0], now);
        fail_msg("%s: neither as before nor as after", where);
    }
}

/* One call of the operation fails, or (pages not 0) the disk has room for so many pages more. */
static bool error_at(const struct operation *operation, const struct io_fault *fault, uint64_t pages,
                     const struct pictures *pictures)
{
    struct lab lab;
    struct err err = ERR_INIT;
    char where[160];

    snprintf(where, sizeof where, "%s, error %d at call %llu, %llu pages", operation->name, fault->errnum,
             (unsigned long long)fault->nth, (unsigned long long)pages);
    operation_begin(operation, &lab);
    io_failing_set(lab.place.failing, *fault);
    if (pages)
        io_memory_limit(lab.place.memory, io_memory_taken_bytes(lab.place.memory) + (pages - 1) * 4096);
    bool ok = operation_run(operation, &lab, &err);
    bool struck = io_failing_struck(lab.place.failing);
    bool is_uncertain = store_is_uncertain(lab.store);
    /* A failed sync of a disk is an I/O error also for want of space. */
    if (!ok && fault->errnum == ENOSPC && err.code != ERR_NO_SPACE && !strstr(err.text, strerror(ENOSPC)))
        fail_msg("%s: %s", where, err.text);
    io_failing_set(lab.place.failing, (struct io_fault){0});
    io_memory_limit(lab.place.memory, 0);
    /* The process cleans up by itself, and goes on with what is true. */
    if (!is_uncertain && fault->errnum == ENOSPC)
        assert_found(&lab, pictures, where);
    operation_end(&lab, pictures, fault->nth, where);
    points++;
    return struck;
}

static void a_full_disk_at_any_call_leaves_before_or_after(void **state)
{
    (void)state;
    for (size_t i = 0; i < OPERATION_COUNT; i++) {
        unsigned step = stride(&OPERATIONS[i], 2);
        struct io_fault fault = {.calls = IO_CALLS_SPACE, .nth = 1 + i % step, .errnum = ENOSPC};
        struct pictures pictures;
        pictures_take(&OPERATIONS[i], &pictures);
        while (error_at(&OPERATIONS[i], &fault, 0, &pictures))
            fault.nth += step;
        assert_true(fault.nth > 2);
        fault.nth = 0;
        for (uint64_t pages = 1; pages < 12; pages += step)
            error_at(&OPERATIONS[i], &fault, pages, &pictures);
        pictures_done(&pictures);
    }
    printf("%llu full disks\n", points);
}

static void an_error_of_any_call_leaves_before_or_after(void **state)
{
    (void)state;
    points = 0;
    for (size_t i = 0; i < OPERATION_COUNT; i++) {
        unsigned step = stride(&OPERATIONS[i], 3);
        struct io_fault fault = {.calls = IO_CALLS_ALL, .nth = 1 + i % step, .errnum = EIO};
        struct pictures pictures;
        pictures_take(&OPERATIONS[i], &pictures);
        while (error_at(&OPERATIONS[i], &fault, 0, &pictures))
            fault.nth += step;
        assert_true(fault.nth > 5);
        pictures_done(&pictures);
    }
    printf("%llu errors\n", points);
}

static bool recovery_error_at(const struct operation *operation, uint64_t cut, uint64_t nth,
                              const struct pictures *pictures)
{
    struct lab lab;
    struct err err;
    struct store *store;
    bool is_alive;
    char where[160];

    snprintf(where, sizeof where, "%s, cut at %llu, recovery's call %llu", operation->name,
             (unsigned long long)cut, (unsigned long long)nth);
    operation_begin(operation, &lab);
    io_failing_set(lab.place.failing,
                   (struct io_fault){.calls = IO_CALLS_CHANGES, .nth = cut, .errnum = EIO, .forever = true});
    (void)!operation_run(operation, &lab, &err);
    lab_kill(&lab);
    io_failing_set(lab.place.failing, (struct io_fault){.calls = IO_CALLS_ALL, .nth = nth, .errnum = EIO});
    if (store_open(lab.place.io, lab.place.vm_dir, "recover", true, &store, &is_alive, &err))
        store_close(store);
    bool struck = io_failing_struck(lab.place.failing);
    io_failing_set(lab.place.failing, (struct io_fault){0});
    lab_recover(&lab);
    operation_check(&lab, pictures, where);
    lab_done(&lab);
    points++;
    return struck;
}

static void an_error_of_any_call_of_recovery_does_no_harm(void **state)
{
    bool is_long = operation_seeds(1) > 1;

    (void)state;
    points = 0;
    for (size_t i = 0; i < OPERATION_COUNT; i += is_long ? 1 : 3) {
        struct pictures pictures;
        pictures_take(&OPERATIONS[i], &pictures);
        for (uint64_t cut = 5; cut < 50; cut += is_long ? 5 : 15) {
            uint64_t nth = 1 + (is_long ? 0 : cut / 5 % 3);
            while (recovery_error_at(&OPERATIONS[i], cut, nth, &pictures))
                nth += is_long ? 1 : 3;
            assert_true(nth > 10);
        }
        pictures_done(&pictures);
    }
    printf("%llu errors of recovery\n", points);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_full_disk_at_any_call_leaves_before_or_after),
        cmocka_unit_test(an_error_of_any_call_leaves_before_or_after),
        cmocka_unit_test(an_error_of_any_call_of_recovery_does_no_harm),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
