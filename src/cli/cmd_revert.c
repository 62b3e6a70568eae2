#include "cli_back.h"
#include "cli_call.h"
#include "cli_commands.h"

struct args {
    bool no_start, dry_run, yes, json;
};

static const struct cli_option OPTIONS[] = {
    {"no-start", CLI_FLAG, offsetof(struct args, no_start), NULL, "leave a snapshot with memory as Saved"},
    CLI_DRY_RUN(struct args),
    CLI_YES(struct args),
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

int cmd_revert(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    json_auto_t *arguments = json_object();
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (!args.yes && !args.dry_run &&
        back_ask(operands.items[0], /* with_snapshot= */ false) == ANSWER_CANCEL)
        return err_exit_status(ERR_CANCELLED);
    if (!argument_flag(arguments, "no_start", args.no_start, &err) ||
        !argument_flag(arguments, "dry_run", args.dry_run, &err))
        return cli_fail(operands.items[0], &err);
    return call_and_print(operands.items[0], "revert", TAKE(arguments), args.json, back_print);
}
