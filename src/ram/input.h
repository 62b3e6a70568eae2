/* The bytes of QEMU's stream, from a pipe into memory, in two ways.
 *
 * At first one thread reads and works in turn: a buffer that stays in the processor's cache. That thread may
 * be held up by the file system (a host with many dirty pages makes writers wait), which is good while the
 * guest runs: QEMU waits for the pipe. It is bad when the guest stands still for the last part of the stream.
 * So from input_hurry() on a second thread takes the stream into memory as fast as it comes, and the first
 * works from there. If that memory is full, it goes on in the first way. */
#pragma once

#include "auto.h"
#include "err.h"

#include <pthread.h>
#include <stddef.h>
#include <stdint.h>

#define INPUT_READ_BYTES (1U << 20)
#define INPUT_HELD_MAX   (8U << 10) /* of bytes that are kept for the next time */

struct input;

/* fd is taken, also on failure; it is set to non-blocking. hurry_bytes: how much the second thread may take
 * ahead; address space, and memory only as far as it is used. */
bool input_new(int fd, size_t hurry_bytes, struct input **ret_input, struct err *err) MUST_CHECK;
void input_free(struct input *input); /* accepts NULL; both threads have ended or are this one */

/* Of the one thread that works: waits for more bytes behind those that are held. *ret_end: there are none. */
bool input_more(struct input *input, bool *ret_end, struct err *err) MUST_CHECK;
/* What is held. The bytes stay where they are until the next input_more(). */
const uint8_t *input_bytes(const struct input *input, size_t *ret_length);
/* The first `length` are done with; less than INPUT_HELD_MAX may be left. */
void input_take(struct input *input, size_t length);
/* Closes the pipe: whoever writes to it gets an error. */
void input_close(struct input *input);

/* Of any other thread. None but the last waits; stopping makes input_more() fail with ERR_CANCELLED. */
void input_hurry(struct input *input);
void input_stop(struct input *input);
/* From now on at most so many more bytes are read from the pipe, by whichever thread; UINT64_MAX: all that come, as in the
 * beginning. Whoever writes then waits. */
void input_pace(struct input *input, uint64_t bytes);
/* How many of them have not been read yet, after waiting at most so long until there are none. A closed pipe has none. */
uint64_t input_paced(struct input *input, int wait_ms);
