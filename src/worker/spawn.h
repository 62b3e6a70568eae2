/* Starting a worker. */
#pragma once

#include "err.h"

/* Starts a worker for the VM's folder as a process of its own session; *ret_fd is connected to it as its first client. */
bool worker_spawn(const char *vm_dir, int *ret_fd, struct err *err) MUST_CHECK;
