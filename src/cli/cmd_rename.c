#include "cli_call.h"
#include "cli_commands.h"
#include "cli_output.h"

struct args {
    bool dry_run, json;
};

static const struct cli_option OPTIONS[] = {CLI_DRY_RUN(struct args), CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 2, 2};

int cmd_rename(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    json_auto_t *arguments = json_object();
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (!argument_text(arguments, "name", operands.items[1], &err) ||
        !argument_flag(arguments, "dry_run", args.dry_run, &err))
        return cli_fail(operands.items[0], &err);
    return call_and_print(operands.items[0], "rename", TAKE(arguments), args.json, NULL);
}
