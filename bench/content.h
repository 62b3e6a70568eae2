/* What the benches' disks hold, by seed, so that chains of different formats hold the same bytes and each
 * page can be checked without a second copy: pages of 4 KiB, each of the version of the layer that wrote it
 * last. Layer 0, the base, writes all pages of the data region; each layer above writes a few, chosen at
 * random. Never zeros. */
#pragma once

#include "bytes.h"
#include "random.h"

#include <stdint.h>

#define CONTENT_PAGE_BYTES 4096U
#define CONTENT_MAX_LAYERS 65536U

struct content {
    uint64_t seed;
    uint32_t pages;  /* of the data region, which begins at offset 0 */
    uint32_t writes; /* pages that each layer above the base writes; some may be the same */
};

/* The pages of a layer: begin, then content.writes calls of next. */
static inline struct random content_layer_begin(const struct content *content, unsigned layer)
{
    struct random pages = {.state = content->seed * CONTENT_MAX_LAYERS + layer};

    (void)random_next(&pages);
    return pages;
}

static inline uint32_t content_layer_next(const struct content *content, struct random *pages)
{
    return (uint32_t)random_below(pages, content->pages);
}

static inline void content_page(const struct content *content, uint32_t page, unsigned layer,
                                uint8_t bytes[static CONTENT_PAGE_BYTES])
{
    struct random words = {.state = (content->seed << 48) ^ ((uint64_t)layer << 32) ^ page};

    words.state = random_next(&words); /* else neighbours would be shifted copies of each other */
    for (size_t i = 0; i < CONTENT_PAGE_BYTES; i += sizeof(uint64_t))
        put_le64(bytes + i, random_next(&words) | 1);
}

/* versions[page]: the layer that wrote it last, in a chain of the layers 0 to `top`. */
static inline void content_versions(const struct content *content, unsigned top, uint16_t *versions)
{
    for (uint32_t page = 0; page < content->pages; page++)
        versions[page] = 0;
    for (unsigned layer = 1; layer <= top; layer++) {
        struct random pages = content_layer_begin(content, layer);
        for (uint32_t i = 0; i < content->writes; i++)
            versions[content_layer_next(content, &pages)] = (uint16_t)layer;
    }
}
