/* What a save in several passes does with news of a QEMU, told by a monitor that follows a script. */
#include "save_script.h"

/* --- several passes, each of which ends while the guest stands --- */

#define LEFT_VALUE(pages) "{\"status\": \"active\", \"ram\": {\"mbps\": 100, \"remaining\": " pages "000}}"
#define LEFT(pages)       ANSWER(LEFT_VALUE(pages))
/* What comes before the answer has not come before the question. */
#define LEFT_MUCH_BEHIND(...)                                                                                \
    READ_LINE, __VA_ARGS__,                                                                                  \
    {                                                                                                        \
        FAKE_SEND, "{\"return\": " LEFT_VALUE("40960") ", \"id\": $}\r\n", 0                                 \
    }
#define LEFT_MUCH   LEFT("40960") /* 10000 pages */
#define LEFT_SOME   LEFT("4096") /* 1000 */
#define LEFT_LITTLE LEFT("409") /* 99 */
#define RUNS_ON     ANSWER_BEHIND(EVENT_AT("RESUME", "", "2000"))
#define STOPPED     ANSWER_BEHIND(EVENT_AT("STOP", "", "3000")), STATUS("paused")
#define LAST        MIGRATION("pre-switchover"), PASS, FINISHED, ANSWER_BEHIND(EVENT_AT("RESUME", "", "9000")), READ_LINE

static void with_tcg_a_paced_reader_lets_each_pass_end_while_the_guest_stands(void **state)
{
    (void)state;
    pace_next();
    assert_true(SAVE(WELCOME_10, HELD, LEFT_MUCH, RUNS_ON, LEFT_MUCH, LEFT_LITTLE, STOPPED, PASS, LEFT_SOME,
                     ANSWER_BEHIND(EVENT_AT("RESUME", "", "3500")), LEFT_SOME, LEFT_LITTLE, STOPPED, PASS, LEFT_LITTLE, LAST));
    assert_non_null(strstr(received, "\"downtime-limit\":1,\"avail-switchover-bandwidth\":"));
    assert_int_equal(stops, 2);
    assert_int_equal(result.pauses, 3);
    assert_int_equal(result.pause_us, 6000);
    assert_int_equal(result.paused_us, 7500);
    assert_int_equal(result.passes, 4);
    assert_false(result.too_fast);
    assert_int_equal(instants, 1);
    assert_int_equal(json_array_size(events), 0);
    /* Nothing until it is known how much there is, and when the guest goes on; all in the end. */
    assert_int_equal(pace_count, 8);
    assert_true(paces[0] == 0 && paces[1] == 0 && paces[4] == 0 && paces[7] == UINT64_MAX);
    assert_in_range(paces[2], 4096, 9 * (10000 - 64) * 2); /* the pages of the first pass may all be zeros */
    assert_in_range(paces[3], 99 * 4104, 99 * 4112 + (2 << 20));
}

/* Before 9.0 TCG must be made to forget what it may write to, each time before the guest goes on. */
#define PORT(value) ANSWER("\"portl[0x0cf8] = " value "\\r\\n\"")
#define WRITTEN     ANSWER("\"\"")
#define FORGETS(id, turned) PORT("0x80000810"), WRITTEN, PORT(id), WRITTEN, PORT("0x10"), WRITTEN, PORT(turned), WRITTEN, WRITTEN

static void expect_lines(const char *const *lines, size_t count)
{
    const char *at = received;
    for (size_t i = 0; i < count; i++) {
        AUTO_FREE char *text = string_printf("\"command-line\":\"%s\"", lines[i]);
        at = strstr(at, text);
        assert_non_null(at);
        at++;
    }
    assert_int_equal(times_sent("human-monitor-command"), count);
}

static void with_tcg_an_old_qemu_is_made_to_forget_before_the_next_pass(void **state)
{
    static const char *const lines[] = {"i /xw 0xcf8", "o /w 0xcf8 0x80000000", "i /xw 0xcfc", "o /w 0xcf8 0x80000058",
                                        "i /xb 0xcfe", "o /b 0xcfe 0x11", "i /xb 0xcfe", "o /b 0xcfe 0x10",
                                        "o /w 0xcf8 0x80000810"};
    (void)state;
    pace_next();
    assert_true(SAVE(FAKE_WELCOME, HELD, LEFT_MUCH, RUNS_ON, LEFT_MUCH, LEFT_LITTLE, STOPPED, PASS, LEFT_SOME,
                     FORGETS("0x12378086", "0x11"), ANSWER_BEHIND(EVENT_AT("RESUME", "", "3500")), LEFT_SOME, LEFT_LITTLE,
                     STOPPED, PASS, LEFT_LITTLE, LAST));
    assert_null(strstr(received, "avail-switchover-bandwidth"));
    assert_int_equal(result.pauses, 3);
    expect_lines(lines, ARRAY_SIZE(lines));
}

