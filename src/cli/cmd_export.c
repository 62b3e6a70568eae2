#include "buf.h"
#include "cli_call.h"
#include "cli_commands.h"
#include "cli_output.h"
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

static bool fill(json_t *arguments, const void *values, const struct cli_operands *operands, struct err *err)
{
    const struct args *args = values;
    const char *snapshot = operands->count == 3 ? operands->items[1] : NULL;

    if (args->disks_only && !snapshot)
        return err_set(err, ERR_USAGE, "--disks-only goes only with a snapshot");
    return argument_text(arguments, "snapshot", snapshot, err) &&
           argument_path(arguments, "dir", operands->items[operands->count - 1], err);
}

int cmd_export(int argc, char **argv)
{
    static const struct vm_verb VERB = {
        .syntax = &SYNTAX, .operation = "export", .fill = fill, .work = client_export, .print = print};
    struct args args = {0};

    return vm_verb_run(&VERB, argc, argv, &args, &args.json);
}
