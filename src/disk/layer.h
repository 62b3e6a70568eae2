/* One image of a chain; and, for the top and for tops that were sealed a moment ago, what of it is in memory
 * and not yet on stable storage.
 *
 * The rule of a flush (disk.h): a bit or a BAT entry reaches the file only after what it speaks of is
 * durable. So they change in memory first, and the flush writes copies of them. */
#pragma once

#include "dirty_log.h"

struct writing {
    struct dirty_log *log; /* owned; has the table and the bitmaps: */
    uint8_t *bat;          /* as in the file: big-endian, padded */
    size_t bat_bytes;
    uint64_t *bat_dirty; /* a bit for each 512 bytes of it */
    uint32_t bat_dirty_count;
    uint8_t *scratch;        /* room for a bitmap that has none in the log */
    uint64_t *loaded;        /* a bit for each block whose bitmap is in memory */
    uint64_t *bitmap_dirty;  /* likewise, for those that the file does not have so */
    uint32_t *next_dirty;    /* the list of them, by block; read by layer_take_dirty() alone */
    uint32_t first_dirty, dirty_count;
    uint64_t end_bytes; /* where the footer belongs: behind all else */
    bool data_dirty;    /* written or zeroed since the last flush began */
    bool footer_dirty;  /* the file has grown, or the footer at its end was missing */
    bool in_flush;
    uint32_t release_block, release_sector; /* where disk_release_next() goes on */
};

struct layer {
    struct vhd *vhd; /* owned */
    uint16_t number; /* 0: the base */
    bool parent_time_differs;
    bool is_lent; /* disk_lend() */
    uint64_t visible_bytes; /* less than its size where a layer between it and the top is smaller */
    uint64_t allocated_blocks;
    struct writing *writing;    /* NULL: nothing in memory */
    struct layer *next_unclean; /* disk->unclean */
};

/* A dirty log of it is left behind, as by a kill. Accepts NULL. */
void layer_free(struct layer *layer);
AUTO_DEFINE(auto_layer_free, struct layer, layer_free)
#define AUTO_LAYER AUTO(auto_layer_free)

/* For an image opened with IO_WRITE. Cuts off what a crash left behind the image's end: new blocks must read
 * as zeros. log_dir: where its dirty log is kept; NULL: nowhere. */
bool layer_start_writing(struct layer *layer, const char *log_dir, struct err *err) MUST_CHECK;
/* The dirty log goes, what is in memory stays. */
void layer_forget_log(struct layer *layer);
/* Of a sealed layer: if all is in the file, its dirty log goes and others may read it from now on. */
void layer_share_if_clean(struct layer *layer);
/* Forgets what is in memory, the dirty log too: all is in the file, or will never be read. */
void layer_stop_writing(struct layer *layer);
bool layer_is_clean(const struct layer *layer);

/* These are for a dynamic or differencing layer with writing. */
uint32_t layer_entry(const struct layer *layer, uint32_t block);
/* The block's bitmap, for reading: good until the next call. It stays in memory if there is room for it. The block must be
 * allocated. */
bool layer_bitmap_look(struct layer *layer, uint32_t block, const uint8_t **ret_bits, struct err *err) MUST_CHECK;
/* The block's bitmap in memory, read from the file if it was not. The block must be allocated. */
bool layer_bitmap(struct layer *layer, uint32_t block, const uint8_t **ret_bits, struct err *err) MUST_CHECK;
/* Appends a block, all bits 0, data zeros. reserve: the space of its data, too, is taken from the file system
 * now. On failure (ERR_NO_SPACE, ...) nothing has changed. */
bool layer_allocate(struct layer *layer, uint32_t block, bool reserve, struct err *err) MUST_CHECK;
/* Room for other structures behind all else. On failure nothing has changed. */
bool layer_append(struct layer *layer, uint64_t bytes, uint64_t *ret_offset, struct err *err) MUST_CHECK;
/* Sets bits; the block's bitmap must be in memory. Cannot fail. */
void layer_mark(struct layer *layer, uint32_t block, uint32_t first_sector, uint32_t end_sector);

void layer_bitmap_dirty(struct layer *layer, uint32_t block);
/* A block whose bitmap is dirty, which it is then no longer; false: there is none. */
bool layer_take_dirty(struct layer *layer, uint32_t *ret_block);
void layer_bat_dirty(struct layer *layer, uint32_t bat_sector);

static inline bool layer_bit(const uint64_t *words, uint32_t index)
{
    return words[index / 64] >> index % 64 & 1;
}
/* The bitmap of a block if it is in memory, else NULL. */
static inline const uint8_t *layer_bitmap_in_memory(const struct layer *layer, uint32_t block)
{
    const struct writing *writing = layer->writing;

    if (!writing || !writing->log || !layer_bit(writing->loaded, block))
        return NULL;
    return writing->log->bits + (size_t)block * writing->log->bitmap_bytes;
}
