/* What a save does with news that a real QEMU gives only now and then, told by a monitor that follows a
 * script. */
#include "save_script.h"

static void the_pause_is_from_stop_to_resume(void **state)
{
    (void)state;
    assert_true(SAVE(BEGUN("running"), PASS, PASS, EVENT_AT("STOP", "", "1000"), MIGRATION("pre-switchover"),
                     FINISHED, READ_LINE, EVENT_AT("RESUME", "", "5500"),
                     {FAKE_SEND, "{\"return\": {}, \"id\": $}\r\n", 0}, READ_LINE));
    assert_int_equal(result.pause_us, 4500);
    assert_int_equal(result.passes, 2);
    assert_int_equal(instants, 1);
    assert_int_equal(json_array_size(events), 0);
    assert_non_null(strstr(received, "{\"capability\":\"events\",\"state\":true}"));
    assert_non_null(strstr(received, "{\"capability\":\"xbzrle\",\"state\":false}"));
}

static void a_guest_that_stopped_for_an_io_error_stays_so(void **state)
{
    (void)state;
    assert_true(SAVE(BEGUN("running"), EVENT("BLOCK_IO_ERROR", "\"action\": \"stop\", \"nospace\": true"),
                     EVENT("STOP", ""), STATUS("io-error"), MIGRATION("pre-switchover"), FINISHED,
                     READ_LINE));
    assert_int_equal(times_sent("cont"), 0);
    assert_int_equal(result.pause_us, 0);
    assert_int_equal(json_array_size(events), 2);
    assert_string_equal(left_event(0), "BLOCK_IO_ERROR");
    assert_string_equal(left_event(1), "STOP");
}

static void a_guest_whose_own_stop_has_no_reason_stays_so(void **state)
{
    (void)state;
    assert_true(SAVE(BEGUN("running"), EVENT("STOP", ""), STATUS("shutdown"), MIGRATION("pre-switchover"),
                     FINISHED, READ_LINE));
    assert_int_equal(times_sent("cont"), 0);
}

static void an_error_that_the_guest_handles_stops_nothing(void **state)
{
    (void)state;
    assert_true(SAVE(BEGUN("running"), EVENT("BLOCK_IO_ERROR", "\"action\": \"report\""), EVENT("STOP", ""),
                     MIGRATION("pre-switchover"), FINISHED, ANSWER("{}"), READ_LINE));
    assert_int_equal(times_sent("cont"), 1);
    assert_int_equal(json_array_size(events), 1);
    assert_string_equal(left_event(0), "BLOCK_IO_ERROR");
}

static void a_failed_save_does_not_wake_a_guest_that_stopped_itself(void **state)
{
    (void)state;
    assert_false(SAVE(BEGUN("running"), EVENT("GUEST_PANICKED", "\"action\": \"pause\""), EVENT("STOP", ""),
                      MIGRATION("failed"), WHY("x"), ANSWER("{}"), ANSWER("{\"status\": \"failed\"}"),
                      STATUS("guest-panicked"), READ_LINE));
    assert_int_equal(times_sent("cont"), 0);
    assert_int_equal(instants, 0);
}

static void continuing_waits_until_qemu_is_ready(void **state)
{
    (void)state;
    assert_true(SAVE(BEGUN("running"), EVENT("STOP", ""), MIGRATION("pre-switchover"), FINISHED,
                     REFUSE("Migration is not finalized yet"), STATUS("finish-migrate"),
                     REFUSE("Migration is not finalized yet"), STATUS("finish-migrate"), ANSWER("{}"),
                     READ_LINE));
    assert_int_equal(times_sent("cont"), 3);
}

static void a_failure_that_left_it_paused_is_set_right(void **state)
{
    (void)state;
    assert_false(SAVE(BEGUN("running"), EVENT("STOP", ""), MIGRATION("pre-switchover"), ANSWER("{}"),
                      MIGRATION("failed"), WHY("the pipe is broken"), ANSWER("{}"),
                      ANSWER("{\"status\": \"cancelling\"}"), REFUSE("not in that state"),
                      ANSWER("{\"status\": \"failed\"}"), STATUS("postmigrate"), ANSWER("{}"), READ_LINE));
    assert_int_equal(err.code, ERR_QEMU);
    assert_string_equal(err.text, "QEMU could not save the VM: the pipe is broken");
    assert_int_equal(times_sent("migrate_cancel"), 1);
    assert_int_equal(times_sent("cont"), 1);
    assert_int_equal(instants, 1);
}

