#include "cli_call.h"
#include "cli_commands.h"

struct args {
    bool dry_run, json;
};

static const struct cli_option OPTIONS[] = {CLI_DRY_RUN(struct args), CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

int cmd_save(int argc, char **argv)
{
    static const struct vm_verb VERB = {.syntax = &SYNTAX, .operation = "save", .print = print_state};
    struct args args = {0};

    return vm_verb_run(&VERB, argc, argv, &args, &args.json);
}
