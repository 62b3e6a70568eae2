#include "engine_pool.h"

#include <stdlib.h>

static unsigned class_of(size_t length)
{
    unsigned class = 0;

    while (((size_t)POOL_SMALLEST_BYTES << class) < length)
        class ++;
    return class;
}

size_t pool_real_bytes(size_t length)
{
    return (size_t)POOL_SMALLEST_BYTES << class_of(length);
}

void *pool_get(struct pool *pool, size_t length)
{
    if (length > POOL_LARGEST_BYTES)
        return NULL;
    unsigned class = class_of(length);
    struct pool_free *first = pool->free[class];
    if (!first)
        return aligned_alloc(POOL_SMALLEST_BYTES, (size_t)POOL_SMALLEST_BYTES << class);
    pool->free[class] = first->next;
    pool->free_bytes -= (size_t)POOL_SMALLEST_BYTES << class;
    return first;
}

void pool_put(struct pool *pool, void *bytes, size_t length)
{
    if (!bytes)
        return;
    size_t real_bytes = pool_real_bytes(length);
    if (pool->free_bytes + real_bytes > POOL_KEEP_BYTES) {
        free(bytes);
        return;
    }
    unsigned class = class_of(length);
    struct pool_free *first = bytes;
    first->next = pool->free[class];
    pool->free[class] = first;
    pool->free_bytes += real_bytes;
}

void pool_done(struct pool *pool)
{
    for (unsigned class = 0; class < POOL_CLASSES; class ++)
        while (pool->free[class]) {
            struct pool_free *first = pool->free[class];
            pool->free[class] = first->next;
            free(first);
        }
    pool->free_bytes = 0;
}
