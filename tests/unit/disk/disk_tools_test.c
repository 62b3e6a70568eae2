/* The tools that change images: repair, resize, merge. Each call that fails leaves what was there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bytes.h"
#include "disk_tools.h"
#include "io_failing.h"
#include "io_memory.h"
#include "ok.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define MIB (1ULL << 20)

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

#define REFUSED(code_, call)                                                                                 \
    do {                                                                                                     \
        err = ERR_INIT;                                                                                      \
        assert_false(call);                                                                                  \
        if (err.code != (code_))                                                                             \
            fail_msg("%s: %s", #call, err.text);                                                             \
    } while (0)

static void create(const struct lab *lab, const char *path, enum vhd_type type, uint64_t size,
                   const char *parent)
{
    struct vhd_create_options options = {.type = type, .size_bytes = size, .parent_path = parent};

    OK(vhd_create(lab->io, path, &options, &err));
}

static void fill(const struct lab *lab, const char *path, uint64_t offset, size_t length, uint8_t value)
{
    struct disk_options options = {.io = lab->io, .writable = true};
    AUTO_FREE uint8_t *bytes = malloc(length);
    struct disk *disk = NULL;

    assert_non_null(bytes);
    memset(bytes, value, length);
    OK(disk_open(path, &options, &disk, &err));
    OK(value == 0 ? disk_zero(disk, offset, length, &err) : disk_write(disk, offset, bytes, length, &err));
    OK(disk_close(disk, &err));
}

static void assert_all(const struct lab *lab, const char *path, uint64_t offset, size_t length, uint8_t value)
{
    struct disk_options options = {.io = lab->io};
    AUTO_DISK struct disk *disk = NULL;
    AUTO_FREE uint8_t *bytes = malloc(length);

    assert_non_null(bytes);
    OK(disk_open(path, &options, &disk, &err) && disk_read(disk, offset, bytes, length, &err));
    for (size_t i = 0; i < length; i++)
        if (bytes[i] != value)
            fail_msg("%s: byte %llu is %u, not %u", path, (unsigned long long)offset + i, bytes[i], value);
}

static uint64_t disk_bytes(const struct lab *lab, const char *path)
{
    struct disk_options options = {.io = lab->io};
    AUTO_DISK struct disk *disk = NULL;

    OK(disk_open(path, &options, &disk, &err));
    return disk_size_bytes(disk);
}

static uint64_t file_bytes(const struct lab *lab, const char *path)
{
    struct io_stat stat;

    OK(io_stat_path(lab->io, path, &stat, &err));
    return stat.size_bytes;
}

static void put(const struct lab *lab, const char *path, uint64_t offset, const void *bytes, size_t length)
{
    AUTO_IO struct io_file *file = NULL;

    OK(io_open(lab->io, path, IO_WRITE, &file, &err) && io_write(file, offset, bytes, length, &err));
}

static void cut_to(const struct lab *lab, const char *path, uint64_t size)
{
    AUTO_IO struct io_file *file = NULL;

    OK(io_open(lab->io, path, IO_WRITE, &file, &err) && io_truncate(file, size, &err));
}

struct told {
    unsigned repairs, faults, harm;
};

static void count_repair(void *context, const char *text)
{
    (void)text;
    ((struct told *)context)->repairs++;
}

static void count_fault(void *context, const struct disk_fault *fault)
{
    struct told *told = context;

    told->faults++;
    told->harm += !fault->harmless;
}

static struct told repair(const struct lab *lab, const char *path)
{
    struct told told = {0};

    OK(disk_repair(lab->io, path, count_repair, count_fault, &told, NULL, &err));
    return told;
}

static void assert_clean(const struct lab *lab, const char *path)
{
    struct told told = {0};

    OK(disk_check(lab->io, path, count_fault, &told, NULL, &err));
    assert_int_equal(told.faults, 0);
}

/* --- repair --- */

static void make_dynamic(const struct lab *lab)
{
    create(lab, "/d/a.vhd", VHD_DYNAMIC, 8 * MIB, NULL);
    fill(lab, "/d/a.vhd", 0, 4096, 1);
    fill(lab, "/d/a.vhd", 5 * MIB, 4096, 2);
}

static void assert_dynamic(const struct lab *lab)
{
    assert_all(lab, "/d/a.vhd", 0, 4096, 1);
    assert_all(lab, "/d/a.vhd", 5 * MIB, 4096, 2);
    assert_clean(lab, "/d/a.vhd");
}

static void a_whole_image_is_not_touched_by_repair(void **state)
{
    const struct lab *lab = *state;

    make_dynamic(lab);
    io_failing_set(lab->failing, (struct io_fault){.calls = IO_CALLS_CHANGES});
    struct told told = repair(lab, "/d/a.vhd");
    assert_int_equal(told.repairs + told.faults, 0);
    assert_int_equal(io_failing_count(lab->failing), 0);
}

