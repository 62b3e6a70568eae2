/* What tests of disks share: one err, and disks that open or end the test. cmocka.h comes before. */
#pragma once

#include "disk.h"
#include "ok.h"

#include <string.h>

static struct err err;

static inline struct disk *open_disk(const struct io *io, const char *path, bool writable)
{
    struct disk_options options = {.io = io, .writable = writable};
    struct disk *disk = NULL;

    OK(disk_open(path, &options, &disk, &err));
    return disk;
}

static inline enum err_code open_code(const struct io *io, const char *path)
{
    struct disk_options options = {.io = io};
    AUTO_DISK struct disk *disk = NULL;

    err = ERR_INIT;
    return disk_open(path, &options, &disk, &err) ? ERR_NONE : err.code;
}

/* All bytes of a sector are of one value. */
static inline void write_sector(struct disk *disk, uint64_t offset, uint8_t value)
{
    uint8_t bytes[VHD_SECTOR];

    memset(bytes, value, sizeof bytes);
    OK(disk_write(disk, offset, bytes, sizeof bytes, &err));
}

static inline void assert_sector(struct disk *disk, uint64_t offset, uint8_t value)
{
    uint8_t bytes[VHD_SECTOR], want[VHD_SECTOR];

    memset(want, value, sizeof want);
    OK(disk_read(disk, offset, bytes, sizeof bytes, &err));
    if (memcmp(want, bytes, sizeof bytes) != 0)
        fail_msg("the sector at byte %llu is %u, not %u", (unsigned long long)offset, bytes[0], value);
}
