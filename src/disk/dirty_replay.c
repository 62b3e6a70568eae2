/* Putting in place what a process that was killed had answered: see dirty_log.h.
 *
 * The order is that of a flush (disk_flush.c): the image's data are made durable, then bitmaps, table and footer are
 * written, then those are made durable. Only then does the log go. Cut off by a kill, it is done again; cut off by
 * the power, the log is gone, and what reached the file is true by the same order. */
#include "buf.h"
#include "bytes.h"
#include "dirty_log.h"
#include "file.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/xattr.h>
#include <time.h>

#define KERNEL_TIMEOUT_MS 5000
#define LOOK_EVERY_MS     5

struct replay {
    const struct io *io;
    const char *path; /* of the log */
    struct io_file *log;
    struct vhd *vhd;
    struct dirty_header header;
    uint8_t *had, *has; /* the table as it is in the image, and with what the log adds */
    uint8_t *bits, *more;
};

static void replay_done(struct replay *replay)
{
    io_close(replay->log);
    vhd_close(replay->vhd);
    free(replay->had);
    free(replay->has);
    free(replay->bits);
    free(replay->more);
}

/* Has nobody but the log's own process written to the image since? */
static bool mark_fits(const struct replay *replay)
{
    unsigned char mark[DIRTY_MARK_SIZE];
    int fd = replay->vhd->file->fd;

    if (fd < 0 || !replay->header.has_mark)
        return true;
    return fgetxattr(fd, DIRTY_MARK, mark, sizeof mark) == sizeof mark &&
           memcmp(mark, replay->header.mark, sizeof mark) == 0;
}

/* Of another boot its data may not have reached the image; and an inode is given to other files again. */
static bool counts(const struct replay *replay, bool *ret_counts, struct err *err)
{
    const struct dirty_header *header = &replay->header;
    char boot_id[DIRTY_BOOT_ID_SIZE];

    if (!dirty_boot_id(boot_id, err))
        return false;
    *ret_counts = memcmp(header->magic, DIRTY_MAGIC, sizeof header->magic) == 0 &&
                  memcmp(header->boot_id, boot_id, sizeof boot_id) == 0 &&
                  memcmp(header->image_id, replay->vhd->footer.id, VHD_ID_SIZE) == 0;
    if (*ret_counts && !mark_fits(replay)) {
        log_warning("%s: was written or replaced by another since its writer was killed: what waited in %s is lost",
                    replay->vhd->path, replay->path);
        *ret_counts = false;
    }
    return true;
}

static bool mismatch(const struct replay *replay, const char *why, struct err *err)
{
    return err_set(err, ERR_MISMATCH,
                   "%s: writes to it wait in %s, but it was changed meanwhile (%s); without that file they are lost",
                   replay->vhd->path, replay->path, why);
}

static bool check_entry(const struct replay *replay, uint32_t old, uint32_t new, struct err *err)
{
    const struct vhd *vhd = replay->vhd;

    if (old != VHD_BAT_UNALLOCATED)
        return old == new || mismatch(replay, "other blocks", err);
    if (new != VHD_BAT_UNALLOCATED && vhd_data_offset(vhd, new) + vhd->block_bytes > replay->header.end_bytes)
        return mismatch(replay, "a block past its end", err);
    return true;
}

