/* Conversions between VHD and raw, in memory: what is written, what is left when they fail, and how a file's
 * format is told. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bytes.h"
#include "convert.h"
#include "disk.h"
#include "io_failing.h"
#include "io_memory.h"

#include <errno.h>
#include <string.h>

#define SIZE (8U << 20)

static struct err err;
static struct convert_result result;
static uint8_t pattern[5000];

static int pattern_fill(void **state)
{
    (void)state;
    for (size_t i = 0; i < sizeof pattern; i++)
        pattern[i] = (uint8_t)(i % 251 + 1);
    return 0;
}

static void write_file(const struct io *io, const char *path, uint64_t offset, const void *bytes,
                       size_t length)
{
    AUTO_IO struct io_file *file = NULL;
    unsigned flags = io_exists(io, path) ? IO_WRITE : IO_CREATE;

    assert_true(io_open(io, path, flags, &file, &err) && io_write(file, offset, bytes, length, &err));
}

/* /from.vhd: two blocks have data, and one zeros that hide the parent's. */
static struct io_memory *make_chain(enum io_memory_kind kind)
{
    struct io_memory *memory = io_memory_new(kind);
    const struct io *io = io_memory_io(memory);
    struct vhd_create_options base = {.type = VHD_DYNAMIC, .size_bytes = SIZE};
    struct vhd_create_options child = {.type = VHD_DIFFERENCING, .parent_path = "/base.vhd"};
    struct disk_options options = {.io = io, .writable = true};
    struct disk *disk = NULL;

    assert_true(vhd_create(io, "/base.vhd", &base, &err) && disk_open("/base.vhd", &options, &disk, &err));
    assert_true(disk_write(disk, 0, pattern, 4608, &err) && disk_write(disk, 4 << 20, pattern, 4608, &err));
    assert_true(disk_close(disk, &err) && vhd_create(io, "/from.vhd", &child, &err));
    assert_true(disk_open("/from.vhd", &options, &disk, &err) && disk_zero(disk, 4 << 20, 8192, &err));
    assert_true(disk_write(disk, SIZE - 512, pattern, 512, &err) && disk_close(disk, &err));
    if (kind == IO_MEMORY_FORGETS)
        io_memory_sync_all(memory);
    return memory;
}

static void content_make(uint8_t content[static SIZE])
{
    memset(content, 0, SIZE);
    memcpy(content, pattern, 4608);
    memcpy(content + SIZE - 512, pattern, 512);
}

static bool convert(const struct io *io, const char *from, const char *to, enum image_format format,
                    const struct progress *progress)
{
    const struct convert_options options = {.from = from, .to = to, .to_format = format};

    return convert_image(io, &options, progress, &result, &err);
}

static void assert_disk_is(const struct io *io, const char *path, const uint8_t *content, size_t length)
{
    AUTO_FREE uint8_t *bytes = malloc(length);
    struct disk_options options = {.io = io};
    AUTO_DISK struct disk *disk = NULL;

    assert_true(bytes && disk_open(path, &options, &disk, &err));
    assert_int_equal(disk_size_bytes(disk), length);
    assert_int_equal(disk_depth(disk), 1);
    assert_true(disk_read(disk, 0, bytes, length, &err));
    assert_memory_equal(bytes, content, length);
}

static void assert_file_is(const struct io *io, const char *path, const uint8_t *content, size_t length)
{
    AUTO_FREE uint8_t *bytes = malloc(length + 1);
    AUTO_IO struct io_file *file = NULL;
    size_t have;

    assert_true(bytes && io_open(io, path, IO_READ_ONLY, &file, &err));
    assert_true(io_read_some(file, 0, bytes, length + 1, &have, &err));
    assert_int_equal(have, length);
    assert_memory_equal(bytes, content, length);
}

static int count_name(void *context, const char *name)
{
    (void)name;
    ++*(unsigned *)context;
    return 0;
}

static unsigned names_in_root(const struct io *io)
{
    unsigned count = 0;

    assert_true(io_list(io, "/", count_name, &count, &err));
    return count;
}

static void a_chain_becomes_one_image_of_each_kind(void **state)
{
    (void)state;
    AUTO_IO_MEMORY struct io_memory *memory = make_chain(IO_MEMORY_PLAIN);
    const struct io *io = io_memory_io(memory);
    AUTO_FREE uint8_t *content = malloc(SIZE);

    content_make(content);
    assert_true(convert(io, "/from.vhd", "/d.vhd", IMAGE_DYNAMIC, NULL));
    assert_int_equal(result.from_format, IMAGE_VHD);
    assert_disk_is(io, "/d.vhd", content, SIZE);
    assert_true(convert(io, "/from.vhd", "/f.vhd", IMAGE_FIXED, NULL));
    assert_disk_is(io, "/f.vhd", content, SIZE);
    assert_true(convert(io, "/from.vhd", "/r", IMAGE_RAW, NULL));
    assert_file_is(io, "/r", content, SIZE);
    assert_true(convert(io, "/r", "/back.vhd", IMAGE_DYNAMIC, NULL));
    assert_int_equal(result.from_format, IMAGE_RAW);
    assert_disk_is(io, "/back.vhd", content, SIZE);
    assert_int_equal(names_in_root(io), 6);
}

