/* Saving: files from streams, and what is left when a stream is not what it should be. */
#include "auto.h"
#include "bytes.h"
#include "save_fixture.h"
#include "stream.h"
#include "stream_writer.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

#include <cmocka.h>

static void expect_page(const struct buf *bin, uint64_t page, unsigned seed)
{
    uint8_t expected[4096] = {0};
    if (seed > 0)
        w_page_bytes(expected, seed);
    assert_memory_equal(bin->data + page * 4096, expected, 4096);
}

static void save_ok(const struct save_fixture *fixture, const struct buf *stream, uint64_t memory_bytes,
                    struct ram_save_result *result)
{
    struct err err = ERR_INIT;
    if (!fixture_save(fixture, stream, memory_bytes, result, &err))
        fail_msg("%s", err.text);
}

static void memory_lies_in_bin_at_its_own_offset(void **state)
{
    AUTO_BUF struct buf in = BUF_INIT;
    AUTO_BUF struct buf bin = BUF_INIT;
    struct save_fixture *fixture = *state;
    struct ram_save_result result;
    fixture_stream(&in);
    save_ok(fixture, &in, F_MEMORY_BYTES, &result);
    fixture_read(fixture->bin, &bin);
    assert_int_equal(bin.length, F_MEMORY_BYTES);
    expect_page(&bin, 0, 1);
    expect_page(&bin, 1, 2);
    expect_page(&bin, F_MEMORY_BYTES / 4096 - 1, 3);
    assert_true(bytes_are_zero(bin.data + 8192, F_MEMORY_BYTES - 3 * 4096));
    assert_int_equal(result.stream_bytes, in.length);
    assert_int_equal(result.pages, 3);
    assert_int_equal(result.zero_pages, F_MEMORY_BYTES / 4096 - 3);
    assert_int_equal(result.resent_pages, 0);
}

static void zero_pages_are_holes_and_files_are_private(void **state)
{
    AUTO_BUF struct buf in = BUF_INIT;
    struct save_fixture *fixture = *state;
    struct ram_save_result result;
    struct stat stat_bin, stat_vsv;
    fixture_stream(&in);
    save_ok(fixture, &in, F_MEMORY_BYTES, &result);
    assert_int_equal(stat(fixture->bin, &stat_bin), 0);
    assert_int_equal(stat(fixture->vsv, &stat_vsv), 0);
    assert_true(stat_bin.st_blocks * 512 <= 64 << 10);
    assert_int_equal(stat_bin.st_mode & 07777, 0600);
    assert_int_equal(stat_vsv.st_mode & 07777, 0600);
}

/* The stream of the .vsv, byte for byte, written by hand. */
static void vsv_holds_a_stream_without_memory(void **state)
{
    static const struct w_block blocks[] = {{"pc.ram", F_MEMORY_BYTES}, {"pc.bios", 3 * 4096}};
    AUTO_BUF struct buf in = BUF_INIT;
    AUTO_BUF struct buf vsv = BUF_INIT;
    AUTO_BUF struct buf expected = BUF_INIT;
    struct save_fixture *fixture = *state;
    struct ram_save_result result;
    fixture_stream(&in);
    save_ok(fixture, &in, F_MEMORY_BYTES, &result);
    fixture_read(fixture->vsv, &vsv);
    w_open(&expected, blocks, 2);
    w_part(&expected);
    w_page(&expected, "pc.bios", 0, 11);
    w_zero(&expected, NULL, 4096);
    w_eos(&expected);
    w_end(&expected);
    w_eos(&expected);
    w_state(&expected);
    assert_int_equal(vsv.length, 8192 + expected.length);
    assert_memory_equal(vsv.data + 8192, expected.data, expected.length);
}

