/* The copying of a merge: from file to file, run by run, without a look at any other image of the chain.
 *
 * A block's sectors are read in stretches: runs that lie near each other in the file are read at once, with what is between
 * them, and each is written by itself. Zeros are made as zeros, since they may hide what lies below. */
#include "disk_merge_private.h"

#include "bytes.h"
#include "vhd_bitmap.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_SECTORS ((1U << 20) / VHD_SECTOR)
#define GAP_SECTORS   ((64U << 10) / VHD_SECTOR)
#define BATCH_RUNS    128U
/* Zeros are looked for, and made, in pieces of this. */
#define GRAIN_BYTES (64U << 10)
/* The disk is kept at work while the next piece is read; a flush finds little left to do. */
#define BEHIND_BYTES (8U << 20)
#define FLUSH_EVERY  (256U << 20)

struct run {
    uint32_t first, end; /* sectors of the block */
};

/* Runs of one block, near to each other. */
struct batch {
    struct run runs[BATCH_RUNS];
    size_t count;
};

bool merge_copy_init(struct merge_copy *copy, const struct vhd *from, struct disk *to, bool keeps, struct err *err)
{
    uint64_t end = min_u64(from->size_bytes, disk_size_bytes(to));

    *copy = (struct merge_copy){.from = from, .to = to, .keeps = keeps, .end_sector = end / VHD_SECTOR};
    copy->bits = malloc(from->bitmap_bytes);
    copy->chunk = malloc((size_t)CHUNK_SECTORS * VHD_SECTOR);
    if (!copy->bits || !copy->chunk)
        return err_oom(err);
    return vhd_bat_collect(from, (uint32_t)div_round_up(copy->end_sector, from->block_bytes / VHD_SECTOR), &copy->blocks, err);
}

void merge_copy_done(struct merge_copy *copy)
{
    disk_abandon(copy->to);
    vhd_blocks_done(&copy->blocks);
    free(copy->bits);
    free(copy->chunk);
    *copy = (struct merge_copy){0};
}

/* --- what is to be copied --- */

/* Of the run, what the image has that is written to: true if it has its first sectors, *ret_length of them; else so many
 * that it has not. */
static bool is_there(const struct merge_copy *copy, uint64_t sector, uint64_t length, bool *ret_there,
                     uint64_t *ret_length, struct err *err)
{
    struct layer *layer = disk_top(copy->to);
    uint32_t block_sectors = layer->vhd->block_bytes / VHD_SECTOR;
    uint32_t block = (uint32_t)(sector / block_sectors), first = (uint32_t)(sector % block_sectors);
    uint32_t end = (uint32_t)min_u64(block_sectors, first + length);
    const uint8_t *bits;

    *ret_there = false;
    *ret_length = end - first;
    if (layer_entry(layer, block) == VHD_BAT_UNALLOCATED)
        return true;
    if (!layer_bitmap_look(layer, block, &bits, err))
        return false;
    *ret_there = vhd_bit_get(bits, first);
    *ret_length = vhd_bits_run(bits, first, end);
    return true;
}

/* The next run of the block from the sector on that is to be copied; an empty one at its end: there is none. */
static bool next_run(const struct merge_copy *copy, uint32_t sector, struct run *ret_run, struct err *err)
{
    uint32_t block_sectors = copy->from->block_bytes / VHD_SECTOR;
    uint64_t block_first = (uint64_t)copy->blocks.items[copy->next_block].block * block_sectors;
    uint32_t end = (uint32_t)min_u64(block_sectors, copy->end_sector - block_first);

    while (sector < end) {
        uint64_t length = vhd_bits_run(copy->bits, sector, end);
        bool there = false;
        if (vhd_bit_get(copy->bits, sector)) {
            if (copy->keeps && !is_there(copy, block_first + sector, length, &there, &length, err))
                return false;
            if (!there) {
                *ret_run = (struct run){.first = sector, .end = sector + (uint32_t)length};
                return true;
            }
        }
        sector += (uint32_t)length;
    }
    *ret_run = (struct run){.first = end, .end = end};
    return true;
}

/* The next runs of the block at hand that can be read at once; none: the block is done. */
static bool next_batch(struct merge_copy *copy, struct batch *ret_batch, struct err *err)
{
    uint32_t sector = copy->next_sector;
    struct run run;

    ret_batch->count = 0;
    while (ret_batch->count < BATCH_RUNS) {
        if (!next_run(copy, sector, &run, err))
            return false;
        if (run.first == run.end)
            break;
        if (ret_batch->count > 0 && (run.first - sector > GAP_SECTORS ||
                                     run.first - ret_batch->runs[0].first >= CHUNK_SECTORS))
            break;
        uint32_t start = ret_batch->count > 0 ? ret_batch->runs[0].first : run.first;
        run.end = (uint32_t)min_u64(run.end, start + CHUNK_SECTORS);
        ret_batch->runs[ret_batch->count++] = run;
        sector = run.end;
    }
    copy->next_sector = sector;
    return true;
}

/* --- writing --- */