static void zeros_take_no_space(void **state)
{
    (void)state;
    AUTO_IO_MEMORY struct io_memory *memory = make_chain(IO_MEMORY_PLAIN);
    const struct io *io = io_memory_io(memory);
    uint64_t before = io_memory_taken_bytes(memory);

    assert_true(convert(io, "/from.vhd", "/r", IMAGE_RAW, NULL));
    assert_int_equal(io_memory_taken_bytes(memory) - before, 3 * 4096);
    assert_int_equal(result.file_bytes, SIZE);
    assert_int_equal(result.file_allocated_bytes, 3 * 4096);
}

static void a_raw_file_of_an_odd_size_is_rounded_up_and_that_is_told(void **state)
{
    (void)state;
    AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_PLAIN);
    const struct io *io = io_memory_io(memory);
    uint8_t content[5120] = {0};

    memcpy(content, pattern, 5000);
    write_file(io, "/odd", 0, pattern, 5000);
    assert_true(convert(io, "/odd", "/d.vhd", IMAGE_DYNAMIC, NULL));
    assert_int_equal(result.size_bytes, 5120);
    assert_int_equal(result.added_bytes, 120);
    assert_disk_is(io, "/d.vhd", content, 5120);
    assert_true(convert(io, "/odd", "/same", IMAGE_RAW, NULL));
    assert_int_equal(result.size_bytes, 5000);
    assert_int_equal(result.added_bytes, 0);
    assert_file_is(io, "/same", content, 5000);
}

static void a_size_that_no_vhd_has_is_told_before_anything_is_written(void **state)
{
    (void)state;
    AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_PLAIN);
    const struct io *io = io_memory_io(memory);

    write_file(io, "/large", (2040ULL << 30), "x", 1);
    write_file(io, "/empty", 0, "", 0);
    for (enum image_format format = IMAGE_DYNAMIC; format <= IMAGE_FIXED; format++) {
        assert_false(convert(io, "/large", "/to.vhd", format, NULL));
        assert_int_equal(err.code, ERR_INVALID);
        assert_non_null(strstr(err.text, "2040 GiB"));
        assert_false(convert(io, "/empty", "/to.vhd", format, NULL));
        assert_int_equal(err.code, ERR_INVALID);
    }
    assert_int_equal(names_in_root(io), 2);
}

/* --- what ends it --- */

static bool cancel_first(void *context)
{
    return ++*(unsigned *)context == 1;
}

static const struct {
    const char *to;
    enum image_format format;
} TARGETS[] = {{"/to.vhd", IMAGE_DYNAMIC}, {"/to.vhd", IMAGE_FIXED}, {"/to.raw", IMAGE_RAW}};

static void a_cancelled_conversion_leaves_nothing(void **state)
{
    (void)state;
    AUTO_IO_MEMORY struct io_memory *memory = make_chain(IO_MEMORY_PLAIN);

    for (size_t i = 0; i < ARRAY_SIZE(TARGETS); i++) {
        unsigned asked = 0;
        struct progress progress = {.cancelled = cancel_first, .context = &asked};
        assert_false(convert(io_memory_io(memory), "/from.vhd", TARGETS[i].to, TARGETS[i].format, &progress));
        assert_int_equal(err.code, ERR_CANCELLED);
        assert_int_equal(names_in_root(io_memory_io(memory)), 2);
    }
}

static void a_conversion_that_fails_anywhere_leaves_nothing(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(TARGETS); i++) {
        AUTO_IO_MEMORY struct io_memory *memory = make_chain(IO_MEMORY_PLAIN);
        AUTO_IO_FAILING struct io_failing *failing = io_failing_new(io_memory_io(memory));
        uint64_t nth = 0;
        for (;;) {
            /* What removes may not fail here, else it could not. */
            unsigned calls = IO_CALLS_ALL & ~(IO_CALL_UNLINK | IO_CALL_DIR);
            io_failing_set(failing, (struct io_fault){.calls = calls, .nth = ++nth, .errnum = EIO});
            bool done = convert(io_failing_io(failing), "/from.vhd", TARGETS[i].to, TARGETS[i].format, NULL);
            if (!io_failing_struck(failing)) {
                assert_true(done);
                break;
            }
            assert_false(done);
            assert_int_equal(names_in_root(io_memory_io(memory)), 2);
        }
        assert_true(nth > 15);
    }
}

