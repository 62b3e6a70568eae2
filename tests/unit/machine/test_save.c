/* What a save does with news that a real QEMU gives only now and then, told by a monitor that follows a
 * script. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "buf.h"
#include "fake_monitor.h"
#include "save_private.h"
#include "scratch.h"

#include <fcntl.h>
#include <string.h>

#define READ_LINE                                                                                            \
    {                                                                                                        \
        FAKE_READ, NULL, 0                                                                                   \
    }
#define ANSWER(value)                                                                                        \
    READ_LINE,                                                                                               \
    {                                                                                                        \
        FAKE_SEND, "{\"return\": " value ", \"id\": $}\r\n", 0                                               \
    }
#define REFUSE(why)                                                                                          \
    READ_LINE,                                                                                               \
    {                                                                                                        \
        FAKE_SEND, "{\"error\": {\"class\": \"GenericError\", \"desc\": \"" why "\"}, \"id\": $}\r\n", 0     \
    }
#define STATUS(state) ANSWER("{\"status\": \"" state "\", \"running\": false}")
#define EVENT_AT(name, data, at)                                                                             \
    {                                                                                                        \
        FAKE_SEND,                                                                                           \
            "{\"event\": \"" name "\", \"data\": {" data                                                     \
            "}, \"timestamp\": {\"seconds\": 5, \"microseconds\": " at "}}\r\n",                             \
            0                                                                                                \
    }
#define EVENT(name, data) EVENT_AT(name, data, "100")
#define MIGRATION(status) EVENT("MIGRATION", "\"status\": \"" status "\"")
#define PASS              EVENT("MIGRATION_PASS", "\"pass\": 1")
/* From the greeting until `migrate` is accepted, for a guest in that state. */
#define BEGUN(state)                                                                                         \
    FAKE_WELCOME, STATUS(state),                                                                             \
        ANSWER("[{\"capability\": \"events\", \"state\": false}, {\"capability\": \"xbzrle\", \"state\": "   \
               "true}]"),                                                                                    \
        ANSWER("{}"), ANSWER("{}"), ANSWER("{}"), ANSWER("{}"), MIGRATION("setup"), MIGRATION("active")
#define WHY(reason) ANSWER("{\"status\": \"failed\", \"error-desc\": \"" reason "\"}")
/* The answer to a command, with an event before it. */
#define ANSWER_BEHIND(event)                                                                                 \
    READ_LINE, event,                                                                                        \
    {                                                                                                        \
        FAKE_SEND, "{\"return\": {}, \"id\": $}\r\n", 0                                                      \
    }
/* The same with TCG for a guest that runs, until the bitmap has been read. */
#define HELD                                                                                                 \
    STATUS("running"), ANSWER("[]"), ANSWER("{}"), ANSWER("{}"), ANSWER("{}"),                               \
        ANSWER_BEHIND(EVENT_AT("STOP", "", "1000")), STATUS("paused"), ANSWER("{}"), MIGRATION("setup"),     \
        PASS, MIGRATION("active")
#define FINISHED ANSWER("{}"), MIGRATION("device"), MIGRATION("completed")

static enum config_accel accel = ACCEL_KVM; /* of the next save */
static bool may_restart, point_now, maps_file, reader_fails;
static int full_pipe[2];                        /* where the stream of a paced save goes; else [1] is 0 */
static uint64_t paces[32], stops;               /* what the reader was told, and how often of a stop */
static unsigned pace_count;
static int timeout_ms = QMP_TIMEOUT_MS; /* likewise, of its monitor */
static unsigned instants, restarts;
static struct err err;
static struct machine_save_result result;
static char *received;
static json_t *events; /* what was left for others */

static void at_instant(void *context)
{
    (void)context;
    instants++;
}

static bool restart(void *context, int *ret_stream_fd, struct err *ret_err)
{
    (void)context, (void)ret_err;
    restarts++;
    *ret_stream_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    return true;
}

/* From the instant on. */
static bool reader_failed(void *context, struct err *ret_err)
{
    (void)context;
    return instants > 0 && !err_set(ret_err, ERR_NO_SPACE, "full");
}

static void pace(void *context, uint64_t bytes)
{
    (void)context;
    assert_true(pace_count < ARRAY_SIZE(paces));
    paces[pace_count++] = bytes;
}

static uint64_t paced(void *context, int wait_ms)
{
    (void)context, (void)wait_ms;
    return 0;
}

static void before_stop(void *context)
{
    (void)context;
    stops++;
}

/* The next save is one whose reader can be paced, of a QEMU that has filled the pipe. */
static void pace_next(void)
{
    static const char bytes[4096];
    assert_int_equal(pipe2(full_pipe, O_CLOEXEC | O_NONBLOCK), 0);
    assert_int_equal(fcntl(full_pipe[1], F_SETPIPE_SZ, SAVE_PACED_PIPE_BYTES), SAVE_PACED_PIPE_BYTES);
    while (write(full_pipe[1], bytes, sizeof(bytes)) > 0)
        continue;
    accel = ACCEL_TCG;
}

/* Of a QEMU that can be paced. */
#define WELCOME_10                                                                                           \
    {FAKE_SEND,                                                                                              \
     "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 2, \"minor\": 0, \"major\": 10}, \"package\": \"x\"}, "      \
     "\"capabilities\": []}}\r\n", 0}, {FAKE_READ, NULL, 0},                                                 \
    {                                                                                                        \
        FAKE_SEND, "{\"return\": {}, \"id\": $}\r\n", 0                                                      \
    }

