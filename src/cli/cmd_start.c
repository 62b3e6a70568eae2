#include "cli_call.h"
#include "cli_commands.h"
#include "cli_output.h"
#include "cli_text.h"
#include "last_end.h"

#include <stdio.h>

struct args {
    bool paused, dry_run, json;
};

static const struct cli_option OPTIONS[] = {
    {"paused", CLI_FLAG, offsetof(struct args, paused), NULL,
     "let it stand still before its first instruction"},
    CLI_DRY_RUN(struct args),
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

/* Why it was not running any more, where nobody had asked for that. */
static void started_print(const char *vm_name, const json_t *value)
{
    const json_t *ended = json_object_get(value, "ended");

    print_state(vm_name, value);
    if (!last_end_is_fault(ended))
        return;
    fputs("bough: ", stderr);
    text_print(stderr, vm_name, TEXT_ONE_LINE);
    fputs(": last time: ", stderr);
    text_print(stderr, json_text(ended, "message"), TEXT_ONE_LINE);
    fputc('\n', stderr);
}

int cmd_start(int argc, char **argv)
{
    static const struct vm_verb VERB = {.syntax = &SYNTAX, .operation = "start", .print = started_print};
    struct args args = {0};

    return vm_verb_run(&VERB, argc, argv, &args, &args.json);
}
