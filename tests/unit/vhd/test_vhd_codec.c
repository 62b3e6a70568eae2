/* Bytes to values and back: footer, dynamic header, bitmap, locator paths. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bytes.h"
#include "random.h"
#include "vhd.h"
#include "vhd_bitmap.h"
#include "vhd_paths.h"

#include <string.h>

static struct err err;

static struct vhd_footer a_footer(void)
{
    struct vhd_footer footer = {
        .data_offset = 512,
        .timestamp = 123456789,
        .creator_app = {'w', 'i', 'n', ' '},
        .creator_version = 0x000A0000,
        .creator_system = 0x5769326B,
        .original_bytes = 1 << 20,
        .current_bytes = 3 << 20,
        .geometry = {.cylinders = 90, .heads = 4, .sectors_per_track = 17},
        .type = VHD_DIFFERENCING,
        .saved_state = true,
    };

    memset(footer.id, 0xA5, sizeof footer.id);
    return footer;
}

static void footer_round_trips(void **state)
{
    (void)state;
    uint8_t bytes[512], again[512];
    struct vhd_footer footer = a_footer(), back;

    vhd_footer_encode(&footer, bytes);
    assert_memory_equal(bytes, "conectix\0\0\0\2\0\1\0\0", 16);
    assert_true(vhd_footer_decode(bytes, 512, &back, &err));
    assert_int_equal(back.current_bytes, 3 << 20);
    assert_int_equal(back.type, VHD_DIFFERENCING);
    assert_true(back.saved_state);
    vhd_footer_encode(&back, again);
    assert_memory_equal(bytes, again, 512);
}

static void footer_of_511_bytes_is_read(void **state)
{
    (void)state;
    uint8_t bytes[512];
    struct vhd_footer footer = a_footer(), back;

    vhd_footer_encode(&footer, bytes);
    assert_true(vhd_footer_decode(bytes, 511, &back, &err));
    assert_false(vhd_footer_decode(bytes, 510, &back, &err));
}

static void every_flipped_bit_of_a_footer_is_seen(void **state)
{
    (void)state;
    uint8_t bytes[512];
    struct vhd_footer footer = a_footer(), back;

    vhd_footer_encode(&footer, bytes);
    for (unsigned i = 0; i < 512 * 8; i++) {
        bytes[i / 8] ^= (uint8_t)(1 << i % 8);
        assert_false(vhd_footer_decode(bytes, 512, &back, &err));
        assert_int_equal(err.code, ERR_CORRUPT);
        bytes[i / 8] ^= (uint8_t)(1 << i % 8);
    }
}

static enum err_code code_of_footer(struct vhd_footer footer)
{
    uint8_t bytes[512];
    struct vhd_footer back;

    vhd_footer_encode(&footer, bytes);
    return vhd_footer_decode(bytes, 512, &back, &err) ? ERR_NONE : err.code;
}

static void footer_fields_out_of_range_are_refused(void **state)
{
    (void)state;
    struct vhd_footer footer = a_footer();

    for (uint32_t type = 0; type < 8; type++) {
        footer.type = type;
        footer.data_offset = 512;
        assert_int_equal(code_of_footer(footer), type >= 2 && type <= 4 ? ERR_NONE : ERR_UNSUPPORTED);
    }
    footer = a_footer();
    footer.current_bytes = 0;
    assert_int_equal(code_of_footer(footer), ERR_CORRUPT);
    footer.current_bytes = 513;
    assert_int_equal(code_of_footer(footer), ERR_CORRUPT);
    footer.current_bytes = VHD_MAX_SIZE_BYTES;
    assert_int_equal(code_of_footer(footer), ERR_NONE);
    footer.current_bytes += 512;
    assert_int_equal(code_of_footer(footer), ERR_UNSUPPORTED);
    footer = a_footer();
    footer.data_offset = 511;
    assert_int_equal(code_of_footer(footer), ERR_CORRUPT);
}

static void geometry_is_that_of_other_writers(void **state)
{
    (void)state;
    /* The first is of an image by Virtual PC, the others by the specification's formula by hand. */
    static const struct {
        uint64_t bytes;
        struct vhd_geometry geometry;
    } KNOWN[] = {
        {136365211648, {65278, 16, 255}},       {104857600, {1003, 12, 17}},
        {1073741824, {2080, 16, 63}},           {512, {0, 4, 17}},
        {VHD_MAX_SIZE_BYTES, {65535, 16, 255}},
    };

    for (size_t i = 0; i < ARRAY_SIZE(KNOWN); i++) {
        struct vhd_geometry geometry = vhd_geometry_of(KNOWN[i].bytes);
        assert_int_equal(geometry.cylinders, KNOWN[i].geometry.cylinders);
        assert_int_equal(geometry.heads, KNOWN[i].geometry.heads);
        assert_int_equal(geometry.sectors_per_track, KNOWN[i].geometry.sectors_per_track);
        assert_true(vhd_geometry_bytes(&geometry) <= KNOWN[i].bytes);
    }
}

