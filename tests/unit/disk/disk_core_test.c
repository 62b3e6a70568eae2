/* The disk over a chain: opening, what is hidden and what is seen, flushes in pieces, faults. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bytes.h"
#include "disk_private.h"
#include "io_failing.h"
#include "io_memory.h"
#include "ok.h"
#include "random.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SIZE (9U << 20)

static struct err err;

struct lab {
    struct io_memory *memory;
    struct io_failing *failing;
    const struct io *io;
};

static int lab_start(void **state)
{
    static struct lab lab;

    lab.memory = io_memory_new(IO_MEMORY_PLAIN);
    lab.failing = io_failing_new(io_memory_io(lab.memory));
    lab.io = io_failing_io(lab.failing);
    *state = &lab;
    return io_make_dir(lab.io, "/d", &err) ? 0 : -1;
}

static int lab_end(void **state)
{
    struct lab *lab = *state;

    io_failing_free(lab->failing);
    io_memory_free(lab->memory);
    return 0;
}

static void create(const struct lab *lab, const char *path, enum vhd_type type, uint64_t size,
                   const char *parent)
{
    struct vhd_create_options options = {.type = type, .size_bytes = size, .parent_path = parent};

    OK(vhd_create(lab->io, path, &options, &err));
}

static struct disk *open_disk(const struct lab *lab, const char *path, bool writable)
{
    struct disk_options options = {.io = lab->io, .writable = writable};
    struct disk *disk = NULL;

    OK(disk_open(path, &options, &disk, &err));
    return disk;
}

static enum err_code open_code(const struct lab *lab, const char *path, unsigned max_depth)
{
    struct disk_options options = {.io = lab->io, .max_depth = max_depth};
    AUTO_DISK struct disk *disk = NULL;

    err = ERR_INIT;
    return disk_open(path, &options, &disk, &err) ? ERR_NONE : err.code;
}

static void fill(struct disk *disk, uint64_t offset, size_t length, uint8_t value)
{
    AUTO_FREE uint8_t *bytes = malloc(length);

    assert_non_null(bytes);
    memset(bytes, value, length);
    OK(disk_write(disk, offset, bytes, length, &err));
}

static void assert_all(struct disk *disk, uint64_t offset, size_t length, uint8_t value)
{
    AUTO_FREE uint8_t *bytes = malloc(length);

    assert_non_null(bytes);
    OK(disk_read(disk, offset, bytes, length, &err));
    for (size_t i = 0; i < length; i++)
        if (bytes[i] != value)
            fail_msg("byte %llu is %u, not %u", (unsigned long long)offset + i, bytes[i], value);
}

static void close_disk(struct disk *disk)
{
    OK(disk_close(disk, &err));
}

/* base.vhd <- a.avhd, all of the base filled with 1 */
static void make_pair(const struct lab *lab, enum vhd_type base_type)
{
    create(lab, "/d/base.vhd", base_type, SIZE, NULL);
    struct disk *disk = open_disk(lab, "/d/base.vhd", true);
    fill(disk, 0, SIZE, 1);
    close_disk(disk);
    create(lab, "/d/a.avhd", VHD_DIFFERENCING, 0, "/d/base.vhd");
}

static void a_child_has_single_sectors_of_its_own(void **state)
{
    const struct lab *lab = *state;

    make_pair(lab, VHD_DYNAMIC);
    struct disk *disk = open_disk(lab, "/d/a.avhd", true);
    fill(disk, 513 * 512, 512, 2);
    close_disk(disk);
    disk = open_disk(lab, "/d/a.avhd", false);
    assert_all(disk, 0, 513 * 512, 1);
    assert_all(disk, 513 * 512, 512, 2);
    assert_all(disk, 514 * 512, SIZE - 514 * 512, 1);
    close_disk(disk);
    disk = open_disk(lab, "/d/base.vhd", false);
    assert_all(disk, 0, SIZE, 1);
    close_disk(disk);
}

