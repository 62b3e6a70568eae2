#include "cli_disk.h"
#include "cli_options.h"
#include "cli_output.h"
#include "cli_progress.h"
#include "cli_text.h"
#include "disk_tools.h"

#include <stdio.h>

struct args {
    bool json;
};

static const struct cli_option OPTIONS[] = {CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

/* Both lists are of rows as they are printed. */
struct outcome {
    json_t *repaired, *faults;
    bool harm;
};

static void remember_repair(void *context, const char *text)
{
    struct outcome *outcome = context;

    json_array_append_new(outcome->repaired, json_from_text(text));
}

static void remember_fault(void *context, const struct disk_fault *fault)
{
    struct outcome *outcome = context;

    outcome->harm = outcome->harm || !fault->harmless;
    json_array_append_new(outcome->faults, json_pack("{s:o, s:b}", "text", json_from_text(fault->text),
                                                     "harmless", (int)fault->harmless));
}

static void print_people(const struct outcome *outcome)
{
    size_t i;
    const json_t *row;

    json_array_foreach (outcome->repaired, i, row) {
        fputs("repaired: ", stdout);
        text_print(stdout, json_string_value(row), TEXT_ONE_LINE);
        puts("");
    }
    json_array_foreach (outcome->faults, i, row) {
        fputs("not repaired: ", stdout);
        text_print(stdout, json_text(row, "text"), TEXT_ONE_LINE);
        puts(json_is_true(json_object_get(row, "harmless")) ? " (harmless)" : "");
    }
    if (json_array_size(outcome->repaired) + json_array_size(outcome->faults) == 0)
        puts("there is nothing to repair");
}

/* The exit status is that of a damaged file if anything is left that is not harmless. */
int cmd_disk_repair(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    struct cli_progress progress;
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    json_auto_t *value = json_pack("{s:[], s:[]}", "repaired", "faults");
    struct outcome outcome = {.repaired = json_object_get(value, "repaired"),
                              .faults = json_object_get(value, "faults")};
    cli_progress_begin(&progress, "repair");
    bool ok = disk_repair(&io_real, operands.items[0], remember_repair, remember_fault, &outcome,
                          &progress.progress, &err);
    cli_progress_end(&progress);
    if (!ok)
        return cli_fail(operands.items[0], &err);
    status = 0;
    if (args.json)
        status = output_json(value);
    else
        print_people(&outcome);
    return outcome.harm ? err_exit_status(ERR_CORRUPT) : status;
}
