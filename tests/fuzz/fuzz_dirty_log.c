/* A dirty log, as any bytes, put in place in a child of 24 blocks. Whatever it holds, the image is afterwards
 * as it was (the log is another's, or does not fit) or has more of its own sectors; nothing is taken from it,
 * and it opens or is told to be corrupt. The first byte says what is put right first: the log's head, or its
 * sizes too.
 *
 *   0 what    1 u16 end, in sectors    3 24 x u16 entries (0xFFFF: none)    51 bitmaps, one byte a block: its
 * first 8 sectors    75 all the rest: over the log's own bytes, from its start */
#include "bytes.h"
#include "dirty_log.h"
#include "disk_tools.h"
#include "file.h"
#include "io_memory.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define BLOCKS      24U
#define BLOCK_BYTES 4096U
#define WRITTEN     10U /* the first blocks, of which every second sector is there */
#define BASE        "/base.vhd"
#define TOP         "/top.avhd"
#define BITS_AT     (3 + BLOCKS * 2)
#define REST_AT     (BITS_AT + BLOCKS)

enum what { HEAD = 1, SIZES = 2 };

static struct err err;
static char dir[] = "/tmp/bough-fuzz-log-XXXXXX";

#define check(claim)                                                                                         \
    do {                                                                                                     \
        if (!(claim)) {                                                                                      \
            fprintf(stderr, "%s:%d: %s: %s\n", __FILE__, __LINE__, #claim, err.text);                        \
            abort();                                                                                         \
        }                                                                                                    \
    } while (0)

static void remove_dir(void)
{
    rmdir(dir);
}

static void make_chain(const struct io *io)
{
    struct vhd_create_options base = {
        .type = VHD_FIXED, .size_bytes = (uint64_t)BLOCKS * BLOCK_BYTES, .block_bytes = 0};
    struct vhd_create_options top = {
        .type = VHD_DIFFERENCING, .parent_path = BASE, .block_bytes = BLOCK_BYTES};
    struct disk_options options = {.io = io, .writable = true};
    uint8_t bytes[512];
    struct disk *disk = NULL;

    memset(bytes, 0x5A, sizeof bytes);
    check(vhd_create(io, BASE, &base, &err) && vhd_create(io, TOP, &top, &err) &&
          disk_open(TOP, &options, &disk, &err));
    for (uint64_t at = 0; at < (uint64_t)WRITTEN * BLOCK_BYTES; at += 1024)
        check(disk_write(disk, at, bytes, sizeof bytes, &err));
    check(disk_close(disk, &err));
}

static size_t make_log(const struct vhd *vhd, const uint8_t *data, size_t size, uint8_t *log)
{
    struct dirty_header header = {0};
    size_t bat_bytes = vhd_bat_file_bytes(vhd), bits = dirty_bits_offset(bat_bytes);

    memset(log, 0, bits + BLOCKS * 512);
    memset(log + DIRTY_HEADER_BYTES, 0xFF, bat_bytes);
    if (data[0] & HEAD) {
        memcpy(header.magic, DIRTY_MAGIC, sizeof header.magic);
        check(dirty_boot_id(header.boot_id, &err));
        memcpy(header.image_id, vhd->footer.id, VHD_ID_SIZE);
    }
    if (data[0] & SIZES) {
        header.bat_bytes = bat_bytes;
        header.block_count = BLOCKS;
        header.bitmap_bytes = 512;
    }
    header.end_bytes = size > 2 ? get_be16(data + 1) * 512U : 0;
    memcpy(log, &header, sizeof header);
    for (uint32_t i = 0; i < BLOCKS; i++) {
        uint32_t entry = size > 3 + i * 2 + 1 ? get_be16(data + 3 + (size_t)i * 2) : UINT16_MAX;
        put_be32(log + DIRTY_HEADER_BYTES + (size_t)i * 4, entry == UINT16_MAX ? VHD_BAT_UNALLOCATED : entry);
        log[bits + (size_t)i * 512] = size > BITS_AT + i ? data[BITS_AT + i] : 0;
    }
    size_t length = bits + BLOCKS * 512;
    if (size > REST_AT)
        for (size_t i = 0; i < min_u64(size - REST_AT, length); i++)
            log[i] ^= data[REST_AT + i];
    return length;
}

static void write_log(const char *path, const uint8_t *log, size_t length)
{
    FILE *file = fopen(path, "w");

    check(file && fwrite(log, 1, length, file) == length && fclose(file) == 0);
}

static void judge(void *context, const struct disk_fault *fault)
{
    bool *harm = context;

    *harm = *harm || !fault->harmless;
}

/* What the image had is there, unless the log made blocks share their space, as no process would have. */
static void look(const struct io *io)
{
    struct disk_options options = {.io = io};
    AUTO_DISK struct disk *disk = NULL;
    uint8_t bytes[512], want[512];
    bool harm = false;

    memset(want, 0x5A, sizeof want);
    if (!disk_open(TOP, &options, &disk, &err)) {
        check(err.code == ERR_CORRUPT);
        return;
    }
    check(disk_check(io, TOP, judge, &harm, NULL, &err));
    if (harm)
        return;
    for (uint64_t at = 0; at < (uint64_t)WRITTEN * BLOCK_BYTES; at += 1024)
        check(disk_read(disk, at, bytes, sizeof bytes, &err) && memcmp(bytes, want, sizeof want) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    static uint8_t log[DIRTY_HEADER_BYTES + 4096 + BLOCKS * 512];
    AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_PLAIN);
    const struct io *io = io_memory_io(memory);
    AUTO_VHD struct vhd *vhd = NULL;
    bool changed;

    if (size < 1)
        return 0;
    if (strchr(dir, 'X') && mkdtemp(dir))
        atexit(remove_dir);
    make_chain(io);
    check(vhd_open(io, TOP, IO_READ_ONLY, &vhd, &err));
    AUTO_FREE char *path = dirty_log_path(dir, vhd->device, vhd->inode);
    check(path != NULL);
    write_log(path, log, make_log(vhd, data, size, log));
    bool ok = dirty_log_replay(io, dir, TOP, &changed, &err);
    check(ok || err.code == ERR_MISMATCH || err.code == ERR_CORRUPT);
    check(ok == (access(path, F_OK) != 0));
    look(io);
    check(dirty_log_replay_all(io, dir, "/", &err) || !ok);
    look(io);
    unlink(path);
    return 0;
}
