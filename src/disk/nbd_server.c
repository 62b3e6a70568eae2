#include "nbd_server.h"

#include "nbd_conn.h"

#include <errno.h>
#include <stdlib.h>

#define POLL_TRIES 16

static void listener_watch(struct nbd_server *server);

bool nbd_server_new(struct core *core, const struct nbd_export *export, int listen_fd,
                    struct nbd_server **ret_server, struct err *err)
{
    struct nbd_server *server = calloc(1, sizeof *server);

    if (!server)
        return err_oom(err);
    server->core = core;
    server->export = export;
    server->listen_fd = listen_fd;
    listener_watch(server);
    *ret_server = server;
    return true;
}

void nbd_server_free(struct nbd_server *server)
{
    if (!server)
        return;
    pool_done(&server->pool);
    free(server);
}

bool nbd_server_adopt(struct nbd_server *server, int fd, struct err *err)
{
    struct nbd_conn *conn;

    if (!conn_open(server, fd, &conn, err))
        return false;
    conn->next = server->conns;
    if (conn->next)
        conn->next->previous = conn;
    server->conns = conn;
    server->clients++;
    return true;
}

/* False: nobody waits any more, or it failed: out of descriptors or memory. Then the listener rests, since it
 * would tell the same again at once, until nbd_server_listen_again() or until a client leaves. */
static bool accept_one(struct nbd_server *server)
{
    struct err err;
    /* Blocking, because io_uring answers a non-blocking socket with EAGAIN instead of waiting. */
    int fd = accept4(server->listen_fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0) {
        server->resting = errno != EAGAIN && errno != EINTR && errno != ECONNABORTED;
        return false;
    }
    server->resting = !nbd_server_adopt(server, fd, &err);
    return !server->resting;
}

static void listener_ready(struct ring_op *op, int64_t result)
{
    struct nbd_server *server =
        (struct nbd_server *)(void *)((char *)op - offsetof(struct nbd_server, accept));

    server->accepting = false;
    if (server->stopping)
        return;
    if (result < 0) { /* want of memory in the kernel, which passes */
        server->resting = ++server->failed_polls == POLL_TRIES;
    } else {
        server->failed_polls = 0;
        while (server->clients < NBD_SERVER_MAX_CLIENTS && accept_one(server))
            continue;
    }
    listener_watch(server);
}

/* With as many clients as we take, the next one waits in the listener's queue. */
static void listener_watch(struct nbd_server *server)
{
    if (server->accepting || server->stopping || server->resting || server->listen_fd < 0 ||
        server->clients >= NBD_SERVER_MAX_CLIENTS)
        return;
    server->accepting = true;
    server->accept.done = listener_ready;
    ring_poll(server->core->ring, &server->accept, server->listen_fd);
}

static void conn_remove(struct nbd_server *server, struct nbd_conn *conn)
{
    if (conn->previous)
        conn->previous->next = conn->next;
    else
        server->conns = conn->next;
    if (conn->next)
        conn->next->previous = conn->previous;
    conn_free(conn);
    server->clients--;
    nbd_server_listen_again(server);
}

void nbd_server_listen_again(struct nbd_server *server)
{
    server->resting = false;
    server->failed_polls = 0;
    listener_watch(server);
}

/* A connection's turn may touch it again; the list is worked down until it is empty, which it becomes because
 * every turn ends in waiting for an event. */
void nbd_server_turn(struct nbd_server *server)
{
    while (server->touched) {
        struct nbd_conn *conn = server->touched;
        server->touched = conn->touched_next;
        conn->touched = false;
        if (!conn_turn(conn))
            continue;
        if (conn->touched)
            continue; /* it shut itself in this turn: over in the next */
        conn_remove(server, conn);
    }
}

void nbd_server_stop(struct nbd_server *server)
{
    server->stopping = true;
    if (server->accepting)
        ring_cancel(server->core->ring, &server->accept);
    for (struct nbd_conn *conn = server->conns; conn; conn = conn->next)
        conn_shut(conn);
}

bool nbd_server_is_idle(const struct nbd_server *server)
{
    return !server->conns && !server->accepting;
}

uint64_t nbd_server_clients(const struct nbd_server *server)
{
    return server->clients;
}