static void zeros_in_a_child_hide_the_parent(void **state)
{
    const struct lab *lab = *state;

    make_pair(lab, VHD_FIXED);
    struct disk *disk = open_disk(lab, "/d/a.avhd", true);
    OK(disk_zero(disk, 512, 512, &err));
    OK(disk_zero(disk, 2 << 20, 2 << 20, &err));
    close_disk(disk);
    disk = open_disk(lab, "/d/a.avhd", false);
    assert_all(disk, 0, 512, 1);
    assert_all(disk, 512, 512, 0);
    assert_all(disk, 1024, (2 << 20) - 1024, 1);
    assert_all(disk, 2 << 20, 2 << 20, 0);
    assert_all(disk, 4 << 20, SIZE - (4 << 20), 1);
    close_disk(disk);
}

static void zeros_over_nothing_take_no_block(void **state)
{
    const struct lab *lab = *state;
    struct disk_layer layer;

    create(lab, "/d/base.vhd", VHD_DYNAMIC, SIZE, NULL);
    create(lab, "/d/a.avhd", VHD_DIFFERENCING, 0, "/d/base.vhd");
    struct disk *disk = open_disk(lab, "/d/a.avhd", true);
    OK(disk_zero(disk, 0, SIZE, &err));
    disk_layer_get(disk, 0, &layer);
    assert_int_equal(layer.allocated_blocks, 0);
    close_disk(disk);
}

static void a_zeroed_block_takes_no_space_for_data(void **state)
{
    const struct lab *lab = *state;
    struct disk_layer layer;

    make_pair(lab, VHD_DYNAMIC);
    struct disk *disk = open_disk(lab, "/d/a.avhd", true);
    OK(disk_zero(disk, 0, 8 << 20, &err));
    fill(disk, 8 << 20, 1 << 20, 3);
    OK(disk_zero(disk, 8 << 20, 1 << 20, &err));
    disk_layer_get(disk, 0, &layer);
    assert_int_equal(layer.allocated_blocks, 5);
    assert_true(layer.file_allocated_bytes < 2 << 20);
    assert_all(disk, 0, SIZE, 0);
    close_disk(disk);
}

static void past_a_parents_end_are_zeros(void **state)
{
    const struct lab *lab = *state;

    make_pair(lab, VHD_DYNAMIC);
    create(lab, "/d/small.avhd", VHD_DIFFERENCING, 5 << 20, "/d/a.avhd");
    create(lab, "/d/large.avhd", VHD_DIFFERENCING, SIZE + (3 << 20), "/d/small.avhd");
    struct disk *disk = open_disk(lab, "/d/large.avhd", true);
    assert_int_equal(disk_size_bytes(disk), SIZE + (3 << 20));
    assert_all(disk, 0, 5 << 20, 1);
    assert_all(disk, 5 << 20, SIZE - (2 << 20), 0); /* what the base has there is past small's end */
    fill(disk, SIZE, 3 << 20, 4);
    assert_all(disk, SIZE, 3 << 20, 4);
    close_disk(disk);
}

static void ranges_are_whole_sectors_inside_the_disk(void **state)
{
    const struct lab *lab = *state;
    uint8_t bytes[1024];

    create(lab, "/d/base.vhd", VHD_DYNAMIC, SIZE, NULL);
    struct disk *disk = open_disk(lab, "/d/base.vhd", true);
    static const uint64_t BAD[][2] = {
        {1, 512}, {0, 100}, {SIZE, 512}, {SIZE - 512, 1024}, {UINT64_MAX - 511, 512}};
    for (size_t i = 0; i < ARRAY_SIZE(BAD); i++) {
        assert_false(disk_read(disk, BAD[i][0], bytes, (size_t)BAD[i][1], &err));
        assert_int_equal(err.code, ERR_INVALID);
        assert_false(disk_write(disk, BAD[i][0], bytes, (size_t)BAD[i][1], &err));
        assert_int_equal(err.code, ERR_INVALID);
        assert_false(disk_zero(disk, BAD[i][0], BAD[i][1], &err));
        assert_int_equal(err.code, ERR_INVALID);
    }
    OK(disk_read(disk, SIZE, bytes, 0, &err));
    close_disk(disk);
}

static void a_read_only_disk_is_not_changed(void **state)
{
    const struct lab *lab = *state;

    make_pair(lab, VHD_DYNAMIC);
    io_failing_set(lab->failing, (struct io_fault){.calls = IO_CALLS_CHANGES});
    struct disk *disk = open_disk(lab, "/d/a.avhd", false);
    uint8_t bytes[512] = {0};
    assert_false(disk_write(disk, 0, bytes, 512, &err));
    assert_false(disk_zero(disk, 0, 512, &err));
    assert_all(disk, 0, SIZE, 1);
    close_disk(disk);
    assert_int_equal(io_failing_count(lab->failing), 0);
}

