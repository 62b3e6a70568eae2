/* What the core promises its front ends, and how it uses a disk. */
#include "bytes.h"
#include "engine_core.h"
#include "engine_fake_disk.h"
#include "random.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define SIZE_BYTES (256U << 20)

struct state {
    struct ring *ring;
    struct disk *disk;
    struct fake *fake;
    struct core core;
    unsigned switches;
};

struct job {
    struct request request;
    int errnum;
    unsigned calls;
    unsigned *order; /* counted up at the end, the number kept in ended_as */
    unsigned ended_as;
};

static void job_done(struct request *request, int errnum)
{
    struct job *job = (struct job *)(void *)request;

    job->errnum = errnum;
    job->calls++;
    if (job->order)
        job->ended_as = ++*job->order;
}

static int setup(void **state, bool no_io_uring)
{
    static struct state made;
    struct err err;

    made = (struct state){0};
    assert_true(ring_new(no_io_uring, &made.ring, &err));
    made.disk = fake_disk_new(SIZE_BYTES, &made.fake);
    core_init(&made.core, made.disk, made.ring);
    *state = &made;
    return 0;
}

static int setup_io_uring(void **state)
{
    return setup(state, false);
}

static int setup_plain(void **state)
{
    return setup(state, true);
}

static int teardown(void **state)
{
    struct state *made = *state;

    assert_true(core_is_idle(&made->core));
    core_done(&made->core);
    ring_free(made->ring);
    disk_abandon(made->disk);
    return 0;
}

static void submit(struct state *state, struct job *job, enum request_kind kind, uint64_t offset,
                   uint64_t length, void *bytes)
{
    job->request.kind = kind;
    job->request.offset = offset;
    job->request.length = length;
    job->request.bytes = bytes;
    job->request.done = job_done;
    job->calls = 0;
    core_submit(&state->core, &job->request);
    assert_int_equal(job->calls, 0);
}

static void turn(struct state *state)
{
    struct err err;

    assert_true(ring_wait(state->ring, false, &err));
    core_turn(&state->core);
}

static void finish(struct state *state)
{
    for (unsigned i = 0; i < 10000 && !core_is_idle(&state->core); i++)
        turn(state);
    assert_true(core_is_idle(&state->core));
}

static void written_bytes_are_read_again(void **argument)
{
    enum { LENGTH = 100 << 10 };
    struct state *state = *argument;
    struct random random = {1};
    static uint8_t bytes[LENGTH], got[LENGTH];
    struct job writing = {0}, reading = {0};

    random_fill(&random, bytes, LENGTH);
    submit(state, &writing, REQUEST_WRITE, 1 << 20, LENGTH, bytes);
    finish(state);
    assert_int_equal(writing.errnum, 0);
    submit(state, &reading, REQUEST_READ, 1 << 20, LENGTH, got);
    finish(state);
    assert_int_equal(reading.errnum, 0);
    assert_false(reading.request.holes_only);
    assert_memory_equal(bytes, got, LENGTH);
    assert_int_equal(state->core.counters.written_bytes, LENGTH);
    assert_int_equal(state->core.counters.read_bytes, LENGTH);
    assert_int_equal(state->core.dirty_bytes, LENGTH);
}

static void read_of_holes_is_zeros_and_says_so(void **argument)
{
    struct state *state = *argument;
    uint8_t bytes[8192], zeros[8192] = {0};
    struct job reading = {0};

    memset(bytes, 0xAA, sizeof bytes);
    submit(state, &reading, REQUEST_READ, 4096, sizeof bytes, bytes);
    finish(state);
    assert_true(reading.request.holes_only);
    assert_memory_equal(bytes, zeros, sizeof bytes);
}

