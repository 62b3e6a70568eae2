/* Another parent for an image that exists. The header has one checksum and no copy, so it is never changed in
 * place: a new one with its locators goes behind all else, and then the footers are switched to it. */
#include "bytes.h"
#include "vhd_link.h"
#include "vhd_switch.h"

#include <stdlib.h>
#include <string.h>

static bool check(const struct vhd *child, const struct vhd *parent, struct err *err)
{
    if (child->type != VHD_DIFFERENCING)
        return err_set(err, ERR_INVALID, "%s: is %s and has no parent", child->path,
                       vhd_type_name(child->type));
    if (child->device == parent->device && child->inode == parent->inode)
        return err_set(err, ERR_INVALID, "%s: an image cannot be its own parent", child->path);
    return true;
}

/* *ret_end is where the footer goes, *ret_header where the header is. */
static bool write_header(const struct vhd *child, const struct vhd_link *link, struct vhd_header *header,
                         uint64_t *ret_header, uint64_t *ret_end, struct err *err)
{
    uint8_t bytes[VHD_HEADER_BYTES];
    uint64_t w2ku_space = round_up(max_u64(link->w2ku.length, 1), VHD_SECTOR);
    uint64_t w2ru_space = round_up(max_u64(link->w2ru.length, 1), VHD_SECTOR);
    uint64_t offset;

    if (!vhd_switch_begin(child, &offset, err))
        return false;
    uint64_t w2ku = offset + VHD_HEADER_BYTES;
    uint64_t w2ru = w2ku + w2ku_space;
    vhd_link_place(link, header, w2ku, w2ku_space, w2ru, w2ru_space);
    vhd_header_encode(header, bytes);
    if (!io_truncate(child->file, w2ru + w2ru_space, err) ||
        !io_write(child->file, offset, bytes, sizeof bytes, err) ||
        !vhd_link_write(link, header, child->file, err) || !io_sync(child->file, err))
        return false;
    *ret_header = offset;
    *ret_end = w2ru + w2ru_space;
    return true;
}

static bool reparent(const struct vhd *child, const struct vhd *parent, struct vhd_link *link,
                     struct err *err)
{
    struct vhd_header header = child->header;
    struct vhd_footer footer = child->footer;
    uint64_t end;

    return vhd_link_make(child->path, parent, &header, link, err) &&
           write_header(child, link, &header, &footer.data_offset, &end, err) &&
           vhd_switch_footers(child, &footer, end, err);
}

bool vhd_reparent_open(struct vhd *child, const char *parent_path, struct err *err)
{
    AUTO_VHD struct vhd *parent = NULL;
    struct vhd_link link = {0};

    if (!vhd_open(child->file->io, parent_path, IO_READ_ONLY, &parent, err) || !check(child, parent, err))
        return false;
    bool ok = reparent(child, parent, &link, err);
    vhd_link_done(&link);
    return ok;
}

bool vhd_reparent(const struct io *io, const char *path, const char *parent_path, struct err *err)
{
    AUTO_VHD struct vhd *child = NULL;

    return vhd_open(io, path, IO_WRITE, &child, err) && vhd_reparent_open(child, parent_path, err);
}