/* Makes an image its own parent: its id, and its name in the header; the locators are taken away. */
static void make_own_parent(const struct lab *lab, const char *path, const char *name)
{
    AUTO_IO struct io_file *file = NULL;
    uint8_t bytes[1536];
    struct vhd_header header;
    struct vhd_footer footer;

    OK(io_open(lab->io, path, IO_WRITE, &file, &err) && io_read(file, 0, bytes, sizeof bytes, &err));
    OK(vhd_footer_decode(bytes, 512, &footer, &err) && vhd_header_decode(bytes + 512, &header, &err));
    memcpy(header.parent_id, footer.id, 16);
    memset(header.locators, 0, sizeof header.locators);
    memset(header.parent_name, 0, sizeof header.parent_name);
    for (size_t i = 0; name[i] != '\0'; i++)
        header.parent_name[2 * i + 1] = (uint8_t)name[i];
    vhd_header_encode(&header, bytes + 512);
    OK(io_write(file, 512, bytes + 512, 1024, &err));
}

static void a_circle_is_corrupt(void **state)
{
    const struct lab *lab = *state;

    make_pair(lab, VHD_DYNAMIC);
    create(lab, "/d/b.avhd", VHD_DIFFERENCING, 0, "/d/a.avhd");
    make_own_parent(lab, "/d/a.avhd", "a.avhd");
    assert_int_equal(open_code(lab, "/d/a.avhd", 0), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "itself"));
    assert_int_equal(open_code(lab, "/d/b.avhd", 0), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "circle"));
}

static void a_chain_deeper_than_the_limit_is_corrupt(void **state)
{
    const struct lab *lab = *state;

    make_pair(lab, VHD_DYNAMIC);
    create(lab, "/d/b.avhd", VHD_DIFFERENCING, 0, "/d/a.avhd");
    assert_int_equal(open_code(lab, "/d/b.avhd", 3), ERR_NONE);
    assert_int_equal(open_code(lab, "/d/b.avhd", 2), ERR_CORRUPT);
    assert_int_equal(open_code(lab, "/d/b.avhd", 70000), ERR_INVALID);
}

static void three_hundred_layers_are_one_disk(void **state)
{
    const struct lab *lab = *state;
    char path[32], parent[32] = "/d/base.vhd";

    create(lab, parent, VHD_DYNAMIC, SIZE, NULL);
    for (unsigned i = 0; i < 300; i++) {
        snprintf(path, sizeof path, "/d/%u.avhd", i);
        create(lab, path, VHD_DIFFERENCING, 0, parent);
        struct disk *disk = open_disk(lab, path, true);
        fill(disk, i * 512, 1024, (uint8_t)i);
        close_disk(disk);
        snprintf(parent, sizeof parent, "%s", path);
    }
    struct disk *disk = open_disk(lab, parent, false);
    assert_int_equal(disk_depth(disk), 301);
    for (unsigned i = 0; i < 300; i++)
        assert_all(disk, i * 512, 512, (uint8_t)i);
    close_disk(disk);
}

static void a_damaged_block_table_is_told_at_open(void **state)
{
    const struct lab *lab = *state;
    AUTO_IO struct io_file *file = NULL;

    make_pair(lab, VHD_DYNAMIC);
    OK(io_open(lab->io, "/d/base.vhd", IO_WRITE, &file, &err));
    OK(io_write(file, 0x600, "\x7F\0\0\0", 4, &err));
    assert_int_equal(open_code(lab, "/d/a.avhd", 0), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "/d/base.vhd"));
    assert_non_null(strstr(err.text, "BAT entry 0"));
}

static void a_block_whose_bitmap_cannot_be_read_is_an_error_not_the_parent(void **state)
{
    const struct lab *lab = *state;
    uint8_t bytes[512];

    make_pair(lab, VHD_DYNAMIC);
    struct disk *disk = open_disk(lab, "/d/a.avhd", true);
    fill(disk, 0, 512, 2);
    close_disk(disk);
    disk = open_disk(lab, "/d/a.avhd", false);
    io_failing_set(lab->failing, (struct io_fault){.calls = IO_CALL_READ, .nth = 1, .errnum = EIO});
    assert_false(disk_read(disk, 0, bytes, 512, &err));
    assert_int_equal(err.code, ERR_IO);
    assert_all(disk, 0, 512, 2);
    close_disk(disk);
}

