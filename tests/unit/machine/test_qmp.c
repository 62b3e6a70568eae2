/* The monitor's client against one that follows a script: broken, slow, hostile and plain. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auto.h"
#include "clock.h"
#include "fake_monitor.h"
#include "qmp_private.h"
#include "scratch.h"

#include <errno.h>
#include <signal.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#define RETURN_EMPTY                                                                                         \
    {                                                                                                        \
        FAKE_SEND, "{\"return\": {}, \"id\": $}\r\n", 0                                                      \
    }
#define READ_LINE                                                                                            \
    {                                                                                                        \
        FAKE_READ, NULL, 0                                                                                   \
    }
#define EVENT(name) "{\"event\": \"" name "\", \"timestamp\": {\"seconds\": 12, \"microseconds\": 345}}\r\n"

static struct fake *fake;
static struct err err;

/* Connects to a monitor of that script; NULL and err if that fails. */
static struct qmp *talk(const struct fake_step *steps, size_t count)
{
    struct qmp *qmp = NULL;
    err = ERR_INIT;
    fake = fake_start(scratch_path("qmp.sock"), steps, count);
    if (!qmp_connect(scratch_path("qmp.sock"), -1, 3000, &qmp, &err))
        assert_null(qmp);
    return qmp;
}
#define TALK(...)                                                                                            \
    talk((const struct fake_step[]){__VA_ARGS__}, ARRAY_SIZE(((const struct fake_step[]){__VA_ARGS__})))

static void end(struct qmp *qmp)
{
    qmp_free(qmp);
    fake_finish(fake, NULL, NULL);
}

static void greeting_gives_the_version(void **state)
{
    (void)state;
    struct qmp *qmp = TALK(FAKE_WELCOME);
    assert_non_null(qmp);
    assert_string_equal(qmp_version(qmp), "7.2.22");
    assert_int_equal(qmp_version_major(qmp), 7);
    end(qmp);
}

static void what_a_monitor_tells_of_a_connection_before_goes_by(void **state)
{
    (void)state;
    struct qmp *qmp = TALK({FAKE_SEND, EVENT("STOP") "{\"return\": {}, \"id\": 7}\r\n{\"error\": {\"class\": \"x\"}}\r\n", 0},
                           FAKE_WELCOME);
    assert_non_null(qmp);
    assert_string_equal(qmp_version(qmp), "7.2.22");
    end(qmp);
}

static void lines_in_pieces_are_put_together(void **state)
{
    (void)state;
    struct qmp *qmp =
        TALK({FAKE_DRIP, FAKE_GREETING, 0}, READ_LINE, {FAKE_DRIP, "{\"return\": {}, \"id\": $}\r\n", 0},
             READ_LINE, {FAKE_DRIP, EVENT("STOP") "{\"return\": {\"a\": 7}, \"id\": $}\r\n", 0});
    json_t *value = NULL, *event = NULL;
    assert_non_null(qmp);
    assert_true(qmp_execute(qmp, "x", NULL, -1, &value, &err));
    assert_int_equal(json_integer_value(json_object_get(value, "a")), 7);
    json_decref(value);
    assert_true(qmp_next_event(qmp, 0, &event, &err));
    assert_string_equal(qmp_event_name(event, NULL), "STOP");
    json_decref(event);
    end(qmp);
}

static void events_before_a_reply_stay_in_order(void **state)
{
    (void)state;
    struct qmp *qmp =
        TALK(FAKE_WELCOME, READ_LINE,
             {FAKE_SEND, EVENT("A") "\r\n" EVENT("B") "{\"return\": {}, \"id\": $}\r\n" EVENT("C"), 0});
    static const char *const names[] = {"A", "B", "C"};
    assert_non_null(qmp);
    assert_true(qmp_execute(qmp, "x", NULL, -1, NULL, &err));
    for (size_t i = 0; i < ARRAY_SIZE(names); i++) {
        json_t *event = NULL;
        int64_t at_us;
        assert_true(qmp_next_event(qmp, 1000, &event, &err));
        assert_string_equal(qmp_event_name(event, &at_us), names[i]);
        assert_int_equal(at_us, 12000345);
        json_decref(event);
    }
    end(qmp);
}