static void a_missing_or_damaged_end_footer_comes_back_from_the_copy(void **state)
{
    const struct lab *lab = *state;

    make_dynamic(lab);
    uint64_t size = file_bytes(lab, "/d/a.vhd");
    cut_to(lab, "/d/a.vhd", size - 512);
    assert_int_equal(repair(lab, "/d/a.vhd").repairs, 1);
    assert_int_equal(file_bytes(lab, "/d/a.vhd"), size);
    assert_dynamic(lab);
    put(lab, "/d/a.vhd", size - 500, "x", 1);
    assert_int_equal(repair(lab, "/d/a.vhd").repairs, 1);
    assert_dynamic(lab);
}

static void a_damaged_copy_comes_back_from_the_end_footer(void **state)
{
    const struct lab *lab = *state;

    make_dynamic(lab);
    put(lab, "/d/a.vhd", 0, "garbage", 7);
    assert_int_equal(repair(lab, "/d/a.vhd").repairs, 1);
    assert_dynamic(lab);
}

static void what_a_crash_left_behind_the_end_is_cut_off(void **state)
{
    const struct lab *lab = *state;

    make_dynamic(lab);
    uint64_t size = file_bytes(lab, "/d/a.vhd");
    cut_to(lab, "/d/a.vhd", size + 3 * MIB);
    put(lab, "/d/a.vhd", size + MIB, "garbage", 7);
    assert_int_equal(repair(lab, "/d/a.vhd").repairs, 2);
    assert_int_equal(file_bytes(lab, "/d/a.vhd"), size);
    assert_dynamic(lab);
}

static void what_check_finds_beyond_is_told_and_not_guessed_at(void **state)
{
    const struct lab *lab = *state;
    uint8_t entry[4];

    make_dynamic(lab);
    uint64_t size = file_bytes(lab, "/d/a.vhd");
    put_be32(entry, 0x7000000);
    put(lab, "/d/a.vhd", 0x600, entry, 4);
    cut_to(lab, "/d/a.vhd", size - 512);
    io_failing_set(lab->failing, (struct io_fault){.calls = IO_CALLS_CHANGES});
    struct told told = repair(lab, "/d/a.vhd");
    assert_int_equal(told.repairs, 0);
    assert_true(told.harm > 0);
    assert_int_equal(io_failing_count(lab->failing), 0);
}

static void a_fixed_image_without_its_footer_is_beyond_repair(void **state)
{
    const struct lab *lab = *state;
    struct told told = {0};

    create(lab, "/d/f.vhd", VHD_FIXED, MIB, NULL);
    cut_to(lab, "/d/f.vhd", MIB);
    REFUSED(ERR_CORRUPT, disk_repair(lab->io, "/d/f.vhd", count_repair, count_fault, &told, NULL, &err));
    assert_int_equal(file_bytes(lab, "/d/f.vhd"), MIB);
}

/* --- resize --- */

static void resize(const struct lab *lab, const char *path, uint64_t size)
{
    OK(disk_resize(lab->io, path, size, NULL, &err));
    assert_true(disk_bytes(lab, path) == size);
    assert_clean(lab, path);
}

static void each_type_grows_and_what_is_new_reads_as_zeros(void **state)
{
    const struct lab *lab = *state;

    create(lab, "/d/f.vhd", VHD_FIXED, 3 * MIB, NULL);
    create(lab, "/d/a.vhd", VHD_DYNAMIC, 3 * MIB + 512, NULL);
    create(lab, "/d/p.vhd", VHD_DYNAMIC, 2 * MIB, NULL);
    create(lab, "/d/c.avhd", VHD_DIFFERENCING, 3 * MIB, "/d/p.vhd");
    static const char *const PATHS[] = {"/d/f.vhd", "/d/a.vhd", "/d/c.avhd"};
    for (size_t i = 0; i < ARRAY_SIZE(PATHS); i++) {
        fill(lab, PATHS[i], 2 * MIB, MIB, (uint8_t)(i + 1));
        resize(lab, PATHS[i], 4 * MIB);   /* in the last block */
        resize(lab, PATHS[i], 50 * MIB);  /* more blocks */
        resize(lab, PATHS[i], 900 * MIB); /* more than the sector of the table holds */
        assert_all(lab, PATHS[i], 2 * MIB, MIB, (uint8_t)(i + 1));
        assert_all(lab, PATHS[i], 3 * MIB + 512, 4 * MIB, 0);
        fill(lab, PATHS[i], 899 * MIB, MIB, 9);
        assert_all(lab, PATHS[i], 899 * MIB, MIB, 9);
        assert_all(lab, PATHS[i], 2 * MIB, MIB, (uint8_t)(i + 1));
        assert_clean(lab, PATHS[i]);
    }
}

