#include "dirty_log.h"

#include "buf.h"
#include "bytes.h"
#include "file.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/random.h>
#include <sys/xattr.h>

#define PAGE_BYTES 4096U

_Static_assert(sizeof(struct dirty_header) == DIRTY_HEADER_BYTES, "the table begins behind the header");

bool dirty_boot_id(char ret_id[static DIRTY_BOOT_ID_SIZE], struct err *err)
{
    AUTO_BUF struct buf text = BUF_INIT;

    if (!file_read_all(&io_real, "/proc/sys/kernel/random/boot_id", 256, &text, err))
        return false;
    memset(ret_id, 0, DIRTY_BOOT_ID_SIZE);
    memcpy(ret_id, text.data, min_u64(text.length, DIRTY_BOOT_ID_SIZE - 1));
    return true;
}

char *dirty_log_path(const char *dir, uint64_t device, uint64_t inode)
{
    return string_printf("%s/%llx-%llx" DIRTY_LOG_SUFFIX, dir, (unsigned long long)device,
                         (unsigned long long)inode);
}

void dirty_log_free(struct dirty_log *log)
{
    if (!log)
        return;
    if (log->header)
        munmap(log->header, log->map_bytes);
    if (log->fd >= 0)
        close(log->fd);
    free(log->has_space);
    free(log->path);
    free(log);
}
AUTO_DEFINE(auto_dirty_log_free, struct dirty_log, dirty_log_free)

void dirty_log_unlink(struct dirty_log *log)
{
    if (!log->path)
        return;
    unlink(log->path);
    if (log->image_fd >= 0 && fremovexattr(log->image_fd, DIRTY_MARK) != 0)
        log_debug("%s: its mark stays", log->path);
    free(TAKE(log->path));
}

/* Space for pages that are about to be touched. */
static bool take_space(const struct dirty_log *log, uint64_t offset, uint64_t length, struct err *err)
{
    if (log->fd < 0)
        return true;
    int errnum = posix_fallocate(log->fd, (off_t)offset, (off_t)length);
    return errnum == 0 || err_sys(err, errnum, "%s: room for what is not yet in the image", log->path);
}

static bool file_make(struct dirty_log *log, const char *dir, const struct vhd *vhd, struct err *err)
{
    log->path = dirty_log_path(dir, vhd->device, vhd->inode);
    if (!log->path)
        return err_oom(err);
    log->fd = open(log->path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (log->fd < 0 && errno == EEXIST) {
        (void)err_set(err, ERR_BUSY, "%s: writes to it wait in %s", vhd->path, log->path);
        free(TAKE(log->path)); /* it is another's */
        return false;
    }
    if (log->fd < 0)
        return err_sys(err, errno, "make %s", log->path);
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};
    if (fcntl(log->fd, F_OFD_SETLK, &whole) != 0)
        return err_sys(err, errno, "lock %s", log->path);
    if (ftruncate(log->fd, (off_t)log->map_bytes) != 0)
        return err_sys(err, errno, "%s: set its size", log->path);
    return take_space(log, 0, dirty_bits_offset(log->bat_bytes), err);
}

static bool map(struct dirty_log *log, struct err *err)
{
    int flags = log->fd < 0 ? MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE : MAP_SHARED;
    void *memory = mmap(NULL, log->map_bytes, PROT_READ | PROT_WRITE, flags, log->fd, 0);

    if (memory == MAP_FAILED)
        return err_sys(err, errno, "memory for a table of %zu bytes and its bitmaps", log->bat_bytes);
    log->header = memory;
    log->bat = (uint8_t *)memory + DIRTY_HEADER_BYTES;
    log->bits = (uint8_t *)memory + dirty_bits_offset(log->bat_bytes);
    return true;
}

