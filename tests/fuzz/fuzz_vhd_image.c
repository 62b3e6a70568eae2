/* A whole image, as any bytes, with a sound parent beside it: opened, checked, read, and where it is small
 * written, closed and opened again, repaired, made larger, merged into its parent, given another one, and
 * used as the parent of two more. Memory and time stay bounded, whatever the fields claim: the limits are the
 * fuzzer's own (-rss_limit_mb, -timeout). The first byte says which checksums are put right, since hardly
 * anything gets past a wrong one. */
#include "disk.h"
#include "disk_tools.h"
#include "io_memory.h"

#include "bytes.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define IMAGE           "/d/image.vhd"
#define PARENT          "/d/parent.vhd"
#define CHILD           "/d/child.avhd"
#define GRANDCHILD      "/d/grandchild.avhd"
#define PARENT_SIZE     (64U << 10)
#define LOOK_BYTES      (64U << 10)
#define MAX_WRITE_BLOCK (4U << 20)

enum fix {
    FIX_TRAILER = 1,
    FIX_COPY = 2,
    FIX_HEADER = 4,
    FIX_PARENT = 8,
    WRITE = 16,
    TOOLS = 32,
    CHILDREN = 64,
    MERGE = 128
};

static struct err err;

static void check(bool claim)
{
    if (!claim)
        abort();
}

static void fix_footer(uint8_t *bytes)
{
    put_be32(bytes + 64, vhd_checksum(bytes, VHD_FOOTER_BYTES, 64));
}

/* Where the image says that its header is. */
static uint8_t *find_header(uint8_t *image, size_t size)
{
    uint64_t at = get_be64(image + size - VHD_FOOTER_BYTES + 16);

    return at <= size && size - at >= VHD_HEADER_BYTES ? image + at : NULL;
}

static void fix(uint8_t *image, size_t size, unsigned what, const uint8_t *parent_id)
{
    if (size < VHD_FOOTER_BYTES)
        return;
    uint8_t *header = find_header(image, size);
    if (header && what & FIX_PARENT)
        memcpy(header + 40, parent_id, VHD_ID_SIZE);
    if (header && what & FIX_HEADER)
        put_be32(header + 36, vhd_checksum(header, VHD_HEADER_BYTES, 36));
    if (what & FIX_COPY)
        fix_footer(image);
    if (what & FIX_TRAILER)
        fix_footer(image + size - VHD_FOOTER_BYTES);
}

static void make_parent(const struct io *io, uint8_t id[static VHD_ID_SIZE])
{
    struct vhd_create_options options = {.type = VHD_FIXED, .size_bytes = PARENT_SIZE};
    AUTO_VHD struct vhd *vhd = NULL;

    check(vhd_create(io, PARENT, &options, &err) && vhd_open(io, PARENT, IO_READ_ONLY, &vhd, &err));
    memcpy(id, vhd->footer.id, VHD_ID_SIZE);
}

static void make_image(const struct io *io, const uint8_t *data, size_t size, unsigned what,
                       const uint8_t *parent_id)
{
    AUTO_IO struct io_file *file = NULL;
    AUTO_FREE uint8_t *image = malloc(size + 1);

    check(image && io_open(io, IMAGE, IO_CREATE, &file, &err));
    memcpy(image, data, size);
    fix(image, size, what, parent_id);
    check(io_write(file, 0, image, size, &err));
}

/* A part of the disk at its start and one at its end. */
static void read_some(struct disk *disk)
{
    static uint8_t bytes[LOOK_BYTES];
    uint64_t size = disk_size_bytes(disk), length = min_u64(size, LOOK_BYTES), same;
    enum disk_status_kind kind;

    check(disk_read(disk, 0, bytes, length, &err) || err.code != ERR_NONE);
    check(disk_read(disk, size - length, bytes, length, &err) || err.code != ERR_NONE);
    if (disk_status(disk, 0, length, &kind, &same, &err))
        check(same > 0 && same <= length);
}