static void old_creators_show_the_size_of_the_geometry(void **state)
{
    (void)state;
    struct vhd_footer footer = a_footer();

    footer.current_bytes = 136365211648;
    footer.geometry = vhd_geometry_of(footer.current_bytes);
    assert_int_equal(vhd_footer_size_bytes(&footer), 136365211648);
    memcpy(footer.creator_app, "vpc ", 4);
    assert_int_equal(vhd_footer_size_bytes(&footer), 136363130880);
    memcpy(footer.creator_app, "qemu", 4);
    assert_int_equal(vhd_footer_size_bytes(&footer), 136363130880);
    memcpy(footer.creator_app, "qem2", 4);
    assert_int_equal(vhd_footer_size_bytes(&footer), 136365211648);
    memcpy(footer.creator_app, "vpc ", 4);
    footer.geometry = (struct vhd_geometry){65535, 16, 255};
    assert_int_equal(vhd_footer_size_bytes(&footer), 136365211648);
    footer.geometry = (struct vhd_geometry){0, 0, 0};
    assert_int_equal(vhd_footer_size_bytes(&footer), 136365211648);
}

static struct vhd_header a_header(void)
{
    struct vhd_header header = {.table_offset = 8192, .table_entries = 77, .block_bytes = 2 << 20};

    memset(header.parent_id, 7, sizeof header.parent_id);
    memcpy(header.parent_name, "\0b\0a\0s\0e", 8);
    header.locators[3] = (struct vhd_locator){VHD_PLATFORM_W2RU, 1024, 30, 4096};
    return header;
}

static void header_round_trips(void **state)
{
    (void)state;
    uint8_t bytes[1024], again[1024];
    struct vhd_header header = a_header(), back;

    vhd_header_encode(&header, bytes);
    assert_memory_equal(bytes, "cxsparse\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", 16);
    assert_true(vhd_header_decode(bytes, &back, &err));
    assert_int_equal(back.table_entries, 77);
    assert_int_equal(back.locators[3].length_bytes, 30);
    vhd_header_encode(&back, again);
    assert_memory_equal(bytes, again, 1024);
    for (unsigned i = 0; i < 1024; i++) {
        bytes[i] ^= 0x10;
        assert_false(vhd_header_decode(bytes, &back, &err));
        assert_int_equal(err.code, ERR_CORRUPT);
        bytes[i] ^= 0x10;
    }
}

static void block_size_is_a_power_of_two_from_512(void **state)
{
    (void)state;
    static const uint32_t BAD[] = {0, 1, 256, 511, 513, 3 << 20, UINT32_MAX};
    uint8_t bytes[1024];
    struct vhd_header header = a_header(), back;

    for (size_t i = 0; i < ARRAY_SIZE(BAD); i++) {
        header.block_bytes = BAD[i];
        vhd_header_encode(&header, bytes);
        assert_false(vhd_header_decode(bytes, &back, &err));
        assert_int_equal(err.code, ERR_CORRUPT);
    }
    for (uint32_t shift = 9; shift < 32; shift++) {
        header.block_bytes = 1U << shift;
        vhd_header_encode(&header, bytes);
        assert_true(vhd_header_decode(bytes, &back, &err));
    }
}