/* --- flush --- */

static struct disk_flush *begin(struct disk *disk)
{
    struct disk_flush *flush = NULL;

    OK(disk_flush_begin(disk, &flush, &err));
    return flush;
}

static void a_clean_disk_flushes_for_nothing_and_an_overwrite_for_one_sync(void **state)
{
    const struct lab *lab = *state;

    create(lab, "/d/base.vhd", VHD_DYNAMIC, SIZE, NULL);
    struct disk *disk = open_disk(lab, "/d/base.vhd", true);
    struct disk_flush *flush = begin(disk);
    assert_int_equal(flush->sync_first_count + flush->write_count + flush->sync_last_count, 0);
    disk_flush_end(disk, flush, NULL, false);
    fill(disk, 0, 4096, 1);
    flush = begin(disk);
    assert_int_equal(flush->sync_first_count, 1);
    assert_int_equal(flush->write_count, 3); /* bitmap, BAT sector, footer */
    assert_int_equal(flush->sync_last_count, 1);
    disk_flush_end(disk, flush, &(struct err){.code = ERR_IO}, false);
    OK(disk_flush(disk, &err));
    fill(disk, 0, 4096, 2);
    flush = begin(disk);
    assert_int_equal(flush->sync_first_count, 1);
    assert_int_equal(flush->write_count + flush->sync_last_count, 0);
    disk_flush_end(disk, flush, NULL, false);
    close_disk(disk);
}

static void bits_set_during_a_flush_wait_for_the_next(void **state)
{
    const struct lab *lab = *state;

    make_pair(lab, VHD_DYNAMIC);
    struct disk *disk = open_disk(lab, "/d/a.avhd", true);
    fill(disk, 0, 512, 2);
    struct disk_flush *flush = begin(disk);
    fill(disk, 512, 512, 2);
    assert_int_equal(((const uint8_t *)flush->writes[0].bytes)[0], 0x80);
    assert_false(disk_flush_begin(disk, &flush, &err));
    disk_flush_end(disk, flush, NULL, false);
    flush = begin(disk);
    assert_int_equal(flush->write_count, 1);
    assert_int_equal(((const uint8_t *)flush->writes[0].bytes)[0], 0xC0);
    disk_flush_end(disk, flush, NULL, false);
    close_disk(disk);
}

static void a_failed_sync_is_for_good(void **state)
{
    const struct lab *lab = *state;

    create(lab, "/d/base.vhd", VHD_DYNAMIC, SIZE, NULL);
    struct disk *disk = open_disk(lab, "/d/base.vhd", true);
    fill(disk, 0, 512, 1);
    io_failing_set(lab->failing, (struct io_fault){.calls = IO_CALL_SYNC, .nth = 1, .errnum = EIO});
    assert_false(disk_flush(disk, &err));
    assert_false(disk_flush(disk, &err));
    assert_int_equal(err.code, ERR_IO);
    assert_all(disk, 0, 512, 1);
    assert_false(disk_close(disk, &err));
}

/* Storage that promised more than it has tells so when it is too late. */
static void a_sync_that_finds_no_space_is_no_want_of_space(void **state)
{
    const struct lab *lab = *state;

    create(lab, "/d/base.vhd", VHD_DYNAMIC, SIZE, NULL);
    struct disk *disk = open_disk(lab, "/d/base.vhd", true);
    fill(disk, 0, 512, 1);
    io_failing_set(lab->failing, (struct io_fault){.calls = IO_CALL_SYNC, .nth = 1, .errnum = ENOSPC});
    for (int i = 0; i < 2; i++) {
        assert_false(disk_flush(disk, &err));
        assert_int_equal(err.code, ERR_IO);
    }
    disk_abandon(disk);
}

static void a_failed_metadata_write_is_done_again(void **state)
{
    const struct lab *lab = *state;

    make_pair(lab, VHD_DYNAMIC);
    for (uint64_t nth = 1; nth <= 3; nth++) {
        struct disk *disk = open_disk(lab, "/d/a.avhd", true);
        fill(disk, nth << 21, 512, 2);
        io_failing_set(lab->failing, (struct io_fault){.calls = IO_CALL_WRITE, .nth = nth, .errnum = EIO});
        assert_false(disk_flush(disk, &err));
        assert_true(io_failing_struck(lab->failing));
        close_disk(disk);
        disk = open_disk(lab, "/d/a.avhd", false);
        assert_all(disk, nth << 21, 512, 2);
        assert_all(disk, (nth << 21) + 512, 512, 1);
        close_disk(disk);
    }
}

