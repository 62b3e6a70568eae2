#include "cli_disk.h"
#include "cli_output.h"
#include "disk_tools.h"

#include <stdio.h>

struct args {
    bool json;
};

static const struct cli_option OPTIONS[] = {CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

static void remember_repair(void *context, const char *text)
{
    json_array_append_new(json_object_get(context, "repaired"), json_from_text(text));
}

static void remember_fault(void *context, const struct disk_fault *fault)
{
    json_array_append_new(json_object_get(context, "faults"), fault_json(fault));
}

static bool work(void *args, char **operands, const struct progress *progress, json_t **ret_answer,
                 struct err *err)
{
    json_auto_t *answer = json_pack("{s:[], s:[]}", "repaired", "faults");

    (void)args;
    if (!disk_repair(&io_real, operands[0], remember_repair, remember_fault, answer, progress, err))
        return false;
    *ret_answer = TAKE(answer);
    return true;
}

static int print(const json_t *answer)
{
    const json_t *repaired = json_object_get(answer, "repaired"), *faults = json_object_get(answer, "faults");
    size_t i;
    const json_t *row;

    json_array_foreach (repaired, i, row) {
        line_print("repaired", json_string_value(row));
    }
    json_array_foreach (faults, i, row) {
        fault_print("not repaired", row);
    }
    if (json_array_size(repaired) + json_array_size(faults) == 0)
        puts("there is nothing to repair");
    return 0;
}

static int status(const json_t *answer)
{
    return faults_status(json_object_get(answer, "faults"));
}

int cmd_disk_repair(int argc, char **argv)
{
    static const struct disk_verb VERB = {
        .syntax = &SYNTAX, .changes = true, .work = work, .print = print, .status = status};
    struct args args = {0};

    return disk_verb_run(&VERB, argc, argv, &args, &args.json);
}
