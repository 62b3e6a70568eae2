#include "cli_call.h"
#include "cli_commands.h"
#include "cli_output.h"
#include "cli_text.h"

#include <unistd.h>

struct args {
    const char *name, *notes;
    bool dry_run, json;
};

static const struct cli_option OPTIONS[] = {
    {"name", CLI_TEXT, offsetof(struct args, name), "TEXT", "its name; default: the VM's name and the time"},
    {"notes", CLI_TEXT, offsetof(struct args, notes), "TEXT", "notes to keep with it"},
    CLI_DRY_RUN(struct args),
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

/* The GUID alone goes to standard output, for `s=$(bough snapshot web)`; the rest is news for somebody who
 * watches. */
static void print_snapshot(const char *vm_name, const json_t *value)
{
    json_int_t pause_us = json_integer_value(json_object_get(value, "pause_us"));

    (void)vm_name;
    text_print(stdout, json_text(value, "guid"), TEXT_ONE_LINE);
    putchar('\n');
    if (!isatty(STDERR_FILENO))
        return;
    fflush(stdout);
    fputs("took '", stderr);
    text_print(stderr, json_text(value, "name"), TEXT_ONE_LINE);
    fputs("'", stderr);
    if (pause_us > 0)
        fprintf(stderr, "; the guest stood still for %.1f ms", (double)pause_us / 1000);
    fputc('\n', stderr);
}

int cmd_snapshot(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    json_auto_t *arguments = json_object();
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (!argument_text(arguments, "name", args.name, &err) ||
        !argument_text(arguments, "notes", args.notes, &err) ||
        !argument_flag(arguments, "dry_run", args.dry_run, &err))
        return cli_fail(operands.items[0], &err);
    return call_and_print(operands.items[0], "snapshot", TAKE(arguments), args.json, print_snapshot);
}
