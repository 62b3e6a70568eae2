#include "log.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

static enum log_level level_shown = LOG_WARNING;
static bool with_timestamps;

__attribute__((constructor)) static void level_from_environment(void)
{
    const char *debug = getenv("BOUGH_DEBUG");

    if (debug && *debug != '\0')
        level_shown = LOG_DEBUG;
}

void log_set_level(enum log_level level)
{
    if (level_shown != LOG_DEBUG)
        level_shown = level;
}

bool log_enabled(enum log_level level)
{
    return level >= level_shown;
}

void log_set_timestamps(bool on)
{
    with_timestamps = on;
}

void log_write(enum log_level level, const char *format, ...)
{
    static const char *const NAMES[] = {"debug", "info", "warning", "error"};
    char line[1024];
    char stamp[48] = "";
    va_list args;

    if (!log_enabled(level))
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    if (with_timestamps) {
        struct timespec now;
        struct tm tm;
        clock_gettime(CLOCK_REALTIME, &now);
        localtime_r(&now.tv_sec, &tm);
        size_t length = strftime(stamp, sizeof stamp, "%F %T", &tm);
        snprintf(stamp + length, sizeof stamp - length, ".%03ld ", now.tv_nsec / 1000000);
    }
    fprintf(stderr, "%sbough: %s: %s\n", stamp, NAMES[level], line);
}
