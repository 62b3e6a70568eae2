#include "layer.h"

#include "bytes.h"
#include "vhd_bitmap.h"

#include <stdlib.h>
#include <string.h>

#define DATA_ALIGNMENT 4096U

static void writing_free(struct writing *writing)
{
    if (!writing)
        return;
    dirty_log_free(writing->log);
    free(writing->scratch);
    free(writing->loaded);
    free(writing->bitmap_dirty);
    free(writing->next_dirty);
    free(writing->bat_dirty);
    free(writing);
}
AUTO_DEFINE(auto_writing_free, struct writing, writing_free)

void layer_free(struct layer *layer)
{
    if (!layer)
        return;
    writing_free(layer->writing);
    vhd_close(layer->vhd);
    free(layer);
}

void layer_forget_log(struct layer *layer)
{
    if (layer->writing && layer->writing->log)
        dirty_log_unlink(layer->writing->log);
}

void layer_stop_writing(struct layer *layer)
{
    layer_forget_log(layer);
    writing_free(TAKE(layer->writing));
}

/* Where new blocks go. A whole footer at the end of the file says that all before it belongs to the image,
 * whoever wrote it. Without one, what the structures do not name was left by a crash, and is cut off. */
static bool find_end(const struct vhd *vhd, struct writing *writing, struct err *err)
{
    if (vhd->trailer_bytes > 0) {
        writing->end_bytes = vhd->file_bytes - vhd->trailer_bytes;
        return true;
    }
    writing->footer_dirty = true;
    return vhd_end_bytes(vhd, &writing->end_bytes, err) && io_truncate(vhd->file, writing->end_bytes, err);
}

static bool load(const struct vhd *vhd, const char *log_dir, struct writing *writing, struct err *err)
{
    bool ignored;

    if (vhd->type == VHD_FIXED)
        return true;
    if (!vhd_settle(vhd, &ignored, err) || !find_end(vhd, writing, err) ||
        !dirty_log_new(log_dir, vhd, &writing->log, err))
        return false;
    dirty_log_set_end(writing->log, writing->end_bytes);
    writing->bat = writing->log->bat;
    writing->bat_bytes = writing->log->bat_bytes;
    size_t words = vhd->block_count / 64 + 1;
    writing->bat_dirty = calloc(writing->bat_bytes / VHD_SECTOR / 64 + 1, sizeof *writing->bat_dirty);
    writing->scratch = malloc(vhd->bitmap_bytes);
    writing->loaded = calloc(words, sizeof *writing->loaded);
    writing->bitmap_dirty = calloc(words, sizeof *writing->bitmap_dirty);
    writing->next_dirty = calloc(vhd->block_count, sizeof *writing->next_dirty);
    if (writing->scratch && writing->bat_dirty && writing->loaded && writing->bitmap_dirty && writing->next_dirty)
        return true;
    dirty_log_unlink(writing->log);
    return err_oom(err);
}

bool layer_start_writing(struct layer *layer, const char *log_dir, struct err *err)
{
    AUTO(auto_writing_free) struct writing *writing = calloc(1, sizeof *writing);

    if (!writing)
        return err_oom(err);
    if (!load(layer->vhd, log_dir, writing, err))
        return false;
    layer->writing = TAKE(writing);
    return true;
}

bool layer_is_clean(const struct layer *layer)
{
    const struct writing *writing = layer->writing;

    return !writing || (!writing->data_dirty && !writing->footer_dirty && !writing->in_flush &&
                        writing->dirty_count == 0 && writing->bat_dirty_count == 0);
}

void layer_share_if_clean(struct layer *layer)
{
    struct err ignored; /* less than what is held is never refused */

    if (!layer_is_clean(layer))
        return;
    layer_forget_log(layer);
    (void)!io_lock(layer->vhd->file, IO_LOCK_SHARE, &ignored);
}

uint32_t layer_entry(const struct layer *layer, uint32_t block)
{
    return get_be32(layer->writing->bat + (size_t)block * 4);
}

static uint8_t *bits_of(const struct layer *layer, uint32_t block)
{
    return layer->writing->log->bits + (size_t)block * layer->vhd->bitmap_bytes;
}

static void bit_set(uint64_t *words, uint32_t index)
{
    words[index / 64] |= 1ULL << index % 64;
}

bool layer_bitmap(struct layer *layer, uint32_t block, const uint8_t **ret_bits, struct err *err)
{
    struct writing *writing = layer->writing;

    if (!layer_bit(writing->loaded, block)) {
        if (!dirty_log_reserve(writing->log, block, err) ||
            !vhd_bitmap_read(layer->vhd, layer_entry(layer, block), bits_of(layer, block), err))
            return false;
        bit_set(writing->loaded, block);
    }
    *ret_bits = bits_of(layer, block);
    return true;
}

