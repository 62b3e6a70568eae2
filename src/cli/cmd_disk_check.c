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

struct faults {
    json_t *rows;
    bool harm;
};

static void remember(void *context, const struct disk_fault *fault)
{
    struct faults *faults = context;

    faults->harm = faults->harm || !fault->harmless;
    json_array_append_new(faults->rows,
                          json_pack("{s:o, s:o, s:b}", "file", json_from_text(fault->path), "text",
                                    json_from_text(fault->text), "harmless", (int)fault->harmless));
}

static void print_people(const json_t *rows)
{
    size_t i;
    const json_t *row;

    json_array_foreach (rows, i, row) {
        text_print(stdout, json_text(row, "file"), TEXT_ONE_LINE);
        fputs(": ", stdout);
        text_print(stdout, json_text(row, "text"), TEXT_ONE_LINE);
        puts(json_is_true(json_object_get(row, "harmless")) ? " (harmless)" : "");
    }
    if (json_array_size(rows) == 0)
        puts("no fault was found");
}

/* The exit status is that of a damaged file if anything is wrong that is not harmless. */
int cmd_disk_check(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    struct cli_progress progress;
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    json_auto_t *rows = json_array();
    struct faults faults = {.rows = rows};
    cli_progress_begin(&progress, "check");
    bool ok = disk_check(&io_real, operands.items[0], remember, &faults, &progress.progress, &err);
    cli_progress_end(&progress);
    if (!ok)
        return cli_fail(operands.items[0], &err);
    status = 0;
    if (args.json)
        status = output_json(rows);
    else
        print_people(rows);
    return faults.harm ? err_exit_status(ERR_CORRUPT) : status;
}
