#include "cli_call.h"
#include "cli_commands.h"
#include "cli_output.h"

struct args {
    bool yes, dry_run, json;
};

static const struct cli_option OPTIONS[] = {CLI_DRY_RUN(struct args), CLI_YES(struct args), CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

int cmd_remove(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    json_auto_t *arguments = json_object();
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (!confirmed(args.yes || args.dry_run, "Remove %s with all its snapshots, for ever? [y/N] ", operands.items[0]))
        return err_exit_status(ERR_CANCELLED);
    if (!argument_flag(arguments, "dry_run", args.dry_run, &err))
        return cli_fail(operands.items[0], &err);
    return call_and_print(operands.items[0], "remove", TAKE(arguments), args.json, NULL);
}