static void locator_space_is_sectors_below_512_else_bytes(void **state)
{
    (void)state;
    static const struct {
        uint32_t stored, length, bytes; /* bytes 0: the locator makes no sense */
    } CASES[] = {{1, 512, 512}, {128, 100, 65536}, {512, 512, 512}, {65536, 40, 65536},
                 {513, 40, 0},  {1, 513, 0},       {512, 513, 0},   {UINT32_MAX, 1, 0}};

    for (size_t i = 0; i < ARRAY_SIZE(CASES); i++) {
        uint8_t bytes[1024];
        struct vhd_header header = a_header(), back;
        header.locators[3].space_bytes = CASES[i].stored;
        header.locators[3].length_bytes = CASES[i].length;
        vhd_header_encode(&header, bytes);
        assert_true(vhd_header_decode(bytes, &back, &err));
        if (CASES[i].bytes == 0)
            assert_int_equal(back.locators[3].platform, VHD_PLATFORM_NONE);
        else
            assert_int_equal(back.locators[3].space_bytes, CASES[i].bytes);
    }
}

static void bitmap_is_whole_sectors(void **state)
{
    (void)state;
    assert_int_equal(vhd_bitmap_bytes(512), 512);
    assert_int_equal(vhd_bitmap_bytes(4096), 512);
    assert_int_equal(vhd_bitmap_bytes(2 << 20), 512);
    assert_int_equal(vhd_bitmap_bytes(4 << 20), 1024);
}

static void bits_agree_with_one_by_one(void **state)
{
    (void)state;
    struct random random = {.state = 11};
    uint8_t bits[512], plain[4096];

    for (unsigned round = 0; round < 300; round++) {
        memset(bits, 0, sizeof bits);
        memset(plain, 0, sizeof plain);
        for (unsigned i = 0; i < 20; i++) {
            uint32_t first = (uint32_t)random_below(&random, 4096);
            uint32_t end =
                first + 1 + (uint32_t)random_below(&random, min_u64(4096 - first, i % 3 ? 20 : 900));
            bool any = false;
            for (uint32_t s = first; s < end; s++) {
                any = any || !plain[s];
                plain[s] = 1;
            }
            assert_int_equal(vhd_bits_set(bits, first, end), any);
        }
        for (uint32_t s = 0; s < 4096; s++)
            assert_int_equal(vhd_bit_get(bits, s), plain[s]);
        for (unsigned i = 0; i < 50; i++) {
            uint32_t first = (uint32_t)random_below(&random, 4096);
            uint32_t end = first + 1 + (uint32_t)random_below(&random, 4096 - first);
            uint32_t run = 1;
            while (first + run < end && plain[first + run] == plain[first])
                run++;
            assert_int_equal(vhd_bits_run(bits, first, end), run);
        }
    }
}

static void the_first_sector_is_the_top_bit(void **state)
{
    (void)state;
    uint8_t bits[512] = {0};

    assert_true(vhd_bits_set(bits, 0, 1));
    assert_int_equal(bits[0], 0x80);
    assert_true(vhd_bits_set(bits, 9, 11));
    assert_int_equal(bits[1], 0x60);
    assert_false(vhd_bits_set(bits, 9, 11));
}

/* Text as UTF-16LE, for short ASCII. */
static size_t wide(const char *text, uint8_t *bytes)
{
    size_t length = strlen(text);

    for (size_t i = 0; i < length; i++)
        put_le16(bytes + 2 * i, (uint8_t)text[i]);
    return 2 * length;
}

static void assert_path(uint32_t platform, const char *text, const char *want)
{
    uint8_t bytes[256];
    size_t length = strlen(text);
    char *path;

    if (platform == VHD_PLATFORM_MACX)
        memcpy(bytes, text, length);
    else
        length = wide(text, bytes);
    assert_true(vhd_path_decode(platform, bytes, length, "/vm/Snapshots", &path, &err));
    if (want)
        assert_string_equal(path, want);
    else
        assert_null(path);
    free(path);
}