static void no_space_fails_the_write_and_harms_nothing(void **state)
{
    const struct lab *lab = *state;
    uint8_t bytes[512] = {9};

    make_pair(lab, VHD_DYNAMIC);
    struct disk *disk = open_disk(lab, "/d/a.avhd", true);
    fill(disk, 0, 512, 2);
    io_memory_limit(lab->memory, io_memory_taken_bytes(lab->memory) + (1 << 20));
    assert_false(disk_write(disk, 4 << 20, bytes, 512, &err));
    assert_int_equal(err.code, ERR_NO_SPACE);
    fill(disk, 2048, 512, 3); /* its block has its space */
    OK(disk_flush(disk, &err));
    assert_all(disk, 4 << 20, 512, 1);
    io_memory_limit(lab->memory, 0);
    fill(disk, 4 << 20, 512, 4);
    close_disk(disk);
    disk = open_disk(lab, "/d/a.avhd", false);
    assert_all(disk, 0, 512, 2);
    assert_all(disk, 2048, 512, 3);
    assert_all(disk, 4 << 20, 512, 4);
    assert_all(disk, (4 << 20) + 512, 512, 1);
    close_disk(disk);
}

/* --- images of other layouts --- */

static void what_a_crash_left_behind_the_end_is_not_seen_in_new_blocks(void **state)
{
    const struct lab *lab = *state;
    struct io_file *file = NULL;
    AUTO_FREE uint8_t *junk = malloc(6 << 20);

    create(lab, "/d/base.vhd", VHD_DYNAMIC, SIZE, NULL);
    assert_non_null(junk);
    memset(junk, 0xEE, 6 << 20);
    OK(io_open(lab->io, "/d/base.vhd", IO_WRITE, &file, &err));
    OK(io_write(file, 0x800, junk, 6 << 20, &err));
    io_close(file);
    struct disk *disk = open_disk(lab, "/d/base.vhd", true);
    fill(disk, 512, 512, 1);
    assert_all(disk, 0, 512, 0);
    assert_all(disk, 1024, SIZE - 1024, 0);
    close_disk(disk);
    disk = open_disk(lab, "/d/base.vhd", false);
    struct disk_layer layer;
    disk_layer_get(disk, 0, &layer);
    assert_false(layer.needs_repair);
    assert_int_equal(layer.file_bytes, 0x1000 + (2 << 20) + 512);
    close_disk(disk);
}

static void first_block_lies_where_windows_10_puts_it(void **state)
{
    const struct lab *lab = *state;
    struct disk_piece piece;
    size_t count;

    create(lab, "/d/base.vhd", VHD_DYNAMIC, SIZE, NULL);
    create(lab, "/d/a.avhd", VHD_DIFFERENCING, 0, "/d/base.vhd");
    struct disk *disk = open_disk(lab, "/d/a.avhd", true);
    OK(disk_write_begin(disk, 5 << 20, 512, &piece, 1, &count, &err));
    assert_int_equal(piece.file_offset, 0x14000 + (1 << 20));
    disk_write_end(disk, 5 << 20, 0);
    close_disk(disk);
}

