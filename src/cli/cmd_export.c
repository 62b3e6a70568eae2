#include "buf.h"
#include "cli_call.h"
#include "cli_commands.h"
#include "cli_output.h"
#include "cli_progress.h"
#include "cli_text.h"
#include "client.h"

#include <stdio.h>

struct args {
    const char *name;
    bool disks_only, dry_run, json;
};

static const struct cli_option OPTIONS[] = {
    {"name", CLI_TEXT, offsetof(struct args, name), "NAME", "of the VM in the folder; default: as it is"},
    {"disks-only", CLI_FLAG, offsetof(struct args, disks_only), NULL, "leave the snapshot's memory out: the VM is off"},
    CLI_DRY_RUN(struct args),
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 2, 3};

static void print(const char *vm_name, const json_t *value)
{
    const json_t *path;
    size_t i;

    text_print(stdout, json_text(value, "path"), TEXT_ONE_LINE);
    putchar('\n');
    json_array_foreach (json_object_get(value, "outside"), i, path) {
        AUTO_FREE char *text = string_printf("%s: is not part of the VM and was not taken along", json_string_value(path));
        if (text)
            cli_warn(vm_name, text);
    }
}

static bool arguments_fill(json_t *arguments, const struct args *args, const struct cli_operands *operands, struct err *err)
{
    const char *snapshot = operands->count == 3 ? operands->items[1] : NULL;

    return argument_text(arguments, "snapshot", snapshot, err) && argument_text(arguments, "name", args->name, err) &&
           argument_path(arguments, "dir", operands->items[operands->count - 1], err) &&
           argument_flag(arguments, "disks_only", args->disks_only, err) &&
           argument_flag(arguments, "dry_run", args->dry_run, err);
}

int cmd_export(int argc, char **argv)
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
    if (args.disks_only && operands.count < 3)
        return cli_usage_error("--disks-only goes only with a snapshot");
    if (!arguments_fill(arguments, &args, &operands, &err))
        return cli_fail(operands.items[0], &err);
    cli_progress_begin(&progress, "export", /* is_own_work= */ true);
    bool done = client_export(operands.items[0], arguments, &progress.progress, &value, &err);
    cli_progress_end(&progress, done);
    return done ? print_value(operands.items[0], value, args.json, print) : cli_fail(operands.items[0], &err);
}