static void a_power_cut_anywhere_leaves_all_or_nothing_under_the_name(void **state)
{
    (void)state;
    AUTO_FREE uint8_t *content = malloc(SIZE);

    content_make(content);
    for (uint64_t nth = 1;; nth++) {
        AUTO_IO_MEMORY struct io_memory *memory = make_chain(IO_MEMORY_FORGETS);
        AUTO_IO_FAILING struct io_failing *failing = io_failing_new(io_memory_io(memory));
        const struct io *io = io_memory_io(memory);
        io_failing_set(failing, (struct io_fault){
                                    .calls = IO_CALLS_CHANGES, .nth = nth, .errnum = EIO, .forever = true});
        bool done = convert(io_failing_io(failing), "/from.vhd", "/to.vhd", IMAGE_DYNAMIC, NULL);
        bool cut = io_failing_struck(failing);
        io_memory_crash(memory, nth);
        assert_true(io_exists(io, "/to.vhd") || !done);
        if (io_exists(io, "/to.vhd"))
            assert_disk_is(io, "/to.vhd", content, SIZE);
        if (!cut) {
            assert_true(nth > 15);
            return;
        }
    }
}

/* --- the name --- */

struct intruder {
    const struct io *io;
    const char *path;
};

static void intrude(void *context, const char *phase, uint64_t done, uint64_t total)
{
    const struct intruder *intruder = context;

    (void)phase, (void)done, (void)total;
    if (!io_exists(intruder->io, intruder->path))
        write_file(intruder->io, intruder->path, 0, "mine", 4);
}

static void what_has_the_name_is_never_replaced(void **state)
{
    (void)state;
    AUTO_IO_MEMORY struct io_memory *memory = make_chain(IO_MEMORY_PLAIN);
    const struct io *io = io_memory_io(memory);
    AUTO_IO_FAILING struct io_failing *linkless = io_failing_new(io);
    struct intruder intruder = {.io = io, .path = "/to.vhd"};
    struct progress progress = {.report = intrude, .context = &intruder};

    assert_false(convert(io, "/from.vhd", "/base.vhd", IMAGE_DYNAMIC, NULL));
    assert_int_equal(err.code, ERR_EXISTS);
    assert_false(convert(io, "/from.vhd", "/to.vhd", IMAGE_DYNAMIC, &progress)); /* it comes meanwhile */
    assert_int_equal(err.code, ERR_EXISTS);
    assert_true(io_unlink(io, "/to.vhd", &err));
    io_failing_set(linkless, (struct io_fault){.calls = IO_CALL_LINK, .nth = 1, .errnum = EPERM});
    assert_false(convert(io_failing_io(linkless), "/from.vhd", "/to.vhd", IMAGE_DYNAMIC, &progress));
    assert_int_equal(err.code, ERR_EXISTS);
    assert_file_is(io, "/to.vhd", (const uint8_t *)"mine", 4);
    assert_int_equal(names_in_root(io), 3);
}

static void a_file_system_without_links_will_do(void **state)
{
    (void)state;
    AUTO_IO_MEMORY struct io_memory *memory = make_chain(IO_MEMORY_PLAIN);
    AUTO_IO_FAILING struct io_failing *linkless = io_failing_new(io_memory_io(memory));
    AUTO_FREE uint8_t *content = malloc(SIZE);

    content_make(content);
    io_failing_set(linkless, (struct io_fault){.calls = IO_CALL_LINK, .nth = 1, .errnum = EPERM});
    assert_true(convert(io_failing_io(linkless), "/from.vhd", "/to.vhd", IMAGE_DYNAMIC, NULL));
    assert_disk_is(io_memory_io(memory), "/to.vhd", content, SIZE);
    assert_int_equal(names_in_root(io_memory_io(memory)), 3);
}

/* --- which format --- */

static const uint8_t FOOTER_SECTOR[512] = "conectix";