static void an_image_of_the_2006_layout_is_read_and_written(void **state)
{
    const struct lab *lab = *state;
    struct io_file *file = NULL;
    uint8_t footer[512], entry[4], sector[512];

    /* Block 1 right behind the BAT, its data off 4 KiB; the footer right behind that. */
    create(lab, "/d/base.vhd", VHD_DYNAMIC, SIZE, NULL);
    OK(io_open(lab->io, "/d/base.vhd", IO_WRITE, &file, &err) && io_read(file, 0, footer, 512, &err));
    memset(sector, 0xFF, sizeof sector);
    OK(io_write(file, 0x800, sector, 512, &err));
    memset(sector, 5, sizeof sector);
    OK(io_write(file, 0xA00 + 512, sector, 512, &err));
    OK(io_write(file, 0xA00 + (2 << 20), footer, 512, &err));
    put_be32(entry, 4);
    OK(io_write(file, 0x604, entry, 4, &err));
    io_close(file);
    struct disk *disk = open_disk(lab, "/d/base.vhd", true);
    assert_all(disk, (2 << 20) + 512, 512, 5);
    fill(disk, 2 << 20, 512, 6);
    fill(disk, 0, 1024, 7);
    close_disk(disk);
    disk = open_disk(lab, "/d/base.vhd", false);
    assert_all(disk, 0, 1024, 7);
    assert_all(disk, 1024, (2 << 20) - 1024, 0);
    assert_all(disk, 2 << 20, 512, 6);
    assert_all(disk, (2 << 20) + 512, 512, 5);
    assert_all(disk, (2 << 20) + 1024, SIZE - (2 << 20) - 1024, 0);
    close_disk(disk);
}

/* --- seal --- */

static enum err_code next_code(struct disk *disk, const char *path)
{
    struct disk_next_top *next = NULL;

    err = ERR_INIT;
    if (!disk_next_top_open(disk, path, &next, &err))
        return err.code;
    disk_next_top_abandon(next);
    return ERR_NONE;
}

static void only_an_empty_child_of_the_top_can_be_pushed(void **state)
{
    const struct lab *lab = *state;

    make_pair(lab, VHD_DYNAMIC);
    create(lab, "/d/b.avhd", VHD_DIFFERENCING, 0, "/d/a.avhd");
    create(lab, "/d/wide.avhd", VHD_DIFFERENCING, SIZE + 512, "/d/a.avhd");
    create(lab, "/d/full.avhd", VHD_DIFFERENCING, 0, "/d/a.avhd");
    struct disk *full = open_disk(lab, "/d/full.avhd", true);
    fill(full, 0, 512, 1);
    close_disk(full);
    struct disk *disk = open_disk(lab, "/d/a.avhd", true);
    assert_int_equal(next_code(disk, "/d/b.avhd"), ERR_NONE);
    assert_int_equal(next_code(disk, "/d/base.vhd"), ERR_INVALID);
    assert_int_equal(next_code(disk, "/d/a.avhd"), ERR_MISMATCH);
    assert_int_equal(next_code(disk, "/d/wide.avhd"), ERR_INVALID);
    assert_int_equal(next_code(disk, "/d/full.avhd"), ERR_INVALID);
    assert_int_equal(next_code(disk, "/d/none.avhd"), ERR_NOT_FOUND);
    close_disk(disk);
}

static uint64_t release_all(struct disk *disk)
{
    struct disk_gap gap;
    uint64_t bytes = 0;

    for (; disk_release_next(disk, &gap); bytes += gap.length)
        if (gap.length > 0)
            OK(io_zero(gap.file, gap.file_offset, gap.length, &err));
    return bytes;
}

static void a_sealed_layer_gives_back_what_it_did_not_fill(void **state)
{
    const struct lab *lab = *state;
    struct disk_next_top *next;
    struct disk_layer layer;

    make_pair(lab, VHD_DYNAMIC);
    struct disk *disk = open_disk(lab, "/d/a.avhd", true);
    fill(disk, 513 * 512, 512, 2);
    fill(disk, (2 << 20) - 512, 1024, 3); /* the end of a block and the beginning of the next */
    create(lab, "/d/b.avhd", VHD_DIFFERENCING, 0, "/d/a.avhd");
    OK(disk_next_top_open(disk, "/d/b.avhd", &next, &err));
    assert_int_equal(release_all(disk), 0); /* the top keeps its space */
    disk_seal_and_push(disk, next);
    assert_int_equal(release_all(disk), 0); /* not before it is durable */
    OK(disk_flush(disk, &err));
    disk_layer_get(disk, 1, &layer);
    uint64_t before = layer.file_allocated_bytes;
    uint64_t released = release_all(disk);
    disk_layer_get(disk, 1, &layer);
    /* what was written, by 4 KiB, and gaps of less than 64 KiB */
    assert_true(released >= 2 * ((2 << 20) - 2 * (64 << 10)));
    assert_true(before - layer.file_allocated_bytes >= released);
    assert_int_equal(release_all(disk), 0);
    fill(disk, 0, 512, 4);
    close_disk(disk);
    disk = open_disk(lab, "/d/b.avhd", false);
    assert_all(disk, 0, 512, 4);
    assert_all(disk, 512, 512 * 512, 1);
    assert_all(disk, 513 * 512, 512, 2);
    assert_all(disk, 514 * 512, (2 << 20) - 515 * 512, 1);
    assert_all(disk, (2 << 20) - 512, 1024, 3);
    assert_all(disk, (2 << 20) + 512, SIZE - (2 << 20) - 512, 1);
    close_disk(disk);
}

