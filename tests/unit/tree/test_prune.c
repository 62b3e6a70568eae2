/* Which scheduled snapshots stay. Times are local ones of Central Europe, which sets its clocks in March and October. */
#include "tree_sample.h"

#include "auto.h"
#include "prune.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <time.h>

#include <cmocka.h>

#define MAX 64

static int setup(void **state)
{
    (void)state;
    return setenv("TZ", "CET-1CEST,M3.5.0,M10.5.0/3", 1);
}

/* "2026-03-29 01:30:00+1": the offset tells which of two equal hours is meant. */
static int64_t at_ms(const char *text)
{
    struct tm tm = {0};
    const char *offset = strptime(text, "%Y-%m-%d %H:%M:%S", &tm);

    assert_non_null(offset);
    return ((int64_t)timegm(&tm) - (*offset ? atoi(offset) * 3600 : 0)) * 1000;
}

static int64_t local_ms(const char *text)
{
    struct tm tm = {.tm_isdst = -1};

    assert_non_null(strptime(text, "%Y-%m-%d %H:%M:%S", &tm));
    return (int64_t)mktime(&tm) * 1000;
}

/* Snapshots 1, 2, ... at these times, all scheduled and all roots; Now descends from none. */
static struct tree *tree_at(const int64_t *times_ms, size_t count)
{
    struct config *vm = sample_vm(SAMPLE_DIR);
    struct config *snapshots[MAX];

    for (size_t i = 0; i < count; i++) {
        snapshots[i] = sample_listed(vm, (unsigned)i + 1, 0, STATE_OFF);
        snapshots[i]->created_ms = times_ms[i];
        snapshots[i]->is_scheduled = true;
    }
    return sample_tree(vm, snapshots, count);
}

/* The numbers of those that stay, the newest first, as "3 2 1". */
static void assert_kept(const struct tree *tree, const struct prune_rules *rules, const char *expected)
{
    AUTO_FREE struct prune_choice *choices = NULL;
    char text[512] = "";
    size_t count, used = 0;
    struct err err;

    assert_true(prune_choose(tree, rules, &choices, &count, &err));
    for (size_t i = 0; i < count; i++)
        if (choices[i].reasons != 0)
            used += (size_t)snprintf(text + used, sizeof text - used, "%s%lx", used ? " " : "",
                                     strtoul(choices[i].snapshot->snapshot.text, NULL, 16));
    assert_string_equal(text, expected);
}

#define RULES(...) (&(struct prune_rules){.now_ms = INT64_MAX, .keep = {__VA_ARGS__}})

static void the_newest_n_are_kept(void **state)
{
    int64_t times[] = {1000, 2000, 3000, 4000};
    AUTO_TREE struct tree *tree = tree_at(times, ARRAY_SIZE(times));

    (void)state;
    assert_kept(tree, RULES([PRUNE_LAST] = 2), "4 3");
    assert_kept(tree, RULES([PRUNE_LAST] = 4), "4 3 2 1");
    assert_kept(tree, RULES([PRUNE_LAST] = UINT64_MAX), "4 3 2 1");
}

static void snapshots_of_the_same_second_are_told_apart(void **state)
{
    int64_t times[] = {5000, 5000, 5001, 5000};
    AUTO_TREE struct tree *tree = tree_at(times, ARRAY_SIZE(times));

    (void)state;
    assert_kept(tree, RULES([PRUNE_LAST] = 1), "3");
    assert_kept(tree, RULES([PRUNE_LAST] = 2), "3 4");
    assert_kept(tree, RULES([PRUNE_HOURLY] = 5), "3");
}

static void snapshots_without_the_mark_are_never_among_the_choices(void **state)
{
    int64_t times[] = {1000, 2000, 3000, 4000};
    AUTO_TREE struct tree *tree = tree_at(times, ARRAY_SIZE(times));
    AUTO_FREE struct prune_choice *choices = NULL;
    size_t count;
    struct err err;

    (void)state;
    tree->snapshots[0]->is_scheduled = tree->snapshots[3]->is_scheduled = false;
    assert_true(prune_choose(tree, RULES([PRUNE_LAST] = 1), &choices, &count, &err));
    assert_int_equal(count, 2);
    assert_kept(tree, RULES([PRUNE_LAST] = 1), "3"); /* they take no place either */
}

static void each_rule_keeps_the_newest_of_its_periods(void **state)
{
    int64_t times[] = {local_ms("2025-12-28 10:00:00"), local_ms("2025-12-29 10:00:00"), local_ms("2026-01-31 23:59:59"),
                       local_ms("2026-02-01 00:00:00"), local_ms("2026-02-01 09:10:00"), local_ms("2026-02-01 09:50:00")};
    AUTO_TREE struct tree *tree = tree_at(times, ARRAY_SIZE(times));

    (void)state;
    assert_kept(tree, RULES([PRUNE_HOURLY] = 2), "6 4");
    assert_kept(tree, RULES([PRUNE_DAILY] = 2), "6 3");
    assert_kept(tree, RULES([PRUNE_WEEKLY] = 9), "6 2 1"); /* the 29th of December is a Monday: of the first week of 2026 */
    assert_kept(tree, RULES([PRUNE_MONTHLY] = 3), "6 3 2");
    assert_kept(tree, RULES([PRUNE_LAST] = 2, [PRUNE_MONTHLY] = 2), "6 5 3");
}