/* QEMU answers nothing while it flushes its disks. */
#define SLOWLY(value)                                                                                        \
    READ_LINE, {FAKE_SLEEP, NULL, 60},                                                                       \
    {                                                                                                        \
        FAKE_SEND, "{\"return\": " value ", \"id\": $}\r\n", 0                                               \
    }

static void a_save_waits_for_a_monitor_as_long_as_it_needs(void **state)
{
    (void)state;
    timeout_ms = 20;
    assert_true(SAVE(BEGUN("running"), EVENT("STOP", ""), MIGRATION("pre-switchover"), SLOWLY("{}"),
                     MIGRATION("completed"), SLOWLY("{}"), READ_LINE));
    assert_int_equal(times_sent("cont"), 1);
}

static void a_failed_save_leaves_no_guest_standing_however_slow_its_monitor_is(void **state)
{
    (void)state;
    timeout_ms = 20;
    assert_false(SAVE(BEGUN("running"), EVENT("STOP", ""), MIGRATION("pre-switchover"), ANSWER("{}"),
                      MIGRATION("failed"), SLOWLY("{\"status\": \"failed\"}"), SLOWLY("{}"),
                      SLOWLY("{\"status\": \"failed\"}"), SLOWLY("{\"status\": \"paused\"}"), SLOWLY("{}"),
                      READ_LINE));
    assert_int_equal(times_sent("cont"), 1);
}

static void a_guest_goes_on_also_where_a_save_cannot_be_cancelled(void **state)
{
    (void)state;
    assert_false(SAVE(BEGUN("running"), EVENT("STOP", ""), MIGRATION("failed"), WHY("x"), REFUSE("no way back"),
                      STATUS("paused"), ANSWER("{}"), READ_LINE));
    assert_non_null(strstr(err.text, "no way back"));
    assert_int_equal(times_sent("cont"), 1);
}

static void a_failure_on_the_way_back_is_told_too(void **state)
{
    (void)state;
    assert_false(SAVE(BEGUN("running"), MIGRATION("failed"), ANSWER("{\"status\": \"failed\"}"),
                      REFUSE("no way back"), READ_LINE));
    assert_non_null(strstr(err.text, "could not save"));
    assert_non_null(strstr(err.text, "no way back"));
}

static void news_of_an_earlier_save_is_not_taken_for_this_one(void **state)
{
    (void)state;
    assert_true(SAVE({FAKE_SEND, FAKE_GREETING, 0}, READ_LINE,
                     {FAKE_SEND,
                      "{\"event\": \"MIGRATION\", \"data\": {\"status\": \"cancelled\"}}\r\n"
                      "{\"event\": \"BLOCK_IO_ERROR\", \"data\": {\"action\": \"stop\"}}\r\n{\"return\": {}, "
                      "\"id\": $}\r\n",
                      0},
                     STATUS("running"), ANSWER("[]"), ANSWER("{}"), ANSWER("{}"), ANSWER("{}"), ANSWER("{}"),
                     EVENT("STOP", ""), MIGRATION("pre-switchover"), FINISHED, ANSWER("{}"), READ_LINE));
    assert_int_equal(times_sent("cont"), 1);
    assert_int_equal(json_array_size(events), 1);
}