static void shrinking_is_refused_and_changes_nothing(void **state)
{
    const struct lab *lab = *state;

    make_dynamic(lab);
    io_failing_set(lab->failing, (struct io_fault){.calls = IO_CALLS_CHANGES});
    REFUSED(ERR_INVALID, disk_resize(lab->io, "/d/a.vhd", 8 * MIB - 512, NULL, &err));
    assert_non_null(strstr(err.text, "cannot be made smaller"));
    REFUSED(ERR_INVALID, disk_resize(lab->io, "/d/a.vhd", 8 * MIB + 1, NULL, &err));
    REFUSED(ERR_INVALID, disk_resize(lab->io, "/d/a.vhd", 2041ULL << 30, NULL, &err));
    OK(disk_resize(lab->io, "/d/a.vhd", 8 * MIB, NULL, &err));
    assert_int_equal(io_failing_count(lab->failing), 0);
}

static void what_a_larger_parent_holds_never_comes_into_sight(void **state)
{
    const struct lab *lab = *state;

    make_dynamic(lab);
    create(lab, "/d/c.avhd", VHD_DIFFERENCING, 4 * MIB, "/d/a.vhd");
    REFUSED(ERR_UNSUPPORTED, disk_resize(lab->io, "/d/c.avhd", 8 * MIB, NULL, &err));
    create(lab, "/d/e.avhd", VHD_DIFFERENCING, 6 * MIB, "/d/c.avhd");
    resize(lab, "/d/e.avhd", 9 * MIB);
    assert_all(lab, "/d/e.avhd", 4 * MIB, 5 * MIB, 0);
}

/* A footer by hand: the size of a creator that shows its geometry, with data behind that. */
static void what_the_geometry_hid_is_zeros_when_it_comes_into_sight(void **state)
{
    const struct lab *lab = *state;
    AUTO_IO struct io_file *file = NULL;
    uint8_t bytes[512];
    struct vhd_footer footer;
    struct io_stat stat;

    make_dynamic(lab);
    fill(lab, "/d/a.vhd", 7 * MIB, MIB, 7);
    OK(io_open(lab->io, "/d/a.vhd", IO_WRITE, &file, &err) && io_stat_file(file, &stat, &err));
    OK(io_read(file, 0, bytes, sizeof bytes, &err) && vhd_footer_decode(bytes, 512, &footer, &err));
    memcpy(footer.creator_app, "vpc ", 4);
    footer.geometry = (struct vhd_geometry){.cylinders = 200, .heads = 4, .sectors_per_track = 17};
    vhd_footer_encode(&footer, bytes);
    OK(io_write(file, 0, bytes, 512, &err) && io_write(file, stat.size_bytes - 512, bytes, 512, &err));
    uint64_t seen = disk_bytes(lab, "/d/a.vhd");
    assert_true(seen == 200ULL * 4 * 17 * 512);
    resize(lab, "/d/a.vhd", 9 * MIB);
    assert_all(lab, "/d/a.vhd", seen, 9 * MIB - seen, 0);
    assert_all(lab, "/d/a.vhd", 5 * MIB, 4096, 2);
}

static void a_fixed_image_that_finds_no_space_keeps_its_size(void **state)
{
    const struct lab *lab = *state;

    create(lab, "/d/f.vhd", VHD_FIXED, 2 * MIB, NULL);
    fill(lab, "/d/f.vhd", 0, 2 * MIB, 5);
    io_memory_limit(lab->memory, 4 * MIB);
    REFUSED(ERR_NO_SPACE, disk_resize(lab->io, "/d/f.vhd", 20 * MIB, NULL, &err));
    assert_int_equal(file_bytes(lab, "/d/f.vhd"), 2 * MIB + 512);
    assert_all(lab, "/d/f.vhd", 0, 2 * MIB, 5);
    io_memory_limit(lab->memory, 0);
    resize(lab, "/d/f.vhd", 20 * MIB);
}

/* --- merge --- */

/* base (1) <- a (2 in some sectors, zeros in others) <- top (3) */
static void make_chain(const struct lab *lab)
{
    create(lab, "/d/base.vhd", VHD_DYNAMIC, 8 * MIB, NULL);
    fill(lab, "/d/base.vhd", 0, 6 * MIB, 1);
    create(lab, "/d/a.avhd", VHD_DIFFERENCING, 0, "/d/base.vhd");
    fill(lab, "/d/a.avhd", 512, 512, 2);
    create(lab, "/d/b.avhd", VHD_DIFFERENCING, 0, "/d/a.avhd");
    fill(lab, "/d/b.avhd", 4 * MIB - 1024, 2048, 3); /* across two blocks */
    fill(lab, "/d/b.avhd", 3 * MIB, 4096, 0);        /* zeros in a block that a has not got */
    create(lab, "/d/top.avhd", VHD_DIFFERENCING, 0, "/d/b.avhd");
    fill(lab, "/d/top.avhd", 1024, 512, 4);
}

