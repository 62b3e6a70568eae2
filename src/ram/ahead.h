/* Makes the holes of a file present in the page cache ahead of somebody who goes through its mapping from the
 * begin to the end: QEMU, when it saves memory that is mapped from a `.bin`. It would make them page by page,
 * as it misses them, and that is several times slower. A few hundred MiB ahead, so that it is no more than
 * what will be wanted soon; behind everything else that wants a processor. What is no hole QEMU's own misses
 * bring in large pieces. */
#pragma once

#include <stdint.h>

struct ahead;

/* NULL if it cannot be had: it is only faster. fd stays the caller's. Nothing happens before the first
 * ahead_reached(). */
struct ahead *ahead_start(int fd, uint64_t bytes, uint64_t window_bytes);
/* From any thread, as often as one likes: so far has he come. */
void ahead_reached(struct ahead *ahead, uint64_t offset); /* accepts NULL */
/* From any thread: no further. Never waits. */
void ahead_stop(struct ahead *ahead); /* accepts NULL */
void ahead_end(struct ahead *ahead);  /* stops, waits for the piece that it is at, frees; accepts NULL */