/* Each pass that does not bring the end allows a longer pause, and in the end any. */
static void copying_without_end_is_ended_by_a_longer_pause(void **state)
{
#define PASS_AND_LOOK                                                                                        \
    PASS,                                                                                                    \
    {                                                                                                        \
        FAKE_SLEEP, NULL, 30                                                                                 \
    }
#define LONGER PASS, ANSWER("{}"), PASS_AND_LOOK
    static const char *const milliseconds[] = {"3", "10", "40", "160", "640", "2000000"};
    (void)state;
    assert_true(SAVE(BEGUN("running"), PASS_AND_LOOK, PASS_AND_LOOK, PASS_AND_LOOK, PASS_AND_LOOK, LONGER,
                     LONGER, LONGER, LONGER, PASS, ANSWER("{}"), EVENT("STOP", ""),
                     MIGRATION("pre-switchover"), FINISHED, ANSWER("{}"), READ_LINE));
    assert_int_equal(times_sent("migrate-set-parameters"), ARRAY_SIZE(milliseconds));
    const char *at = received;
    for (size_t i = 0; i < ARRAY_SIZE(milliseconds); i++) {
        AUTO_FREE char *text = string_printf("\"downtime-limit\":%s}", milliseconds[i]);
        at = strstr(at, text);
        assert_non_null(at);
    }
    assert_int_equal(result.passes, 13);
}

static void with_tcg_the_bitmap_is_read_only_while_the_guest_stands(void **state)
{
    (void)state;
    accel = ACCEL_TCG;
    assert_true(SAVE(FAKE_WELCOME, HELD, ANSWER_BEHIND(EVENT_AT("RESUME", "", "4000")),
                     EVENT_AT("STOP", "", "9000"), MIGRATION("pre-switchover"), PASS, FINISHED,
                     ANSWER_BEHIND(EVENT_AT("RESUME", "", "9500")), READ_LINE));
    assert_int_equal(result.pause_us, 3000); /* the longer one */
    assert_int_equal(result.pauses, 2);
    assert_int_equal(result.paused_us, 3500);
    assert_int_equal(instants, 1);
    assert_int_equal(json_array_size(events), 0);
    assert_true(strstr(received, "\"stop\"") < strstr(received, "\"migrate\""));
    assert_true(strstr(received, "\"migrate\"") < strstr(received, "\"cont\""));
    assert_non_null(strstr(received, "\"downtime-limit\":0}"));
}

/* All was copied before `cont` came. */
static void with_tcg_a_small_guest_may_have_one_pause(void **state)
{
    (void)state;
    accel = ACCEL_TCG;
    assert_true(SAVE(FAKE_WELCOME, HELD, REFUSE("Migration is not finalized yet"), STATUS("finish-migrate"),
                     MIGRATION("pre-switchover"), PASS, FINISHED,
                     ANSWER_BEHIND(EVENT_AT("RESUME", "", "4000")), READ_LINE));
    assert_int_equal(result.pause_us, 3000);
    assert_int_equal(instants, 1);
}

static void with_tcg_a_guest_stays_held_if_the_setup_reads_nothing(void **state)
{
    (void)state;
    accel = ACCEL_TCG;
    assert_true(SAVE(FAKE_WELCOME, STATUS("running"), ANSWER("[]"), ANSWER("{}"), ANSWER("{}"), ANSWER("{}"),
                     ANSWER_BEHIND(EVENT("STOP", "")), STATUS("paused"), ANSWER("{}"), MIGRATION("active"),
                     PASS, MIGRATION("pre-switchover"), FINISHED, ANSWER("{}"), READ_LINE));
    assert_int_equal(times_sent("cont"), 1);
}

#define READ_WHILE_IT_RUNS                                                                                   \
    HELD, ANSWER_BEHIND(EVENT("RESUME", "")), PASS, EVENT("STOP", ""), MIGRATION("pre-switchover"),          \
        ANSWER("{}"), ANSWER("{\"status\": \"cancelled\"}"), STATUS("paused"),                               \
        ANSWER_BEHIND(EVENT("RESUME", ""))

static void with_tcg_a_bitmap_read_while_the_guest_runs_fails_the_save(void **state)
{
    (void)state;
    accel = ACCEL_TCG;
    may_restart = false;
    assert_false(SAVE(FAKE_WELCOME, READ_WHILE_IT_RUNS, READ_LINE));
    assert_int_equal(err.code, ERR_QEMU);
    assert_int_equal(instants, 0);
    assert_int_equal(times_sent("cont"), 2);
    assert_int_equal(json_array_size(events), 0);
}

