/* Image files: what vhd_create() makes, and how damaged ones are met. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bytes.h"
#include "io_failing.h"
#include "io_memory.h"
#include "vhd.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define SIZE (20U << 20)

static struct err err;

struct lab {
    struct io_memory *memory;
    const struct io *io;
};

static int lab_start(void **state)
{
    static struct lab lab;

    lab.memory = io_memory_new(IO_MEMORY_PLAIN);
    lab.io = io_memory_io(lab.memory);
    *state = &lab;
    return io_make_dir(lab.io, "/d", &err) && io_make_dir(lab.io, "/d/sub", &err) ? 0 : -1;
}

static int lab_end(void **state)
{
    io_memory_free(((struct lab *)*state)->memory);
    return 0;
}

static void create(const struct lab *lab, const char *path, enum vhd_type type, uint64_t size,
                   const char *parent)
{
    struct vhd_create_options options = {.type = type, .size_bytes = size, .parent_path = parent};

    if (!vhd_create(lab->io, path, &options, &err))
        fail_msg("%s", err.text);
}

static void get(const struct lab *lab, const char *path, uint64_t offset, void *bytes, size_t length)
{
    AUTO_IO struct io_file *file = NULL;

    assert_true(io_open(lab->io, path, IO_READ_ONLY, &file, &err));
    assert_true(io_read(file, offset, bytes, length, &err));
}

static void put(const struct lab *lab, const char *path, uint64_t offset, const void *bytes, size_t length)
{
    AUTO_IO struct io_file *file = NULL;

    assert_true(io_open(lab->io, path, IO_WRITE, &file, &err));
    assert_true(io_write(file, offset, bytes, length, &err));
}

static uint64_t size_of(const struct lab *lab, const char *path)
{
    struct io_stat stat;

    assert_true(io_stat_path(lab->io, path, &stat, &err));
    return stat.size_bytes;
}

static void resize(const struct lab *lab, const char *path, uint64_t size)
{
    AUTO_IO struct io_file *file = NULL;

    assert_true(io_open(lab->io, path, IO_WRITE, &file, &err));
    assert_true(io_truncate(file, size, &err));
}

/* Opens, and says how it went; everything that a disk would read is read. */
static enum err_code code_of(const struct lab *lab, const char *path)
{
    AUTO_VHD struct vhd *vhd = NULL;
    uint64_t end;

    err = ERR_INIT;
    if (!vhd_open(lab->io, path, IO_READ_ONLY, &vhd, &err))
        return err.code;
    return vhd_end_bytes(vhd, &end, &err) ? ERR_NONE : err.code;
}

static void fixed_is_data_and_footer(void **state)
{
    const struct lab *lab = *state;
    AUTO_VHD struct vhd *vhd = NULL;

    create(lab, "/d/f.vhd", VHD_FIXED, SIZE, NULL);
    assert_int_equal(size_of(lab, "/d/f.vhd"), SIZE + 512);
    assert_true(vhd_open(lab->io, "/d/f.vhd", IO_READ_ONLY, &vhd, &err));
    assert_int_equal(vhd->type, VHD_FIXED);
    assert_int_equal(vhd->size_bytes, SIZE);
    assert_true(vhd->footer.data_offset == UINT64_MAX);
    assert_memory_equal(vhd->footer.creator_app, "win ", 4);
    assert_int_equal(vhd->footer.creator_version, 0x000A0000);
}

static void dynamic_has_two_equal_footers(void **state)
{
    const struct lab *lab = *state;
    uint8_t first[512], last[512];

    create(lab, "/d/f.vhd", VHD_DYNAMIC, SIZE, NULL);
    uint64_t size = size_of(lab, "/d/f.vhd");
    assert_int_equal(size, 0x600 + 512 + 512);
    get(lab, "/d/f.vhd", 0, first, 512);
    get(lab, "/d/f.vhd", size - 512, last, 512);
    assert_memory_equal(first, last, 512);
    get(lab, "/d/f.vhd", 0x600, first, 512);
    memset(last, 0xFF, 512);
    assert_memory_equal(first, last, 512);
}

