/* Errors, bytes, buffers, GUIDs, UTF-16. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auto.h"
#include "buf.h"
#include "bytes.h"
#include "err.h"
#include "guid.h"
#include "log.h"
#include "utf16.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

static void a_long_prefix_is_cut_and_the_reason_stays(void **state)
{
    struct err err;
    char where[600];

    (void)state;
    memset(where, 'w', sizeof where - 1);
    where[sizeof where - 1] = '\0';
    assert_false(err_sys(&err, ENOENT, "open %s", "disk.vhd"));
    assert_false(err_prefix(&err, "%s", where));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(err.sys, ENOENT);
    const char *reason = ": open disk.vhd: No such file or directory";
    assert_string_equal(err.text + strlen(err.text) - strlen(reason), reason);
    assert_true(strlen(err.text) < sizeof err.text);
}

static void every_error_code_has_a_name_of_its_own(void **state)
{
    (void)state;
    for (unsigned code = 0; code < ERR_CODES; code++)
        assert_int_equal(err_code_by_name(err_name((enum err_code)code)), code);
    assert_int_equal(err_code_by_name("no such name"), ERR_INTERNAL);
    assert_int_equal(err_exit_status(ERR_USAGE), 2);
}

static void full_disks_are_enospc_for_block_clients(void **state)
{
    struct err err;

    (void)state;
    assert_false(err_sys(&err, EDQUOT, "write x"));
    assert_int_equal(err.code, ERR_NO_SPACE);
    assert_int_equal(err_errno(&err), ENOSPC);
    assert_false(err_sys(&err, EROFS, "write x"));
    assert_int_equal(err_errno(&err), EIO);
}

static void sizes_parse_with_units_and_nothing_else(void **state)
{
    static const struct {
        const char *text;
        uint64_t bytes;
    } GOOD[] = {{"0", 0},           {"512", 512},          {"1K", 1024},           {"1.5G", 3ULL << 29},
                {"2GiB", 2ULL << 30}, {"2TB", 2ULL << 40}, {"15e", 15ULL << 60}, {"64m", 64ULL << 20}};
    static const char *const BAD[] = {"", "-1", "G", "1X", "1GG", "16E", "99999999999999999999", " 1", "1 G", "0x10"};
    uint64_t bytes;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(GOOD); i++) {
        assert_true(size_parse(GOOD[i].text, &bytes));
        assert_int_equal(bytes, GOOD[i].bytes);
    }
    for (size_t i = 0; i < ARRAY_SIZE(BAD); i++)
        assert_false(size_parse(BAD[i], &bytes));
}

static void integers_survive_both_byte_orders(void **state)
{
    uint8_t bytes[8];

    (void)state;
    put_be64(bytes, 0x0123456789ABCDEFULL);
    assert_int_equal(bytes[0], 0x01);
    assert_int_equal(get_be64(bytes), 0x0123456789ABCDEFULL);
    assert_int_equal(get_le64(bytes), 0xEFCDAB8967452301ULL);
    put_le32(bytes, 0xDEADBEEF);
    assert_int_equal(bytes[0], 0xEF);
    assert_int_equal(get_be16(bytes), 0xEFBE);
}

static void zero_detection_sees_a_single_byte_anywhere(void **state)
{
    uint8_t bytes[100] = {0};

    (void)state;
    assert_true(bytes_are_zero(bytes, sizeof bytes));
    assert_true(bytes_are_zero(bytes, 0));
    for (size_t i = 0; i < sizeof bytes; i++) {
        bytes[i] = 1;
        assert_false(bytes_are_zero(bytes, sizeof bytes));
        assert_true(bytes_are_zero(bytes, i));
        bytes[i] = 0;
    }
}

static void buffers_grow_and_stay_strings(void **state)
{
    AUTO_BUF struct buf buf = BUF_INIT;

    (void)state;
    for (int i = 0; i < 1000; i++)
        assert_true(buf_printf(&buf, "%d,", i));
    assert_int_equal(strlen((char *)buf.data), buf.length);
    assert_null(buf_reserve(&buf, SIZE_MAX - 4));
    AUTO_FREE char *text = buf_take_string(&buf);
    assert_memory_equal(text, "0,1,2,", 6);
    assert_int_equal(buf.length, 0);
}

static void guids_are_fresh_upper_case_and_compared_without_case(void **state)
{
    struct guid a = guid_new(), b = guid_new(), parsed;
    char lower[GUID_LENGTH + 1];

    (void)state;
    assert_false(guid_equal(&a, &b));
    for (size_t i = 0; i <= GUID_LENGTH; i++) {
        assert_false(a.text[i] >= 'a' && a.text[i] <= 'f');
        lower[i] = (char)(a.text[i] >= 'A' && a.text[i] <= 'F' ? a.text[i] + 32 : a.text[i]);
    }
    assert_true(guid_parse(lower, &parsed));
    assert_string_equal(parsed.text, a.text);
    assert_true(guid_has_prefix(&a, "") && !guid_has_prefix(&a, "X"));
    lower[4] = '\0';
    assert_true(guid_has_prefix(&a, lower));
    assert_false(guid_parse("not a guid", &parsed));
    assert_false(guid_parse("{01234567-89AB-CDEF-0123-456789ABCDEF}", &parsed));
}

static void utf16_keeps_every_text_in_both_orders(void **state)
{
    static const char *const TEXTS[] = {"", ".\\base.vhd", "Schnappschuß", "快照", "\xF0\x9F\x8C\xB3 tree",
                                        "\xED\xA0\x80 unpaired"};
    uint8_t bytes[128];
    size_t length;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(TEXTS); i++) {
        for (int order = UTF16_LE; order <= UTF16_BE; order++) {
            assert_true(utf16_encode(TEXTS[i], (enum utf16_order)order, bytes, sizeof bytes, &length));
            AUTO_FREE char *text = utf16_decode(bytes, length, (enum utf16_order)order);
            assert_string_equal(text, TEXTS[i]);
        }
    }
}

static void utf16_refuses_what_is_no_utf8_or_does_not_fit(void **state)
{
    static const char *const BAD[] = {"\xC0\x80", "\xFF", "\xE2\x82", "\x80", "\xF4\x90\x80\x80"};
    uint8_t bytes[4];
    size_t length;

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(BAD); i++)
        assert_false(utf16_encode(BAD[i], UTF16_LE, bytes, sizeof bytes, &length));
    assert_false(utf16_encode("abc", UTF16_LE, bytes, sizeof bytes, &length));
    assert_true(utf16_encode("ab", UTF16_LE, bytes, sizeof bytes, &length));
}

/* What the function writes to standard error. */
static void written_by(void (*write_it)(void), char *text, size_t size)
{
    int file = memfd_create("log", MFD_CLOEXEC), before = dup(STDERR_FILENO);

    fflush(stderr);
    assert_true(file >= 0 && before >= 0 && dup2(file, STDERR_FILENO) >= 0);
    write_it();
    fflush(stderr);
    assert_true(dup2(before, STDERR_FILENO) >= 0);
    ssize_t length = pread(file, text, size - 1, 0);
    assert_true(length >= 0);
    text[length] = '\0';
    close(before);
    close(file);
}

