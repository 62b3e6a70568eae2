/* How far a long operation has come, told to whoever wants to show it, and how it hears that it shall stop. */
#pragma once

#include <stdbool.h>
#include <stdint.h>

struct progress {
    /* Called now and then, from the thread that works. total 0: not known. */
    void (*report)(void *context, const char *phase, uint64_t done, uint64_t total);
    /* Asked often; true: give up at the next safe point with ERR_CANCELLED. */
    bool (*cancelled)(void *context);
    void *context;
};

/* Both accept NULL, for callers that do not care. */
void progress_report(const struct progress *progress, const char *phase, uint64_t done, uint64_t total);
bool progress_cancelled(const struct progress *progress);
