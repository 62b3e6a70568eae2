#include "cli_call.h"
#include "cli_commands.h"
#include "cli_output.h"
#include "cli_text.h"

#include <string.h>
#include <unistd.h>

struct args {
    const char *name, *notes;
    bool scheduled, point_now, dry_run, verbose, json;
};

static const struct cli_option OPTIONS[] = {
    {"name", CLI_TEXT, offsetof(struct args, name), "TEXT", "its name; default: the VM's name and the time"},
    {"notes", CLI_TEXT, offsetof(struct args, notes), "TEXT", "notes to keep with it"},
    {"scheduled", CLI_FLAG, offsetof(struct args, scheduled), NULL,
     "mark it as taken by a timer: `bough prune` may delete it"},
    {"point-now", CLI_FLAG, offsetof(struct args, point_now), NULL,
     "the memory of this moment, not of the end of the copying"},
    CLI_VERBOSE(struct args, "tell on standard error how it was taken"),
    CLI_DRY_RUN(struct args),
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

static struct args args;

/* By which way, when memory was saved. */
static const char *way_text(const char *mode)
{
    if (strcmp(mode, "background") == 0)
        return ", as it was when asked for (background snapshot)";
    return strcmp(mode, "pre-copy") == 0 ? ", as it was at the end of the copying (pre-copy)" : "";
}

static void tell_how(const json_t *value)
{
    json_int_t pause_us = json_integer_value(json_object_get(value, "pause_us"));
    json_int_t paused_us = json_integer_value(json_object_get(value, "paused_us"));
    json_int_t pauses = json_integer_value(json_object_get(value, "pauses"));
    json_int_t total_us = json_integer_value(json_object_get(value, "total_us"));

    fputs("took '", stderr);
    text_print(stderr, json_text(value, "name"), TEXT_ONE_LINE);
    fputs("'", stderr);
    if (args.verbose)
        fprintf(stderr, " in %.2f s%s", (double)total_us / 1e6, way_text(json_text(value, "mode")));
    if (pause_us > 0)
        fprintf(stderr, "; the guest stood still for %.1f ms", (double)pause_us / 1000);
    if (args.verbose && pauses > 1)
        fprintf(stderr, ", %.1f ms in all %" JSON_INTEGER_FORMAT " pauses", (double)paused_us / 1000, pauses);
    if (args.verbose && json_is_true(json_object_get(value, "too_fast")))
        fputs(", because it changes memory faster than it can be copied", stderr);
    fputc('\n', stderr);
}

/* The GUID alone goes to standard output, for `s=$(bough snapshot web)`; the rest is news for somebody who
 * watches. */
static void print_snapshot(const char *vm_name, const json_t *value)
{
    text_print(stdout, json_text(value, "guid"), TEXT_ONE_LINE);
    putchar('\n');
    fflush(stdout);
    if (args.verbose || isatty(STDERR_FILENO))
        tell_how(value);
    if (*json_text(value, "warning") != '\0')
        cli_warn(vm_name, json_text(value, "warning"));
}

int cmd_snapshot(int argc, char **argv)
{
    static const struct vm_verb VERB = {.syntax = &SYNTAX, .operation = "snapshot", .print = print_snapshot};

    args = (struct args){0};
    return vm_verb_run(&VERB, argc, argv, &args, &args.json);
}