static bool load_tables(struct replay *replay, struct err *err)
{
    const struct vhd *vhd = replay->vhd;
    const struct dirty_header *header = &replay->header;
    size_t length;
    uint64_t end;

    if (vhd->type == VHD_FIXED || header->bat_bytes != vhd_bat_file_bytes(vhd) ||
        header->block_count != vhd->block_count || header->bitmap_bytes != vhd->bitmap_bytes)
        return mismatch(replay, "another size", err);
    if (header->end_bytes > vhd->file_bytes)
        return mismatch(replay, "its end cut off", err);
    if (!vhd_end_bytes(vhd, &end, err))
        return false;
    if (end > header->end_bytes)
        return mismatch(replay, "something behind its end", err);
    if (!vhd_bat_read(vhd, &replay->had, &length, err))
        return false;
    replay->has = malloc(length);
    replay->bits = malloc(vhd->bitmap_bytes);
    replay->more = malloc(vhd->bitmap_bytes);
    if (!replay->has || !replay->bits || !replay->more)
        return err_oom(err);
    if (!io_read(replay->log, DIRTY_HEADER_BYTES, replay->has, length, err))
        return false;
    for (uint32_t block = 0; block < vhd->header.table_entries; block++)
        if (!check_entry(replay, get_be32(replay->had + (size_t)block * 4),
                         get_be32(replay->has + (size_t)block * 4), err))
            return false;
    return true;
}

static bool put_bitmap(const struct replay *replay, uint32_t block, uint32_t entry, struct err *err)
{
    uint32_t length = replay->vhd->bitmap_bytes;
    uint64_t offset = dirty_bits_offset(replay->header.bat_bytes) + (uint64_t)block * length;
    uint8_t added = 0;

    if (!io_read(replay->log, offset, replay->more, length, err))
        return false;
    if (bytes_are_zero(replay->more, length))
        return true;
    if (!vhd_bitmap_read(replay->vhd, entry, replay->bits, err))
        return false;
    for (uint32_t i = 0; i < length; i++) {
        added |= replay->more[i] & (uint8_t)~replay->bits[i];
        replay->bits[i] |= replay->more[i];
    }
    return added == 0 || io_write(replay->vhd->file, vhd_bitmap_offset(entry), replay->bits, length, err);
}

static bool put_table(const struct replay *replay, struct err *err)
{
    const struct vhd *vhd = replay->vhd;

    for (uint64_t at = 0; at < replay->header.bat_bytes; at += VHD_SECTOR)
        if (memcmp(replay->had + at, replay->has + at, VHD_SECTOR) != 0 &&
            !io_write(vhd->file, vhd->header.table_offset + at, replay->has + at, VHD_SECTOR, err))
            return false;
    return true;
}

/* A failed sync may have lost what the bits speak of, and the next one would not tell. */
static bool sync_or_forget(const struct replay *replay, struct err *err)
{
    if (io_sync(replay->vhd->file, err))
        return true;
    unlink(replay->path);
    return err_prefix(err, "what was answered and not yet flushed may be lost");
}

static bool put_all(const struct replay *replay, struct err *err)
{
    const struct vhd *vhd = replay->vhd;
    uint64_t end = replay->header.end_bytes;

    if (!sync_or_forget(replay, err))
        return false;
    for (uint32_t block = 0; block < vhd->block_count; block++) {
        uint32_t entry = get_be32(replay->has + (size_t)block * 4);
        if (entry != VHD_BAT_UNALLOCATED && !put_bitmap(replay, block, entry, err))
            return false;
    }
    /* What lies behind the end is a block that nobody was told of. */
    return put_table(replay, err) &&
           io_write(vhd->file, end, vhd->footer_bytes, VHD_FOOTER_BYTES, err) &&
           io_truncate(vhd->file, end + VHD_FOOTER_BYTES, err) && sync_or_forget(replay, err);
}

/* Does the process that made the log live? */
static bool owner_lives(const struct replay *replay)
{
    struct flock whole = {.l_type = F_WRLCK, .l_whence = SEEK_SET};

    return fcntl(replay->log->fd, F_OFD_GETLK, &whole) == 0 && whole.l_type != F_UNLCK;
}

/* What a dead process had asked of the kernel may still be under way, and keeps the image locked until it ends. */
static bool open_image(struct replay *replay, const char *image_path, struct err *err)
{
    for (unsigned waited_ms = 0;; waited_ms += LOOK_EVERY_MS) {
        if (vhd_open(replay->io, image_path, IO_WRITE, &replay->vhd, err))
            return true;
        if (err->code != ERR_BUSY || waited_ms >= KERNEL_TIMEOUT_MS || owner_lives(replay))
            return false;
        nanosleep(&(struct timespec){.tv_nsec = LOOK_EVERY_MS * 1000000L}, NULL);
    }
}

