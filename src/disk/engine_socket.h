/* The unix socket that an engine listens on. */
#pragma once

#include "err.h"

#include <stdint.h>

struct engine_socket {
    int fd; /* listening, non-blocking; -1: none */
    char path[108];
    uint64_t device, inode; /* of the socket file that we made */
};

/* Mode 0600 from its first instant. An old socket in its place is replaced; anything else there is
 * ERR_EXISTS. A path of more than 107 bytes is ERR_INVALID. */
bool engine_socket_listen(const char *path, struct engine_socket *ret_socket, struct err *err) MUST_CHECK;
/* Closes it, and removes the file if it is still ours. */
void engine_socket_close(struct engine_socket *sock);