static void days_of_one_iso_week_are_one_week_across_the_year(void **state)
{
    int64_t times[] = {local_ms("2025-12-29 00:00:00"), local_ms("2026-01-04 23:59:59"), local_ms("2026-01-05 00:00:00"),
                       local_ms("2027-01-03 12:00:00"), local_ms("2027-01-04 12:00:00")};
    AUTO_TREE struct tree *tree = tree_at(times, ARRAY_SIZE(times));

    (void)state;
    assert_kept(tree, RULES([PRUNE_WEEKLY] = 9), "5 4 3 2");
}

/* A host that was off: the periods in between have none, and count for nothing. */
static void periods_without_a_snapshot_take_no_place(void **state)
{
    int64_t times[] = {local_ms("2024-01-01 12:00:00"), local_ms("2025-06-01 12:00:00"), local_ms("2026-02-01 12:00:00")};
    AUTO_TREE struct tree *tree = tree_at(times, ARRAY_SIZE(times));

    (void)state;
    assert_kept(tree, RULES([PRUNE_DAILY] = 2), "3 2");
    assert_kept(tree, RULES([PRUNE_HOURLY] = 3), "3 2 1");
}

static void the_hour_that_comes_twice_is_two_hours_of_one_day(void **state)
{
    int64_t times[] = {at_ms("2026-10-25 02:30:00+2"), at_ms("2026-10-25 02:30:00+1"), at_ms("2026-10-25 03:30:00+1")};
    AUTO_TREE struct tree *tree = tree_at(times, ARRAY_SIZE(times));

    (void)state;
    assert_kept(tree, RULES([PRUNE_HOURLY] = 3), "3 2 1");
    assert_kept(tree, RULES([PRUNE_DAILY] = 3), "3");
}

static void the_day_without_an_hour_is_one_day(void **state)
{
    int64_t times[] = {at_ms("2026-03-28 23:30:00+1"), at_ms("2026-03-29 00:30:00+1"), at_ms("2026-03-29 01:59:59+1"),
                       at_ms("2026-03-29 03:00:00+2"), at_ms("2026-03-29 23:30:00+2"), at_ms("2026-03-30 00:30:00+2")};
    AUTO_TREE struct tree *tree = tree_at(times, ARRAY_SIZE(times));

    (void)state;
    assert_kept(tree, RULES([PRUNE_HOURLY] = 9), "6 5 4 3 2 1");
    assert_kept(tree, RULES([PRUNE_DAILY] = 9), "6 5 1");
}

static void snapshots_from_the_future_stay_and_take_no_place(void **state)
{
    int64_t times[] = {1000, 2000, 3000, 900000};
    AUTO_TREE struct tree *tree = tree_at(times, ARRAY_SIZE(times));
    struct prune_rules rules = {.keep = {[PRUNE_LAST] = 1}, .now_ms = 3000};
    AUTO_FREE struct prune_choice *choices = NULL;
    size_t count;
    struct err err;

    (void)state;
    assert_kept(tree, &rules, "4 3");
    assert_true(prune_choose(tree, &rules, &choices, &count, &err));
    assert_int_equal(choices[0].reasons, 1U << PRUNE_FUTURE);
    assert_int_equal(choices[1].reasons, 1U << PRUNE_LAST);
}

static void the_snapshot_that_the_vm_descends_from_stays(void **state)
{
    int64_t times[] = {1000, 2000, 3000};
    AUTO_TREE struct tree *tree = tree_at(times, ARRAY_SIZE(times));

    (void)state;
    tree->vm->parent = sample_guid(1);
    assert_kept(tree, RULES([PRUNE_LAST] = 1), "3 1");
}

static void rules_that_keep_nothing_are_refused(void **state)
{
    int64_t times[] = {1000};
    AUTO_TREE struct tree *tree = tree_at(times, ARRAY_SIZE(times));
    struct prune_choice *choices = NULL;
    size_t count;
    struct err err;

    (void)state;
    assert_false(prune_choose(tree, RULES(0), &choices, &count, &err));
    assert_int_equal(err.code, ERR_USAGE);
    assert_null(choices);
}

static void a_tree_without_snapshots_has_no_choices(void **state)
{
    AUTO_TREE struct tree *tree = tree_at(NULL, 0);
    AUTO_FREE struct prune_choice *choices = NULL;
    size_t count = 1;
    struct err err;

    (void)state;
    assert_true(prune_choose(tree, RULES([PRUNE_LAST] = 1), &choices, &count, &err));
    assert_int_equal(count, 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_newest_n_are_kept),
        cmocka_unit_test(snapshots_of_the_same_second_are_told_apart),
        cmocka_unit_test(snapshots_without_the_mark_are_never_among_the_choices),
        cmocka_unit_test(each_rule_keeps_the_newest_of_its_periods),
        cmocka_unit_test(days_of_one_iso_week_are_one_week_across_the_year),
        cmocka_unit_test(periods_without_a_snapshot_take_no_place),
        cmocka_unit_test(the_hour_that_comes_twice_is_two_hours_of_one_day),
        cmocka_unit_test(the_day_without_an_hour_is_one_day),
        cmocka_unit_test(snapshots_from_the_future_stay_and_take_no_place),
        cmocka_unit_test(the_snapshot_that_the_vm_descends_from_stays),
        cmocka_unit_test(rules_that_keep_nothing_are_refused),
        cmocka_unit_test(a_tree_without_snapshots_has_no_choices),
    };

    return cmocka_run_group_tests(tests, setup, NULL);
}
