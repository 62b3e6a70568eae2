/* A whole session with the server: the bytes are what a client sends, on a disk in memory. It must end, with
 * the connection closed, nothing leaked, and the disk still readable. */
#include "io_memory.h"
#include "nbd_server.h"

#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

#define SIZE_BYTES    (4U << 20)
#define SESSION_BYTES (64U << 10) /* fits into the socket's buffer, so that nobody waits for nobody */

struct session {
    struct io_memory *memory;
    struct disk *disk;
    struct ring *ring;
    struct core core;
    struct nbd_server *server;
    int client;
};

static void must(bool ok)
{
    if (!ok)
        abort();
}

static void session_begin(struct session *session)
{
    static const struct nbd_export EXPORT = {.name = "disk0", .size_bytes = SIZE_BYTES};
    struct vhd_create_options base = {
        .type = VHD_DYNAMIC, .size_bytes = SIZE_BYTES, .block_bytes = 512 << 10};
    struct vhd_create_options child = {.type = VHD_DIFFERENCING, .parent_path = "/base.vhd"};
    struct err err;
    int fds[2];

    *session = (struct session){.memory = io_memory_new(IO_MEMORY_PLAIN)};
    const struct io *io = io_memory_io(session->memory);
    must(vhd_create(io, "/base.vhd", &base, &err) && vhd_create(io, "/top.avhd", &child, &err));
    must(disk_open("/top.avhd", &(struct disk_options){.io = io, .writable = true}, &session->disk, &err));
    must(ring_new(true, &session->ring, &err));
    core_init(&session->core, session->disk, session->ring);
    must(nbd_server_new(&session->core, &EXPORT, -1, &session->server, &err));
    must(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, fds) == 0);
    session->client = fds[0];
    must(nbd_server_adopt(session->server, fds[1], &err));
}

/* The client takes what it is sent, or answers would stop the server. */
static void session_turn(struct session *session)
{
    static uint8_t bytes[1 << 20];
    struct err err;

    nbd_server_turn(session->server);
    must(ring_wait(session->ring, false, &err));
    core_turn(&session->core);
    while (recv(session->client, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        continue;
}

static void session_end(struct session *session)
{
    uint8_t sector[VHD_SECTOR];
    struct err err;

    must(disk_read(session->disk, SIZE_BYTES - VHD_SECTOR, sector, sizeof sector, &err));
    nbd_server_free(session->server);
    core_done(&session->core);
    ring_free(session->ring);
    must(disk_close(session->disk, &err));
    io_memory_free(session->memory);
    shutdown(session->client, SHUT_RDWR);
    close(session->client);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct session session;

    length = length < SESSION_BYTES ? length : SESSION_BYTES;
    session_begin(&session);
    must(send(session.client, bytes, length, MSG_NOSIGNAL) == (ssize_t)length);
    shutdown(session.client, SHUT_WR);
    while (!nbd_server_is_idle(session.server) || !core_is_idle(&session.core))
        session_turn(&session);
    session_end(&session);
    return 0;
}
