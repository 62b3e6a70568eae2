/* QEMU's monitor protocol (QMP) on a unix socket: commands, replies, events in order. One thread owns a connection.
 * Hostile input: lines are bounded (16 MiB), JSON is checked. */
#pragma once

#include "err.h"

#include <jansson.h>

#define QMP_TIMEOUT_MS 30000

struct qmp;

/* Connects (waiting up to timeout_ms for the socket to appear and listen, giving up at once when pidfd >= 0 becomes
 * readable: QEMU has ended), reads the greeting, negotiates capabilities. */
bool qmp_connect(const char *socket_path, int pidfd, int timeout_ms, struct qmp **ret_qmp, struct err *err) MUST_CHECK;
void qmp_free(struct qmp *qmp); /* accepts NULL */
/* The version in the greeting, "7.2.22". */
const char *qmp_version(const struct qmp *qmp);
unsigned qmp_version_major(const struct qmp *qmp);
/* For poll(): readable means qmp_next_event() may have something. Events may also be queued already: take them with
 * timeout 0 until there are none, before each poll. */
int qmp_fd(const struct qmp *qmp);

/* Sends a command (arguments: stolen, NULL for none; fd sent along by SCM_RIGHTS unless -1) and waits for its reply.
 * Events that come before it are queued. *ret_value (may be NULL) is the caller's reference. QEMU's error reply is
 * ERR_QEMU with its description; end of the connection is ERR_QEMU with sys = EPIPE; ERR_TIMEOUT after QMP_TIMEOUT_MS: QEMU may still do it then. */
bool qmp_execute(struct qmp *qmp, const char *command, json_t *arguments, int fd, json_t **ret_value,
                 struct err *err) MUST_CHECK;
/* The next event, queued or new: timeout_ms 0 looks, -1 waits without end. True with *ret_event NULL: none in that
 * time. The caller owns the reference. A closed connection is ERR_QEMU. */
bool qmp_next_event(struct qmp *qmp, int timeout_ms, json_t **ret_event, struct err *err) MUST_CHECK;
/* name and microseconds since 1970 of an event; ret_us may be NULL. */
const char *qmp_event_name(const json_t *event, int64_t *ret_us);