/* 4000 pages at random, again and again, against a model; both ends of chunks and files are among them. */
static void pages_sent_again_in_any_order_leave_the_last(void **state)
{
    enum { PAGES = 1100, STEPS = 4000 };
    static const struct w_block blocks[] = {{"x", 4096}, {"pc.ram", PAGES * 4096}};
    static unsigned model[PAGES];
    AUTO_BUF struct buf in = BUF_INIT;
    AUTO_BUF struct buf bin = BUF_INIT;
    struct save_fixture *fixture = *state;
    struct ram_save_result result;
    struct err err = ERR_INIT;
    uint64_t random = 1;
    w_open(&in, blocks, 2);
    w_part(&in);
    for (unsigned i = 0; i < PAGES + STEPS; i++) {
        random = random * 6364136223846793005U + 1442695040888963407U;
        unsigned page = i < PAGES ? i : (unsigned)(random >> 33) % PAGES;
        model[page] = (random >> 20) % 3 ? i + 1 : 0;
        if (model[page])
            w_page(&in, "pc.ram", page * 4096, model[page]);
        else
            w_zero(&in, "pc.ram", page * 4096);
    }
    w_eos(&in);
    w_state(&in);
    save_ok(fixture, &in, PAGES * 4096, &result);
    fixture_read(fixture->bin, &bin);
    assert_int_equal(bin.length, PAGES * 4096);
    for (unsigned page = 0; page < PAGES; page++)
        expect_page(&bin, page, model[page]);
    assert_int_equal(result.resent_pages, STEPS);
    if (!ram_verify(fixture->vsv, fixture->bin, NULL, &err))
        fail_msg("%s", err.text);
}

static void expect_failure(struct save_fixture *fixture, const struct buf *in, uint64_t memory_bytes,
                           enum err_code code, const char *text)
{
    struct ram_save_result result;
    struct err err = ERR_INIT;
    assert_false(fixture_save(fixture, in, memory_bytes, &result, &err));
    if (err.code != code || !strstr(err.text, text))
        fail_msg("%s: %s, but expected: %s", err_name(err.code), err.text, text);
    assert_false(fixture_exists(fixture->bin));
    assert_false(fixture_exists(fixture->vsv));
}

static void memory_of_another_size_is_corrupt(void **state)
{
    AUTO_BUF struct buf in = BUF_INIT;
    fixture_stream(&in);
    expect_failure(*state, &in, F_MEMORY_BYTES + 4096, ERR_CORRUPT, "pc.ram has 5242880 bytes, not 5246976");
}

static void a_stream_without_main_memory_is_corrupt(void **state)
{
    static const struct w_block blocks[] = {{"ram0", 4096}};
    AUTO_BUF struct buf in = BUF_INIT;
    w_open(&in, blocks, 1);
    expect_failure(*state, &in, 4096, ERR_CORRUPT, "no memory block pc.ram");
}

static void a_second_main_memory_is_unsupported(void **state)
{
    static const struct w_block blocks[] = {{"pc.ram", 4096}, {"dimm", 4ULL << 30}};
    AUTO_BUF struct buf in = BUF_INIT;
    w_open(&in, blocks, 2);
    expect_failure(*state, &in, 4096, ERR_UNSUPPORTED, "dimm");
}

static void a_page_that_never_came_is_corrupt(void **state)
{
    static const struct w_block blocks[] = {{"pc.ram", 3 * 4096}};
    AUTO_BUF struct buf in = BUF_INIT;
    w_open(&in, blocks, 1);
    w_part(&in);
    w_zero(&in, "pc.ram", 0);
    w_zero(&in, NULL, 8192);
    w_eos(&in);
    w_state(&in);
    expect_failure(*state, &in, 3 * 4096, ERR_CORRUPT, "the page at 4096 of pc.ram");
}

static void state_that_its_description_denies_is_corrupt(void **state)
{
    AUTO_BUF struct buf in = BUF_INIT;
    fixture_stream(&in);
    uint8_t *name = memmem(in.data, in.length, "timer", 5); /* in the section; the description has it behind */
    assert_non_null(name);
    name[0] = 'T';
    expect_failure(*state, &in, F_MEMORY_BYTES, ERR_CORRUPT, "not as QEMU describes it");
}

static void an_early_end_is_corrupt(void **state)
{
    AUTO_BUF struct buf in = BUF_INIT;
    fixture_stream(&in);
    const size_t lengths[] = {0, 5, 100, in.length / 2, in.length - 60, in.length - 1};
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        struct buf early = {.data = in.data, .length = lengths[i]};
        expect_failure(*state, &early, F_MEMORY_BYTES, ERR_CORRUPT, "the stream ends");
    }
}

static void memory_of_part_of_a_page_is_invalid(void **state)
{
    AUTO_BUF struct buf in = BUF_INIT;
    expect_failure(*state, &in, 4097, ERR_INVALID, "4097");
    expect_failure(*state, &in, 0, ERR_INVALID, "0 bytes");
}