static void with_tcg_such_a_save_is_done_again_with_the_guest_standing(void **state)
{
    (void)state;
    accel = ACCEL_TCG;
    may_restart = true;
    assert_true(SAVE(FAKE_WELCOME, READ_WHILE_IT_RUNS, HELD, PASS, PASS, MIGRATION("pre-switchover"),
                     FINISHED, ANSWER_BEHIND(EVENT_AT("RESUME", "", "1500")), READ_LINE));
    assert_int_equal(restarts, 1);
    assert_int_equal(instants, 1);
    assert_int_equal(times_sent("migrate"), 2);
    assert_int_equal(times_sent("cont"), 3);
    assert_int_equal(json_array_size(events), 0);
}

static void with_tcg_a_guest_that_has_stopped_itself_is_not_set_running(void **state)
{
    (void)state;
    accel = ACCEL_TCG;
    assert_true(SAVE(FAKE_WELCOME, STATUS("running"), ANSWER("[]"), ANSWER("{}"), ANSWER("{}"), ANSWER("{}"),
                     ANSWER_BEHIND(EVENT("STOP", "")), STATUS("io-error"), ANSWER("{}"), PASS,
                     MIGRATION("active"), MIGRATION("pre-switchover"), FINISHED, READ_LINE));
    assert_int_equal(times_sent("cont"), 0);
    assert_int_equal(json_array_size(events), 1);
    assert_string_equal(left_event(0), "STOP");
}

/* Of the three STOPs and RESUMEs only the guest's own is for others. */
static void with_tcg_only_the_guests_own_stop_is_left(void **state)
{
    (void)state;
    accel = ACCEL_TCG;
    assert_true(SAVE(FAKE_WELCOME, HELD, ANSWER_BEHIND(EVENT("RESUME", "")),
                     EVENT("GUEST_PANICKED", "\"action\": \"pause\""), EVENT("STOP", ""),
                     STATUS("guest-panicked"), MIGRATION("pre-switchover"), PASS, FINISHED, READ_LINE));
    assert_int_equal(times_sent("cont"), 1);
    assert_int_equal(json_array_size(events), 2);
    assert_string_equal(left_event(0), "GUEST_PANICKED");
    assert_string_equal(left_event(1), "STOP");
}

/* --- the memory of the moment of the request --- */

#define CAN_BACKGROUND                                                                                       \
    ANSWER("[{\"capability\": \"background-snapshot\", \"state\": false}]"),                                 \
        ANSWER("[{\"capability\": \"background-snapshot\", \"state\": false}]"), ANSWER("{}")
/* Until `migrate` is accepted. */
#define BACKGROUND_BEGUN                                                                                     \
    FAKE_WELCOME, STATUS("running"), CAN_BACKGROUND, ANSWER("{}"), ANSWER("{}"),                             \
        ANSWER_BEHIND(EVENT_AT("STOP", "", "1000")), STATUS("paused"), ANSWER("{}"), MIGRATION("active")
#define COPIED ANSWER("{\"status\": \"active\", \"ram\": {\"normal\": 1, \"duplicate\": 0}}")

static void a_qemu_that_goes_on_by_itself_is_not_continued(void **state)
{
    (void)state;
    point_now = true;
    assert_true(SAVE(BACKGROUND_BEGUN, ANSWER_BEHIND(EVENT_AT("RESUME", "", "3500")), MIGRATION("completed"), READ_LINE));
    assert_true(result.background);
    assert_int_equal(result.pause_us, 2500);
    assert_int_equal(instants, 1);
    assert_int_equal(times_sent("cont"), 0);
    assert_int_equal(json_array_size(events), 0);
    assert_true(strstr(received, "\"stop\"") < strstr(received, "\"migrate\""));
    assert_non_null(strstr(received, "{\"capability\":\"background-snapshot\",\"state\":true}"));
}

