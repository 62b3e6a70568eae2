/* Checking, verifying and loading of what was saved; damage at every byte of a .vsv is found. */
#include "auto.h"
#include "bytes.h"
#include "save_fixture.h"
#include "stream_writer.h"
#include "vsv.h"

#include <fcntl.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <string.h>
#include <sys/socket.h>
#include <xxhash.h>

#include <cmocka.h>

static int setup(void **state)
{
    AUTO_BUF struct buf in = BUF_INIT;
    struct ram_save_result result;
    struct err err = ERR_INIT;
    fixture_setup(state);
    fixture_stream(&in);
    return fixture_save(*state, &in, F_MEMORY_BYTES, &result, &err) ? 0 : -1;
}

static void refuse_check(const struct save_fixture *fixture, enum err_code code, const char *text)
{
    struct err err = ERR_INIT;
    struct vsv_info info;
    assert_false(ram_check(fixture->vsv, fixture->bin, &info, &err));
    if (err.code != code || !strstr(err.text, text))
        fail_msg("%s: %s, but expected: %s", err_name(err.code), err.text, text);
}

static void refuse_verify(const struct save_fixture *fixture, enum err_code code, const char *text)
{
    struct err err = ERR_INIT;
    struct vsv_info info;
    assert_true(ram_check(fixture->vsv, fixture->bin, &info, &err));
    assert_false(ram_verify(fixture->vsv, fixture->bin, NULL, &err));
    if (err.code != code || !strstr(err.text, text))
        fail_msg("%s: %s, but expected: %s", err_name(err.code), err.text, text);
}

static void what_was_saved_checks_and_verifies(void **state)
{
    const struct save_fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct vsv_info info;
    assert_true(ram_check(fixture->vsv, fixture->bin, &info, &err));
    assert_true(ram_verify(fixture->vsv, fixture->bin, NULL, &err));
    assert_true(guid_is_set(&info.id));
    assert_int_equal(info.memory_bytes, F_MEMORY_BYTES);
    assert_string_equal(info.qemu_version, "7.2.22");
    assert_string_equal(info.machine, "pc-test");
}

static void damage_at_each_byte_of_vsv_is_found(void **state)
{
    const struct save_fixture *fixture = *state;
    AUTO_BUF struct buf vsv = BUF_INIT;
    fixture_read(fixture->vsv, &vsv);
    for (size_t i = 0; i < vsv.length; i++) {
        uint8_t damaged = (uint8_t)(vsv.data[i] ^ 1U << i % 8);
        struct err err = ERR_INIT;
        struct vsv_info info;
        fixture_patch(fixture->vsv, i, &damaged, 1);
        bool ok = ram_check(fixture->vsv, fixture->bin, &info, &err);
        if (ok || (err.code != ERR_CORRUPT && err.code != ERR_UNSUPPORTED))
            fail_msg("byte %zu: %s", i, ok ? "accepted" : err.text);
        assert_non_null(strstr(err.text, fixture->vsv));
        fixture_patch(fixture->vsv, i, &vsv.data[i], 1);
    }
}

/* A header whose checksum is right says what it must not say. */
static void each_field_of_the_header_is_checked(void **state)
{
    static const struct {
        size_t offset;
        uint8_t value;
        const char *text;
    } cases[] = {{11, 2, "version 2"},        {11, 0, "version 0"},        {14, 0, "header size"},
                 {23, 1, "memory_bytes"},     {16, 0x80, "memory_bytes"},  {26, 0, "page size"},
                 {29, 0, "chunk size"},       {39, 1, "table offset"},     {47, 1, "table size"},
                 {54, 0x30, "stream offset"}, {56, 1, "a stream of"},      {80, 'x', "GUID"},
                 {117, 'x', "GUID"},          {120, 1, "version of QEMU"}, {151, 'x', "version of QEMU"},
                 {152, 0, "machine"},         {215, 'x', "machine"},       {216, 1, "reserved"},
                 {4087, 1, "reserved"},       {63, 1, "its header says"},  {0, 'b', "magic"},
                 {20, 1, "table size"}};
    const struct save_fixture *fixture = *state;
    AUTO_BUF struct buf vsv = BUF_INIT;
    fixture_read(fixture->vsv, &vsv);
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        uint8_t header[VSV_HEADER_BYTES];
        memcpy(header, vsv.data, sizeof(header));
        if (header[cases[i].offset] == cases[i].value)
            fail_msg("case %zu changes nothing", i);
        header[cases[i].offset] = cases[i].value;
        put_be64(header + 4088, XXH3_64bits(header, 4088));
        fixture_patch(fixture->vsv, 0, header, sizeof(header));
        refuse_check(fixture, i == 0 ? ERR_UNSUPPORTED : ERR_CORRUPT, cases[i].text);
    }
}