static void a_seal_needs_nothing_that_can_fail_and_a_flush_covers_the_old_top(void **state)
{
    const struct lab *lab = *state;
    struct disk_next_top *next;

    make_pair(lab, VHD_DYNAMIC);
    create(lab, "/d/b.avhd", VHD_DIFFERENCING, 0, "/d/a.avhd");
    struct disk *disk = open_disk(lab, "/d/a.avhd", true);
    fill(disk, 0, 4096, 2);
    OK(disk_next_top_open(disk, "/d/b.avhd", &next, &err));
    fill(disk, 3 << 20, 4096, 3);
    io_failing_set(lab->failing, (struct io_fault){.calls = IO_CALLS_ALL});
    disk_seal_and_push(disk, next);
    assert_int_equal(io_failing_count(lab->failing), 0);
    assert_false(disk_sealed_layers_are_clean(disk));
    fill(disk, 512, 512, 4);
    assert_all(disk, 0, 512, 2);
    assert_all(disk, 512, 512, 4);
    assert_all(disk, 3 << 20, 4096, 3);
    struct disk_flush *flush = begin(disk);
    assert_int_equal(flush->sync_first_count, 2);
    assert_false(disk_sealed_layers_are_clean(disk));
    disk_flush_end(disk, flush, &(struct err){.code = ERR_IO}, false);
    assert_false(disk_sealed_layers_are_clean(disk));
    OK(disk_flush(disk, &err));
    assert_true(disk_sealed_layers_are_clean(disk));
    assert_all(disk, 0, 512, 2);
    assert_all(disk, 1024, 3072, 2);
    disk_abandon(disk);
    disk = open_disk(lab, "/d/a.avhd", false);
    struct disk_layer layer;
    disk_layer_get(disk, 0, &layer);
    assert_false(layer.needs_repair);
    assert_all(disk, 0, 4096, 2);
    assert_all(disk, 3 << 20, 4096, 3);
    close_disk(disk);
}

/* --- the map --- */

static void the_map_stays_small_and_right_when_every_block_is_mixed(void **state)
{
    const struct lab *lab = *state;

    make_pair(lab, VHD_DYNAMIC);
    struct disk *disk = open_disk(lab, "/d/a.avhd", true);
    for (uint64_t offset = 0; offset < SIZE; offset += 1024)
        fill(disk, offset, 512, 2);
    close_disk(disk);
    disk = open_disk(lab, "/d/a.avhd", false);
    disk->map.runs_limit_bytes = 40000;
    for (unsigned round = 0; round < 3; round++) {
        for (uint64_t offset = 0; offset < SIZE; offset += 1024) {
            assert_all(disk, offset, 512, 2);
            assert_all(disk, offset + 512, 512, 1);
        }
        assert_true(disk->map.runs_bytes <= 40000 + 33000);
    }
    close_disk(disk);
}

static void status_tells_holes_from_data(void **state)
{
    const struct lab *lab = *state;
    enum disk_status_kind kind;
    uint64_t length;

    create(lab, "/d/base.vhd", VHD_DYNAMIC, SIZE, NULL);
    create(lab, "/d/a.avhd", VHD_DIFFERENCING, 0, "/d/base.vhd");
    struct disk *disk = open_disk(lab, "/d/a.avhd", true);
    fill(disk, (4 << 20) + 1024, 512, 1);
    OK(disk_status(disk, 0, SIZE, &kind, &length, &err));
    assert_int_equal(kind, DISK_ZERO);
    assert_int_equal(length, (4 << 20) + 1024);
    OK(disk_status(disk, length, SIZE - length, &kind, &length, &err));
    assert_int_equal(kind, DISK_DATA);
    assert_int_equal(length, 512);
    close_disk(disk);
}

/* --- every call fails once --- */

/* What is acknowledged is there, whatever failed in between. acknowledged: by block, the value of its first
 * sector. */