static void assert_chain(const struct lab *lab, const char *path)
{
    assert_all(lab, path, 0, 512, 1);
    assert_all(lab, path, 512, 512, 2);
    assert_all(lab, path, 4 * MIB - 1024, 2048, 3);
    assert_all(lab, path, 4 * MIB + 1024, 4096, 1);
    assert_all(lab, path, 3 * MIB, 4096, 0);
    assert_all(lab, path, 3 * MIB + 4096, 4096, 1);
    assert_all(lab, path, 6 * MIB, 2 * MIB, 0);
    assert_clean(lab, path);
}

static bool merge(const struct lab *lab, const char *path, const struct disk_merge_options *options)
{
    struct disk_merge_result result = {0};
    bool ok = disk_merge(lab->io, path, options, NULL, &result, &err);

    free(result.parent_path);
    return ok;
}

static bool merge_into(const struct lab *lab, const char *path, bool into_base, const char *child)
{
    const struct disk_merge_options options = {
        .into_base = into_base, .children = &child, .child_count = child ? 1 : 0};

    return merge(lab, path, &options);
}

static void a_merge_keeps_what_is_seen_and_frees_the_image(void **state)
{
    const struct lab *lab = *state;

    make_chain(lab);
    OK(merge_into(lab, "/d/b.avhd", false, "/d/top.avhd"));
    assert_chain(lab, "/d/b.avhd");
    OK(io_unlink(lab->io, "/d/b.avhd", &err));
    assert_chain(lab, "/d/top.avhd");
    assert_chain(lab, "/d/a.avhd");
    assert_all(lab, "/d/top.avhd", 1024, 512, 4);
    assert_all(lab, "/d/a.avhd", 1024, 512, 1);
}

/* dosbox-x #4545: the zeros were dropped because the child had no block there. */
static void a_zero_write_to_a_block_that_the_child_lacks_is_not_dropped_in_a_merge(void **state)
{
    const struct lab *lab = *state;

    make_chain(lab);
    OK(merge_into(lab, "/d/b.avhd", false, "/d/top.avhd"));
    assert_all(lab, "/d/a.avhd", 3 * MIB, 4096, 0);
    assert_all(lab, "/d/base.vhd", 3 * MIB, 4096, 1);
}

static void a_base_is_merged_into_only_when_asked(void **state)
{
    const struct lab *lab = *state;

    make_chain(lab);
    REFUSED(ERR_STATE, merge_into(lab, "/d/a.avhd", false, "/d/b.avhd"));
    assert_all(lab, "/d/base.vhd", 0, 6 * MIB, 1);
    OK(merge_into(lab, "/d/a.avhd", true, "/d/b.avhd"));
    OK(io_unlink(lab->io, "/d/a.avhd", &err));
    assert_chain(lab, "/d/b.avhd");
    assert_all(lab, "/d/base.vhd", 512, 512, 2);
}

static void a_parent_with_another_name_is_not_merged_into(void **state)
{
    const struct lab *lab = *state;

    make_chain(lab);
    OK(io_link(lab->io, "/d/a.avhd", "/d/other.avhd", &err));
    io_failing_set(lab->failing, (struct io_fault){.calls = IO_CALLS_CHANGES});
    REFUSED(ERR_STATE, merge_into(lab, "/d/b.avhd", false, "/d/top.avhd"));
    assert_non_null(strstr(err.text, "another name"));
    assert_int_equal(io_failing_count(lab->failing), 0);
}

static void a_stranger_is_no_child_and_nothing_is_changed(void **state)
{
    const struct lab *lab = *state;

    make_chain(lab);
    create(lab, "/d/x.vhd", VHD_DYNAMIC, MIB, NULL);
    create(lab, "/d/y.avhd", VHD_DIFFERENCING, 0, "/d/x.vhd");
    io_failing_set(lab->failing, (struct io_fault){.calls = IO_CALLS_CHANGES});
    REFUSED(ERR_MISMATCH, merge_into(lab, "/d/b.avhd", false, "/d/x.vhd"));
    REFUSED(ERR_MISMATCH, merge_into(lab, "/d/b.avhd", false, "/d/y.avhd"));
    REFUSED(ERR_INVALID, merge_into(lab, "/d/b.avhd", false, "/d/b.avhd"));
    REFUSED(ERR_INVALID, merge_into(lab, "/d/base.vhd", false, NULL));
    assert_int_equal(io_failing_count(lab->failing), 0);
}

