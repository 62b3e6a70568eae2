/* What the NBD targets share: a server on a chain in memory whose one client is the fuzzer. */
#pragma once

#include "bytes.h"
#include "disk_tools.h"
#include "io_failing.h"
#include "io_memory.h"
#include "nbd.h"
#include "nbd_server.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

#define SESSION_SIZE  ((1U << 20) + 512) /* of the disk */
#define SESSION_BLOCK (64U << 10)

struct session {
    struct io_memory *memory;
    struct io_failing *failing; /* passes everything on, unless it is told otherwise */
    const struct io *io;
    bool read_only, io_uring;
    unsigned layers; /* the top is layer_path(layers - 1) */
    struct nbd_export export;
    struct disk *disk;
    struct ring *ring;
    struct core core;
    struct nbd_server *server;
    int client;
    bool switched;
};

#define must(claim)                                                                                          \
    do {                                                                                                     \
        if (!(claim)) {                                                                                      \
            fprintf(stderr, "%s:%d: %s\n", __FILE__, __LINE__, #claim);                                      \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

static inline void layer_path(unsigned layer, char path[static 32])
{
    snprintf(path, 32, "/%u.vhd", layer);
}

static inline void layer_create(struct session *session)
{
    char path[32], parent[32];
    struct vhd_create_options options = {.type = VHD_DYNAMIC, .block_bytes = SESSION_BLOCK};
    struct err err;

    layer_path(session->layers, path);
    if (session->layers > 0) {
        layer_path(session->layers - 1, parent);
        options.type = VHD_DIFFERENCING;
        options.parent_path = parent;
    } else {
        options.size_bytes = SESSION_SIZE;
    }
    must(vhd_create(io_memory_io(session->memory), path, &options, &err));
    session->layers++;
}

/* A base and a child. */
static inline void session_files(struct session *session)
{
    *session = (struct session){.memory = io_memory_new(IO_MEMORY_PLAIN), .client = -1};
    session->failing = io_failing_new(io_memory_io(session->memory));
    session->io = io_failing_io(session->failing);
    layer_create(session);
    layer_create(session);
}

static inline void session_open(struct session *session)
{
    struct disk_options options = {.io = session->io, .writable = !session->read_only};
    struct err err;
    char path[32];
    int fds[2];

    layer_path(session->layers - 1, path);
    session->export =
        (struct nbd_export){.name = "disk0", .size_bytes = SESSION_SIZE, .read_only = session->read_only};
    must(disk_open(path, &options, &session->disk, &err) &&
         ring_new(!session->io_uring, &session->ring, &err));
    core_init(&session->core, session->disk, session->ring);
    must(nbd_server_new(&session->core, &session->export, -1, &session->server, &err));
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    session->client = fds[0];
    must(nbd_server_adopt(session->server, fds[1], &err));
}

static inline void session_turn(struct session *session)
{
    struct err err;

    nbd_server_turn(session->server);
    must(ring_wait(session->ring, false, &err));
    core_turn(&session->core);
}

static inline void session_seal(struct session *session, void (*switched)(void *context))
{
    struct err err;
    char path[32];

    layer_create(session);
    layer_path(session->layers - 1, path);
    if (disk_next_top_open(session->disk, path, &session->core.next_top, &err)) {
        core_switch_top(&session->core, switched, session);
        return;
    }
    session->layers--;
    must(io_unlink(io_memory_io(session->memory), path, &err));
}

/* What was accepted runs to its end; false: the disk could not be closed in order. */
static inline bool session_close(struct session *session)
{
    struct err err;

    shutdown(session->client, SHUT_RDWR);
    nbd_server_stop(session->server);
    while (!nbd_server_is_idle(session->server) || !core_is_idle(&session->core))
        session_turn(session);
    nbd_server_free(session->server);
    core_done(&session->core);
    ring_free(session->ring);
    close(session->client);
    return disk_close(TAKE(session->disk), &err);
}

static inline void session_free(struct session *session)
{
    io_failing_free(session->failing);
    io_memory_free(session->memory);
}

static inline void no_harm(void *context, const struct disk_fault *fault)
{
    (void)context;
    must(fault->harmless);
}

static inline void session_check(const struct session *session)
{
    struct err err;
    char path[32];

    layer_path(session->layers - 1, path);
    must(disk_check(io_memory_io(session->memory), path, no_harm, NULL, NULL, &err));
}
