/* Both backends of the ring keep the same promises. */
#include "io_failing.h"
#include "io_memory.h"
#include "ring.h"

#include <errno.h>
#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/stat.h>

#include <cmocka.h>

struct state {
    struct ring *ring;
    char directory[64];
};

struct event {
    struct ring_op op;
    int64_t result;
    unsigned calls;
};

static void note(struct ring_op *op, int64_t result)
{
    struct event *event = (struct event *)(void *)op;

    event->result = result;
    event->calls++;
}

#define EVENT ((struct event){.op.done = note})

static void wait_for(struct ring *ring, struct event *event)
{
    struct err err;

    while (event->calls == 0)
        if (!ring_wait(ring, true, &err))
            fail_msg("%s", err.text);
    assert_int_equal(event->calls, 1);
}

static int setup(void **state, bool no_io_uring)
{
    static struct state made;
    struct err err;

    made = (struct state){.directory = "/tmp/bough-ring-XXXXXX"};
    assert_non_null(mkdtemp(made.directory));
    if (!ring_new(no_io_uring, &made.ring, &err))
        fail_msg("%s", err.text);
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

    ring_free(made->ring);
    return rmdir(made->directory);
}

static struct io_file *file_new(const struct state *state)
{
    struct io_file *file;
    struct err err;
    char path[96];

    snprintf(path, sizeof path, "%s/file", state->directory);
    if (!io_open(&io_real, path, IO_CREATE, &file, &err))
        fail_msg("%s", err.text);
    unlink(path);
    return file;
}

static void what_is_written_can_be_read(void **state)
{
    struct state *made = *state;
    AUTO_IO struct io_file *file = file_new(made);
    struct event writing = EVENT, reading = EVENT, syncing = EVENT;
    char bytes[5] = "";

    ring_write(made->ring, &writing.op, file, 4096, "abcd", 5);
    assert_int_equal(writing.calls, 0);
    wait_for(made->ring, &writing);
    assert_int_equal(writing.result, 5);
    ring_sync(made->ring, &syncing.op, file);
    wait_for(made->ring, &syncing);
    assert_int_equal(syncing.result, 0);
    ring_read(made->ring, &reading.op, file, 4096, bytes, 5);
    assert_int_equal(reading.calls, 0);
    wait_for(made->ring, &reading);
    assert_int_equal(reading.result, 5);
    assert_string_equal(bytes, "abcd");
}

static void more_operations_than_the_queue_holds_all_end(void **state)
{
    enum { COUNT = 3000 };
    struct state *made = *state;
    AUTO_IO struct io_file *file = file_new(made);
    AUTO_FREE struct event *events = calloc(COUNT, sizeof *events);
    AUTO_FREE uint32_t *numbers = calloc(COUNT, sizeof *numbers);
    uint32_t number;

    for (uint32_t i = 0; i < COUNT; i++) {
        events[i] = EVENT;
        numbers[i] = i;
        ring_write(made->ring, &events[i].op, file, i * 4, &numbers[i], 4);
    }
    for (uint32_t i = 0; i < COUNT; i++) {
        wait_for(made->ring, &events[i]);
        assert_int_equal(events[i].result, 4);
        assert_int_equal(pread(file->fd, &number, 4, i * 4), 4);
        assert_int_equal(number, i);
    }
}

static void read_past_the_end_of_the_file_is_eio(void **state)
{
    struct state *made = *state;
    AUTO_IO struct io_file *file = file_new(made);
    struct event reading = EVENT;
    char bytes[8];

    assert_int_equal(pwrite(file->fd, "abcd", 4, 0), 4);
    ring_read(made->ring, &reading.op, file, 0, bytes, 8);
    wait_for(made->ring, &reading);
    assert_int_equal(reading.result, -EIO);
}

/* No file may grow past so many bytes, as on a disk with just so much room. */
static void file_limit_set(size_t bytes)
{
    struct rlimit limit;

    signal(SIGXFSZ, SIG_IGN);
    assert_int_equal(getrlimit(RLIMIT_FSIZE, &limit), 0);
    limit.rlim_cur = bytes ? bytes : limit.rlim_max;
    assert_int_equal(setrlimit(RLIMIT_FSIZE, &limit), 0);
}

