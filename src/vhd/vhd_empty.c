/* An image whose sectors its parent has too is emptied: its table (BAT) is cleared, entry by entry and in any order, since a block that
 * it names and one that it does not read the same. The blocks stay in the file: somebody may have read the table before, and his view of
 * the parent may be from before too. */
#include "bytes.h"
#include "vhd.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES (64U << 10)

static bool clear_table(const struct vhd *vhd, struct err *err)
{
    AUTO_FREE uint8_t *ones = malloc(CHUNK_BYTES);
    uint64_t length = vhd_bat_file_bytes(vhd);

    if (!ones)
        return err_oom(err);
    memset(ones, 0xFF, CHUNK_BYTES);
    for (uint64_t done = 0; done < length; done += CHUNK_BYTES)
        if (!io_write(vhd->file, vhd->header.table_offset + done, ones, (size_t)min_u64(CHUNK_BYTES, length - done), err))
            return false;
    return io_sync(vhd->file, err);
}

static bool open_child(const struct io *io, const char *path, unsigned flags, struct vhd **ret_vhd, struct err *err)
{
    AUTO_VHD struct vhd *vhd = NULL;

    if (!vhd_open(io, path, flags, &vhd, err))
        return false;
    if (vhd->type != VHD_DIFFERENCING)
        return err_set(err, ERR_INVALID, "%s: is %s and has no parent", vhd->path, vhd_type_name(vhd->type));
    *ret_vhd = TAKE(vhd);
    return true;
}

bool vhd_empty(const struct io *io, const char *path, struct err *err)
{
    AUTO_VHD struct vhd *vhd = NULL;

    return open_child(io, path, IO_WRITE, &vhd, err) && clear_table(vhd, err);
}

static bool refuse_block(void *context, uint32_t block, uint32_t entry, struct err *err)
{
    const struct vhd *vhd = context;

    (void)entry;
    return err_set(err, ERR_STATE, "%s: has something of its own, block %u at least", vhd->path, block);
}

bool vhd_check_empty(const struct io *io, const char *path, struct err *err)
{
    AUTO_VHD struct vhd *vhd = NULL;

    return open_child(io, path, IO_READ_ONLY, &vhd, err) && vhd_bat_each(vhd, refuse_block, vhd, err);
}