/* Saves by that script. */
static bool save(const struct fake_step *steps, size_t count)
{
    struct machine machine = {.pidfd = -1, .dir = scratch, .accel = accel, .maps_file = maps_file};
    struct fake *fake = fake_start(scratch_path("qmp.sock"), steps, count);
    struct machine_save options = {.stream_fd = open("/dev/null", O_WRONLY | O_CLOEXEC),
                                   .at_instant = at_instant,
                                   .point_now = point_now,
                                   .failed = reader_fails ? reader_failed : NULL,
                                   .restart = may_restart ? restart : NULL};
    json_t *event = NULL;
    bool is_paced = full_pipe[1] != 0;
    if (is_paced) {
        close(options.stream_fd);
        options.stream_fd = TAKE_FD(full_pipe[1]);
        options.pace = pace, options.paced = paced, options.before_stop = before_stop;
    }
    instants = restarts = pace_count = 0;
    stops = 0;
    err = ERR_INIT;
    if (!qmp_connect(scratch_path("qmp.sock"), -1, 3000, &machine.qmp, &err))
        fail_msg("%s", err.text);
    qmp_set_timeout(machine.qmp, timeout_ms);
    bool ok = machine_save(&machine, &options, &result, &err);
    assert_int_equal(qmp_set_timeout(machine.qmp, QMP_TIMEOUT_MS), timeout_ms);
    if (is_paced)
        close(full_pipe[0]);
    full_pipe[1] = 0;
    accel = ACCEL_KVM;
    point_now = maps_file = reader_fails = false;
    timeout_ms = QMP_TIMEOUT_MS;
    json_decref(events);
    events = json_array();
    struct err ignored;
    while (qmp_next_event(machine.qmp, 0, &event, &ignored) && event)
        json_array_append_new(events, event);
    qmp_free(machine.qmp);
    free(received);
    fake_finish(fake, &received, NULL);
    return ok;
}
#define SAVE(...)                                                                                            \
    save((const struct fake_step[]){__VA_ARGS__}, ARRAY_SIZE(((const struct fake_step[]){__VA_ARGS__})))

static unsigned times_sent(const char *command)
{
    AUTO_FREE char *text = string_printf("\"execute\":\"%s\"", command);
    unsigned count = 0;
    for (const char *at = received; (at = strstr(at, text)); at++)
        count++;
    return count;
}

static const char *left_event(size_t index)
{
    return qmp_event_name(json_array_get(events, index), NULL);
}

static void the_pause_is_from_stop_to_resume(void **state)
{
    (void)state;
    assert_true(SAVE(BEGUN("running"), PASS, PASS, EVENT_AT("STOP", "", "1000"), MIGRATION("pre-switchover"),
                     FINISHED, READ_LINE, EVENT_AT("RESUME", "", "5500"),
                     {FAKE_SEND, "{\"return\": {}, \"id\": $}\r\n", 0}, READ_LINE));
    assert_int_equal(result.pause_us, 4500);
    assert_int_equal(result.passes, 2);
    assert_int_equal(instants, 1);
    assert_int_equal(json_array_size(events), 0);
    assert_non_null(strstr(received, "{\"capability\":\"events\",\"state\":true}"));
    assert_non_null(strstr(received, "{\"capability\":\"xbzrle\",\"state\":false}"));
}

static void a_guest_that_stopped_for_an_io_error_stays_so(void **state)
{
    (void)state;
    assert_true(SAVE(BEGUN("running"), EVENT("BLOCK_IO_ERROR", "\"action\": \"stop\", \"nospace\": true"),
                     EVENT("STOP", ""), STATUS("io-error"), MIGRATION("pre-switchover"), FINISHED,
                     READ_LINE));
    assert_int_equal(times_sent("cont"), 0);
    assert_int_equal(result.pause_us, 0);
    assert_int_equal(json_array_size(events), 2);
    assert_string_equal(left_event(0), "BLOCK_IO_ERROR");
    assert_string_equal(left_event(1), "STOP");
}

static void a_guest_whose_own_stop_has_no_reason_stays_so(void **state)
{
    (void)state;
    assert_true(SAVE(BEGUN("running"), EVENT("STOP", ""), STATUS("shutdown"), MIGRATION("pre-switchover"),
                     FINISHED, READ_LINE));
    assert_int_equal(times_sent("cont"), 0);
}

static void an_error_that_the_guest_handles_stops_nothing(void **state)
{
    (void)state;
    assert_true(SAVE(BEGUN("running"), EVENT("BLOCK_IO_ERROR", "\"action\": \"report\""), EVENT("STOP", ""),
                     MIGRATION("pre-switchover"), FINISHED, ANSWER("{}"), READ_LINE));
    assert_int_equal(times_sent("cont"), 1);
    assert_int_equal(json_array_size(events), 1);
    assert_string_equal(left_event(0), "BLOCK_IO_ERROR");
}

static void a_failed_save_does_not_wake_a_guest_that_stopped_itself(void **state)
{
    (void)state;
    assert_false(SAVE(BEGUN("running"), EVENT("GUEST_PANICKED", "\"action\": \"pause\""), EVENT("STOP", ""),
                      MIGRATION("failed"), WHY("x"), ANSWER("{}"), ANSWER("{\"status\": \"failed\"}"),
                      STATUS("guest-panicked"), READ_LINE));
    assert_int_equal(times_sent("cont"), 0);
    assert_int_equal(instants, 0);
}

static void continuing_waits_until_qemu_is_ready(void **state)
{
    (void)state;
    assert_true(SAVE(BEGUN("running"), EVENT("STOP", ""), MIGRATION("pre-switchover"), FINISHED,
                     REFUSE("Migration is not finalized yet"), STATUS("finish-migrate"),
                     REFUSE("Migration is not finalized yet"), STATUS("finish-migrate"), ANSWER("{}"),
                     READ_LINE));
    assert_int_equal(times_sent("cont"), 3);
}