static void a_smaller_parent_grows_and_a_larger_one_is_refused(void **state)
{
    const struct lab *lab = *state;

    make_chain(lab);
    create(lab, "/d/big.avhd", VHD_DIFFERENCING, 20 * MIB, "/d/b.avhd");
    fill(lab, "/d/big.avhd", 19 * MIB, MIB, 6);
    OK(merge_into(lab, "/d/big.avhd", false, NULL));
    assert_all(lab, "/d/b.avhd", 19 * MIB, MIB, 6);
    assert_all(lab, "/d/b.avhd", 8 * MIB, 11 * MIB, 0);
    create(lab, "/d/small.avhd", VHD_DIFFERENCING, MIB, "/d/b.avhd");
    REFUSED(ERR_UNSUPPORTED, merge_into(lab, "/d/small.avhd", false, NULL));
}

/* Elsewhere a merge that found the host full left a parent without its footer. */
static void a_full_host_in_a_merge_harms_neither_parent_nor_child(void **state)
{
    const struct lab *lab = *state;

    make_chain(lab);
    fill(lab, "/d/b.avhd", 2 * MIB, 6 * MIB, 3);
    uint64_t taken = io_memory_taken_bytes(lab->memory);
    for (uint64_t room = 0; room < 6 * MIB; room += MIB / 2) {
        io_memory_limit(lab->memory, taken + room);
        if (merge_into(lab, "/d/b.avhd", false, "/d/top.avhd"))
            fail_msg("it fitted into %llu", (unsigned long long)room);
        assert_int_equal(err.code, ERR_NO_SPACE);
        assert_clean(lab, "/d/a.avhd");
        assert_all(lab, "/d/top.avhd", 2 * MIB, 6 * MIB, 3);
        assert_all(lab, "/d/top.avhd", 512, 512, 2);
    }
    io_memory_limit(lab->memory, 0);
    OK(merge_into(lab, "/d/b.avhd", false, "/d/top.avhd"));
    OK(io_unlink(lab->io, "/d/b.avhd", &err));
    assert_all(lab, "/d/top.avhd", 2 * MIB, 6 * MIB, 3);
    assert_clean(lab, "/d/top.avhd");
}

static bool merge_up(const struct lab *lab, const char *path, const char *parent)
{
    const struct disk_merge_options options = {.direction = DISK_MERGE_UP, .parent_path = parent};

    return merge(lab, path, &options);
}

static void an_upward_merge_keeps_what_is_seen_and_frees_the_parent(void **state)
{
    const struct lab *lab = *state;

    make_chain(lab);
    fill(lab, "/d/a.avhd", 0, 512, 7);
    fill(lab, "/d/a.avhd", 7 * MIB, 4096, 8); /* a block that b has not got */
    OK(merge_up(lab, "/d/b.avhd", "/d/a.avhd"));
    OK(io_unlink(lab->io, "/d/a.avhd", &err));
    assert_all(lab, "/d/b.avhd", 0, 512, 7);
    assert_all(lab, "/d/b.avhd", 512, 512, 2);
    assert_all(lab, "/d/b.avhd", 4 * MIB - 1024, 2048, 3);
    assert_all(lab, "/d/b.avhd", 3 * MIB, 4096, 0);
    assert_all(lab, "/d/b.avhd", 7 * MIB, 4096, 8);
    assert_all(lab, "/d/top.avhd", 1024, 512, 4);
    assert_clean(lab, "/d/top.avhd");
    assert_all(lab, "/d/base.vhd", 0, 6 * MIB, 1);
}

static void a_base_is_never_merged_upwards(void **state)
{
    const struct lab *lab = *state;

    make_chain(lab);
    io_failing_set(lab->failing, (struct io_fault){.calls = IO_CALLS_CHANGES});
    REFUSED(ERR_STATE, merge_up(lab, "/d/a.avhd", NULL));
    REFUSED(ERR_INVALID, merge_up(lab, "/d/base.vhd", NULL));
    REFUSED(ERR_MISMATCH, merge_up(lab, "/d/b.avhd", "/d/base.vhd"));
    assert_int_equal(io_failing_count(lab->failing), 0);
}