/* Not before a page was copied: that shows that all are protected. */
static void a_qemu_that_stays_paused_is_continued_when_memory_is_protected(void **state)
{
    (void)state;
    point_now = true;
    assert_true(SAVE(BACKGROUND_BEGUN, ANSWER("{\"status\": \"active\"}"),
                     ANSWER("{\"status\": \"active\", \"ram\": {\"normal\": 0, \"duplicate\": 0}}"), COPIED,
                     ANSWER_BEHIND(EVENT_AT("RESUME", "", "4000")), MIGRATION("completed"), READ_LINE));
    assert_int_equal(times_sent("query-migrate"), 3);
    assert_int_equal(times_sent("cont"), 1);
    assert_int_equal(result.pause_us, 3000);
}

static void a_guest_that_stops_during_a_background_save_stays_so(void **state)
{
    (void)state;
    point_now = true;
    assert_true(SAVE(BACKGROUND_BEGUN, COPIED, ANSWER_BEHIND(EVENT_AT("RESUME", "", "4000")),
                     EVENT("BLOCK_IO_ERROR", "\"action\": \"stop\""), EVENT("STOP", ""), MIGRATION("completed"),
                     READ_LINE));
    assert_int_equal(times_sent("cont"), 1);
    assert_int_equal(result.pause_us, 3000);
    assert_int_equal(json_array_size(events), 2);
    assert_string_equal(left_event(0), "BLOCK_IO_ERROR");
    assert_string_equal(left_event(1), "STOP");
}

static void a_background_save_that_fails_leaves_the_guest_running(void **state)
{
    (void)state;
    point_now = true;
    assert_false(SAVE(BACKGROUND_BEGUN, ANSWER_BEHIND(MIGRATION("failed")), WHY("no protection"), ANSWER("{}"),
                      ANSWER("{\"status\": \"failed\"}"), STATUS("paused"), ANSWER_BEHIND(EVENT("RESUME", "")),
                      READ_LINE));
    assert_string_equal(err.text, "QEMU could not save the VM: no protection");
    assert_int_equal(instants, 1);
    assert_int_equal(times_sent("cont"), 1);
    assert_int_equal(json_array_size(events), 0);
}

/* This QEMU would leave memory protected, and the guest hanging. */
static void a_background_save_of_an_old_qemu_that_is_given_up_comes_to_its_end_first(void **state)
{
    (void)state;
    point_now = reader_fails = true;
    assert_false(SAVE(BACKGROUND_BEGUN, ANSWER_BEHIND(EVENT_AT("RESUME", "", "3500")), {FAKE_SLEEP, NULL, 60},
                      MIGRATION("completed"), READ_LINE));
    assert_int_equal(err.code, ERR_NO_SPACE);
    assert_string_equal(err.text, "full");
    assert_int_equal(times_sent("migrate_cancel"), 0);
    assert_int_equal(times_sent("cont"), 0);
    assert_int_equal(json_array_size(events), 0);
}

static void a_background_save_of_a_later_qemu_is_cancelled(void **state)
{
    (void)state;
    point_now = reader_fails = true;
    assert_false(SAVE({FAKE_SEND,
                       "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 0, \"minor\": 1, \"major\": 8}, \"package\": \"x\"}, "
                       "\"capabilities\": []}}\r\n",
                       0},
                      ANSWER("{}"), STATUS("running"), CAN_BACKGROUND, ANSWER("{}"), ANSWER("{}"),
                      ANSWER_BEHIND(EVENT("STOP", "")), STATUS("paused"), ANSWER("{}"), MIGRATION("active"), COPIED,
                      ANSWER_BEHIND(EVENT("RESUME", "")), ANSWER("{}"), ANSWER("{\"status\": \"cancelled\"}"),
                      STATUS("running"), READ_LINE));
    assert_int_equal(err.code, ERR_NO_SPACE);
    assert_int_equal(times_sent("migrate_cancel"), 1);
}

static void a_guest_that_stopped_itself_just_before_is_not_set_running_by_a_background_save(void **state)
{
    (void)state;
    point_now = true;
    assert_false(SAVE(FAKE_WELCOME, STATUS("running"), CAN_BACKGROUND, ANSWER("{}"), ANSWER("{}"),
                      ANSWER_BEHIND(EVENT("STOP", "")), STATUS("io-error"), ANSWER("{}"), ANSWER("{}"),
                      ANSWER("{\"status\": \"none\"}"), STATUS("io-error"), READ_LINE));
    assert_int_equal(err.code, ERR_STATE);
    assert_int_equal(instants, 0);
    assert_int_equal(times_sent("migrate"), 0);
    assert_int_equal(times_sent("cont"), 0);
}