static void put_back_events_come_first(void **state)
{
    (void)state;
    struct qmp *qmp = TALK(FAKE_WELCOME, READ_LINE,
                           {FAKE_SEND, EVENT("A") EVENT("B") "{\"return\": {}, \"id\": $}\r\n", 0});
    json_t *taken = json_array(), *event = NULL;
    assert_non_null(qmp);
    assert_true(qmp_execute(qmp, "x", NULL, -1, NULL, &err));
    assert_true(qmp_next_event(qmp, 0, &event, &err));
    json_array_append_new(taken, event);
    qmp_put_back(qmp, taken);
    for (const char *name = "AB"; *name; name++) {
        assert_true(qmp_next_event(qmp, 0, &event, &err));
        assert_int_equal(qmp_event_name(event, NULL)[0], *name);
        json_decref(event);
    }
    end(qmp);
}

static void no_event_in_the_time_is_no_error(void **state)
{
    (void)state;
    struct qmp *qmp = TALK(FAKE_WELCOME, {FAKE_WAIT, NULL, 0}, {FAKE_SEND, EVENT("LATE"), 0}, READ_LINE);
    json_t *event = json_null();
    assert_non_null(qmp);
    assert_true(qmp_next_event(qmp, 0, &event, &err));
    assert_null(event);
    int64_t before_ms = clock_ms();
    assert_true(qmp_next_event(qmp, 50, &event, &err));
    assert_null(event);
    assert_true(clock_ms() - before_ms >= 45);
    fake_go(fake);
    assert_true(qmp_next_event(qmp, -1, &event, &err));
    assert_string_equal(qmp_event_name(event, NULL), "LATE");
    json_decref(event);
    end(qmp);
}

static void error_reply_carries_its_description(void **state)
{
    (void)state;
    struct qmp *qmp =
        TALK(FAKE_WELCOME, READ_LINE,
             {FAKE_SEND,
              "{\"error\": {\"class\": \"GenericError\", \"desc\": \"no such thing\"}, \"id\": $}\r\n", 0},
             READ_LINE, RETURN_EMPTY);
    json_t *value = json_true();
    assert_non_null(qmp);
    assert_false(qmp_execute(qmp, "fetch", NULL, -1, &value, &err));
    assert_int_equal(err.code, ERR_QEMU);
    assert_int_equal(err.sys, 0);
    assert_non_null(strstr(err.text, "fetch"));
    assert_non_null(strstr(err.text, "no such thing"));
    assert_true(json_is_true(value)); /* untouched */
    assert_true(qmp_execute(qmp, "next", NULL, -1, NULL, &err));
    end(qmp);
}

