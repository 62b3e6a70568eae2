/* A command that is one operation (docs/operations.md) on one VM: call it, and tell how it went. */
#pragma once

#include "cli_options.h"

#include <jansson.h>

/* hooks_call() with a progress bar and Ctrl-C. arguments: stolen, NULL for none. */
bool call_operation(const char *vm_name, const char *operation, json_t *arguments, json_t **ret_value,
                    struct err *err) MUST_CHECK;

/* Arguments from the command line, where the option or operand was given: nothing is set for NULL and false.
 * ERR_INVALID for text that is no UTF-8. */
bool argument_text(json_t *arguments, const char *key, const char *text, struct err *err) MUST_CHECK;
bool argument_flag(json_t *arguments, const char *key, bool flag, struct err *err) MUST_CHECK;
/* The path made absolute: who does the operation has another working directory. */
bool argument_path(json_t *arguments, const char *key, const char *path, struct err *err) MUST_CHECK;

/* Prints an answer: JSON if json, the plan if it is one, else what print does with it (NULL: nothing). Returns the exit status.
 * vm_name goes into messages. */
typedef void people_print(const char *vm_name, const json_t *value);
int print_value(const char *vm_name, const json_t *value, bool json, people_print *print);
/* Calls, and prints so. */
int call_and_print(const char *vm_name, const char *operation, json_t *arguments, bool json,
                   people_print *print);

/* people_print: `web: running`. */
void print_state(const char *vm_name, const json_t *value);
/* A whole command `VERB NAME [--json]` whose operation takes no arguments. */
int call_simple(int argc, char **argv, const char *operation, people_print *print);