static bool write_stretch(struct merge_copy *copy, uint64_t offset, const uint8_t *bytes, size_t length,
                          bool zeros, struct err *err)
{
    struct layer *layer = disk_top(copy->to);
    const struct vhd *vhd = layer->vhd;
    uint64_t file_offset = offset;
    bool is_new = false;

    if (vhd->type != VHD_FIXED) {
        uint32_t block = (uint32_t)(offset >> vhd->block_shift);
        bool missing = layer_entry(layer, block) == VHD_BAT_UNALLOCATED;
        if (missing && zeros && vhd->type == VHD_DYNAMIC)
            return true;
        if (!disk_block_ensure(copy->to, block, /* reserve= */ copy->is_dense && !zeros, &is_new, err))
            return false;
        file_offset = vhd_data_offset(vhd, layer_entry(layer, block)) + (offset & (vhd->block_bytes - 1));
    }
    if (zeros && length >= GRAIN_BYTES) {
        if (!is_new && !io_zero(vhd->file, file_offset, length, err))
            return false;
    } else if (!io_write(vhd->file, file_offset, bytes, length, err)) {
        return false;
    }
    disk_write_end(copy->to, offset, length);
    return true;
}

static bool write_piece(struct merge_copy *copy, uint64_t offset, const uint8_t *bytes, size_t length, bool zeros,
                        struct err *err)
{
    const struct vhd *vhd = disk_top(copy->to)->vhd;

    while (length > 0) {
        size_t part = length;
        if (vhd->type != VHD_FIXED)
            part = (size_t)min_u64(length, vhd->block_bytes - (offset & (vhd->block_bytes - 1)));
        if (!write_stretch(copy, offset, bytes, part, zeros, err))
            return false;
        offset += part;
        bytes += part;
        length -= part;
    }
    return true;
}

/* The bytes up to the next boundary of a grain, and those behind it that are alike: all zeros, or not. */
static size_t alike(uint64_t offset, const uint8_t *bytes, size_t length, bool *ret_zeros)
{
    size_t done = 0;

    while (done < length) {
        size_t part = (size_t)min_u64(length - done, GRAIN_BYTES - ((offset + done) & (GRAIN_BYTES - 1)));
        bool zeros = bytes_are_zero(bytes + done, part);
        if (done > 0 && zeros != *ret_zeros)
            break;
        *ret_zeros = zeros;
        done += part;
    }
    return done;
}

static bool write_run(struct merge_copy *copy, uint64_t offset, const uint8_t *bytes, size_t length, struct err *err)
{
    while (length > 0) {
        bool zeros = false;
        size_t part = alike(offset, bytes, length, &zeros);
        if (!write_piece(copy, offset, bytes, part, zeros, err))
            return false;
        offset += part;
        bytes += part;
        length -= part;
        copy->copied_bytes += part;
        copy->unflushed_bytes += part;
    }
    return true;
}

static bool copy_batch(struct merge_copy *copy, const struct batch *batch, struct err *err)
{
    const struct vhd *from = copy->from;
    const struct vhd_block *block = &copy->blocks.items[copy->next_block];
    uint32_t first = batch->runs[0].first, end = batch->runs[batch->count - 1].end;
    uint64_t file_offset = vhd_data_offset(from, block->entry) + (uint64_t)first * VHD_SECTOR;
    uint64_t offset = (uint64_t)block->block << from->block_shift;

    if (!io_read(from->file, file_offset, copy->chunk, (size_t)(end - first) * VHD_SECTOR, err))
        return false;
    for (size_t i = 0; i < batch->count; i++) {
        const struct run *run = &batch->runs[i];
        if (!write_run(copy, offset + (uint64_t)run->first * VHD_SECTOR,
                       copy->chunk + (size_t)(run->first - first) * VHD_SECTOR,
                       (size_t)(run->end - run->first) * VHD_SECTOR, err))
            return false;
    }
    return true;
}

/* --- step by step --- */

/* Is so much of the block to be copied that its space is worth to be taken in one piece? */
static bool count_dense(const struct merge_copy *copy)
{
    uint32_t sectors = copy->from->block_bytes / VHD_SECTOR, present = 0;

    for (uint32_t i = 0; i < sectors / 8; i++)
        present += (uint32_t)__builtin_popcount(copy->bits[i]);
    return present > sectors / 2;
}

static bool copy_some(struct merge_copy *copy, uint64_t *ret_looked_bytes, struct err *err)
{
    struct batch batch;

    *ret_looked_bytes = copy->from->bitmap_bytes;
    if (copy->next_sector == 0) {
        if (!vhd_bitmap_read(copy->from, copy->blocks.items[copy->next_block].entry, copy->bits, err))
            return false;
        copy->is_dense = count_dense(copy);
    }
    if (!next_batch(copy, &batch, err))
        return false;
    if (batch.count == 0) {
        copy->next_block++;
        copy->next_sector = 0;
        return true;
    }
    *ret_looked_bytes = (uint64_t)(batch.runs[batch.count - 1].end - batch.runs[0].first) * VHD_SECTOR;
    return copy_batch(copy, &batch, err);
}

static bool flush_now_and_then(struct merge_copy *copy, uint64_t before, struct err *err)
{
    if (copy->unflushed_bytes / BEHIND_BYTES != before / BEHIND_BYTES)
        io_write_behind(disk_top(copy->to)->vhd->file, /* wait= */ false);
    if (copy->unflushed_bytes < FLUSH_EVERY)
        return true;
    copy->unflushed_bytes = 0;
    return disk_flush(copy->to, err);
}

bool merge_copy_step(struct merge_copy *copy, uint64_t budget_bytes, bool *ret_more, struct err *err)
{
    uint64_t looked = 0;

    while (looked < budget_bytes && copy->next_block < copy->blocks.count) {
        uint64_t bytes, before = copy->unflushed_bytes;
        if (!copy_some(copy, &bytes, err) || !flush_now_and_then(copy, before, err))
            return false;
        looked += bytes;
    }
    *ret_more = copy->next_block < copy->blocks.count;
    return true;
}
