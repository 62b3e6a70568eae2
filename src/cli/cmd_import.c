#include "cli_call.h"
#include "cli_commands.h"
#include "cli_output.h"
#include "cli_progress.h"
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

int cmd_import(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    struct cli_progress progress;
    json_auto_t *arguments = json_object();
    json_auto_t *value = NULL;
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    const char *dir = operands.items[0];
    if (!argument_path(arguments, "dir", dir, &err) || !argument_text(arguments, "name", args.name, &err) ||
        !argument_flag(arguments, "copy", args.copy, &err) || !argument_flag(arguments, "trust", args.trust, &err) ||
        !argument_flag(arguments, "dry_run", args.dry_run, &err))
        return cli_fail(dir, &err);
    cli_progress_begin(&progress, "import", /* is_own_work= */ true);
    bool done = vm_import(arguments, &progress.progress, &value, &err);
    cli_progress_end(&progress, done);
    return done ? print_value(dir, value, args.json, print) : cli_fail(dir, &err);
}
