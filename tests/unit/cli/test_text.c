/* Text for terminals, times, and options. */
#include "cli_options.h"
#include "cli_output.h"
#include "cli_text.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include <cmocka.h>

static void assert_escaped(const char *text, const char *expected, enum text_form form)
{
    char *escaped = text_escape(text, form);

    assert_string_equal(escaped, expected);
    free(escaped);
}

static void plain_text_of_any_script_stays(void **state)
{
    static const char *const TEXTS[] = {"", "web server", "Größe und 日本", "\xf0\x9f\x8c\xb3 tree",
                                        "100 % \\x"};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(TEXTS); i++)
        assert_escaped(TEXTS[i], TEXTS[i], TEXT_ONE_LINE);
}

static void control_characters_are_escaped(void **state)
{
    (void)state;
    assert_escaped("a\033[31mb\ac\x7f", "a\\x1b[31mb\\x07c\\x7f", TEXT_ONE_LINE);
    assert_escaped("\xc2\x9b"
                   "31m",
                   "\\u009b31m", TEXT_ONE_LINE);
    assert_escaped("a\r\n\tb", "a\\x0d\\x0a\\x09b", TEXT_ONE_LINE);
    assert_escaped("a\r\n\tb", "a\\x0d\n\tb", TEXT_LINES);
}

static void what_turns_the_direction_of_writing_is_escaped(void **state)
{
    (void)state;
    assert_escaped("a\xe2\x80\xae"
                   "b",
                   "a\\u202eb", TEXT_ONE_LINE);
    assert_escaped("\xe2\x81\xa6x\xe2\x80\xa8", "\\u2066x\\u2028", TEXT_LINES);
}

static void bytes_that_are_no_utf8_are_escaped(void **state)
{
    (void)state;
    assert_escaped("\xff\xfe", "\\xff\\xfe", TEXT_ONE_LINE);
    assert_escaped("a\xc3", "a\\xc3", TEXT_ONE_LINE);                          /* cut off */
    assert_escaped("\xe2\x82", "\\xe2\\x82", TEXT_ONE_LINE);                   /* cut off */
    assert_escaped("\xc0\x9b", "\\xc0\\x9b", TEXT_ONE_LINE);                   /* overlong ESC */
    assert_escaped("\xed\xa0\x80", "\\xed\\xa0\\x80", TEXT_ONE_LINE);          /* a surrogate */
    assert_escaped("\xf4\x90\x80\x80", "\\xf4\\x90\\x80\\x80", TEXT_ONE_LINE); /* beyond Unicode */
    assert_escaped("\x80z", "\\x80z", TEXT_ONE_LINE);
}

static void times_for_programs_are_utc_with_milliseconds(void **state)
{
    char text[32];

    (void)state;
    assert_string_equal(time_rfc3339(0, text), "1970-01-01T00:00:00.000Z");
    assert_string_equal(time_rfc3339(1772373909123, text), "2026-03-01T14:05:09.123Z");
    assert_string_equal(time_rfc3339(-1, text), "1969-12-31T23:59:59.999Z");
    assert_string_equal(time_rfc3339(INT64_MAX, text), "1970-01-01T00:00:00.807Z"); /* no such year */
}

static void times_for_people_are_local(void **state)
{
    char text[32];

    (void)state;
    setenv("TZ", "UTC-2", 1); /* two hours east */
    tzset();
    assert_string_equal(time_local(1772373909123, text), "2026-03-01 16:05:09");
}

static void text_that_is_no_utf8_still_becomes_json(void **state)
{
    (void)state;
    json_auto_t *value = json_from_text("a\xff");
    json_auto_t *null = json_from_text(NULL);
    assert_string_equal(json_string_value(value), "a\\xff");
    assert_true(json_is_null(null));
}

struct values {
    struct cli_list list;
};

static void an_option_given_too_often_is_refused(void **state)
{
    static const struct cli_option OPTIONS[] = {{"x", CLI_LIST, offsetof(struct values, list), "X", "x"}};
    static const struct cli_syntax SYNTAX = {OPTIONS, 1, 0, 0};
    char verb[] = "v", option[] = "--x=1";
    char *argv[CLI_LIST_MAX + 3] = {verb};
    struct values values = {0};
    struct cli_operands operands;
    int status = -1;

    (void)state;
    for (int i = 1; i <= CLI_LIST_MAX + 1; i++)
        argv[i] = option;
    assert_true(cli_parse(&SYNTAX, CLI_LIST_MAX + 1, argv, &values, &operands, &status));
    assert_int_equal(values.list.count, CLI_LIST_MAX);
    values.list.count = 0;
    assert_false(cli_parse(&SYNTAX, CLI_LIST_MAX + 2, argv, &values, &operands, &status));
    assert_int_equal(status, 2);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(plain_text_of_any_script_stays),
        cmocka_unit_test(control_characters_are_escaped),
        cmocka_unit_test(what_turns_the_direction_of_writing_is_escaped),
        cmocka_unit_test(bytes_that_are_no_utf8_are_escaped),
        cmocka_unit_test(times_for_programs_are_utc_with_milliseconds),
        cmocka_unit_test(times_for_people_are_local),
        cmocka_unit_test(text_that_is_no_utf8_still_becomes_json),
        cmocka_unit_test(an_option_given_too_often_is_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