/* Long enough to be nobody's special case. */
#define LONG_BYTES ((size_t)3 << 20)
#define CUT_BYTES  ((size_t)1 << 20)

static uint8_t *long_bytes_new(void)
{
    uint8_t *bytes = malloc(LONG_BYTES);

    assert_non_null(bytes);
    for (size_t i = 0; i < LONG_BYTES; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 4096 + 1);
    return bytes;
}

static void write_that_is_cut_short_goes_on_where_it_stopped(void **state)
{
    struct state *made = *state;
    AUTO_IO struct io_file *file = file_new(made);
    AUTO_FREE uint8_t *bytes = long_bytes_new(), *found = malloc(LONG_BYTES);
    struct event writing = EVENT;
    struct err err;
    struct stat status;

    file_limit_set(CUT_BYTES);
    ring_write(made->ring, &writing.op, file, 0, bytes, LONG_BYTES);
    do {
        assert_true(ring_wait(made->ring, true, &err));
        assert_int_equal(fstat(file->fd, &status), 0);
    } while (status.st_size == 0);
    file_limit_set(0);
    assert_int_equal(status.st_size, CUT_BYTES);
    assert_int_equal(writing.calls, 0); /* the rest is to come */
    wait_for(made->ring, &writing);
    assert_int_equal(writing.result, LONG_BYTES);
    assert_int_equal(pread(file->fd, found, LONG_BYTES, 0), LONG_BYTES);
    assert_memory_equal(found, bytes, LONG_BYTES);
}

static void write_that_is_cut_short_for_good_is_an_error(void **state)
{
    struct state *made = *state;
    AUTO_IO struct io_file *file = file_new(made);
    struct event writing = EVENT;

    file_limit_set(5);
    ring_write(made->ring, &writing.op, file, 2, "abcdefgh", 8);
    wait_for(made->ring, &writing);
    file_limit_set(0);
    assert_int_equal(writing.result, -EFBIG);
}

static void read_that_is_cut_short_goes_on_where_it_stopped(void **state)
{
    struct state *made = *state;
    AUTO_IO struct io_file *file = file_new(made);
    AUTO_FREE uint8_t *bytes = long_bytes_new(), *found = calloc(1, LONG_BYTES);
    struct event reading = EVENT;
    struct err err;
    size_t rest = LONG_BYTES - CUT_BYTES;

    assert_int_equal(pwrite(file->fd, bytes, CUT_BYTES, 0), CUT_BYTES);
    ring_read(made->ring, &reading.op, file, 0, found, LONG_BYTES);
    while (found[CUT_BYTES - 1] == 0)
        assert_true(ring_wait(made->ring, true, &err));
    assert_int_equal(reading.calls, 0);
    assert_int_equal(pwrite(file->fd, bytes + CUT_BYTES, rest, (off_t)CUT_BYTES), rest);
    wait_for(made->ring, &reading);
    assert_int_equal(reading.result, LONG_BYTES);
    assert_memory_equal(found, bytes, LONG_BYTES);
}

/* Short ones may be tried before they are handed to the ring. */
static void short_read_that_is_cut_shorter_goes_on_too(void **state)
{
    struct state *made = *state;
    AUTO_IO struct io_file *file = file_new(made);
    struct event reading = EVENT;
    char bytes[8] = "";

    assert_int_equal(pwrite(file->fd, "abcde", 5, 0), 5);
    ring_read(made->ring, &reading.op, file, 1, bytes, 7);
    assert_int_equal(pwrite(file->fd, "fgh", 3, 5), 3);
    wait_for(made->ring, &reading);
    assert_int_equal(reading.result, 7);
    assert_memory_equal(bytes, "bcdefgh", 7);
}

static void error_of_a_file_is_its_result(void **state)
{
    struct state *made = *state;
    AUTO_IO struct io_file *file = file_new(made);
    struct event writing = EVENT;

    close(file->fd);
    file->fd = open("/dev/full", O_WRONLY | O_CLOEXEC);
    assert_true(file->fd >= 0);
    ring_write(made->ring, &writing.op, file, 0, "abcd", 4);
    wait_for(made->ring, &writing);
    assert_int_equal(writing.result, -ENOSPC);
}

