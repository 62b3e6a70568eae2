/* Numbers by seed (splitmix64), the same on every machine: a failing test names its seed and can be run
 * again. */
#pragma once

#include <stddef.h>
#include <stdint.h>

struct random {
    uint64_t state;
};

static inline uint64_t random_next(struct random *random)
{
    uint64_t z = random->state += 0x9E3779B97F4A7C15U;

    z = (z ^ z >> 30) * 0xBF58476D1CE4E5B9U;
    z = (z ^ z >> 27) * 0x94D049BB133111EBU;
    return z ^ z >> 31;
}

/* 0 to limit - 1; limit is not 0. */
static inline uint64_t random_below(struct random *random, uint64_t limit)
{
    return random_next(random) % limit;
}

static inline void random_fill(struct random *random, void *bytes, size_t length)
{
    unsigned char *out = bytes;

    for (size_t i = 0; i < length; i++)
        out[i] = (unsigned char)random_next(random);
}