static const struct {
    const char *path;
    const char *head;
    size_t head_bytes, head_offset;
    bool has_footer;
    enum image_format format; /* IMAGE_UNKNOWN: refused */
    enum err_code refused;
} FILES[] = {
    {"/plain", "", 0, 0, false, IMAGE_RAW, 0},
    {"/disk.img", "QFI\xfb\0\0\0\3", 8, 0, false, IMAGE_QCOW2, 0},
    {"/disk.raw", "QFI\xfb\0\0\0\3", 8, 0, false, IMAGE_RAW, 0}, /* a guest wrote that */
    {"/x", "QFI\xfb\0\0\0\2", 8, 0, false, IMAGE_QCOW2, 0},
    {"/x", "QFI\xfb\0\0\0\1", 8, 0, false, IMAGE_UNKNOWN, ERR_UNSUPPORTED},
    {"/x", "QED", 4, 0, false, IMAGE_UNKNOWN, ERR_UNSUPPORTED},
    {"/x", "KDMV", 4, 0, false, IMAGE_VMDK, 0},
    {"/x", "# Disk DescriptorFile", 21, 0, false, IMAGE_VMDK, 0},
    {"/x", "\x7f\x10\xda\xbe", 4, 64, false, IMAGE_VDI, 0},
    {"/x", "vhdxfile", 8, 0, false, IMAGE_VHDX, 0},
    {"/x", "conectix", 8, 0, false, IMAGE_VHD, 0},
    {"/x", "", 0, 0, true, IMAGE_VHD, 0}, /* fixed */
    {"/x.RAW", "", 0, 0, true, IMAGE_RAW, 0},
    {"/x.vhd", "QFI\xfb\0\0\0\3", 8, 0, true, IMAGE_VHD, 0}, /* fixed, and its guest wrote that */
    {"/x.qcow2", "QFI\xfb\0\0\0\3", 8, 0, true, IMAGE_QCOW2, 0},
    {"/x.img", "QFI\xfb\0\0\0\3", 8, 0, true, IMAGE_UNKNOWN, ERR_INVALID},
    /* Damaged: what the name promises, so that opening it tells what is wrong. */
    {"/x.vhd", "", 0, 0, false, IMAGE_VHD, 0},
    {"/x.avhd", "", 0, 0, false, IMAGE_VHD, 0},
    {"/x.qcow2", "", 0, 0, false, IMAGE_QCOW2, 0},
    {"/x.vhdx", "", 0, 0, false, IMAGE_VHDX, 0},
};

static void a_format_is_told_by_the_content_and_then_the_name(void **state)
{
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(FILES); i++) {
        AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_PLAIN);
        const struct io *io = io_memory_io(memory);
        enum image_format format = IMAGE_UNKNOWN;
        write_file(io, FILES[i].path, 4096, pattern, 512);
        write_file(io, FILES[i].path, FILES[i].head_offset, FILES[i].head, FILES[i].head_bytes);
        if (FILES[i].has_footer)
            write_file(io, FILES[i].path, 4608, FOOTER_SECTOR, sizeof FOOTER_SECTOR);
        bool told = image_format_detect(io, FILES[i].path, &format, &err);
        assert_int_equal(told, FILES[i].format != IMAGE_UNKNOWN);
        assert_int_equal(format, FILES[i].format);
        if (!told)
            assert_int_equal(err.code, FILES[i].refused);
    }
}

static void a_footer_of_511_bytes_is_one(void **state)
{
    (void)state;
    AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_PLAIN);
    enum image_format format;

    write_file(io_memory_io(memory), "/x", 4096, FOOTER_SECTOR, 511);
    assert_true(image_format_detect(io_memory_io(memory), "/x", &format, &err));
    assert_int_equal(format, IMAGE_VHD);
}

static void a_target_s_name_tells_its_format(void **state)
{
    (void)state;
    assert_int_equal(image_target_of_path("/a.vhd/b.QCOW2"), IMAGE_QCOW2);
    assert_int_equal(image_target_of_path("b.vhd"), IMAGE_DYNAMIC);
    assert_int_equal(image_target_of_path("b.img"), IMAGE_RAW);
    assert_int_equal(image_target_of_path("b.avhd"), IMAGE_UNKNOWN); /* it would have no parent */
    assert_int_equal(image_target_of_path("/a.vhd/b"), IMAGE_UNKNOWN);
    assert_int_equal(image_target_by_name("vhd"), IMAGE_UNKNOWN);
    assert_int_equal(image_source_by_name("dynamic"), IMAGE_UNKNOWN);
    assert_int_equal(image_source_by_name("vhd"), IMAGE_VHD);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_chain_becomes_one_image_of_each_kind),
        cmocka_unit_test(zeros_take_no_space),
        cmocka_unit_test(a_raw_file_of_an_odd_size_is_rounded_up_and_that_is_told),
        cmocka_unit_test(a_size_that_no_vhd_has_is_told_before_anything_is_written),
        cmocka_unit_test(a_cancelled_conversion_leaves_nothing),
        cmocka_unit_test(a_conversion_that_fails_anywhere_leaves_nothing),
        cmocka_unit_test(a_power_cut_anywhere_leaves_all_or_nothing_under_the_name),
        cmocka_unit_test(what_has_the_name_is_never_replaced),
        cmocka_unit_test(a_file_system_without_links_will_do),
        cmocka_unit_test(a_format_is_told_by_the_content_and_then_the_name),
        cmocka_unit_test(a_footer_of_511_bytes_is_one),
        cmocka_unit_test(a_target_s_name_tells_its_format),
    };

    return cmocka_run_group_tests(tests, pattern_fill, NULL);
}
