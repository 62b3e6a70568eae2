#include "cli_call.h"
#include "cli_commands.h"
#include "cli_output.h"
#include "cli_text.h"

struct args {
    bool dry_run, yes, json;
};

static const struct cli_option OPTIONS[] = {
    CLI_DRY_RUN(struct args),
    CLI_YES(struct args),
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

static void print_accepted(const char *vm_name, const json_t *value)
{
    const json_t *accepted = json_object_get(value, "accepted"), *row;
    size_t i;

    json_array_foreach (accepted, i, row) {
        text_print(stdout, json_text(row, "file"), TEXT_ONE_LINE);
        printf(": %s (was: %s)\n", json_text(row, "is"), json_text(row, "was"));
    }
    if (json_array_size(accepted) == 0)
        printf("%s: no base has changed\n", vm_name);
    else
        fputs("warning: what the machine and its snapshots read of these may be other than it was\n", stderr);
}

static bool ask_first(void *values, char **operands)
{
    const struct args *args = values;

    return confirmed(args->yes || args->dry_run,
                     "Take the bases of '%s' as they are now? Snapshots over them may read otherwise than before. [y/N] ",
                     operands[0]);
}

int cmd_reconnect(int argc, char **argv)
{
    static const struct vm_verb VERB = {
        .syntax = &SYNTAX, .operation = "reconnect", .ask = ask_first, .print = print_accepted};
    struct args args = {0};

    return vm_verb_run(&VERB, argc, argv, &args, &args.json);
}
