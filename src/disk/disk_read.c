/* Reading, and what the map says. */
#include "disk_private.h"

#include "bytes.h"
#include "vhd_bitmap.h"

#include <string.h>

/* What a writable top has from first_sector on: true with *ret_extent, of the top. False with *ret_limit: for
 * so many sectors the layers below count. */
static bool find_in_top(struct disk *disk, uint64_t first_sector, uint64_t max, struct map_extent *ret_extent,
                        uint64_t *ret_limit, bool *ret_failed, struct err *err)
{
    struct layer *top = disk_top(disk);
    const struct vhd *vhd = top->vhd;

    *ret_failed = false;
    if (vhd->type == VHD_FIXED) {
        *ret_extent =
            (struct map_extent){.layer = top, .file_offset = first_sector * VHD_SECTOR, .sectors = max};
        return true;
    }
    uint32_t block_sectors = vhd->block_bytes / VHD_SECTOR;
    uint32_t block = (uint32_t)(first_sector / block_sectors);
    uint32_t sector = (uint32_t)(first_sector % block_sectors);
    uint32_t end = (uint32_t)min_u64(block_sectors, sector + max);
    uint32_t entry = layer_entry(top, block);
    *ret_limit = end - sector;
    if (entry == VHD_BAT_UNALLOCATED)
        return false;
    uint64_t here = vhd_data_offset(vhd, entry) + (uint64_t)sector * VHD_SECTOR;
    *ret_extent = (struct map_extent){.layer = top, .file_offset = here, .sectors = end - sector};
    if (vhd->type == VHD_DYNAMIC)
        return true;
    const uint8_t *bits;
    if (!layer_bitmap_look(top, block, &bits, err)) {
        *ret_failed = true;
        return false;
    }
    *ret_limit = ret_extent->sectors = vhd_bits_run(bits, sector, end);
    return vhd_bit_get(bits, sector);
}

static bool find(struct disk *disk, uint64_t first_sector, uint64_t max, struct map_extent *ret_extent,
                 struct err *err)
{
    uint64_t limit = max;
    bool failed;

    if (disk->writable) {
        if (find_in_top(disk, first_sector, max, ret_extent, &limit, &failed, err))
            return true;
        if (failed)
            return false;
    }
    return map_find(&disk->map, &disk->index, disk->layers, disk_covered(disk), first_sector, limit,
                    ret_extent, err);
}

/* Does the extent go on where the piece ends? */
static bool continues(const struct disk_piece *piece, const struct map_extent *extent)
{
    if (!extent->layer)
        return !piece->file;
    return piece->file == extent->layer->vhd->file &&
           piece->file_offset + piece->length == extent->file_offset;
}

bool disk_map(struct disk *disk, uint64_t offset, uint64_t length, struct disk_piece *pieces, size_t max,
              size_t *ret_count, struct err *err)
{
    size_t count = 0;

    if (!disk_range_check(disk, offset, length, err))
        return false;
    while (length > 0) {
        struct map_extent extent;
        if (!find(disk, offset / VHD_SECTOR, length / VHD_SECTOR, &extent, err))
            return false;
        uint64_t bytes = extent.sectors * VHD_SECTOR;
        if (count > 0 && continues(&pieces[count - 1], &extent)) {
            pieces[count - 1].length += bytes;
        } else {
            if (count == max)
                break;
            pieces[count++] = (struct disk_piece){.file = extent.layer ? extent.layer->vhd->file : NULL,
                                                  .file_offset = extent.file_offset,
                                                  .length = bytes};
        }
        offset += bytes;
        length -= bytes;
    }
    *ret_count = count;
    return true;
}

#define PIECES 16

bool disk_read(struct disk *disk, uint64_t offset, void *bytes, size_t length, struct err *err)
{
    uint8_t *out = bytes;
    struct disk_piece pieces[PIECES];
    size_t count;

    do {
        if (!disk_map(disk, offset, length, pieces, PIECES, &count, err))
            return false;
        for (size_t i = 0; i < count; i++) {
            size_t part = (size_t)pieces[i].length;
            if (!pieces[i].file)
                memset(out, 0, part);
            else if (!io_read(pieces[i].file, pieces[i].file_offset, out, part, err))
                return false;
            out += part;
            offset += part;
            length -= part;
        }
    } while (length > 0);
    return true;
}

bool disk_status(struct disk *disk, uint64_t offset, uint64_t length, enum disk_status_kind *ret_kind,
                 uint64_t *ret_length, struct err *err)
{
    struct disk_piece pieces[PIECES];
    size_t count;
    uint64_t total = 0;
    bool zero = false;

    if (length == 0)
        return err_set(err, ERR_INVALID, "the status of nothing");
    do {
        if (!disk_map(disk, offset + total, length - total, pieces, PIECES, &count, err))
            return false;
        for (size_t i = 0; i < count; i++) {
            if (total == 0)
                zero = !pieces[i].file;
            if (zero != !pieces[i].file) {
                length = total;
                break;
            }
            total += pieces[i].length;
        }
    } while (total < length);
    *ret_kind = zero ? DISK_ZERO : DISK_DATA;
    *ret_length = total;
    return true;
}