static void the_header_survives_its_codec(void **state)
{
    (void)state;
    struct vsv_header header = {.info = {.id = guid_new(), .memory_bytes = 64ULL << 40},
                                .stream_bytes = 12345,
                                .stream_sum = 0x0123456789abcdef,
                                .table_sum = 0xfedcba9876543210};
    struct vsv_header again;
    struct err err = ERR_INIT;
    uint8_t bytes[VSV_HEADER_BYTES], bytes_again[VSV_HEADER_BYTES];
    memset(header.info.machine, 'm', sizeof(header.info.machine) - 1);
    memset(header.info.qemu_version, 'q', sizeof(header.info.qemu_version) - 1);
    vsv_encode(&header, bytes);
    assert_true(vsv_decode(bytes, &again, &err));
    assert_string_equal(again.info.machine, header.info.machine);
    assert_string_equal(again.info.qemu_version, header.info.qemu_version);
    assert_true(guid_equal(&again.info.id, &header.info.id));
    vsv_encode(&again, bytes_again);
    assert_memory_equal(bytes, bytes_again, sizeof(bytes));
}

static void a_vsv_of_another_length_is_corrupt(void **state)
{
    const struct save_fixture *fixture = *state;
    AUTO_BUF struct buf vsv = BUF_INIT;
    fixture_read(fixture->vsv, &vsv);
    const size_t lengths[] = {vsv.length + 1, vsv.length - 1, VSV_HEADER_BYTES, VSV_HEADER_BYTES - 1, 0};
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        assert_int_equal(truncate(fixture->vsv, (off_t)lengths[i]), 0);
        refuse_check(fixture, ERR_CORRUPT, fixture->vsv);
    }
}

static void a_bin_of_another_length_is_a_mismatch(void **state)
{
    const struct save_fixture *fixture = *state;
    const off_t lengths[] = {F_MEMORY_BYTES + 4096, F_MEMORY_BYTES - 1, 0};
    for (size_t i = 0; i < ARRAY_SIZE(lengths); i++) {
        assert_int_equal(truncate(fixture->bin, lengths[i]), 0);
        refuse_check(fixture, ERR_MISMATCH, fixture->bin);
    }
}

static void missing_files_are_not_found(void **state)
{
    const struct save_fixture *fixture = *state;
    unlink(fixture->bin);
    refuse_check(fixture, ERR_NOT_FOUND, fixture->bin);
    unlink(fixture->vsv);
    refuse_check(fixture, ERR_NOT_FOUND, fixture->vsv);
}

static void changed_memory_is_found_by_verify(void **state)
{
    const struct save_fixture *fixture = *state;
    fixture_patch(fixture->bin, 4097, "!", 1);
    refuse_verify(fixture, ERR_CORRUPT, "the 2097152 bytes at 0 is wrong");
}

static void changed_memory_in_the_last_part_of_a_chunk_is_found(void **state)
{
    const struct save_fixture *fixture = *state;
    fixture_patch(fixture->bin, F_MEMORY_BYTES - 1, "!", 1);
    refuse_verify(fixture, ERR_CORRUPT, "the 1048576 bytes at 4194304 is wrong");
}

static void how_much_is_wrong_is_told(void **state)
{
    const struct save_fixture *fixture = *state;
    fixture_patch(fixture->bin, F_MEMORY_BYTES - 1, "!", 1);
    fixture_patch(fixture->bin, 3 << 20, "!", 1);
    refuse_verify(fixture, ERR_CORRUPT, "the 2097152 bytes at 2097152 is wrong, and of 1 more such chunks");
}

static void content_in_a_hole_is_found_by_verify(void **state)
{
    const struct save_fixture *fixture = *state;
    fixture_patch(fixture->bin, 3 << 20, "!", 1);
    refuse_verify(fixture, ERR_CORRUPT, "bytes at 2097152 is wrong");
}

static void a_hole_in_content_is_found_by_verify(void **state)
{
    const struct save_fixture *fixture = *state;
    assert_int_equal(truncate(fixture->bin, 0), 0);
    assert_int_equal(truncate(fixture->bin, F_MEMORY_BYTES), 0);
    refuse_verify(fixture, ERR_CORRUPT, "bytes at 0 is wrong");
}

static void two_pages_exchanged_are_found_by_verify(void **state)
{
    const struct save_fixture *fixture = *state;
    uint8_t page[4096];
    w_page_bytes(page, 2);
    fixture_patch(fixture->bin, 0, page, sizeof(page));
    w_page_bytes(page, 1);
    fixture_patch(fixture->bin, 4096, page, sizeof(page));
    refuse_verify(fixture, ERR_CORRUPT, "bytes at 0 is wrong");
}

static void zeros_that_are_no_hole_verify(void **state)
{
    const struct save_fixture *fixture = *state;
    struct err err = ERR_INIT;
    static const uint8_t zeros[8192];
    fixture_patch(fixture->bin, 3 << 20, zeros, sizeof(zeros));
    assert_true(ram_verify(fixture->vsv, fixture->bin, NULL, &err));
}

static bool always(void *context)
{
    (void)context;
    return true;
}

