#include "cli.h"

#include "cli_text.h"

#include <stdarg.h>
#include <stdbool.h>
#include <stdio.h>
#include <string.h>

static struct {
    char verb[64];
    const char *group; /* "bough", "bough disk" */
    const struct cli_command *command;
} running = {.group = "bough"};

const char *cli_verb(void)
{
    return running.verb;
}

const struct cli_command *cli_command(void)
{
    return running.command;
}

static void message_begin(void)
{
    fflush(stdout);
    fprintf(stderr, "bough: %s%s", running.verb, running.verb[0] != '\0' ? ": " : "");
}

/* Does the text begin with `part: `? */
static bool begins_with_part(const char *text, const char *part)
{
    size_t length = strlen(part);

    return length > 0 && strncmp(text, part, length) == 0 && text[length] == ':';
}

/* Or with `/its/folder/part: `? */
static bool begins_with_file(const char *text, const char *file)
{
    const char *end = strstr(text, ": ");
    size_t length = strlen(file), before = end ? (size_t)(end - text) : 0;

    return begins_with_part(text, file) ||
           (length > 0 && before > length && text[before - length - 1] == '/' &&
            begins_with_part(text + before - length, file));
}

int cli_fail(const char *which, const struct err *err)
{
    /* What the operation itself has put in front is not said twice. */
    bool says_verb = begins_with_part(err->text, running.verb);

    if (says_verb) {
        fflush(stdout);
        fputs("bough: ", stderr);
    } else {
        message_begin();
    }
    if (which && !says_verb && !begins_with_file(err->text, which)) {
        text_print(stderr, which, TEXT_ONE_LINE);
        fputs(": ", stderr);
    }
    text_print(stderr, err->text, TEXT_ONE_LINE);
    fputc('\n', stderr);
    return err_exit_status(err->code);
}

void cli_warn(const char *which, const char *text)
{
    message_begin();
    text_print(stderr, which, TEXT_ONE_LINE);
    fputs(": warning: ", stderr);
    text_print(stderr, text, TEXT_ONE_LINE);
    fputc('\n', stderr);
}

void cli_usage_print(FILE *stream)
{
    const char *line = running.command->usage, *lead = "usage:";

    for (; line; lead = "   or:") {
        size_t length = strcspn(line, "\n");
        fprintf(stream, "%s bough %s %.*s\n", lead, running.verb, (int)length, line);
        line = line[length] == '\n' ? line + length + 1 : NULL;
    }
}

size_t cli_summary_length(const struct cli_command *command)
{
    return strcspn(command->summary, "\n");
}

int cli_usage_error(const char *format, ...)
{
    char text[512];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    message_begin();
    text_print(stderr, text, TEXT_ONE_LINE);
    if (running.command) {
        fputc('\n', stderr);
        cli_usage_print(stderr);
    } else {
        fprintf(stderr, " (`%s help` lists the commands)\n", running.group);
    }
    return err_exit_status(ERR_USAGE);
}

static const struct cli_command *command_find(const struct cli_table *table, const char *name)
{
    for (size_t i = 0; i < table->count; i++)
        if (strcmp(table->commands[i].name, name) == 0)
            return &table->commands[i];
    return NULL;
}

static void table_print(const struct cli_table *table, FILE *stream)
{
    fprintf(stream, "usage: %s COMMAND ...\n\n%s.\n\n", table->prefix, table->summary);
    for (size_t i = 0; i < table->count; i++)
        fprintf(stream, "  %-16s %.*s\n", table->commands[i].name,
                (int)cli_summary_length(&table->commands[i]), table->commands[i].summary);
    fprintf(stream, "\n`%s help COMMAND` tells more.\n", table->prefix);
}

static int command_run(const struct cli_table *table, const struct cli_command *command, int argc,
                       char **argv)
{
    const char *group = strchr(table->prefix, ' '); /* "bough disk": its verbs are "disk create", ... */

    snprintf(running.verb, sizeof running.verb, "%s%s%s", group ? group + 1 : "", group ? " " : "",
             command->name);
    running.command = command;
    return command->action(argc, argv);
}

/* `help A B` is `A help B` where A is a group, else `A --help`: both are answered by `A B --help`. */
static int help_run(const struct cli_table *table, int argc, char **argv)
{
    static char help_option[] = "--help";

    if (argc < 3) {
        table_print(table, stdout);
        return 0;
    }
    const struct cli_command *command = command_find(table, argv[2]);
    if (!command)
        return cli_usage_error("there is no command '%s'", argv[2]);
    char *help_argv[] = {argv[2], argc > 3 ? argv[3] : help_option, argc > 3 ? help_option : NULL, NULL};
    return command_run(table, command, argc > 3 ? 3 : 2, help_argv);
}

int cli_dispatch(const struct cli_table *table, int argc, char **argv)
{
    running.command = NULL; /* what is wrong until a command is found is not that of the group */
    running.group = table->prefix;
    if (argc < 2) {
        table_print(table, stderr);
        return err_exit_status(ERR_USAGE);
    }
    if (strcmp(argv[1], "help") == 0 || strcmp(argv[1], "--help") == 0 || strcmp(argv[1], "-h") == 0)
        return help_run(table, argc, argv);
    const struct cli_command *command = command_find(table, argv[1]);
    if (!command)
        return cli_usage_error("there is no command '%s'", argv[1]);
    return command_run(table, command, argc - 1, argv + 1);
}
