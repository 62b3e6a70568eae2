/* Log lines on standard error (the worker's goes to a file). Libraries log at debug only. */
#pragma once

#include <stdbool.h>

enum log_level { LOG_DEBUG, LOG_INFO, LOG_WARNING, LOG_ERROR };

/* Lines below the level are dropped. The default is warning; BOUGH_DEBUG in the environment makes it debug. */
void log_set_level(enum log_level level);
bool log_enabled(enum log_level level);
/* With time stamps, as in the worker's log file. */
void log_set_timestamps(bool on);
/* One line, whatever names and what others said are in it: control characters are written as \xNN. */
void log_write(enum log_level level, const char *format, ...) __attribute__((format(printf, 2, 3)));

#define log_debug(...)                                                                                       \
    do {                                                                                                     \
        if (log_enabled(LOG_DEBUG))                                                                          \
            log_write(LOG_DEBUG, __VA_ARGS__);                                                               \
    } while (0)
#define log_info(...)    log_write(LOG_INFO, __VA_ARGS__)
#define log_warning(...) log_write(LOG_WARNING, __VA_ARGS__)
#define log_error(...)   log_write(LOG_ERROR, __VA_ARGS__)
