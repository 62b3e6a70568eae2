/* How much a merge would copy in either direction, without a look at a bitmap. */
#include "bytes.h"
#include "disk_tools.h"

#include <stdlib.h>

struct estimating {
    struct vhd *child, *parent;
    uint8_t *table; /* the child's */
    uint64_t child_data, parent_data; /* bytes of a block's data, on the average */
    uint64_t up_bytes, blocks;
};

static void estimating_done(struct estimating *estimating)
{
    free(estimating->table);
    vhd_close(estimating->parent);
    vhd_close(estimating->child);
}

static bool count_block(void *context, uint32_t block, uint32_t entry, struct err *err)
{
    uint64_t *blocks = context;

    (void)block;
    (void)entry;
    (void)err;
    ++*blocks;
    return true;
}

/* What the image's blocks hold in all: a sealed layer has given back what it never filled. */
static bool data_bytes(const struct vhd *vhd, uint64_t *ret_bytes, uint64_t *ret_each, struct err *err)
{
    struct io_stat stat;
    uint64_t blocks = 0;

    if (!io_stat_file(vhd->file, &stat, err) || !vhd_bat_each(vhd, count_block, &blocks, err))
        return false;
    *ret_bytes = min_u64(stat.allocated_bytes, blocks << vhd->block_shift);
    *ret_each = blocks > 0 ? *ret_bytes / blocks : 0;
    return true;
}

/* Where both have the block, sectors are taken to lie as chance has it. */
static bool add_block(void *context, uint32_t block, uint32_t entry, struct err *err)
{
    struct estimating *estimating = context;
    const struct vhd *child = estimating->child;
    uint64_t at = (uint64_t)block << estimating->parent->block_shift >> child->block_shift;
    uint64_t lacks = child->block_bytes;

    (void)entry;
    (void)err;
    if (at >= child->block_count)
        return true;
    if (get_be32(estimating->table + at * 4) != VHD_BAT_UNALLOCATED)
        lacks -= min_u64(lacks, estimating->child_data);
    estimating->up_bytes +=
        (uint64_t)((double)estimating->parent_data * (double)lacks / (double)child->block_bytes);
    return true;
}

static bool fill(struct estimating *estimating, const struct io *io, const char *child_path, struct err *err)
{
    if (!vhd_open(io, child_path, IO_READ_ONLY, &estimating->child, err))
        return false;
    if (estimating->child->type != VHD_DIFFERENCING)
        return err_set(err, ERR_INVALID, "%s: is %s and has no parent", estimating->child->path,
                       vhd_type_name(estimating->child->type));
    return vhd_open_parent(estimating->child, &estimating->parent, err);
}

bool disk_merge_estimate(const struct io *io, const char *child_path, struct disk_merge_estimate *ret_estimate,
                         struct err *err)
{
    AUTO(estimating_done) struct estimating estimating = {0};
    struct disk_merge_estimate estimate = {0};
    struct io_stat stat;
    uint64_t parent_bytes;
    size_t table_bytes;

    if (!fill(&estimating, io, child_path, err) || !io_stat_file(estimating.parent->file, &stat, err) ||
        !data_bytes(estimating.child, &estimate.down_bytes, &estimating.child_data, err))
        return false;
    estimate.parent_is_base = estimating.parent->type != VHD_DIFFERENCING;
    estimate.parent_links = stat.links;
    if (!estimate.parent_is_base) {
        if (!data_bytes(estimating.parent, &parent_bytes, &estimating.parent_data, err) ||
            !vhd_bat_read(estimating.child, &estimating.table, &table_bytes, err) ||
            !vhd_bat_each(estimating.parent, add_block, &estimating, err))
            return false;
        estimate.up_bytes = estimating.up_bytes;
    }
    *ret_estimate = estimate;
    return true;
}