/* What was written is read back, also by the next who opens the image. */
static void write_some(const struct io *io)
{
    struct disk_options options = {.io = io, .writable = true};
    AUTO_DISK struct disk *disk = NULL;
    uint8_t bytes[VHD_SECTOR], back[VHD_SECTOR];

    memset(bytes, 0xA5, sizeof bytes);
    if (!disk_open(IMAGE, &options, &disk, &err))
        return;
    struct disk_layer top;
    disk_layer_get(disk, 0, &top);
    uint64_t at = disk_size_bytes(disk) - VHD_SECTOR;
    if (top.block_bytes > MAX_WRITE_BLOCK || !disk_write(disk, at, bytes, sizeof bytes, &err))
        return;
    check(disk_read(disk, at, back, sizeof back, &err) && memcmp(bytes, back, sizeof bytes) == 0);
    check(disk_zero(disk, 0, VHD_SECTOR, &err) || err.code != ERR_NONE);
    bool overwritten = at == 0;
    check(disk_close(TAKE(disk), &err));
    options.writable = false;
    check(disk_open(IMAGE, &options, &disk, &err) && disk_read(disk, at, back, sizeof back, &err));
    check(overwritten || memcmp(bytes, back, sizeof bytes) == 0);
}

/* Where blocks share space, a write to one is a write to both. */
static void remember(void *context, const struct disk_fault *fault)
{
    bool *harm = context;

    check(fault->text[0] != '\0');
    *harm = *harm || !fault->harmless;
}

static void repaired(void *context, const char *text)
{
    (void)context;
    check(text[0] != '\0');
}

/* The start of the disk, and its size; false if it does not open or is too large for this. */
static bool start_of(const struct io *io, const char *path, uint8_t bytes[static LOOK_BYTES],
                     uint64_t *ret_size)
{
    struct disk_options options = {.io = io};
    AUTO_DISK struct disk *disk = NULL;

    memset(bytes, 0, LOOK_BYTES);
    if (!disk_open(path, &options, &disk, &err))
        return false;
    *ret_size = disk_size_bytes(disk);
    return *ret_size <= MAX_WRITE_BLOCK &&
           disk_read(disk, 0, bytes, (size_t)min_u64(*ret_size, LOOK_BYTES), &err);
}

/* Neither a repair nor a larger size changes what is seen; what the size adds is zeros. */
static void use_tools(const struct io *io)
{
    static uint8_t before[LOOK_BYTES], after[LOOK_BYTES];
    uint64_t size, new_size;
    bool harm = false;

    if (!start_of(io, IMAGE, before, &size))
        return;
    if (!disk_repair(io, IMAGE, repaired, remember, &harm, NULL, &err) || harm)
        return;
    check(start_of(io, IMAGE, after, &new_size) && new_size == size &&
          memcmp(before, after, LOOK_BYTES) == 0);
    if (!disk_resize(io, IMAGE, size + LOOK_BYTES, NULL, &err))
        return;
    check(start_of(io, IMAGE, after, &new_size) || new_size > MAX_WRITE_BLOCK);
    check(new_size == size + LOOK_BYTES);
    if (new_size <= MAX_WRITE_BLOCK)
        check(memcmp(before, after, LOOK_BYTES) == 0);
}

/* A block of an image can be as large as the disk, and space is reserved for it. */
static bool is_small(const struct io *io)
{
    AUTO_VHD struct vhd *vhd = NULL;

    return vhd_open(io, IMAGE, IO_READ_ONLY, &vhd, &err) && vhd->block_bytes <= MAX_WRITE_BLOCK;
}

static void create_child(const struct io *io, const char *path, const char *parent)
{
    struct vhd_create_options options = {
        .type = VHD_DIFFERENCING, .parent_path = parent, .block_bytes = LOOK_BYTES / 4};

    check(vhd_create(io, path, &options, &err));
}