/* Also a writer without a log leaves one, so that a log which it does not know of is void from now on. */
static bool mark_image(struct dirty_log *log, const struct vhd *vhd, struct err *err)
{
    struct dirty_header *header = log->header;

    if (vhd->file->fd < 0)
        return true;
    if (getrandom(header->mark, sizeof header->mark, 0) != sizeof header->mark)
        return err_sys(err, errno, "random bytes");
    if (fsetxattr(vhd->file->fd, DIRTY_MARK, header->mark, sizeof header->mark, 0) != 0) {
        log_debug("%s: no mark: %s", vhd->path, strerror(errno));
        return true;
    }
    header->has_mark = 1;
    log->image_fd = vhd->file->fd;
    return true;
}

static bool fill(struct dirty_log *log, const struct vhd *vhd, struct err *err)
{
    AUTO_FREE uint8_t *bat = NULL;
    struct dirty_header *header = log->header;

    if (!vhd_bat_read(vhd, &bat, &log->bat_bytes, err))
        return false;
    memcpy(log->bat, bat, log->bat_bytes);
    header->bat_bytes = log->bat_bytes;
    header->block_count = vhd->block_count;
    header->bitmap_bytes = vhd->bitmap_bytes;
    memcpy(header->image_id, vhd->footer.id, VHD_ID_SIZE);
    if (!mark_image(log, vhd, err) || (log->fd >= 0 && !dirty_boot_id(header->boot_id, err)))
        return false;
    atomic_signal_fence(memory_order_release);
    memcpy(header->magic, DIRTY_MAGIC, sizeof header->magic);
    return true;
}

static bool make(struct dirty_log *log, const char *dir, const struct vhd *vhd, struct err *err)
{
    uint64_t bits_bytes = (uint64_t)vhd->block_count * vhd->bitmap_bytes;

    log->bitmap_bytes = vhd->bitmap_bytes;
    log->bat_bytes = (size_t)vhd_bat_file_bytes(vhd);
    log->map_bytes = (size_t)round_up(dirty_bits_offset(log->bat_bytes) + bits_bytes, PAGE_BYTES);
    log->has_space = calloc(bits_bytes / PAGE_BYTES / 64 + 1, sizeof *log->has_space);
    if (!log->has_space)
        return err_oom(err);
    return (!dir || file_make(log, dir, vhd, err)) && map(log, err) && fill(log, vhd, err);
}

bool dirty_log_new(const char *dir, const struct vhd *vhd, struct dirty_log **ret_log, struct err *err)
{
    AUTO(auto_dirty_log_free) struct dirty_log *log = calloc(1, sizeof *log);

    if (!log)
        return err_oom(err);
    log->fd = log->image_fd = -1;
    if (!make(log, dir, vhd, err)) {
        dirty_log_unlink(log);
        return false;
    }
    *ret_log = TAKE(log);
    return true;
}

bool dirty_log_reserve(struct dirty_log *log, uint32_t block, struct err *err)
{
    uint64_t first = (uint64_t)block * log->bitmap_bytes / PAGE_BYTES;
    uint64_t end = div_round_up((uint64_t)(block + 1) * log->bitmap_bytes, PAGE_BYTES);

    for (uint64_t page = first; page < end; page++) {
        uint64_t bit = 1ULL << page % 64;
        if (log->has_space[page / 64] & bit)
            continue;
        if (!take_space(log, dirty_bits_offset(log->bat_bytes) + page * PAGE_BYTES, PAGE_BYTES, err))
            return false;
        log->has_space[page / 64] |= bit;
    }
    return true;
}

/* A process that is killed has done what comes before in its program, and nothing of what comes behind: the order
 * need be kept from the compiler alone. */
void dirty_log_set_end(struct dirty_log *log, uint64_t end_bytes)
{
    *(volatile uint64_t *)&log->header->end_bytes = end_bytes;
    atomic_signal_fence(memory_order_seq_cst);
}

void dirty_log_set_entry(struct dirty_log *log, uint32_t block, uint32_t entry)
{
    uint8_t bytes[4];
    uint32_t word;

    put_be32(bytes, entry);
    memcpy(&word, bytes, sizeof word);
    atomic_signal_fence(memory_order_seq_cst);
    /* The table lies at the start of a page: one store, never seen in part. */
    ((volatile uint32_t *)(void *)log->bat)[block] = word;
    atomic_signal_fence(memory_order_seq_cst);
}
