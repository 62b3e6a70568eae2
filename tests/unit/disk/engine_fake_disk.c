#include "engine_fake_disk.h"

#include "bytes.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

/* Zeroing looks at so much at once, and cuts its pieces so. */
#define ZERO_CALL_BYTES  (16U << 20)
#define ZERO_PIECE_BYTES (1U << 20)

struct disk {
    struct fake fake;
    struct io io;
};

struct disk_next_top {
    int unused;
};

static int fake_file_read(struct io_file *file, uint64_t offset, void *bytes, size_t length,
                          size_t *ret_length)
{
    struct fake *fake = (struct fake *)(void *)file;

    if (fake->file_errnum)
        return fake->file_errnum;
    memcpy(bytes, fake->content + offset, length);
    *ret_length = length;
    return 0;
}

static int fake_file_write(struct io_file *file, uint64_t offset, const void *bytes, size_t length)
{
    struct fake *fake = (struct fake *)(void *)file;

    if (fake->file_errnum)
        return fake->file_errnum;
    if (length > 0)
        memcpy(fake->content + offset, bytes, length);
    return 0;
}

static int fake_file_sync(struct io_file *file)
{
    struct fake *fake = (struct fake *)(void *)file;

    fake->syncs++;
    return fake->sync_errnum;
}

static int fake_file_punch(struct io_file *file, uint64_t offset, uint64_t length)
{
    struct fake *fake = (struct fake *)(void *)file;

    assert_true(length > 0 && offset + length <= fake->size_bytes);
    fake->punches++;
    if (fake->punch_errnum == 0)
        memset(fake->content + offset, 0, length);
    return fake->punch_errnum;
}

static const struct io_ops FAKE_OPS = {
    .read = fake_file_read, .write = fake_file_write, .sync = fake_file_sync, .punch = fake_file_punch};

struct disk *fake_disk_new(uint64_t size_bytes, struct fake **ret_fake)
{
    struct disk *disk = calloc(1, sizeof *disk);

    disk->io.ops = &FAKE_OPS;
    disk->fake = (struct fake){
        .file = {.io = &disk->io, .fd = -1},
        .content = calloc(1, size_bytes),
        .written = calloc(1, size_bytes / 512),
        .size_bytes = size_bytes,
        .piece_bytes = 1536,
        .depth = 1,
    };
    disk->fake.file.path = strdup("flat");
    *ret_fake = &disk->fake;
    return disk;
}

void disk_abandon(struct disk *disk)
{
    free(disk->fake.file.path);
    free(disk->fake.content);
    free(disk->fake.written);
    free(disk);
}

bool disk_close(struct disk *disk, struct err *err)
{
    (void)err;
    assert_int_equal(disk->fake.writes_begun, 0);
    assert_null(disk->fake.flush);
    disk_abandon(disk);
    return true;
}

uint64_t disk_size_bytes(const struct disk *disk)
{
    return disk->fake.size_bytes;
}

size_t disk_depth(const struct disk *disk)
{
    return disk->fake.depth;
}

void disk_layer_get(const struct disk *disk, size_t index, struct disk_layer *ret_layer)
{
    (void)index;
    *ret_layer = (struct disk_layer){.path = disk->fake.file.path};
}

static void range_check(const struct fake *fake, uint64_t offset, uint64_t length)
{
    assert_int_equal(offset % 512, 0);
    assert_int_equal(length % 512, 0);
    assert_true(length > 0 && offset < fake->size_bytes && length <= fake->size_bytes - offset);
}

/* Cut small; sectors that were never written come as holes. */
static size_t pieces_cut(struct fake *fake, uint64_t offset, uint64_t length, struct disk_piece *pieces,
                         size_t max, bool holes)
{
    size_t count = 0;

    while (length > 0 && count < max) {
        uint64_t end = round_down(offset, 512) / fake->piece_bytes * fake->piece_bytes + fake->piece_bytes;
        uint64_t part = end - offset < length ? end - offset : length;
        bool hole = holes && !fake->written[offset / 512];
        part = hole ? 512 : part;
        for (uint64_t at = 512; !hole && holes && at < part; at += 512)
            part = fake->written[(offset + at) / 512] ? part : at;
        pieces[count++] = (struct disk_piece){hole ? NULL : &fake->file, hole ? 0 : offset, part};
        offset += part;
        length -= part;
    }
    return count;
}

bool disk_map(struct disk *disk, uint64_t offset, uint64_t length, struct disk_piece *pieces, size_t max,
              size_t *ret_count, struct err *err)
{
    range_check(&disk->fake, offset, length);
    if (disk->fake.begin_errnum)
        return err_sys(err, disk->fake.begin_errnum, "map");
    *ret_count = pieces_cut(&disk->fake, offset, length, pieces, max, true);
    return true;
}