static void a_failure_that_left_it_paused_is_set_right(void **state)
{
    (void)state;
    assert_false(SAVE(BEGUN("running"), EVENT("STOP", ""), MIGRATION("pre-switchover"), ANSWER("{}"),
                      MIGRATION("failed"), WHY("the pipe is broken"), ANSWER("{}"),
                      ANSWER("{\"status\": \"cancelling\"}"), REFUSE("not in that state"),
                      ANSWER("{\"status\": \"failed\"}"), STATUS("postmigrate"), ANSWER("{}"), READ_LINE));
    assert_int_equal(err.code, ERR_QEMU);
    assert_string_equal(err.text, "QEMU could not save the VM: the pipe is broken");
    assert_int_equal(times_sent("migrate_cancel"), 1);
    assert_int_equal(times_sent("cont"), 1);
    assert_int_equal(instants, 1);
}

/* QEMU answers nothing while it flushes its disks. */
#define SLOWLY(value)                                                                                        \
    READ_LINE, {FAKE_SLEEP, NULL, 60},                                                                       \
    {                                                                                                        \
        FAKE_SEND, "{\"return\": " value ", \"id\": $}\r\n", 0                                               \
    }

static void a_save_waits_for_a_monitor_as_long_as_it_needs(void **state)
{
    (void)state;
    timeout_ms = 20;
    assert_true(SAVE(BEGUN("running"), EVENT("STOP", ""), MIGRATION("pre-switchover"), SLOWLY("{}"),
                     MIGRATION("completed"), SLOWLY("{}"), READ_LINE));
    assert_int_equal(times_sent("cont"), 1);
}

static void a_failed_save_leaves_no_guest_standing_however_slow_its_monitor_is(void **state)
{
    (void)state;
    timeout_ms = 20;
    assert_false(SAVE(BEGUN("running"), EVENT("STOP", ""), MIGRATION("pre-switchover"), ANSWER("{}"),
                      MIGRATION("failed"), SLOWLY("{\"status\": \"failed\"}"), SLOWLY("{}"),
                      SLOWLY("{\"status\": \"failed\"}"), SLOWLY("{\"status\": \"paused\"}"), SLOWLY("{}"),
                      READ_LINE));
    assert_int_equal(times_sent("cont"), 1);
}

static void a_guest_goes_on_also_where_a_save_cannot_be_cancelled(void **state)
{
    (void)state;
    assert_false(SAVE(BEGUN("running"), EVENT("STOP", ""), MIGRATION("failed"), WHY("x"), REFUSE("no way back"),
                      STATUS("paused"), ANSWER("{}"), READ_LINE));
    assert_non_null(strstr(err.text, "no way back"));
    assert_int_equal(times_sent("cont"), 1);
}

static void a_failure_on_the_way_back_is_told_too(void **state)
{
    (void)state;
    assert_false(SAVE(BEGUN("running"), MIGRATION("failed"), ANSWER("{\"status\": \"failed\"}"),
                      REFUSE("no way back"), READ_LINE));
    assert_non_null(strstr(err.text, "could not save"));
    assert_non_null(strstr(err.text, "no way back"));
}

static void news_of_an_earlier_save_is_not_taken_for_this_one(void **state)
{
    (void)state;
    assert_true(SAVE({FAKE_SEND, FAKE_GREETING, 0}, READ_LINE,
                     {FAKE_SEND,
                      "{\"event\": \"MIGRATION\", \"data\": {\"status\": \"cancelled\"}}\r\n"
                      "{\"event\": \"BLOCK_IO_ERROR\", \"data\": {\"action\": \"stop\"}}\r\n{\"return\": {}, "
                      "\"id\": $}\r\n",
                      0},
                     STATUS("running"), ANSWER("[]"), ANSWER("{}"), ANSWER("{}"), ANSWER("{}"), ANSWER("{}"),
                     EVENT("STOP", ""), MIGRATION("pre-switchover"), FINISHED, ANSWER("{}"), READ_LINE));
    assert_int_equal(times_sent("cont"), 1);
    assert_int_equal(json_array_size(events), 1);
}

/* Each pass that does not bring the end allows a longer pause, and in the end any. */
static void copying_without_end_is_ended_by_a_longer_pause(void **state)
{
#define PASS_AND_LOOK                                                                                        \
    PASS,                                                                                                    \
    {                                                                                                        \
        FAKE_SLEEP, NULL, 30                                                                                 \
    }
#define LONGER PASS, ANSWER("{}"), PASS_AND_LOOK
    static const char *const milliseconds[] = {"3", "10", "40", "160", "640", "2000000"};
    (void)state;
    assert_true(SAVE(BEGUN("running"), PASS_AND_LOOK, PASS_AND_LOOK, PASS_AND_LOOK, PASS_AND_LOOK, LONGER,
                     LONGER, LONGER, LONGER, PASS, ANSWER("{}"), EVENT("STOP", ""),
                     MIGRATION("pre-switchover"), FINISHED, ANSWER("{}"), READ_LINE));
    assert_int_equal(times_sent("migrate-set-parameters"), ARRAY_SIZE(milliseconds));
    const char *at = received;
    for (size_t i = 0; i < ARRAY_SIZE(milliseconds); i++) {
        AUTO_FREE char *text = string_printf("\"downtime-limit\":%s}", milliseconds[i]);
        at = strstr(at, text);
        assert_non_null(at);
    }
    assert_int_equal(result.passes, 13);
}