static void locators_name_paths(void **state)
{
    (void)state;
    assert_path(VHD_PLATFORM_W2RU, ".\\a.vhd", "/vm/Snapshots/a.vhd");
    assert_path(VHD_PLATFORM_W2RU, "..\\a b.vhd", "/vm/a b.vhd");
    assert_path(VHD_PLATFORM_W2RU, "sub\\a.vhd", "/vm/Snapshots/sub/a.vhd");
    assert_path(VHD_PLATFORM_W2KU, "\\home\\u\\a.vhd", "/home/u/a.vhd");
    assert_path(VHD_PLATFORM_W2KU, ".\\a.vhd", "/vm/Snapshots/a.vhd");
    assert_path(VHD_PLATFORM_W2KU, "C:\\vm\\a.vhd", NULL);
    assert_path(VHD_PLATFORM_W2KU, "", NULL);
    assert_path(VHD_PLATFORM_MACX, "file://./a.vhd", "/vm/Snapshots/a.vhd");
    assert_path(VHD_PLATFORM_MACX, "file://localhost/x/a%20b.vhd", "/x/a b.vhd");
    assert_path(VHD_PLATFORM_MACX, "file:///x/a%2gb%0.vhd", "/x/a%2gb%0.vhd");
    assert_path(VHD_PLATFORM_MAC, "alias", NULL);
}

static void a_windows_path_is_looked_for_beside_the_child(void **state)
{
    (void)state;
    uint8_t bytes[256];
    char *path;

    size_t length = wide("C:\\vm\\a.vhd", bytes);
    assert_true(vhd_path_beside(VHD_PLATFORM_W2KU, bytes, length, "/d", &path, &err));
    assert_string_equal(path, "/d/a.vhd");
    free(path);
    length = wide("C:\\vm\\..", bytes);
    assert_true(vhd_path_beside(VHD_PLATFORM_W2KU, bytes, length, "/d", &path, &err));
    assert_null(path);
}

static void assert_encoded(uint32_t platform, const char *path, const char *dir, const char *want)
{
    uint8_t bytes[256];
    size_t length = wide(want, bytes);
    struct vhd_path_data data;

    assert_true(vhd_path_encode(platform, path, dir, &data, &err));
    assert_int_equal(data.length, length);
    assert_memory_equal(data.bytes, bytes, length);
    free(data.bytes);
}

static void paths_become_locators(void **state)
{
    (void)state;
    struct vhd_path_data data;

    assert_encoded(VHD_PLATFORM_W2RU, "/vm/base.vhd", "/vm", ".\\base.vhd");
    assert_encoded(VHD_PLATFORM_W2RU, "/vm/base.vhd", "/vm/Snapshots/G", "..\\..\\base.vhd");
    assert_encoded(VHD_PLATFORM_W2RU, "/x/base.vhd", "/vm", "..\\x\\base.vhd");
    assert_encoded(VHD_PLATFORM_W2RU, "/vm/..base.vhd", "/vm", ".\\..base.vhd");
    assert_encoded(VHD_PLATFORM_W2KU, "/vm/base.vhd", "/vm", "\\vm\\base.vhd");
    assert_false(vhd_path_encode(VHD_PLATFORM_W2KU, "/vm/a\\b.vhd", "/vm", &data, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_false(vhd_path_encode(VHD_PLATFORM_W2KU, "/vm/\xFF.vhd", "/vm", &data, &err));
    assert_int_equal(err.code, ERR_INVALID);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(footer_round_trips),
        cmocka_unit_test(footer_of_511_bytes_is_read),
        cmocka_unit_test(every_flipped_bit_of_a_footer_is_seen),
        cmocka_unit_test(footer_fields_out_of_range_are_refused),
        cmocka_unit_test(geometry_is_that_of_other_writers),
        cmocka_unit_test(old_creators_show_the_size_of_the_geometry),
        cmocka_unit_test(header_round_trips),
        cmocka_unit_test(block_size_is_a_power_of_two_from_512),
        cmocka_unit_test(locator_space_is_sectors_below_512_else_bytes),
        cmocka_unit_test(bitmap_is_whole_sectors),
        cmocka_unit_test(bits_agree_with_one_by_one),
        cmocka_unit_test(the_first_sector_is_the_top_bit),
        cmocka_unit_test(locators_name_paths),
        cmocka_unit_test(a_windows_path_is_looked_for_beside_the_child),
        cmocka_unit_test(paths_become_locators),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
