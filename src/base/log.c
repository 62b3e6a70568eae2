#include "log.h"

#include <stdarg.h>
#include <stddef.h>
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

/* The bytes of a control character: those of ASCII, and those that UTF-8 writes as two. 0: it is none. */
static size_t control_length(const char *at)
{
    unsigned char byte = (unsigned char)at[0], next = (unsigned char)at[1];

    if (byte == 0xc2 && next >= 0x80 && next < 0xa0)
        return 2;
    return byte < 0x20 || byte == 0x7f ? 1 : 0;
}

static void line_escape(const char *line, char *escaped, size_t size)
{
    size_t length = 0;

    while (*line != '\0' && length + 10 < size) {
        size_t count = control_length(line);
        for (size_t i = 0; i < count; i++)
            length += (size_t)snprintf(escaped + length, size - length, "\\x%02x", (unsigned)(unsigned char)*line++);
        if (count == 0)
            escaped[length++] = *line++;
    }
    escaped[length] = '\0';
}

void log_write(enum log_level level, const char *format, ...)
{
    static const char *const NAMES[] = {"debug", "info", "warning", "error"};
    char line[1024], escaped[1280];
    char stamp[48] = "";
    va_list args;

    if (!log_enabled(level))
        return;
    va_start(args, format);
    vsnprintf(line, sizeof line, format, args);
    va_end(args);
    line_escape(line, escaped, sizeof escaped);
    if (with_timestamps) {
        struct timespec now;
        struct tm tm;
        clock_gettime(CLOCK_REALTIME, &now);
        localtime_r(&now.tv_sec, &tm);
        size_t length = strftime(stamp, sizeof stamp, "%F %T", &tm);
        snprintf(stamp + length, sizeof stamp - length, ".%03ld ", now.tv_nsec / 1000000);
    }
    fprintf(stderr, "%sbough: %s: %s\n", stamp, NAMES[level], escaped);
}
