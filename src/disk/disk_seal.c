/* Seal-and-push: all that can fail is done in disk_next_top_open(). */
#include "disk_private.h"

#include "bytes.h"

#include <stdlib.h>
#include <string.h>

void disk_next_top_abandon(struct disk_next_top *next)
{
    if (!next)
        return;
    if (next->layer)
        layer_stop_writing(next->layer); /* nothing was ever in it */
    layer_free(next->layer);
    free(next);
}
AUTO_DEFINE(auto_next_abandon, struct disk_next_top, disk_next_top_abandon)

static bool not_empty(void *context, uint32_t block, uint32_t entry, struct err *err)
{
    const struct vhd *vhd = context;

    (void)entry;
    return err_set(err, ERR_INVALID, "%s: is not empty, block %u is allocated", vhd->path, block);
}

static bool check_child(const struct disk *disk, struct vhd *vhd, struct err *err)
{
    const struct vhd *top = disk_top(disk)->vhd;
    char want[2 * VHD_ID_SIZE + 1], have[2 * VHD_ID_SIZE + 1];

    if (vhd->type != VHD_DIFFERENCING)
        return err_set(err, ERR_INVALID, "%s: is no differencing image", vhd->path);
    if (memcmp(vhd->header.parent_id, top->footer.id, VHD_ID_SIZE) != 0)
        return err_set(err, ERR_MISMATCH, "%s: wants a parent with the unique id %s, but %s has %s",
                       vhd->path, vhd_id_format(vhd->header.parent_id, want), top->path,
                       vhd_id_format(top->footer.id, have));
    if (vhd->size_bytes != disk->size_bytes)
        return err_set(err, ERR_INVALID, "%s: %llu bytes over a disk of %llu", vhd->path,
                       (unsigned long long)vhd->size_bytes, (unsigned long long)disk->size_bytes);
    return vhd_bat_each(vhd, not_empty, vhd, err);
}

bool disk_next_top_open(struct disk *disk, const char *path, struct disk_next_top **ret_next, struct err *err)
{
    AUTO(auto_next_abandon) struct disk_next_top *next = calloc(1, sizeof *next);
    bool ignored;

    if (!next || !(next->layer = calloc(1, sizeof *next->layer)))
        return err_oom(err);
    if (!disk->writable)
        return err_set(err, ERR_INVALID, "%s: open for reading only", disk_top(disk)->vhd->path);
    if (disk->depth >= disk->max_depth)
        return err_set(err, ERR_INVALID, "%s: a chain can be %zu deep", disk_top(disk)->vhd->path,
                       disk->max_depth);
    if ((disk->log_dir && !dirty_log_replay(disk->io, disk->log_dir, path, &ignored, err)) ||
        !vhd_open(disk->io, path, IO_WRITE, &next->layer->vhd, err) ||
        !check_child(disk, next->layer->vhd, err) || !layer_start_writing(next->layer, disk->log_dir, err) ||
        !disk_reserve_layer(disk, err))
        return false;
    next->layer->visible_bytes = next->layer->vhd->size_bytes;
    *ret_next = TAKE(next);
    return true;
}

/* The map did not cover the old top; from now on it does. */
static void forget_blocks(struct disk *disk, const struct layer *layer)
{
    const struct vhd *vhd = layer->vhd;

    if (vhd->type == VHD_FIXED) {
        for (uint32_t i = 0; i < disk->map.count; i++)
            map_forget(&disk->map, i);
        return;
    }
    for (uint32_t block = 0; block < vhd->block_count; block++) {
        if (layer_entry(layer, block) == VHD_BAT_UNALLOCATED)
            continue;
        uint64_t first = (uint64_t)block << vhd->block_shift >> MAP_BLOCK_SHIFT;
        uint64_t end = div_round_up((uint64_t)(block + 1) << vhd->block_shift, MAP_BLOCK_BYTES);
        for (uint64_t i = first; i < min_u64(end, disk->map.count); i++)
            map_forget(&disk->map, (uint32_t)i);
    }
}

void disk_seal_and_push(struct disk *disk, struct disk_next_top *next)
{
    struct layer *old = disk_top(disk);
    struct layer *top = TAKE(next->layer);

    free(next);
    layer_share_if_clean(old);
    forget_blocks(disk, old);
    old->next_unclean = disk->unclean;
    disk->unclean = old;
    top->number = (uint16_t)disk->depth;
    disk->layers[disk->depth++] = top;
}

bool disk_sealed_layers_are_clean(const struct disk *disk)
{
    for (const struct layer *layer = disk->unclean; layer; layer = layer->next_unclean)
        if (!layer_is_clean(layer))
            return false;
    return true;
}
