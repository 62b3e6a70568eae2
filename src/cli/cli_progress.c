#include "cli_progress.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define FIRST_AFTER_MS 1000
#define EVERY_MS       100
#define BAR_CELLS      30

static volatile sig_atomic_t interrupts;

static void on_interrupt(int signal_number)
{
    static const char TEXT[] = "\nbough: cancelling (Ctrl-C once more: do not wait for it)\n";
    static const char ENDED[] = "bough: cancelling\n";
    int error = errno;

    if (interrupts++ == 0) {
        (void)!(signal_number == SIGINT ? write(STDERR_FILENO, TEXT, sizeof TEXT - 1)
                                        : write(STDERR_FILENO, ENDED, sizeof ENDED - 1));
        errno = error;
        return;
    }
    /* Die of it, so that a shell's loop around us ends too. What this process did itself is whole without any
     * undo. */
    signal(signal_number, SIG_DFL);
    raise(signal_number);
}

static int64_t elapsed_ms(const struct timespec *since)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (int64_t)(now.tv_sec - since->tv_sec) * 1000 + (now.tv_nsec - since->tv_nsec) / 1000000;
}

static void bar_draw(const char *what, uint64_t done, uint64_t total)
{
    char cells[BAR_CELLS + 1];
    double share = done >= total ? 1.0 : (double)done / (double)total;
    int full = (int)(share * BAR_CELLS);

    memset(cells, ' ', BAR_CELLS);
    memset(cells, '=', (size_t)full);
    cells[BAR_CELLS] = '\0';
    fprintf(stderr, "\r\033[K%s [%s] %3d%%", what, cells, (int)(share * 100));
}

static void report(void *context, const char *phase, uint64_t done, uint64_t total)
{
    struct cli_progress *self = context;
    bool one_phase = strcmp(phase, self->operation) == 0;
    char what[64];

    if (!self->on_terminal || elapsed_ms(&self->begun) < FIRST_AFTER_MS ||
        (self->drawn && elapsed_ms(&self->last_drawn) < EVERY_MS))
        return;
    snprintf(what, sizeof what, "%s%s%.20s", self->operation, one_phase ? "" : ": ", one_phase ? "" : phase);
    if (total > 0)
        bar_draw(what, done, total);
    else
        fprintf(stderr, "\r\033[K%s ...", what);
    fflush(stderr);
    self->drawn = true;
    clock_gettime(CLOCK_MONOTONIC, &self->last_drawn);
}

static bool cancelled(void *context)
{
    (void)context;
    return interrupts > 0;
}

/* The first is a terminal's. */
static const int SIGNALS[CLI_PROGRESS_SIGNALS] = {SIGINT, SIGTERM, SIGHUP};

static void signals_catch(struct cli_progress *self)
{
    struct sigaction action = {.sa_handler = on_interrupt}; /* no SA_RESTART: waiting must notice */

    interrupts = 0;
    for (size_t i = 0; i < self->signal_count; i++) {
        sigaction(SIGNALS[i], NULL, &self->old_actions[i]);
        /* nohup and background jobs of sh ignore some on purpose */
        if (self->old_actions[i].sa_handler != SIG_IGN)
            sigaction(SIGNALS[i], &action, NULL);
    }
}

void cli_progress_begin(struct cli_progress *self, const char *operation, bool is_own_work)
{
    *self = (struct cli_progress){
        .progress = {.report = report, .cancelled = cancelled, .context = self},
        .operation = operation,
        .on_terminal = isatty(STDERR_FILENO),
        .signal_count = is_own_work ? CLI_PROGRESS_SIGNALS : 1,
    };
    clock_gettime(CLOCK_MONOTONIC, &self->begun);
    signals_catch(self);
}

void cli_progress_end(struct cli_progress *self, bool changed)
{
    const struct sigaction ignore = {.sa_handler = SIG_IGN};

    for (size_t i = 0; i < self->signal_count; i++)
        sigaction(SIGNALS[i], changed ? &ignore : &self->old_actions[i], NULL);
    if (self->drawn) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
}
