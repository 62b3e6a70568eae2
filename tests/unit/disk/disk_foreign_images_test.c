/* Images as other programs write them: their sizes, their ends, their ways to a parent, what they keep beside
 * the blocks. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bytes.h"
#include "disk_test.h"
#include "disk_tools.h"
#include "io_memory.h"

#include <string.h>

#define MIB        (1ULL << 20)
#define BASE       "/vm/disks/base.vhd"
#define CHILD      "/vm/disks/snapshots/child.avhd"
#define ROOM       0x3000U /* of the second locator that we write: 64 KiB for what a test puts there */
#define ROOM_BYTES 4096U   /* for each */

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
    return io_make_dir(lab.io, "/vm", &err) && io_make_dir(lab.io, "/vm/disks", &err) &&
                   io_make_dir(lab.io, "/vm/disks/snapshots", &err) && io_make_dir(lab.io, "/far", &err)
               ? 0
               : -1;
}

static int lab_end(void **state)
{
    io_memory_free(((struct lab *)*state)->memory);
    return 0;
}

static void create(const struct lab *lab, const char *path, uint64_t size, const char *parent)
{
    struct vhd_create_options options = {
        .type = parent ? VHD_DIFFERENCING : VHD_DYNAMIC, .size_bytes = size, .parent_path = parent};

    OK(vhd_create(lab->io, path, &options, &err));
}

static void put(const struct lab *lab, const char *path, uint64_t offset, uint8_t value)
{
    struct disk *disk = open_disk(lab->io, path, true);

    write_sector(disk, offset, value);
    OK(disk_close(disk, &err));
}

static void assert_at(const struct lab *lab, const char *path, uint64_t offset, uint8_t value)
{
    AUTO_DISK struct disk *disk = open_disk(lab->io, path, false);

    assert_sector(disk, offset, value);
}

static void change_file(const struct lab *lab, const char *path, uint64_t offset, const void *bytes,
                        size_t length)
{
    AUTO_IO struct io_file *file = NULL;

    OK(io_open(lab->io, path, IO_WRITE, &file, &err) && io_write(file, offset, bytes, length, &err));
}

static void cut_file(const struct lab *lab, const char *path, uint64_t bytes_less)
{
    AUTO_IO struct io_file *file = NULL;
    struct io_stat stat;

    OK(io_open(lab->io, path, IO_WRITE, &file, &err) && io_stat_file(file, &stat, &err));
    OK(io_truncate(file, stat.size_bytes - bytes_less, &err));
}

static struct vhd_header header_of(const struct lab *lab, const char *path)
{
    AUTO_VHD struct vhd *vhd = NULL;

    OK(vhd_open(lab->io, path, IO_READ_ONLY, &vhd, &err));
    return vhd->header;
}

static void set_header(const struct lab *lab, const char *path, const struct vhd_header *header)
{
    uint8_t bytes[VHD_HEADER_BYTES];

    vhd_header_encode(header, bytes);
    change_file(lab, path, 512, bytes, sizeof bytes);
}

struct faults {
    unsigned count;
    enum disk_fault_kind last;
    bool harm;
};

static void count_fault(void *context, const struct disk_fault *fault)
{
    struct faults *faults = context;

    faults->count++;
    faults->last = fault->kind;
    faults->harm = faults->harm || !fault->harmless;
}

static struct faults faults_of(const struct lab *lab, const char *path)
{
    struct faults faults = {0};

    OK(disk_check(lab->io, path, count_fault, &faults, NULL, &err));
    return faults;
}

/* --- sizes --- */

static void a_disk_can_end_at_any_sector(void **state)
{
    static const uint64_t SECTORS[] = {1, 3, 7, 4095, 4096, 4097, 12345};
    const struct lab *lab = *state;

    for (size_t i = 0; i < ARRAY_SIZE(SECTORS); i++) {
        uint64_t last = (SECTORS[i] - 1) * 512;
        create(lab, BASE, SECTORS[i] * 512, NULL);
        create(lab, CHILD, 0, BASE);
        put(lab, BASE, last, 1);
        assert_at(lab, CHILD, last, 1);
        put(lab, CHILD, last, 2);
        assert_at(lab, CHILD, last, 2);
        struct disk *disk = open_disk(lab->io, CHILD, true);
        uint8_t bytes[1024];
        assert_false(disk_read(disk, last, bytes, sizeof bytes, &err));
        assert_false(disk_write(disk, last + 512, bytes, 512, &err));
        OK(disk_close(disk, &err));
        assert_int_equal(faults_of(lab, CHILD).count, 0);
        OK(io_unlink(lab->io, CHILD, &err) && io_unlink(lab->io, BASE, &err));
    }
}

