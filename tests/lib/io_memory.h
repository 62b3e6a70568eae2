/* The I/O seam in memory: a file system of its own, and a power cut for it.
 *
 * All operations take effect at once for those who read. What the disk holds is another matter: a write is
 * certain to be there after a sync of its file, a name after a sync of its folder. io_memory_crash() takes
 * the power away: each write, truncation and punch that no sync covered is kept, dropped, or (a write) kept
 * in some of its 512-byte sectors; each change of a name that no folder sync covered is kept or dropped, each
 * by a choice of its own drawn from the seed. A rename is atomic. Nothing that was synced is ever lost.
 *
 * Paths are absolute; `/` exists. Not thread-safe. Files have no descriptor (fd -1). */
#pragma once

#include "io.h"

struct io_memory;

enum io_memory_kind {
    IO_MEMORY_PLAIN, /* for speed: io_memory_crash() must not be called */
    IO_MEMORY_FORGETS,
};

struct io_memory *io_memory_new(enum io_memory_kind kind);
void io_memory_free(struct io_memory *memory); /* accepts NULL; all files must be closed */
AUTO_DEFINE(auto_io_memory_free, struct io_memory, io_memory_free)
#define AUTO_IO_MEMORY AUTO(auto_io_memory_free)

const struct io *io_memory_io(struct io_memory *memory);
/* Pages of 4 KiB beyond this are ENOSPC. 0: no limit (the default). */
void io_memory_limit(struct io_memory *memory, uint64_t bytes);
uint64_t io_memory_taken_bytes(const struct io_memory *memory);

/* The power goes and comes back. All files must be closed. */
void io_memory_crash(struct io_memory *memory, uint64_t seed);
/* All is on the disk, as after an orderly shutdown. */
void io_memory_sync_all(struct io_memory *memory);
