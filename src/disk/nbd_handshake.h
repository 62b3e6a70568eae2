/* The server's side of NBD's fixed newstyle handshake as a machine over bytes: no I/O, no waiting.
 *
 *   FLAGS ──client flags──> OPTIONS ──GO, EXPORT_NAME──> NBD_TRANSMIT
 *                           OPTIONS ──ABORT, broken magic, wrong length──> NBD_CLOSE */
#pragma once

#include "auto.h"
#include "buf.h"
#include "err.h"
#include "nbd.h"

struct nbd_export {
    const char *name; /* "": any name is served */
    uint64_t size_bytes;
    bool read_only;
};

enum nbd_step { NBD_MORE, NBD_TRANSMIT, NBD_CLOSE };

struct nbd_handshake {
    const struct nbd_export *export; /* the caller's, as long as the handshake lasts */
    bool options;                    /* the client's flags have come */
    bool no_zeroes, structured;
    char *context_export;    /* the export name that base:allocation was asked for, owned; NULL: not asked */
    bool allocation_context; /* agreed on; valid with NBD_TRANSMIT */
};

/* An option's data is taken up to this length; a longer one is answered and ends the connection. */
#define NBD_MAX_OPTION_DATA (32U << 10)

/* Appends the greeting to out. False: out of memory. */
bool nbd_handshake_init(struct nbd_handshake *handshake, const struct nbd_export *export,
                        struct buf *out) MUST_CHECK;
void nbd_handshake_done(struct nbd_handshake *handshake);
/* Takes one message from the front of bytes if it is there whole (it always fits into NBD_OPTION_BYTES +
 * NBD_MAX_OPTION_DATA), and appends what is to be sent to out, also with NBD_CLOSE. *ret_used is 0 when more
 * bytes are needed. */
enum nbd_step nbd_handshake_feed(struct nbd_handshake *handshake, const uint8_t *bytes, size_t length,
                                 size_t *ret_used, struct buf *out) MUST_CHECK;
