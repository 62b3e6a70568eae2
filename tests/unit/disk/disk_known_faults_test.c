/* The ways in which other programs have corrupted virtual disks, one claim each: what went wrong elsewhere
 * does not go wrong here. (A full host in a merge, and zeros in a merge: disk_tools_test.c.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bytes.h"
#include "disk_test.h"
#include "disk_tools.h"
#include "io_failing.h"
#include "io_memory.h"

#include <errno.h>
#include <string.h>

#define MIB  (1ULL << 20)
#define SIZE (20 * MIB)

struct lab {
    struct io_memory *memory;
    const struct io *io;
};

static int lab_start(void **state)
{
    static struct lab lab;

    lab.memory = io_memory_new(IO_MEMORY_FORGETS);
    lab.io = io_memory_io(lab.memory);
    *state = &lab;
    return io_make_dir(lab.io, "/d", &err) && io_make_dir(lab.io, "/far", &err) ? 0 : -1;
}

static int lab_end(void **state)
{
    io_memory_free(((struct lab *)*state)->memory);
    return 0;
}

static void create(const struct lab *lab, const char *path, enum vhd_type type, const char *parent)
{
    struct vhd_create_options options = {
        .type = type, .size_bytes = parent ? 0 : SIZE, .parent_path = parent};

    OK(vhd_create(lab->io, path, &options, &err));
}

static void fill(const struct lab *lab, const char *path, uint64_t offset, size_t length, uint8_t value)
{
    struct disk *disk = open_disk(lab->io, path, true);
    AUTO_FREE uint8_t *bytes = malloc(length);

    assert_non_null(bytes);
    memset(bytes, value, length);
    OK(disk_write(disk, offset, bytes, length, &err) && disk_close(disk, &err));
}

static void assert_all(const struct lab *lab, const char *path, uint64_t offset, size_t length, uint8_t value)
{
    AUTO_DISK struct disk *disk = open_disk(lab->io, path, false);
    AUTO_FREE uint8_t *bytes = malloc(length);

    assert_non_null(bytes);
    OK(disk_read(disk, offset, bytes, length, &err));
    for (size_t i = 0; i < length; i++)
        if (bytes[i] != value)
            fail_msg("byte %llu is %u, not %u", (unsigned long long)offset + i, bytes[i], value);
}

static void no_fault(void *context, const struct disk_fault *fault)
{
    (void)context;
    fail_msg("%s: %s", fault->path, fault->text);
}

static void assert_clean(const struct lab *lab, const char *path)
{
    OK(disk_check(lab->io, path, no_fault, NULL, NULL, &err));
}

static void get(const struct lab *lab, const char *path, uint64_t offset, void *bytes, size_t length)
{
    AUTO_IO struct io_file *file = NULL;

    OK(io_open(lab->io, path, IO_READ_ONLY, &file, &err) && io_read(file, offset, bytes, length, &err));
}

static void put(const struct lab *lab, const char *path, uint64_t offset, const void *bytes, size_t length)
{
    AUTO_IO struct io_file *file = NULL;

    OK(io_open(lab->io, path, IO_WRITE, &file, &err) && io_write(file, offset, bytes, length, &err));
}

/* --- blocks --- */

static void blocks_lie_at_least_4097_sectors_apart(void **state)
{
    const struct lab *lab = *state;
    uint8_t bat[4 * SIZE / (2 * MIB)];

    create(lab, "/d/a.vhd", VHD_DYNAMIC, NULL);
    for (unsigned block = 0; block < SIZE / (2 * MIB); block++)
        fill(lab, "/d/a.vhd", (block * 7 % 10) * 2 * MIB, 2 * MIB, (uint8_t)(block * 7 % 10 + 1));
    get(lab, "/d/a.vhd", 0x600, bat, sizeof bat);
    for (size_t i = 0; i < sizeof bat; i += 4)
        for (size_t k = 0; k < i; k += 4) {
            uint32_t a = get_be32(bat + i), b = get_be32(bat + k);
            assert_true((a > b ? a - b : b - a) >= 4097);
        }
    for (unsigned block = 0; block < SIZE / (2 * MIB); block++)
        assert_all(lab, "/d/a.vhd", block * 2 * MIB, 2 * MIB, (uint8_t)(block + 1));
    assert_clean(lab, "/d/a.vhd");
}

