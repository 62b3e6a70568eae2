#include "cli_call.h"
#include "cli_commands.h"
#include "cli_output.h"

struct args {
    bool yes, dry_run, json;
};

static const struct cli_option OPTIONS[] = {CLI_DRY_RUN(struct args), CLI_YES(struct args), CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

static bool ask_first(void *values, char **operands)
{
    const struct args *args = values;

    return confirmed(args->yes || args->dry_run, "Remove %s with all its snapshots, for ever? [y/N] ", operands[0]);
}

int cmd_remove(int argc, char **argv)
{
    static const struct vm_verb VERB = {.syntax = &SYNTAX, .operation = "remove", .ask = ask_first};
    struct args args = {0};

    return vm_verb_run(&VERB, argc, argv, &args, &args.json);
}
