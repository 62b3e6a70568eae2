#include "map.h"

#include "bytes.h"
#include "vhd_bitmap.h"

#include <stdlib.h>
#include <string.h>

/* An entry of the map:
 *   0           not known
 *   low bits 1  a hole
 *   low bits 2  all in a layer: its number in bits 16-31, the first file sector in bits 32-63
 *   low bits 3  a pointer to struct run_list, 3 more than the pointer */
enum { TAG_HOLE = 1, TAG_LAYER = 2, TAG_RUNS = 3, TAG_MASK = 3 };

#define WORDS (MAP_BLOCK_SECTORS / 64)

/* A list of runs begins with where to look: for each stretch of the map block the run that its first sector is in. With
 * runs all over the block a search by halves alone would be a miss of the processor's cache for each step. */
#define BUCKET_SECTORS 64U
#define BUCKETS        (MAP_BLOCK_SECTORS / BUCKET_SECTORS)

struct run_list {
    uint32_t count;
    uint16_t buckets[BUCKETS + 1]; /* the last one: the last run */
    struct map_run runs[];
};

/* A stretch of a map block that lies contiguously in a layer's file, as far as its bitmap says that it is
 * there. */
struct source {
    uint16_t layer;
    uint32_t first, end;        /* sectors of the map block */
    uint64_t first_file_sector; /* of `first` */
};

struct map_scratch {
    uint64_t todo[WORDS];              /* sectors that no layer has claimed; the first one is the top bit */
    uint64_t present[WORDS];           /* sectors that the layer at hand has */
    uint16_t owner[MAP_BLOCK_SECTORS]; /* 1 + index in sources; 0: none */
    struct source sources[MAP_BLOCK_SECTORS]; /* those that own a sector: never more than there are sectors */
    uint32_t source_count, todo_count;
    struct map_run runs[MAP_BLOCK_SECTORS];
    uint8_t *bits; /* a bitmap from a file; grows to the largest */
    uint32_t bits_bytes;
};

bool map_init(struct map *map, uint64_t size_bytes, struct err *err)
{
    uint32_t count = (uint32_t)div_round_up(size_bytes, MAP_BLOCK_BYTES);
    uint64_t *entries = calloc(count, sizeof *entries);
    struct map_scratch *scratch = calloc(1, sizeof *scratch);

    if (!entries || !scratch) {
        free(entries);
        free(scratch);
        return err_oom(err);
    }
    *map = (struct map){.entries = entries,
                        .count = count,
                        .size_bytes = size_bytes,
                        .runs_limit_bytes = MAP_DEFAULT_RUNS_LIMIT,
                        .scratch = scratch};
    return true;
}

static struct run_list *entry_runs(uint64_t entry)
{
    return (struct run_list *)(uintptr_t)(entry - TAG_RUNS);
}

static uint64_t list_bytes(uint32_t count)
{
    return sizeof(struct run_list) + (uint64_t)count * sizeof(struct map_run);
}

void map_forget(struct map *map, uint32_t map_block)
{
    uint64_t entry = map->entries[map_block];

    if ((entry & TAG_MASK) == TAG_RUNS) {
        map->runs_bytes -= list_bytes(entry_runs(entry)->count);
        free(entry_runs(entry));
    }
    map->entries[map_block] = 0;
}

void map_done(struct map *map)
{
    for (uint32_t i = 0; i < map->count; i++)
        map_forget(map, i);
    free(map->entries);
    if (map->scratch)
        free(map->scratch->bits);
    free(map->scratch);
    *map = (struct map){0};
}

uint64_t map_bytes(const struct map *map)
{
    return (uint64_t)map->count * sizeof *map->entries + map->runs_bytes + sizeof *map->scratch;
}

/* --- making an entry --- */

static void words_set(uint64_t *words, uint32_t first, uint32_t end)
{
    for (uint32_t s = first; s < end;) {
        uint32_t stop = (uint32_t)min_u64(end, (s | 63) + 1);
        uint64_t mask = UINT64_MAX >> (s & 63);
        if (stop % 64 != 0)
            mask &= ~(UINT64_MAX >> (stop & 63));
        words[s / 64] |= mask;
        s = stop;
    }
}

/* present = the bits of the layer's bitmap from first_bit on, for the map block's sectors first to end - 1.
 */
static void present_from_bits(struct map_scratch *scratch, const uint8_t *bits, uint32_t first_bit,
                              uint32_t first, uint32_t end)
{
    while (first < end) {
        if (first % 64 == 0 && end - first >= 64 && first_bit % 8 == 0) {
            scratch->present[first / 64] = get_be64(bits + first_bit / 8);
            first += 64;
            first_bit += 64;
            continue;
        }
        if (vhd_bit_get(bits, first_bit))
            scratch->present[first / 64] |= 1ULL << (63 - first % 64);
        first++;
        first_bit++;
    }
}