static void a_file_that_exists_is_left_alone(void **state)
{
    struct save_fixture *fixture = *state;
    AUTO_BUF struct buf in = BUF_INIT;
    AUTO_BUF struct buf after = BUF_INIT;
    struct ram_save_result result;
    struct err err = ERR_INIT;
    fixture_stream(&in);
    const char *const taken[] = {fixture->bin, fixture->vsv};
    for (size_t i = 0; i < ARRAY_SIZE(taken); i++) {
        int fd = open(taken[i], O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
        assert_true(fd >= 0 && write(fd, "mine", 4) == 4);
        close(fd);
        assert_false(fixture_save(fixture, &in, F_MEMORY_BYTES, &result, &err));
        assert_int_equal(err.code, ERR_EXISTS);
        buf_done(&after);
        fixture_read(taken[i], &after);
        assert_memory_equal(after.data, "mine", 4);
        assert_false(fixture_exists(taken[1 - i]));
        unlink(taken[i]);
    }
}

/* What the file system refuses, as when it is full: a limit on the size of files stands for that. */
static void refuse_with_limit(struct save_fixture *fixture, const struct buf *in, uint64_t memory_bytes,
                              rlim_t limit, const char *path)
{
    struct rlimit before, small;
    struct ram_save_result result;
    struct err err = ERR_INIT;
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &before), 0);
    small = before;
    small.rlim_cur = limit;
    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &small), 0);
    bool ok = fixture_save(fixture, in, memory_bytes, &result, &err);
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &before), 0);
    assert_false(ok);
    assert_int_equal(err.code, ERR_NO_SPACE);
    assert_non_null(strstr(err.text, path));
    assert_false(fixture_exists(fixture->bin));
    assert_false(fixture_exists(fixture->vsv));
}

static void files_that_cannot_grow_end_the_save(void **state)
{
    static const struct w_block blocks[] = {{"pc.ram", 4096}, {"vram", 64 * 4096}};
    AUTO_BUF struct buf in = BUF_INIT;
    AUTO_BUF struct buf small = BUF_INIT;
    struct save_fixture *fixture = *state;
    fixture_stream(&in);
    refuse_with_limit(fixture, &in, F_MEMORY_BYTES, 4096, fixture->bin);
    w_open(&small, blocks, 2);
    w_part(&small);
    w_zero(&small, "pc.ram", 0);
    for (unsigned i = 0; i < 64; i++)
        w_page(&small, "vram", i * 4096, i + 1);
    w_eos(&small);
    w_state(&small);
    refuse_with_limit(fixture, &small, 4096, 65536, fixture->vsv);
}

static bool reads_to_the_end; /* of the next start() */

static struct ram_save *start(struct save_fixture *fixture, int *ret_write_end,
                              const struct progress *progress)
{
    int ends[2];
    struct err err = ERR_INIT;
    struct ram_save *save = NULL;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    struct ram_save_options options = fixture_options(fixture, ends[0], F_MEMORY_BYTES);
    options.progress = progress;
    options.reads_to_the_end = reads_to_the_end;
    reads_to_the_end = false;
    assert_true(ram_save_start(&options, &save, &err));
    *ret_write_end = ends[1];
    return save;
}

/* So that QEMU's migration fails instead of waiting for a reader for ever. */
static void a_failure_closes_the_pipe_and_is_told(void **state)
{
    struct save_fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct ram_save_result result;
    int end = -1;
    struct ram_save *save = start(fixture, &end, NULL);
    assert_false(ram_save_failed(save, &err));
    assert_int_equal(write(end, "not a stream", 12), 12);
    struct pollfd wait = {.fd = end};
    assert_int_equal(poll(&wait, 1, 10000), 1);
    assert_true(wait.revents & POLLERR);
    assert_true(ram_save_failed(save, &err)); /* who sees the broken pipe finds the reason at once */
    assert_int_equal(err.code, ERR_CORRUPT);
    assert_false(ram_save_finish(save, &result, &err));
    assert_false(fixture_exists(fixture->bin));
    close(end);
}

/* For a QEMU that must not find a broken pipe. */
static void a_failure_can_leave_the_pipe_open_and_read(void **state)
{
    struct save_fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct ram_save_result result;
    int end = -1;
    static const char more[256 * 1024] = {1};
    reads_to_the_end = true;
    struct ram_save *save = start(fixture, &end, NULL);
    for (unsigned i = 0; i < 64; i++) /* far more than a pipe holds */
        assert_int_equal(write(end, more, sizeof more), sizeof more);
    assert_true(ram_save_failed(save, &err));
    close(end);
    assert_false(ram_save_finish(save, &result, &err));
    assert_int_equal(err.code, ERR_CORRUPT);
    assert_false(fixture_exists(fixture->bin));
    reads_to_the_end = true;
    save = start(fixture, &end, NULL);
    assert_int_equal(write(end, more, sizeof more), sizeof more);
    ram_save_abandon(save); /* but not for ever */
    assert_int_equal(write(end, "x", 1), -1);
    close(end);
}