static void read_of_data_between_holes_is_not_holes_only(void **argument)
{
    struct state *state = *argument;
    uint8_t bytes[8192], sector[512];
    struct job writing = {0}, reading = {0};

    memset(sector, 0x55, sizeof sector);
    submit(state, &writing, REQUEST_WRITE, 2048, 512, sector);
    finish(state);
    memset(bytes, 0xAA, sizeof bytes);
    submit(state, &reading, REQUEST_READ, 0, sizeof bytes, bytes);
    finish(state);
    assert_false(reading.request.holes_only);
    assert_memory_equal(bytes + 2048, sector, 512);
    for (size_t i = 0; i < sizeof bytes; i++)
        assert_int_equal(bytes[i], i / 512 == 4 ? 0x55 : 0);
}

static void flushes_of_one_turn_share_one(void **argument)
{
    struct state *state = *argument;
    struct job jobs[5] = {0};

    for (unsigned i = 0; i < 5; i++)
        submit(state, &jobs[i], REQUEST_FLUSH, 0, 0, NULL);
    finish(state);
    assert_int_equal(state->fake->flushes, 1);
    for (unsigned i = 0; i < 5; i++)
        assert_int_equal(jobs[i].calls, 1);
}

/* The running one may have begun before the writes that the new one stands for had ended. */
static void flush_that_comes_while_one_runs_gets_the_next(void **argument)
{
    struct state *state = *argument;
    struct job first = {0}, second = {0}, third = {0};

    submit(state, &first, REQUEST_FLUSH, 0, 0, NULL);
    turn(state);
    assert_int_equal(state->fake->flushes, 1);
    submit(state, &second, REQUEST_FLUSH, 0, 0, NULL);
    submit(state, &third, REQUEST_FLUSH, 0, 0, NULL);
    finish(state);
    assert_int_equal(state->fake->flushes, 2);
}

static void fua_write_ends_after_a_flush_that_began_after_it(void **argument)
{
    struct state *state = *argument;
    static uint8_t bytes[4096];
    struct job plain = {0}, durable = {.request.fua = true};

    submit(state, &plain, REQUEST_WRITE, 0, sizeof bytes, bytes);
    finish(state);
    assert_int_equal(state->fake->flushes, 0);
    submit(state, &durable, REQUEST_WRITE, 0, sizeof bytes, bytes);
    while (durable.calls == 0) {
        if (state->fake->flushes > 0)
            assert_int_equal(state->fake->writes_begun, 0);
        turn(state);
    }
    assert_int_equal(state->fake->flushes, 1);
    assert_int_equal(state->fake->syncs, 3);
}

static void flushed_bytes_are_no_longer_dirty(void **argument)
{
    struct state *state = *argument;
    static uint8_t bytes[4096];
    struct job writing = {0}, flushing = {0};

    submit(state, &writing, REQUEST_WRITE, 0, sizeof bytes, bytes);
    finish(state);
    submit(state, &flushing, REQUEST_FLUSH, 0, 0, NULL);
    turn(state);
    submit(state, &writing, REQUEST_WRITE, 8192, sizeof bytes, bytes);
    finish(state);
    assert_int_equal(state->core.dirty_bytes, sizeof bytes);
}

static void failed_write_gives_its_errno_and_marks_nothing(void **argument)
{
    struct state *state = *argument;
    static uint8_t bytes[4096];
    struct job writing = {0};

    state->fake->file_errnum = ENOSPC;
    submit(state, &writing, REQUEST_WRITE, 4096, sizeof bytes, bytes);
    finish(state);
    assert_int_equal(writing.errnum, ENOSPC);
    assert_int_equal(state->fake->written[8], 0);
    state->fake->file_errnum = 0;
    state->fake->begin_errnum = ENOSPC;
    submit(state, &writing, REQUEST_WRITE, 4096, sizeof bytes, bytes);
    finish(state);
    assert_int_equal(writing.errnum, ENOSPC);
    state->fake->begin_errnum = EIO;
    submit(state, &writing, REQUEST_READ, 4096, sizeof bytes, bytes);
    finish(state);
    assert_int_equal(writing.errnum, EIO);
}

