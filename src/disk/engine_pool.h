/* Buffers for requests, by powers of two from 4 KiB to 32 MiB. Given back ones are kept for the next, up to a
 * limit, so that the hot path allocates nothing. One thread. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define POOL_SMALLEST_BYTES 4096U
#define POOL_LARGEST_BYTES  (32U << 20)
#define POOL_CLASSES        14U
#define POOL_KEEP_BYTES     (16U << 20) /* of free buffers, over all classes */

struct pool_free {
    struct pool_free *next;
};

struct pool {
    struct pool_free *free[POOL_CLASSES];
    size_t free_bytes;
};

/* At least length bytes (not cleared, aligned to 4096), or NULL: out of memory, or more than the largest. */
void *pool_get(struct pool *pool, size_t length);
/* length as in pool_get(). Accepts NULL. */
void pool_put(struct pool *pool, void *bytes, size_t length);
void pool_done(struct pool *pool);
/* What a buffer for length really takes. */
size_t pool_real_bytes(size_t length);
