/* How much larger an image becomes by a merge: the sectors that it lacks, by the bitmaps of both. */
#include "bytes.h"
#include "disk_tools.h"
#include "vhd_bitmap.h"

#include <stdlib.h>

struct measuring {
    struct vhd *child, *parent;
    const struct vhd *from, *to;
    uint8_t *to_table; /* NULL: a fixed image; owned, as are: */
    uint8_t *from_bits, *to_bits;
    uint32_t to_entry; /* of to_bits; VHD_BAT_UNALLOCATED: none has been read */
    uint64_t blocks, next_block, step; /* of `from`; each step-th is looked at */
    uint64_t seen_blocks, new_bytes;   /* what those bring */
};

static void measuring_done(struct measuring *measuring)
{
    free(measuring->to_table);
    free(measuring->from_bits);
    free(measuring->to_bits);
    vhd_close(measuring->parent);
    vhd_close(measuring->child);
}

static uint32_t to_entry_of(const struct measuring *measuring, uint64_t sector)
{
    uint64_t block = sector / (measuring->to->block_bytes / VHD_SECTOR);

    return block < measuring->to->block_count ? get_be32(measuring->to_table + block * 4) : VHD_BAT_UNALLOCATED;
}

/* Does `to` have the sector? *length: of how many from there on it is said, at most what it was. */
static bool is_there(struct measuring *measuring, uint64_t sector, uint32_t *length, bool *ret_there, struct err *err)
{
    const struct vhd *to = measuring->to;
    uint32_t block_sectors = to->block_bytes / VHD_SECTOR, first = (uint32_t)(sector % block_sectors);
    uint32_t end = (uint32_t)min_u64(block_sectors, (uint64_t)first + *length);
    uint32_t entry = to_entry_of(measuring, sector);

    *ret_there = false;
    *length = end - first;
    if (entry == VHD_BAT_UNALLOCATED)
        return true;
    if (entry != measuring->to_entry && !vhd_bitmap_read(to, entry, measuring->to_bits, err))
        return false;
    measuring->to_entry = entry;
    *ret_there = vhd_bit_get(measuring->to_bits, first);
    *length = vhd_bits_run(measuring->to_bits, first, end);
    return true;
}

static bool measure_block(struct measuring *measuring, uint32_t block, uint32_t entry, struct err *err)
{
    const struct vhd *from = measuring->from;
    uint32_t end = from->block_bytes / VHD_SECTOR;
    uint64_t first = (uint64_t)block * end;

    if (!vhd_bitmap_read(from, entry, measuring->from_bits, err))
        return false;
    if (measuring->to_table && to_entry_of(measuring, first) == VHD_BAT_UNALLOCATED)
        measuring->new_bytes += measuring->to->bitmap_bytes;
    for (uint32_t sector = 0, length; sector < end; sector += length) {
        bool there = false;
        length = vhd_bits_run(measuring->from_bits, sector, end);
        if (!vhd_bit_get(measuring->from_bits, sector))
            continue;
        if (measuring->to_table && !is_there(measuring, first + sector, &length, &there, err))
            return false;
        measuring->new_bytes += there ? 0 : (uint64_t)length * VHD_SECTOR;
    }
    return true;
}

static bool count_block(void *context, uint32_t block, uint32_t entry, struct err *err)
{
    struct measuring *measuring = context;

    (void)block;
    (void)entry;
    (void)err;
    measuring->blocks++;
    return true;
}

static bool look_at_block(void *context, uint32_t block, uint32_t entry, struct err *err)
{
    struct measuring *measuring = context;

    if (measuring->next_block++ % measuring->step != 0)
        return true;
    measuring->seen_blocks++;
    return measure_block(measuring, block, entry, err);
}

static bool measuring_open(struct measuring *measuring, const struct io *io, const struct disk_merge_sides *sides,
                           struct err *err)
{
    struct vhd **child = &measuring->child, **parent = &measuring->parent;
    bool is_up = sides->direction == DISK_MERGE_UP;
    size_t table_bytes;

    if (!vhd_open(io, sides->child_path, IO_READ_ONLY, child, err))
        return false;
    if ((*child)->type != VHD_DIFFERENCING)
        return err_set(err, ERR_INVALID, "%s: is %s and has no parent", (*child)->path, vhd_type_name((*child)->type));
    if (!(sides->parent_path ? vhd_open(io, sides->parent_path, IO_READ_ONLY, parent, err) : vhd_open_parent(*child, parent, err)))
        return false;
    if (is_up && (*parent)->type != VHD_DIFFERENCING)
        return err_set(err, ERR_INVALID, "%s: is a base disk, and is not merged upwards", (*parent)->path);
    measuring->from = is_up ? *parent : *child;
    measuring->to = is_up ? *child : *parent;
    measuring->from_bits = malloc(measuring->from->bitmap_bytes);
    measuring->to_bits = malloc((size_t)measuring->to->bitmap_bytes + 1); /* a fixed image has none */
    if (!measuring->from_bits || !measuring->to_bits)
        return err_oom(err);
    return measuring->to->type == VHD_FIXED || vhd_bat_read(measuring->to, &measuring->to_table, &table_bytes, err);
}

bool disk_merge_new_bytes(const struct io *io, const struct disk_merge_sides *sides, uint64_t max_blocks,
                          uint64_t *ret_bytes, struct err *err)
{
    AUTO(measuring_done) struct measuring measuring = {.to_entry = VHD_BAT_UNALLOCATED, .step = 1};
    struct io_stat from, to;

    if (!measuring_open(&measuring, io, sides, err) || !io_stat_file(measuring.from->file, &from, err) ||
        !io_stat_file(measuring.to->file, &to, err) || !vhd_bat_each(measuring.from, count_block, &measuring, err))
        return false;
    if (max_blocks > 0 && measuring.blocks > max_blocks)
        measuring.step = (measuring.blocks + max_blocks - 1) / max_blocks;
    if (!vhd_bat_each(measuring.from, look_at_block, &measuring, err))
        return false;
    double share = measuring.seen_blocks > 0 ? (double)measuring.blocks / (double)measuring.seen_blocks : 0;
    uint64_t bytes = min_u64((uint64_t)((double)measuring.new_bytes * share), from.allocated_bytes);
    /* Which of a fixed image's sectors take space is not told: at worst for us, those that are written. */
    uint64_t has = measuring.to_table ? 0 : to.allocated_bytes;
    *ret_bytes = bytes - min_u64(bytes, has);
    return true;
}