static void a_guest_that_stands_is_saved_the_ordinary_way_whatever_point_is_asked_for(void **state)
{
    (void)state;
    point_now = true;
    assert_true(SAVE(FAKE_WELCOME, STATUS("paused"), STATUS("paused"), ANSWER("[]"), ANSWER("{}"), ANSWER("{}"),
                     ANSWER("{}"), ANSWER("{}"), MIGRATION("active"), MIGRATION("pre-switchover"), FINISHED, READ_LINE));
    assert_false(result.background);
    assert_int_equal(times_sent("cont"), 0);
}

static void what_cannot_be_saved_in_the_background_is_not_touched(void **state)
{
    (void)state;
    point_now = maps_file = true;
    assert_false(SAVE(FAKE_WELCOME, STATUS("running"), READ_LINE));
    assert_int_equal(err.code, ERR_STATE);
    point_now = true;
    assert_false(SAVE(FAKE_WELCOME, STATUS("running"), ANSWER("[{\"capability\": \"events\"}]"), READ_LINE));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    point_now = true;
    assert_false(SAVE(FAKE_WELCOME, STATUS("running"), ANSWER("[{\"capability\": \"background-snapshot\"}]"),
                      ANSWER("[]"), REFUSE("not compatible with guest memory"), READ_LINE));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_int_equal(times_sent("stop"), 0);
    assert_int_equal(instants, 0);
}

static void a_monitor_that_breaks_is_an_error(void **state)
{
    (void)state;
    assert_false(SAVE(BEGUN("running"), PASS, {FAKE_SEND, "rubbish\r\n", 0}, READ_LINE));
    assert_int_equal(err.code, ERR_PROTOCOL);
}

static void a_guest_that_sleeps_is_not_saved_by_an_old_qemu(void **state)
{
    (void)state;
    assert_false(SAVE(FAKE_WELCOME, STATUS("suspended"), READ_LINE));
    assert_int_equal(err.code, ERR_STATE);
    assert_int_equal(times_sent("migrate"), 0);
}

/* Asks by that script. */
static bool can_save(const struct fake_step *steps, size_t count)
{
    struct machine machine = {.pidfd = -1, .dir = scratch};
    struct fake *fake = fake_start(scratch_path("qmp.sock"), steps, count);
    err = ERR_INIT;
    if (!qmp_connect(scratch_path("qmp.sock"), -1, 3000, &machine.qmp, &err))
        fail_msg("%s", err.text);
    bool can = machine_can_save(&machine, &err);
    qmp_free(machine.qmp);
    fake_finish(fake, NULL, NULL);
    return can;
}
#define CAN_SAVE(...)                                                                                        \
    can_save((const struct fake_step[]){FAKE_WELCOME, __VA_ARGS__},                                          \
             ARRAY_SIZE(((const struct fake_step[]){FAKE_WELCOME, __VA_ARGS__})))

static void what_qemu_cannot_move_is_told_with_its_reasons(void **state)
{
    (void)state;
    assert_true(CAN_SAVE(STATUS("running"), ANSWER("{}")));
    assert_true(CAN_SAVE(STATUS("paused"), ANSWER("{\"blocked-reasons\": []}")));
    assert_false(CAN_SAVE(STATUS("running"), ANSWER("{\"blocked-reasons\": [\"device a\"]}")));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
    assert_non_null(strstr(err.text, "cannot save this VM while it runs: device a"));
    assert_false(CAN_SAVE(STATUS("running"), ANSWER("{\"status\": \"none\", \"blocked-reasons\": [\"device a\", \"b, c\", 7]}")));
    assert_non_null(strstr(err.text, "device a; b, c; a reason that is no text"));
    AUTO_FREE char *many = string_printf("{\"return\": {\"blocked-reasons\": [\"%0300d\", \"%0300d\"]}, \"id\": $}\r\n", 1, 2);
    assert_false(CAN_SAVE(STATUS("running"), READ_LINE, {FAKE_SEND, many, 0}));
    assert_int_equal(err.code, ERR_UNSUPPORTED);
}

