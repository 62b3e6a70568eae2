#include "qmp.h"

#include "auto.h"
#include "buf.h"
#include "clock.h"
#include "log.h"
#include "qmp_private.h"

#include "unix_socket.h"

#include <errno.h>
#include <limits.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define LINE_MAX_BYTES  (16U << 20)
#define READ_BYTES      (64U << 10)
#define EVENTS_MAX      4096U
#define OTHERS_BEFORE_GREETING 64
#define CONNECT_STEP_MS 1

struct qmp {
    int fd;
    bool closed;      /* the other end is gone, or broke the protocol: every call fails from here on */
    struct buf input; /* bytes received, from the first line not yet parsed */
    size_t searched;  /* bytes of input that hold no line end */
    json_t *events;   /* array, oldest first */
    uint64_t next_id; /* of commands, so that the late reply to one that timed out is told apart */
    int timeout_ms;   /* of qmp_execute() */
    char version[32];
    unsigned major;
};

/* The timeout for poll() until a deadline; deadline -1: none. */
static int poll_timeout(int64_t deadline_ms)
{
    if (deadline_ms < 0)
        return -1;
    int64_t left = deadline_ms - clock_ms();
    return left < 0 ? 0 : left > INT_MAX ? INT_MAX : (int)left;
}

static bool connection_lost(struct qmp *qmp, struct err *err)
{
    qmp->closed = true;
    err_set_text(err, ERR_QEMU, EPIPE, "QEMU closed its monitor");
    return false;
}

static bool protocol_broken(struct qmp *qmp, struct err *err, const char *why)
{
    qmp->closed = true;
    return err_set(err, ERR_PROTOCOL, "QEMU's monitor sent %s", why);
}

/* --- lines --- */

/* Takes the first whole line out of the input, without its end; NULL: there is none yet. The pointer holds
 * until input_consume(). */
static char *input_line(struct qmp *qmp, size_t *ret_length)
{
    char *text = (char *)qmp->input.data;
    if (!text)
        return NULL;
    char *end = memchr(text + qmp->searched, '\n', qmp->input.length - qmp->searched);
    if (!end) {
        qmp->searched = qmp->input.length;
        return NULL;
    }
    *ret_length = (size_t)(end - text);
    return text;
}

static void input_consume(struct qmp *qmp, size_t line_length)
{
    size_t used = line_length + 1;
    memmove(qmp->input.data, qmp->input.data + used, qmp->input.length - used);
    qmp->input.length -= used;
    qmp->searched = 0;
}

static bool line_is_blank(const char *line, size_t length)
{
    for (size_t i = 0; i < length; i++)
        if (line[i] != ' ' && line[i] != '\t' && line[i] != '\r')
            return false;
    return true;
}

/* The next buffered message. True with *ret_message NULL: no whole line there. */
static bool message_parse(struct qmp *qmp, json_t **ret_message, struct err *err)
{
    size_t length;
    for (char *line; (line = input_line(qmp, &length));) {
        if (length > LINE_MAX_BYTES)
            return protocol_broken(qmp, err, "a line of more than 16 MiB");
        json_error_t json_error;
        bool blank = line_is_blank(line, length);
        json_t *message = blank ? NULL : json_loadb(line, length, 0, &json_error);
        input_consume(qmp, length);
        if (blank)
            continue;
        if (!json_is_object(message)) {
            json_decref(message);
            return protocol_broken(qmp, err, "a line that is no JSON object");
        }
        *ret_message = message;
        return true;
    }
    if (qmp->input.length > LINE_MAX_BYTES)
        return protocol_broken(qmp, err, "a line of more than 16 MiB");
    *ret_message = NULL;
    return true;
}

