/* The command line's frame: tables of commands, their dispatch and help, and how a command fails.
 *
 * A command is one file, cmd_<verb>.c, with one function that takes its own argc and argv (argv[0] is the
 * verb) and returns the exit status: 0, 2 for a wrong command line, else err_exit_status(). It parses with
 * cli_options.h, which also answers --help, and prints with cli_output.h; those that are one operation, or one
 * work on image files, only describe themselves (cli_call.h, cli_disk.h). One command runs in a process; nothing
 * here is thread-safe. */
#pragma once

#include "err.h"

#include <stddef.h>
#include <stdio.h>

struct cli_command {
    const char *name;
    int (*action)(int argc, char **argv);
    const char *usage;   /* what follows the verb; each line is another way to use it */
    const char *summary; /* one line, without a full stop; what follows it is for --help alone */
};

struct cli_table {
    const char *prefix;  /* "bough", "bough disk" */
    const char *summary; /* what the group is for */
    const struct cli_command *commands;
    size_t count;
};

/* The whole program. */
int cli_main(int argc, char **argv);
/* Runs the command that argv[1] names; `help`, `help VERB`, `--help` and no verb at all are answered here. */
int cli_dispatch(const struct cli_table *table, int argc, char **argv);

/* The running command as typed ("snapshot", "disk create") and its row; "" and NULL outside of one. */
const char *cli_verb(void);
const struct cli_command *cli_command(void);

/* The usage of the running command, a line each way; and its summary's length. */
void cli_usage_print(FILE *stream);
size_t cli_summary_length(const struct cli_command *command);

/* Prints `bough: VERB: WHICH: why` on standard error and returns the exit status. which (a VM or file) may be
 * NULL, and is left out where the text begins with it, its folder in front or not. */
int cli_fail(const char *which, const struct err *err);
/* `bough: VERB: WHICH: warning: TEXT`: the command has done its work all the same. */
void cli_warn(const char *which, const char *text);
/* Prints `bough: VERB: why` and where help is; returns the exit status of ERR_USAGE. */
int cli_usage_error(const char *format, ...) __attribute__((format(printf, 1, 2)));
