#include "native.h"

#include "bytes.h"
#include "vhd_bitmap.h"

#include <errno.h>
#include <fcntl.h>

#define CHUNK (1U << 20)
#define PAGE  4096U

/* --- opening and making --- */

/* QEMU marks what it does to an image by locks on single bytes; this one is held by who writes. */
#define QEMU_WRITE_LOCK 101

static bool check_no_writer(const struct io_file *file, struct err *err)
{
    struct flock lock = {.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = QEMU_WRITE_LOCK, .l_len = 1};

    if (file->fd < 0 || fcntl(file->fd, F_OFD_GETLK, &lock) != 0 || lock.l_type == F_UNLCK)
        return true;
    return err_set(err, ERR_BUSY, "%s: somebody else is writing to it", file->path);
}

static bool raw_open(const struct io *io, const char *path, struct native *native, struct err *err)
{
    struct io_stat stat;

    if (!io_open(io, path, IO_READ_ONLY, &native->raw, err) || !check_no_writer(native->raw, err) ||
        !io_lock(native->raw, IO_LOCK_SHARE, err) || !io_stat_file(native->raw, &stat, err))
        return false;
    native->size_bytes = stat.size_bytes;
    return true;
}

static bool vhd_chain_open(const struct io *io, const char *path, struct native *native, struct err *err)
{
    struct disk_options options = {.io = io};

    if (!vhd_open(io, path, IO_READ_ONLY, &native->lock, err) ||
        !io_lock(native->lock->file, IO_LOCK_SHARE, err) || !disk_open(path, &options, &native->disk, err))
        return false;
    native->size_bytes = disk_size_bytes(native->disk);
    return true;
}

bool native_open(const struct io *io, enum image_format format, const char *path, struct native *ret_native,
                 struct err *err)
{
    AUTO_NATIVE struct native native = {0};
    bool ok = format == IMAGE_RAW ? raw_open(io, path, &native, err) : vhd_chain_open(io, path, &native, err);

    if (!ok)
        return false;
    *ret_native = native;
    native = (struct native){0};
    return true;
}

bool native_create(const struct io *io, enum image_format format, uint32_t block_bytes, const char *path,
                   uint64_t size_bytes, struct native *ret_native, struct err *err)
{
    AUTO_NATIVE struct native native = {.size_bytes = size_bytes};
    struct disk_options options = {.io = io, .writable = true};
    struct vhd_create_options create = {.type = format == IMAGE_FIXED ? VHD_FIXED : VHD_DYNAMIC,
                                        .size_bytes = size_bytes,
                                        .block_bytes = block_bytes};

    if (format == IMAGE_RAW) {
        if (!io_open(io, path, IO_CREATE, &native.raw, err))
            return false;
    } else if (!vhd_create(io, path, &create, err) || !disk_open(path, &options, &native.disk, err)) {
        return false;
    }
    *ret_native = native;
    native = (struct native){0};
    return true;
}

void native_done(struct native *native)
{
    disk_abandon(native->disk);
    io_close(native->raw);
    vhd_close(native->lock);
    *native = (struct native){0};
}

bool native_finish(struct native *native, struct err *err)
{
    bool ok = native->disk ? disk_close(TAKE(native->disk), err)
                           : io_truncate(native->raw, native->size_bytes, err) && io_sync(native->raw, err);

    native_done(native);
    return ok;
}

/* --- copying --- */

/* What a raw file has from offset on, data or a hole, and how far. A hole's end is no earlier than said, so
 * only whole sectors of it count. */
static void raw_status(const struct io_file *raw, uint64_t offset, uint64_t length, bool *ret_zero,
                       uint64_t *ret_length)
{
    off_t data = raw->fd < 0 ? (off_t)offset : lseek(raw->fd, (off_t)offset, SEEK_DATA);

    *ret_zero = true;
    *ret_length = length;
    if (data < 0 && errno == ENXIO) /* nothing but a hole until the end */
        return;
    if (data >= 0 && round_down((uint64_t)data, VHD_SECTOR) > offset) {
        *ret_length = min_u64(length, round_down((uint64_t)data, VHD_SECTOR) - offset);
        return;
    }
    *ret_zero = false;
    off_t hole = data < 0 || raw->fd < 0 ? -1 : lseek(raw->fd, (off_t)offset, SEEK_HOLE);
    if (hole > (off_t)offset)
        *ret_length = min_u64(length, round_up((uint64_t)hole, VHD_SECTOR) - offset);
}

