/* A disk's content from one image format to another.
 *
 * VHD and raw are read and written here, all others by the host's qemu-img. Zeros take no space where the
 * target format can leave them out. */
#pragma once

#include "image_format.h"
#include "progress.h"

struct convert_options {
    const char *from, *to;
    enum image_format from_format; /* IMAGE_UNKNOWN: image_format_detect() */
    enum image_format to_format;   /* a target */
    uint32_t block_bytes;          /* for dynamic; 0: 2 MiB */
    bool trust_source; /* an image of a foreign format may name other files, which are read then */
};

struct convert_result {
    enum image_format from_format;
    uint64_t size_bytes;  /* of the disk in the target */
    uint64_t added_bytes; /* of these, zeros behind a raw source that is no multiple of 512 */
    uint64_t file_bytes, file_allocated_bytes; /* of the target */
};

/* options->to must not exist (ERR_EXISTS); it appears only when it is whole, and is durable on return. On
 * failure, ERR_CANCELLED too, nothing is left behind. Errors: ERR_INVALID (a size that the target cannot
 * have, a format), ERR_UNSUPPORTED, ERR_QEMU (qemu-img is missing, or failed), ERR_NO_SPACE, and those of
 * disk_open(). */
bool convert_image(const struct io *io, const struct convert_options *options,
                   const struct progress *progress, struct convert_result *ret_result,
                   struct err *err) MUST_CHECK;