static void with_tcg_the_bitmap_is_read_only_while_the_guest_stands(void **state)
{
    (void)state;
    accel = ACCEL_TCG;
    assert_true(SAVE(FAKE_WELCOME, HELD, ANSWER_BEHIND(EVENT_AT("RESUME", "", "4000")),
                     EVENT_AT("STOP", "", "9000"), MIGRATION("pre-switchover"), PASS, FINISHED,
                     ANSWER_BEHIND(EVENT_AT("RESUME", "", "9500")), READ_LINE));
    assert_int_equal(result.pause_us, 3000); /* the longer one */
    assert_int_equal(result.pauses, 2);
    assert_int_equal(result.paused_us, 3500);
    assert_int_equal(instants, 1);
    assert_int_equal(json_array_size(events), 0);
    assert_true(strstr(received, "\"stop\"") < strstr(received, "\"migrate\""));
    assert_true(strstr(received, "\"migrate\"") < strstr(received, "\"cont\""));
    assert_non_null(strstr(received, "\"downtime-limit\":0}"));
}

/* All was copied before `cont` came. */
static void with_tcg_a_small_guest_may_have_one_pause(void **state)
{
    (void)state;
    accel = ACCEL_TCG;
    assert_true(SAVE(FAKE_WELCOME, HELD, REFUSE("Migration is not finalized yet"), STATUS("finish-migrate"),
                     MIGRATION("pre-switchover"), PASS, FINISHED,
                     ANSWER_BEHIND(EVENT_AT("RESUME", "", "4000")), READ_LINE));
    assert_int_equal(result.pause_us, 3000);
    assert_int_equal(instants, 1);
}

static void with_tcg_a_guest_stays_held_if_the_setup_reads_nothing(void **state)
{
    (void)state;
    accel = ACCEL_TCG;
    assert_true(SAVE(FAKE_WELCOME, STATUS("running"), ANSWER("[]"), ANSWER("{}"), ANSWER("{}"), ANSWER("{}"),
                     ANSWER_BEHIND(EVENT("STOP", "")), STATUS("paused"), ANSWER("{}"), MIGRATION("active"),
                     PASS, MIGRATION("pre-switchover"), FINISHED, ANSWER("{}"), READ_LINE));
    assert_int_equal(times_sent("cont"), 1);
}

#define READ_WHILE_IT_RUNS                                                                                   \
    HELD, ANSWER_BEHIND(EVENT("RESUME", "")), PASS, EVENT("STOP", ""), MIGRATION("pre-switchover"),          \
        ANSWER("{}"), ANSWER("{\"status\": \"cancelled\"}"), STATUS("paused"),                               \
        ANSWER_BEHIND(EVENT("RESUME", ""))

static void with_tcg_a_bitmap_read_while_the_guest_runs_fails_the_save(void **state)
{
    (void)state;
    accel = ACCEL_TCG;
    may_restart = false;
    assert_false(SAVE(FAKE_WELCOME, READ_WHILE_IT_RUNS, READ_LINE));
    assert_int_equal(err.code, ERR_QEMU);
    assert_int_equal(instants, 0);
    assert_int_equal(times_sent("cont"), 2);
    assert_int_equal(json_array_size(events), 0);
}

static void with_tcg_such_a_save_is_done_again_with_the_guest_standing(void **state)
{
    (void)state;
    accel = ACCEL_TCG;
    may_restart = true;
    assert_true(SAVE(FAKE_WELCOME, READ_WHILE_IT_RUNS, HELD, PASS, PASS, MIGRATION("pre-switchover"),
                     FINISHED, ANSWER_BEHIND(EVENT_AT("RESUME", "", "1500")), READ_LINE));
    assert_int_equal(restarts, 1);
    assert_int_equal(instants, 1);
    assert_int_equal(times_sent("migrate"), 2);
    assert_int_equal(times_sent("cont"), 3);
    assert_int_equal(json_array_size(events), 0);
}

static void with_tcg_a_guest_that_has_stopped_itself_is_not_set_running(void **state)
{
    (void)state;
    accel = ACCEL_TCG;
    assert_true(SAVE(FAKE_WELCOME, STATUS("running"), ANSWER("[]"), ANSWER("{}"), ANSWER("{}"), ANSWER("{}"),
                     ANSWER_BEHIND(EVENT("STOP", "")), STATUS("io-error"), ANSWER("{}"), PASS,
                     MIGRATION("active"), MIGRATION("pre-switchover"), FINISHED, READ_LINE));
    assert_int_equal(times_sent("cont"), 0);
    assert_int_equal(json_array_size(events), 1);
    assert_string_equal(left_event(0), "STOP");
}

/* Of the three STOPs and RESUMEs only the guest's own is for others. */
static void with_tcg_only_the_guests_own_stop_is_left(void **state)
{
    (void)state;
    accel = ACCEL_TCG;
    assert_true(SAVE(FAKE_WELCOME, HELD, ANSWER_BEHIND(EVENT("RESUME", "")),
                     EVENT("GUEST_PANICKED", "\"action\": \"pause\""), EVENT("STOP", ""),
                     STATUS("guest-panicked"), MIGRATION("pre-switchover"), PASS, FINISHED, READ_LINE));
    assert_int_equal(times_sent("cont"), 1);
    assert_int_equal(json_array_size(events), 2);
    assert_string_equal(left_event(0), "GUEST_PANICKED");
    assert_string_equal(left_event(1), "STOP");
}

/* --- several passes, each of which ends while the guest stands --- */

#define LEFT_VALUE(pages) "{\"status\": \"active\", \"ram\": {\"mbps\": 100, \"remaining\": " pages "000}}"
#define LEFT(pages)       ANSWER(LEFT_VALUE(pages))
/* What comes before the answer has not come before the question. */
#define LEFT_MUCH_BEHIND(...)                                                                                \
    READ_LINE, __VA_ARGS__,                                                                                  \
    {                                                                                                        \
        FAKE_SEND, "{\"return\": " LEFT_VALUE("40960") ", \"id\": $}\r\n", 0                                 \
    }