static void an_abandoned_save_leaves_nothing(void **state)
{
    struct save_fixture *fixture = *state;
    AUTO_BUF struct buf in = BUF_INIT;
    int end = -1;
    struct ram_save *save = start(fixture, &end, NULL);
    fixture_stream(&in);
    assert_int_equal(write(end, in.data, 5000), 5000);
    ram_save_abandon(save);
    assert_int_equal(write(end, "x", 1), -1);
    assert_false(fixture_exists(fixture->bin));
    assert_false(fixture_exists(fixture->vsv));
    close(end);
    ram_save_abandon(NULL);
}

static bool always(void *context)
{
    (void)context;
    return true;
}

static void a_cancelled_save_says_so(void **state)
{
    struct save_fixture *fixture = *state;
    AUTO_BUF struct buf in = BUF_INIT;
    struct err err = ERR_INIT;
    struct ram_save_result result;
    int end = -1;
    struct progress progress = {.cancelled = always};
    struct ram_save *save = start(fixture, &end, &progress);
    fixture_stream(&in);
    assert_int_equal(write(end, in.data, 5000), 5000);
    assert_false(ram_save_finish(save, &result, &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_false(fixture_exists(fixture->bin));
    close(end);
}

#define test_of(function) cmocka_unit_test_setup_teardown(function, fixture_setup, fixture_teardown)

/* A reader in a process of its own, which is killed; the writer then finds nobody, unless somebody reads on. */
static void reader_is_killed(const struct save_fixture *fixture, int stream_fd, int write_fd)
{
    struct ram_save_options options = fixture_options(fixture, stream_fd, F_MEMORY_BYTES);
    int ready[2];

    assert_int_equal(pipe(ready), 0);
    pid_t reader = fork();
    if (reader == 0) {
        struct ram_save *save;
        struct err err;
        close(write_fd);
        options.reads_to_the_end = true;
        if (!ram_save_start(&options, &save, &err) || write(ready[1], "", 1) != 1)
            _exit(1);
        for (;;)
            pause();
    }
    char byte;
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    close(stream_fd);
    assert_int_equal(kill(reader, SIGKILL), 0);
    assert_int_equal(waitpid(reader, NULL, 0), reader);
}

static void a_stream_that_must_come_to_its_end_does_when_its_reader_is_killed(void **state)
{
    static const uint8_t zeros[64 << 10];
    struct save_fixture *fixture = *state;
    int ends[2], status;

    assert_int_equal(prctl(PR_SET_CHILD_SUBREAPER, 1), 0);
    signal(SIGPIPE, SIG_IGN);
    assert_int_equal(pipe(ends), 0);
    reader_is_killed(fixture, ends[0], ends[1]);
    for (unsigned i = 0; i < 64; i++) /* much more than the pipe holds */
        assert_int_equal(write(ends[1], zeros, sizeof zeros), sizeof zeros);
    close(ends[1]);
    assert_true(waitpid(-1, &status, 0) > 0); /* it ends with the stream */
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_int_equal(waitpid(-1, NULL, 0), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        test_of(memory_lies_in_bin_at_its_own_offset),
        test_of(zero_pages_are_holes_and_files_are_private),
        test_of(vsv_holds_a_stream_without_memory),
        test_of(pages_sent_again_in_any_order_leave_the_last),
        test_of(memory_of_another_size_is_corrupt),
        test_of(a_stream_without_main_memory_is_corrupt),
        test_of(a_second_main_memory_is_unsupported),
        test_of(a_page_that_never_came_is_corrupt),
        test_of(state_that_its_description_denies_is_corrupt),
        test_of(an_early_end_is_corrupt),
        test_of(memory_of_part_of_a_page_is_invalid),
        test_of(a_file_that_exists_is_left_alone),
        test_of(files_that_cannot_grow_end_the_save),
        test_of(a_failure_closes_the_pipe_and_is_told),
        test_of(a_failure_can_leave_the_pipe_open_and_read),
        test_of(a_stream_that_must_come_to_its_end_does_when_its_reader_is_killed),
        test_of(an_abandoned_save_leaves_nothing),
        test_of(a_cancelled_save_says_so),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
