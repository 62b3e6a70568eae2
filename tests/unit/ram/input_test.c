/* The stream's bytes arrive in order and whole, whenever the hurry begins. */
#include "auto.h"
#include "bytes.h"
#include "input.h"
#include "rawfile.h"

#include <fcntl.h>
#include <poll.h>
#include <setjmp.h>
#include <stdarg.h>
#include <string.h>
#include <sys/ioctl.h>
#include <time.h>

#include <cmocka.h>

static uint8_t byte_at(uint64_t i)
{
    return (uint8_t)(i * 2654435761U >> 13);
}

static uint64_t next_random(uint64_t *random)
{
    *random = *random * 6364136223846793005U + 1442695040888963407U;
    return *random >> 33;
}

struct writer {
    int fd;
    uint64_t total, random;
    uint64_t hurry_at; /* of the bytes that were written */
    struct input *input;
};

static void *write_all(void *context)
{
    struct writer *writer = context;
    uint8_t piece[70000];
    bool hurried = false;
    for (uint64_t done = 0; done < writer->total;) {
        size_t length =
            (size_t)min_u64(next_random(&writer->random) % sizeof(piece) + 1, writer->total - done);
        if (!hurried && done >= writer->hurry_at) {
            input_hurry(writer->input);
            input_hurry(writer->input); /* the second time does nothing */
            hurried = true;
        }
        for (size_t i = 0; i < length; i++)
            piece[i] = byte_at(done + i);
        assert_int_equal(write(writer->fd, piece, length), length);
        done += length;
    }
    close(writer->fd);
    return NULL;
}

/* Reads everything, leaving some bytes for the next time at each step. */
static void read_all(struct input *input, uint64_t total, uint64_t *random)
{
    struct err err = ERR_INIT;
    uint64_t taken = 0;
    for (bool at_end = false; !at_end;) {
        size_t length = 0;
        if (!input_more(input, &at_end, &err))
            fail_msg("%s", err.text);
        const uint8_t *bytes = input_bytes(input, &length);
        for (size_t i = 0; i < length; i++) {
            if (bytes[i] != byte_at(taken + i))
                fail_msg("byte %llu", (unsigned long long)(taken + i));
        }
        size_t left = at_end ? 0 : (size_t)min_u64(next_random(random) % INPUT_HELD_MAX, length);
        input_take(input, length - left);
        taken += length - left;
    }
    assert_int_equal(taken, total);
}

static void bytes_arrive_in_order(uint64_t total, uint64_t hurry_at, size_t hurry_bytes)
{
    int ends[2];
    struct err err = ERR_INIT;
    struct writer writer = {.total = total, .random = hurry_at, .hurry_at = hurry_at};
    uint64_t random = total;
    pthread_t thread;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_true(input_new(ends[0], hurry_bytes, &writer.input, &err));
    writer.fd = ends[1];
    assert_int_equal(pthread_create(&thread, NULL, write_all, &writer), 0);
    read_all(writer.input, total, &random);
    pthread_join(thread, NULL);
    input_free(writer.input);
}

static void without_hurry_bytes_arrive_in_order(void **state)
{
    (void)state;
    bytes_arrive_in_order(5000000, UINT64_MAX, 1 << 20);
    bytes_arrive_in_order(0, UINT64_MAX, 1 << 20);
}

static void in_hurry_bytes_arrive_in_order(void **state)
{
    (void)state;
    for (uint64_t at = 0; at < 3000000; at += 300000)
        bytes_arrive_in_order(3000000, at, 8 << 20);
}

static void a_full_reserve_goes_back_to_the_pipe(void **state)
{
    (void)state;
    for (uint64_t at = 0; at < 3000000; at += 300000)
        bytes_arrive_in_order(3000000, at, 10000 + at / 3);
}

/* The reason for it all: a writer gets rid of much more than a pipe holds while nobody takes it. */
static void in_hurry_a_writer_need_not_wait(void **state)
{
    (void)state;
    static uint8_t piece[1 << 20];
    int ends[2];
    struct err err = ERR_INIT;
    struct input *input = NULL;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_true(input_new(ends[0], 32 << 20, &input, &err));
    assert_true(fd_set_nonblocking(ends[1], &err));
    input_hurry(input);
    size_t done = 0;
    while (done < 20 << 20) {
        struct pollfd wait = {.fd = ends[1], .events = POLLOUT};
        if (poll(&wait, 1, 10000) != 1)
            fail_msg("the writer waits after %zu bytes", done);
        ssize_t put = write(ends[1], piece, sizeof(piece));
        done += put > 0 ? (size_t)put : 0;
    }
    close(ends[1]);
    input_free(input);
}

