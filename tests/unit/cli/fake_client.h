/* In place of the worker's client and of vm_create(): records what a command called, and answers what a test
 * has set. */
#pragma once

#include "progress.h"

#include <jansson.h>

struct fake_call {
    unsigned count;
    char vm_name[128], operation[32];
    char *arguments; /* JSON with sorted keys, compact; owned */
};

extern struct fake_call fake_call;
/* What the next calls answer: a JSON text, or an error where code is set (ERR_NONE: none). */
extern const char *fake_answer;
extern int fake_error_code;
extern const char *fake_error_text;
/* Runs inside of client_call(), if set. */
extern void (*fake_during)(const struct progress *progress);

void fake_reset(void);