static bool status(struct native *from, uint64_t offset, uint64_t length, bool *ret_zero,
                   uint64_t *ret_length, struct err *err)
{
    enum disk_status_kind kind;

    if (from->raw) {
        raw_status(from->raw, offset, length, ret_zero, ret_length);
        return true;
    }
    if (!disk_status(from->disk, offset, length, &kind, ret_length, err))
        return false;
    *ret_zero = kind == DISK_ZERO;
    return true;
}

static bool read_chunk(struct native *from, uint64_t offset, uint8_t *bytes, size_t length, struct err *err)
{
    size_t have;

    if (from->disk)
        return disk_read(from->disk, offset, bytes, length, err);
    if (!io_read_some(from->raw, offset, bytes, length, &have, err))
        return false;
    memset(bytes + have, 0, length - have);
    return true;
}

static bool write_run(struct native *to, uint64_t offset, const uint8_t *bytes, size_t length,
                      struct err *err)
{
    return to->disk ? disk_write(to->disk, offset, bytes, length, err)
                    : io_write(to->raw, offset, bytes, length, err);
}

/* The length of what the bytes begin with, pages of zeros or others. */
static size_t run_length(const uint8_t *bytes, size_t length, bool *ret_zero)
{
    size_t run = 0;

    *ret_zero = bytes_are_zero(bytes, min_u64(PAGE, length));
    while (run < length) {
        size_t page = min_u64(PAGE, length - run);
        if (bytes_are_zero(bytes + run, page) != *ret_zero)
            break;
        run += page;
    }
    return run;
}

/* Zeros need not be written: a new image reads as zeros. */
static bool write_chunk(struct native *to, uint64_t offset, const uint8_t *bytes, size_t length,
                        struct err *err)
{
    while (length > 0) {
        bool zero;
        size_t run = run_length(bytes, length, &zero);
        if (!zero && !write_run(to, offset, bytes, run, err))
            return false;
        bytes += run;
        offset += run;
        length -= run;
    }
    return true;
}

static bool copy_range(struct native *from, struct native *to, uint64_t offset, uint64_t length,
                       uint8_t *chunk, struct err *err)
{
    while (length > 0) {
        size_t part = (size_t)min_u64(length, CHUNK - offset % CHUNK);
        if (!read_chunk(from, offset, chunk, part, err) || !write_chunk(to, offset, chunk, part, err))
            return false;
        offset += part;
        length -= part;
    }
    return true;
}

bool native_copy(struct native *from, struct native *to, const struct progress *progress, struct err *err)
{
    AUTO_FREE uint8_t *chunk = malloc(CHUNK);
    uint64_t size = round_up(from->size_bytes, VHD_SECTOR);

    if (!chunk)
        return err_oom(err);
    for (uint64_t offset = 0; offset < size;) {
        uint64_t length;
        bool zero;
        if (progress_cancelled(progress))
            return err_set(err, ERR_CANCELLED, "the conversion was cancelled");
        progress_report(progress, "convert", offset, size);
        if (!status(from, offset, min_u64(size - offset, 16 * CHUNK), &zero, &length, err) ||
            (!zero && !copy_range(from, to, offset, length, chunk, err)))
            return false;
        offset += length;
    }
    return true;
}

/* --- space that was reserved and not used --- */

#define RELEASE_SECTORS 128U /* smaller pieces are not worth a hole */

struct releasing {
    const struct vhd *vhd;
    uint8_t *bits; /* room for one bitmap; owned */
};

static void releasing_done(struct releasing *releasing)
{
    free(releasing->bits);
}

static bool release_block(void *context, uint32_t block, uint32_t entry, struct err *err)
{
    const struct releasing *r = context;
    uint32_t sectors = r->vhd->block_bytes / VHD_SECTOR;

    (void)block;
    if (!vhd_bitmap_read(r->vhd, entry, r->bits, err))
        return false;
    for (uint32_t first = 0; first < sectors;) {
        uint32_t run = vhd_bits_run(r->bits, first, sectors);
        if (!vhd_bit_get(r->bits, first) && run >= RELEASE_SECTORS &&
            !io_release(r->vhd->file, vhd_data_offset(r->vhd, entry) + (uint64_t)first * VHD_SECTOR,
                        (uint64_t)run * VHD_SECTOR, err))
            return false;
        first += run;
    }
    return true;
}

bool native_release(const struct io *io, const char *path, struct err *err)
{
    AUTO_VHD struct vhd *vhd = NULL;

    if (!vhd_open(io, path, IO_WRITE, &vhd, err))
        return false;
    AUTO(releasing_done) struct releasing releasing = {.vhd = vhd, .bits = malloc(vhd->bitmap_bytes)};
    if (!releasing.bits)
        return err_oom(err);
    return vhd_bat_each(vhd, release_block, &releasing, err) && io_sync(vhd->file, err);
}