static void *stop_soon(void *context)
{
    nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    input_stop(context);
    return NULL;
}

/* A reader that waits: for bytes of an empty pipe, or, with a byte in it, for leave to read that. */
static void wait_and_stop(bool hurry, bool has_byte)
{
    int ends[2];
    struct err err = ERR_INIT;
    struct input *input = NULL;
    bool at_end = false;
    pthread_t thread;

    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_true(input_new(ends[0], 1 << 20, &input, &err));
    if (has_byte) {
        input_pace(input, 0);
        assert_int_equal(write(ends[1], "x", 1), 1);
    }
    if (hurry)
        input_hurry(input);
    assert_int_equal(pthread_create(&thread, NULL, stop_soon, input), 0);
    assert_false(input_more(input, &at_end, &err));
    assert_int_equal(err.code, ERR_CANCELLED);
    pthread_join(thread, NULL);
    input_free(input);
    close(ends[1]);
}

static void a_stop_ends_the_waiting(void **state)
{
    (void)state;
    wait_and_stop(false, false);
    wait_and_stop(true, false);
}

static void a_stop_ends_the_waiting_for_allowance(void **state)
{
    (void)state;
    wait_and_stop(false, true);
    wait_and_stop(true, true);
}

/* Bytes that can be read from a pipe now, at most so many at once and no more than three times. */
static size_t read_some(struct input *input, uint64_t allowed)
{
    struct err err = ERR_INIT;
    bool at_end = false;
    size_t length = 0;
    input_pace(input, allowed);
    for (unsigned tries = 0; tries < 3 && length < allowed && (tries == 0 || allowed != UINT64_MAX); tries++) {
        assert_true(input_more(input, &at_end, &err));
        input_bytes(input, &length);
    }
    input_take(input, length);
    return length;
}

static void no_more_is_read_than_is_allowed(void **state)
{
    (void)state;
    static uint8_t piece[60000];
    for (unsigned hurry = 0; hurry < 2; hurry++) {
        int ends[2], left = 0;
        struct err err = ERR_INIT;
        struct input *input = NULL;
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        assert_true(input_new(ends[0], 1 << 20, &input, &err));
        input_pace(input, 0);
        if (hurry)
            input_hurry(input);
        assert_int_equal(write(ends[1], piece, sizeof(piece)), sizeof(piece));
        assert_int_equal(input_paced(input, 5), 0);
        assert_int_equal(read_some(input, 100), 100);
        assert_int_equal(input_paced(input, 10000), 0);
        assert_int_equal(ioctl(ends[1], FIONREAD, &left), 0);
        assert_int_equal(left, sizeof(piece) - 100);
        assert_int_equal(read_some(input, 40000), 40000);
        assert_int_equal(ioctl(ends[1], FIONREAD, &left), 0);
        assert_int_equal(left, sizeof(piece) - 40100);
        input_pace(input, UINT64_MAX);
        assert_true(input_paced(input, 0) > 0);
        assert_int_equal(read_some(input, UINT64_MAX) + 40100, sizeof(piece));
        close(ends[1]);
        input_free(input);
    }
}

static void after_closing_a_hurry_does_nothing(void **state)
{
    (void)state;
    int ends[2];
    struct err err = ERR_INIT;
    struct input *input = NULL;
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    assert_true(input_new(ends[0], 1 << 20, &input, &err));
    input_close(input);
    input_hurry(input);
    input_close(input);
    struct pollfd wait = {.fd = ends[1]};
    assert_true(poll(&wait, 1, 1000) == 1 && wait.revents & POLLERR);
    input_free(input);
    close(ends[1]);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(without_hurry_bytes_arrive_in_order),
        cmocka_unit_test(in_hurry_bytes_arrive_in_order),
        cmocka_unit_test(a_full_reserve_goes_back_to_the_pipe),
        cmocka_unit_test(in_hurry_a_writer_need_not_wait),
        cmocka_unit_test(a_stop_ends_the_waiting),
        cmocka_unit_test(no_more_is_read_than_is_allowed),
        cmocka_unit_test(a_stop_ends_the_waiting_for_allowance),
        cmocka_unit_test(after_closing_a_hurry_does_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