#define LEFT_MUCH   LEFT("40960") /* 10000 pages */
#define LEFT_SOME   LEFT("4096") /* 1000 */
#define LEFT_LITTLE LEFT("409") /* 99 */
#define RUNS_ON     ANSWER_BEHIND(EVENT_AT("RESUME", "", "2000"))
#define STOPPED     ANSWER_BEHIND(EVENT_AT("STOP", "", "3000")), STATUS("paused")
#define LAST        MIGRATION("pre-switchover"), PASS, FINISHED, ANSWER_BEHIND(EVENT_AT("RESUME", "", "9000")), READ_LINE

static void with_tcg_a_paced_reader_lets_each_pass_end_while_the_guest_stands(void **state)
{
    (void)state;
    pace_next();
    assert_true(SAVE(WELCOME_10, HELD, LEFT_MUCH, RUNS_ON, LEFT_MUCH, LEFT_LITTLE, STOPPED, PASS, LEFT_SOME,
                     ANSWER_BEHIND(EVENT_AT("RESUME", "", "3500")), LEFT_SOME, LEFT_LITTLE, STOPPED, PASS, LEFT_LITTLE, LAST));
    assert_non_null(strstr(received, "\"downtime-limit\":1,\"avail-switchover-bandwidth\":"));
    assert_int_equal(stops, 2);
    assert_int_equal(result.pauses, 3);
    assert_int_equal(result.pause_us, 6000);
    assert_int_equal(result.paused_us, 7500);
    assert_int_equal(result.passes, 4);
    assert_false(result.too_fast);
    assert_int_equal(instants, 1);
    assert_int_equal(json_array_size(events), 0);
    /* Nothing until it is known how much there is, and when the guest goes on; all in the end. */
    assert_int_equal(pace_count, 8);
    assert_true(paces[0] == 0 && paces[1] == 0 && paces[4] == 0 && paces[7] == UINT64_MAX);
    assert_in_range(paces[2], 4096, 9 * (10000 - 64) * 2); /* the pages of the first pass may all be zeros */
    assert_in_range(paces[3], 99 * 4104, 99 * 4112 + (2 << 20));
}

/* Before 9.0 TCG must be made to forget what it may write to, each time before the guest goes on. */
#define PORT(value) ANSWER("\"portl[0x0cf8] = " value "\\r\\n\"")
#define WRITTEN     ANSWER("\"\"")
#define FORGETS(id, turned) PORT("0x80000810"), WRITTEN, PORT(id), WRITTEN, PORT("0x10"), WRITTEN, PORT(turned), WRITTEN, WRITTEN

static void expect_lines(const char *const *lines, size_t count)
{
    const char *at = received;
    for (size_t i = 0; i < count; i++) {
        AUTO_FREE char *text = string_printf("\"command-line\":\"%s\"", lines[i]);
        at = strstr(at, text);
        assert_non_null(at);
        at++;
    }
    assert_int_equal(times_sent("human-monitor-command"), count);
}

static void with_tcg_an_old_qemu_is_made_to_forget_before_the_next_pass(void **state)
{
    static const char *const lines[] = {"i /xw 0xcf8", "o /w 0xcf8 0x80000000", "i /xw 0xcfc", "o /w 0xcf8 0x80000058",
                                        "i /xb 0xcfe", "o /b 0xcfe 0x11", "i /xb 0xcfe", "o /b 0xcfe 0x10",
                                        "o /w 0xcf8 0x80000810"};
    (void)state;
    pace_next();
    assert_true(SAVE(FAKE_WELCOME, HELD, LEFT_MUCH, RUNS_ON, LEFT_MUCH, LEFT_LITTLE, STOPPED, PASS, LEFT_SOME,
                     FORGETS("0x12378086", "0x11"), ANSWER_BEHIND(EVENT_AT("RESUME", "", "3500")), LEFT_SOME, LEFT_LITTLE,
                     STOPPED, PASS, LEFT_LITTLE, LAST));
    assert_null(strstr(received, "avail-switchover-bandwidth"));
    assert_int_equal(result.pauses, 3);
    expect_lines(lines, ARRAY_SIZE(lines));
}

/* Then the guest must not go on behind a reading, and what is left is copied while it stands. */
static void with_tcg_an_old_qemu_that_does_not_forget_ends_with_a_longer_pause(void **state)
{
    static const char *const unknown[] = {"i /xw 0xcf8", "o /w 0xcf8 0x80000000", "i /xw 0xcfc", "o /w 0xcf8 0x80000810"};
    (void)state;
    pace_next();
    assert_true(SAVE(FAKE_WELCOME, HELD, LEFT_MUCH, RUNS_ON, LEFT_MUCH, LEFT_LITTLE, STOPPED, PASS, LEFT_SOME,
                     PORT("0x80000810"), WRITTEN, PORT("0x12345678"), WRITTEN, LAST));
    assert_int_equal(result.pauses, 2);
    expect_lines(unknown, ARRAY_SIZE(unknown));
    pace_next();
    assert_true(SAVE(FAKE_WELCOME, HELD, LEFT_MUCH, RUNS_ON, LEFT_MUCH, LEFT_LITTLE, STOPPED, PASS, LEFT_SOME,
                     FORGETS("0x29c08086", "0x10"), LAST));
    assert_int_equal(result.pauses, 2);
    assert_int_equal(times_sent("human-monitor-command"), 9);
    pace_next();
    assert_true(SAVE(FAKE_WELCOME, HELD, LEFT_MUCH, RUNS_ON, LEFT_MUCH, LEFT_LITTLE, STOPPED, PASS, LEFT_SOME,
                     ANSWER("\"unknown command: 'i'\\r\\n\""), LAST));
    assert_int_equal(result.pauses, 2);
}