/* The parent ends before the child does, and hides what a larger grandparent has behind its end. */
static void an_upward_merge_brings_nothing_into_sight(void **state)
{
    const struct lab *lab = *state;

    create(lab, "/d/base.vhd", VHD_DYNAMIC, 8 * MIB, NULL);
    fill(lab, "/d/base.vhd", 0, 8 * MIB, 1);
    create(lab, "/d/a.avhd", VHD_DIFFERENCING, 4 * MIB, "/d/base.vhd");
    create(lab, "/d/b.avhd", VHD_DIFFERENCING, 8 * MIB, "/d/a.avhd");
    REFUSED(ERR_UNSUPPORTED, merge_up(lab, "/d/b.avhd", NULL));
    assert_all(lab, "/d/b.avhd", 4 * MIB, 4 * MIB, 0);
    create(lab, "/d/c.avhd", VHD_DIFFERENCING, 2 * MIB, "/d/a.avhd");
    fill(lab, "/d/a.avhd", MIB, 2 * MIB, 2);
    OK(merge_up(lab, "/d/c.avhd", NULL));
    assert_all(lab, "/d/c.avhd", MIB, MIB, 2);
    assert_all(lab, "/d/c.avhd", 0, MIB, 1);
}

static void a_full_host_in_an_upward_merge_harms_nobody(void **state)
{
    const struct lab *lab = *state;

    make_chain(lab);
    fill(lab, "/d/a.avhd", 2 * MIB, 6 * MIB, 3);
    uint64_t taken = io_memory_taken_bytes(lab->memory);
    for (uint64_t room = 0; room < 2 * MIB; room += MIB / 4) {
        io_memory_limit(lab->memory, taken + room);
        if (merge_up(lab, "/d/b.avhd", NULL))
            fail_msg("it fitted into %llu", (unsigned long long)room);
        assert_int_equal(err.code, ERR_NO_SPACE);
        assert_clean(lab, "/d/b.avhd");
        assert_all(lab, "/d/top.avhd", 6 * MIB, 2 * MIB, 3);
    }
    io_memory_limit(lab->memory, 0);
    OK(merge_up(lab, "/d/b.avhd", NULL));
    OK(io_unlink(lab->io, "/d/a.avhd", &err));
    assert_all(lab, "/d/top.avhd", 6 * MIB, 2 * MIB, 3);
    assert_clean(lab, "/d/top.avhd");
}

/* Cut into the smallest steps, and given up after any of them. */
static void a_merge_can_be_left_after_each_step(void **state)
{
    const struct lab *lab = *state;
    bool more = true;

    make_chain(lab);
    for (unsigned steps = 0; more; steps++) {
        struct disk_merge_options options = {.direction = steps % 2 ? DISK_MERGE_UP : DISK_MERGE_DOWN};
        AUTO_DISK_MERGING struct disk_merging *merging = NULL;
        OK(disk_merging_open(lab->io, "/d/b.avhd", &options, NULL, &merging, &err));
        more = true;
        for (unsigned i = 0; i < steps && more; i++)
            OK(disk_merging_step(merging, 1, &more, &err));
        OK(disk_merging_finish(merging, &err));
        if (more)
            REFUSED(ERR_INTERNAL, disk_merging_link(merging, &err));
        disk_merging_close(TAKE(merging));
        assert_chain(lab, "/d/top.avhd");
    }
}

/* What is copied when it is begun again, behind some of its 16 blocks. */
static uint64_t go_on(const struct lab *lab, struct disk_merge_mark *mark, unsigned steps)
{
    struct disk_merge_options options = {.direction = DISK_MERGE_DOWN, .mark = mark};
    AUTO_DISK_MERGING struct disk_merging *merging = NULL;
    bool more = true;

    OK(disk_merging_open(lab->io, "/d/b.avhd", &options, NULL, &merging, &err));
    REFUSED(ERR_INTERNAL, disk_merging_mark(merging, mark, &err));
    for (unsigned i = 0; i < steps && more; i++)
        OK(disk_merging_step(merging, 4 * MIB, &more, &err));
    OK(disk_merging_finish(merging, &err));
    OK(disk_merging_mark(merging, mark, &err));
    return disk_merging_copied_bytes(merging);
}

static void make_two_layers(const struct lab *lab)
{
    create(lab, "/d/base.vhd", VHD_DYNAMIC, 32 * MIB, NULL);
    create(lab, "/d/a.avhd", VHD_DIFFERENCING, 0, "/d/base.vhd");
    fill(lab, "/d/a.avhd", 0, 8 * MIB, 2);
    create(lab, "/d/b.avhd", VHD_DIFFERENCING, 0, "/d/a.avhd");
    fill(lab, "/d/b.avhd", 0, 32 * MIB, 3);
}

static void a_merge_goes_on_where_it_was_broken_off(void **state)
{
    const struct lab *lab = *state;
    struct disk_merge_mark mark = {0};

    make_two_layers(lab);
    uint64_t first = go_on(lab, &mark, 3);
    assert_in_range(first, 8 * MIB, 16 * MIB);
    uint64_t second = go_on(lab, &mark, 100);
    assert_in_range(first + second, 32 * MIB, 34 * MIB); /* a block that was broken off is copied again */
    assert_all(lab, "/d/a.avhd", 0, 32 * MIB, 3);
    assert_clean(lab, "/d/a.avhd");
}

