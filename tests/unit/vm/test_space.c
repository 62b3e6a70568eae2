/* When a guest that stands for want of space is set going again. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "space.h"

#define START_MS 5000000

/* Milliseconds from a stop until a try is due, in steps of a tenth of a second. */
static int64_t pause_ms(const struct space_wait *wait, bool has_room)
{
    int64_t now_ms = wait->stopped_ms;

    while (!space_is_due(wait, has_room, now_ms))
        now_ms += 100;
    return now_ms - wait->stopped_ms;
}

static void with_room_the_first_try_comes_after_a_second(void **state)
{
    struct space_wait wait = {0};

    (void)state;
    space_note_stop(&wait, 3, START_MS);
    assert_true(wait.stopped);
    assert_int_equal(wait.disk, 3);
    assert_int_equal(pause_ms(&wait, true), 1000);
}

static void without_room_a_try_comes_once_a_minute(void **state)
{
    struct space_wait wait = {0};

    (void)state;
    for (int64_t now_ms = START_MS, i = 0; i < 10; i++, now_ms += 60000) {
        space_note_stop(&wait, 0, now_ms);
        assert_int_equal(pause_ms(&wait, false), 60000);
        space_note_continued(&wait, now_ms + 60000);
    }
}

static void tries_that_fail_at_once_become_rarer_but_never_rarer_than_ten_seconds(void **state)
{
    static const int64_t PAUSES[] = {1000, 2000, 4000, 8000, 10000, 10000, 10000};
    struct space_wait wait = {0};
    int64_t now_ms = START_MS;

    (void)state;
    for (size_t i = 0; i < sizeof PAUSES / sizeof *PAUSES; i++) {
        space_note_stop(&wait, 0, now_ms);
        assert_int_equal(pause_ms(&wait, true), PAUSES[i]);
        now_ms += PAUSES[i];
        space_note_continued(&wait, now_ms);
        assert_false(wait.stopped);
        now_ms += 10;
    }
    for (size_t i = 0; i < 100000; i++, now_ms += 10) { /* nothing overflows */
        space_note_stop(&wait, 0, now_ms);
        space_note_continued(&wait, now_ms);
    }
    space_note_stop(&wait, 0, now_ms);
    assert_int_equal(pause_ms(&wait, true), 10000);
}

static void after_half_a_minute_of_running_it_begins_anew(void **state)
{
    struct space_wait wait = {0};
    int64_t now_ms = START_MS;

    (void)state;
    for (size_t i = 0; i < 4; i++) {
        space_note_stop(&wait, 0, now_ms);
        space_note_continued(&wait, now_ms += 8000);
    }
    space_note_stop(&wait, 0, now_ms + 30000);
    assert_int_equal(pause_ms(&wait, true), 1000);
    assert_true(space_is_news(&wait));
}

/* A guest with many requests under way is told so of each. */
static void errors_of_one_stop_are_one_stop(void **state)
{
    struct space_wait wait = {0};

    (void)state;
    for (int64_t i = 0; i < 16; i++)
        space_note_stop(&wait, (size_t)i % 2, START_MS + i);
    assert_int_equal(wait.stops, 1);
    assert_int_equal(pause_ms(&wait, true), 1000);
}

static void a_long_row_of_tries_is_told_now_and_then(void **state)
{
    struct space_wait wait = {0};
    unsigned told = 0;

    (void)state;
    for (int64_t i = 0; i < 1000; i++) {
        space_note_stop(&wait, 0, START_MS + i);
        told += space_is_news(&wait);
        space_note_continued(&wait, START_MS + i);
    }
    assert_int_equal(told, 10);
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(with_room_the_first_try_comes_after_a_second),
        cmocka_unit_test(without_room_a_try_comes_once_a_minute),
        cmocka_unit_test(tries_that_fail_at_once_become_rarer_but_never_rarer_than_ten_seconds),
        cmocka_unit_test(after_half_a_minute_of_running_it_begins_anew),
        cmocka_unit_test(errors_of_one_stop_are_one_stop),
        cmocka_unit_test(a_long_row_of_tries_is_told_now_and_then),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
