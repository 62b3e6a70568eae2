/* What the files of the disk core share. Outside them only disk.h counts. */
#pragma once

#include "disk.h"
#include "layer.h"
#include "map.h"

/* What a write of a flush was made of, so that a flush that failed can be undone in memory. */
struct flush_item {
    struct layer *layer;
    enum { FLUSH_BITMAP, FLUSH_BAT, FLUSH_FOOTER } kind;
    uint32_t first, sectors; /* the bitmap's block; or sectors of the table */
};

/* The one flush that may be under way. Its arrays are kept and used again. */
struct flushing {
    struct disk_flush flush; /* first: a flush is cast to it */
    bool running;
    struct flush_item *items; /* as many as flush.writes */
    size_t first_capacity, last_capacity, write_capacity, item_capacity;
    uint8_t *copies;
    size_t copy_bytes, copy_capacity;
};

struct disk {
    const struct io *io;
    bool writable;
    size_t max_depth;
    char *log_dir; /* NULL: none; owned */
    uint64_t size_bytes;
    struct layer **layers; /* by number: 0 the base, depth - 1 the top; owned */
    size_t depth, capacity;
    /* List: sealed while open here, and perhaps not yet whole on stable storage, or with space to give back. */
    struct layer *unclean;
    struct index index;
    struct map map;
    struct flushing flushing;
    struct err sync_failure; /* code ERR_NONE: no sync has failed */
};

struct disk_next_top {
    struct layer *layer;
};

static inline struct layer *disk_top(const struct disk *disk)
{
    return disk->layers[disk->depth - 1];
}

/* The layers that the map covers: all that are not written. */
static inline size_t disk_covered(const struct disk *disk)
{
    return disk->writable ? disk->depth - 1 : disk->depth;
}

bool disk_range_check(const struct disk *disk, uint64_t offset, uint64_t length, struct err *err) MUST_CHECK;
/* The image alone, open for writing: what its parents hold does not count. Takes vhd, also on failure. */
bool disk_open_alone(const struct io *io, struct vhd *vhd, struct disk **ret_disk, struct err *err) MUST_CHECK;
/* A block of the top is allocated, and its bitmap in memory: marking its sectors cannot fail then. */
bool disk_block_ensure(struct disk *disk, uint32_t block, bool reserve, bool *ret_new, struct err *err) MUST_CHECK;
/* Room for one more layer. */
bool disk_reserve_layer(struct disk *disk, struct err *err) MUST_CHECK;
void flushing_done(struct flushing *flushing);

/* Opens the layers of a chain, options with nothing left to default. *ret_layers by number. Owned by the caller, array
 * too. */
bool chain_open(const struct disk_options *options, const char *top_path, struct layer ***ret_layers, size_t *ret_depth,
                struct err *err) MUST_CHECK;
void chain_free(struct layer **layers, size_t depth);
