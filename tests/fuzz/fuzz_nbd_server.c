/* A whole session with the server: the bytes are what a client sends, on a disk in memory. It must end, with
 * the connection closed, nothing leaked, and the chain sound. The first byte says whether the disk is
 * read-only, whether a new top takes over on the way, and whether the handshake was made before. */
#include "nbd_session.h"

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

#define SESSION_BYTES (64U << 10)
#define SEAL_TURN     7

enum option { READ_ONLY = 1, SEAL = 2, SHAKEN = 4 };

/* As QEMU shakes hands: structured replies, the allocation context, GO. */
static const uint8_t HANDSHAKE[] = "\0\0\0\3"
                                   "IHAVEOPT\0\0\0\10\0\0\0\0"
                                   "IHAVEOPT\0\0\0\12\0\0\0\33\0\0\0\0\0\0\0\1\0\0\0\17base:allocation"
                                   "IHAVEOPT\0\0\0\7\0\0\0\6\0\0\0\0\0\0";

static void switched(void *context)
{
    (void)context;
}

/* The client takes what it is sent, or answers would stop the server. */
static void take(const struct session *session)
{
    static uint8_t bytes[1 << 20];

    while (recv(session->client, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
        continue;
}

static void run(struct session *session, bool seal)
{
    for (unsigned turn = 0; !nbd_server_is_idle(session->server) || !core_is_idle(&session->core); turn++) {
        if (seal && turn == SEAL_TURN)
            session_seal(session, switched);
        session_turn(session);
        take(session);
    }
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    struct session session;

    if (length < 1)
        return 0;
    uint8_t options = bytes[0];
    length = min_u64(length - 1,
                     SESSION_BYTES); /* fits into the socket's buffer, so that nobody waits for nobody */
    session_files(&session);
    session.read_only = options & READ_ONLY;
    session_open(&session);
    size_t shaken = options & SHAKEN ? sizeof HANDSHAKE - 1 : 0;
    must(send(session.client, HANDSHAKE, shaken, MSG_NOSIGNAL) == (ssize_t)shaken);
    must(send(session.client, bytes + 1, length, MSG_NOSIGNAL) == (ssize_t)length);
    shutdown(session.client, SHUT_WR);
    run(&session, (options & SEAL) && !session.read_only);
    must(session_close(&session));
    session_check(&session);
    session_free(&session);
    return 0;
}
