/* The device state against what QEMU says that it is. */
#include "description.h"
#include "stream.h"
#include "stream_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

/* Two devices: the second with a struct that has a subsection, twice, and a subsection of its own. */
#define DEVICES                                                                                              \
    "{\"name\": \"timer\", \"instance_id\": 1, \"version\": 2, \"fields\": ["                                \
    "{\"name\": \"ticks\", \"size\": 8}, {\"name\": \"array\", \"size\": 2, \"array_len\": 3}]},"            \
    "{\"name\": \"cpu\", \"instance_id\": 0, \"fields\": ["                                                  \
    "{\"name\": \"regs\", \"size\": 13, \"array_len\": 2, \"struct\": {\"vmsd_name\": \"regs\", "            \
    "\"fields\": [{\"name\": \"ip\", \"size\": 4}], "                                                        \
    "\"subsections\": [{\"vmsd_name\": \"r\", \"version\": 5, \"fields\": [{\"name\": \"f\", \"size\": 2}]}]}}], " \
    "\"subsections\": [{\"vmsd_name\": \"cpu/more\", \"version\": 1, \"fields\": []}]}"

static void put_device(struct buf *out, uint32_t section, const char *name, uint32_t instance, uint32_t version)
{
    w_u8(out, 4);
    w_u32(out, section);
    w_str8(out, name);
    w_u32(out, instance);
    w_u32(out, version);
}

static void put_subsection(struct buf *out, const char *name, uint32_t version)
{
    w_u8(out, 5);
    w_str8(out, name);
    w_u32(out, version);
}

static void put_devices(struct buf *out)
{
    put_device(out, 7, "timer", 1, 2);
    w_u64(out, 99);
    w_bytes(out, "abcdef", 6);
    w_footer(out, 7);
    put_device(out, 8, "cpu", 0, 12);
    for (uint32_t i = 0; i < 2; i++) {
        w_u32(out, i);
        put_subsection(out, "r", 5);
        w_u16(out, 3);
    }
    put_subsection(out, "cpu/more", 1);
    w_footer(out, 8);
}

static void put_description(struct buf *out, const char *json)
{
    w_u8(out, 0);
    w_u8(out, 6);
    w_u32(out, (uint32_t)strlen(json));
    w_bytes(out, json, strlen(json));
}

static bool agrees(const struct buf *state, struct err *err)
{
    size_t description = 0;
    return stream_check_state(state->data, state->length, &description, err) &&
           description_check(state->data, state->length, description, err);
}

static void expect_disagreement(const char *json, const char *says)
{
    AUTO_BUF struct buf state = BUF_INIT;
    struct err err = ERR_INIT;
    put_devices(&state);
    put_description(&state, json);
    assert_false(agrees(&state, &err));
    assert_int_equal(err.code, ERR_CORRUPT);
    if (!strstr(err.text, says))
        fail_msg("'%s' does not say '%s'", err.text, says);
}

static void state_as_it_is_described_agrees(void **unused)
{
    (void)unused;
    AUTO_BUF struct buf state = BUF_INIT;
    struct err err = ERR_INIT;
    put_devices(&state);
    put_description(&state, "{\"devices\": [" DEVICES "]}");
    if (!agrees(&state, &err))
        fail_msg("%s", err.text);
}

/* Field contents and section ids are the devices' own business; names, versions, instances, marks are not. */
static void damage_to_a_sections_frame_is_found(void **unused)
{
    (void)unused;
    AUTO_BUF struct buf state = BUF_INIT;
    struct err err = ERR_INIT;
    put_devices(&state);
    size_t length = state.length;
    put_description(&state, "{\"devices\": [" DEVICES "]}");
    unsigned missed = 0;
    for (size_t at = 0; at < length; at++) {
        state.data[at] ^= 0x55;
        missed += agrees(&state, &err) ? 1 : 0;
        state.data[at] ^= 0x55;
    }
    /* 14 of timer's fields, 2 * (4 + 2) of cpu's, 4 of cpu's version, which is not described. */
    assert_int_equal(missed, 14 + 12 + 4);
}

static void a_description_of_another_state_is_corrupt(void **unused)
{
    (void)unused;
    expect_disagreement("{\"devices\": []}", "more state");
    expect_disagreement("{\"devices\": [{\"name\": \"cpu\"}]}", "no device cpu");
    expect_disagreement("{\"devices\": [{\"name\": \"timer\", \"instance_id\": 2}]}", "no instance of the device timer");
    expect_disagreement("{\"devices\": [{\"name\": \"timer\", \"instance_id\": 1, \"version\": 3}]}", "version 2");
    expect_disagreement("{\"devices\": [{\"name\": \"timer\", \"instance_id\": 1, \"version\": 2, "
                        "\"fields\": [{\"name\": \"ticks\", \"size\": 13}]}]}", "no footer of the device timer");
    expect_disagreement("{\"devices\": [" DEVICES ", {\"name\": \"more\"}]}", "no section of the device more");
}

static void a_description_that_makes_no_sense_is_corrupt(void **unused)
{
    (void)unused;
#define TIMER(fields) "{\"devices\": [{\"name\": \"timer\", \"instance_id\": 1, \"version\": 2, \"fields\": [" fields "]}]}"
    expect_disagreement("{\"devices\": {}}", "names no devices");
    expect_disagreement("{\"devices\": [}", "description");
    expect_disagreement("{\"devices\": [7]}", "without a name");
    expect_disagreement(TIMER("7"), "without a name");
    expect_disagreement(TIMER("{\"name\": \"a\"}"), "without a size");
    expect_disagreement(TIMER("{\"name\": \"a\", \"size\": -1}"), "size is no number");
    expect_disagreement(TIMER("{\"name\": \"a\", \"size\": 1.5}"), "size is no number");
    expect_disagreement(TIMER("{\"name\": \"a\", \"size\": 9223372036854775807}"), "size is no number");
    expect_disagreement(TIMER("{\"name\": \"a\", \"size\": 60, \"array_len\": 60}"), "reaches behind the end");
    expect_disagreement(TIMER("{\"name\": \"a\", \"size\": 9, \"struct\": {\"fields\": [{\"name\": \"b\", \"size\": 8}]}}"),
                        "takes 8 bytes, not 9");
#undef TIMER
}

static void structs_without_end_are_corrupt(void **unused)
{
    (void)unused;
    AUTO_BUF struct buf json = BUF_INIT;
    assert_true(buf_printf(&json, "{\"devices\": [{\"name\": \"timer\", \"instance_id\": 1, \"fields\": ["));
    for (unsigned i = 0; i < 200; i++)
        assert_true(buf_printf(&json, "{\"name\": \"a\", \"size\": 1, \"struct\": {\"fields\": ["));
    for (unsigned i = 0; i < 200; i++)
        assert_true(buf_printf(&json, "]}}"));
    assert_true(buf_printf(&json, "]}]}"));
    AUTO_FREE char *text = buf_take_string(&json);
    expect_disagreement(text, "structs in more than");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(state_as_it_is_described_agrees),
        cmocka_unit_test(damage_to_a_sections_frame_is_found),
        cmocka_unit_test(a_description_of_another_state_is_corrupt),
        cmocka_unit_test(a_description_that_makes_no_sense_is_corrupt),
        cmocka_unit_test(structs_without_end_are_corrupt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
