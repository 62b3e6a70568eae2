#include "compare.h"

#include "bytes.h"
#include "native.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES (1U << 20)
#define RANGE_BYTES (64U << 20) /* asked for at once */

struct comparison {
    struct disk *from, *to; /* owned */
    uint8_t *bytes[2];      /* a chunk each; owned */
    const char *to_path;
    const struct progress *progress;
};

static void comparison_done(struct comparison *c)
{
    disk_abandon(c->from);
    disk_abandon(c->to);
    free(c->bytes[0]);
    free(c->bytes[1]);
}

static bool both_zero(struct comparison *c, uint64_t offset, uint64_t length, bool *ret_zero, uint64_t *ret_length,
                      struct err *err)
{
    enum disk_status_kind from, to;
    uint64_t from_length, to_length;

    if (!disk_status(c->from, offset, length, &from, &from_length, err) ||
        !disk_status(c->to, offset, length, &to, &to_length, err))
        return false;
    *ret_zero = from == DISK_ZERO && to == DISK_ZERO;
    *ret_length = min_u64(from_length, to_length);
    return true;
}

static bool compare_chunk(struct comparison *c, uint64_t offset, size_t length, struct err *err)
{
    size_t i = 0;

    if (!disk_read(c->from, offset, c->bytes[0], length, err) || !disk_read(c->to, offset, c->bytes[1], length, err))
        return false;
    if (memcmp(c->bytes[0], c->bytes[1], length) == 0)
        return true;
    while (c->bytes[0][i] == c->bytes[1][i])
        i++;
    return err_set(err, ERR_CORRUPT, "%s: what was written does not read the same at byte %llu of the disk", c->to_path,
                   (unsigned long long)(offset + i));
}

static bool compare_range(struct comparison *c, uint64_t offset, uint64_t length, struct err *err)
{
    while (length > 0) {
        size_t part = (size_t)min_u64(length, CHUNK_BYTES);
        if (progress_cancelled(c->progress))
            return err_set(err, ERR_CANCELLED, "%s: its comparison was cancelled", c->to_path);
        progress_report(c->progress, "compare", offset, disk_size_bytes(c->from));
        if (!compare_chunk(c, offset, part, err))
            return false;
        offset += part;
        length -= part;
    }
    return true;
}

static bool compare(struct comparison *c, struct err *err)
{
    uint64_t size = disk_size_bytes(c->from), length;
    bool zero;

    if (disk_size_bytes(c->to) != size)
        return err_set(err, ERR_CORRUPT, "%s: has %llu bytes, not %llu", c->to_path,
                       (unsigned long long)disk_size_bytes(c->to), (unsigned long long)size);
    for (uint64_t offset = 0; offset < size; offset += length) {
        if (!both_zero(c, offset, min_u64(size - offset, RANGE_BYTES), &zero, &length, err) ||
            (!zero && !compare_range(c, offset, length, err)))
            return false;
    }
    return true;
}

/* It is durable: nothing is lost. */
static void forget_cached(const struct io *io, const char *path)
{
    AUTO_IO struct io_file *file = NULL;
    struct err ignored;

    if (io_open(io, path, IO_READ_ONLY, &file, &ignored) && file->fd >= 0)
        (void)posix_fadvise(file->fd, 0, 0, POSIX_FADV_DONTNEED);
}

bool convert_compare(const struct io *io, const char *from, const char *to, const struct progress *progress,
                     struct err *err)
{
    AUTO(comparison_done)
    struct comparison c = {.bytes = {malloc(CHUNK_BYTES), malloc(CHUNK_BYTES)}, .to_path = to, .progress = progress};
    struct disk_options options = {.io = io};

    if (!c.bytes[0] || !c.bytes[1])
        return err_oom(err);
    forget_cached(io, to);
    return disk_open(from, &options, &c.from, err) && disk_open(to, &options, &c.to, err) && compare(&c, err);
}

bool convert_data_bytes(const struct io *io, const char *path, uint64_t *ret_bytes, struct err *err)
{
    AUTO_DISK struct disk *disk = NULL;
    struct disk_options options = {.io = io};
    enum disk_status_kind kind;
    uint64_t length, bytes = 0;

    if (!disk_open(path, &options, &disk, err))
        return false;
    uint64_t size = disk_size_bytes(disk);
    for (uint64_t offset = 0; offset < size; offset += length) {
        if (!disk_status(disk, offset, min_u64(size - offset, RANGE_BYTES), &kind, &length, err))
            return false;
        bytes += kind == DISK_DATA ? length : 0;
    }
    *ret_bytes = bytes;
    return true;
}
