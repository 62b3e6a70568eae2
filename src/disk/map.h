/* The flat map: for each block of 2 MiB where its sectors are, whatever the number of layers.
 *
 * It covers the layers that do not change: all of a read-only disk, all but the top of a writable one (what
 * the top has is asked of its bitmaps first). An entry is made on first touch from the index and the bitmaps
 * of those layers that have the block, and is then one of: a hole; all in one layer, contiguous; a sorted
 * list of runs. The lists' memory is bounded: beyond it, entries are forgotten again and made anew when they
 * are next touched. */
#pragma once

#include "index.h"
#include "layer.h"

struct map_run {
    uint16_t first; /* sector in the map block; the run goes on to the next one's first */
    uint16_t layer; /* number, or MAP_NO_LAYER: zeros */
    uint32_t file_sector;
};

#define MAP_NO_LAYER           UINT16_MAX
#define MAP_MAX_LAYERS         65000U
#define MAP_DEFAULT_RUNS_LIMIT (48U << 20)

struct map_scratch;

struct map {
    uint64_t *entries; /* one a map block, see map.c; 0: not yet known */
    uint32_t count;
    uint64_t size_bytes; /* of the disk */
    uint64_t runs_bytes, runs_limit_bytes;
    uint32_t hand; /* where forgetting goes on */
    struct map_scratch *scratch;
};

/* A piece of the disk from a sector on. */
struct map_extent {
    struct layer *layer; /* NULL: zeros */
    uint64_t file_offset;
    uint64_t sectors; /* not past the map block's end */
};

bool map_init(struct map *map, uint64_t size_bytes, struct err *err) MUST_CHECK;
void map_done(struct map *map);
/* What the disk holds from first_sector on, for at most max sectors. layers: by number; covered of them
 * count. */
bool map_find(struct map *map, const struct index *index, struct layer *const *layers, size_t covered,
              uint64_t first_sector, uint64_t max, struct map_extent *ret_extent, struct err *err) MUST_CHECK;
void map_forget(struct map *map, uint32_t map_block);
uint64_t map_bytes(const struct map *map);
