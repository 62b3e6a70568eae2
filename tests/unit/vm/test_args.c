/* Arguments of operations: from a socket, so anything. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "args.h"

#include <string.h>

static json_t *json(const char *text)
{
    json_t *value = json_loads(text, JSON_DECODE_ANY | JSON_ALLOW_NUL, NULL);

    assert_non_null(value);
    return value;
}

static void arguments_of_the_wrong_type_are_usage_errors_by_name(void **state)
{
    json_t *args = json("{\"b\": 1, \"s\": true, \"u\": -1, \"a\": {}, \"nul\": \"x\\u0000y\"}");
    struct err err;
    bool flag = true;
    const char *text = "kept";
    uint64_t number = 7;
    const json_t *list;

    (void)state;
    assert_false(args_bool(args, "b", &flag, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_non_null(strstr(err.text, "'b'"));
    assert_false(args_string(args, "s", &text, &err));
    assert_false(args_string(args, "nul", &text, &err));
    assert_false(args_uint(args, "u", 10, &number, &err));
    assert_false(args_array(args, "a", &list, &err));
    assert_false(args_required(args, "missing", &text, &err));
    assert_true(flag && number == 7);
    assert_string_equal(text, "kept");
    json_decref(args);
}

static void missing_and_null_arguments_keep_their_defaults(void **state)
{
    json_t *args = json("{\"b\": null, \"u\": null, \"s\": null, \"a\": null}");
    struct err err;
    bool flag = true;
    const char *text = "default";
    uint64_t number = 7;
    const json_t *list = args;

    (void)state;
    assert_true(args_bool(args, "b", &flag, &err) && args_bool(NULL, "b", &flag, &err));
    assert_true(args_uint(args, "u", 10, &number, &err) && args_string(args, "s", &text, &err));
    assert_true(args_array(args, "a", &list, &err));
    assert_true(flag && number == 7 && list == NULL);
    assert_string_equal(text, "default");
    json_decref(args);
}

static void numbers_are_bounded(void **state)
{
    json_t *args = json("{\"ten\": 10, \"eleven\": 11, \"real\": 1.5}");
    struct err err;
    uint64_t number;

    (void)state;
    assert_true(args_uint(args, "ten", 10, &number, &err));
    assert_int_equal(number, 10);
    assert_false(args_uint(args, "eleven", 10, &number, &err));
    assert_false(args_uint(args, "real", 10, &number, &err));
    json_decref(args);
}

static void unknown_arguments_are_refused(void **state)
{
    static const char *const KNOWN[] = {"a", "b", NULL};
    json_t *good = json("{\"a\": 1, \"b\": 2}"), *bad = json("{\"a\": 1, \"c\": 2}"), *list = json("[]");
    struct err err;

    (void)state;
    assert_true(args_known(good, KNOWN, &err) && args_known(NULL, KNOWN, &err));
    assert_false(args_known(bad, KNOWN, &err));
    assert_non_null(strstr(err.text, "'c'"));
    assert_false(args_known(list, KNOWN, &err));
    json_decref(good);
    json_decref(bad);
    json_decref(list);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(arguments_of_the_wrong_type_are_usage_errors_by_name),
        cmocka_unit_test(missing_and_null_arguments_keep_their_defaults),
        cmocka_unit_test(numbers_are_bounded),
        cmocka_unit_test(unknown_arguments_are_refused),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
