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

/* Hyper-V's question. *no* goes on without a snapshot; where nobody can answer, that is the answer. */
static bool keep_present(void *values, char **operands)
{
    struct args *args = values;

    if (args->snapshot_first || args->yes || args->dry_run || !can_ask())
        return true;
    enum answer answer = ask(/* with_cancel= */ true,
                             "The present state of %s will be lost. Take a snapshot of it first? [y/N/cancel] ",
                             operands[0]);
    args->snapshot_first = answer == ANSWER_YES;
    return answer != ANSWER_CANCEL;
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
    const struct vm_verb verb = {.syntax = &syntax,
                                 .operation = operation,
                                 .operands = {"snapshot"},
                                 .ask = keep_present,
                                 .print = back_print};
    struct args args = {0};

    return vm_verb_run(&verb, argc, argv, &args, &args.json);
}