static void differencing_lies_as_windows_10_lays_it(void **state)
{
    const struct lab *lab = *state;
    AUTO_VHD struct vhd *vhd = NULL;
    uint8_t bytes[64];

    create(lab, "/d/base.vhd", VHD_DYNAMIC, SIZE, NULL);
    create(lab, "/d/sub/c.avhd", VHD_DIFFERENCING, 0, "/d/base.vhd");
    assert_true(vhd_open(lab->io, "/d/sub/c.avhd", IO_READ_ONLY, &vhd, &err));
    assert_int_equal(vhd->size_bytes, SIZE);
    assert_int_equal(vhd->header.table_offset, 0x2000);
    assert_int_equal(vhd->header.locators[0].platform, VHD_PLATFORM_W2KU);
    assert_int_equal(vhd->header.locators[0].offset, 0x1000);
    assert_int_equal(vhd->header.locators[0].space_bytes, 4096);
    assert_int_equal(vhd->header.locators[1].platform, VHD_PLATFORM_W2RU);
    assert_int_equal(vhd->header.locators[1].offset, 0x3000);
    assert_int_equal(vhd->header.locators[1].space_bytes, 65536);
    assert_int_equal(vhd->file_bytes, 0x13000 + 512);
    get(lab, "/d/sub/c.avhd", 0x3000, bytes, 24);
    assert_memory_equal(bytes, ".\0.\0\\\0b\0a\0s\0e\0.\0v\0h\0d\0", 22);
    get(lab, "/d/sub/c.avhd", 0x1000, bytes, 22);
    assert_memory_equal(bytes, "\\\0d\0\\\0b\0a\0s\0e\0.\0v\0h\0d\0", 22);
    assert_memory_equal(vhd->header.parent_name, "\0b\0a\0s\0e\0.\0v\0h\0d\0\0", 18);
}

static void unique_ids_are_unique(void **state)
{
    const struct lab *lab = *state;
    uint8_t a[16], b[16];

    create(lab, "/d/a.vhd", VHD_DYNAMIC, SIZE, NULL);
    create(lab, "/d/b.vhd", VHD_DYNAMIC, SIZE, NULL);
    get(lab, "/d/a.vhd", 68, a, 16);
    get(lab, "/d/b.vhd", 68, b, 16);
    assert_memory_not_equal(a, b, 16);
}

static enum err_code create_code(const struct lab *lab, struct vhd_create_options options)
{
    err = ERR_INIT;
    bool made = vhd_create(lab->io, "/d/n.vhd", &options, &err);
    assert_int_equal(io_exists(lab->io, "/d/n.vhd"), made);
    return err.code;
}

static void bad_options_are_invalid_and_make_nothing(void **state)
{
    const struct lab *lab = *state;
    static const struct vhd_create_options BAD[] = {
        {.type = VHD_DYNAMIC, .size_bytes = 0},
        {.type = VHD_DYNAMIC, .size_bytes = 1000},
        {.type = VHD_DYNAMIC, .size_bytes = VHD_MAX_SIZE_BYTES + 512},
        {.type = VHD_DYNAMIC, .size_bytes = SIZE, .block_bytes = 3 << 20},
        {.type = VHD_DYNAMIC, .size_bytes = SIZE, .block_bytes = 256},
        {.type = VHD_DYNAMIC, .size_bytes = SIZE, .block_bytes = (2U << 20) + 512},
        {.type = VHD_DYNAMIC, .size_bytes = SIZE, .parent_path = "/d/x.vhd"},
        {.type = VHD_DIFFERENCING},
        {.type = (enum vhd_type)5, .size_bytes = SIZE},
    };

    for (size_t i = 0; i < ARRAY_SIZE(BAD); i++)
        assert_int_equal(create_code(lab, BAD[i]), ERR_INVALID);
    assert_int_equal(
        create_code(lab, (struct vhd_create_options){.type = VHD_DIFFERENCING, .parent_path = "/d/no.vhd"}),
        ERR_NOT_FOUND);
    create(lab, "/d/e.vhd", VHD_DYNAMIC, SIZE, NULL);
    assert_false(vhd_create(lab->io, "/d/e.vhd",
                            &(struct vhd_create_options){.type = VHD_DYNAMIC, .size_bytes = SIZE}, &err));
    assert_int_equal(err.code, ERR_EXISTS);
}