/* The layer gets what it has and nobody above it had. */
static void claim(struct map_scratch *scratch, const struct source *source)
{
    bool any = false;

    for (uint32_t w = source->first / 64; w < div_round_up(source->end, 64); w++) {
        uint64_t take = scratch->present[w] & scratch->todo[w];
        scratch->todo[w] &= ~take;
        any = any || take != 0;
        scratch->todo_count -= (uint32_t)__builtin_popcountll(take);
        for (; take != 0; take &= ~(1ULL << (63 - __builtin_clzll(take))))
            scratch->owner[w * 64 + (uint32_t)__builtin_clzll(take)] = (uint16_t)(scratch->source_count + 1);
    }
    if (any)
        scratch->sources[scratch->source_count++] = *source;
}

/* The bitmap of a layer's block: of memory where the layer was written a moment ago, else of the file. */
static bool get_bits(struct map_scratch *scratch, const struct layer *layer, uint32_t block, uint32_t entry,
                     const uint8_t **ret_bits, struct err *err)
{
    const struct vhd *vhd = layer->vhd;
    const uint8_t *in_memory = layer_bitmap_in_memory(layer, block);

    if (in_memory) {
        *ret_bits = in_memory;
        return true;
    }
    if (scratch->bits_bytes < vhd->bitmap_bytes) {
        uint8_t *bits = realloc(scratch->bits, vhd->bitmap_bytes);
        if (!bits)
            return err_oom(err);
        scratch->bits = bits;
        scratch->bits_bytes = vhd->bitmap_bytes;
    }
    if (!vhd_bitmap_read(vhd, entry, scratch->bits, err))
        return false;
    *ret_bits = scratch->bits;
    return true;
}

/* Limits a source to what is seen of its layer; false if nothing is left. */
static bool clip(const struct layer *layer, uint64_t block_first_sector, struct source *source)
{
    uint64_t visible = layer->visible_bytes / VHD_SECTOR;

    if (visible <= block_first_sector + source->first)
        return false;
    source->end = (uint32_t)min_u64(source->end, visible - block_first_sector);
    return true;
}

static bool add_node(struct map_scratch *scratch, const struct layer *layer, uint32_t map_block,
                     const struct index_node *node, struct err *err)
{
    const struct vhd *vhd = layer->vhd;
    bool small = vhd->block_shift < MAP_BLOCK_SHIFT;
    uint32_t block_sectors = vhd->block_bytes / VHD_SECTOR;
    uint32_t first = small ? node->part * block_sectors : 0;
    /* Sectors of the layer's block before the map block, where that is the larger one. */
    uint32_t skipped = small ? 0 : (uint32_t)((uint64_t)map_block * MAP_BLOCK_SECTORS % block_sectors);
    struct source source = {
        .layer = layer->number,
        .first = first,
        .end = small ? first + block_sectors : MAP_BLOCK_SECTORS,
        .first_file_sector = vhd_data_offset(vhd, node->entry) / VHD_SECTOR + skipped,
    };

    if (!clip(layer, (uint64_t)map_block * MAP_BLOCK_SECTORS, &source))
        return true;
    memset(scratch->present, 0, sizeof scratch->present);
    if (vhd->type == VHD_DYNAMIC) {
        /* Sectors whose bit is 0 hold zeros: the bitmap need not be asked. */
        words_set(scratch->present, source.first, source.end);
    } else {
        uint64_t block = ((uint64_t)map_block * MAP_BLOCK_SECTORS + first) / block_sectors;
        const uint8_t *bits;
        if (!get_bits(scratch, layer, (uint32_t)block, node->entry, &bits, err))
            return false;
        present_from_bits(scratch, bits, skipped, source.first, source.end);
    }
    claim(scratch, &source);
    return true;
}

static void add_fixed(struct map_scratch *scratch, const struct layer *base, uint32_t map_block)
{
    struct source source = {
        .layer = base->number,
        .end = MAP_BLOCK_SECTORS,
        .first_file_sector = (uint64_t)map_block * MAP_BLOCK_SECTORS,
    };

    if (!clip(base, source.first_file_sector, &source))
        return;
    memset(scratch->present, 0, sizeof scratch->present);
    words_set(scratch->present, 0, source.end);
    claim(scratch, &source);
}

static uint32_t build_runs(struct map_scratch *scratch, uint32_t sectors)
{
    uint32_t count = 0;

    for (uint32_t s = 0; s < sectors; s++) {
        uint16_t owner = scratch->owner[s];
        if (s > 0 && owner == scratch->owner[s - 1])
            continue;
        struct map_run *run = &scratch->runs[count++];
        *run = (struct map_run){.first = (uint16_t)s, .layer = MAP_NO_LAYER};
        if (owner != 0) {
            const struct source *source = &scratch->sources[owner - 1];
            run->layer = source->layer;
            run->file_sector = (uint32_t)(source->first_file_sector + s - source->first);
        }
    }
    return count;
}

