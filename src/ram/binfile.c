#include "binfile.h"

#include "bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/uio.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define GATHER_PAGES  256
#define ZERO_PAGE_SUM 0x93d76fe148c689baU /* XXH3 of 4096 zeros */

struct binfile {
    int fd;
    char *path;
    uint64_t memory_bytes;
    uint64_t *page_sums; /* of what the file holds */
    uint8_t *seen;       /* a bit for each page that came */
    uint8_t *filled;     /* a bit for each page that is no hole */
    struct binfile_counters counters;
    struct iovec gathered[GATHER_PAGES];
    int gathered_count;
    uint64_t gathered_offset; /* in the file, of the first */
};

static const uint8_t zero_page[BIN_PAGE_BYTES];

uint64_t bin_page_sum(const uint8_t page[static BIN_PAGE_BYTES])
{
    /* So that a table of sums that was never touched stands for zeros. */
    return XXH3_64bits(page, BIN_PAGE_BYTES) ^ ZERO_PAGE_SUM;
}

uint64_t bin_chunk_sum(const uint64_t *page_sums, size_t count)
{
    uint8_t bytes[BIN_CHUNK_PAGES * 8];
    for (size_t i = 0; i < count; i++)
        put_be64(bytes + i * 8, page_sums[i]);
    return XXH3_64bits(bytes, count * 8);
}

uint64_t bin_chunk_count(uint64_t memory_bytes)
{
    return div_round_up(memory_bytes, BIN_CHUNK_BYTES);
}

static bool binfile_init(struct binfile *file, const char *path, struct err *err)
{
    uint64_t pages = file->memory_bytes / BIN_PAGE_BYTES;
    file->path = strdup(path);
    /* calloc of this size is fresh zeroed memory of the kernel: only what is written to takes space. */
    file->page_sums = calloc(pages, sizeof(*file->page_sums));
    file->seen = calloc(div_round_up(pages, 8), 1);
    file->filled = calloc(div_round_up(pages, 8), 1);
    if (!file->path || !file->page_sums || !file->seen || !file->filled)
        return err_oom(err);
    file->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file->fd < 0)
        return err_sys(err, errno, "create %s", path);
    if (ftruncate(file->fd, (off_t)file->memory_bytes) == 0)
        return true;
    err_set_errno(err, errno, "%s: set the size to %" PRIu64, path, file->memory_bytes);
    unlink(path);
    return false;
}

bool binfile_create(const char *path, uint64_t memory_bytes, struct binfile **ret_file, struct err *err)
{
    if (memory_bytes == 0 || memory_bytes % BIN_PAGE_BYTES != 0 || memory_bytes > INT64_MAX)
        return err_set(err, ERR_INVALID, "%s: %" PRIu64 " bytes of memory", path, memory_bytes);
    struct binfile *file = calloc(1, sizeof(*file));
    if (!file)
        return err_oom(err);
    file->fd = -1;
    file->memory_bytes = memory_bytes;
    if (!binfile_init(file, path, err)) {
        binfile_close(file);
        return false;
    }
    *ret_file = file;
    return true;
}

void binfile_close(struct binfile *file)
{
    if (!file)
        return;
    if (file->fd >= 0)
        close(file->fd);
    free(file->path);
    free(file->page_sums);
    free(file->seen);
    free(file->filled);
    free(file);
}

/* Goes past what a short write took, in place. */
static void skip_written(struct iovec **vector, int *count, size_t written)
{
    while (*count > 0 && written >= (*vector)->iov_len) {
        written -= (*vector)->iov_len;
        (*vector)++;
        (*count)--;
    }
    if (*count > 0) {
        (*vector)->iov_base = (uint8_t *)(*vector)->iov_base + written;
        (*vector)->iov_len -= written;
    }
}

bool binfile_flush(struct binfile *file, struct err *err)
{
    struct iovec *vector = file->gathered;
    int count = file->gathered_count;
    uint64_t offset = file->gathered_offset;
    while (count > 0) {
        ssize_t written = pwritev(file->fd, vector, count, (off_t)offset);
        if (written < 0 && errno == EINTR)
            continue;
        if (written <= 0)
            return err_sys(err, written < 0 ? errno : EIO, "%s: write at %" PRIu64, file->path, offset);
        offset += (uint64_t)written;
        skip_written(&vector, &count, (size_t)written);
    }
    file->gathered_count = 0;
    return true;
}

static bool gather(struct binfile *file, uint64_t offset, const uint8_t *bytes, struct err *err)
{
    uint64_t end = file->gathered_offset + (uint64_t)file->gathered_count * BIN_PAGE_BYTES;
    if ((file->gathered_count == GATHER_PAGES || offset != end) && !binfile_flush(file, err))
        return false;
    if (file->gathered_count == 0)
        file->gathered_offset = offset;
    file->gathered[file->gathered_count++] =
        (struct iovec){.iov_base = (void *)(uintptr_t)bytes, .iov_len = BIN_PAGE_BYTES};
    return true;
}

static bool bit_is_set(const uint8_t *bits, uint64_t bit)
{
    return bits[bit / 8] & 1U << (bit % 8);
}

static void bit_set(uint8_t *bits, uint64_t bit)
{
    bits[bit / 8] = (uint8_t)(bits[bit / 8] | 1U << (bit % 8));
}

static void note_seen(struct binfile *file, uint64_t page)
{
    if (bit_is_set(file->seen, page))
        file->counters.resent_pages++;
    else
        file->counters.seen_pages++;
    bit_set(file->seen, page);
}

bool binfile_page(struct binfile *file, uint64_t offset, const uint8_t *bytes, struct err *err)
{
    uint64_t page = offset / BIN_PAGE_BYTES;
    note_seen(file, page);
    file->counters.pages++;
    bit_set(file->filled, page);
    file->page_sums[page] = bin_page_sum(bytes);
    return gather(file, offset, bytes, err);
}

/* Zeros over content are written, not punched: a punched hole waits for the page's write-back on some file
 * systems, and the reader of the stream must not wait for a disk. */
bool binfile_zero(struct binfile *file, uint64_t offset, struct err *err)
{
    uint64_t page = offset / BIN_PAGE_BYTES;
    note_seen(file, page);
    file->counters.zero_pages++;
    if (!bit_is_set(file->filled, page))
        return true;
    file->page_sums[page] = 0;
    return gather(file, offset, zero_page, err);
}

bool binfile_sync(struct binfile *file, struct err *err)
{
    if (fdatasync(file->fd) < 0)
        return err_sys(err, errno, "%s: sync", file->path);
    return true;
}

const struct binfile_counters *binfile_counters(const struct binfile *file)
{
    return &file->counters;
}

bool binfile_is_complete(const struct binfile *file, uint64_t *ret_offset)
{
    uint64_t pages = file->memory_bytes / BIN_PAGE_BYTES;
    if (file->counters.seen_pages == pages)
        return true;
    uint64_t page = 0;
    while (page < pages && bit_is_set(file->seen, page))
        page++;
    *ret_offset = page * BIN_PAGE_BYTES;
    return false;
}

uint64_t binfile_chunk_sum(const struct binfile *file, uint64_t chunk)
{
    uint64_t first = chunk * BIN_CHUNK_PAGES;
    uint64_t pages = file->memory_bytes / BIN_PAGE_BYTES;
    return bin_chunk_sum(file->page_sums + first, min_u64(BIN_CHUNK_PAGES, pages - first));
}
