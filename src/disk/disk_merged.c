/* A layer of a disk that is open is merged with its neighbour by somebody else (disk_merge.c), and then left out.
 *
 * While it is copied nothing need be known of it here: the map leads each sector to the highest layer that had it when
 * the layers were sealed, through handles and tables from before. DOWN, the sectors that are written to the lower layer are
 * those that the upper one has, so nobody is led to them; UP, those that are written to the upper layer were not
 * there, so nobody is led to their places either. Bitmaps are read when a block is first touched, perhaps with bits that
 * have come since: then the sector is read from the other file, where the same bytes were before the bit was. Blocks that have
 * come since are not in the index. What both layers must not do is change for another reason: they are whole on
 * stable storage and no gap is being given back (disk_lend()), and the top is never one of them.
 *
 * When the data of both are in one file, that file is opened anew beside, and at an instant with no request at work
 * it takes the place of both. The map is forgotten as a whole, and made anew from the index as it is touched. */
#include "disk_private.h"

#include "bytes.h"

#include <stdlib.h>
#include <string.h>

struct disk_merged {
    struct vhd *kept; /* the one that has both; behind disk_merged_take() the old handle */
    struct layer *gone; /* NULL before that */
    uint64_t gone_device, gone_inode;
    struct vhd_blocks blocks; /* of kept */
};

static bool is_unclean(const struct disk *disk, const struct layer *layer)
{
    const struct layer *other = disk->unclean;

    while (other && other != layer)
        other = other->next_unclean;
    return other != NULL;
}

/* A sealed layer by what its file is; NULL: there is none. */
static struct layer *find_sealed(const struct disk *disk, uint64_t device, uint64_t inode)
{
    for (size_t i = 0; i + 1 < disk->depth; i++) {
        const struct vhd *vhd = disk->layers[i]->vhd;
        if (vhd->device == device && vhd->inode == inode)
            return disk->layers[i];
    }
    return NULL;
}

bool disk_has(const struct disk *disk, const char *path)
{
    const struct vhd *top = disk_top(disk)->vhd;
    struct io_stat stat;
    struct err ignored;

    return io_stat_path(disk->io, path, &stat, &ignored) &&
           ((top->device == stat.device && top->inode == stat.inode) || find_sealed(disk, stat.device, stat.inode));
}

static bool lend(struct disk *disk, const char *path, struct err *err)
{
    struct io_stat stat;

    if (!io_stat_path(disk->io, path, &stat, err))
        return false;
    struct layer *layer = find_sealed(disk, stat.device, stat.inode);
    if (!layer)
        return err_set(err, ERR_NOT_FOUND, "%s: is no sealed layer of %s", path, disk_top(disk)->vhd->path);
    if (is_unclean(disk, layer))
        return err_set(err, ERR_BUSY, "%s: has been written to a moment ago", path);
    if (!io_lock(layer->vhd->file, IO_LOCK_LEND, err))
        return false;
    layer->is_lent = true;
    return true;
}

bool disk_lend(struct disk *disk, const char *const *paths, size_t count, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        if (!lend(disk, paths[i], err)) {
            disk_take_back(disk);
            return false;
        }
    }
    return true;
}

void disk_take_back(struct disk *disk)
{
    struct err ignored; /* nobody else could have come to write */

    for (size_t i = 0; i < disk->depth; i++) {
        struct layer *layer = disk->layers[i];
        if (layer->is_lent)
            (void)!io_lock(layer->vhd->file, IO_LOCK_SHARE, &ignored);
        layer->is_lent = false;
    }
}

/* --- prepared on any thread --- */

void disk_merged_free(struct disk_merged *merged)
{
    if (!merged)
        return;
    vhd_close(merged->kept);
    layer_free(merged->gone);
    vhd_blocks_done(&merged->blocks);
    free(merged);
}

bool disk_merged_open(const struct io *io, const char *kept_path, const char *gone_path, struct disk_merged **ret_merged,
                      struct err *err)
{
    AUTO_DISK_MERGED struct disk_merged *merged = calloc(1, sizeof *merged);
    struct io_stat stat;