bool layer_bitmap_look(struct layer *layer, uint32_t block, const uint8_t **ret_bits, struct err *err)
{
    struct writing *writing = layer->writing;
    struct err no_room;

    if (layer_bitmap(layer, block, ret_bits, &no_room))
        return true;
    if (no_room.code != ERR_NO_SPACE) {
        *err = no_room;
        return false;
    }
    *ret_bits = writing->scratch;
    return vhd_bitmap_read(layer->vhd, layer_entry(layer, block), writing->scratch, err);
}

/* The footer at the end, if it is there, lies between the old end and the new block and stays until the flush
 * writes the new one: the file is never without, but for a crash in between, and then the copy at its start
 * counts. */
static bool grow(struct layer *layer, uint64_t bitmap_offset, uint64_t new_end, bool reserve, struct err *err)
{
    struct io_file *file = layer->vhd->file;
    struct err ignored;
    uint64_t whole = new_end + VHD_FOOTER_BYTES;
    uint64_t reserved = reserve ? whole - bitmap_offset : layer->vhd->bitmap_bytes;

    /* Without room for the footer a full host would leave a file that has none at its end. */
    if (io_allocate(file, bitmap_offset, reserved, err) &&
        (reserve || io_allocate(file, new_end, VHD_FOOTER_BYTES, err)) && io_truncate(file, whole, err))
        return true;
    /* The file system may have given a part and grown the file. */
    (void)!io_truncate(file, layer->writing->end_bytes + VHD_FOOTER_BYTES, &ignored);
    return false;
}

bool layer_allocate(struct layer *layer, uint32_t block, bool reserve, struct err *err)
{
    const struct vhd *vhd = layer->vhd;
    struct writing *writing = layer->writing;
    uint64_t data = round_up(writing->end_bytes + VHD_FOOTER_BYTES + vhd->bitmap_bytes, DATA_ALIGNMENT);
    uint64_t new_end = data + vhd->block_bytes;

    if (new_end / VHD_SECTOR >= UINT32_MAX)
        return err_set(err, ERR_UNSUPPORTED, "%s: no block can lie past 2 TiB of the file", vhd->path);
    if (!dirty_log_reserve(writing->log, block, err) ||
        !grow(layer, data - vhd->bitmap_bytes, new_end, reserve, err))
        return false;
    writing->end_bytes = new_end;
    writing->footer_dirty = true;
    bit_set(writing->loaded, block); /* a bitmap that was never read is zeros in memory */
    dirty_log_set_end(writing->log, new_end);
    dirty_log_set_entry(writing->log, block, (uint32_t)((data - vhd->bitmap_bytes) / VHD_SECTOR));
    layer_bat_dirty(layer, block / (VHD_SECTOR / 4));
    layer->allocated_blocks++;
    return true;
}

bool layer_append(struct layer *layer, uint64_t bytes, uint64_t *ret_offset, struct err *err)
{
    struct writing *writing = layer->writing;
    uint64_t offset = round_up(writing->end_bytes + VHD_FOOTER_BYTES, DATA_ALIGNMENT);
    uint64_t new_end = round_up(offset + bytes, VHD_SECTOR);

    if (!grow(layer, offset, new_end, /* reserve= */ true, err))
        return false;
    writing->end_bytes = new_end;
    writing->footer_dirty = true;
    dirty_log_set_end(writing->log, new_end);
    *ret_offset = offset;
    return true;
}

void layer_bitmap_dirty(struct layer *layer, uint32_t block)
{
    struct writing *writing = layer->writing;

    if (layer_bit(writing->bitmap_dirty, block))
        return;
    bit_set(writing->bitmap_dirty, block);
    writing->next_dirty[block] = writing->first_dirty;
    writing->first_dirty = block;
    writing->dirty_count++;
}

bool layer_take_dirty(struct layer *layer, uint32_t *ret_block)
{
    struct writing *writing = layer->writing;
    uint32_t block = writing->first_dirty;

    if (writing->dirty_count == 0)
        return false;
    writing->bitmap_dirty[block / 64] &= ~(1ULL << block % 64);
    writing->first_dirty = writing->next_dirty[block];
    writing->dirty_count--;
    *ret_block = block;
    return true;
}

void layer_bat_dirty(struct layer *layer, uint32_t bat_sector)
{
    uint64_t *word = &layer->writing->bat_dirty[bat_sector / 64];
    uint64_t bit = 1ULL << bat_sector % 64;

    if (*word & bit)
        return;
    *word |= bit;
    layer->writing->bat_dirty_count++;
}

void layer_mark(struct layer *layer, uint32_t block, uint32_t first_sector, uint32_t end_sector)
{
    if (vhd_bits_set(bits_of(layer, block), first_sector, end_sector))
        layer_bitmap_dirty(layer, block);
}
