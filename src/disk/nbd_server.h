/* Serves a core's disk over NBD to many connections, on the core's thread and ring. */
#pragma once

#include "engine_core.h"
#include "nbd_handshake.h"

#define NBD_SERVER_MAX_CLIENTS 32

struct nbd_server;

/* listen_fd (non-blocking) and what export points to stay the caller's until nbd_server_free(). listen_fd <
 * 0: no listener, connections come by nbd_server_adopt() only. */
bool nbd_server_new(struct core *core, const struct nbd_export *export, int listen_fd,
                    struct nbd_server **ret_server, struct err *err) MUST_CHECK;
/* Takes a connected, blocking stream socket, also on failure. */
bool nbd_server_adopt(struct nbd_server *server, int fd, struct err *err) MUST_CHECK;
/* What can go on now: parses what has come, sends what is answered. To be called after core_turn(). */
void nbd_server_turn(struct nbd_server *server);
/* No new connections; the sockets are shut without another word. What was accepted runs to its end. */
void nbd_server_stop(struct nbd_server *server);
/* No connection is left, and after nbd_server_stop() nothing is in flight. */
bool nbd_server_is_idle(const struct nbd_server *server);
/* After an accept() or polls that failed for want of descriptors or memory: maybe they are there again. */
void nbd_server_listen_again(struct nbd_server *server);
uint64_t nbd_server_clients(const struct nbd_server *server);
void nbd_server_free(struct nbd_server *server); /* stopped and idle; accepts NULL */
