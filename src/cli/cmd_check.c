#include "cli_commands.h"
#include "cli_disk.h"
#include "cli_output.h"
#include "cli_progress.h"
#include "client.h"
#include "vm.h"

#include <stdio.h>

struct args {
    bool repair, dry_run, json;
    const char *from;
};

static const struct cli_option OPTIONS[] = {
    {"repair", CLI_FLAG, offsetof(struct args, repair), NULL, "put right what provably can be; the VM must not run"},
    {"from", CLI_TEXT, offsetof(struct args, from), "SNAPSHOT", "with --repair: what the VM lay over, where its own file is lost"},
    CLI_DRY_RUN(struct args),
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

static unsigned long long count(const json_t *answer, const char *key)
{
    return (unsigned long long)json_integer_value(json_object_get(answer, key));
}

static void print_repairs(const json_t *answer)
{
    const json_t *repaired = json_object_get(answer, "repaired"), *choices = json_object_get(answer, "choices");
    const char *what = json_is_true(json_object_get(answer, "dry_run")) ? "would repair" : "repaired";
    size_t i;
    const json_t *row;

    json_array_foreach (repaired, i, row) {
        printf("%s ", what);
        line_print(json_text(row, "file"), json_text(row, "text"));
    }
    json_array_foreach (choices, i, row) {
        if (json_is_string(json_object_get(row, "guid")))
            printf("  %s ", json_text(row, "guid"));
        line_print(json_is_string(json_object_get(row, "name")) ? json_text(row, "name") : NULL, json_text(row, "text"));
    }
}

static void print(const json_t *answer)
{
    const json_t *faults = json_object_get(answer, "faults"), *in_use = json_object_get(answer, "in_use");
    size_t i;
    const json_t *fault, *path;

    json_array_foreach (faults, i, fault) {
        fault_print(json_text(fault, "file"), fault);
    }
    json_array_foreach (in_use, i, path) {
        line_print(json_string_value(path), "in use: its content was not read");
    }
    if (json_array_size(faults) == 0)
        printf("no fault was found in %llu snapshot(s), %llu disk image(s) and %llu memory image(s)\n",
               count(answer, "snapshots"), count(answer, "images"), count(answer, "memories"));
}

int cmd_check(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    struct cli_progress progress;
    json_auto_t *answer = NULL;
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (!args.repair && (args.dry_run || args.from))
        return cli_usage_error("--dry-run and --from go with --repair");
    cli_progress_begin(&progress, "check", /* is_own_work= */ true);
    const struct vm_repair_options options = {.from = args.from, .dry_run = args.dry_run};
    bool done = args.repair ? client_repair(operands.items[0], &options, &progress.progress, &answer, &err)
                            : client_check(operands.items[0], &progress.progress, &answer, &err);
    cli_progress_end(&progress, /* changed= */ done && args.repair && !args.dry_run);
    if (!done)
        return cli_fail(operands.items[0], &err);
    if (!args.json) {
        print_repairs(answer);
        print(answer);
    } else if ((status = output_json(answer)) != 0)
        return status;
    return faults_status(json_object_get(answer, "faults"));
}
