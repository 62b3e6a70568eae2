/* Options of a command: a table says what there is, and is the text of `--help` at the same time. */
#pragma once

#include "auto.h"
#include "cli.h"

#include <stdbool.h>
#include <stdint.h>

enum cli_option_kind {
    CLI_FLAG,   /* bool */
    CLI_TEXT,   /* const char *, borrowed from argv */
    CLI_NUMBER, /* uint64_t, decimal */
    CLI_SIZE,   /* uint64_t bytes, by size_parse() */
    CLI_LIST,   /* struct cli_list: may be given again and again */
};

#define CLI_LIST_MAX 64

struct cli_list {
    const char *items[CLI_LIST_MAX]; /* borrowed from argv */
    size_t count;
};

struct cli_option {
    const char *name; /* without the dashes */
    enum cli_option_kind kind;
    size_t offset;     /* of the value in the command's own struct */
    const char *value; /* what the help calls the value; NULL for CLI_FLAG */
    const char *help;
};

struct cli_syntax {
    const struct cli_option *options;
    size_t option_count;
    int operands_min, operands_max; /* -1: any number */
};

/* The rows that many commands have; type is the command's struct with bool members of these names. */
#define CLI_JSON(type)                                                                                       \
    {                                                                                                        \
        "json", CLI_FLAG, offsetof(type, json), NULL, "print JSON, for programs"                             \
    }
/* The only option that has a letter too. */
#define CLI_VERBOSE_NAME "verbose"
#define CLI_VERBOSE(type, help)                                                                              \
    {                                                                                                        \
        CLI_VERBOSE_NAME, CLI_FLAG, offsetof(type, verbose), NULL, help                                      \
    }
#define CLI_YES(type)                                                                                        \
    {                                                                                                        \
        "yes", CLI_FLAG, offsetof(type, yes), NULL, "ask nothing"                                            \
    }
#define CLI_DRY_RUN(type)                                                                                    \
    {                                                                                                        \
        "dry-run", CLI_FLAG, offsetof(type, dry_run), NULL, "print what would be done, and do nothing"       \
    }

struct cli_operands {
    char **items; /* inside argv */
    int count;
};

/* Fills values (the command's struct, which holds the defaults) and the operands. False: there is nothing
 * left to do, since help was asked for or the command line is wrong; *ret_status is the exit status then. */
bool cli_parse(const struct cli_syntax *syntax, int argc, char **argv, void *values,
               struct cli_operands *ret_operands, int *ret_status) MUST_CHECK;
