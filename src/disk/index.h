/* Which layers have a block: the inverse of all block allocation tables of a chain, so that the first touch
 * of a block looks at those layers alone that have it, and no table stays in memory.
 *
 * For each map block of 2 MiB a list of (layer, place in its file), the highest layer first. */
#pragma once

#include "err.h"

#include <stddef.h>
#include <stdint.h>

#define MAP_BLOCK_SHIFT   21U
#define MAP_BLOCK_BYTES   (1U << MAP_BLOCK_SHIFT)
#define MAP_BLOCK_SECTORS (MAP_BLOCK_BYTES / 512U)

struct index_node {
    uint32_t next;  /* in nodes; 0: the end */
    uint32_t entry; /* of the layer's block allocation table */
    uint16_t layer; /* its number, 0 the base */
    uint16_t part;  /* which of the layer's blocks in this map block, where those are smaller; else 0 */
};

struct index {
    uint32_t *heads; /* one a map block; 0: no layer has it */
    uint32_t map_blocks;
    struct index_node *nodes; /* the first one is not used */
    uint32_t count, capacity;
    uint32_t free_first, free_count; /* a list of those that are no longer in use */
};

bool index_init(struct index *index, uint32_t map_blocks, struct err *err) MUST_CHECK;
void index_done(struct index *index);
/* Room for so many blocks of that size, so that index_add() cannot fail. */
bool index_reserve(struct index *index, uint32_t block_shift, uint64_t blocks, struct err *err) MUST_CHECK;
/* Parts past the last map block are left out. It takes the time of a walk past the layers that are above. */
void index_add(struct index *index, uint16_t layer, uint32_t block_shift, uint32_t block, uint32_t entry);
/* Forgets what the layer and the one above it have; those above have numbers less by one from now on. */
void index_drop_pair(struct index *index, uint16_t lower);
uint64_t index_bytes(const struct index *index);

static inline const struct index_node *index_first(const struct index *index, uint32_t map_block)
{
    return index->heads[map_block] ? &index->nodes[index->heads[map_block]] : NULL;
}

static inline const struct index_node *index_next(const struct index *index, const struct index_node *node)
{
    return node->next ? &index->nodes[node->next] : NULL;
}
