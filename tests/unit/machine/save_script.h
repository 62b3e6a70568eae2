/* Saves by a monitor that follows a script, for tests of what a real QEMU says only now and then. */
#pragma once
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

static inline void at_instant(void *context)
{
    (void)context;
    instants++;
}

static inline bool restart(void *context, int *ret_stream_fd, struct err *ret_err)
{
    (void)context, (void)ret_err;
    restarts++;
    *ret_stream_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    return true;
}

/* From the instant on. */
static inline bool reader_failed(void *context, struct err *ret_err)
{
    (void)context;
    return instants > 0 && !err_set(ret_err, ERR_NO_SPACE, "full");
}

static inline void pace(void *context, uint64_t bytes)
{
    (void)context;
    assert_true(pace_count < ARRAY_SIZE(paces));
    paces[pace_count++] = bytes;
}

static inline uint64_t paced(void *context, int wait_ms)
{
    (void)context, (void)wait_ms;
    return 0;
}

static inline void before_stop(void *context)
{
    (void)context;
    stops++;
}

/* The next save is one whose reader can be paced, of a QEMU that has filled the pipe. */
static inline void pace_next(void)
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
static inline bool save(const struct fake_step *steps, size_t count)
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

static inline unsigned times_sent(const char *command)
{
    AUTO_FREE char *text = string_printf("\"execute\":\"%s\"", command);
    unsigned count = 0;
    for (const char *at = received; (at = strstr(at, text)); at++)
        count++;
    return count;
}

static inline const char *left_event(size_t index)
{
    return qmp_event_name(json_array_get(events, index), NULL);
}

static inline int done(void **state)
{
    free(received);
    json_decref(events);
    return scratch_remove(state);
}
