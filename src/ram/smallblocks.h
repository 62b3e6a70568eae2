/* The memory blocks besides RAM_BLOCK (ROMs, firmware, video memory): the last copy of each of their pages,
 * kept in memory until the stream of the .vsv is written. */
#pragma once

#include "stream.h"

/* All of them together; video memory of a quarter gigabyte is the largest that is in use. */
#define SMALL_BYTES_MAX (1ULL << 30)

struct smallblocks;

/* Room for every block but the one of index `without`. More than SMALL_BYTES_MAX is ERR_UNSUPPORTED: then the
 * machine has a second block of main memory. */
bool smallblocks_new(const struct stream_block *blocks, unsigned count, unsigned without,
                     struct smallblocks **ret_small, struct err *err) MUST_CHECK;
void smallblocks_free(struct smallblocks *small); /* accepts NULL */

/* A page of a block (not `without`) at an offset inside it; bytes are copied, NULL is zeros. */
void smallblocks_page(struct smallblocks *small, unsigned block, uint64_t offset, const uint8_t *bytes);

/* The pages as records of a RAM section, in the order of blocks and offsets. Pages that never came are
 * left out: the loader's own stay. */
typedef bool smallblocks_put(void *context, const void *bytes, size_t length, struct err *err);
bool smallblocks_write(const struct smallblocks *small, smallblocks_put *put, void *context,
                       struct err *err) MUST_CHECK;
