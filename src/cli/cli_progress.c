#include "cli_progress.h"

#include "auto.h"
#include "bytes.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>

#define FIRST_AFTER_MS 1000
#define EVERY_MS       100
#define LOOK_EVERY_MS  2000
#define BAR_CELLS      30
#define BAR_CELLS_MIN  6

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

/* Of what is counted in bytes. */
static bool is_bytes(const char *phase)
{
    static const char *const PHASES[] = {"memory", "verify", "convert", "compare", "copy", "merge", "map"};

    for (size_t i = 0; i < ARRAY_SIZE(PHASES); i++)
        if (strcmp(PHASES[i], phase) == 0)
            return true;
    return false;
}

static void look_note(struct cli_progress *self, const char *phase, uint64_t done)
{
    struct cli_progress_look now = {.done = done};

    clock_gettime(CLOCK_MONOTONIC, &now.at);
    if (strncmp(self->phase, phase, sizeof self->phase - 1) != 0 || done < self->newer.done) {
        snprintf(self->phase, sizeof self->phase, "%s", phase);
        self->older = self->newer = now;
    } else if (elapsed_ms(&self->newer.at) >= LOOK_EVERY_MS) {
        self->older = self->newer;
        self->newer = now;
    }
}

static void left_format(uint64_t seconds, char text[static 24])
{
    if (seconds < 100)
        snprintf(text, 24, "%u s left", (unsigned)seconds);
    else if (seconds < 100 * 60)
        snprintf(text, 24, "%u min left", (unsigned)(seconds / 60));
    else
        snprintf(text, 24, "%llu h left", (unsigned long long)seconds / 3600);
}

/* How much of how much, how fast, and how long still; "" where nothing can be said yet. */
static void details_format(const struct cli_progress *self, uint64_t done, uint64_t total, char text[static 96])
{
    char done_text[16], total_text[16], rate_text[16], left_text[24];
    int64_t since_ms = elapsed_ms(&self->older.at);
    uint64_t rate = since_ms > 0 ? (done - self->older.done) * 1000 / (uint64_t)since_ms : 0;

    text[0] = '\0';
    if (rate == 0 || done > total)
        return;
    left_format((total - done) / rate, left_text);
    if (is_bytes(self->phase))
        snprintf(text, 96, "  %s of %s, %s/s, %s", size_format(done, done_text), size_format(total, total_text),
                 size_format(rate, rate_text), left_text);
    else
        snprintf(text, 96, "  %s", left_text);
}

/* A line that is longer than the terminal is wide could not be drawn over. The bar gives way first, then the details. */
static size_t cells_that_fit(size_t rest_length, char *details)
{
    struct winsize size;
    bool known = ioctl(STDERR_FILENO, TIOCGWINSZ, &size) == 0 && size.ws_col > 0;
    size_t columns = known ? size.ws_col : SIZE_MAX;

    if (rest_length + strlen(details) + BAR_CELLS_MIN >= columns)
        details[0] = '\0';
    rest_length += strlen(details);
    if (rest_length + BAR_CELLS < columns)
        return BAR_CELLS;
    return columns > rest_length + BAR_CELLS_MIN ? columns - 1 - rest_length : BAR_CELLS_MIN;
}

static void bar_draw(const struct cli_progress *self, const char *what, uint64_t done, uint64_t total)
{
    char cells[BAR_CELLS + 1], details[96];
    double share = done >= total ? 1.0 : (double)done / (double)total;

    details_format(self, done, total, details);
    size_t count = cells_that_fit(strlen(what) + strlen(" [] 100%"), details);
    memset(cells, ' ', count);
    memset(cells, '=', (size_t)(share * (double)count));
    cells[count] = '\0';
    fprintf(stderr, "\r\033[K%s [%s] %3d%%%s", what, cells, (int)(share * 100), details);
}

static void report(void *context, const char *phase, uint64_t done, uint64_t total)
{
    struct cli_progress *self = context;
    bool one_phase = strcmp(phase, self->operation) == 0;
    char what[64];

    look_note(self, phase, done);
    if (!self->on_terminal || elapsed_ms(&self->begun) < FIRST_AFTER_MS ||
        (self->drawn && elapsed_ms(&self->last_drawn) < EVERY_MS))
        return;
    snprintf(what, sizeof what, "%s%s%.20s", self->operation, one_phase ? "" : ": ", one_phase ? "" : phase);
    if (total > 0)
        bar_draw(self, what, done, total);
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
