/* An image gets another parent, and the power goes at every change: it has the old parent or the new one,
 * whole; it can be written then, and what the image itself holds is there. */
#include "disk_tools.h"
#include "io_failing.h"
#include "io_memory.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SIZE  (4U << 20)
#define SEEDS 40

static struct err err;

#define MUST(call)                                                                                           \
    do {                                                                                                     \
        if (!(call)) {                                                                                       \
            fprintf(stderr, "%s: %s\n", #call, err.text);                                                    \
            exit(1);                                                                                         \
        }                                                                                                    \
    } while (0)

static void write_at(const struct io *io, const char *path, uint64_t offset, uint8_t value)
{
    struct disk_options options = {.io = io, .writable = true};
    struct disk *disk = NULL;
    uint8_t bytes[512];

    memset(bytes, value, sizeof bytes);
    MUST(disk_open(path, &options, &disk, &err));
    MUST(disk_write(disk, offset, bytes, sizeof bytes, &err));
    MUST(disk_close(disk, &err));
}

static uint8_t read_at(const struct io *io, const char *path, uint64_t offset)
{
    struct disk_options options = {.io = io};
    AUTO_DISK struct disk *disk = NULL;
    uint8_t bytes[512];

    MUST(disk_open(path, &options, &disk, &err));
    MUST(disk_read(disk, offset, bytes, sizeof bytes, &err));
    return bytes[511];
}

static void make_parent(const struct io *io, const char *path, uint8_t value)
{
    struct vhd_create_options options = {.type = VHD_DYNAMIC, .size_bytes = SIZE};

    MUST(vhd_create(io, path, &options, &err));
    write_at(io, path, 0, value);
}

/* The child at offset 0 shows its parent's value, at 512 its own. False when no call was left to fail. */
static bool trial(uint64_t cut, uint64_t seed)
{
    AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_FORGETS);
    const struct io *io = io_memory_io(memory);
    AUTO_IO_FAILING struct io_failing *failing = io_failing_new(io);
    struct vhd_create_options options = {.type = VHD_DIFFERENCING, .parent_path = "/old.vhd"};

    make_parent(io, "/old.vhd", 1);
    make_parent(io, "/new.vhd", 2);
    MUST(vhd_create(io, "/child.avhd", &options, &err));
    write_at(io, "/child.avhd", 512, 3);
    io_memory_sync_all(memory);
    io_failing_set(failing, (struct io_fault){.calls = IO_CALLS_CHANGES,
                                              .nth = cut,
                                              .errnum = EIO,
                                              .done_anyway = seed % 2 == 0,
                                              .forever = true});
    bool done = disk_reconnect(io_failing_io(failing), "/child.avhd", "/new.vhd", true, &err);
    bool struck = io_failing_struck(failing);
    MUST(done == !struck);
    io_memory_crash(memory, seed * 1000 + cut);
    uint8_t parent = read_at(io, "/child.avhd", 0);
    MUST(parent == 2 || (parent == 1 && struck));
    MUST(read_at(io, "/child.avhd", 512) == 3);
    write_at(io, "/child.avhd", 2 << 20, 4);
    MUST(read_at(io, "/child.avhd", 0) == parent && read_at(io, "/child.avhd", 512) == 3);
    MUST(read_at(io, "/child.avhd", 2 << 20) == 4 && read_at(io, "/child.avhd", 1024) == 0);
    return struck;
}

int main(void)
{
    uint64_t cuts = 0;

    for (uint64_t seed = 0; seed < SEEDS; seed++)
        for (uint64_t cut = 1; trial(cut, seed); cut++)
            cuts++;
    printf("%llu power cuts: the old parent or the new one\n", (unsigned long long)cuts);
    /* Room, header and locators, sync, one footer, sync, the other, sync. */
    return cuts >= SEEDS * (uint64_t)7 ? 0 : 1;
}