static void fill_buckets(struct run_list *list)
{
    uint32_t run = 0;

    for (uint32_t bucket = 0; bucket < BUCKETS; bucket++) {
        while (run + 1 < list->count && list->runs[run + 1].first <= bucket * BUCKET_SECTORS)
            run++;
        list->buckets[bucket] = (uint16_t)run;
    }
    list->buckets[BUCKETS] = (uint16_t)(list->count - 1);
}

static bool store_runs(struct map *map, uint32_t map_block, uint32_t count, struct err *err)
{
    const struct map_run *runs = map->scratch->runs;

    if (count == 1) {
        map->entries[map_block] = runs[0].layer == MAP_NO_LAYER ? TAG_HOLE
                                                                : TAG_LAYER | (uint64_t)runs[0].layer << 16 |
                                                                      (uint64_t)runs[0].file_sector << 32;
        return true;
    }
    struct run_list *list = malloc(list_bytes(count));
    if (!list)
        return err_oom(err);
    list->count = count;
    memcpy(list->runs, runs, count * sizeof *runs);
    fill_buckets(list);
    map->runs_bytes += list_bytes(count);
    map->entries[map_block] = (uint64_t)(uintptr_t)list + TAG_RUNS;
    return true;
}

/* Keeps the lists below their limit: forgets in the order of the disk, going round. */
static void make_room(struct map *map)
{
    for (uint32_t i = 0; i < map->count && map->runs_bytes > map->runs_limit_bytes; i++) {
        if ((map->entries[map->hand] & TAG_MASK) == TAG_RUNS)
            map_forget(map, map->hand);
        map->hand = (map->hand + 1) % map->count;
    }
}

static bool make_entry(struct map *map, const struct index *index, struct layer *const *layers,
                       size_t covered, uint32_t map_block, struct err *err)
{
    struct map_scratch *scratch = map->scratch;
    uint64_t rest = (map->size_bytes - (uint64_t)map_block * MAP_BLOCK_BYTES) / VHD_SECTOR;
    uint32_t sectors = (uint32_t)min_u64(rest, MAP_BLOCK_SECTORS);

    bool fixed = covered > 0 && layers[0]->vhd->type == VHD_FIXED;
    if (!index_first(index, map_block) && !fixed) {
        map->entries[map_block] = TAG_HOLE;
        return true;
    }
    make_room(map);
    memset(scratch->todo, 0, sizeof scratch->todo);
    words_set(scratch->todo, 0, sectors);
    memset(scratch->owner, 0, sizeof scratch->owner);
    scratch->source_count = 0;
    scratch->todo_count = sectors;
    for (const struct index_node *node = index_first(index, map_block); node && scratch->todo_count > 0;
         node = index_next(index, node))
        if (node->layer < covered && !add_node(scratch, layers[node->layer], map_block, node, err))
            return false;
    if (fixed)
        add_fixed(scratch, layers[0], map_block);
    return store_runs(map, map_block, build_runs(scratch, sectors), err);
}

/* --- looking up --- */

static void find_run(const struct run_list *list, struct layer *const *layers, uint32_t sector,
                     uint64_t limit, struct map_extent *ret_extent)
{
    uint32_t bucket = sector / BUCKET_SECTORS;
    uint32_t low = list->buckets[bucket], high = list->buckets[bucket + 1] + 1U; /* at low or above, below high */

    while (high - low > 1) {
        uint32_t middle = (low + high) / 2;
        if (list->runs[middle].first <= sector)
            low = middle;
        else
            high = middle;
    }
    const struct map_run *run = &list->runs[low];
    uint64_t end = low + 1 < list->count ? list->runs[low + 1].first : MAP_BLOCK_SECTORS;
    *ret_extent = (struct map_extent){
        .layer = run->layer == MAP_NO_LAYER ? NULL : layers[run->layer],
        .file_offset = ((uint64_t)run->file_sector + sector - run->first) * VHD_SECTOR,
        .sectors = min_u64(end - sector, limit),
    };
}

bool map_find(struct map *map, const struct index *index, struct layer *const *layers, size_t covered,
              uint64_t first_sector, uint64_t max, struct map_extent *ret_extent, struct err *err)
{
    uint32_t map_block = (uint32_t)(first_sector / MAP_BLOCK_SECTORS);
    uint32_t sector = (uint32_t)(first_sector % MAP_BLOCK_SECTORS);
    uint64_t limit = min_u64(max, MAP_BLOCK_SECTORS - sector);

    if (map->entries[map_block] == 0 && !make_entry(map, index, layers, covered, map_block, err))
        return false;
    uint64_t entry = map->entries[map_block];
    switch (entry & TAG_MASK) {
    case TAG_RUNS:
        find_run(entry_runs(entry), layers, sector, limit, ret_extent);
        return true;
    case TAG_LAYER:
        *ret_extent = (struct map_extent){.layer = layers[entry >> 16 & 0xFFFF],
                                          .file_offset = ((entry >> 32) + sector) * VHD_SECTOR,
                                          .sectors = limit};
        return true;
    default:
        *ret_extent = (struct map_extent){.sectors = limit};
        return true;
    }
}