static void a_merge_begins_anew_when_an_image_has_changed_meanwhile(void **state)
{
    const struct lab *lab = *state;
    static const char *const CHANGED[] = {"/d/b.avhd", "/d/a.avhd"};
    struct disk_merge_mark mark = {0};

    make_two_layers(lab);
    go_on(lab, &mark, 3);
    for (size_t i = 0; i < 2; i++) {
        assert_true(mark.blocks_done > 0);
        fill(lab, CHANGED[i], 4096, 512, (uint8_t)(7 + i));
        assert_int_equal(go_on(lab, &mark, 100), 32 * MIB);
    }
    assert_all(lab, "/d/a.avhd", 0, 4096, 3);
    assert_all(lab, "/d/a.avhd", 4096, 512, 7);
    assert_all(lab, "/d/a.avhd", 4608, 32 * MIB - 4608, 3);
}

static void an_estimate_is_near_what_is_copied(void **state)
{
    const struct lab *lab = *state;
    struct disk_merge_estimate estimate;

    create(lab, "/d/base.vhd", VHD_DYNAMIC, 64 * MIB, NULL);
    create(lab, "/d/a.avhd", VHD_DIFFERENCING, 0, "/d/base.vhd");
    fill(lab, "/d/a.avhd", 0, 32 * MIB, 2);
    create(lab, "/d/b.avhd", VHD_DIFFERENCING, 0, "/d/a.avhd");
    fill(lab, "/d/b.avhd", 24 * MIB, 16 * MIB, 3);
    OK(disk_merge_estimate(lab->io, "/d/b.avhd", &estimate, &err));
    assert_in_range(estimate.down_bytes, 16 * MIB, 17 * MIB);
    assert_in_range(estimate.up_bytes, 24 * MIB, 25 * MIB);
    assert_false(estimate.parent_is_base);
    OK(disk_merge_estimate(lab->io, "/d/a.avhd", &estimate, &err));
    assert_true(estimate.parent_is_base);
    assert_int_equal(estimate.parent_links, 1);
}

static uint64_t new_bytes(const struct lab *lab, const char *child, const char *parent, enum disk_merge_direction direction,
                          uint64_t max_blocks)
{
    const struct disk_merge_sides sides = {.child_path = child, .parent_path = parent, .direction = direction};
    uint64_t bytes;

    OK(disk_merge_new_bytes(lab->io, &sides, max_blocks, &bytes, &err));
    return bytes;
}

#define BITMAPS(blocks) ((blocks) * 512ULL)

static void a_merge_takes_space_for_what_is_lacking_alone(void **state)
{
    const struct lab *lab = *state;
    const struct disk_merge_sides base_up = {.child_path = "/d/a.avhd", .direction = DISK_MERGE_UP};
    uint64_t bytes;

    create(lab, "/d/base.vhd", VHD_DYNAMIC, 64 * MIB, NULL);
    create(lab, "/d/a.avhd", VHD_DIFFERENCING, 0, "/d/base.vhd");
    fill(lab, "/d/a.avhd", 0, 32 * MIB, 2);
    create(lab, "/d/b.avhd", VHD_DIFFERENCING, 0, "/d/a.avhd");
    fill(lab, "/d/b.avhd", 24 * MIB, 16 * MIB, 3);
    assert_int_equal(new_bytes(lab, "/d/b.avhd", NULL, DISK_MERGE_DOWN, 0), 8 * MIB + BITMAPS(4));
    assert_int_equal(new_bytes(lab, "/d/b.avhd", NULL, DISK_MERGE_UP, 0), 24 * MIB + BITMAPS(12));
    assert_int_equal(new_bytes(lab, "/d/b.avhd", "/d/base.vhd", DISK_MERGE_DOWN, 0), 16 * MIB + BITMAPS(8));
    REFUSED(ERR_INVALID, disk_merge_new_bytes(lab->io, &base_up, 0, &bytes, &err));
}

