/* Retention: which of the snapshots that a timer took may go. Pure: no I/O, no clock; the time zone is the process's ($TZ).
 *
 * Only snapshots that are marked as scheduled are looked at. Each rule keeps the newest snapshot of each of its N newest periods
 * *that have one*: a host that was off for a month does not lose its older snapshots by that. A snapshot stays if any rule keeps
 * it. Rules do not know of each other: one snapshot may be the newest of its hour, its day and its month. */
#pragma once

#include "tree.h"

enum prune_reason {
    PRUNE_LAST,    /* one of the N newest */
    PRUNE_HOURLY,  /* hours, days, ISO weeks and months of local time; the hour that comes twice when clocks are set back is two */
    PRUNE_DAILY,
    PRUNE_WEEKLY,
    PRUNE_MONTHLY,
    PRUNE_RULES,   /* so many have a number */
    PRUNE_NOW = PRUNE_RULES, /* the VM descends from it: `revert` goes there */
    PRUNE_FUTURE,  /* its time has not come yet: the clock was wrong then, or is now. It takes no place in any rule */
    PRUNE_REASONS
};

/* "last", "hourly", ..., "now", "future" */
const char *prune_reason_name(enum prune_reason reason);

struct prune_rules {
    uint64_t keep[PRUNE_RULES]; /* 0: the rule keeps none */
    int64_t now_ms;
};

struct prune_choice {
    const struct config *snapshot; /* borrowed from the tree */
    unsigned reasons;              /* a bit (1 << reason) each; 0: it goes */
};

/* Of each scheduled snapshot, the newest first (of the same millisecond the greater GUID). Owned array. ERR_USAGE if no rule keeps
 * anything. */
bool prune_choose(const struct tree *tree, const struct prune_rules *rules, struct prune_choice **ret_choices,
                  size_t *ret_count, struct err *err) MUST_CHECK;
