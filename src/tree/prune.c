#include "prune.h"

#include "auto.h"

#include <stdlib.h>
#include <time.h>

static const char *const NAMES[] = {[PRUNE_LAST] = "last",       [PRUNE_HOURLY] = "hourly", [PRUNE_DAILY] = "daily",
                                    [PRUNE_WEEKLY] = "weekly",   [PRUNE_MONTHLY] = "monthly", [PRUNE_NOW] = "now",
                                    [PRUNE_FUTURE] = "future"};

const char *prune_reason_name(enum prune_reason reason)
{
    return (unsigned)reason < ARRAY_SIZE(NAMES) ? NAMES[reason] : "?";
}

/* ISO 8601: the week belongs to the year that has its Thursday. */
static int64_t week_key(const struct tm *tm)
{
    int since_monday = (tm->tm_wday + 6) % 7;
    struct tm thursday = {.tm_year = tm->tm_year, .tm_mon = tm->tm_mon, .tm_mday = tm->tm_mday - since_monday + 3,
                          .tm_hour = 12};

    timegm(&thursday); /* makes year and day of the year right */
    return (int64_t)thursday.tm_year * 100 + thursday.tm_yday / 7;
}

/* Equal for two times of one period. */
static int64_t period_key(enum prune_reason rule, int64_t created_ms, size_t index)
{
    time_t seconds = (time_t)(created_ms / 1000);
    struct tm tm;

    if (rule == PRUNE_LAST || !localtime_r(&seconds, &tm))
        return (int64_t)index; /* a period of its own */
    switch (rule) {
    case PRUNE_HOURLY: /* its begin: local hours of one name may be two */
        return (int64_t)seconds - tm.tm_min * 60 - tm.tm_sec;
    case PRUNE_DAILY:
        return (int64_t)tm.tm_year * 400 + tm.tm_yday;
    case PRUNE_WEEKLY:
        return week_key(&tm);
    case PRUNE_MONTHLY:
    default:
        return (int64_t)tm.tm_year * 12 + tm.tm_mon;
    }
}

static void rule_use(enum prune_reason rule, uint64_t periods, struct prune_choice *choices, size_t count)
{
    int64_t last = 0;
    bool any = false;

    for (size_t i = 0; i < count && periods > 0; i++) {
        if (choices[i].reasons & 1U << PRUNE_FUTURE)
            continue;
        int64_t key = period_key(rule, choices[i].snapshot->created_ms, i);
        if (any && key == last)
            continue;
        choices[i].reasons |= 1U << rule;
        last = key;
        any = true;
        periods--;
    }
}

bool prune_choose(const struct tree *tree, const struct prune_rules *rules, struct prune_choice **ret_choices,
                  size_t *ret_count, struct err *err)
{
    struct prune_choice *choices = calloc(tree->snapshot_count + 1, sizeof *choices);
    uint64_t any = 0;
    size_t count = 0;

    if (!choices)
        return err_oom(err);
    for (size_t rule = 0; rule < PRUNE_RULES; rule++)
        any |= rules->keep[rule];
    if (any == 0) {
        free(choices);
        return err_set(err, ERR_USAGE, "nothing would be kept: give at least one of --keep-last, --keep-hourly, "
                                       "--keep-daily, --keep-weekly, --keep-monthly, and not 0 for all");
    }
    for (size_t i = tree->snapshot_count; i-- > 0;) { /* they are in the order of their creation */
        const struct config *snapshot = tree->snapshots[i];
        if (!snapshot->is_scheduled)
            continue;
        choices[count] = (struct prune_choice){.snapshot = snapshot};
        if (snapshot->created_ms > rules->now_ms)
            choices[count].reasons |= 1U << PRUNE_FUTURE;
        if (guid_equal(&snapshot->snapshot, &tree->vm->parent))
            choices[count].reasons |= 1U << PRUNE_NOW;
        count++;
    }
    for (size_t rule = 0; rule < PRUNE_RULES; rule++)
        rule_use((enum prune_reason)rule, rules->keep[rule], choices, count);
    *ret_choices = choices;
    *ret_count = count;
    return true;
}