static void with_tcg_a_bitmap_read_early_in_a_paced_save_costs_the_passes_not_the_guest(void **state)
{
    (void)state;
    pace_next();
    may_restart = true;
    assert_true(SAVE(WELCOME_10, HELD, LEFT_MUCH, RUNS_ON, LEFT_MUCH_BEHIND(PASS), ANSWER("{}"),
                     ANSWER("{\"status\": \"cancelled\"}"), STATUS("running"), HELD, RUNS_ON,
                     EVENT_AT("STOP", "", "3000"), LAST));
    assert_int_equal(restarts, 1);
    assert_int_equal(instants, 1);
    assert_int_equal(times_sent("cont"), 3);
    const char *first = strstr(received, "\"downtime-limit\":1,");
    assert_non_null(first);
    assert_non_null(strstr(first, "\"downtime-limit\":0}"));
}

static void with_tcg_a_guest_that_stops_itself_in_a_paced_save_stays_so(void **state)
{
    (void)state;
    pace_next();
    assert_true(SAVE(WELCOME_10, HELD, LEFT_MUCH, RUNS_ON,
                     LEFT_MUCH_BEHIND(EVENT("BLOCK_IO_ERROR", "\"action\": \"stop\""), EVENT_AT("STOP", "", "3000")), STATUS("io-error"), MIGRATION("pre-switchover"), PASS, FINISHED,
                     READ_LINE));
    assert_int_equal(times_sent("stop"), 1);
    assert_int_equal(times_sent("cont"), 1);
    assert_int_equal(stops, 0);
    assert_true(paces[pace_count - 1] == UINT64_MAX);
}

/* Passes that do not become shorter end in a longer pause, and that is told. */
static void with_tcg_a_guest_that_is_faster_than_its_copy_is_copied_standing(void **state)
{
#define NO_SHORTER RUNS_ON, LEFT_MUCH, LEFT_LITTLE, STOPPED, PASS, LEFT_MUCH
    (void)state;
    pace_next();
    assert_true(SAVE(WELCOME_10, HELD, LEFT_MUCH, NO_SHORTER, NO_SHORTER, NO_SHORTER, NO_SHORTER, LAST));
    assert_true(result.too_fast);
    assert_int_equal(result.pauses, 5);
}

static void a_failed_paced_save_lets_qemu_write(void **state)
{
    (void)state;
    pace_next();
    assert_false(SAVE(WELCOME_10, HELD, LEFT_MUCH, RUNS_ON, LEFT_MUCH_BEHIND(MIGRATION("failed")), WHY("x"), ANSWER("{}"),
                      ANSWER("{\"status\": \"failed\"}"), STATUS("running"), READ_LINE));
    assert_true(paces[pace_count - 1] == UINT64_MAX);
    assert_int_equal(instants, 0);
}

/* --- the memory of the moment of the request --- */

#define CAN_BACKGROUND                                                                                       \
    ANSWER("[{\"capability\": \"background-snapshot\", \"state\": false}]"),                                 \
        ANSWER("[{\"capability\": \"background-snapshot\", \"state\": false}]"), ANSWER("{}")
/* Until `migrate` is accepted. */
#define BACKGROUND_BEGUN                                                                                     \
    FAKE_WELCOME, STATUS("running"), CAN_BACKGROUND, ANSWER("{}"), ANSWER("{}"),                             \
        ANSWER_BEHIND(EVENT_AT("STOP", "", "1000")), STATUS("paused"), ANSWER("{}"), MIGRATION("active")
#define COPIED ANSWER("{\"status\": \"active\", \"ram\": {\"normal\": 1, \"duplicate\": 0}}")

static void a_qemu_that_goes_on_by_itself_is_not_continued(void **state)
{
    (void)state;
    point_now = true;
    assert_true(SAVE(BACKGROUND_BEGUN, ANSWER_BEHIND(EVENT_AT("RESUME", "", "3500")), MIGRATION("completed"), READ_LINE));
    assert_true(result.background);
    assert_int_equal(result.pause_us, 2500);
    assert_int_equal(instants, 1);
    assert_int_equal(times_sent("cont"), 0);
    assert_int_equal(json_array_size(events), 0);
    assert_true(strstr(received, "\"stop\"") < strstr(received, "\"migrate\""));
    assert_non_null(strstr(received, "{\"capability\":\"background-snapshot\",\"state\":true}"));
}

/* Not before a page was copied: that shows that all are protected. */
static void a_qemu_that_stays_paused_is_continued_when_memory_is_protected(void **state)
{
    (void)state;
    point_now = true;
    assert_true(SAVE(BACKGROUND_BEGUN, ANSWER("{\"status\": \"active\"}"),
                     ANSWER("{\"status\": \"active\", \"ram\": {\"normal\": 0, \"duplicate\": 0}}"), COPIED,
                     ANSWER_BEHIND(EVENT_AT("RESUME", "", "4000")), MIGRATION("completed"), READ_LINE));
    assert_int_equal(times_sent("query-migrate"), 3);
    assert_int_equal(times_sent("cont"), 1);
    assert_int_equal(result.pause_us, 3000);
}

static void a_guest_that_stops_during_a_background_save_stays_so(void **state)
{
    (void)state;
    point_now = true;
    assert_true(SAVE(BACKGROUND_BEGUN, COPIED, ANSWER_BEHIND(EVENT_AT("RESUME", "", "4000")),
                     EVENT("BLOCK_IO_ERROR", "\"action\": \"stop\""), EVENT("STOP", ""), MIGRATION("completed"),
                     READ_LINE));
    assert_int_equal(times_sent("cont"), 1);
    assert_int_equal(result.pause_us, 3000);
    assert_int_equal(json_array_size(events), 2);
    assert_string_equal(left_event(0), "BLOCK_IO_ERROR");
    assert_string_equal(left_event(1), "STOP");
}

