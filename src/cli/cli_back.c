#include "cli_back.h"

#include "cli_call.h"
#include "cli_output.h"
#include "cli_text.h"

#include <stdio.h>

struct args {
    bool snapshot_first, no_start, disks_only, verify, dry_run, yes, json;
};

static const struct cli_option OPTIONS[] = {
    {"snapshot-first", CLI_FLAG, offsetof(struct args, snapshot_first), NULL,
     "take a snapshot of the present first; if that fails, nothing else is done"},
    {"no-start", CLI_FLAG, offsetof(struct args, no_start), NULL, "leave a snapshot with memory as Saved"},
    {"disks-only", CLI_FLAG, offsetof(struct args, disks_only), NULL,
     "disks and settings without the memory"},
    {"verify", CLI_FLAG, offsetof(struct args, verify), NULL, "check all of the memory's checksums first"},
    CLI_DRY_RUN(struct args),
    CLI_YES(struct args),
    CLI_JSON(struct args),
};

static bool arguments_fill(json_t *arguments, const struct args *args, const char *snapshot, struct err *err)
{
    return argument_text(arguments, "snapshot", snapshot, err) &&
           argument_flag(arguments, "snapshot_first", args->snapshot_first, err) &&
           argument_flag(arguments, "no_start", args->no_start, err) &&
           argument_flag(arguments, "disks_only", args->disks_only, err) &&
           argument_flag(arguments, "verify", args->verify, err) &&
           argument_flag(arguments, "dry_run", args->dry_run, err);
}

/* Hyper-V's question. *no* goes on without a snapshot; where nobody can answer, that is the answer. */
static enum answer keep_present(const char *vm_name)
{
    if (!can_ask())
        return ANSWER_NO;
    return ask(/* with_cancel= */ true,
               "The present state of %s will be lost. Take a snapshot of it first? [y/N/cancel] ", vm_name);
}

static void back_print(const char *vm_name, const json_t *value)
{
    const json_t *first = json_object_get(value, "first");
    const json_t *running_us = json_object_get(value, "running_us");

    text_print(stdout, vm_name, TEXT_ONE_LINE);
    fputs(": ", stdout);
    text_print(stdout, json_text(value, "state"), TEXT_ONE_LINE);
    if (json_is_integer(running_us))
        printf(" after %.3f s", (double)json_integer_value(running_us) / 1e6);
    if (json_is_object(first)) {
        fputs("; the state before is '", stdout);
        text_print(stdout, json_text(first, "name"), TEXT_ONE_LINE);
        printf("', %s", json_text(first, "guid"));
    }
    putchar('\n');
}

int back_run(int argc, char **argv, const char *operation, bool with_snapshot)
{
    const struct cli_syntax syntax = {OPTIONS, ARRAY_SIZE(OPTIONS), with_snapshot ? 2 : 1,
                                      with_snapshot ? 2 : 1};
    struct args args = {0};
    struct cli_operands operands;
    json_auto_t *arguments = json_object();
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&syntax, argc, argv, &args, &operands, &status))
        return status;
    if (!args.snapshot_first && !args.yes && !args.dry_run) {
        enum answer answer = keep_present(operands.items[0]);
        if (answer == ANSWER_CANCEL)
            return err_exit_status(ERR_CANCELLED);
        args.snapshot_first = answer == ANSWER_YES;
    }
    if (!arguments_fill(arguments, &args, with_snapshot ? operands.items[1] : NULL, &err))
        return cli_fail(operands.items[0], &err);
    return call_and_print(operands.items[0], operation, TAKE(arguments), args.json, back_print);
}
