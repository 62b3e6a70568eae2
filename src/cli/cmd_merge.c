#include "cli_call.h"
#include "cli_commands.h"
#include "cli_merging.h"
#include "cli_output.h"

#include <stdio.h>

struct args {
    bool into_base, dry_run, yes, json;
};

static const struct cli_option OPTIONS[] = {
    {"into-base", CLI_FLAG, offsetof(struct args, into_base), NULL,
     "also into a base disk outside the VM's folder; all else that uses that disk would read wrongly"},
    CLI_DRY_RUN(struct args),
    CLI_YES(struct args),
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

static void print_merged(const char *vm_name, const json_t *value)
{
    const json_t *merged = json_object_get(value, "merged"), *merging = json_object_get(value, "merging");

    (void)vm_name;
    if (json_array_size(merged) == 0 && json_array_size(merging) == 0)
        puts("nothing to merge");
    merged_print(merged);
    merging_print(merging);
}

int cmd_merge(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    json_auto_t *arguments = json_object();
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (!confirmed(!args.into_base || args.yes || args.dry_run,
                   "Write into the base disks of '%s', which nothing else may use then? [y/N] ", operands.items[0]))
        return err_exit_status(ERR_CANCELLED);
    if (args.into_base && !args.dry_run)
        cli_warn(operands.items[0], "--into-base: whatever else uses a base disk that is written to reads wrongly from now on");
    if (!argument_flag(arguments, "into_base", args.into_base, &err) ||
        !argument_flag(arguments, "dry_run", args.dry_run, &err))
        return cli_fail(operands.items[0], &err);
    return call_and_print(operands.items[0], "merge", TAKE(arguments), args.json, print_merged);
}
