#include "bytes.h"
#include "disk_tools.h"

#include <stdlib.h>

#define CHUNK (1U << 20)

/* Zeros in the source need not be written: a new image reads as zeros. */
static bool copy_range(struct disk *source, struct disk *target, uint64_t offset, uint64_t length,
                       uint8_t *chunk, struct err *err)
{
    while (length > 0) {
        size_t part = (size_t)min_u64(length, CHUNK - offset % CHUNK);
        if (!disk_read(source, offset, chunk, part, err))
            return false;
        if (!bytes_are_zero(chunk, part) && !disk_write(target, offset, chunk, part, err))
            return false;
        offset += part;
        length -= part;
    }
    return true;
}

static bool copy_all(struct disk *source, struct disk *target, const struct progress *progress,
                     struct err *err)
{
    AUTO_FREE uint8_t *chunk = malloc(CHUNK);
    uint64_t size = disk_size_bytes(source);

    if (!chunk)
        return err_oom(err);
    for (uint64_t offset = 0; offset < size;) {
        enum disk_status_kind kind;
        uint64_t length;
        if (progress_cancelled(progress))
            return err_set(err, ERR_CANCELLED, "the conversion was cancelled");
        progress_report(progress, "convert", offset, size);
        if (!disk_status(source, offset, min_u64(size - offset, 64 * CHUNK), &kind, &length, err))
            return false;
        if (kind == DISK_DATA && !copy_range(source, target, offset, length, chunk, err))
            return false;
        offset += length;
    }
    return true;
}

static bool fill(const struct io *io, struct disk *source, const char *to, const struct progress *progress,
                 struct err *err)
{
    struct disk_options options = {.io = io, .writable = true};
    AUTO_DISK struct disk *target = NULL;

    return disk_open(to, &options, &target, err) && copy_all(source, target, progress, err) &&
           disk_close(TAKE(target), err);
}

bool disk_convert(const struct io *io, const char *from, const char *to, enum vhd_type type,
                  uint32_t block_bytes, const struct progress *progress, struct err *err)
{
    struct disk_options options = {.io = io};
    AUTO_DISK struct disk *source = NULL;
    struct err ignored;

    if (!disk_open(from, &options, &source, err))
        return false;
    struct vhd_create_options create = {
        .type = type, .size_bytes = disk_size_bytes(source), .block_bytes = block_bytes};
    if (!vhd_create(io, to, &create, err))
        return false;
    if (fill(io, source, to, progress, err))
        return true;
    (void)!io_unlink(io, to, &ignored);
    return false;
}