/* As Virtual PC wrote them: the geometry's size is what its guests saw, and what ours see of it. */
static void make_by_virtual_pc(const struct lab *lab, uint64_t size)
{
    AUTO_IO struct io_file *file = NULL;
    struct vhd_footer footer;
    struct io_stat stat;
    uint8_t bytes[512];

    create(lab, BASE, size, NULL);
    OK(io_open(lab->io, BASE, IO_WRITE, &file, &err) && io_stat_file(file, &stat, &err));
    OK(io_read(file, 0, bytes, sizeof bytes, &err) && vhd_footer_decode(bytes, 512, &footer, &err));
    memcpy(footer.creator_app, "vpc ", 4);
    footer.creator_version = 0x00050003;
    vhd_footer_encode(&footer, bytes);
    OK(io_write(file, 0, bytes, 512, &err) && io_write(file, stat.size_bytes - 512, bytes, 512, &err));
}

static void an_image_of_virtual_pc_is_as_large_as_its_geometry(void **state)
{
    const struct lab *lab = *state;
    struct vhd_geometry geometry = vhd_geometry_of(100 * MIB);
    uint64_t size = vhd_geometry_bytes(&geometry);

    assert_true(size < 100 * MIB);
    make_by_virtual_pc(lab, 100 * MIB);
    create(lab, CHILD, 0, BASE);
    put(lab, BASE, size - 512, 1);
    assert_at(lab, CHILD, size - 512, 1);
    put(lab, CHILD, size - 512, 2);
    struct disk *disk = open_disk(lab->io, CHILD, false);
    assert_int_equal(disk_size_bytes(disk), size);
    disk_abandon(disk);
    disk = open_disk(lab->io, BASE, true);
    assert_int_equal(disk_size_bytes(disk), size);
    uint8_t bytes[512];
    assert_false(disk_write(disk, size, bytes, 512, &err));
    OK(disk_close(disk, &err));
    assert_int_equal(faults_of(lab, CHILD).count, 0);
    /* It stays one of Virtual PC: who wrote it is not changed by writing to it. */
    AUTO_VHD struct vhd *vhd = NULL;
    OK(vhd_open(lab->io, BASE, IO_READ_ONLY, &vhd, &err));
    assert_memory_equal(vhd->footer.creator_app, "vpc ", 4);
}

/* --- ends --- */

static void an_image_cut_off_in_its_end_footer_is_read_and_written(void **state)
{
    static const uint64_t LESS[] = {512, 511, 1, 200};
    const struct lab *lab = *state;

    for (size_t i = 0; i < ARRAY_SIZE(LESS); i++) {
        create(lab, BASE, 9 * MIB, NULL);
        create(lab, CHILD, 0, BASE);
        put(lab, BASE, 0, 1);
        put(lab, CHILD, 3 * MIB, 2);
        cut_file(lab, BASE, LESS[i]);
        cut_file(lab, CHILD, LESS[i]);
        assert_at(lab, CHILD, 0, 1);
        assert_at(lab, CHILD, 3 * MIB, 2);
        struct faults faults = faults_of(lab, CHILD);
        assert_false(faults.harm);
        assert_int_equal(faults.last, DISK_FAULT_FOOTER);
        put(lab, CHILD, 5 * MIB, 3);
        put(lab, BASE, 7 * MIB, 4);
        assert_at(lab, CHILD, 3 * MIB, 2);
        assert_at(lab, CHILD, 5 * MIB, 3);
        assert_at(lab, CHILD, 7 * MIB, 4);
        assert_int_equal(faults_of(lab, CHILD).count, 0);
        OK(io_unlink(lab->io, CHILD, &err) && io_unlink(lab->io, BASE, &err));
    }
}