static void run_with_fault(const struct lab *lab, uint64_t nth, bool *ret_struck)
{
    uint8_t acknowledged[4] = {1, 1, 1, 1}, maybe[4] = {1, 1, 1, 1}, bytes[512];
    struct disk_options options = {.io = lab->io, .writable = true};
    AUTO_DISK struct disk *disk = NULL;

    io_failing_set(lab->failing, (struct io_fault){.calls = IO_CALLS_ALL, .nth = nth, .errnum = EIO});
    if (disk_open("/d/a.avhd", &options, &disk, &err)) {
        for (uint8_t i = 0; i < 8; i++) {
            maybe[i % 4] = (uint8_t)(10 + i);
            memset(bytes, 10 + i, sizeof bytes);
            if (disk_write(disk, (uint64_t)(i % 4) << 21, bytes, 512, &err))
                acknowledged[i % 4] = (uint8_t)(10 + i);
            if (i % 3 == 2 && !disk_flush(disk, &err))
                assert_int_equal(err.code, ERR_IO);
        }
    }
    *ret_struck = io_failing_struck(lab->failing);
    io_failing_set(lab->failing, (struct io_fault){0});
    for (unsigned i = 0; disk && i < 4; i++) {
        OK(disk_read(disk, (uint64_t)i << 21, bytes, 512, &err));
        assert_true(bytes[0] == acknowledged[i] || bytes[0] == maybe[i]);
        OK(disk_read(disk, ((uint64_t)i << 21) + 512, bytes, 512, &err));
        assert_int_equal(bytes[0], 1);
    }
}

static void any_single_fault_is_told_and_loses_nothing(void **state)
{
    const struct lab *lab = *state;

    make_pair(lab, VHD_DYNAMIC);
    for (uint64_t nth = 1;; nth++) {
        bool struck;
        OK(io_unlink(lab->io, "/d/a.avhd", &err));
        create(lab, "/d/a.avhd", VHD_DIFFERENCING, 0, "/d/base.vhd");
        run_with_fault(lab, nth, &struck);
        if (!struck) {
            assert_true(nth > 30);
            return;
        }
    }
}

#define LAB_TEST(name) cmocka_unit_test_setup_teardown(name, lab_start, lab_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(a_child_has_single_sectors_of_its_own),
        LAB_TEST(zeros_in_a_child_hide_the_parent),
        LAB_TEST(zeros_over_nothing_take_no_block),
        LAB_TEST(a_zeroed_block_takes_no_space_for_data),
        LAB_TEST(past_a_parents_end_are_zeros),
        LAB_TEST(ranges_are_whole_sectors_inside_the_disk),
        LAB_TEST(a_read_only_disk_is_not_changed),
        LAB_TEST(a_circle_is_corrupt),
        LAB_TEST(a_chain_deeper_than_the_limit_is_corrupt),
        LAB_TEST(three_hundred_layers_are_one_disk),
        LAB_TEST(a_damaged_block_table_is_told_at_open),
        LAB_TEST(a_block_whose_bitmap_cannot_be_read_is_an_error_not_the_parent),
        LAB_TEST(a_clean_disk_flushes_for_nothing_and_an_overwrite_for_one_sync),
        LAB_TEST(bits_set_during_a_flush_wait_for_the_next),
        LAB_TEST(a_failed_sync_is_for_good),
        LAB_TEST(a_sync_that_finds_no_space_is_no_want_of_space),
        LAB_TEST(a_failed_metadata_write_is_done_again),
        LAB_TEST(no_space_fails_the_write_and_harms_nothing),
        LAB_TEST(what_a_crash_left_behind_the_end_is_not_seen_in_new_blocks),
        LAB_TEST(first_block_lies_where_windows_10_puts_it),
        LAB_TEST(an_image_of_the_2006_layout_is_read_and_written),
        LAB_TEST(only_an_empty_child_of_the_top_can_be_pushed),
        LAB_TEST(a_sealed_layer_gives_back_what_it_did_not_fill),
        LAB_TEST(a_seal_needs_nothing_that_can_fail_and_a_flush_covers_the_old_top),
        LAB_TEST(the_map_stays_small_and_right_when_every_block_is_mixed),
        LAB_TEST(status_tells_holes_from_data),
        LAB_TEST(any_single_fault_is_told_and_loses_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
