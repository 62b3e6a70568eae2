#include "cli_call.h"
#include "cli_commands.h"
#include "cli_merging.h"
#include "cli_output.h"
#include "cli_text.h"

#include <stdio.h>

struct args {
    bool subtree, no_merge, dry_run, yes, json;
};

static const struct cli_option OPTIONS[] = {
    {"subtree", CLI_FLAG, offsetof(struct args, subtree), NULL, "also all snapshots that descend from it"},
    {"no-merge", CLI_FLAG, offsetof(struct args, no_merge), NULL,
     "leave the merging of its disks to `bough merge`; a VM that runs does it by itself"},
    CLI_DRY_RUN(struct args),
    CLI_YES(struct args),
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 2, 2};

static void print_strings(const char *before, const json_t *strings)
{
    size_t i;
    json_t *string;

    json_array_foreach (strings, i, string) {
        fputs(before, stdout);
        text_print(stdout, json_string_value(string), TEXT_ONE_LINE);
        putchar('\n');
    }
}

static void print_deleted(const char *vm_name, const json_t *value)
{
    const char *stopped = json_text(json_object_get(value, "merge_stopped"), "message");

    print_strings("deleted ", json_object_get(value, "deleted"));
    merged_print(json_object_get(value, "merged"));
    merging_print(json_object_get(value, "merging"));
    fflush(stdout);
    if (*stopped != '\0')
        cli_warn(vm_name, stopped);
}

static bool ask_first(void *values, char **operands)
{
    const struct args *args = values;

    return confirmed(!args->subtree || args->yes || args->dry_run, "Delete '%s' and all snapshots below it? [y/N] ",
                     operands[1]);
}

int cmd_delete(int argc, char **argv)
{
    static const struct vm_verb VERB = {.syntax = &SYNTAX,
                                        .operation = "delete",
                                        .operands = {"snapshot"},
                                        .ask = ask_first,
                                        .print = print_deleted};
    struct args args = {0};

    return vm_verb_run(&VERB, argc, argv, &args, &args.json);
}