static void a_background_save_that_fails_leaves_the_guest_running(void **state)
{
    (void)state;
    point_now = true;
    assert_false(SAVE(BACKGROUND_BEGUN, ANSWER_BEHIND(MIGRATION("failed")), WHY("no protection"), ANSWER("{}"),
                      ANSWER("{\"status\": \"failed\"}"), STATUS("paused"), ANSWER_BEHIND(EVENT("RESUME", "")),
                      READ_LINE));
    assert_string_equal(err.text, "QEMU could not save the VM: no protection");
    assert_int_equal(instants, 1);
    assert_int_equal(times_sent("cont"), 1);
    assert_int_equal(json_array_size(events), 0);
}

/* This QEMU would leave memory protected, and the guest hanging. */
static void a_background_save_of_an_old_qemu_that_is_given_up_comes_to_its_end_first(void **state)
{
    (void)state;
    point_now = reader_fails = true;
    assert_false(SAVE(BACKGROUND_BEGUN, ANSWER_BEHIND(EVENT_AT("RESUME", "", "3500")), {FAKE_SLEEP, NULL, 60},
                      MIGRATION("completed"), READ_LINE));
    assert_int_equal(err.code, ERR_NO_SPACE);
    assert_string_equal(err.text, "full");
    assert_int_equal(times_sent("migrate_cancel"), 0);
    assert_int_equal(times_sent("cont"), 0);
    assert_int_equal(json_array_size(events), 0);
}

static void a_background_save_of_a_later_qemu_is_cancelled(void **state)
{
    (void)state;
    point_now = reader_fails = true;
    assert_false(SAVE({FAKE_SEND,
                       "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 1, \"major\": 8}, \"package\": \"x\"}, "
                       "\"capabilities\": []}}\r\n",
                       0},
                      ANSWER("{}"), STATUS("running"), CAN_BACKGROUND, ANSWER("{}"), ANSWER("{}"),
                      ANSWER_BEHIND(EVENT("STOP", "")), STATUS("paused"), ANSWER("{}"), MIGRATION("active"), COPIED,
                      ANSWER_BEHIND(EVENT("RESUME", "")), ANSWER("{}"), ANSWER("{\"status\": \"cancelled\"}"),
                      STATUS("running"), READ_LINE));
    assert_int_equal(err.code, ERR_NO_SPACE);
    assert_int_equal(times_sent("migrate_cancel"), 1);
}

static void a_guest_that_stopped_itself_just_before_is_not_set_running_by_a_background_save(void **state)
{
    (void)state;
    point_now = true;
    assert_false(SAVE(FAKE_WELCOME, STATUS("running"), CAN_BACKGROUND, ANSWER("{}"), ANSWER("{}"),
                      ANSWER_BEHIND(EVENT("STOP", "")), STATUS("io-error"), ANSWER("{}"), ANSWER("{}"),
                      ANSWER("{\"status\": \"none\"}"), STATUS("io-error"), READ_LINE));
    assert_int_equal(err.code, ERR_STATE);
    assert_int_equal(instants, 0);
    assert_int_equal(times_sent("migrate"), 0);
    assert_int_equal(times_sent("cont"), 0);
}

static void a_guest_that_stands_is_saved_the_ordinary_way_whatever_point_is_asked_for(void **state)
{
    (void)state;
    point_now = true;
    assert_true(SAVE(FAKE_WELCOME, STATUS("paused"), STATUS("paused"), ANSWER("[]"), ANSWER("{}"), ANSWER("{}"),
                     ANSWER("{}"), ANSWER("{}"), MIGRATION("active"), MIGRATION("pre-switchover"), FINISHED, READ_LINE));
    assert_false(result.background);
    assert_int_equal(times_sent("cont"), 0);
}

static void what_cannot_be_saved_in_the_background_is_not_touched(void **state)
{
    (void)state;
    point_now = maps_file = true;
    assert_false(SAVE(FAKE_WELCOME, STATUS("running"), READ_LINE));
    assert_int_equal(err.code, ERR_STATE);
    point_now = true;
    assert_false(SAVE(FAKE_WELCOME, STATUS("running"), ANSWER("[{\"capability\": \"events\"}]"), READ_LINE));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    point_now = true;
    assert_false(SAVE(FAKE_WELCOME, STATUS("running"), ANSWER("[{\"capability\": \"background-snapshot\"}]"),
                      ANSWER("[]"), REFUSE("not compatible with guest memory"), READ_LINE));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_int_equal(times_sent("stop"), 0);
    assert_int_equal(instants, 0);
}

static void a_monitor_that_breaks_is_an_error(void **state)
{
    (void)state;
    assert_false(SAVE(BEGUN("running"), PASS, {FAKE_SEND, "rubbish\r\n", 0}, READ_LINE));
    assert_int_equal(err.code, ERR_PROTOCOL);
}

static void a_guest_that_sleeps_is_not_saved_by_an_old_qemu(void **state)
{
    (void)state;
    assert_false(SAVE(FAKE_WELCOME, STATUS("suspended"), READ_LINE));
    assert_int_equal(err.code, ERR_STATE);
    assert_int_equal(times_sent("migrate"), 0);
}

static int done(void **state)
{
    free(received);
    json_decref(events);
    return scratch_remove(state);
}

/* Asks by that script. */
static bool can_save(const struct fake_step *steps, size_t count)
{
    struct machine machine = {.pidfd = -1, .dir = scratch};
    struct fake *fake = fake_start(scratch_path("qmp.sock"), steps, count);
    err = ERR_INIT;
    if (!qmp_connect(scratch_path("qmp.sock"), -1, 3000, &machine.qmp, &err))
        fail_msg("%s", err.text);
    bool can = machine_can_save(&machine, &err);
    qmp_free(machine.qmp);
    fake_finish(fake, NULL, NULL);
    return can;
}
#define CAN_SAVE(...)                                                                                        \
    can_save((const struct fake_step[]){FAKE_WELCOME, __VA_ARGS__},                                          \
             ARRAY_SIZE(((const struct fake_step[]){FAKE_WELCOME, __VA_ARGS__})))

