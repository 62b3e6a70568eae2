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

static void place(const struct vhd_link *link, uint64_t offset, struct vhd_relink *relink)
{
    uint64_t w2ku_space = round_up(max_u64(link->w2ku.length, 1), VHD_SECTOR);
    uint64_t w2ru_space = round_up(max_u64(link->w2ru.length, 1), VHD_SECTOR);
    uint64_t w2ku = offset + VHD_HEADER_BYTES;

    vhd_link_place(link, &relink->header, w2ku, w2ku_space, w2ku + w2ku_space, w2ru_space);
    relink->footer.data_offset = offset;
    relink->length = VHD_HEADER_BYTES + w2ku_space + w2ru_space;
}

/* As vhd_link_write() would write them. */
static bool fill(const struct vhd_link *link, struct vhd_relink *relink, struct err *err)
{
    uint64_t offset = relink->footer.data_offset;

    relink->bytes = calloc(1, relink->length);
    if (!relink->bytes)
        return err_oom(err);
    vhd_header_encode(&relink->header, relink->bytes);
    memcpy(relink->bytes + (relink->header.locators[0].offset - offset), link->w2ku.bytes, link->w2ku.length);
    memcpy(relink->bytes + (relink->header.locators[1].offset - offset), link->w2ru.bytes, link->w2ru.length);
    return true;
}

bool vhd_relink_make(const struct vhd *child, const char *parent_path, uint64_t offset, struct vhd_relink *ret_relink,
                     struct err *err)
{
    AUTO_VHD struct vhd *parent = NULL;
    struct vhd_relink relink = {.header = child->header, .footer = child->footer};
    struct vhd_link link = {0};

    if (!vhd_open(child->file->io, parent_path, IO_READ_ONLY, &parent, err) || !check(child, parent, err) ||
        !vhd_link_make(child->path, parent, &relink.header, &link, err))
        return false;
    place(&link, offset, &relink);
    bool ok = fill(&link, &relink, err);
    vhd_link_done(&link);
    if (ok)
        *ret_relink = relink;
    return ok;
}

void vhd_relink_done(struct vhd_relink *relink)
{
    free(relink->bytes);
    *relink = (struct vhd_relink){0};
}

bool vhd_reparent_open(struct vhd *child, const char *parent_path, struct err *err)
{
    AUTO(vhd_relink_done) struct vhd_relink relink = {0};
    uint64_t offset;

    /* The first time for what is refused: then the file is as it was. */
    if (!vhd_relink_make(child, parent_path, 0, &relink, err) || !vhd_switch_begin(child, &offset, err))
        return false;
    vhd_relink_done(&relink);
    if (!vhd_relink_make(child, parent_path, offset, &relink, err))
        return false;
    return io_truncate(child->file, offset + relink.length, err) &&
           io_write(child->file, offset, relink.bytes, relink.length, err) && io_sync(child->file, err) &&
           vhd_switch_footers(child, &relink.footer, offset + relink.length, err);
}

bool vhd_reparent(const struct io *io, const char *path, const char *parent_path, struct err *err)
{
    AUTO_VHD struct vhd *child = NULL;

    return vhd_open(io, path, IO_WRITE, &child, err) && vhd_reparent_open(child, parent_path, err);
}
