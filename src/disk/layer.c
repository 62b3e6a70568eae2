#include "layer.h"

#include "bytes.h"
#include "vhd_bitmap.h"

#include <stdlib.h>
#include <string.h>

#define DATA_ALIGNMENT 4096U

static void writing_free(struct writing *writing, uint32_t block_count)
{
    if (!writing)
        return;
    if (writing->bitmaps)
        for (uint32_t i = 0; i < block_count; i++)
            free(writing->bitmaps[i]);
    free(writing->bitmaps);
    free(writing->bat_dirty);
    free(writing->bat);
    free(writing);
}

void layer_free(struct layer *layer)
{
    if (!layer)
        return;
    layer_stop_writing(layer);
    vhd_close(layer->vhd);
    free(layer);
}

void layer_stop_writing(struct layer *layer)
{
    writing_free(TAKE(layer->writing), layer->vhd ? layer->vhd->block_count : 0);
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

static bool load(const struct vhd *vhd, struct writing *writing, struct err *err)
{
    if (vhd->type == VHD_FIXED)
        return true;
    bool ignored;
    if (!vhd_settle(vhd, &ignored, err) || !vhd_bat_read(vhd, &writing->bat, &writing->bat_bytes, err))
        return false;
    writing->bat_dirty = calloc(writing->bat_bytes / VHD_SECTOR / 64 + 1, sizeof *writing->bat_dirty);
    writing->bitmaps = calloc(vhd->block_count, sizeof *writing->bitmaps);
    if (!writing->bat_dirty || !writing->bitmaps)
        return err_oom(err);
    return find_end(vhd, writing, err);
}

bool layer_start_writing(struct layer *layer, struct err *err)
{
    struct writing *writing = calloc(1, sizeof *writing);

    if (!writing)
        return err_oom(err);
    if (!load(layer->vhd, writing, err)) {
        writing_free(writing, layer->vhd->block_count);
        return false;
    }
    layer->writing = writing;
    return true;
}

bool layer_is_clean(const struct layer *layer)
{
    const struct writing *writing = layer->writing;

    return !writing || (!writing->data_dirty && !writing->footer_dirty && !writing->in_flush &&
                        !writing->dirty && writing->bat_dirty_count == 0);
}

uint32_t layer_entry(const struct layer *layer, uint32_t block)
{
    return get_be32(layer->writing->bat + (size_t)block * 4);
}

static struct bitmap *bitmap_new(const struct vhd *vhd, uint32_t block)
{
    struct bitmap *bitmap = calloc(1, sizeof *bitmap + vhd->bitmap_bytes);

    if (bitmap)
        bitmap->block = block;
    return bitmap;
}

bool layer_bitmap(struct layer *layer, uint32_t block, struct bitmap **ret_bitmap, struct err *err)
{
    struct bitmap **slot = &layer->writing->bitmaps[block];

    if (!*slot) {
        AUTO_FREE struct bitmap *bitmap = bitmap_new(layer->vhd, block);
        if (!bitmap)
            return err_oom(err);
        if (!vhd_bitmap_read(layer->vhd, layer_entry(layer, block), bitmap->bits, err))
            return false;
        *slot = TAKE(bitmap);
    }
    *ret_bitmap = *slot;
    return true;
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

    if (io_allocate(file, bitmap_offset, reserved, err) && io_truncate(file, whole, err))
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
    AUTO_FREE struct bitmap *bitmap = bitmap_new(vhd, block);

    if (!bitmap)
        return err_oom(err);
    if (new_end / VHD_SECTOR >= UINT32_MAX)
        return err_set(err, ERR_UNSUPPORTED, "%s: no block can lie past 2 TiB of the file", vhd->path);
    if (!grow(layer, data - vhd->bitmap_bytes, new_end, reserve, err))
        return false;
    writing->end_bytes = new_end;
    writing->footer_dirty = true;
    writing->bitmaps[block] = TAKE(bitmap);
    put_be32(writing->bat + (size_t)block * 4, (uint32_t)((data - vhd->bitmap_bytes) / VHD_SECTOR));
    layer_bat_dirty(layer, block / (VHD_SECTOR / 4));
    layer->allocated_blocks++;
    return true;
}

void layer_bitmap_dirty(struct layer *layer, struct bitmap *bitmap)
{
    if (bitmap->dirty)
        return;
    bitmap->dirty = true;
    bitmap->next_dirty = layer->writing->dirty;
    layer->writing->dirty = bitmap;
    layer->writing->dirty_count++;
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
    struct bitmap *bitmap = layer->writing->bitmaps[block];

    if (vhd_bits_set(bitmap->bits, first_sector, end_sector))
        layer_bitmap_dirty(layer, bitmap);
}
