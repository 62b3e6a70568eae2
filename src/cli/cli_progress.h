/* How a command waits: a bar on a terminal for what takes longer than a second, and what Ctrl-C means
 * meanwhile. */
#pragma once

#include "progress.h"

#include <signal.h>
#include <time.h>

struct cli_progress {
    struct progress progress; /* to hand on */
    const char *operation;    /* for messages; borrowed */
    bool on_terminal;
    bool drawn; /* a bar stands on the line */
    struct timespec begun, last_drawn;
    struct sigaction old_interrupt;
};

/* From now on the first Ctrl-C makes progress.cancelled() true and says so; the second ends this command at
 * once (a worker goes on and still cancels). Only one at a time in the process; end it before printing the
 * result. */
void cli_progress_begin(struct cli_progress *self, const char *operation);
void cli_progress_end(struct cli_progress *self);