static void failed_sync_is_told_to_the_disk_and_to_all_who_waited(void **argument)
{
    struct state *state = *argument;
    struct job jobs[3] = {0};

    state->fake->sync_errnum = EIO;
    submit(state, &jobs[0], REQUEST_FLUSH, 0, 0, NULL);
    submit(state, &jobs[1], REQUEST_FLUSH, 0, 0, NULL);
    finish(state);
    assert_int_equal(jobs[0].errnum, EIO);
    assert_int_equal(jobs[1].errnum, EIO);
    assert_int_equal(state->fake->flush_failures, 1);
    state->fake->sync_errnum = 0;
    submit(state, &jobs[2], REQUEST_FLUSH, 0, 0, NULL);
    finish(state);
    assert_int_equal(jobs[2].errnum, EIO); /* the disk remembers */
}

static void sync_that_finds_no_space_is_an_io_error(void **argument)
{
    struct state *state = *argument;
    struct job jobs[2] = {0};

    for (size_t i = 0; i < 2; i++) {
        state->fake->sync_errnum = i == 0 ? ENOSPC : 0;
        submit(state, &jobs[i], REQUEST_FLUSH, 0, 0, NULL);
        finish(state);
        assert_int_equal(jobs[i].errnum, EIO);
    }
    assert_true(state->fake->sync_failed);
}

static void failed_metadata_write_is_no_failed_sync(void **argument)
{
    struct state *state = *argument;
    struct job job = {0};

    state->fake->file_errnum = ENOSPC;
    submit(state, &job, REQUEST_FLUSH, 0, 0, NULL);
    finish(state);
    assert_int_equal(job.errnum, ENOSPC);
    assert_int_equal(state->fake->flush_failures, 1);
    assert_false(state->fake->sync_failed);
}

static void long_zeroing_lets_others_pass(void **argument)
{
    struct state *state = *argument;
    unsigned order = 0;
    static uint8_t bytes[512];
    struct job zeroing = {.order = &order}, reading = {.order = &order};

    submit(state, &zeroing, REQUEST_ZERO, 0, SIZE_BYTES, NULL);
    submit(state, &reading, REQUEST_READ, 0, sizeof bytes, bytes);
    finish(state);
    assert_true(reading.ended_as < zeroing.ended_as);
    assert_true(state->fake->zero_calls > 1);
}

enum { ZEROED_FROM = 512, ZEROED_BYTES = 5 << 20 };

/* Data on both sides of a range that is zeroed, and in it but for a stretch. */
static void zero_a_range(struct state *state, int punch_errnum, struct job *job)
{
    memset(state->fake->content, 0xAA, ZEROED_FROM + ZEROED_BYTES + 512);
    memset(state->fake->written, 1, ZEROED_FROM / 512 + ZEROED_BYTES / 512 + 1);
    memset(state->fake->content + (2 << 20), 0, 1 << 20);
    memset(state->fake->written + (2 << 20) / 512, 0, (1 << 20) / 512);
    state->fake->punch_errnum = punch_errnum;
    submit(state, job, REQUEST_ZERO, ZEROED_FROM, ZEROED_BYTES, NULL);
    finish(state);
}

static void assert_zeroed(const struct state *state)
{
    const uint8_t *content = state->fake->content;

    assert_int_equal(content[ZEROED_FROM - 1], 0xAA);
    assert_int_equal(content[ZEROED_FROM + ZEROED_BYTES], 0xAA);
    assert_true(bytes_are_zero(content + ZEROED_FROM, ZEROED_BYTES));
    assert_int_equal(state->fake->writes_begun, 0);
    assert_int_equal(state->fake->written[(2 << 20) / 512], 0); /* what was zeros is left alone */
}

static void zeros_are_holes(void **argument)
{
    struct state *state = *argument;
    struct job job = {0};

    zero_a_range(state, 0, &job);
    assert_int_equal(job.errnum, 0);
    assert_zeroed(state);
    assert_int_equal(state->fake->punches, 5);
}

static void zeros_are_written_where_no_holes_can_be_made(void **argument)
{
    struct state *state = *argument;
    struct job job = {0};

    zero_a_range(state, EOPNOTSUPP, &job);
    assert_int_equal(job.errnum, 0);
    assert_zeroed(state);
}

