#include "cli_call.h"
#include "cli_commands.h"
#include "cli_merging.h"
#include "cli_output.h"
#include "cli_text.h"

#include <stdio.h>

struct args {
    bool subtree, no_merge, dry_run, yes, json;
};

static const struct cli_option OPTIONS[] = {
    {"subtree", CLI_FLAG, offsetof(struct args, subtree), NULL, "also all snapshots that descend from it"},
    {"no-merge", CLI_FLAG, offsetof(struct args, no_merge), NULL,
     "leave the merging of its disks to `bough merge`; a VM that runs does it by itself"},
    CLI_DRY_RUN(struct args),
    CLI_YES(struct args),
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 2, 2};

static void print_strings(const char *before, const json_t *strings)
{
    size_t i;
    json_t *string;

    json_array_foreach (strings, i, string) {
        fputs(before, stdout);
        text_print(stdout, json_string_value(string), TEXT_ONE_LINE);
        putchar('\n');
    }
}

static void print_deleted(const char *vm_name, const json_t *value)
{
    const char *stopped = json_text(json_object_get(value, "merge_stopped"), "message");

    print_strings("deleted ", json_object_get(value, "deleted"));
    merged_print(json_object_get(value, "merged"));
    merging_print(json_object_get(value, "merging"));
    fflush(stdout);
    if (*stopped != '\0')
        cli_warn(vm_name, stopped);
}

int cmd_delete(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    json_auto_t *arguments = json_object();
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (!confirmed(!args.subtree || args.yes || args.dry_run, "Delete '%s' and all snapshots below it? [y/N] ", operands.items[1]))
        return err_exit_status(ERR_CANCELLED);
    if (!argument_text(arguments, "snapshot", operands.items[1], &err) ||
        !argument_flag(arguments, "subtree", args.subtree, &err) ||
        !argument_flag(arguments, "no_merge", args.no_merge, &err) ||
        !argument_flag(arguments, "dry_run", args.dry_run, &err))
        return cli_fail(operands.items[0], &err);
    return call_and_print(operands.items[0], "delete", TAKE(arguments), args.json, print_deleted);
}