/* A footer of 511 bytes, as before Virtual PC 2004. */
static void an_image_with_the_short_footer_gets_a_whole_one_when_it_grows(void **state)
{
    const struct lab *lab = *state;

    create(lab, BASE, 9 * MIB, NULL);
    put(lab, BASE, 0, 1);
    cut_file(lab, BASE, 1);
    assert_int_equal(faults_of(lab, BASE).count, 0);
    put(lab, BASE, 4 * MIB, 2);
    assert_at(lab, BASE, 0, 1);
    assert_at(lab, BASE, 4 * MIB, 2);
    AUTO_VHD struct vhd *vhd = NULL;
    OK(vhd_open(lab->io, BASE, IO_READ_ONLY, &vhd, &err));
    assert_int_equal(vhd->trailer_bytes, 512);
    assert_int_equal(faults_of(lab, BASE).count, 0);
}

/* blktap keeps a map of full blocks right behind the table. */
static void what_blktap_keeps_behind_the_table_is_not_written_over(void **state)
{
    const struct lab *lab = *state;
    uint8_t map[1024] = "tdbatmap", back[1024], footer[512];
    AUTO_IO struct io_file *file = NULL;

    create(lab, BASE, 9 * MIB, NULL);
    uint64_t at = 0x600 + 512; /* the table is one sector */
    put_be64(map + 8, at + 512);
    put_be32(map + 16, 1);
    put_be32(map + 20, 0x00010002);
    memset(map + 512, 0x81, 512);
    OK(io_open(lab->io, BASE, IO_WRITE, &file, &err) && io_read(file, 0, footer, 512, &err));
    /* With a footer behind it, and, after a crash, without. */
    for (unsigned i = 0; i < 2; i++) {
        OK(io_truncate(file, at, &err) && io_write(file, at, map, sizeof map, &err));
        OK(i > 0 || io_write(file, at + sizeof map, footer, sizeof footer, &err));
        put(lab, BASE, 4 * MIB, 7);
        assert_at(lab, BASE, 4 * MIB, 7);
        assert_at(lab, BASE, 4 * MIB + 512, 0);
        OK(io_read(file, at, back, sizeof back, &err));
        assert_memory_equal(map, back, sizeof map);
        OK(io_write(file, 0x600 + 8, "\xFF\xFF\xFF\xFF", 4, &err)); /* the block is gone again */
    }
}

/* Entries for blocks behind the disk's end: some programs round the table up, and allocate them too. */
static void a_table_longer_than_the_disk_is_taken_as_it_is(void **state)
{
    const struct lab *lab = *state;
    struct vhd_header header;
    uint8_t entries[8];

    create(lab, BASE, 9 * MIB, NULL);
    put(lab, BASE, 8 * MIB, 1);
    put(lab, BASE, 0, 2);
    AUTO_VHD struct vhd *vhd = NULL;
    OK(vhd_open(lab->io, BASE, IO_READ_ONLY, &vhd, &err));
    uint32_t behind = (uint32_t)(vhd->file_bytes - 512) / 512;
    header = vhd->header;
    header.table_entries = 7; /* of 5 blocks */
    set_header(lab, BASE, &header);
    put_be32(entries, VHD_BAT_UNALLOCATED);
    put_be32(entries + 4, behind);
    change_file(lab, BASE, 0x600 + 20, entries, sizeof entries);
    uint8_t footer[512];
    memcpy(footer, vhd->footer_bytes, sizeof footer);
    change_file(lab, BASE, (uint64_t)behind * 512 + 512 + 2 * MIB, footer, sizeof footer);
    assert_at(lab, BASE, 8 * MIB, 1);
    put(lab, BASE, 4 * MIB, 3);
    assert_at(lab, BASE, 4 * MIB, 3);
    assert_at(lab, BASE, 0, 2);
    assert_int_equal(faults_of(lab, BASE).count, 0);
}

/* --- ways to a parent --- */

static size_t wide(const char *text, uint8_t *bytes)
{
    size_t length = strlen(text);

    for (size_t i = 0; i < length; i++)
        put_le16(bytes + 2 * i, (uint8_t)text[i]);
    return 2 * length;
}

struct way {
    uint32_t platform;
    const char *text;
    uint32_t space; /* 0: ROOM_BYTES */
};

