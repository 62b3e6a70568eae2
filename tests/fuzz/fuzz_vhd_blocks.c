/* The block allocation table and the bitmaps, as any bytes: a disk that opens reads as a plain walk over the
 * bytes says, sector by sector.
 *
 * A child of 16 blocks over a parent whose sectors all hold ones. The first byte is the block size, then come
 * the 64 bytes of the table, then what lies from the first block on. Of an entry's four bytes only the last
 * two count, or hardly any would point into the file; 0xFFFF is "not allocated". */
#include "disk.h"
#include "disk_tools.h"
#include "io_memory.h"

#include "bytes.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BLOCKS    16U
#define PARENT    "/parent.vhd"
#define CHILD     "/child.avhd"
#define MAX_BYTES (64U << 10)

static struct err err;

static void check(bool claim)
{
    if (!claim)
        abort();
}

static void make_parent(const struct io *io, uint64_t size)
{
    struct vhd_create_options options = {.type = VHD_FIXED, .size_bytes = size};
    AUTO_IO struct io_file *file = NULL;
    AUTO_FREE uint8_t *ones = malloc(size);

    check(ones && vhd_create(io, PARENT, &options, &err) && io_open(io, PARENT, IO_WRITE, &file, &err));
    memset(ones, 1, size);
    check(io_write(file, 0, ones, size, &err));
}

/* What the structures of the child say, the slow way; the parent holds ones. */
static void expected(const uint8_t *file, const uint8_t *bat, uint32_t block_bytes, uint32_t sector,
                     uint8_t *out)
{
    uint32_t block_sectors = block_bytes / VHD_SECTOR;
    uint32_t entry = get_be32(bat + sector / block_sectors * 4), s = sector % block_sectors;
    uint32_t bitmap_bytes = (uint32_t)round_up(div_round_up(block_sectors, 8), VHD_SECTOR);

    memset(out, 1, VHD_SECTOR);
    if (entry != VHD_BAT_UNALLOCATED && file[(size_t)entry * VHD_SECTOR + s / 8] & 0x80 >> s % 8)
        memcpy(out, file + (size_t)entry * VHD_SECTOR + bitmap_bytes + (size_t)s * VHD_SECTOR, VHD_SECTOR);
}

static void compare(struct disk *disk, struct io_file *file, const uint8_t *bat, uint32_t block_bytes)
{
    struct io_stat stat;
    uint8_t want[VHD_SECTOR];
    uint64_t size = disk_size_bytes(disk);
    AUTO_FREE uint8_t *have = malloc(size);

    check(io_stat_file(file, &stat, &err));
    AUTO_FREE uint8_t *whole = malloc(stat.size_bytes);
    check(whole && have && io_read(file, 0, whole, stat.size_bytes, &err));
    check(disk_read(disk, 0, have, size, &err));
    for (uint32_t s = 0; s < size / VHD_SECTOR; s++) {
        expected(whole, bat, block_bytes, s, want);
        check(memcmp(want, have + (size_t)s * VHD_SECTOR, VHD_SECTOR) == 0);
    }
}

static void ignore(void *context, const struct disk_fault *fault)
{
    (void)context;
    (void)fault;
}

static void look(const struct io *io, struct io_file *file, const uint8_t *bat, uint32_t block_bytes)
{
    struct disk_options options = {.io = io};
    AUTO_DISK struct disk *disk = NULL;

    check(disk_check(io, CHILD, ignore, NULL, NULL, &err));
    if (disk_open(CHILD, &options, &disk, &err))
        compare(disk, file, bat, block_bytes);
    else
        check(err.code == ERR_CORRUPT);
}

/* The table and the blocks; the footer at the end comes behind them. */
static void fill(struct io_file *file, uint64_t table_offset, uint8_t *bat, const uint8_t *data, size_t size)
{
    uint8_t footer[VHD_FOOTER_BYTES];
    struct io_stat stat;

    for (uint32_t i = 0; i < BLOCKS; i++) {
        uint32_t entry = size > 1 + i * 4 + 3 ? get_be16(data + 1 + (size_t)i * 4 + 2) : UINT16_MAX;
        put_be32(bat + (size_t)i * 4, entry == UINT16_MAX ? VHD_BAT_UNALLOCATED : entry);
    }
    check(io_read(file, 0, footer, sizeof footer, &err) && io_stat_file(file, &stat, &err) &&
          io_write(file, table_offset, bat, (size_t)BLOCKS * 4, &err));
    uint64_t end = stat.size_bytes - sizeof footer;
    if (size > 1 + BLOCKS * 4) {
        size_t length = (size_t)round_up(size - 1 - BLOCKS * 4, VHD_SECTOR);
        check(io_truncate(file, end, &err) && io_truncate(file, end + length, &err) &&
              io_write(file, end, data + 1 + (size_t)BLOCKS * 4, size - 1 - BLOCKS * 4, &err));
        end += length;
    }
    check(io_write(file, end, footer, sizeof footer, &err));
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static const uint32_t SIZES[] = {4096, 8192, 16384, 65536};
    AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_PLAIN);
    const struct io *io = io_memory_io(memory);
    uint8_t bat[BLOCKS * 4];

    if (size < 1)
        return 0;
    size = min_u64(size, MAX_BYTES);
    uint32_t block_bytes = SIZES[data[0] % ARRAY_SIZE(SIZES)];
    make_parent(io, (uint64_t)BLOCKS * block_bytes - VHD_SECTOR);
    struct vhd_create_options options = {
        .type = VHD_DIFFERENCING, .parent_path = PARENT, .block_bytes = block_bytes};
    AUTO_IO struct io_file *file = NULL;
    check(vhd_create(io, CHILD, &options, &err) && io_open(io, CHILD, IO_WRITE, &file, &err));
    AUTO_VHD struct vhd *vhd = NULL;
    check(vhd_open(io, CHILD, IO_READ_ONLY, &vhd, &err));
    fill(file, vhd->header.table_offset, bat, data, size);
    look(io, file, bat, block_bytes);
    return 0;
}
