#include "cli_back.h"
#include "cli_call.h"
#include "cli_commands.h"

struct args {
    bool snapshot_first, no_start, disks_only, verify, dry_run, yes, json;
};

static const struct cli_option OPTIONS[] = {
    {"snapshot-first", CLI_FLAG, offsetof(struct args, snapshot_first), NULL,
     "take a snapshot of the present first; if that fails nothing is applied"},
    {"no-start", CLI_FLAG, offsetof(struct args, no_start), NULL, "leave a snapshot with memory as Saved"},
    {"disks-only", CLI_FLAG, offsetof(struct args, disks_only), NULL,
     "disks and settings without the memory"},
    {"verify", CLI_FLAG, offsetof(struct args, verify), NULL,
     "check all of the memory's checksums first (slower)"},
    CLI_DRY_RUN(struct args),
    CLI_YES(struct args),
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 2, 2};

static bool arguments_fill(json_t *arguments, const struct args *args, const char *snapshot, struct err *err)
{
    return argument_text(arguments, "snapshot", snapshot, err) &&
           argument_flag(arguments, "snapshot_first", args->snapshot_first, err) &&
           argument_flag(arguments, "no_start", args->no_start, err) &&
           argument_flag(arguments, "disks_only", args->disks_only, err) &&
           argument_flag(arguments, "verify", args->verify, err) &&
           argument_flag(arguments, "dry_run", args->dry_run, err);
}

int cmd_apply(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    json_auto_t *arguments = json_object();
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (!args.snapshot_first && !args.yes && !args.dry_run) {
        enum answer answer = back_ask(operands.items[0], /* with_snapshot= */ true);
        if (answer == ANSWER_CANCEL)
            return err_exit_status(ERR_CANCELLED);
        args.snapshot_first = answer == ANSWER_YES;
    }
    if (!arguments_fill(arguments, &args, operands.items[1], &err))
        return cli_fail(operands.items[0], &err);
    return call_and_print(operands.items[0], "apply", TAKE(arguments), args.json, back_print);
}
