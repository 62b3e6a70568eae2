#include "cli_call.h"
#include "cli_commands.h"

struct args {
    bool json;
};

static const struct cli_option OPTIONS[] = {CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 2, 2};

static bool fill(json_t *arguments, const void *values, const struct cli_operands *operands, struct err *err)
{
    (void)values;
    return argument_path(arguments, "path", operands->items[1], err);
}

int cmd_screenshot(int argc, char **argv)
{
    static const struct vm_verb VERB = {.syntax = &SYNTAX, .operation = "screenshot", .fill = fill};
    struct args args = {0};

    return vm_verb_run(&VERB, argc, argv, &args, &args.json);
}