static void a_state_in_which_qemu_saves_nothing_is_told(void **state)
{
    static const char *const STATES[] = {"postmigrate", "finish-migrate", "inmigrate", "suspended"};
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(STATES); i++) {
        AUTO_FREE char *answer =
            string_printf("{\"return\": {\"status\": \"%s\", \"running\": false}, \"id\": $}\r\n", STATES[i]);
        assert_false(CAN_SAVE(READ_LINE, {FAKE_SEND, answer, 0}));
        assert_int_equal(err.code, ERR_STATE);
    }
    assert_false(CAN_SAVE(STATUS("running"), REFUSE("no")));
    assert_int_equal(err.code, ERR_QEMU);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_pause_is_from_stop_to_resume),
        cmocka_unit_test(a_guest_that_stopped_for_an_io_error_stays_so),
        cmocka_unit_test(a_guest_whose_own_stop_has_no_reason_stays_so),
        cmocka_unit_test(an_error_that_the_guest_handles_stops_nothing),
        cmocka_unit_test(a_failed_save_does_not_wake_a_guest_that_stopped_itself),
        cmocka_unit_test(continuing_waits_until_qemu_is_ready),
        cmocka_unit_test(a_failure_that_left_it_paused_is_set_right),
        cmocka_unit_test(a_save_waits_for_a_monitor_as_long_as_it_needs),
        cmocka_unit_test(a_failed_save_leaves_no_guest_standing_however_slow_its_monitor_is),
        cmocka_unit_test(a_guest_goes_on_also_where_a_save_cannot_be_cancelled),
        cmocka_unit_test(a_failure_on_the_way_back_is_told_too),
        cmocka_unit_test(news_of_an_earlier_save_is_not_taken_for_this_one),
        cmocka_unit_test(copying_without_end_is_ended_by_a_longer_pause),
        cmocka_unit_test(with_tcg_the_bitmap_is_read_only_while_the_guest_stands),
        cmocka_unit_test(with_tcg_a_small_guest_may_have_one_pause),
        cmocka_unit_test(with_tcg_a_guest_stays_held_if_the_setup_reads_nothing),
        cmocka_unit_test(with_tcg_a_bitmap_read_while_the_guest_runs_fails_the_save),
        cmocka_unit_test(with_tcg_such_a_save_is_done_again_with_the_guest_standing),
        cmocka_unit_test(with_tcg_a_guest_that_has_stopped_itself_is_not_set_running),
        cmocka_unit_test(with_tcg_only_the_guests_own_stop_is_left),
        cmocka_unit_test(a_qemu_that_goes_on_by_itself_is_not_continued),
        cmocka_unit_test(a_qemu_that_stays_paused_is_continued_when_memory_is_protected),
        cmocka_unit_test(a_guest_that_stops_during_a_background_save_stays_so),
        cmocka_unit_test(a_background_save_that_fails_leaves_the_guest_running),
        cmocka_unit_test(a_background_save_of_an_old_qemu_that_is_given_up_comes_to_its_end_first),
        cmocka_unit_test(a_background_save_of_a_later_qemu_is_cancelled),
        cmocka_unit_test(a_guest_that_stopped_itself_just_before_is_not_set_running_by_a_background_save),
        cmocka_unit_test(a_guest_that_stands_is_saved_the_ordinary_way_whatever_point_is_asked_for),
        cmocka_unit_test(what_cannot_be_saved_in_the_background_is_not_touched),
        cmocka_unit_test(a_monitor_that_breaks_is_an_error),
        cmocka_unit_test(a_guest_that_sleeps_is_not_saved_by_an_old_qemu),
        cmocka_unit_test(what_qemu_cannot_move_is_told_with_its_reasons),
        cmocka_unit_test(a_state_in_which_qemu_saves_nothing_is_told),
    };
    return cmocka_run_group_tests_name("save", tests, scratch_make, done);
}