static void a_write_across_two_blocks_reaches_both(void **state)
{
    const struct lab *lab = *state;

    create(lab, "/d/a.vhd", VHD_DYNAMIC, NULL);
    create(lab, "/d/c.avhd", VHD_DIFFERENCING, "/d/a.vhd");
    fill(lab, "/d/c.avhd", 2 * MIB - 512, 1024, 1);
    fill(lab, "/d/c.avhd", 5 * MIB, 4 * MIB, 2);
    assert_all(lab, "/d/c.avhd", 2 * MIB - 1024, 512, 0);
    assert_all(lab, "/d/c.avhd", 2 * MIB - 512, 1024, 1);
    assert_all(lab, "/d/c.avhd", 2 * MIB + 512, 512, 0);
    assert_all(lab, "/d/c.avhd", 5 * MIB, 4 * MIB, 2);
    assert_all(lab, "/d/c.avhd", 9 * MIB, MIB, 0);
}

static void two_requests_that_need_the_same_new_block_share_it(void **state)
{
    const struct lab *lab = *state;
    uint8_t ones[512], twos[512];
    struct disk_piece first, second;
    size_t count;

    memset(ones, 1, sizeof ones);
    memset(twos, 2, sizeof twos);
    create(lab, "/d/a.vhd", VHD_DYNAMIC, NULL);
    struct disk *disk = open_disk(lab->io, "/d/a.vhd", true);
    OK(disk_write_begin(disk, 4 * MIB, 512, &first, 1, &count, &err));
    OK(disk_write_begin(disk, 4 * MIB + 8192, 512, &second, 1, &count, &err));
    assert_true(second.file_offset == first.file_offset + 8192);
    OK(io_write(second.file, second.file_offset, twos, 512, &err));
    disk_write_end(disk, 4 * MIB + 8192, 512);
    OK(io_write(first.file, first.file_offset, ones, 512, &err));
    disk_write_end(disk, 4 * MIB, 512);
    struct disk_layer layer;
    disk_layer_get(disk, 0, &layer);
    assert_int_equal(layer.allocated_blocks, 1);
    OK(disk_close(disk, &err));
    assert_all(lab, "/d/a.vhd", 4 * MIB, 512, 1);
    assert_all(lab, "/d/a.vhd", 4 * MIB + 8192, 512, 2);
}

static void zeros_where_the_child_has_no_block_hide_the_parent(void **state)
{
    const struct lab *lab = *state;
    uint8_t zeros[4096] = {0};

    create(lab, "/d/a.vhd", VHD_DYNAMIC, NULL);
    fill(lab, "/d/a.vhd", 0, 8 * MIB, 1);
    create(lab, "/d/c.avhd", VHD_DIFFERENCING, "/d/a.vhd");
    struct disk *disk = open_disk(lab->io, "/d/c.avhd", true);
    OK(disk_write(disk, 512, zeros, sizeof zeros, &err) && disk_zero(disk, 5 * MIB, 4096, &err));
    OK(disk_close(disk, &err));
    assert_all(lab, "/d/c.avhd", 512, 4096, 0);
    assert_all(lab, "/d/c.avhd", 5 * MIB, 4096, 0);
    assert_all(lab, "/d/c.avhd", 5 * MIB + 4096, 4096, 1);
}

static void a_table_entry_of_zero_is_corrupt_and_not_the_files_start(void **state)
{
    const struct lab *lab = *state;
    static const uint8_t ZERO[4] = {0};

    create(lab, "/d/a.vhd", VHD_DYNAMIC, NULL);
    fill(lab, "/d/a.vhd", 0, 4096, 1);
    put(lab, "/d/a.vhd", 0x604, ZERO, sizeof ZERO);
    assert_int_equal(open_code(lab->io, "/d/a.vhd"), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "BAT entry 1"));
}

/* --- parents --- */

static void change_header(const struct lab *lab, const char *path, void (*change)(struct vhd_header *header))
{
    uint8_t bytes[VHD_HEADER_BYTES];
    struct vhd_header header;

    get(lab, path, 512, bytes, sizeof bytes);
    OK(vhd_header_decode(bytes, &header, &err));
    change(&header);
    vhd_header_encode(&header, bytes);
    put(lab, path, 512, bytes, sizeof bytes);
}

