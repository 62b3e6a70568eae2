/* The client's side of NBD on a unix socket, for the benches: handshake, and one request at a time. */
#pragma once

#include "auto.h"
#include "err.h"
#include "nbd.h"

#include <stddef.h>
#include <stdint.h>

struct nbd_client {
    int fd; /* -1: none */
    uint64_t size_bytes;
};

/* Asks for the export "". With structured, replies are structured ones; a server that has none is
 * ERR_PROTOCOL. */
bool nbd_client_connect(const char *socket_path, bool structured, struct nbd_client *ret_client,
                        struct err *err) MUST_CHECK;
void nbd_client_close(struct nbd_client *client);
#define AUTO_NBD_CLIENT AUTO(nbd_client_close)

/* For a client without structured replies: one request, and its answer. An error of the server is ERR_IO. */
bool nbd_client_read(struct nbd_client *client, uint64_t offset, void *bytes, uint32_t length,
                     struct err *err) MUST_CHECK;
bool nbd_client_write(struct nbd_client *client, uint64_t offset, const void *bytes, uint32_t length,
                      struct err *err) MUST_CHECK;
bool nbd_client_flush(struct nbd_client *client, struct err *err) MUST_CHECK;

void nbd_request_encode(uint8_t bytes[static NBD_REQUEST_BYTES], const struct nbd_request *request);