/* Where the last block would lie if all were written, by the layout that docs/vhd.md tells. */
static uint64_t last_sector(uint64_t size, uint32_t block_bytes)
{
    uint64_t blocks = div_round_up(size, block_bytes);
    uint64_t bitmap = round_up(div_round_up(block_bytes / 512, 8), 512);
    uint64_t end = 0x600 + round_up(blocks * 4, 512) + 2 * 65536;

    return (round_up(end, 4096) + blocks * (round_up(512 + bitmap, 4096) + round_up(block_bytes, 4096))) /
           512;
}

static void every_block_of_a_disk_that_is_made_can_be_named(void **state)
{
    (void)state;
    for (uint32_t shift = 9; shift < 32; shift++) {
        uint64_t largest = vhd_largest_bytes(1U << shift);
        assert_true(last_sector(largest, 1U << shift) < UINT32_MAX);
        assert_true(div_round_up(largest, 1U << shift) <= VHD_MAX_TABLE_ENTRIES);
        /* Nothing is refused that would do. */
        assert_true(largest == VHD_MAX_SIZE_BYTES ||
                    last_sector(largest + (16 << 20), 1U << shift) >= UINT32_MAX ||
                    largest >> shift == VHD_MAX_TABLE_ENTRIES);
    }
    assert_int_equal(vhd_largest_bytes(2 << 20), VHD_MAX_SIZE_BYTES);
    assert_int_equal(vhd_largest_bytes(1 << 20), VHD_MAX_SIZE_BYTES);
}

