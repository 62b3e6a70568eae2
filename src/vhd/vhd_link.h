/* What a differencing image says of its parent: id and name in the header, and the data of two locators. Used
 * where an image is made and where it gets another parent. */
#pragma once

#include "vhd.h"
#include "vhd_paths.h"

#define VHD_LINK_MAX_BYTES 65536U

struct vhd_link {
    struct vhd_path_data w2ku, w2ru;
};

/* For a child at child_path. Sets the parent's fields in the header, the locators aside. */
bool vhd_link_make(const char *child_path, const struct vhd *parent, struct vhd_header *header,
                   struct vhd_link *ret_link, struct err *err) MUST_CHECK;
void vhd_link_done(struct vhd_link *link);
/* The first two locators of the header; the others are cleared. */
void vhd_link_place(const struct vhd_link *link, struct vhd_header *header, uint64_t w2ku_offset,
                    uint64_t w2ku_space, uint64_t w2ru_offset, uint64_t w2ru_space);
/* Writes the data to where vhd_link_place() said. */
bool vhd_link_write(const struct vhd_link *link, const struct vhd_header *header, struct io_file *file,
                    struct err *err) MUST_CHECK;