static void file_without_descriptor_is_served_by_its_seam(void **state)
{
    struct state *made = *state;
    AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_PLAIN);
    AUTO_IO_FAILING struct io_failing *failing = io_failing_new(io_memory_io(memory));
    struct event writing = EVENT, reading = EVENT, refused = EVENT, syncing = EVENT;
    struct err err;
    struct io_file *file;
    char bytes[8] = "";

    assert_true(io_open(io_failing_io(failing), "/file", IO_CREATE, &file, &err));
    ring_write(made->ring, &writing.op, file, 0, "abcd", 5);
    assert_int_equal(writing.calls, 0);
    wait_for(made->ring, &writing);
    ring_read(made->ring, &reading.op, file, 0, bytes, 5);
    wait_for(made->ring, &reading);
    assert_string_equal(bytes, "abcd");
    struct event far = EVENT;
    ring_read(made->ring, &far.op, file, 0, bytes, 8);
    wait_for(made->ring, &far);
    assert_int_equal(far.result, -EIO);
    io_failing_set(failing, (struct io_fault){.calls = IO_CALL_WRITE, .nth = 1, .errnum = ENOSPC});
    ring_write(made->ring, &refused.op, file, 0, "efgh", 5);
    wait_for(made->ring, &refused);
    assert_int_equal(refused.result, -ENOSPC);
    io_failing_set(failing, (struct io_fault){.calls = IO_CALL_SYNC, .nth = 1, .errnum = EIO});
    ring_sync(made->ring, &syncing.op, file);
    wait_for(made->ring, &syncing);
    assert_int_equal(syncing.result, -EIO);
    io_close(file);
}

struct pair {
    int near, far;
};

static struct pair pair_new(void)
{
    int fds[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds), 0);
    return (struct pair){fds[0], fds[1]};
}

static void receive_takes_what_is_there(void **state)
{
    struct state *made = *state;
    struct pair pair = pair_new();
    struct event receiving = EVENT, end = EVENT;
    struct err err;
    char bytes[16] = "";

    ring_recv(made->ring, &receiving.op, pair.near, bytes, sizeof bytes);
    assert_true(ring_wait(made->ring, false, &err));
    assert_int_equal(receiving.calls, 0);
    assert_int_equal(send(pair.far, "abc", 3, 0), 3);
    wait_for(made->ring, &receiving);
    assert_int_equal(receiving.result, 3);
    close(pair.far);
    ring_recv(made->ring, &end.op, pair.near, bytes, sizeof bytes);
    wait_for(made->ring, &end);
    assert_int_equal(end.result, 0);
    close(pair.near);
}

/* More than any socket buffer, to a reader who takes it in small bites. */
static void send_is_whole_however_slow_the_reader(void **state)
{
    enum { LENGTH = 3 << 20 };
    struct state *made = *state;
    struct pair pair = pair_new();
    AUTO_FREE uint8_t *bytes = malloc(LENGTH), *got = malloc(LENGTH);
    struct event sending = EVENT;
    struct err err;
    size_t done = 0;

    for (size_t i = 0; i < LENGTH; i++)
        bytes[i] = (uint8_t)(i * 7 + i / 4096);
    struct iovec vector[4] = {{bytes, 100},
                              {bytes + 100, 1 << 20},
                              {bytes + 100 + (1 << 20), 1},
                              {bytes + 101 + (1 << 20), LENGTH - 101 - (1 << 20)}};
    ring_send(made->ring, &sending.op, pair.near, vector, 4);
    while (done < LENGTH) {
        assert_true(ring_wait(made->ring, false, &err));
        ssize_t n = recv(pair.far, got + done, 50000, MSG_DONTWAIT);
        done += n > 0 ? (size_t)n : 0;
    }
    wait_for(made->ring, &sending);
    assert_int_equal(sending.result, LENGTH);
    assert_memory_equal(bytes, got, LENGTH);
    close(pair.near);
    close(pair.far);
}