static void log_names(void)
{
    log_warning("%s: is damaged", "a\nb\x1b[2J\x7f\xc2\x9b\xc3\xa4.vhd");
}

static void a_name_makes_no_line_of_its_own_in_the_log(void **state)
{
    char text[256];

    (void)state;
    written_by(log_names, text, sizeof text);
    assert_string_equal(text, "bough: warning: a\\x0ab\\x1b[2J\\x7f\\xc2\\x9b\xc3\xa4.vhd: is damaged\n");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_long_prefix_is_cut_and_the_reason_stays),
        cmocka_unit_test(every_error_code_has_a_name_of_its_own),
        cmocka_unit_test(full_disks_are_enospc_for_block_clients),
        cmocka_unit_test(a_name_makes_no_line_of_its_own_in_the_log),
        cmocka_unit_test(sizes_parse_with_units_and_nothing_else),
        cmocka_unit_test(integers_survive_both_byte_orders),
        cmocka_unit_test(zero_detection_sees_a_single_byte_anywhere),
        cmocka_unit_test(buffers_grow_and_stay_strings),
        cmocka_unit_test(guids_are_fresh_upper_case_and_compared_without_case),
        cmocka_unit_test(utf16_keeps_every_text_in_both_orders),
        cmocka_unit_test(utf16_refuses_what_is_no_utf8_or_does_not_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
