/* How a command waits: a bar on a terminal for what takes longer than a second, and what Ctrl-C means
 * meanwhile. */
#pragma once

#include "progress.h"

#include <signal.h>
#include <time.h>

#define CLI_PROGRESS_SIGNALS 3

struct cli_progress {
    struct progress progress; /* to hand on */
    const char *operation;    /* for messages; borrowed */
    bool on_terminal;
    bool drawn; /* a bar stands on the line */
    struct timespec begun, last_drawn;
    char phase[24];
    /* Two earlier looks at this phase, the older one some seconds ago: the rate is from there to now. */
    struct cli_progress_look {
        struct timespec at;
        uint64_t done;
    } older, newer;
    size_t signal_count; /* that are caught: */
    struct sigaction old_actions[CLI_PROGRESS_SIGNALS];
};

/* From now on the first Ctrl-C makes progress.cancelled() true and says so; the second ends this command at
 * once (a worker goes on and still cancels). Where the work is this process's own, the signals by which
 * others end it, SIGTERM and SIGHUP, do the same. Only one in the process. */
void cli_progress_begin(struct cli_progress *self, const char *operation, bool is_own_work);
/* Before the result is printed. changed: the work succeeded and cannot be undone any more, so those signals
 * are ignored from now on: the exit status must not say that it was broken off. Otherwise they end the
 * command. */
void cli_progress_end(struct cli_progress *self, bool changed);