static bool open_both(struct replay *replay, const char *image_path, bool *ret_ready, struct err *err)
{
    size_t got;

    *ret_ready = false;
    if (!io_open(&io_real, replay->path, IO_READ_ONLY, &replay->log, err))
        return err->code == ERR_NOT_FOUND;
    if (owner_lives(replay))
        return true;
    if (!open_image(replay, image_path, err)) {
        /* What is no image, or a damaged one, is told by whoever opens it. */
        if (err->code == ERR_CORRUPT || err->code == ERR_UNSUPPORTED || owner_lives(replay))
            return true;
        return err_prefix(err, "answered writes to it wait in %s", replay->path);
    }
    /* Another may have replayed it a moment ago. */
    if (access(replay->path, F_OK) != 0)
        return true;
    if (!io_read_some(replay->log, 0, &replay->header, sizeof replay->header, &got, err))
        return false;
    *ret_ready = true;
    return true;
}

static bool replay_log(struct replay *replay, const char *image_path, bool *ret_changed, struct err *err)
{
    bool ready, is_true = false;

    if (!open_both(replay, image_path, &ready, err) || (ready && !counts(replay, &is_true, err)))
        return false;
    if (!ready)
        return true;
    if (is_true) {
        if (!load_tables(replay, err) || !put_all(replay, err))
            return false;
        log_debug("%s: writes that a process left in %s are in place", image_path, replay->path);
    }
    if (unlink(replay->path) != 0)
        return err_sys(err, errno, "remove %s", replay->path);
    if (replay->vhd->file->fd >= 0)
        (void)!fremovexattr(replay->vhd->file->fd, DIRTY_MARK);
    *ret_changed = is_true;
    return true;
}

bool dirty_log_replay(const struct io *io, const char *dir, const char *image_path, bool *ret_changed,
                      struct err *err)
{
    struct io_stat stat;
    struct err ignored;

    *ret_changed = false;

    if (!io_stat_path(io, image_path, &stat, &ignored))
        return true; /* whoever opens it tells */
    AUTO_FREE char *path = dirty_log_path(dir, stat.device, stat.inode);
    if (!path)
        return err_oom(err);
    if (access(path, F_OK) != 0)
        return true;
    AUTO(replay_done) struct replay replay = {.io = io, .path = path};
    return replay_log(&replay, image_path, ret_changed, err);
}

struct all {
    const struct io *io;
    const char *dir, *images_dir;
    struct err *err;
};

static int replay_each(void *context, const char *name)
{
    struct all *all = context;
    AUTO_FREE char *path = path_join(all->images_dir, name);
    bool changed;

    if (!path)
        return ENOMEM;
    return dirty_log_replay(all->io, all->dir, path, &changed, all->err) ? 0 : err_errno(all->err);
}

static int is_log(void *context, const char *name)
{
    size_t length = strlen(name), suffix = strlen(DIRTY_LOG_SUFFIX);
    bool *any = context;

    *any |= length > suffix && strcmp(name + length - suffix, DIRTY_LOG_SUFFIX) == 0;
    return 0;
}

bool dirty_log_replay_all(const struct io *io, const char *dir, const char *images_dir, struct err *err)
{
    struct err first = ERR_INIT, listing;
    struct all all = {.io = io, .dir = dir, .images_dir = images_dir, .err = &first};
    bool any = false;

    if (!io_list(&io_real, dir, is_log, &any, &listing))
        return listing.code == ERR_NOT_FOUND || (*err = listing, false);
    if (!any || io_list(io, images_dir, replay_each, &all, &listing) || listing.code == ERR_NOT_FOUND)
        return true;
    *err = first.code != ERR_NONE ? first : listing;
    return false;
}