/* Then the guest must not go on behind a reading, and what is left is copied while it stands. */
static void with_tcg_an_old_qemu_that_does_not_forget_ends_with_a_longer_pause(void **state)
{
    static const char *const unknown[] = {"i /xw 0xcf8", "o /w 0xcf8 0x80000000", "i /xw 0xcfc", "o /w 0xcf8 0x80000810"};
    (void)state;
    pace_next();
    assert_true(SAVE(FAKE_WELCOME, HELD, LEFT_MUCH, RUNS_ON, LEFT_MUCH, LEFT_LITTLE, STOPPED, PASS, LEFT_SOME,
                     PORT("0x80000810"), WRITTEN, PORT("0x12345678"), WRITTEN, LAST));
    assert_int_equal(result.pauses, 2);
    expect_lines(unknown, ARRAY_SIZE(unknown));
    pace_next();
    assert_true(SAVE(FAKE_WELCOME, HELD, LEFT_MUCH, RUNS_ON, LEFT_MUCH, LEFT_LITTLE, STOPPED, PASS, LEFT_SOME,
                     FORGETS("0x29c08086", "0x10"), LAST));
    assert_int_equal(result.pauses, 2);
    assert_int_equal(times_sent("human-monitor-command"), 9);
    pace_next();
    assert_true(SAVE(FAKE_WELCOME, HELD, LEFT_MUCH, RUNS_ON, LEFT_MUCH, LEFT_LITTLE, STOPPED, PASS, LEFT_SOME,
                     ANSWER("\"unknown command: 'i'\\r\\n\""), LAST));
    assert_int_equal(result.pauses, 2);
}

static void with_tcg_a_bitmap_read_early_in_a_paced_save_costs_the_passes_not_the_guest(void **state)
{
    (void)state;
    pace_next();
    may_restart = true;
    assert_true(SAVE(WELCOME_10, HELD, LEFT_MUCH, RUNS_ON, LEFT_MUCH_BEHIND(PASS), ANSWER("{}"),
                     ANSWER("{\"status\": \"cancelled\"}"), STATUS("running"), HELD, RUNS_ON,
                     EVENT_AT("STOP", "", "3000"), LAST));
    assert_int_equal(restarts, 1);
    assert_int_equal(instants, 1);
    assert_int_equal(times_sent("cont"), 3);
    const char *first = strstr(received, "\"downtime-limit\":1,");
    assert_non_null(first);
    assert_non_null(strstr(first, "\"downtime-limit\":0}"));
}

static void with_tcg_a_guest_that_stops_itself_in_a_paced_save_stays_so(void **state)
{
    (void)state;
    pace_next();
    assert_true(SAVE(WELCOME_10, HELD, LEFT_MUCH, RUNS_ON,
                     LEFT_MUCH_BEHIND(EVENT("BLOCK_IO_ERROR", "\"action\": \"stop\""), EVENT_AT("STOP", "", "3000")), STATUS("io-error"), MIGRATION("pre-switchover"), PASS, FINISHED,
                     READ_LINE));
    assert_int_equal(times_sent("stop"), 1);
    assert_int_equal(times_sent("cont"), 1);
    assert_int_equal(stops, 0);
    assert_true(paces[pace_count - 1] == UINT64_MAX);
}

/* Where little is left it may all be zeros, which QEMU has written before it is stopped. */
static void with_tcg_a_guest_that_qemu_stops_for_the_instant_just_before_us_goes_on(void **state)
{
    (void)state;
    pace_next();
    assert_true(SAVE(WELCOME_10, HELD, LEFT_MUCH, RUNS_ON, LEFT_MUCH, LEFT_LITTLE, READ_LINE, EVENT_AT("STOP", "", "3000"),
                     MIGRATION("pre-switchover"), {FAKE_SEND, "{\"return\": {}, \"id\": $}\r\n", 0}, STATUS("finish-migrate"),
                     PASS, FINISHED, ANSWER_BEHIND(EVENT_AT("RESUME", "", "9000")), READ_LINE));
    assert_int_equal(times_sent("cont"), 2);
    assert_int_equal(result.pauses, 2);
    assert_int_equal(instants, 1);
    assert_int_equal(json_array_size(events), 0);
}

/* Passes that do not become shorter end in a longer pause, and that is told. */
static void with_tcg_a_guest_that_is_faster_than_its_copy_is_copied_standing(void **state)
{
#define NO_SHORTER RUNS_ON, LEFT_MUCH, LEFT_LITTLE, STOPPED, PASS, LEFT_MUCH
    (void)state;
    pace_next();
    assert_true(SAVE(WELCOME_10, HELD, LEFT_MUCH, NO_SHORTER, NO_SHORTER, NO_SHORTER, NO_SHORTER, LAST));
    assert_true(result.too_fast);
    assert_int_equal(result.pauses, 5);
}

static void a_failed_paced_save_lets_qemu_write(void **state)
{
    (void)state;
    pace_next();
    assert_false(SAVE(WELCOME_10, HELD, LEFT_MUCH, RUNS_ON, LEFT_MUCH_BEHIND(MIGRATION("failed")), WHY("x"), ANSWER("{}"),
                      ANSWER("{\"status\": \"failed\"}"), STATUS("running"), READ_LINE));
    assert_true(paces[pace_count - 1] == UINT64_MAX);
    assert_int_equal(instants, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_tcg_a_paced_reader_lets_each_pass_end_while_the_guest_stands),
        cmocka_unit_test(with_tcg_an_old_qemu_is_made_to_forget_before_the_next_pass),
        cmocka_unit_test(with_tcg_an_old_qemu_that_does_not_forget_ends_with_a_longer_pause),
        cmocka_unit_test(with_tcg_a_bitmap_read_early_in_a_paced_save_costs_the_passes_not_the_guest),
        cmocka_unit_test(with_tcg_a_guest_that_stops_itself_in_a_paced_save_stays_so),
        cmocka_unit_test(with_tcg_a_guest_that_qemu_stops_for_the_instant_just_before_us_goes_on),
        cmocka_unit_test(with_tcg_a_guest_that_is_faster_than_its_copy_is_copied_standing),
        cmocka_unit_test(a_failed_paced_save_lets_qemu_write),
    };
    return cmocka_run_group_tests_name("save paced", tests, scratch_make, done);
}
