#include "index.h"

#include "bytes.h"

#include <stdlib.h>

#define MAX_NODES (UINT32_MAX / 2)

bool index_init(struct index *index, uint32_t map_blocks, struct err *err)
{
    uint32_t *heads = calloc(map_blocks, sizeof *heads);

    if (!heads)
        return err_oom(err);
    *index = (struct index){.heads = heads, .map_blocks = map_blocks, .count = 1};
    return true;
}

void index_done(struct index *index)
{
    free(index->heads);
    free(index->nodes);
    *index = (struct index){0};
}

/* How many map blocks a block of the layer touches. */
static uint32_t touched(uint32_t block_shift)
{
    return block_shift > MAP_BLOCK_SHIFT ? 1U << (block_shift - MAP_BLOCK_SHIFT) : 1;
}

bool index_reserve(struct index *index, uint32_t block_shift, uint64_t blocks, struct err *err)
{
    uint64_t need = index->count - index->free_count + touched(block_shift) * blocks;

    if (need <= index->capacity)
        return true;
    if (need > MAX_NODES)
        return err_set(err, ERR_UNSUPPORTED, "more than %u blocks in a chain", MAX_NODES);
    uint32_t capacity = (uint32_t)max_u64(need, min_u64((uint64_t)index->capacity * 3 / 2 + 64, MAX_NODES));
    struct index_node *nodes = realloc(index->nodes, capacity * sizeof *nodes);
    if (!nodes)
        return err_oom(err);
    index->nodes = nodes;
    index->capacity = capacity;
    return true;
}

static uint32_t take_place(struct index *index)
{
    uint32_t place = index->free_first;

    if (place == 0)
        return index->count++;
    index->free_first = index->nodes[place].next;
    index->free_count--;
    return place;
}

/* A layer that is above all others goes to the front at once. */
static void add_node(struct index *index, uint64_t map_block, struct index_node node)
{
    if (map_block >= index->map_blocks)
        return;
    uint32_t *link = &index->heads[map_block];
    while (*link && index->nodes[*link].layer > node.layer)
        link = &index->nodes[*link].next;
    uint32_t place = take_place(index);
    node.next = *link;
    *link = place;
    index->nodes[place] = node;
}

void index_drop_pair(struct index *index, uint16_t lower)
{
    for (uint32_t i = 0; i < index->map_blocks; i++) {
        uint32_t *link = &index->heads[i];
        while (*link) {
            uint32_t place = *link;
            struct index_node *node = &index->nodes[place];
            if (node->layer < lower)
                break;
            if (node->layer > lower + 1U) {
                node->layer--;
                link = &node->next;
                continue;
            }
            *link = node->next;
            node->next = index->free_first;
            index->free_first = place;
            index->free_count++;
        }
    }
}

void index_add(struct index *index, uint16_t layer, uint32_t block_shift, uint32_t block, uint32_t entry)
{
    struct index_node node = {.entry = entry, .layer = layer};

    if (block_shift >= MAP_BLOCK_SHIFT) {
        uint32_t parts = touched(block_shift);
        for (uint32_t i = 0; i < parts; i++)
            add_node(index, (uint64_t)block * parts + i, node);
        return;
    }
    uint32_t shift = MAP_BLOCK_SHIFT - block_shift;
    node.part = (uint16_t)(block & ((1U << shift) - 1));
    add_node(index, block >> shift, node);
}

uint64_t index_bytes(const struct index *index)
{
    return (uint64_t)index->capacity * sizeof *index->nodes +
           (uint64_t)index->map_blocks * sizeof *index->heads;
}