static void verify_can_be_cancelled(void **state)
{
    const struct save_fixture *fixture = *state;
    struct err err = ERR_INIT;
    assert_false(ram_verify(fixture->vsv, fixture->bin, &(struct progress){.cancelled = always}, &err));
    assert_int_equal(err.code, ERR_CANCELLED);
}

static void load_gives_the_stream_and_its_end(void **state)
{
    const struct save_fixture *fixture = *state;
    AUTO_BUF struct buf vsv = BUF_INIT;
    struct err err = ERR_INIT;
    struct ram_load *load = NULL;
    int ends[2];
    fixture_read(fixture->vsv, &vsv);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_true(ram_load_start(fixture->vsv, ends[0], &load, &err));
    uint64_t start = vsv_stream_offset(F_MEMORY_BYTES);
    size_t got = 0;
    uint8_t piece[1000];
    for (ssize_t length = 0; (length = read(ends[1], piece, sizeof(piece))) > 0; got += (size_t)length)
        assert_memory_equal(piece, vsv.data + start + got, length);
    assert_int_equal(got, vsv.length - start);
    assert_true(ram_load_finish(load, &err));
    close(ends[1]);
}

/* The .vsv with a stream too long for any socket's buffer, so that its writer must wait. */
static void write_long_vsv(const struct save_fixture *fixture)
{
    static const struct w_block blocks[] = {{"pc.ram", 4096}, {"vram", 8 << 20}};
    AUTO_BUF struct buf in = BUF_INIT;
    struct ram_save_result result;
    struct err err = ERR_INIT;
    unlink(fixture->bin);
    unlink(fixture->vsv);
    w_open(&in, blocks, 2);
    w_part(&in);
    w_zero(&in, "pc.ram", 0);
    for (unsigned i = 0; i < (8 << 20) / 4096; i++)
        w_page(&in, "vram", i * 4096, i + 1);
    w_eos(&in);
    w_state(&in);
    assert_true(fixture_save(fixture, &in, 4096, &result, &err));
}

static void a_reader_that_closes_early_is_an_error_of_qemu(void **state)
{
    const struct save_fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct ram_load *load = NULL;
    int ends[2];
    write_long_vsv(fixture);
    signal(SIGPIPE, SIG_DFL);
    for (unsigned is_pipe = 0; is_pipe < 2; is_pipe++) {
        if (is_pipe)
            assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        else
            assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
        int reader = is_pipe ? ends[0] : ends[1];
        assert_true(ram_load_start(fixture->vsv, is_pipe ? ends[1] : ends[0], &load, &err));
        uint8_t piece[1000];
        assert_true(read(reader, piece, sizeof(piece)) > 0);
        close(reader);
        assert_false(ram_load_finish(load, &err));
        assert_int_equal(err.code, ERR_QEMU);
    }
}

static void an_abandoned_load_ends_at_once(void **state)
{
    const struct save_fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct ram_load *load = NULL;
    int ends[2];
    write_long_vsv(fixture);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_true(ram_load_start(fixture->vsv, ends[0], &load, &err));
    ram_load_abandon(load);
    ram_load_abandon(NULL);
    close(ends[1]);
}

static void a_load_of_a_damaged_file_does_not_start(void **state)
{
    const struct save_fixture *fixture = *state;
    struct err err = ERR_INIT;
    struct ram_load *load = NULL;
    int ends[2];
    uint8_t byte = 0;
    fixture_patch(fixture->vsv, 100, "!", 1);
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends), 0);
    assert_false(ram_load_start(fixture->vsv, ends[0], &load, &err));
    assert_int_equal(err.code, ERR_CORRUPT);
    assert_int_equal(read(ends[1], &byte, 1), 0); /* the descriptor was taken all the same */
    close(ends[1]);
}

#define test_of(function) cmocka_unit_test_setup_teardown(function, setup, fixture_teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test_of(what_was_saved_checks_and_verifies),
        test_of(damage_at_each_byte_of_vsv_is_found),
        test_of(each_field_of_the_header_is_checked),
        cmocka_unit_test(the_header_survives_its_codec),
        test_of(a_vsv_of_another_length_is_corrupt),
        test_of(a_bin_of_another_length_is_a_mismatch),
        test_of(missing_files_are_not_found),
        test_of(changed_memory_is_found_by_verify),
        test_of(changed_memory_in_the_last_part_of_a_chunk_is_found),
        test_of(how_much_is_wrong_is_told),
        test_of(content_in_a_hole_is_found_by_verify),
        test_of(a_hole_in_content_is_found_by_verify),
        test_of(two_pages_exchanged_are_found_by_verify),
        test_of(zeros_that_are_no_hole_verify),
        test_of(verify_can_be_cancelled),
        test_of(load_gives_the_stream_and_its_end),
        test_of(a_reader_that_closes_early_is_an_error_of_qemu),
        test_of(an_abandoned_load_ends_at_once),
        test_of(a_load_of_a_damaged_file_does_not_start),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
