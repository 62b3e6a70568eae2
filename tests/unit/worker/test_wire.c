/* Messages on the control socket. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auto.h"
#include "wire.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

struct pair {
    int ours;
    struct wire wire;
};

static void pair_open(struct pair *pair)
{
    int ends[2];

    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, ends), 0);
    *pair = (struct pair){.ours = ends[0], .wire = {.fd = ends[1]}};
}

static void pair_close(struct pair *pair)
{
    if (pair->ours >= 0)
        close(pair->ours);
    close(pair->wire.fd);
    wire_done(&pair->wire);
}

static void messages_in_pieces_and_in_a_row_arrive_whole(void **state)
{
    static const char TEXT[] = "{\"execute\":\"a\"}\n{\"execute\":\"b\"}\n";
    struct pair pair;
    struct err err;
    json_t *message;
    unsigned messages = 0;

    (void)state;
    pair_open(&pair);
    for (size_t i = 0; i < sizeof TEXT - 1; i++) {
        assert_int_equal(write(pair.ours, TEXT + i, 1), 1);
        assert_true(wire_receive(&pair.wire, 0, &message, &err));
        messages += message != NULL;
        json_decref(message);
    }
    assert_int_equal(messages, 2);
    assert_int_equal(write(pair.ours, TEXT, sizeof TEXT - 1), sizeof TEXT - 1);
    for (const char *name = "ab"; *name; name++) {
        assert_true(wire_receive(&pair.wire, 1000, &message, &err));
        assert_int_equal(json_string_value(json_object_get(message, "execute"))[0], *name);
        json_decref(message);
    }
    pair_close(&pair);
}

static void a_closed_end_and_a_message_that_is_none_are_told_apart(void **state)
{
    static const char *const BAD[] = {"nonsense\n", "[1]\n", "{\"a\":1,\"a\":2}\n", "\n", "{\n"};
    struct err err;
    json_t *message;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(BAD); i++) {
        struct pair pair;
        pair_open(&pair);
        assert_int_equal(write(pair.ours, BAD[i], strlen(BAD[i])), strlen(BAD[i]));
        assert_false(wire_receive(&pair.wire, 1000, &message, &err));
        assert_int_equal(err.code, ERR_PROTOCOL);
        assert_int_equal(err.sys, 0);
        close(pair.ours);
        pair.ours = -1;
        assert_false(wire_receive(&pair.wire, 1000, &message, &err));
        assert_int_equal(err.sys, EPIPE);
        pair_close(&pair);
    }
}

static void a_line_without_end_is_bounded(void **state)
{
    struct pair pair;
    struct err err;
    json_t *message;
    char noise[65536];
    bool received = true;

    (void)state;
    pair_open(&pair);
    memset(noise, ' ', sizeof noise);
    for (unsigned i = 0; i < 64 && received; i++) {
        assert_true(send(pair.ours, noise, sizeof noise, MSG_DONTWAIT) > 0);
        for (message = NULL; received && !message && pair.wire.in.length < (i + 1) * sizeof noise;)
            received = wire_receive(&pair.wire, 0, &message, &err);
    }
    assert_false(received);
    assert_int_equal(err.code, ERR_PROTOCOL);
    assert_true(pair.wire.in.length <= WIRE_MAX_BYTES + sizeof noise);
    pair_close(&pair);
}

static void a_reader_that_does_not_read_times_out(void **state)
{
    struct pair pair;
    struct err err;
    char *large = malloc(1U << 20);

    (void)state;
    pair_open(&pair);
    memset(large, 'x', 1U << 20);
    large[(1U << 20) - 1] = '\0';
    json_t *message = json_pack("{s:s}", "text", large);
    bool sent = true;
    for (unsigned i = 0; i < 16 && sent; i++)
        sent = wire_send(pair.wire.fd, message, 10, &err);
    assert_false(sent);
    assert_int_equal(err.code, ERR_TIMEOUT);
    json_decref(message);
    free(large);
    pair_close(&pair);
}

static void errors_keep_code_and_text_across_the_socket(void **state)
{
    struct err err, read_back;

    (void)state;
    err_set_text(&err, ERR_AMBIGUOUS, 0, "snapshot 'x': which one?");
    json_t *message = wire_error(&err);
    wire_error_read(message, &read_back);
    assert_int_equal(read_back.code, ERR_AMBIGUOUS);
    assert_string_equal(read_back.text, err.text);
    json_decref(message);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(messages_in_pieces_and_in_a_row_arrive_whole),
        cmocka_unit_test(a_closed_end_and_a_message_that_is_none_are_told_apart),
        cmocka_unit_test(a_line_without_end_is_bounded),
        cmocka_unit_test(a_reader_that_does_not_read_times_out),
        cmocka_unit_test(errors_keep_code_and_text_across_the_socket),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