static void name_nobody(struct vhd_header *header)
{
    memset(header->locators, 0, sizeof header->locators);
    memset(header->parent_name, 0, sizeof header->parent_name);
    memset(header->parent_id, 0, sizeof header->parent_id);
}

static void keep_absolute_path_alone(struct vhd_header *header)
{
    for (unsigned i = 0; i < VHD_LOCATORS; i++)
        if (header->locators[i].platform != VHD_PLATFORM_W2KU)
            header->locators[i] = (struct vhd_locator){0};
}

static void a_differencing_image_without_a_parent_is_no_disk_of_zeros(void **state)
{
    const struct lab *lab = *state;

    create(lab, "/d/a.vhd", VHD_DYNAMIC, NULL);
    create(lab, "/d/c.avhd", VHD_DIFFERENCING, "/d/a.vhd");
    change_header(lab, "/d/c.avhd", name_nobody);
    assert_int_equal(open_code(lab->io, "/d/c.avhd"), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/d/c.avhd"));
}

static void a_moved_parent_with_an_absolute_path_alone_is_named_and_reconnected(void **state)
{
    const struct lab *lab = *state;

    create(lab, "/far/a.vhd", VHD_DYNAMIC, NULL);
    fill(lab, "/far/a.vhd", 0, 4096, 1);
    create(lab, "/d/c.avhd", VHD_DIFFERENCING, "/far/a.vhd");
    change_header(lab, "/d/c.avhd", keep_absolute_path_alone);
    assert_all(lab, "/d/c.avhd", 0, 4096, 1);
    OK(io_make_dir(lab->io, "/new", &err) && io_rename(lab->io, "/far/a.vhd", "/new/a.vhd", &err));
    assert_int_equal(open_code(lab->io, "/d/c.avhd"), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/d/c.avhd"));
    assert_non_null(strstr(err.text, "/far/a.vhd"));
    OK(disk_reconnect(lab->io, "/d/c.avhd", "/new/a.vhd", false, &err));
    assert_all(lab, "/d/c.avhd", 0, 4096, 1);
    /* Beside the child it is found whatever the path says. */
    OK(io_rename(lab->io, "/new/a.vhd", "/d/a.vhd", &err));
    assert_all(lab, "/d/c.avhd", 0, 4096, 1);
}

/* Both footers of the child get the parent's id, as from a generator that was seeded with the second. */
static void parent_and_child_with_one_id_are_told_apart(void **state)
{
    const struct lab *lab = *state;
    uint8_t bytes[VHD_FOOTER_BYTES], id[VHD_ID_SIZE];
    struct vhd_footer footer;
    struct io_stat stat;

    create(lab, "/d/a.vhd", VHD_DYNAMIC, NULL);
    fill(lab, "/d/a.vhd", 0, 4096, 1);
    create(lab, "/d/c.avhd", VHD_DIFFERENCING, "/d/a.vhd");
    get(lab, "/d/a.vhd", 68, id, sizeof id);
    get(lab, "/d/c.avhd", 0, bytes, sizeof bytes);
    OK(vhd_footer_decode(bytes, sizeof bytes, &footer, &err) &&
       io_stat_path(lab->io, "/d/c.avhd", &stat, &err));
    memcpy(footer.id, id, sizeof id);
    vhd_footer_encode(&footer, bytes);
    put(lab, "/d/c.avhd", 0, bytes, sizeof bytes);
    put(lab, "/d/c.avhd", stat.size_bytes - sizeof bytes, bytes, sizeof bytes);
    fill(lab, "/d/c.avhd", 4096, 4096, 2);
    assert_all(lab, "/d/c.avhd", 0, 4096, 1);
    assert_all(lab, "/d/c.avhd", 4096, 4096, 2);
    assert_all(lab, "/d/a.vhd", 4096, 4096, 0);
    assert_clean(lab, "/d/c.avhd");
}

static void images_made_in_one_second_have_different_ids(void **state)
{
    const struct lab *lab = *state;
    uint8_t ids[2][VHD_ID_SIZE];

    create(lab, "/d/a.vhd", VHD_DYNAMIC, NULL);
    create(lab, "/d/c.avhd", VHD_DIFFERENCING, "/d/a.vhd");
    get(lab, "/d/a.vhd", 68, ids[0], VHD_ID_SIZE);
    get(lab, "/d/c.avhd", 68, ids[1], VHD_ID_SIZE);
    assert_memory_not_equal(ids[0], ids[1], VHD_ID_SIZE);
}

/* --- headers, merges --- */

static void of_two_equal_headers_the_one_that_the_footer_names_counts(void **state)
{
    const struct lab *lab = *state;
    uint8_t old[VHD_HEADER_BYTES], footer[VHD_FOOTER_BYTES];

    create(lab, "/d/a.vhd", VHD_DYNAMIC, NULL);
    fill(lab, "/d/a.vhd", 0, 4096, 1);
    create(lab, "/d/c.avhd", VHD_DIFFERENCING, "/d/a.vhd");
    get(lab, "/d/c.avhd", 512, old, sizeof old);
    OK(disk_reconnect(lab->io, "/d/c.avhd", "/d/a.vhd", false,
                      &err)); /* the same parent: a header as the old */
    get(lab, "/d/c.avhd", 0, footer, sizeof footer);
    assert_true(get_be64(footer + 16) != 512);
    fill(lab, "/d/c.avhd", 4096, 4096, 2);
    memset(old, 0xFF, sizeof old);
    put(lab, "/d/c.avhd", 512, old, sizeof old);
    assert_all(lab, "/d/c.avhd", 0, 4096, 1);
    assert_all(lab, "/d/c.avhd", 4096, 4096, 2);
    assert_clean(lab, "/d/c.avhd");
}

/* At each sync of a merge the power goes; the table in the parent is as durable as the flush says or not at
 * all, and the merge that is done again does not take its own half for done. */
static void a_merge_whose_table_was_not_durable_is_resumed_whole(void **state)
{
    const struct lab *lab = *state;
    struct disk_merge_options options = {.into_base = true};
    bool struck = true;

    for (uint64_t nth = 1; struck; nth++) {
        AUTO_IO_FAILING struct io_failing *failing = io_failing_new(lab->io);
        struct disk_merge_result result = {0};
        create(lab, "/d/a.vhd", VHD_DYNAMIC, NULL);
        create(lab, "/d/c.avhd", VHD_DIFFERENCING, "/d/a.vhd");
        fill(lab, "/d/c.avhd", MIB, 6 * MIB, 3);
        io_memory_sync_all(lab->memory);
        io_failing_set(failing,
                       (struct io_fault){.calls = IO_CALL_SYNC, .nth = nth, .errnum = EIO, .forever = true});
        bool ok = disk_merge(io_failing_io(failing), "/d/c.avhd", &options, NULL, &result, &err);
        struck = io_failing_struck(failing);
        assert_true(ok == !struck);
        free(result.parent_path);
        io_memory_crash(lab->memory, nth);
        assert_all(lab, "/d/c.avhd", MIB, 6 * MIB, 3);
        result.parent_path = NULL;
        OK(disk_merge(lab->io, "/d/c.avhd", &options, NULL, &result, &err));
        free(result.parent_path);
        OK(io_unlink(lab->io, "/d/c.avhd", &err));
        io_memory_crash(lab->memory, nth + 1);
        assert_all(lab, "/d/a.vhd", MIB, 6 * MIB, 3);
        assert_clean(lab, "/d/a.vhd");
        OK(io_unlink(lab->io, "/d/a.vhd", &err));
        if (io_exists(lab->io, "/d/c.avhd"))
            OK(io_unlink(lab->io, "/d/c.avhd", &err));
    }
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, lab_start, lab_end)
    const struct CMUnitTest tests[] = {
        TEST(blocks_lie_at_least_4097_sectors_apart),
        TEST(a_write_across_two_blocks_reaches_both),
        TEST(two_requests_that_need_the_same_new_block_share_it),
        TEST(zeros_where_the_child_has_no_block_hide_the_parent),
        TEST(a_table_entry_of_zero_is_corrupt_and_not_the_files_start),
        TEST(a_differencing_image_without_a_parent_is_no_disk_of_zeros),
        TEST(a_moved_parent_with_an_absolute_path_alone_is_named_and_reconnected),
        TEST(parent_and_child_with_one_id_are_told_apart),
        TEST(images_made_in_one_second_have_different_ids),
        TEST(of_two_equal_headers_the_one_that_the_footer_names_counts),
        TEST(a_merge_whose_table_was_not_durable_is_resumed_whole),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