/* Halves of the same blocks, all of whose space is reserved: which sectors they are only the bitmaps tell. */
static void reserved_space_is_not_taken_for_sectors(void **state)
{
    const struct lab *lab = *state;

    create(lab, "/d/base.vhd", VHD_DYNAMIC, 64 * MIB, NULL);
    create(lab, "/d/a.avhd", VHD_DIFFERENCING, 0, "/d/base.vhd");
    create(lab, "/d/same.avhd", VHD_DIFFERENCING, 0, "/d/a.avhd");
    create(lab, "/d/other.avhd", VHD_DIFFERENCING, 0, "/d/a.avhd");
    for (uint64_t at = 0; at < 16 * MIB; at += 2 * MIB) {
        fill(lab, "/d/a.avhd", at, MIB, 2);
        fill(lab, "/d/same.avhd", at, MIB, 3);
        fill(lab, "/d/other.avhd", at + MIB, MIB, 4);
    }
    for (uint64_t blocks = 0; blocks < 4; blocks++) { /* all are alike */
        assert_int_equal(new_bytes(lab, "/d/same.avhd", NULL, DISK_MERGE_DOWN, blocks), 0);
        assert_int_equal(new_bytes(lab, "/d/same.avhd", NULL, DISK_MERGE_UP, blocks), 0);
        assert_int_equal(new_bytes(lab, "/d/other.avhd", NULL, DISK_MERGE_DOWN, blocks), 8 * MIB);
        assert_int_equal(new_bytes(lab, "/d/other.avhd", NULL, DISK_MERGE_UP, blocks), 8 * MIB);
    }
}

static void a_fixed_image_that_has_its_space_takes_none(void **state)
{
    const struct lab *lab = *state;

    create(lab, "/d/base.vhd", VHD_FIXED, 16 * MIB, NULL);
    create(lab, "/d/a.avhd", VHD_DIFFERENCING, 0, "/d/base.vhd");
    fill(lab, "/d/a.avhd", 0, 8 * MIB, 2);
    assert_int_equal(new_bytes(lab, "/d/a.avhd", NULL, DISK_MERGE_DOWN, 0), 0);
}

static bool cancel_first(void *context)
{
    return ++*(unsigned *)context == 1;
}

static void a_cancelled_merge_can_be_done_again(void **state)
{
    const struct lab *lab = *state;
    struct disk_merge_options options = {0};
    struct disk_merge_result result = {0};
    unsigned asked = 0;
    struct progress progress = {.cancelled = cancel_first, .context = &asked};

    make_chain(lab);
    REFUSED(ERR_CANCELLED, disk_merge(lab->io, "/d/b.avhd", &options, &progress, &result, &err));
    assert_chain(lab, "/d/top.avhd");
    assert_clean(lab, "/d/a.avhd");
    OK(merge_into(lab, "/d/b.avhd", false, "/d/top.avhd"));
    OK(io_unlink(lab->io, "/d/b.avhd", &err));
    assert_chain(lab, "/d/top.avhd");
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, lab_start, lab_end)
    const struct CMUnitTest tests[] = {
        TEST(a_whole_image_is_not_touched_by_repair),
        TEST(a_missing_or_damaged_end_footer_comes_back_from_the_copy),
        TEST(a_damaged_copy_comes_back_from_the_end_footer),
        TEST(what_a_crash_left_behind_the_end_is_cut_off),
        TEST(what_check_finds_beyond_is_told_and_not_guessed_at),
        TEST(a_fixed_image_without_its_footer_is_beyond_repair),
        TEST(each_type_grows_and_what_is_new_reads_as_zeros),
        TEST(shrinking_is_refused_and_changes_nothing),
        TEST(what_a_larger_parent_holds_never_comes_into_sight),
        TEST(what_the_geometry_hid_is_zeros_when_it_comes_into_sight),
        TEST(a_fixed_image_that_finds_no_space_keeps_its_size),
        TEST(a_merge_keeps_what_is_seen_and_frees_the_image),
        TEST(a_zero_write_to_a_block_that_the_child_lacks_is_not_dropped_in_a_merge),
        TEST(a_base_is_merged_into_only_when_asked),
        TEST(a_parent_with_another_name_is_not_merged_into),
        TEST(a_stranger_is_no_child_and_nothing_is_changed),
        TEST(a_smaller_parent_grows_and_a_larger_one_is_refused),
        TEST(a_full_host_in_a_merge_harms_neither_parent_nor_child),
        TEST(an_upward_merge_keeps_what_is_seen_and_frees_the_parent),
        TEST(a_base_is_never_merged_upwards),
        TEST(an_upward_merge_brings_nothing_into_sight),
        TEST(a_full_host_in_an_upward_merge_harms_nobody),
        TEST(a_merge_can_be_left_after_each_step),
        TEST(a_merge_goes_on_where_it_was_broken_off),
        TEST(a_merge_begins_anew_when_an_image_has_changed_meanwhile),
        TEST(an_estimate_is_near_what_is_copied),
        TEST(a_merge_takes_space_for_what_is_lacking_alone),
        TEST(reserved_space_is_not_taken_for_sectors),
        TEST(a_fixed_image_that_has_its_space_takes_none),
        TEST(a_cancelled_merge_can_be_done_again),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