/* Receives what there is, waiting for it until the deadline. */
static bool input_fill(struct qmp *qmp, int64_t deadline_ms, struct err *err)
{
    struct pollfd poll_fd = {.fd = qmp->fd, .events = POLLIN};
    int ready = poll(&poll_fd, 1, poll_timeout(deadline_ms));
    if (ready < 0 && errno != EINTR)
        return err_sys(err, errno, "wait for QEMU's monitor");
    if (ready <= 0)
        return true;
    uint8_t *room = buf_reserve(&qmp->input, READ_BYTES);
    if (!room)
        return err_oom(err);
    ssize_t count = recv(qmp->fd, room, READ_BYTES, MSG_DONTWAIT);
    if (count < 0 && (errno == EINTR || errno == EAGAIN))
        return true;
    if (count <= 0)
        return connection_lost(qmp, err);
    qmp->input.length += (size_t)count;
    return true;
}

/* The next message. True with *ret_message NULL: none before the deadline. */
static bool message_receive(struct qmp *qmp, int64_t deadline_ms, json_t **ret_message, struct err *err)
{
    if (qmp->closed)
        return connection_lost(qmp, err);
    for (bool expired = false;;) {
        json_t *message = NULL;
        if (!message_parse(qmp, &message, err))
            return false;
        if (message || expired) {
            *ret_message = message;
            return true;
        }
        expired =
            poll_timeout(deadline_ms) == 0; /* then what is there already is the last that is looked at */
        if (!input_fill(qmp, deadline_ms, err))
            return false;
    }
}

/* --- events --- */

/* Steals message. A queue that nobody reads loses its oldest. */
static void event_queue(struct qmp *qmp, json_t *message)
{
    if (json_array_size(qmp->events) >= EVENTS_MAX) {
        log_debug("monitor: an event was dropped");
        json_array_remove(qmp->events, 0);
    }
    json_array_append_new(qmp->events, message);
}

static json_t *event_dequeue(struct qmp *qmp)
{
    json_t *event = json_incref(json_array_get(qmp->events, 0));
    if (event)
        json_array_remove(qmp->events, 0);
    return event;
}

void qmp_put_back(struct qmp *qmp, json_t *events)
{
    json_array_extend(events, qmp->events);
    json_decref(qmp->events);
    qmp->events = events;
}

bool qmp_next_event(struct qmp *qmp, int timeout_ms, json_t **ret_event, struct err *err)
{
    int64_t deadline_ms = timeout_ms < 0 ? -1 : clock_ms() + timeout_ms;
    for (;;) {
        json_t *message = event_dequeue(qmp);
        if (!message && !message_receive(qmp, deadline_ms, &message, err))
            return false;
        if (!message || json_object_get(message, "event")) {
            *ret_event = message;
            return true;
        }
        json_decref(message); /* the reply to a command that was given up */
    }
}

const char *qmp_event_name(const json_t *event, int64_t *ret_us)
{
    const json_t *stamp = json_object_get(event, "timestamp");
    if (ret_us)
        *ret_us = json_integer_value(json_object_get(stamp, "seconds")) * 1000000 +
                  json_integer_value(json_object_get(stamp, "microseconds"));
    const char *name = json_string_value(json_object_get(event, "event"));
    return name ? name : "";
}

/* --- commands --- */

/* Sends all of text; fd goes with its first byte. */
static bool bytes_send(struct qmp *qmp, const char *text, size_t length, int fd, int64_t deadline_ms,
                       struct err *err)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control = {0};
    while (length > 0) {
        struct iovec vector = {.iov_base = (char *)text, .iov_len = length};
        struct msghdr message = {.msg_iov = &vector, .msg_iovlen = 1};
        if (fd >= 0) {
            message.msg_control = control.bytes;
            message.msg_controllen = sizeof(control.bytes);
            control.header = (struct cmsghdr){CMSG_LEN(sizeof(int)), SOL_SOCKET, SCM_RIGHTS};
            memcpy(CMSG_DATA(&control.header), &fd, sizeof(int));
        }
        ssize_t count = sendmsg(qmp->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (count < 0 && errno != EAGAIN && errno != EINTR)
            return connection_lost(qmp, err);
        if (count > 0) {
            text += count;
            length -= (size_t)count;
            fd = -1;
            continue;
        }
        struct pollfd poll_fd = {.fd = qmp->fd, .events = POLLOUT};
        if (poll(&poll_fd, 1, poll_timeout(deadline_ms)) == 0) {
            qmp->closed = true; /* half a command is out: nothing can follow it */
            return err_set(err, ERR_TIMEOUT, "QEMU's monitor takes no commands");
        }
    }
    return true;
}

