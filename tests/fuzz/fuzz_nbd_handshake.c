/* The handshake's parser and the request decoder on any bytes: nothing is read past what came, and what is
 * used never exceeds what was given. */
#include "nbd_handshake.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

/* Exactly as long as what it holds, so that one byte further is found. */
static uint8_t *exact_copy(const uint8_t *bytes, size_t length)
{
    uint8_t *copy = malloc(length > 0 ? length : 1);

    if (!copy)
        abort();
    memcpy(copy, bytes, length);
    return copy;
}

static void requests_decode(const uint8_t *bytes, size_t length, bool structured, bool context)
{
    struct nbd_terms terms = {.size_bytes = 1 << 20, .structured = structured, .allocation_context = context};
    struct nbd_request request;

    for (; length >= NBD_REQUEST_BYTES; bytes += NBD_REQUEST_BYTES, length -= NBD_REQUEST_BYTES)
        if (nbd_request_decode(bytes, &request) && nbd_request_check(&request, &terms) == NBD_OK &&
            request.type != NBD_CMD_FLUSH && request.offset + request.length > terms.size_bytes)
            abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static const struct nbd_export EXPORT = {.name = "disk0", .size_bytes = 1 << 20};
    struct nbd_handshake handshake;
    struct buf out = BUF_INIT;
    uint8_t *copy = exact_copy(bytes, length);
    size_t position = 0, used = 0;
    enum nbd_step step = NBD_MORE;

    if (!nbd_handshake_init(&handshake, &EXPORT, &out))
        abort();
    do {
        step = nbd_handshake_feed(&handshake, copy + position, length - position, &used, &out);
        if (used > length - position)
            abort();
        position += used;
    } while (step == NBD_MORE && used > 0);
    if (step == NBD_TRANSMIT)
        requests_decode(copy + position, length - position, handshake.structured,
                        handshake.allocation_context);
    nbd_handshake_done(&handshake);
    buf_done(&out);
    free(copy);
    return 0;
}
