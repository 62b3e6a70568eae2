/* Every block size that the format has: images of it are made, written across its blocks, read below and
 * above images of other block sizes, checked, merged. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bytes.h"
#include "disk_test.h"
#include "disk_tools.h"
#include "io_memory.h"

#define SMALLEST 9
#define LARGEST  31
#define RUN      (3 * 512U)
#define BASE     "/base.vhd"
#define TOP      "/top.avhd"

/* Runs that matter: the start, over a bound of blocks, the end. */
static uint64_t run_offset(unsigned run, uint32_t shift, uint64_t size)
{
    return run == 0 ? 0 : run == 1 ? (1ULL << (shift < 13 ? 13 : shift)) - 512 : size - RUN;
}

static void write_runs(const struct io *io, const char *path, uint32_t shift, uint8_t value)
{
    struct disk *disk = open_disk(io, path, true);
    uint8_t bytes[RUN];

    for (unsigned run = 0; run < 3; run++) {
        memset(bytes, value + (int)run, sizeof bytes);
        OK(disk_write(disk, run_offset(run, shift, disk_size_bytes(disk)), bytes, sizeof bytes, &err));
    }
    OK(disk_zero(disk, run_offset(1, shift, disk_size_bytes(disk)), 512, &err));
    OK(disk_close(disk, &err));
}

static void assert_runs(struct disk *disk, uint32_t shift, uint8_t value)
{
    uint64_t size = disk_size_bytes(disk);

    for (unsigned run = 0; run < 3; run++)
        for (uint64_t s = 0; s < RUN; s += 512)
            assert_sector(disk, run_offset(run, shift, size) + s,
                          run == 1 && s == 0 ? 0 : (uint8_t)(value + run));
    assert_sector(disk, RUN, 0);
    assert_sector(disk, run_offset(1, shift, size) + RUN, 0);
    assert_sector(disk, size - RUN - 512, 0);
}

static void no_fault(void *context, const struct disk_fault *fault)
{
    (void)context;
    fail_msg("%s: %s", fault->path, fault->text);
}

/* Two and a half blocks at least, and an odd number of sectors. */
static uint64_t disk_bytes(uint32_t shift)
{
    return (5ULL << (shift < 19 ? 19 : shift) >> 1) + 7 * 512;
}

static void create(const struct io *io, const char *path, uint32_t shift, uint64_t size, const char *parent)
{
    struct vhd_create_options options = {.type = parent ? VHD_DIFFERENCING : VHD_DYNAMIC,
                                         .size_bytes = size,
                                         .block_bytes = 1U << shift,
                                         .parent_path = parent};

    OK(vhd_create(io, path, &options, &err));
}

static void an_image_can_have_blocks_of_any_power_of_two(void **state)
{
    (void)state;
    for (uint32_t shift = SMALLEST; shift <= LARGEST; shift++) {
        AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_PLAIN);
        struct disk_options options = {.io = io_memory_io(memory)};
        AUTO_DISK struct disk *disk = NULL;
        create(options.io, BASE, shift, disk_bytes(shift), NULL);
        write_runs(options.io, BASE, shift, 1);
        OK(disk_open(BASE, &options, &disk, &err));
        assert_runs(disk, shift, 1);
    }
}

/* Each size over each of a few others. */
static void a_child_can_have_other_blocks_than_its_parent(void **state)
{
    static const uint32_t BELOW[] = {SMALLEST, 12, 16, 19, 21, 22, 28, LARGEST};

    (void)state;
    for (uint32_t shift = SMALLEST; shift <= LARGEST; shift++) {
        for (size_t i = 0; i < ARRAY_SIZE(BELOW); i++) {
            AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_PLAIN);
            struct disk_options options = {.io = io_memory_io(memory)};
            AUTO_DISK struct disk *disk = NULL;
            create(options.io, BASE, BELOW[i], disk_bytes(16), NULL);
            create(options.io, TOP, shift, 0, BASE);
            write_runs(options.io, BASE, 18, 1);
            OK(disk_open(TOP, &options, &disk, &err));
            assert_runs(disk, 18, 1);
            disk_abandon(TAKE(disk));
            write_runs(options.io, TOP, 17, 9);
            OK(disk_open(TOP, &options, &disk, &err));
            assert_sector(disk, 0, 9);
            assert_sector(disk, (1 << 17) - 512, 0);
            assert_sector(disk, 1 << 17, 10);
            assert_sector(disk, 1 << 18, 2);
        }
    }
}

static void blocks_of_any_size_are_checked_and_merged(void **state)
{
    static const uint32_t SIZES[] = {SMALLEST, 11, 14, 18, 20, 23, 25};
    const char *const *children = NULL;
    struct disk_merge_options merge = {.into_base = true, .children = children};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(SIZES); i++) {
        AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_PLAIN);
        struct disk_options options = {.io = io_memory_io(memory)};
        AUTO_DISK struct disk *disk = NULL;
        struct disk_merge_result result = {0};
        create(options.io, BASE, SIZES[i], disk_bytes(20), NULL);
        create(options.io, TOP, SIZES[ARRAY_SIZE(SIZES) - 1 - i], 0, BASE);
        write_runs(options.io, TOP, 17, 9);
        OK(disk_check(options.io, TOP, no_fault, NULL, NULL, &err));
        OK(disk_merge(options.io, TOP, &merge, NULL, &result, &err));
        free(result.parent_path);
        OK(disk_check(options.io, BASE, no_fault, NULL, NULL, &err));
        OK(disk_open(BASE, &options, &disk, &err));
        assert_runs(disk, 17, 9);
    }
}

/* Upwards between blocks of any two sizes: what the child lacks comes, what it has stays. */
static void blocks_of_any_size_are_merged_upwards(void **state)
{
    static const uint32_t SIZES[] = {SMALLEST, 11, 14, 18, 20, 23, 25};
    static const char *const MIDDLE = "/middle.avhd";
    struct disk_merge_options merge = {.direction = DISK_MERGE_UP, .parent_path = MIDDLE};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(SIZES); i++) {
        AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_PLAIN);
        struct disk_options options = {.io = io_memory_io(memory)};
        AUTO_DISK struct disk *disk = NULL;
        struct disk_merge_result result = {0};
        create(options.io, BASE, 18, disk_bytes(20), NULL);
        create(options.io, MIDDLE, SIZES[i], 0, BASE);
        write_runs(options.io, MIDDLE, 18, 1);
        create(options.io, TOP, SIZES[ARRAY_SIZE(SIZES) - 1 - i], 0, MIDDLE);
        write_runs(options.io, TOP, 17, 9);
        OK(disk_merge(options.io, TOP, &merge, NULL, &result, &err));
        free(result.parent_path);
        OK(io_unlink(options.io, MIDDLE, &err));
        OK(disk_check(options.io, TOP, no_fault, NULL, NULL, &err));
        OK(disk_open(TOP, &options, &disk, &err));
        assert_sector(disk, 0, 9);
        assert_sector(disk, 1 << 17, 10);
        assert_sector(disk, 1 << 18, 2);
    }
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(an_image_can_have_blocks_of_any_power_of_two),
        cmocka_unit_test(a_child_can_have_other_blocks_than_its_parent),
        cmocka_unit_test(blocks_of_any_size_are_checked_and_merged),
        cmocka_unit_test(blocks_of_any_size_are_merged_upwards),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
