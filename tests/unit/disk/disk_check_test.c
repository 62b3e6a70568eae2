/* What disk_check() finds. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bytes.h"
#include "disk_tools.h"
#include "io_failing.h"
#include "io_memory.h"

#include <errno.h>
#include <string.h>

#define PATH "/d.vhd"

static struct err err;

struct found {
    unsigned count;
    enum disk_fault_kind kind; /* of the first */
    bool harm;
};

static void remember(void *context, const struct disk_fault *fault)
{
    struct found *found = context;

    assert_string_equal(fault->path, PATH);
    assert_null(strstr(fault->text, "4294967295")); /* UINT32_MAX is no block */
    if (found->count++ == 0)
        found->kind = fault->kind;
    found->harm = found->harm || !fault->harmless;
}

/* A dynamic image of 8 MiB whose first two blocks hold data. */
static struct io_memory *make_image(void)
{
    struct io_memory *memory = io_memory_new(IO_MEMORY_PLAIN);
    struct vhd_create_options create = {.type = VHD_DYNAMIC, .size_bytes = 8 << 20};
    struct disk_options open = {.io = io_memory_io(memory), .writable = true};
    struct disk *disk;
    uint8_t bytes[512];

    memset(bytes, 1, sizeof bytes);
    assert_true(vhd_create(io_memory_io(memory), PATH, &create, &err));
    assert_true(disk_open(PATH, &open, &disk, &err));
    assert_true(disk_write(disk, 0, bytes, sizeof bytes, &err));
    assert_true(disk_write(disk, 2 << 20, bytes, sizeof bytes, &err));
    assert_true(disk_close(disk, &err));
    return memory;
}

/* from_end: offset counts back from the end of the file. */
static struct found found_after(bool from_end, uint64_t offset, const void *bytes, size_t length)
{
    AUTO_IO_MEMORY struct io_memory *memory = make_image();
    struct io_file *file;
    struct io_stat stat;
    struct found found = {0};

    assert_true(io_open(io_memory_io(memory), PATH, IO_WRITE, &file, &err));
    assert_true(io_stat_file(file, &stat, &err));
    assert_true(io_write(file, from_end ? stat.size_bytes - offset : offset, bytes, length, &err));
    io_close(file);
    assert_true(disk_check(io_memory_io(memory), PATH, remember, &found, NULL, &err));
    return found;
}

static void a_whole_image_has_no_fault(void **state)
{
    (void)state;
    assert_int_equal(found_after(false, 0, "conectix", 8).count, 0);
}

static void damaged_footers_are_harmless_faults(void **state)
{
    (void)state;
    struct found found = found_after(true, 512, "x", 1);

    assert_int_equal(found.count, 1);
    assert_int_equal(found.kind, DISK_FAULT_FOOTER);
    assert_false(found.harm);
    found = found_after(false, 0, "x", 1);
    assert_int_equal(found.count, 1);
    assert_int_equal(found.kind, DISK_FAULT_COPY);
    assert_false(found.harm);
}

static void blocks_that_share_space_are_found(void **state)
{
    (void)state;
    uint8_t entry[4];

    put_be32(entry, 7); /* where the first block is: its data are at 4096 */
    struct found found = found_after(false, 0x604, entry, 4);
    assert_int_equal(found.count, 1);
    assert_int_equal(found.kind, DISK_FAULT_OVERLAP);
    assert_true(found.harm);
    put_be32(entry, 8);
    assert_int_equal(found_after(false, 0x604, entry, 4).kind, DISK_FAULT_OVERLAP);
}

/* A table of 8 Ki entries that all name one block of 2 MiB. */
static struct io_memory *make_heap(void)
{
    struct io_memory *memory = io_memory_new(IO_MEMORY_PLAIN);
    const struct io *io = io_memory_io(memory);
    struct vhd_create_options create = {.type = VHD_DYNAMIC, .size_bytes = 16ULL << 30};
    struct disk_options options = {.io = io, .writable = true};
    AUTO_FREE uint8_t *table = malloc(8192 * 4);
    AUTO_IO struct io_file *file = NULL;
    struct disk *disk = NULL;