bool disk_write_begin(struct disk *disk, uint64_t offset, uint64_t length, struct disk_piece *pieces,
                      size_t max, size_t *ret_count, struct err *err)
{
    range_check(&disk->fake, offset, length);
    if (disk->fake.begin_errnum)
        return err_sys(err, disk->fake.begin_errnum, "begin");
    *ret_count = pieces_cut(&disk->fake, offset, length, pieces, max, false);
    disk->fake.writes_begun++;
    return true;
}

void disk_write_end(struct disk *disk, uint64_t offset, uint64_t length)
{
    range_check(&disk->fake, offset, length);
    assert_true(disk->fake.writes_begun > 0);
    disk->fake.writes_begun--;
    memset(disk->fake.written + offset / 512, 1, length / 512);
}

bool disk_zero_begin(struct disk *disk, uint64_t offset, uint64_t length, struct disk_zero_piece *pieces, size_t max,
                     size_t *ret_count, uint64_t *ret_covered, struct err *err)
{
    struct fake *fake = &disk->fake;
    uint64_t covered = 0;
    size_t count = 0;

    range_check(fake, offset, length);
    if (fake->begin_errnum)
        return err_sys(err, fake->begin_errnum, "zero");
    fake->zero_calls++;
    while (covered < length && count < max && covered < ZERO_CALL_BYTES) {
        uint64_t at = offset + covered, end = at / ZERO_PIECE_BYTES * ZERO_PIECE_BYTES + ZERO_PIECE_BYTES;
        uint64_t part = end - at < length - covered ? end - at : length - covered;
        if (memchr(fake->written + at / 512, 1, part / 512)) {
            pieces[count++] =
                (struct disk_zero_piece){.file = &fake->file, .file_offset = at, .offset = at, .length = part};
            fake->writes_begun++;
        }
        covered += part;
    }
    *ret_count = count;
    *ret_covered = covered;
    return true;
}

bool disk_flush_begin(struct disk *disk, struct disk_flush **ret_flush, struct err *err)
{
    struct fake *fake = &disk->fake;

    assert_null(fake->flush);
    if (fake->sync_failed)
        return err_set(err, ERR_IO, "an earlier sync failed");
    struct disk_flush *flush = calloc(1, sizeof *flush);
    flush->sync_first = calloc(2, sizeof(struct io_file *));
    flush->sync_first[0] = flush->sync_first[1] = &fake->file;
    flush->sync_first_count = 2;
    flush->writes = calloc(1, sizeof *flush->writes);
    flush->writes[0] = (struct disk_flush_write){.file = &fake->file};
    flush->write_count = 1;
    flush->sync_last = flush->sync_first;
    flush->sync_last_count = 1;
    fake->flush = flush;
    fake->flushes++;
    *ret_flush = flush;
    return true;
}

void disk_flush_end(struct disk *disk, struct disk_flush *flush, const struct err *failure, bool sync_failed)
{
    struct fake *fake = &disk->fake;

    assert_ptr_equal(flush, fake->flush);
    fake->flush_failures += failure != NULL;
    fake->sync_failed |= sync_failed;
    fake->flush = NULL;
    free(flush->sync_first);
    free(flush->writes);
    free(flush);
}

bool disk_next_top_open(struct disk *disk, const char *path, struct disk_next_top **ret_next, struct err *err)
{
    (void)disk;
    if (strcmp(path, "bad") == 0)
        return err_set(err, ERR_MISMATCH, "bad: not our child");
    *ret_next = calloc(1, sizeof **ret_next);
    return true;
}

void disk_next_top_abandon(struct disk_next_top *next)
{
    free(next);
}

void disk_seal_and_push(struct disk *disk, struct disk_next_top *next)
{
    assert_int_equal(disk->fake.writes_begun, 0);
    free(next);
    disk->fake.seals++;
    disk->fake.depth++;
}

bool disk_sealed_layers_are_clean(const struct disk *disk)
{
    return disk->fake.flushes > 0 || disk->fake.seals == 0;
}

bool disk_release_next(struct disk *disk, struct disk_gap *ret_gap)
{
    struct fake *fake = &disk->fake;

    if (fake->gaps == 0)
        return false;
    *ret_gap = (struct disk_gap){.file = &fake->file, .file_offset = 4096ULL * --fake->gaps, .length = 4096};
    return true;
}

void disk_release_none(struct disk *disk)
{
    disk->fake.gaps = 0;
}

bool disk_status(struct disk *disk, uint64_t offset, uint64_t length, enum disk_status_kind *ret_kind,
                 uint64_t *ret_length, struct err *err)
{
    range_check(&disk->fake, offset, length);
    (void)err;
    *ret_kind = disk->fake.written[offset / 512] ? DISK_DATA : DISK_ZERO;
    *ret_length = 512;
    return true;
}
