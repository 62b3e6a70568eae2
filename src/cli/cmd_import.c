#include "cli_call.h"
#include "cli_commands.h"
#include "cli_output.h"
#include "cli_text.h"
#include "vm.h"

#include <stdio.h>

struct args {
    const char *name;
    bool copy, trust, dry_run, json;
};

static const struct cli_option OPTIONS[] = {
    {"copy", CLI_FLAG, offsetof(struct args, copy), NULL,
     "make another VM of it, with a GUID and MAC addresses of its own"},
    {"name", CLI_TEXT, offsetof(struct args, name), "NAME", "of the VM; default: as it is"},
    {"trust", CLI_FLAG, offsetof(struct args, trust), NULL, "files outside of DIR may be named by its settings"},
    CLI_DRY_RUN(struct args),
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

static void print(const char *dir, const json_t *value)
{
    (void)dir;
    text_print(stdout, json_text(value, "name"), TEXT_ONE_LINE);
    putchar('\n');
}

static bool fill(json_t *arguments, const void *values, const struct cli_operands *operands, struct err *err)
{
    (void)values;
    return argument_path(arguments, "dir", operands->items[0], err);
}

static bool work(const char *dir, const json_t *arguments, const struct progress *progress, json_t **ret_value,
                 struct err *err)
{
    (void)dir;
    return vm_import(arguments, progress, ret_value, err);
}

int cmd_import(int argc, char **argv)
{
    static const struct vm_verb VERB = {
        .syntax = &SYNTAX, .operation = "import", .fill = fill, .work = work, .print = print};
    struct args args = {0};

    return vm_verb_run(&VERB, argc, argv, &args, &args.json);
}