static void late_reply_is_not_taken_for_the_next(void **state)
{
    (void)state;
    struct qmp *qmp = TALK(FAKE_WELCOME, READ_LINE, {FAKE_WAIT, NULL, 0},
                           {FAKE_SEND, "{\"return\": 1, \"id\": $}\r\n", 0}, READ_LINE,
                           {FAKE_SEND, "{\"return\": 2, \"id\": $}\r\n", 0});
    json_t *value = NULL;
    assert_non_null(qmp);
    assert_false(qmp_execute_timeout(qmp, "slow", NULL, -1, 50, NULL, &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    fake_go(fake);
    assert_true(qmp_execute(qmp, "fast", NULL, -1, &value, &err));
    assert_int_equal(json_integer_value(value), 2);
    json_decref(value);
    end(qmp);
}

static void endless_events_do_not_hold_a_command(void **state)
{
    (void)state;
    struct qmp *qmp = TALK(FAKE_WELCOME, READ_LINE, {FAKE_FLOOD, NULL, 1500});
    assert_non_null(qmp);
    int64_t before_ms = clock_ms();
    assert_false(qmp_execute_timeout(qmp, "x", NULL, -1, 200, NULL, &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_in_range(clock_ms() - before_ms, 190, 1000);
    end(qmp);
}

static void a_long_line_is_read_and_an_endless_one_refused(void **state)
{
    (void)state;
    struct qmp *qmp = TALK(FAKE_WELCOME, {FAKE_SEND, "{\"event\": \"", 0}, {FAKE_FILL, NULL, 4U << 20},
                           {FAKE_SEND, "\"}\r\n", 0}, {FAKE_FILL, NULL, 17U << 20}, {FAKE_SLEEP, NULL, 10});
    json_t *event = NULL;
    assert_non_null(qmp);
    assert_true(qmp_next_event(qmp, 5000, &event, &err));
    assert_int_equal(strlen(qmp_event_name(event, NULL)), 4U << 20);
    json_decref(event);
    assert_false(qmp_next_event(qmp, 5000, &event, &err));
    assert_int_equal(err.code, ERR_PROTOCOL);
    assert_non_null(strstr(err.text, "16 MiB"));
    end(qmp);
}

static void garbage_ends_the_connection(void **state)
{
    static char deep[3000];
    (void)state;
    memset(deep, '[', sizeof(deep) - 2);
    deep[sizeof(deep) - 2] = '\n';
    const char *const lines[] = {"no json at all\r\n",      "[1, 2]\r\n", "{\"return\": \r\n", "17\n",
                                 "{\"a\": \"\xff\xfe\"}\n", deep};
    for (size_t i = 0; i < ARRAY_SIZE(lines); i++) {
        struct qmp *qmp = TALK(FAKE_WELCOME, READ_LINE, {FAKE_SEND, lines[i], 0}, READ_LINE);
        assert_non_null(qmp);
        assert_false(qmp_execute(qmp, "x", NULL, -1, NULL, &err));
        assert_int_equal(err.code, ERR_PROTOCOL);
        assert_false(qmp_execute(qmp, "y", json_pack("{s:i}", "a", 1), -1, NULL, &err));
        assert_int_equal(err.sys, EPIPE);
        end(qmp);
    }
}

static void close_in_the_middle_is_a_broken_pipe(void **state)
{
    (void)state;
    struct qmp *qmp = TALK(FAKE_WELCOME, READ_LINE, {FAKE_SEND, EVENT("SHUTDOWN") "{\"return\": {}, \"i", 0},
                           {FAKE_CLOSE, NULL, 0});
    json_t *event = NULL;
    assert_non_null(qmp);
    assert_false(qmp_execute(qmp, "x", NULL, -1, NULL, &err));
    assert_int_equal(err.code, ERR_QEMU);
    assert_int_equal(err.sys, EPIPE);
    assert_true(qmp_next_event(qmp, 0, &event, &err)); /* what it said before is still there */
    assert_string_equal(qmp_event_name(event, NULL), "SHUTDOWN");
    json_decref(event);
    assert_false(qmp_next_event(qmp, 0, &event, &err));
    assert_int_equal(err.sys, EPIPE);
    end(qmp);
}

static void command_arguments_and_descriptor_arrive(void **state)
{
    (void)state;
    struct qmp *qmp = TALK(FAKE_WELCOME, READ_LINE, RETURN_EMPTY);
    int ends[2], fd = -1;
    char *received = NULL, byte = 0;
    assert_non_null(qmp);
    assert_int_equal(pipe(ends), 0);
    assert_true(qmp_execute(qmp, "getfd", json_pack("{s:s}", "fdname", "a, \"b\"\n"), ends[1], NULL, &err));
    qmp_free(qmp);
    fake_finish(fake, &received, &fd);
    const char *line = strchr(received, '\n') + 1;
    json_t *command = json_loads(line, 0, NULL);
    assert_string_equal(json_string_value(json_object_get(command, "execute")), "getfd");
    assert_string_equal(json_string_value(json_object_get(json_object_get(command, "arguments"), "fdname")),
                        "a, \"b\"\n");
    assert_int_equal(strchr(line, '\n')[1], '\0'); /* one line */
    json_decref(command);
    assert_true(fd >= 0);
    assert_int_equal(write(fd, "q", 1), 1);
    assert_int_equal(read(ends[0], &byte, 1), 1);
    assert_int_equal(byte, 'q');
    close(fd), close(ends[0]), close(ends[1]);
    free(received);
}

static void a_monitor_that_takes_nothing_times_out(void **state)
{
    (void)state;
    struct qmp *qmp = TALK(FAKE_WELCOME, {FAKE_HOLD, NULL, 0});
    char *big = malloc(8U << 20);
    assert_non_null(qmp);
    memset(big, 'y', (8U << 20) - 1);
    big[(8U << 20) - 1] = '\0';
    assert_false(qmp_execute_timeout(qmp, "x", json_pack("{s:s}", "a", big), -1, 100, NULL, &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    free(big);
    end(qmp);
}

static void a_greeting_that_is_none_is_refused(void **state)
{
    (void)state;
    const char *const greetings[] = {
        "SSH-2.0-x\r\n", "{\"hello\": 1}\r\n", "{\"QMP\": {\"version\": {\"qemu\": {\"major\": \"7\"}}}}\n",
        "{\"QMP\": {\"version\": {\"qemu\": {\"major\": -1, \"minor\": 0, \"micro\": 0}}}}\n"};
    for (size_t i = 0; i < ARRAY_SIZE(greetings); i++) {
        assert_null(TALK({FAKE_SEND, greetings[i], 0}, READ_LINE));
        assert_int_equal(err.code, ERR_PROTOCOL);
        fake_finish(fake, NULL, NULL);
    }
}

static void a_silent_monitor_times_out(void **state)
{
    struct qmp *qmp = NULL;
    (void)state;
    fake = fake_start(scratch_path("qmp.sock"), (const struct fake_step[]){READ_LINE}, 1);
    assert_false(qmp_connect(scratch_path("qmp.sock"), -1, 60, &qmp, &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    fake_finish(fake, NULL, NULL);
}

static void a_missing_socket_times_out(void **state)
{
    struct qmp *qmp = NULL;
    (void)state;
    int64_t before_ms = clock_ms();
    assert_false(qmp_connect(scratch_path("nothing.sock"), -1, 60, &qmp, &err));
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_in_range(clock_ms() - before_ms, 55, 1000);
}

static void a_process_that_ends_ends_the_wait(void **state)
{
    struct qmp *qmp = NULL;
    (void)state;
    pid_t pid = fork();
    if (pid == 0)
        _exit(3);
    int pidfd = pidfd_open(pid, 0);
    int64_t before_ms = clock_ms();
    assert_false(qmp_connect(scratch_path("nothing.sock"), pidfd, 20000, &qmp, &err));
    assert_int_equal(err.code, ERR_QEMU);
    assert_int_equal(err.sys, EPIPE);
    assert_in_range(clock_ms() - before_ms, 0, 5000);
    close(pidfd);
    assert_int_equal(waitpid(pid, NULL, 0), pid);
}

static void a_path_too_long_for_a_socket_is_invalid(void **state)
{
    struct qmp *qmp = NULL;
    char path[200];
    (void)state;
    memset(path, 'a', sizeof(path) - 1);
    path[0] = '/';
    path[sizeof(path) - 1] = '\0';
    assert_false(qmp_connect(path, -1, 1000, &qmp, &err));
    assert_int_equal(err.code, ERR_INVALID);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(greeting_gives_the_version),
        cmocka_unit_test(what_a_monitor_tells_of_a_connection_before_goes_by),
        cmocka_unit_test(lines_in_pieces_are_put_together),
        cmocka_unit_test(events_before_a_reply_stay_in_order),
        cmocka_unit_test(put_back_events_come_first),
        cmocka_unit_test(no_event_in_the_time_is_no_error),
        cmocka_unit_test(error_reply_carries_its_description),
        cmocka_unit_test(late_reply_is_not_taken_for_the_next),
        cmocka_unit_test(endless_events_do_not_hold_a_command),
        cmocka_unit_test(a_long_line_is_read_and_an_endless_one_refused),
        cmocka_unit_test(garbage_ends_the_connection),
        cmocka_unit_test(close_in_the_middle_is_a_broken_pipe),
        cmocka_unit_test(command_arguments_and_descriptor_arrive),
        cmocka_unit_test(a_monitor_that_takes_nothing_times_out),
        cmocka_unit_test(a_greeting_that_is_none_is_refused),
        cmocka_unit_test(a_silent_monitor_times_out),
        cmocka_unit_test(a_missing_socket_times_out),
        cmocka_unit_test(a_process_that_ends_ends_the_wait),
        cmocka_unit_test(a_path_too_long_for_a_socket_is_invalid),
    };
    return cmocka_run_group_tests_name("qmp", tests, scratch_make, scratch_remove);
}