/* Steals arguments. */
static bool command_send(struct qmp *qmp, const char *command, json_t *arguments, int fd, int64_t deadline_ms,
                         struct err *err)
{
    json_t *message = json_pack("{s:s, s:o*, s:I}", "execute", command, "arguments", arguments, "id",
                                (json_int_t)qmp->next_id);
    AUTO_FREE char *text = message ? json_dumps(message, JSON_COMPACT) : NULL;
    json_decref(message);
    if (!text)
        return err_set(err, ERR_INVALID, "%s: an argument is not UTF-8", command);
    log_debug("monitor: %s", text);
    size_t length = strlen(text);
    text[length] = '\n'; /* in place of the NUL */
    return bytes_send(qmp, text, length + 1, fd, deadline_ms, err);
}

/* Is message the reply to command id? A complaint without an id is about what was sent last. */
static bool is_reply_to(const json_t *message, uint64_t id)
{
    const json_t *got = json_object_get(message, "id");
    if (!got)
        return json_object_get(message, "error") != NULL;
    return json_is_integer(got) && (uint64_t)json_integer_value(got) == id;
}

static bool reply_wait(struct qmp *qmp, const char *command, int64_t deadline_ms, json_t **ret_reply,
                       struct err *err)
{
    uint64_t id = qmp->next_id++;
    for (;;) {
        json_t *message = NULL;
        if (!message_receive(qmp, deadline_ms, &message, err))
            return false;
        if (!message)
            return err_set(err, ERR_TIMEOUT, "QEMU's monitor did not answer %s in time", command);
        if (json_object_get(message, "event")) {
            event_queue(qmp, message);
            if (poll_timeout(deadline_ms) == 0)
                return err_set(err, ERR_TIMEOUT, "QEMU's monitor sends events but no answer to %s", command);
        } else if (is_reply_to(message, id)) {
            *ret_reply = message;
            return true;
        } else {
            json_decref(message);
        }
    }
}

bool qmp_execute_timeout(struct qmp *qmp, const char *command, json_t *arguments, int fd, int timeout_ms,
                         json_t **ret_value, struct err *err)
{
    int64_t deadline_ms = timeout_ms < 0 ? -1 : clock_ms() + timeout_ms;
    if (qmp->closed) {
        json_decref(arguments);
        return connection_lost(qmp, err);
    }
    json_t *reply = NULL;
    if (!command_send(qmp, command, arguments, fd, deadline_ms, err) ||
        !reply_wait(qmp, command, deadline_ms, &reply, err))
        return false;
    json_t *value = json_object_get(reply, "return");
    if (value) {
        if (ret_value)
            *ret_value = json_incref(value);
        json_decref(reply);
        return true;
    }
    const char *why = json_string_value(json_object_get(json_object_get(reply, "error"), "desc"));
    err_set_text(err, ERR_QEMU, 0, "QEMU refused %s: %s", command, why ? why : "no reason given");
    json_decref(reply);
    return false;
}

bool qmp_execute(struct qmp *qmp, const char *command, json_t *arguments, int fd, json_t **ret_value,
                 struct err *err)
{
    return qmp_execute_timeout(qmp, command, arguments, fd, qmp->timeout_ms, ret_value, err);
}

int qmp_set_timeout(struct qmp *qmp, int timeout_ms)
{
    int before = qmp->timeout_ms;
    qmp->timeout_ms = timeout_ms;
    return before;
}

/* --- connecting --- */

/* Waits a moment; true if the process has ended. */
static bool wait_or_ended(int pidfd, int milliseconds)
{
    struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN}; /* -1 is passed over: a plain sleep */
    return poll(&poll_fd, 1, milliseconds) > 0;
}