static void a_disk_too_large_for_its_blocks_is_refused_clearly(void **state)
{
    const struct lab *lab = *state;
    struct vhd_create_options options = {
        .type = VHD_DYNAMIC, .size_bytes = VHD_MAX_SIZE_BYTES, .block_bytes = 4096};
    char largest[32];

    assert_int_equal(create_code(lab, options), ERR_INVALID);
    options.block_bytes = 512 << 10;
    assert_int_equal(create_code(lab, options), ERR_INVALID);
    snprintf(largest, sizeof largest, "%llu at most", (unsigned long long)vhd_largest_bytes(512 << 10));
    assert_non_null(strstr(err.text, largest));
    options.size_bytes = vhd_largest_bytes(512 << 10);
    assert_int_equal(create_code(lab, options), ERR_NONE);
    assert_int_equal(code_of(lab, "/d/n.vhd"), ERR_NONE);
    assert_false(vhd_resize(lab->io, "/d/n.vhd", VHD_MAX_SIZE_BYTES, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_non_null(strstr(err.text, largest));
    /* A child takes its size from the parent, and is looked at as well. */
    assert_false(vhd_create(lab->io, "/d/c.avhd",
                            &(struct vhd_create_options){
                                .type = VHD_DIFFERENCING, .parent_path = "/d/n.vhd", .block_bytes = 4096},
                            &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_false(io_exists(lab->io, "/d/c.avhd"));
}

static void a_failure_anywhere_leaves_no_file(void **state)
{
    const struct lab *lab = *state;
    AUTO_IO_FAILING struct io_failing *failing = io_failing_new(lab->io);
    struct vhd_create_options options = {.type = VHD_DIFFERENCING, .parent_path = "/d/base.vhd"};
    unsigned failures = 0;

    create(lab, "/d/base.vhd", VHD_DYNAMIC, SIZE, NULL);
    for (uint64_t nth = 1;; nth++) {
        io_failing_set(failing, (struct io_fault){
                                    .calls = IO_CALLS_ALL & ~IO_CALL_UNLINK, .nth = nth, .errnum = ENOSPC});
        bool made = vhd_create(io_failing_io(failing), "/d/n.avhd", &options, &err);
        if (!io_failing_struck(failing)) {
            if (!made)
                fail_msg("%s", err.text);
            break;
        }
        assert_false(made);
        assert_int_equal(err.code, ERR_NO_SPACE);
        assert_false(io_exists(lab->io, "/d/n.avhd"));
        failures++;
    }
    assert_true(failures >= 8);
}

static void a_damaged_footer_is_served_by_its_copy(void **state)
{
    const struct lab *lab = *state;
    AUTO_VHD struct vhd *vhd = NULL;

    create(lab, "/d/f.vhd", VHD_DYNAMIC, SIZE, NULL);
    uint64_t size = size_of(lab, "/d/f.vhd");
    put(lab, "/d/f.vhd", size - 500, "x", 1);
    assert_true(vhd_open(lab->io, "/d/f.vhd", IO_READ_ONLY, &vhd, &err));
    assert_true(vhd->needs_repair);
    resize(lab, "/d/f.vhd", size - 512);
    assert_int_equal(code_of(lab, "/d/f.vhd"), ERR_NONE);
    put(lab, "/d/f.vhd", 10, "x", 1);
    assert_int_equal(code_of(lab, "/d/f.vhd"), ERR_CORRUPT);
    assert_non_null(strstr(err.text, "/d/f.vhd"));
}

static void a_damaged_copy_alone_does_no_harm(void **state)
{
    const struct lab *lab = *state;

    create(lab, "/d/f.vhd", VHD_DYNAMIC, SIZE, NULL);
    put(lab, "/d/f.vhd", 10, "x", 1);
    assert_int_equal(code_of(lab, "/d/f.vhd"), ERR_NONE);
}

static void a_fixed_image_has_no_copy_to_fall_back_on(void **state)
{
    const struct lab *lab = *state;
    uint8_t footer[512];

    create(lab, "/d/f.vhd", VHD_FIXED, SIZE, NULL);
    get(lab, "/d/f.vhd", SIZE, footer, 512);
    put(lab, "/d/f.vhd", 0, footer, 512); /* as if by the guest */
    assert_int_equal(code_of(lab, "/d/f.vhd"), ERR_NONE);
    put(lab, "/d/f.vhd", SIZE + 100, "x", 1);
    assert_int_equal(code_of(lab, "/d/f.vhd"), ERR_CORRUPT);
    resize(lab, "/d/f.vhd", SIZE - 512);
    assert_int_equal(code_of(lab, "/d/f.vhd"), ERR_CORRUPT);
}

/* A guest can write into the last sectors of its last block; a crash can leave those at the end of the file.
 */
static void a_footer_of_another_image_at_the_end_does_not_count(void **state)
{
    const struct lab *lab = *state;
    AUTO_VHD struct vhd *vhd = NULL;
    uint8_t footer[512], copy[512];

    create(lab, "/d/f.vhd", VHD_DYNAMIC, SIZE, NULL);
    create(lab, "/d/other.vhd", VHD_DYNAMIC, 2 * SIZE, NULL);
    get(lab, "/d/other.vhd", 0, footer, 512);
    get(lab, "/d/f.vhd", 0, copy, 512);
    put(lab, "/d/f.vhd", size_of(lab, "/d/f.vhd") - 512, footer, 512);
    assert_true(vhd_open(lab->io, "/d/f.vhd", IO_READ_ONLY, &vhd, &err));
    assert_true(vhd->needs_repair);
    assert_int_equal(vhd->size_bytes, SIZE);
    assert_memory_equal(vhd->footer_bytes, copy, 512);
}

static void a_footer_of_511_bytes_is_found(void **state)
{
    const struct lab *lab = *state;
    AUTO_VHD struct vhd *vhd = NULL;

    create(lab, "/d/f.vhd", VHD_FIXED, SIZE, NULL);
    resize(lab, "/d/f.vhd", SIZE + 511);
    assert_true(vhd_open(lab->io, "/d/f.vhd", IO_READ_ONLY, &vhd, &err));
    assert_int_equal(vhd->trailer_bytes, 511);
    assert_int_equal(vhd->size_bytes, SIZE);
}

static void what_is_no_vhd_is_corrupt(void **state)
{
    const struct lab *lab = *state;
    AUTO_IO struct io_file *file = NULL;
    static const uint64_t SIZES[] = {0, 1, 511, 512, 1536, 4096};

    assert_true(io_open(lab->io, "/d/x", IO_CREATE, &file, &err));
    for (size_t i = 0; i < ARRAY_SIZE(SIZES); i++) {
        resize(lab, "/d/x", SIZES[i]);
        assert_int_equal(code_of(lab, "/d/x"), ERR_CORRUPT);
    }
    assert_int_equal(code_of(lab, "/d/none"), ERR_NOT_FOUND);
    assert_int_equal(code_of(lab, "/d"), ERR_IO);
}

/* Changes the header and gives it its checksum. */
static void edit_header(const struct lab *lab, const char *path, void (*edit)(struct vhd_header *header))
{
    uint8_t bytes[1024];
    struct vhd_header header;

    get(lab, path, 512, bytes, sizeof bytes);
    assert_true(vhd_header_decode(bytes, &header, &err));
    edit(&header);
    vhd_header_encode(&header, bytes);
    put(lab, path, 512, bytes, sizeof bytes);
}

static void few_entries(struct vhd_header *header)
{
    header->table_entries = 9;
}
static void many_entries(struct vhd_header *header)
{
    header->table_entries = 100000;
}
static void all_entries(struct vhd_header *header)
{
    header->table_entries = UINT32_MAX;
}
static void table_past_end(struct vhd_header *header)
{
    header->table_offset = 1 << 20;
}
static void table_overflows(struct vhd_header *header)
{
    header->table_offset = UINT64_MAX - 511;
}
static void table_at_start(struct vhd_header *header)
{
    header->table_offset = 0;
}
static void table_off_sector(struct vhd_header *header)
{
    header->table_offset += 4;
}

static void a_header_that_cannot_be_is_refused(void **state)
{
    const struct lab *lab = *state;
    static void (*const EDITS[])(struct vhd_header *) = {few_entries,     many_entries,    all_entries,
                                                         table_past_end,  table_overflows, table_at_start,
                                                         table_off_sector};

    for (size_t i = 0; i < ARRAY_SIZE(EDITS); i++) {
        char path[32];
        snprintf(path, sizeof path, "/d/h%zu.vhd", i);
        create(lab, path, VHD_DYNAMIC, SIZE, NULL);
        edit_header(lab, path, EDITS[i]);
        assert_int_equal(code_of(lab, path), EDITS[i] == all_entries ? ERR_UNSUPPORTED : ERR_CORRUPT);
    }
    create(lab, "/d/h.vhd", VHD_DYNAMIC, SIZE, NULL);
    put(lab, "/d/h.vhd", 512 + 700, "x", 1);
    assert_int_equal(code_of(lab, "/d/h.vhd"), ERR_CORRUPT);
}

static enum err_code code_of_entry(const struct lab *lab, uint32_t entry)
{
    uint8_t bytes[4];

    put_be32(bytes, entry);
    put(lab, "/d/e.vhd", 0x600 + 4, bytes, 4);
    return code_of(lab, "/d/e.vhd");
}

static void bat_entry_out_of_place_is_corrupt(void **state)
{
    const struct lab *lab = *state;
    uint8_t footer[512];

    create(lab, "/d/e.vhd", VHD_DYNAMIC, SIZE, NULL);
    /* Room for a block at sector 8, and a footer behind it. */
    get(lab, "/d/e.vhd", 0, footer, 512);
    put(lab, "/d/e.vhd", 8 * 512 + 512 + (2 << 20), footer, 512);
    assert_int_equal(code_of_entry(lab, 8), ERR_NONE);
    assert_int_equal(code_of_entry(lab, 9), ERR_CORRUPT); /* would end in the footer */
    assert_non_null(strstr(err.text, "BAT entry 1"));
    assert_int_equal(code_of_entry(lab, 4000000000U), ERR_CORRUPT);
    assert_int_equal(code_of_entry(lab, UINT32_MAX - 1), ERR_CORRUPT);
    assert_int_equal(code_of_entry(lab, 0), ERR_CORRUPT); /* the copy of the footer */
    assert_int_equal(code_of_entry(lab, 1), ERR_CORRUPT); /* the header */
    assert_int_equal(code_of_entry(lab, 3), ERR_CORRUPT); /* the BAT */
    assert_int_equal(code_of_entry(lab, 4), ERR_NONE);
    assert_int_equal(code_of_entry(lab, UINT32_MAX), ERR_NONE);
}

static void header_behind_the_data_is_found(void **state)
{
    const struct lab *lab = *state;
    AUTO_VHD struct vhd *vhd = NULL;
    uint8_t header[1024], bytes[512];
    struct vhd_footer footer;

    create(lab, "/d/f.vhd", VHD_DYNAMIC, SIZE, NULL);
    get(lab, "/d/f.vhd", 512, header, sizeof header);
    get(lab, "/d/f.vhd", 0, bytes, sizeof bytes);
    assert_true(vhd_footer_decode(bytes, 512, &footer, &err));
    footer.data_offset = 1 << 20;
    vhd_footer_encode(&footer, bytes);
    put(lab, "/d/f.vhd", 0, bytes, 512);
    put(lab, "/d/f.vhd", 512, bytes, 1024 - 512);
    put(lab, "/d/f.vhd", 1 << 20, header, sizeof header);
    put(lab, "/d/f.vhd", (1 << 20) + 1024, bytes, 512);
    assert_true(vhd_open(lab->io, "/d/f.vhd", IO_READ_ONLY, &vhd, &err));
    uint64_t end;
    assert_true(vhd_end_bytes(vhd, &end, &err));
    assert_int_equal(end, (1 << 20) + 1024);
}

static enum err_code parent_code(const struct lab *lab, const char *child_path)
{
    AUTO_VHD struct vhd *child = NULL;
    AUTO_VHD struct vhd *parent = NULL;

    err = ERR_INIT;
    assert_true(vhd_open(lab->io, child_path, IO_READ_ONLY, &child, &err));
    return vhd_open_parent(child, &parent, &err) ? ERR_NONE : err.code;
}

static void a_missing_parent_names_both_files(void **state)
{
    const struct lab *lab = *state;

    create(lab, "/d/base.vhd", VHD_DYNAMIC, SIZE, NULL);
    create(lab, "/d/sub/c.avhd", VHD_DIFFERENCING, 0, "/d/base.vhd");
    assert_int_equal(parent_code(lab, "/d/sub/c.avhd"), ERR_NONE);
    assert_true(io_unlink(lab->io, "/d/base.vhd", &err));
    assert_int_equal(parent_code(lab, "/d/sub/c.avhd"), ERR_NOT_FOUND);
    assert_non_null(strstr(err.text, "/d/base.vhd"));
    assert_non_null(strstr(err.text, "/d/sub/c.avhd"));
}

static void another_image_in_the_parents_place_is_a_mismatch(void **state)
{
    const struct lab *lab = *state;
    uint8_t want[16], have[16];
    char text[33];

    create(lab, "/d/base.vhd", VHD_DYNAMIC, SIZE, NULL);
    create(lab, "/d/sub/c.avhd", VHD_DIFFERENCING, 0, "/d/base.vhd");
    get(lab, "/d/base.vhd", 68, want, 16);
    assert_true(io_unlink(lab->io, "/d/base.vhd", &err));
    create(lab, "/d/base.vhd", VHD_DYNAMIC, SIZE, NULL);
    get(lab, "/d/base.vhd", 68, have, 16);
    assert_int_equal(parent_code(lab, "/d/sub/c.avhd"), ERR_MISMATCH);
    assert_non_null(strstr(err.text, "/d/base.vhd"));
    assert_non_null(strstr(err.text, "/d/sub/c.avhd"));
    assert_non_null(strstr(err.text, vhd_id_format(want, text)));
    assert_non_null(strstr(err.text, vhd_id_format(have, text)));
}

static void the_parent_is_found_relative_absolute_or_beside(void **state)
{
    const struct lab *lab = *state;

    create(lab, "/d/base.vhd", VHD_DYNAMIC, SIZE, NULL);
    create(lab, "/d/sub/c.avhd", VHD_DIFFERENCING, 0, "/d/base.vhd");
    /* The folder moved as a whole. */
    assert_true(io_rename(lab->io, "/d", "/moved", &err));
    assert_int_equal(parent_code(lab, "/moved/sub/c.avhd"), ERR_NONE);
    /* The child moved alone. */
    assert_true(io_rename(lab->io, "/moved", "/d", &err) && io_make_dir(lab->io, "/far", &err));
    assert_true(io_make_dir(lab->io, "/far/off", &err));
    assert_true(io_rename(lab->io, "/d/sub/c.avhd", "/far/off/c.avhd", &err));
    assert_int_equal(parent_code(lab, "/far/off/c.avhd"), ERR_NONE);
    /* Both are in one folder now. */
    assert_true(io_rename(lab->io, "/d/base.vhd", "/far/off/base.vhd", &err));
    assert_int_equal(parent_code(lab, "/far/off/c.avhd"), ERR_NONE);
    /* What lies where the first locator points is another image: the next one is tried. */
    create(lab, "/far/base.vhd", VHD_DYNAMIC, SIZE, NULL);
    assert_int_equal(parent_code(lab, "/far/off/c.avhd"), ERR_NONE);
}

static void long_and_odd_names_work(void **state)
{
    const struct lab *lab = *state;
    char parent[300] = "/d/";

    memset(parent + 3, 'n', 250);
    create(lab, parent, VHD_DYNAMIC, SIZE, NULL);
    create(lab, "/d/sub/\xC3\xA4 \xF0\x9F\x92\xBE.avhd", VHD_DIFFERENCING, 0, parent);
    create(lab, "/d/top.avhd", VHD_DIFFERENCING, 0, "/d/sub/\xC3\xA4 \xF0\x9F\x92\xBE.avhd");
    assert_int_equal(parent_code(lab, "/d/sub/\xC3\xA4 \xF0\x9F\x92\xBE.avhd"), ERR_NONE);
    assert_int_equal(parent_code(lab, "/d/top.avhd"), ERR_NONE);
}

#define LAB_TEST(name) cmocka_unit_test_setup_teardown(name, lab_start, lab_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(fixed_is_data_and_footer),
        LAB_TEST(dynamic_has_two_equal_footers),
        LAB_TEST(differencing_lies_as_windows_10_lays_it),
        LAB_TEST(unique_ids_are_unique),
        LAB_TEST(bad_options_are_invalid_and_make_nothing),
        LAB_TEST(every_block_of_a_disk_that_is_made_can_be_named),
        LAB_TEST(a_disk_too_large_for_its_blocks_is_refused_clearly),
        LAB_TEST(a_failure_anywhere_leaves_no_file),
        LAB_TEST(a_damaged_footer_is_served_by_its_copy),
        LAB_TEST(a_damaged_copy_alone_does_no_harm),
        LAB_TEST(a_fixed_image_has_no_copy_to_fall_back_on),
        LAB_TEST(a_footer_of_another_image_at_the_end_does_not_count),
        LAB_TEST(a_footer_of_511_bytes_is_found),
        LAB_TEST(what_is_no_vhd_is_corrupt),
        LAB_TEST(a_header_that_cannot_be_is_refused),
        LAB_TEST(bat_entry_out_of_place_is_corrupt),
        LAB_TEST(header_behind_the_data_is_found),
        LAB_TEST(a_missing_parent_names_both_files),
        LAB_TEST(another_image_in_the_parents_place_is_a_mismatch),
        LAB_TEST(the_parent_is_found_relative_absolute_or_beside),
        LAB_TEST(long_and_odd_names_work),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
