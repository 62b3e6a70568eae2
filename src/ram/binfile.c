#include "binfile.h"

#include "bytes.h"
#include "parentbin.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdatomic.h>
#include <sys/uio.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define GATHER_PAGES     256
#define COMPARED_PAGES   64
#define GROUP_PAGES      16
#define SCATTERED_PIECES 4
#define ZERO_PAGE_SUM    0x93d76fe148c689baU /* XXH3 of 4096 zeros */

struct binfile {
    int fd;
    char *path;
    uint64_t memory_bytes;
    uint64_t *page_sums;      /* of what the file holds */
    uint8_t *seen;            /* a bit for each page that came */
    uint8_t *filled;          /* a bit for each page that is no hole */
    uint8_t *emptied;         /* of those, a bit for each that shall become one */
    uint8_t *written;         /* a bit for each page that was, ever */
    struct parentbin *parent; /* the file is a clone of it; or NULL */
    atomic_bool in_hurry;
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

static bool bit_is_set(const uint8_t *bits, uint64_t bit)
{
    return bits[bit / 8] & 1U << (bit % 8);
}

static void bit_set(uint8_t *bits, uint64_t bit)
{
    bits[bit / 8] = (uint8_t)(bits[bit / 8] | 1U << (bit % 8));
}

static void bit_clear(uint8_t *bits, uint64_t bit)
{
    bits[bit / 8] = (uint8_t)(bits[bit / 8] & ~(1U << (bit % 8)));
}

/* Whatever a clone, or half of one, has brought. What cannot be told is taken for content. */
static void find_filled(struct binfile *file)
{
    uint64_t end = 0;

    while (end < file->memory_bytes) {
        off_t data = lseek(file->fd, (off_t)end, SEEK_DATA);
        if (data < 0 && errno == ENXIO)
            return;
        off_t hole = data < 0 ? -1 : lseek(file->fd, data, SEEK_HOLE);
        uint64_t first = data < 0 ? end : (uint64_t)data;
        end = hole < 0 ? file->memory_bytes : (uint64_t)hole;
        for (uint64_t page = first / BIN_PAGE_BYTES; page < div_round_up(end, BIN_PAGE_BYTES); page++)
            bit_set(file->filled, page);
    }
}

static bool set_size(struct binfile *file, struct err *err)
{
    if (ftruncate(file->fd, (off_t)file->memory_bytes) != 0)
        return err_sys(err, errno, "%s: set the size to %" PRIu64, file->path, file->memory_bytes);
    return true;
}

static bool binfile_init(struct binfile *file, const char *path, const char *parent, struct err *err)
{
    uint64_t pages = file->memory_bytes / BIN_PAGE_BYTES;
    file->path = strdup(path);
    /* calloc of this size is fresh zeroed memory of the kernel: only what is written to takes space. */
    file->page_sums = calloc(pages, sizeof(*file->page_sums));
    file->seen = calloc(div_round_up(pages, 8), 1);
    file->filled = calloc(div_round_up(pages, 8), 1);
    file->emptied = calloc(div_round_up(pages, 8), 1);
    file->written = calloc(div_round_up(pages, 8), 1);
    if (!file->path || !file->page_sums || !file->seen || !file->filled || !file->emptied || !file->written)
        return err_oom(err);
    file->fd = open(path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (file->fd < 0)
        return err_sys(err, errno, "create %s", path);
    if (parent)
        file->parent = parentbin_clone(parent, file->fd, file->memory_bytes);
    if (!set_size(file, err)) {
        unlink(path);
        return false;
    }
    if (parent)
        find_filled(file);
    return true;
}

bool binfile_create(const char *path, const char *parent, uint64_t memory_bytes, struct binfile **ret_file,
                    struct err *err)
{
    if (memory_bytes == 0 || memory_bytes % BIN_PAGE_BYTES != 0 || memory_bytes > INT64_MAX)
        return err_set(err, ERR_INVALID, "%s: %" PRIu64 " bytes of memory", path, memory_bytes);
    struct binfile *file = calloc(1, sizeof(*file));
    if (!file)
        return err_oom(err);
    file->fd = -1;
    file->memory_bytes = memory_bytes;
    if (!binfile_init(file, path, parent, err)) {
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
    free(file->emptied);
    free(file->written);
    parentbin_close(file->parent);
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

static void note_seen(struct binfile *file, uint64_t page)
{
    if (bit_is_set(file->seen, page))
        file->counters.resent_pages++;
    else
        file->counters.seen_pages++;
    bit_set(file->seen, page);
}

/* How much of the parent is worth reading together. */
static uint64_t filled_bytes(const struct binfile *file, uint64_t page)
{
    uint64_t end = min_u64(page + COMPARED_PAGES, file->memory_bytes / BIN_PAGE_BYTES), next = page + 1;

    while (next < end && bit_is_set(file->filled, next))
        next++;
    return (next - page) * BIN_PAGE_BYTES;
}

/* A page that comes again was changed a moment ago: comparing it would be in vain. */
static bool is_the_parents(struct binfile *file, uint64_t page, const uint8_t *bytes)
{
    return file->parent && bit_is_set(file->filled, page) && !bit_is_set(file->seen, page) &&
           !atomic_load_explicit(&file->in_hurry, memory_order_relaxed) &&
           parentbin_has(file->parent, page * BIN_PAGE_BYTES, bytes, filled_bytes(file, page));
}

bool binfile_page(struct binfile *file, uint64_t offset, const uint8_t *bytes, struct err *err)
{
    uint64_t page = offset / BIN_PAGE_BYTES;
    bool is_shared = is_the_parents(file, page, bytes);

    note_seen(file, page);
    file->counters.pages++;
    file->page_sums[page] = bin_page_sum(bytes);
    if (is_shared) {
        file->counters.shared_pages++;
        return true;
    }
    bit_set(file->filled, page);
    bit_set(file->written, page);
    bit_clear(file->emptied, page);
    return gather(file, offset, bytes, err);
}

/* Content stays in the file until binfile_settle(): a punched hole waits for the page's write-back on some
 * file systems, and the reader of the stream must not wait for a disk. */
void binfile_zero(struct binfile *file, uint64_t offset)
{
    uint64_t page = offset / BIN_PAGE_BYTES;

    note_seen(file, page);
    file->counters.zero_pages++;
    file->page_sums[page] = 0;
    if (bit_is_set(file->filled, page))
        bit_set(file->emptied, page);
}

void binfile_hurry(struct binfile *file)
{
    atomic_store(&file->in_hurry, true);
}

static bool make_zeros(struct binfile *file, uint64_t first, uint64_t end, struct err *err)
{
    if (fallocate(file->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)(first * BIN_PAGE_BYTES),
                  (off_t)((end - first) * BIN_PAGE_BYTES)) == 0)
        return true;
    for (uint64_t page = first; page < end; page++)
        if (!gather(file, page * BIN_PAGE_BYTES, zero_page, err))
            return false;
    return true;
}

static bool is_shared(const struct binfile *file, uint64_t page)
{
    return bit_is_set(file->filled, page) && !bit_is_set(file->written, page) &&
           !bit_is_set(file->emptied, page);
}

/* Many pieces, with something shared between them. */
static bool is_scattered(const struct binfile *file, uint64_t first, uint64_t end)
{
    unsigned pieces = 0;
    bool is_apart = true;

    for (uint64_t page = first; page < end; page++) {
        bool is_written = bit_is_set(file->written, page);
        pieces += is_written && is_apart;
        is_apart = is_shared(file, page) || (is_apart && !is_written);
    }
    return pieces >= SCATTERED_PIECES;
}

/* What cannot be written stays shared: it is the same content. */
static void write_shared(struct binfile *file, uint64_t page, const uint8_t *bytes)
{
    off_t offset = (off_t)(page * BIN_PAGE_BYTES);

    if (bin_page_sum(bytes) == file->page_sums[page] &&
        pwrite(file->fd, bytes, BIN_PAGE_BYTES, offset) == BIN_PAGE_BYTES)
        file->counters.shared_pages--;
}

/* Where many pages of a group were written, apart from each other, its others are written too: piece by piece
 * it would cost the disk more than as a whole, now and whenever the image is read, and the file system an
 * entry for each. */
static void unshare(struct binfile *file)
{
    uint64_t pages = file->memory_bytes / BIN_PAGE_BYTES;
    uint8_t bytes[GROUP_PAGES * BIN_PAGE_BYTES];

    for (uint64_t first = 0; file->parent && first < pages; first += GROUP_PAGES) {
        uint64_t end = min_u64(first + GROUP_PAGES, pages);
        if (!is_scattered(file, first, end) ||
            !parentbin_read(file->parent, first * BIN_PAGE_BYTES, bytes, (end - first) * BIN_PAGE_BYTES))
            continue;
        for (uint64_t page = first; page < end; page++)
            if (is_shared(file, page))
                write_shared(file, page, bytes + (page - first) * BIN_PAGE_BYTES);
    }
}

static bool make_holes(struct binfile *file, struct err *err)
{
    uint64_t pages = file->memory_bytes / BIN_PAGE_BYTES, first = 0;

    while (first < pages) {
        uint64_t end = first + 1;
        if (!bit_is_set(file->emptied, first)) {
            first = file->emptied[first / 8] ? end : (first / 8 + 1) * 8;
            continue;
        }
        while (end < pages && bit_is_set(file->emptied, end))
            end++;
        if (!make_zeros(file, first, end, err))
            return false;
        first = end;
    }
    return binfile_flush(file, err);
}

bool binfile_settle(struct binfile *file, struct err *err)
{
    if (!make_holes(file, err))
        return false;
    unshare(file);
    return true;
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
