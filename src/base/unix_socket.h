/* Unix stream sockets. A path of more than 107 bytes is ERR_INVALID everywhere. */
#pragma once

#include "err.h"

#include <stdint.h>

struct unix_listener {
    int fd; /* listening, non-blocking; -1: none */
    char path[108];
    uint64_t device, inode; /* of the socket file that we made */
};

/* Mode 0600 from its first instant. An old socket in its place is replaced; anything else there is ERR_EXISTS. */
bool unix_listen(const char *path, struct unix_listener *ret_listener, struct err *err) MUST_CHECK;
/* Closes it, and removes the file if it is still ours. */
void unix_listener_close(struct unix_listener *listener);

/* One try. flags: 0 or SOCK_NONBLOCK. err->sys says why not: ENOENT, ECONNREFUSED, EAGAIN (nobody accepts now), ... */
bool unix_connect(const char *path, int flags, int *ret_fd, struct err *err) MUST_CHECK;
