/* Descriptors: whole reads and writes, and waiting that another thread can end. */
#pragma once

#include "auto.h"
#include "err.h"

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

/* Exactly length bytes at an offset; an earlier end of the file is ERR_CORRUPT. The caller prefixes the path.
 */
bool raw_read(int fd, uint64_t offset, void *bytes, size_t length, struct err *err) MUST_CHECK;
bool raw_write(int fd, uint64_t offset, const void *bytes, size_t length, struct err *err) MUST_CHECK;

/* A flag that can be waited for beside a descriptor: an eventfd. */
bool stop_new(int *ret_stop_fd, struct err *err) MUST_CHECK;
void stop_set(int stop_fd);
/* Until fd is ready for events (of poll) or closed; ERR_CANCELLED once stop was set. */
bool stop_wait(int stop_fd, int fd, short events, struct err *err) MUST_CHECK;
/* fd never blocks any more; stop_wait() does. */
bool fd_set_nonblocking(int fd, struct err *err) MUST_CHECK;
/* A thread in which no signal is handled: those are the main thread's, and a closed pipe is an error, not
 * SIGPIPE. */
bool thread_start(void *(*run)(void *context), void *context, const char *name, pthread_t *ret_thread,
                  struct err *err) MUST_CHECK;