/* A child with these locators and no other; its header's parent name is `name`. */
static void set_ways(const struct lab *lab, const struct way *ways, size_t count, const char *name)
{
    struct vhd_header header = header_of(lab, CHILD);

    memset(header.locators, 0, sizeof header.locators);
    memset(header.parent_name, 0, sizeof header.parent_name);
    for (size_t i = 0; name[i]; i++)
        put_be16(header.parent_name + 2 * i, (uint8_t)name[i]);
    for (size_t i = 0; i < count; i++) {
        uint8_t bytes[512] = {0};
        bool is_wide = ways[i].platform == VHD_PLATFORM_W2RU || ways[i].platform == VHD_PLATFORM_W2KU;
        size_t length = is_wide ? wide(ways[i].text, bytes) : strlen(ways[i].text);
        if (!is_wide)
            memcpy(bytes, ways[i].text, length);
        uint64_t offset = ROOM + i * ROOM_BYTES;
        change_file(lab, CHILD, offset, bytes, sizeof bytes);
        header.locators[i] = (struct vhd_locator){.platform = ways[i].platform,
                                                  .space_bytes = ways[i].space ? ways[i].space : ROOM_BYTES,
                                                  .length_bytes = (uint32_t)length,
                                                  .offset = offset};
    }
    set_header(lab, CHILD, &header);
}

static void make_pair(const struct lab *lab)
{
    create(lab, BASE, 9 * MIB, NULL);
    put(lab, BASE, 0, 0xB5);
    create(lab, CHILD, 0, BASE);
}

#define WAYS(lab, name, ...)                                                                                 \
    do {                                                                                                     \
        const struct way ways_[] = {__VA_ARGS__};                                                            \
        set_ways(lab, ways_, ARRAY_SIZE(ways_), name);                                                       \
    } while (0)

static void each_kind_of_locator_alone_leads_to_the_parent(void **state)
{
    static const struct way WAYS_THAT_LEAD[] = {
        {VHD_PLATFORM_W2RU, "..\\base.vhd", 0},
        {VHD_PLATFORM_W2RU, ".\\..\\base.vhd", 0},
        {VHD_PLATFORM_W2RU, "..\\base.vhd", 8}, /* sectors, as the specification says */
        {VHD_PLATFORM_W2KU, "\\vm\\disks\\base.vhd", 0},
        {VHD_PLATFORM_W2KU, "..\\base.vhd", 0}, /* as blktap does */
        {VHD_PLATFORM_W2KU, "/vm/disks/base.vhd", 0},
        {VHD_PLATFORM_WI2R, "..\\base.vhd", 0},
        {VHD_PLATFORM_WI2K, "\\vm\\disks\\base.vhd", 0},
        {VHD_PLATFORM_MACX, "file://./../base.vhd", 0},
        {VHD_PLATFORM_MACX, "file:///vm/disks/base.vhd", 0},
    };
    const struct lab *lab = *state;

    make_pair(lab);
    for (size_t i = 0; i < ARRAY_SIZE(WAYS_THAT_LEAD); i++) {
        set_ways(lab, &WAYS_THAT_LEAD[i], 1, "");
        if (open_code(lab->io, CHILD) != ERR_NONE)
            fail_msg("%s: %s", WAYS_THAT_LEAD[i].text, err.text);
        assert_at(lab, CHILD, 0, 0xB5);
    }
}

static void of_several_locators_the_one_that_leads_there_counts(void **state)
{
    const struct lab *lab = *state;

    make_pair(lab);
    create(lab, "/far/base.vhd", 9 * MIB, NULL); /* another image of that name */
    WAYS(lab, "", {VHD_PLATFORM_MAC, "alias", 0}, {0x12345678, "whatever", 0},
         {VHD_PLATFORM_W2KU, "C:\\Hyper-V\\base.vhd", 0}, {VHD_PLATFORM_W2KU, "\\far\\base.vhd", 0},
         {VHD_PLATFORM_W2RU, ".\\gone.vhd", 0}, {VHD_PLATFORM_MACX, "file:///far/base.vhd", 0},
         {VHD_PLATFORM_WI2K, "D:\\base.vhd", 0}, {VHD_PLATFORM_W2RU, "..\\base.vhd", 0});
    assert_at(lab, CHILD, 0, 0xB5);
}

static void a_locator_that_makes_no_sense_is_passed_over(void **state)
{
    const struct lab *lab = *state;
    struct vhd_header header;

    make_pair(lab);
    WAYS(lab, "", {VHD_PLATFORM_W2RU, "..\\base.vhd", 0}, {VHD_PLATFORM_W2KU, "\\vm\\disks\\base.vhd", 0});
    header = header_of(lab, CHILD);
    header.locators[0].offset = UINT64_MAX - 100;
    header.locators[2] = (struct vhd_locator){VHD_PLATFORM_W2RU, 512, 40, 1ULL << 40};
    header.locators[3] = (struct vhd_locator){VHD_PLATFORM_W2RU, 0xFFFFFE00, 0xFFFFFE00, 0};
    set_header(lab, CHILD, &header);
    assert_at(lab, CHILD, 0, 0xB5);
}

