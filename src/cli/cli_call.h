/* A command that is one operation (docs/operations.md) on one VM: call it, and tell how it went. */
#pragma once

#include "cli_options.h"
#include "progress.h"

#include <jansson.h>

/* Arguments from the command line, where the option or operand was given: nothing is set for NULL and false.
 * ERR_INVALID for text that is no UTF-8. */
bool argument_text(json_t *arguments, const char *key, const char *text, struct err *err) MUST_CHECK;
bool argument_flag(json_t *arguments, const char *key, bool flag, struct err *err) MUST_CHECK;
/* The path made absolute: who does the operation has another working directory. */
bool argument_path(json_t *arguments, const char *key, const char *path, struct err *err) MUST_CHECK;

/* What an answer is for people; vm_name goes into messages. */
typedef void people_print(const char *vm_name, const json_t *value);

/* What most commands are: a command line, one operation with a bar that Ctrl-C cancels, and its answer, as JSON or for people.
 * Its flags and texts are the operation's arguments of the same name (`dry-run`: dry_run), but for `json`, `yes` and `verbose`. */
struct vm_verb {
    const struct cli_syntax *syntax;
    const char *operation;
    /* The arguments that the operands behind NAME are, where they are text that goes on as it is. */
    const char *operands[2];
    /* Asks whether it may be done, and may change args. NULL: nothing is asked. */
    bool (*ask)(void *args, char **operands);
    /* All other arguments; ERR_USAGE: the command line is wrong. NULL: there are none. */
    bool (*fill)(json_t *arguments, const void *args, const struct cli_operands *operands, struct err *err);
    /* Does it in this process. NULL: hooks_call() does it. */
    bool (*work)(const char *name, const json_t *arguments, const struct progress *progress, json_t **ret_value,
                 struct err *err);
    people_print *print; /* NULL: people are told nothing */
};

/* args: the verb's own struct with its defaults; json: its member for --json. Returns the exit status. */
int vm_verb_run(const struct vm_verb *verb, int argc, char **argv, void *args, const bool *json);
/* The same of what has been parsed. */
int vm_verb_call(const struct vm_verb *verb, const struct cli_operands *operands, void *args, bool json);
/* An operation that takes no arguments. */
int vm_call(const char *vm_name, const char *operation, bool json, people_print *print);

/* Prints an answer: JSON if json, the plan if it is one, else what print does with it. Returns the exit status. */
int print_value(const char *vm_name, const json_t *value, bool json, people_print *print);
/* people_print: `web: running`. */
void print_state(const char *vm_name, const json_t *value);
/* A whole command `VERB NAME [--json]` whose operation takes no arguments. */
int call_simple(int argc, char **argv, const char *operation, people_print *print);
