/* Files, copied: by sharing extents where the file system can, else in the kernel, else through memory. */
#include "store_private.h"

#include "bytes.h"

#include <errno.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define CHUNK_BYTES  (1U << 20)
#define KERNEL_BYTES (16U << 20) /* at once; between two of them one can cancel */

struct copy {
    struct io_file *from, *to;
    uint64_t size_bytes;
    uint8_t *bytes;     /* a chunk; owned; NULL until it is needed */
    bool by_hand;       /* the kernel cannot */
    const struct progress *progress;
};

static void copy_done(struct copy *copy)
{
    free(copy->bytes);
}

/* Where the data at or behind offset is, as far as the file system tells; no data: at the end. */
static void next_data(const struct copy *copy, uint64_t offset, uint64_t *ret_start, uint64_t *ret_end)
{
    off_t data = copy->from->fd < 0 ? (off_t)offset : lseek(copy->from->fd, (off_t)offset, SEEK_DATA);

    *ret_start = offset;
    *ret_end = copy->size_bytes;
    if (data < 0 && errno == ENXIO)
        *ret_start = copy->size_bytes;
    if (data < 0 || copy->from->fd < 0)
        return;
    off_t hole = lseek(copy->from->fd, data, SEEK_HOLE);
    *ret_start = (uint64_t)data;
    if (hole > data)
        *ret_end = min_u64((uint64_t)hole, copy->size_bytes);
}

/* *ret_length 0: the kernel cannot do it between these two. */
static bool copy_in_kernel(struct copy *copy, uint64_t offset, uint64_t length, uint64_t *ret_length, struct err *err)
{
    off_t from = (off_t)offset, to = (off_t)offset;

    *ret_length = 0;
    if (copy->by_hand || copy->from->fd < 0 || copy->to->fd < 0)
        return true;
    ssize_t done = copy_file_range(copy->from->fd, &from, copy->to->fd, &to, min_u64(length, KERNEL_BYTES), 0);
    if (done < 0 && (errno == ENOSPC || errno == EDQUOT || errno == EIO))
        return err_sys(err, errno, "copy %s to %s", copy->from->path, copy->to->path);
    if (done > 0)
        *ret_length = (uint64_t)done;
    return true;
}

static bool copy_by_hand(struct copy *copy, uint64_t offset, uint64_t length, uint64_t *ret_length, struct err *err)
{
    size_t part = (size_t)min_u64(length, CHUNK_BYTES);

    copy->by_hand = true;
    if (!copy->bytes && !(copy->bytes = malloc(CHUNK_BYTES)))
        return err_oom(err);
    if (!io_read(copy->from, offset, copy->bytes, part, err) ||
        (!bytes_are_zero(copy->bytes, part) && !io_write(copy->to, offset, copy->bytes, part, err)))
        return false;
    *ret_length = part;
    return true;
}

static bool copy_range(struct copy *copy, uint64_t offset, uint64_t end, struct err *err)
{
    while (offset < end) {
        uint64_t done;
        if (progress_cancelled(copy->progress))
            return err_set(err, ERR_CANCELLED, "%s: its copy was cancelled", copy->from->path);
        progress_report(copy->progress, "copy", offset, copy->size_bytes);
        if (!copy_in_kernel(copy, offset, end - offset, &done, err) ||
            (done == 0 && !copy_by_hand(copy, offset, end - offset, &done, err)))
            return false;
        offset += done;
    }
    return true;
}

/* Both files have the same content then, and no space is taken. */
static bool share_extents(const struct copy *copy)
{
    return copy->from->fd >= 0 && copy->to->fd >= 0 && ioctl(copy->to->fd, FICLONE, copy->from->fd) == 0;
}

static bool copy_content(struct copy *copy, struct err *err)
{
    uint64_t start, end = 0;

    if (share_extents(copy))
        return io_sync(copy->to, err);
    while (end < copy->size_bytes) {
        next_data(copy, end, &start, &end);
        if (!copy_range(copy, start, end, err))
            return false;
    }
    return io_truncate(copy->to, copy->size_bytes, err) && io_sync(copy->to, err);
}

bool copy_file(const struct io *io, const char *from, const char *to, const struct progress *progress, struct err *err)
{
    AUTO_IO struct io_file *source = NULL;
    AUTO_IO struct io_file *target = NULL;
    AUTO(copy_done) struct copy copy = {.progress = progress};
    struct io_stat stat;

    /* What somebody writes meanwhile would be of no one moment. */
    if (!io_open(io, from, IO_READ_ONLY, &source, err) || !io_lock(source, IO_LOCK_SHARE, err) ||
        !io_stat_file(source, &stat, err) ||
        !io_open(io, to, IO_WRITE | IO_CREATE, &target, err))
        return false;
    copy.from = source;
    copy.to = target;
    copy.size_bytes = stat.size_bytes;
    return copy_content(&copy, err);
}
