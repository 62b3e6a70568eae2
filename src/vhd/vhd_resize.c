/* A larger size for an image that exists. In a dynamic or differencing image the footers alone change, or,
 * where the table (BAT) is too short, a new header and a new table go behind all else and the footers are
 * switched to them. What the old size hid (the last block's rest, blocks past the old end) is zeroed first.
 *
 * A fixed image has one footer only:
 *   1  the new footer at the new end: one write, which makes the file longer; sync
 *      (the image has the new size; the old footer lies among its data)
 *   2  the space is taken; where there is none, the file is cut back to its old footer
 *   3  zeros over the old footer; sync */
#include "bytes.h"
#include "vhd_switch.h"

#include <stdlib.h>
#include <string.h>

#define CREATOR_WINDOWS10 0x000A0000U

static bool check(const struct vhd *vhd, uint64_t size, struct err *err)
{
    if (size < vhd->size_bytes)
        return err_set(err, ERR_INVALID, "%s: is %llu bytes large and cannot be made smaller", vhd->path,
                       (unsigned long long)vhd->size_bytes);
    if (size % VHD_SECTOR != 0 || size > VHD_MAX_SIZE_BYTES)
        return err_set(err, ERR_INVALID,
                       "%s: a size of %llu bytes: a multiple of 512 up to 2040 GiB is possible", vhd->path,
                       (unsigned long long)size);
    if (vhd->footer.saved_state)
        return err_set(err, ERR_STATE, "%s: belongs to a machine in a saved state", vhd->path);
    return true;
}

/* Programs that show the geometry's size would not see the new one, so they are not its creators any more. */
static struct vhd_footer footer_of(const struct vhd *vhd, uint64_t size)
{
    struct vhd_footer footer = vhd->footer;

    footer.current_bytes = size;
    footer.geometry = vhd_geometry_of(size);
    if (vhd_footer_size_bytes(&footer) != size) {
        memcpy(footer.creator_app, "win ", sizeof footer.creator_app);
        footer.creator_version = CREATOR_WINDOWS10;
    }
    return footer;
}

static bool grow_fixed(const struct vhd *vhd, uint64_t size, struct err *err)
{
    uint8_t bytes[VHD_FOOTER_BYTES];
    struct vhd_footer footer = footer_of(vhd, size);
    uint64_t old_end = vhd->file_bytes - vhd->trailer_bytes;
    /* A file may hold more than its size, or a guest was shown less: never write before the old footer. */
    uint64_t overlap = size < old_end + VHD_FOOTER_BYTES ? old_end + VHD_FOOTER_BYTES - size : 0;
    struct err ignored;

    if (overlap > 0)
        return err_set(err, ERR_INVALID, "%s: from %llu bytes the smallest step is to %llu", vhd->path,
                       (unsigned long long)vhd->size_bytes,
                       (unsigned long long)round_up(old_end + VHD_FOOTER_BYTES, VHD_SECTOR));
    vhd_footer_encode(&footer, bytes);
    if (!io_write(vhd->file, size, bytes, sizeof bytes, err) || !io_sync(vhd->file, err))
        return false;
    if (!io_allocate(vhd->file, old_end + VHD_FOOTER_BYTES, size - old_end - VHD_FOOTER_BYTES, err)) {
        if (io_truncate(vhd->file, vhd->file_bytes, &ignored))
            (void)!io_sync(vhd->file, &ignored);
        return false;
    }
    return io_zero(vhd->file, vhd->size_bytes, old_end + vhd->trailer_bytes - vhd->size_bytes, err) &&
           io_sync(vhd->file, err);
}

/* What lies past the old end was seen by nobody, and must be zeros when it is. */
static bool clear_hidden(void *context, uint32_t block, uint32_t entry, struct err *err)
{
    const struct vhd *vhd = context;
    uint64_t start = (uint64_t)block << vhd->block_shift;
    uint64_t keep = vhd->size_bytes > start ? vhd->size_bytes - start : 0;

    if (keep >= vhd->block_bytes)
        return true;
    return io_zero(vhd->file, vhd_data_offset(vhd, entry) + keep, vhd->block_bytes - keep, err);
}

/* A table of that many entries, the old ones first. */
static bool write_table(const struct vhd *vhd, uint64_t offset, uint32_t entries, struct err *err)
{
    AUTO_FREE uint8_t *old = NULL;
    size_t old_length, length = (size_t)round_up((uint64_t)entries * 4, VHD_SECTOR);
    AUTO_FREE uint8_t *table = malloc(length);

    if (!table)
        return err_oom(err);
    if (!vhd_bat_read(vhd, &old, &old_length, err))
        return false;
    memset(table, 0xFF, length);
    memcpy(table, old, (size_t)vhd->header.table_entries * 4);
    return io_write(vhd->file, offset, table, length, err);
}

/* *ret_end: where the footer goes. */
static bool write_structures(const struct vhd *vhd, uint32_t entries, struct vhd_footer *footer,
                             uint64_t *ret_end, struct err *err)
{
    uint8_t bytes[VHD_HEADER_BYTES];
    struct vhd_header header = vhd->header;
    uint64_t offset;

    if (!vhd_switch_begin(vhd, &offset, err))
        return false;
    header.table_entries = entries;
    header.table_offset = offset + VHD_HEADER_BYTES;
    uint64_t end = header.table_offset + round_up((uint64_t)entries * 4, VHD_SECTOR);
    vhd_header_encode(&header, bytes);
    if (!io_truncate(vhd->file, end, err) || !io_write(vhd->file, offset, bytes, sizeof bytes, err) ||
        !write_table(vhd, header.table_offset, entries, err) || !io_sync(vhd->file, err))
        return false;
    footer->data_offset = offset;
    *ret_end = end;
    return true;
}

static bool grow_sparse(struct vhd *vhd, uint64_t size, struct err *err)
{
    struct vhd_footer footer = footer_of(vhd, size);
    uint64_t blocks = div_round_up(size, vhd->block_bytes), end;

    if (!vhd_blocks_fit(size, vhd->block_bytes, err))
        return err_prefix(err, "%s", vhd->path);
    if (!vhd_bat_each(vhd, clear_hidden, vhd, err) || !io_sync(vhd->file, err))
        return false;
    if (blocks > vhd->header.table_entries) {
        if (!write_structures(vhd, (uint32_t)blocks, &footer, &end, err))
            return false;
    } else if (!vhd_switch_end(vhd, &end, err)) {
        return false;
    }
    return vhd_switch_footers(vhd, &footer, end, err);
}

bool vhd_resize(const struct io *io, const char *path, uint64_t size_bytes, struct err *err)
{
    AUTO_VHD struct vhd *vhd = NULL;
    bool ignored;

    if (!vhd_open(io, path, IO_WRITE, &vhd, err) ||
        !check(vhd, size_bytes, err) || !vhd_settle(vhd, &ignored, err))
        return false;
    if (size_bytes == vhd->size_bytes)
        return true;
    return vhd->type == VHD_FIXED ? grow_fixed(vhd, size_bytes, err) : grow_sparse(vhd, size_bytes, err);
}