static void failed_hole_gives_its_errno_and_marks_nothing(void **argument)
{
    struct state *state = *argument;
    struct job job = {0};

    zero_a_range(state, EIO, &job);
    assert_int_equal(job.errnum, EIO);
    assert_int_equal(state->fake->writes_begun, 5); /* begun, never ended */
    state->fake->writes_begun = 0;
}

static void reserved_zeros_are_written(void **argument)
{
    enum { LENGTH = 1 << 20 };
    struct state *state = *argument;
    struct job job = {0};

    memset(state->fake->content, 0xAA, LENGTH + 1024);
    submit(state, &job, REQUEST_ZERO_RESERVED, 512, LENGTH, NULL);
    finish(state);
    assert_int_equal(job.errnum, 0);
    assert_int_equal(state->fake->zero_calls, 0);
    assert_int_equal(state->fake->content[511], 0xAA);
    assert_int_equal(state->fake->content[512 + LENGTH], 0xAA);
    for (size_t i = 512; i < 512 + LENGTH; i++)
        assert_int_equal(state->fake->content[i], 0);
    for (size_t i = 1; i <= LENGTH / 512; i++)
        assert_int_equal(state->fake->written[i], 1);
}

static void note_switch(void *context)
{
    struct state *state = context;

    state->switches++;
}

static void prepare(struct state *state)
{
    struct err err;

    assert_true(disk_next_top_open(state->disk, "good", &state->core.next_top, &err));
}

/* The fake disk fails the test if it is sealed while a write is between begin and end. */
static void switch_waits_for_writes_and_holds_what_comes(void **argument)
{
    struct state *state = *argument;
    static uint8_t bytes[64 << 10];
    unsigned order = 0;
    struct job before = {.order = &order}, after = {.order = &order};

    submit(state, &before, REQUEST_WRITE, 0, sizeof bytes, bytes);
    prepare(state);
    core_switch_top(&state->core, note_switch, state);
    submit(state, &after, REQUEST_WRITE, 1 << 20, sizeof bytes, bytes);
    assert_int_equal(state->fake->writes_begun, 1);
    turn(state);
    assert_int_equal(state->switches, 0);
    while (state->switches == 0)
        turn(state);
    assert_int_equal(before.calls, 1);
    assert_int_equal(after.calls, 0);
    assert_int_equal(state->fake->seals, 1);
    finish(state);
    assert_int_equal(after.errnum, 0);
    assert_true(before.ended_as < after.ended_as);
}

static void switch_does_not_wait_for_a_flush(void **argument)
{
    struct state *state = *argument;
    struct job flushing = {0};

    submit(state, &flushing, REQUEST_FLUSH, 0, 0, NULL);
    turn(state);
    assert_non_null(state->fake->flush);
    prepare(state);
    core_switch_top(&state->core, note_switch, state);
    core_turn(&state->core);
    assert_int_equal(state->switches, 1);
    assert_non_null(state->fake->flush);
    finish(state);
}

static void abandoned_core_begins_no_flush(void **argument)
{
    struct state *state = *argument;
    struct job job = {0};

    state->core.abandoned = true;
    submit(state, &job, REQUEST_FLUSH, 0, 0, NULL);
    finish(state);
    assert_int_equal(job.errnum, ECANCELED);
    assert_int_equal(state->fake->flushes, 0);
}

/* Many at a time, in and out of order, with flushes and switches between: each sector is what was last
 * written. */
static void space_of_sealed_layers_is_given_back_a_piece_at_a_time(void **argument)
{
    struct state *state = *argument;
    uint8_t bytes[512] = {1};
    struct job writing = {0};

    state->fake->gaps = 5;
    for (unsigned i = 0; i < 3; i++) {
        turn(state);
        assert_int_equal(state->fake->punches, i + 1);
        assert_true(state->core.release.running && !core_is_idle(&state->core));
    }
    submit(state, &writing, REQUEST_WRITE, 0, sizeof bytes, bytes);
    finish(state);
    assert_int_equal(writing.calls, 1);
    assert_int_equal(state->fake->punches, 5);
}

