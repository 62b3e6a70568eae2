#include "parentbin.h"

#include "binfile.h"
#include "bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/fiemap.h>
#include <linux/fs.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/stat.h>
#include <unistd.h>

#define WINDOW_BYTES (256U << 10) /* stays in the processor's cache */
/* What changed in all generations before adds up to pieces, and to clone one costs a fraction of a millisecond, as a
 * whole and without a way to break it off: about a second at this many. The next generation then begins anew. */
#define EXTENTS_MAX  6144U

struct parentbin {
    int fd;
    uint64_t window_offset;
    size_t window_length;
    uint8_t window[WINDOW_BYTES];
};

static bool is_image_of(int fd, uint64_t memory_bytes)
{
    struct stat stat;
    return fstat(fd, &stat) == 0 && S_ISREG(stat.st_mode) && (uint64_t)stat.st_size == memory_bytes;
}

static bool is_in_few_pieces(int fd)
{
    struct fiemap map = {.fm_length = FIEMAP_MAX_OFFSET}; /* with room for none: they are counted */
    return ioctl(fd, FS_IOC_FIEMAP, &map) != 0 || map.fm_mapped_extents <= EXTENTS_MAX;
}

struct parentbin *parentbin_clone(const char *path, int fd, uint64_t memory_bytes)
{
    AUTO_FD int parent_fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK);
    if (parent_fd < 0 || !is_image_of(parent_fd, memory_bytes) || !is_in_few_pieces(parent_fd))
        return NULL;
    AUTO_FREE struct parentbin *parent = malloc(sizeof(*parent));
    if (!parent)
        return NULL;
    if (ioctl(fd, FICLONE, parent_fd) != 0)
        return NULL;
    posix_fadvise(parent_fd, 0, 0, POSIX_FADV_SEQUENTIAL);
    parent->fd = TAKE_FD(parent_fd);
    parent->window_length = 0;
    return TAKE(parent);
}

void parentbin_close(struct parentbin *parent)
{
    if (!parent)
        return;
    close(parent->fd);
    free(parent);
}

static ssize_t read_at(const struct parentbin *parent, uint64_t offset, uint8_t *bytes, size_t length)
{
    ssize_t got;

    do
        got = pread(parent->fd, bytes, length, (off_t)offset);
    while (got < 0 && errno == EINTR);
    return got;
}

static bool window_fill(struct parentbin *parent, uint64_t offset, uint64_t ahead)
{
    ssize_t got = read_at(parent, offset, parent->window, (size_t)min_u64(ahead, WINDOW_BYTES));

    parent->window_length = 0;
    if (got < (ssize_t)BIN_PAGE_BYTES)
        return false;
    parent->window_offset = offset;
    parent->window_length = (size_t)got / BIN_PAGE_BYTES * BIN_PAGE_BYTES;
    return true;
}

bool parentbin_has(struct parentbin *parent, uint64_t offset, const uint8_t *page, uint64_t ahead)
{
    bool is_held = offset >= parent->window_offset && offset - parent->window_offset < parent->window_length;

    if (!is_held && !window_fill(parent, offset, ahead))
        return false;
    return memcmp(parent->window + (offset - parent->window_offset), page, BIN_PAGE_BYTES) == 0;
}

bool parentbin_read(const struct parentbin *parent, uint64_t offset, uint8_t *bytes, size_t length)
{
    return read_at(parent, offset, bytes, length) == (ssize_t)length;
}