static void send_to_nobody_fails_without_a_signal(void **state)
{
    struct state *made = *state;
    struct pair pair = pair_new();
    struct event sending = EVENT;

    close(pair.far);
    ring_send(made->ring, &sending.op, pair.near, &(struct iovec){(char[]){"abc"}, 3}, 1);
    wait_for(made->ring, &sending);
    assert_int_equal(sending.result, -EPIPE);
    close(pair.near);
}

static void shutdown_ends_what_waits_on_a_socket(void **state)
{
    struct state *made = *state;
    struct pair pair = pair_new();
    struct event receiving = EVENT;
    struct err err;
    char bytes[16];

    ring_recv(made->ring, &receiving.op, pair.near, bytes, sizeof bytes);
    assert_true(ring_wait(made->ring, false, &err));
    shutdown(pair.near, SHUT_RDWR);
    wait_for(made->ring, &receiving);
    assert_true(receiving.result <= 0);
    close(pair.near);
    close(pair.far);
}

static void poll_tells_when_it_can_be_read(void **state)
{
    struct state *made = *state;
    struct pair pair = pair_new();
    struct event polling = EVENT;
    struct err err;

    ring_poll(made->ring, &polling.op, pair.near);
    assert_true(ring_wait(made->ring, false, &err));
    assert_int_equal(polling.calls, 0);
    assert_int_equal(send(pair.far, "x", 1, 0), 1);
    wait_for(made->ring, &polling);
    assert_int_equal(polling.result, 0);
    close(pair.near);
    close(pair.far);
}

static void cancelled_operation_ends_with_ecanceled(void **state)
{
    struct state *made = *state;
    struct pair pair = pair_new();
    struct event polling = EVENT, receiving = EVENT;
    struct err err;
    char bytes[16];

    ring_poll(made->ring, &polling.op, pair.near);
    ring_recv(made->ring, &receiving.op, pair.near, bytes, sizeof bytes);
    assert_true(ring_wait(made->ring, false, &err));
    ring_cancel(made->ring, &polling.op);
    ring_cancel(made->ring, &receiving.op);
    wait_for(made->ring, &polling);
    wait_for(made->ring, &receiving);
    assert_int_equal(polling.result, -ECANCELED);
    assert_int_equal(receiving.result, -ECANCELED);
    close(pair.near);
    close(pair.far);
}

static void setting_and_argument_choose_the_backend(void **state)
{
    struct ring *ring;
    struct err err;

    (void)state;
    assert_true(ring_new(true, &ring, &err));
    assert_false(ring_is_io_uring(ring));
    ring_free(ring);
    const char *before = getenv("BOUGH_NO_IO_URING");
    setenv("BOUGH_NO_IO_URING", "1", 1);
    assert_true(ring_new(false, &ring, &err));
    assert_false(ring_is_io_uring(ring));
    ring_free(ring);
    if (!before)
        unsetenv("BOUGH_NO_IO_URING");
}

#define EACH(test)                                                                                           \
    {#test " [io_uring]", test, setup_io_uring, teardown, NULL},                                             \
    {                                                                                                        \
#test " [plain]", test, setup_plain, teardown, NULL                                                  \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(what_is_written_can_be_read),
        EACH(more_operations_than_the_queue_holds_all_end),
        EACH(read_past_the_end_of_the_file_is_eio),
        EACH(write_that_is_cut_short_goes_on_where_it_stopped),
        EACH(write_that_is_cut_short_for_good_is_an_error),
        EACH(read_that_is_cut_short_goes_on_where_it_stopped),
        EACH(short_read_that_is_cut_shorter_goes_on_too),
        EACH(error_of_a_file_is_its_result),
        EACH(file_without_descriptor_is_served_by_its_seam),
        EACH(receive_takes_what_is_there),
        EACH(send_is_whole_however_slow_the_reader),
        EACH(send_to_nobody_fails_without_a_signal),
        EACH(shutdown_ends_what_waits_on_a_socket),
        EACH(poll_tells_when_it_can_be_read),
        EACH(cancelled_operation_ends_with_ecanceled),
        cmocka_unit_test(setting_and_argument_choose_the_backend),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