/* A folder that came from Windows: drive letters and shares lead nowhere, but the files are all there. */
static void paths_of_windows_are_found_beside_the_child(void **state)
{
    static const struct way FROM_WINDOWS[] = {
        {VHD_PLATFORM_W2KU, "C:\\Hyper-V\\Disks\\base.vhd", 0},
        {VHD_PLATFORM_W2KU, "\\\\server\\share\\base.vhd", 0},
        {VHD_PLATFORM_W2KU, "\\\\?\\Volume{11111111-2222-3333-4444-555555555555}\\base.vhd", 0},
        {VHD_PLATFORM_W2RU, "..\\..\\elsewhere\\base.vhd", 0},
        {VHD_PLATFORM_WI2K, "c:base.vhd", 0},
    };
    const struct lab *lab = *state;

    make_pair(lab);
    OK(io_rename(lab->io, BASE, "/vm/disks/snapshots/base.vhd", &err));
    for (size_t i = 0; i < ARRAY_SIZE(FROM_WINDOWS); i++) {
        set_ways(lab, &FROM_WINDOWS[i], 1, "");
        if (open_code(lab->io, CHILD) != ERR_NONE)
            fail_msg("%s: %s", FROM_WINDOWS[i].text, err.text);
    }
    /* Windows 10 writes the whole path as the header's name; there may be no locator at all. */
    set_ways(lab, FROM_WINDOWS, 0, "D:\\VMs\\Virtual Hard Disks\\base.vhd");
    assert_at(lab, CHILD, 0, 0xB5);
    set_ways(lab, FROM_WINDOWS, 0, "base.vhd");
    assert_at(lab, CHILD, 0, 0xB5);
    set_ways(lab, FROM_WINDOWS, 0, "");
    assert_int_equal(open_code(lab->io, CHILD), ERR_NOT_FOUND);
}

static void a_time_stamp_that_differs_is_noted_and_no_more(void **state)
{
    const struct lab *lab = *state;
    struct vhd_header header;
    AUTO_VHD struct vhd *base = NULL;

    make_pair(lab);
    assert_int_equal(header_of(lab, CHILD).parent_timestamp, 0);
    assert_int_equal(faults_of(lab, CHILD).count, 0);
    header = header_of(lab, CHILD);
    header.parent_timestamp = 12345;
    set_header(lab, CHILD, &header);
    assert_at(lab, CHILD, 0, 0xB5);
    struct disk *disk = open_disk(lab->io, CHILD, false);
    struct disk_layer layer;
    disk_layer_get(disk, 0, &layer);
    assert_true(layer.parent_time_differs);
    disk_abandon(disk);
    struct faults faults = faults_of(lab, CHILD);
    assert_int_equal(faults.count, 1);
    assert_int_equal(faults.last, DISK_FAULT_TIME);
    assert_false(faults.harm);
    OK(vhd_open(lab->io, BASE, IO_READ_ONLY, &base, &err));
    header.parent_timestamp = (uint32_t)(base->mtime_seconds - VHD_EPOCH);
    set_header(lab, CHILD, &header);
    assert_int_equal(faults_of(lab, CHILD).count, 0);
}

#define LAB_TEST(name) cmocka_unit_test_setup_teardown(name, lab_start, lab_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(a_disk_can_end_at_any_sector),
        LAB_TEST(an_image_of_virtual_pc_is_as_large_as_its_geometry),
        LAB_TEST(an_image_cut_off_in_its_end_footer_is_read_and_written),
        LAB_TEST(an_image_with_the_short_footer_gets_a_whole_one_when_it_grows),
        LAB_TEST(what_blktap_keeps_behind_the_table_is_not_written_over),
        LAB_TEST(a_table_longer_than_the_disk_is_taken_as_it_is),
        LAB_TEST(each_kind_of_locator_alone_leads_to_the_parent),
        LAB_TEST(of_several_locators_the_one_that_leads_there_counts),
        LAB_TEST(a_locator_that_makes_no_sense_is_passed_over),
        LAB_TEST(paths_of_windows_are_found_beside_the_child),
        LAB_TEST(a_time_stamp_that_differs_is_noted_and_no_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