    if (!merged)
        return err_oom(err);
    if (!io_stat_path(io, gone_path, &stat, err) || !vhd_open(io, kept_path, IO_READ_ONLY, &merged->kept, err) ||
        !io_lock(merged->kept->file, IO_LOCK_SHARE, err))
        return false;
    if (merged->kept->type != VHD_FIXED && !vhd_bat_collect(merged->kept, merged->kept->block_count, &merged->blocks, err))
        return false;
    merged->gone_device = stat.device;
    merged->gone_inode = stat.inode;
    *ret_merged = TAKE(merged);
    return true;
}

/* --- at the instant --- */

static bool find_pair(const struct disk *disk, const struct disk_merged *merged, struct layer **ret_kept,
                      struct layer **ret_gone, struct err *err)
{
    const struct vhd *fresh = merged->kept;
    struct layer *kept = find_sealed(disk, fresh->device, fresh->inode);
    struct layer *gone = find_sealed(disk, merged->gone_device, merged->gone_inode);

    if (!kept || !gone || abs((int)kept->number - (int)gone->number) != 1)
        return err_set(err, ERR_NOT_FOUND, "%s: is not merged with a neighbour in the chain of %s", fresh->path,
                       disk_top(disk)->vhd->path);
    if (is_unclean(disk, kept) || is_unclean(disk, gone) || kept->is_lent || gone->is_lent)
        return err_set(err, ERR_BUSY, "%s: is in use", fresh->path);
    if (fresh->type != kept->vhd->type || fresh->size_bytes != kept->vhd->size_bytes ||
        fresh->block_bytes != kept->vhd->block_bytes ||
        memcmp(fresh->footer.id, kept->vhd->footer.id, VHD_ID_SIZE) != 0)
        return err_set(err, ERR_MISMATCH, "%s: is another image than the one that is in use", fresh->path);
    *ret_kept = kept;
    *ret_gone = gone;
    return true;
}

static void number_anew(struct disk *disk)
{
    uint64_t visible = UINT64_MAX;

    for (size_t i = disk->depth; i-- > 0;) {
        struct layer *layer = disk->layers[i];
        visible = min_u64(visible, layer->vhd->size_bytes);
        layer->visible_bytes = visible;
        layer->number = (uint16_t)i;
    }
}

bool disk_merged_take(struct disk *disk, struct disk_merged *merged, struct err *err)
{
    struct layer *kept, *gone;

    if (!find_pair(disk, merged, &kept, &gone, err) ||
        !index_reserve(&disk->index, merged->kept->block_shift, merged->blocks.count, err))
        return false;
    uint16_t lower = kept->number < gone->number ? kept->number : gone->number;
    for (uint32_t i = 0; i < disk->map.count; i++)
        map_forget(&disk->map, i);
    index_drop_pair(&disk->index, lower);
    memmove(&disk->layers[gone->number], &disk->layers[gone->number + 1],
            (disk->depth - gone->number - 1) * sizeof(struct layer *));
    disk->depth--;
    number_anew(disk);
    struct vhd *old = kept->vhd;
    kept->vhd = merged->kept;
    merged->kept = old;
    merged->gone = gone;
    kept->allocated_blocks = merged->blocks.count;
    for (size_t i = 0; i < merged->blocks.count; i++)
        index_add(&disk->index, kept->number, kept->vhd->block_shift, merged->blocks.items[i].block, merged->blocks.items[i].entry);
    return true;
}

/* --- another parent for the top --- */

bool disk_top_append(struct disk *disk, uint64_t bytes, uint64_t *ret_offset, struct err *err)
{
    if (!disk->writable || disk_top(disk)->vhd->type != VHD_DIFFERENCING)
        return err_set(err, ERR_INVALID, "%s: cannot get another parent", disk_top(disk)->vhd->path);
    return layer_append(disk_top(disk), bytes, ret_offset, err);
}

void disk_top_link(struct disk *disk, const struct vhd_relink *relink)
{
    struct layer *top = disk_top(disk);

    top->vhd->header = relink->header;
    top->vhd->footer = relink->footer;
    vhd_footer_encode(&relink->footer, top->vhd->footer_bytes);
    top->writing->footer_dirty = true;
}