/* A child over the image, and one over that while it is written. */
static void write_over(const struct io *io, uint64_t size)
{
    struct disk_options options = {.io = io, .writable = true};
    struct disk_next_top *next;
    struct disk *disk;
    uint8_t bytes[VHD_SECTOR];

    memset(bytes, 0xC3, sizeof bytes);
    create_child(io, CHILD, IMAGE);
    check(disk_open(CHILD, &options, &disk, &err) && disk_write(disk, 0, bytes, sizeof bytes, &err));
    create_child(io, GRANDCHILD, CHILD);
    check(disk_next_top_open(disk, GRANDCHILD, &next, &err));
    disk_seal_and_push(disk, next);
    check(disk_zero(disk, round_down(size / 2, VHD_SECTOR), VHD_SECTOR, &err));
    check(disk_flush(disk, &err) && disk_sealed_layers_are_clean(disk) && disk_close(disk, &err));
}

/* What is seen through them is the image with two changes, also when they are merged. */
static void use_children(const struct io *io)
{
    static uint8_t want[LOOK_BYTES], have[LOOK_BYTES];
    static const char *const TOP[] = {GRANDCHILD};
    struct disk_merge_options options = {.children = TOP, .child_count = 1};
    struct disk_merge_result result = {0};
    uint64_t size, again;

    if (!start_of(io, IMAGE, want, &size))
        return;
    write_over(io, size);
    memset(want, 0xC3, VHD_SECTOR);
    uint64_t middle = round_down(size / 2, VHD_SECTOR);
    if (middle < LOOK_BYTES)
        memset(want + middle, 0, VHD_SECTOR);
    check(start_of(io, GRANDCHILD, have, &again) && again == size && memcmp(want, have, LOOK_BYTES) == 0);
    options.into_base = true;
    if (is_small(io) && disk_merge(io, CHILD, &options, NULL, &result, &err))
        free(result.parent_path);
    check(start_of(io, GRANDCHILD, have, &again) && again == size && memcmp(want, have, LOOK_BYTES) == 0);
}

/* Into the parent; then the image, which has all that was merged, is given the parent once more. */
static void use_merge(const struct io *io)
{
    static uint8_t want[LOOK_BYTES], have[LOOK_BYTES];
    struct disk_merge_options options = {.into_base = true};
    struct disk_merge_result result = {0};
    uint64_t size, again;

    bool merged = start_of(io, IMAGE, want, &size) && disk_merge(io, IMAGE, &options, NULL, &result, &err);
    if (merged) {
        free(result.parent_path);
        check(start_of(io, PARENT, have, &again) && again == size && memcmp(want, have, LOOK_BYTES) == 0);
    }
    if (!disk_reconnect(io, IMAGE, PARENT, /* force= */ true, &err))
        return;
    if (merged && start_of(io, IMAGE, have, &again))
        check(again == size && memcmp(want, have, LOOK_BYTES) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_PLAIN);
    const struct io *io = io_memory_io(memory);
    struct disk_options options = {.io = io};
    AUTO_DISK struct disk *disk = NULL;
    uint8_t parent_id[VHD_ID_SIZE];
    bool harm = false;

    if (size < 1)
        return 0;
    check(io_make_dir(io, "/d", &err));
    make_parent(io, parent_id);
    make_image(io, data + 1, size - 1, data[0], parent_id);
    err = ERR_INIT;
    if (!disk_check(io, IMAGE, remember, &harm, NULL, &err))
        check(err.code != ERR_NONE && err.code != ERR_INTERNAL);
    if (disk_open(IMAGE, &options, &disk, &err))
        read_some(disk);
    else
        check(err.code != ERR_NONE && err.code != ERR_INTERNAL);
    disk_abandon(TAKE(disk));
    if (data[0] & WRITE && !harm)
        write_some(io);
    if (data[0] & TOOLS)
        use_tools(io);
    if (data[0] & MERGE && !harm && is_small(io))
        use_merge(io);
    if (data[0] & CHILDREN && !harm)
        use_children(io);
    return 0;
}
