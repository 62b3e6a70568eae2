/* Messages on the control socket: one JSON object a line (docs/operations.md), bounded. */
#pragma once

#include "buf.h"
#include "err.h"

#include <jansson.h>

#define WIRE_MAX_BYTES (1U << 20)

struct wire {
    int fd;         /* not owned */
    struct buf in;  /* what came and is not taken yet */
};

void wire_done(struct wire *wire);
/* Waits up to timeout_ms for a client that does not read. */
bool wire_send(int fd, const json_t *message, int timeout_ms, struct err *err) MUST_CHECK;
/* The next message if a whole line has come by then (timeout_ms 0: look, -1: wait without end); else *ret_message is NULL.
 * ERR_PROTOCOL: the other end has closed (sys is EPIPE), or sent what is no message. */
bool wire_receive(struct wire *wire, int timeout_ms, json_t **ret_message, struct err *err) MUST_CHECK;

json_t *wire_error(const struct err *err);                       /* {"error": {...}} */
void wire_error_read(const json_t *message, struct err *err);    /* the inverse */
