/* Giving back the space that a sealed layer took and never filled.
 *
 * As long as a layer is the top, each of its blocks has the space of all its sectors, so that an answered write has
 * its place and a block lies in one piece. Once it is sealed and whole on stable storage, the sectors whose bit is 0
 * will never be read from it, nor written: a layer that got a few sectors in each of many blocks keeps those alone.
 * Nothing depends on it: it may end anywhere, and fail. */
#include "disk_private.h"

#include "bytes.h"
#include "vhd_bitmap.h"

/* Smaller gaps are left: each one is a piece more for the file system to remember. */
#define GRAIN_SECTORS     (64U * 1024 / VHD_SECTOR)
#define ALIGNMENT_SECTORS 8U

/* The next gap of the block at or behind the sector; false: there is none. */
static bool gap_find(const uint8_t *bits, uint32_t sector, uint32_t end, uint32_t *ret_first, uint32_t *ret_end)
{
    while (sector < end) {
        uint32_t run = vhd_bits_run(bits, sector, end);
        uint32_t first = (uint32_t)round_up(sector, ALIGNMENT_SECTORS);
        uint32_t stop = (uint32_t)round_down(sector + run, ALIGNMENT_SECTORS);
        if (!vhd_bit_get(bits, sector) && stop >= first + GRAIN_SECTORS) {
            *ret_first = first;
            *ret_end = stop;
            return true;
        }
        sector += run;
    }
    return false;
}

/* Bitmaps looked at, and blocks, in one call. */
#define LOOKS_MAX  16U
#define BLOCKS_MAX 16384U

/* Only blocks whose bitmap is in memory have changed while the layer was the top. */
static bool layer_release_next(struct layer *layer, struct disk_gap *ret_gap)
{
    struct writing *writing = layer->writing;
    const struct vhd *vhd = layer->vhd;
    uint32_t first, end, looks = 0, blocks = 0;

    if (vhd->type != VHD_DIFFERENCING)
        return false;
    *ret_gap = (struct disk_gap){0};
    for (; writing->release_block < vhd->block_count; writing->release_block++, writing->release_sector = 0) {
        uint32_t block = writing->release_block;
        const uint8_t *bits = layer_bitmap_in_memory(layer, block);
        if ((looks += bits != NULL) > LOOKS_MAX || ++blocks > BLOCKS_MAX)
            return true;
        if (!bits || !gap_find(bits, writing->release_sector, vhd->block_bytes / VHD_SECTOR, &first, &end))
            continue;
        writing->release_sector = end;
        *ret_gap = (struct disk_gap){
            .file = vhd->file,
            .file_offset = vhd_data_offset(vhd, layer_entry(layer, block)) + (uint64_t)first * VHD_SECTOR,
            .length = (uint64_t)(end - first) * VHD_SECTOR,
        };
        return true;
    }
    return false;
}

void disk_release_none(struct disk *disk)
{
    for (struct layer *layer = disk->unclean; layer; layer = layer->next_unclean)
        if (layer_is_clean(layer))
            layer->writing->release_block = layer->vhd->block_count;
}

bool disk_release_next(struct disk *disk, struct disk_gap *ret_gap)
{
    struct layer **link = &disk->unclean;

    while (*link) {
        struct layer *layer = *link;
        if (!layer_is_clean(layer)) {
            link = &layer->next_unclean;
            continue;
        }
        if (layer_release_next(layer, ret_gap))
            return true;
        layer_stop_writing(layer);
        *link = TAKE(layer->next_unclean);
    }
    return false;
}
