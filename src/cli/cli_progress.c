#include "cli_progress.h"

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

    if (interrupts++ == 0) {
        (void)!write(STDERR_FILENO, TEXT, sizeof TEXT - 1);
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

static void bar_draw(const char *operation, const char *phase, uint64_t done, uint64_t total)
{
    char cells[BAR_CELLS + 1];
    double share = done >= total ? 1.0 : (double)done / (double)total;
    int full = (int)(share * BAR_CELLS);

    memset(cells, ' ', BAR_CELLS);
    memset(cells, '=', (size_t)full);
    cells[BAR_CELLS] = '\0';
    fprintf(stderr, "\r\033[K%s: %.20s [%s] %3d%%", operation, phase, cells, (int)(share * 100));
}

static void report(void *context, const char *phase, uint64_t done, uint64_t total)
{
    struct cli_progress *self = context;

    if (!self->on_terminal || elapsed_ms(&self->begun) < FIRST_AFTER_MS ||
        (self->drawn && elapsed_ms(&self->last_drawn) < EVERY_MS))
        return;
    if (total > 0)
        bar_draw(self->operation, phase, done, total);
    else
        fprintf(stderr, "\r\033[K%s: %.20s ...", self->operation, phase);
    fflush(stderr);
    self->drawn = true;
    clock_gettime(CLOCK_MONOTONIC, &self->last_drawn);
}

static bool cancelled(void *context)
{
    (void)context;
    return interrupts > 0;
}

void cli_progress_begin(struct cli_progress *self, const char *operation)
{
    struct sigaction action = {.sa_handler = on_interrupt}; /* no SA_RESTART: waiting must notice */

    *self = (struct cli_progress){
        .progress = {.report = report, .cancelled = cancelled, .context = self},
        .operation = operation,
        .on_terminal = isatty(STDERR_FILENO),
    };
    clock_gettime(CLOCK_MONOTONIC, &self->begun);
    interrupts = 0;
    sigaction(SIGINT, NULL, &self->old_interrupt);
    if (self->old_interrupt.sa_handler != SIG_IGN) /* nohup and background jobs of sh ignore it on purpose */
        sigaction(SIGINT, &action, NULL);
}

void cli_progress_end(struct cli_progress *self)
{
    sigaction(SIGINT, &self->old_interrupt, NULL);
    if (self->drawn) {
        fputs("\r\033[K", stderr);
        fflush(stderr);
    }
}