static void what_qemu_cannot_move_is_told_with_its_reasons(void **state)
{
    (void)state;
    assert_true(CAN_SAVE(STATUS("running"), ANSWER("{}")));
    assert_true(CAN_SAVE(STATUS("paused"), ANSWER("{\"blocked-reasons\": []}")));
    assert_false(CAN_SAVE(STATUS("running"), ANSWER("{\"blocked-reasons\": [\"device a\"]}")));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "cannot save this VM while it runs: device a"));
    assert_false(CAN_SAVE(STATUS("running"), ANSWER("{\"status\": \"none\", \"blocked-reasons\": [\"device a\", \"b, c\", 7]}")));
    assert_non_null(strstr(err.text, "device a; b, c; a reason that is no text"));
    AUTO_FREE char *many = string_printf("{\"return\": {\"blocked-reasons\": [\"%0300d\", \"%0300d\"]}, \"id\": $}\r\n", 1, 2);
    assert_false(CAN_SAVE(STATUS("running"), READ_LINE, {FAKE_SEND, many, 0}));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
}

static void a_state_in_which_qemu_saves_nothing_is_told(void **state)
{
    static const char *const STATES[] = {"postmigrate", "finish-migrate", "inmigrate", "suspended"};
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(STATES); i++) {
        AUTO_FREE char *answer =
            string_printf("{\"return\": {\"status\": \"%s\", \"running\": false}, \"id\": $}\r\n", STATES[i]);
        assert_false(CAN_SAVE(READ_LINE, {FAKE_SEND, answer, 0}));
        assert_int_equal(err.code, ERR_STATE);
    }
    assert_false(CAN_SAVE(STATUS("running"), REFUSE("no")));
    assert_int_equal(err.code, ERR_QEMU);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_pause_is_from_stop_to_resume),
        cmocka_unit_test(a_guest_that_stopped_for_an_io_error_stays_so),
        cmocka_unit_test(a_guest_whose_own_stop_has_no_reason_stays_so),
        cmocka_unit_test(an_error_that_the_guest_handles_stops_nothing),
        cmocka_unit_test(a_failed_save_does_not_wake_a_guest_that_stopped_itself),
        cmocka_unit_test(continuing_waits_until_qemu_is_ready),
        cmocka_unit_test(a_failure_that_left_it_paused_is_set_right),
        cmocka_unit_test(a_save_waits_for_a_monitor_as_long_as_it_needs),
        cmocka_unit_test(a_failed_save_leaves_no_guest_standing_however_slow_its_monitor_is),
        cmocka_unit_test(a_guest_goes_on_also_where_a_save_cannot_be_cancelled),
        cmocka_unit_test(a_failure_on_the_way_back_is_told_too),
        cmocka_unit_test(news_of_an_earlier_save_is_not_taken_for_this_one),
        cmocka_unit_test(copying_without_end_is_ended_by_a_longer_pause),
        cmocka_unit_test(with_tcg_the_bitmap_is_read_only_while_the_guest_stands),
        cmocka_unit_test(with_tcg_a_small_guest_may_have_one_pause),
        cmocka_unit_test(with_tcg_a_guest_stays_held_if_the_setup_reads_nothing),
        cmocka_unit_test(with_tcg_a_bitmap_read_while_the_guest_runs_fails_the_save),
        cmocka_unit_test(with_tcg_such_a_save_is_done_again_with_the_guest_standing),
        cmocka_unit_test(with_tcg_a_guest_that_has_stopped_itself_is_not_set_running),
        cmocka_unit_test(with_tcg_only_the_guests_own_stop_is_left),
        cmocka_unit_test(with_tcg_a_paced_reader_lets_each_pass_end_while_the_guest_stands),
        cmocka_unit_test(with_tcg_an_old_qemu_is_made_to_forget_before_the_next_pass),
        cmocka_unit_test(with_tcg_an_old_qemu_that_does_not_forget_ends_with_a_longer_pause),
        cmocka_unit_test(with_tcg_a_bitmap_read_early_in_a_paced_save_costs_the_passes_not_the_guest),
        cmocka_unit_test(with_tcg_a_guest_that_stops_itself_in_a_paced_save_stays_so),
        cmocka_unit_test(with_tcg_a_guest_that_is_faster_than_its_copy_is_copied_standing),
        cmocka_unit_test(a_failed_paced_save_lets_qemu_write),
        cmocka_unit_test(a_qemu_that_goes_on_by_itself_is_not_continued),
        cmocka_unit_test(a_qemu_that_stays_paused_is_continued_when_memory_is_protected),
        cmocka_unit_test(a_guest_that_stops_during_a_background_save_stays_so),
        cmocka_unit_test(a_background_save_that_fails_leaves_the_guest_running),
        cmocka_unit_test(a_background_save_of_an_old_qemu_that_is_given_up_comes_to_its_end_first),
        cmocka_unit_test(a_background_save_of_a_later_qemu_is_cancelled),
        cmocka_unit_test(a_guest_that_stopped_itself_just_before_is_not_set_running_by_a_background_save),
        cmocka_unit_test(a_guest_that_stands_is_saved_the_ordinary_way_whatever_point_is_asked_for),
        cmocka_unit_test(what_cannot_be_saved_in_the_background_is_not_touched),
        cmocka_unit_test(a_monitor_that_breaks_is_an_error),
        cmocka_unit_test(a_guest_that_sleeps_is_not_saved_by_an_old_qemu),
        cmocka_unit_test(what_qemu_cannot_move_is_told_with_its_reasons),
        cmocka_unit_test(a_state_in_which_qemu_saves_nothing_is_told),
    };
    return cmocka_run_group_tests_name("save", tests, scratch_make, done);
}
