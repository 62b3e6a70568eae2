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

static bool ask_first(void *values, char **operands)
{
    const struct args *args = values;

    if (!confirmed(!args->into_base || args->yes || args->dry_run,
                   "Write into the base disks of '%s', which nothing else may use then? [y/N] ", operands[0]))
        return false;
    if (args->into_base && !args->dry_run)
        cli_warn(operands[0], "--into-base: whatever else uses a base disk that is written to reads wrongly from now on");
    return true;
}

int cmd_merge(int argc, char **argv)
{
    static const struct vm_verb VERB = {
        .syntax = &SYNTAX, .operation = "merge", .ask = ask_first, .print = print_merged};
    struct args args = {0};

    return vm_verb_run(&VERB, argc, argv, &args, &args.json);
}
