/* Reads a stream to its end if we die. QEMU before 8.1 leaves the guest's memory protected, and the guest hanging for ever, when the
 * reader of a background snapshot goes away; so another process has the pipe too, and waits for nothing but our end. */
#pragma once

#include "err.h"

#include <sys/types.h>

struct heir {
    pid_t pid;      /* 0: there is none */
    int control_fd; /* that it closes is our death */
};

/* stream_fd stays the caller's. */
bool heir_start(int stream_fd, struct heir *ret_heir, struct err *err) MUST_CHECK;
/* It is not needed any more: waits for its end. Nothing happens where there is none. */
void heir_end(struct heir *heir);