static void file_system_without_holes_is_asked_once(void **argument)
{
    struct state *state = *argument;

    state->fake->gaps = 5;
    state->fake->punch_errnum = EOPNOTSUPP;
    turn(state);
    finish(state);
    assert_int_equal(state->fake->punches, 1);
    assert_int_equal(state->fake->gaps, 0); /* all were taken, so that the layer's memory can go */
}

static void nothing_is_given_back_at_the_end(void **argument)
{
    struct state *state = *argument;

    state->core.ending = true;
    state->fake->gaps = 5;
    turn(state);
    assert_true(core_is_idle(&state->core));
    assert_int_equal(state->fake->punches, 0);
}

static void many_requests_at_a_time_keep_every_sector(void **argument)
{
    enum { JOBS = 64, SECTORS = 4096, ROUNDS = 4000 };
    struct state *state = *argument;
    struct random random = {42};
    AUTO_FREE struct job *jobs = calloc(JOBS, sizeof *jobs);
    AUTO_FREE uint8_t(*bytes)[4096] = calloc(JOBS, 4096);
    static uint8_t model[SECTORS];
    unsigned pending_switches = 0;

    for (unsigned round = 0; round < ROUNDS; round++) {
        unsigned at = (unsigned)random_below(&random, JOBS);
        struct job *job = &jobs[at];
        if (job->request.core && job->calls == 0) {
            turn(state);
            continue;
        }
        /* Each job has sectors of its own, so that the model knows the outcome. */
        unsigned sector = at * (SECTORS / JOBS) + (unsigned)random_below(&random, SECTORS / JOBS - 8);
        uint8_t value = (uint8_t)random_next(&random);
        memset(bytes[at], value, 4096);
        memset(model + sector, value, 8);
        job->request.fua = random_below(&random, 16) == 0;
        submit(state, job, REQUEST_WRITE, sector * 512, 4096, bytes[at]);
        if (random_below(&random, 50) == 0 && !state->core.switched && pending_switches < 100) {
            prepare(state);
            core_switch_top(&state->core, note_switch, state);
            pending_switches++;
        }
    }
    finish(state);
    assert_int_equal(state->fake->seals, pending_switches);
    assert_true(pending_switches > 10);
    for (unsigned i = 0; i < SECTORS; i++)
        if (state->fake->written[i])
            assert_int_equal(state->fake->content[i * 512], model[i]);
        else
            assert_int_equal(model[i], 0);
}

#define EACH(test)                                                                                           \
    {#test " [io_uring]", test, setup_io_uring, teardown, NULL},                                             \
    {                                                                                                        \
#test " [plain]", test, setup_plain, teardown, NULL                                                  \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(written_bytes_are_read_again),
        EACH(read_of_holes_is_zeros_and_says_so),
        EACH(read_of_data_between_holes_is_not_holes_only),
        EACH(flushes_of_one_turn_share_one),
        EACH(flush_that_comes_while_one_runs_gets_the_next),
        EACH(fua_write_ends_after_a_flush_that_began_after_it),
        EACH(flushed_bytes_are_no_longer_dirty),
        EACH(failed_write_gives_its_errno_and_marks_nothing),
        EACH(failed_sync_is_told_to_the_disk_and_to_all_who_waited),
        EACH(sync_that_finds_no_space_is_an_io_error),
        EACH(failed_metadata_write_is_no_failed_sync),
        EACH(long_zeroing_lets_others_pass),
        EACH(zeros_are_holes),
        EACH(zeros_are_written_where_no_holes_can_be_made),
        EACH(failed_hole_gives_its_errno_and_marks_nothing),
        EACH(reserved_zeros_are_written),
        EACH(switch_waits_for_writes_and_holds_what_comes),
        EACH(switch_does_not_wait_for_a_flush),
        EACH(abandoned_core_begins_no_flush),
        EACH(space_of_sealed_layers_is_given_back_a_piece_at_a_time),
        EACH(file_system_without_holes_is_asked_once),
        EACH(nothing_is_given_back_at_the_end),
        EACH(many_requests_at_a_time_keep_every_sector),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