    assert_true(table && vhd_create(io, PATH, &create, &err) && disk_open(PATH, &options, &disk, &err));
    assert_true(disk_write(disk, 0, table, 512, &err) && disk_close(disk, &err));
    assert_true(io_open(io, PATH, IO_WRITE, &file, &err) && io_read(file, 0x600, table, 4, &err));
    for (size_t i = 1; i < 8192; i++)
        memcpy(table + i * 4, table, 4);
    assert_true(io_write(file, 0x600, table, 8192 * 4, &err));
    return memory;
}

static void blocks_heaped_on_one_place_are_looked_at_once_and_told_shortly(void **state)
{
    (void)state;
    AUTO_IO_MEMORY struct io_memory *memory = make_heap();
    AUTO_IO_FAILING struct io_failing *failing = io_failing_new(io_memory_io(memory));
    struct found found = {0};

    io_failing_set(failing, (struct io_fault){.calls = IO_CALL_READ});
    assert_true(disk_check(io_failing_io(failing), PATH, remember, &found, NULL, &err));
    assert_in_range(io_failing_count(failing), 2, 100);
    assert_true(found.harm);
    assert_int_equal(found.kind, DISK_FAULT_OVERLAP);
    assert_in_range(found.count, 2, 200);
}

static void structures_that_share_space_are_found(void **state)
{
    (void)state;
    AUTO_IO_MEMORY struct io_memory *memory = make_image();
    uint8_t bytes[VHD_HEADER_BYTES];
    AUTO_IO struct io_file *file = NULL;
    struct vhd_header header;
    struct found found = {0};

    assert_true(io_open(io_memory_io(memory), PATH, IO_WRITE, &file, &err));
    assert_true(io_read(file, 512, bytes, sizeof bytes, &err) && vhd_header_decode(bytes, &header, &err));
    for (unsigned i = 0; i < 2; i++) { /* two locators that say the same are no fault */
        header.locators[i] =
            (struct vhd_locator){.platform = VHD_PLATFORM_W2RU + i, .space_bytes = 512, .length_bytes = 8};
        header.locators[i].offset = 0x400000;
    }
    vhd_header_encode(&header, bytes);
    assert_true(io_write(file, 512, bytes, sizeof bytes, &err));
    assert_true(disk_check(io_memory_io(memory), PATH, remember, &found, NULL, &err));
    assert_int_equal(found.count, 2);  /* each lies in the second block */
    header.locators[1].offset = 0x608; /* the table is at 0x600 */
    vhd_header_encode(&header, bytes);
    assert_true(io_write(file, 512, bytes, sizeof bytes, &err));
    found = (struct found){0};
    assert_true(disk_check(io_memory_io(memory), PATH, remember, &found, NULL, &err));
    assert_int_equal(found.count, 2);
    assert_int_equal(found.kind, DISK_FAULT_OVERLAP);
}

static void an_entry_outside_is_found(void **state)
{
    (void)state;
    struct found found = found_after(false, 0x600, "\x70\0\0\0", 4);

    assert_int_equal(found.kind, DISK_FAULT_OUTSIDE);
    assert_true(found.harm);
}

static void data_without_a_bit_is_found(void **state)
{
    (void)state;
    struct found found = found_after(false, 4096 + 5 * 512, "x", 1);

    assert_int_equal(found.count, 1);
    assert_int_equal(found.kind, DISK_FAULT_STRAY);
    assert_false(found.harm);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_image_has_no_fault),
        cmocka_unit_test(damaged_footers_are_harmless_faults),
        cmocka_unit_test(blocks_that_share_space_are_found),
        cmocka_unit_test(blocks_heaped_on_one_place_are_looked_at_once_and_told_shortly),
        cmocka_unit_test(structures_that_share_space_are_found),
        cmocka_unit_test(an_entry_outside_is_found),
        cmocka_unit_test(data_without_a_bit_is_found),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