static bool socket_connect(const char *path, int pidfd, int64_t deadline_ms, int *ret_fd, struct err *err)
{
    while (!unix_connect(path, SOCK_NONBLOCK, ret_fd, err)) {
        if (err->sys != ENOENT && err->sys != ECONNREFUSED && err->sys != EAGAIN && err->sys != EINTR)
            return false;
        if (poll_timeout(deadline_ms) == 0)
            return err_set(err, ERR_TIMEOUT, "%s: no monitor of QEMU there", path);
        if (wait_or_ended(pidfd, CONNECT_STEP_MS)) {
            err_set_text(err, ERR_QEMU, EPIPE, "QEMU ended before its monitor was there");
            return false;
        }
    }
    return true;
}

/* A monitor that somebody was at before may still tell its events, or answer him, on the new connection: those go by. */
static bool greeting_receive(struct qmp *qmp, int64_t deadline_ms, json_t **ret_message, struct err *err)
{
    for (unsigned others = 0; others <= OTHERS_BEFORE_GREETING; others++) {
        if (!message_receive(qmp, deadline_ms, ret_message, err))
            return false;
        if (!*ret_message)
            return err_set(err, ERR_TIMEOUT, "QEMU's monitor sent no greeting in time");
        if (!json_object_get(*ret_message, "event") && !json_object_get(*ret_message, "return") &&
            !json_object_get(*ret_message, "error"))
            return true;
        json_decref(*ret_message);
    }
    return protocol_broken(qmp, err, "no greeting");
}

static bool greeting_read(struct qmp *qmp, int64_t deadline_ms, struct err *err)
{
    json_t *message = NULL;
    if (!greeting_receive(qmp, deadline_ms, &message, err))
        return false;
    int major, minor, micro;
    int failed = json_unpack(message, "{s:{s:{s:{s:i, s:i, s:i}}}}", "QMP", "version", "qemu", "major",
                             &major, "minor", &minor, "micro", &micro);
    json_decref(message);
    if (failed || major < 0 || major > 999 || minor < 0 || minor > 999 || micro < 0 || micro > 999)
        return protocol_broken(qmp, err, "no greeting");
    qmp->major = (unsigned)major;
    snprintf(qmp->version, sizeof(qmp->version), "%d.%d.%d", major, minor, micro);
    return true;
}

AUTO_DEFINE(auto_qmp_free, struct qmp, qmp_free)

bool qmp_connect(const char *socket_path, int pidfd, int timeout_ms, struct qmp **ret_qmp, struct err *err)
{
    int64_t deadline_ms = clock_ms() + timeout_ms;
    AUTO(auto_qmp_free) struct qmp *qmp = calloc(1, sizeof(*qmp));
    if (!qmp)
        return err_oom(err);
    qmp->fd = -1;
    qmp->next_id = 1;
    qmp->timeout_ms = QMP_TIMEOUT_MS;
    qmp->events = json_array();
    if (!qmp->events)
        return err_oom(err);
    if (!socket_connect(socket_path, pidfd, deadline_ms, &qmp->fd, err) ||
        !greeting_read(qmp, deadline_ms, err) ||
        !qmp_execute_timeout(qmp, "qmp_capabilities", NULL, -1, poll_timeout(deadline_ms), NULL, err))
        return false;
    *ret_qmp = TAKE(qmp);
    return true;
}

void qmp_free(struct qmp *qmp)
{
    if (!qmp)
        return;
    if (qmp->fd >= 0)
        close(qmp->fd);
    buf_done(&qmp->input);
    json_decref(qmp->events);
    free(qmp);
}

const char *qmp_version(const struct qmp *qmp)
{
    return qmp->version;
}

unsigned qmp_version_major(const struct qmp *qmp)
{
    return qmp->major;
}

int qmp_fd(const struct qmp *qmp)
{
    return qmp->fd;
}
