#include "vhd_link.h"

#include "file.h"
#include "utf16.h"

#include <stdlib.h>
#include <string.h>

void vhd_link_done(struct vhd_link *link)
{
    free(link->w2ku.bytes);
    free(link->w2ru.bytes);
    *link = (struct vhd_link){0};
}

static bool make_locators(const char *dir, const char *parent_path, struct vhd_link *link, struct err *err)
{
    if (!vhd_path_encode(VHD_PLATFORM_W2KU, parent_path, dir, &link->w2ku, err) ||
        !vhd_path_encode(VHD_PLATFORM_W2RU, parent_path, dir, &link->w2ru, err))
        return false;
    if (link->w2ru.length > VHD_LINK_MAX_BYTES || link->w2ku.length > VHD_LINK_MAX_BYTES)
        return err_set(err, ERR_INVALID, "%s: the path is too long for a parent locator", parent_path);
    return true;
}

bool vhd_link_make(const char *child_path, const struct vhd *parent, struct vhd_header *header,
                   struct vhd_link *ret_link, struct err *err)
{
    AUTO_FREE char *absolute = path_absolute(child_path);
    AUTO_FREE char *dir = absolute ? path_dir(absolute) : NULL;
    uint8_t name[VHD_NAME_BYTES] = {0};
    struct vhd_link link = {0};
    size_t length;

    if (!dir)
        return err_oom(err);
    if (!utf16_encode(path_base(parent->path), UTF16_BE, name, sizeof name - 2, &length))
        return err_set(err, ERR_INVALID, "%s: the name does not fit into a VHD header", parent->path);
    if (!make_locators(dir, parent->path, &link, err)) {
        vhd_link_done(&link);
        return false;
    }
    memcpy(header->parent_id, parent->footer.id, VHD_ID_SIZE);
    memcpy(header->parent_name, name, sizeof name);
    /* As Windows 10 leaves it: a parent that was the top a moment ago is still written to. */
    header->parent_timestamp = 0;
    *ret_link = link;
    return true;
}

void vhd_link_place(const struct vhd_link *link, struct vhd_header *header, uint64_t w2ku_offset,
                    uint64_t w2ku_space, uint64_t w2ru_offset, uint64_t w2ru_space)
{
    memset(header->locators, 0, sizeof header->locators);
    header->locators[0] = (struct vhd_locator){.platform = VHD_PLATFORM_W2KU,
                                               .space_bytes = (uint32_t)w2ku_space,
                                               .length_bytes = (uint32_t)link->w2ku.length,
                                               .offset = w2ku_offset};
    header->locators[1] = (struct vhd_locator){.platform = VHD_PLATFORM_W2RU,
                                               .space_bytes = (uint32_t)w2ru_space,
                                               .length_bytes = (uint32_t)link->w2ru.length,
                                               .offset = w2ru_offset};
}

bool vhd_link_write(const struct vhd_link *link, const struct vhd_header *header, struct io_file *file,
                    struct err *err)
{
    return io_write(file, header->locators[0].offset, link->w2ku.bytes, link->w2ku.length, err) &&
           io_write(file, header->locators[1].offset, link->w2ru.bytes, link->w2ru.length, err);
}
