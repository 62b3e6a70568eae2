#include "wire.h"

#include "auto.h"
#include "bytes.h"

#include <errno.h>
#include <poll.h>
#include <string.h>
#include <sys/socket.h>

#define READ_BYTES 4096

void wire_done(struct wire *wire)
{
    buf_done(&wire->in);
}

bool wire_send(int fd, const json_t *message, int timeout_ms, struct err *err)
{
    AUTO_FREE char *text = json_dumps(message, JSON_COMPACT);
    AUTO_FREE char *line = text ? string_printf("%s\n", text) : NULL;

    if (!line)
        return err_oom(err);
    size_t length = strlen(line);
    for (size_t done = 0; done < length;) {
        ssize_t n = send(fd, line + done, length - done, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (n > 0) {
            done += (size_t)n;
            continue;
        }
        struct pollfd writable = {.fd = fd, .events = POLLOUT};
        if (errno != EAGAIN && errno != EINTR)
            return err_sys(err, errno, "send a message");
        if (errno == EAGAIN && poll(&writable, 1, timeout_ms) == 0)
            return err_set(err, ERR_TIMEOUT, "send a message: the other end does not read");
    }
    return true;
}

/* Takes a whole line out of the buffer; NULL in *ret_message if there is none. */
static bool line_take(struct wire *wire, json_t **ret_message, struct err *err)
{
    const uint8_t *end = wire->in.length ? memchr(wire->in.data, '\n', wire->in.length) : NULL;
    json_error_t parse_err;

    *ret_message = NULL;
    if (!end) {
        if (wire->in.length >= WIRE_MAX_BYTES)
            return err_set(err, ERR_PROTOCOL, "a message is longer than %u bytes", WIRE_MAX_BYTES);
        return true;
    }
    size_t length = (size_t)(end - wire->in.data);
    json_t *message = json_loadb((const char *)wire->in.data, length, JSON_REJECT_DUPLICATES, &parse_err);
    wire->in.length -= length + 1;
    memmove(wire->in.data, end + 1, wire->in.length);
    if (!json_is_object(message)) {
        json_decref(message);
        return err_set(err, ERR_PROTOCOL, "a message is no JSON object: %s", parse_err.text);
    }
    *ret_message = message;
    return true;
}

bool wire_receive(struct wire *wire, int timeout_ms, json_t **ret_message, struct err *err)
{
    for (;;) {
        struct pollfd readable = {.fd = wire->fd, .events = POLLIN};
        if (!line_take(wire, ret_message, err))
            return false;
        if (*ret_message)
            return true;
        int ready = poll(&readable, 1, timeout_ms);
        if (ready == 0 || (ready < 0 && errno == EINTR))
            return true;
        uint8_t *room = buf_reserve(&wire->in, READ_BYTES);
        if (!room)
            return err_oom(err);
        ssize_t n = recv(wire->fd, room, READ_BYTES, MSG_DONTWAIT);
        if (n < 0 && (errno == EAGAIN || errno == EINTR))
            return true;
        if (n <= 0) { /* also ECONNRESET: it closed with something of ours unread */
            err_set_text(err, ERR_PROTOCOL, EPIPE, "the other end has closed the connection");
            return false;
        }
        wire->in.length += (size_t)n;
    }
}

json_t *wire_error(const struct err *err)
{
    char text[sizeof err->text];

    err_text_utf8(err, text);
    return json_pack("{s:{s:s, s:s}}", "error", "code", err_name(err->code), "message", text);
}

void wire_error_read(const json_t *message, struct err *err)
{
    const json_t *error = json_object_get(message, "error");
    const char *code = json_string_value(json_object_get(error, "code"));
    const char *text = json_string_value(json_object_get(error, "message"));

    err_set_text(err, code ? err_code_by_name(code) : ERR_PROTOCOL, 0, "%s", text ? text : "an error without text");
}
