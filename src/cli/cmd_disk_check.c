#include "cli_disk.h"
#include "cli_output.h"
#include "disk_tools.h"

#include <stdio.h>

struct args {
    bool json;
};

static const struct cli_option OPTIONS[] = {CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

static void remember(void *context, const struct disk_fault *fault)
{
    json_array_append_new(context, fault_json(fault));
}

static bool work(void *args, char **operands, const struct progress *progress, json_t **ret_answer,
                 struct err *err)
{
    json_auto_t *faults = json_array();

    (void)args;
    if (!disk_check(&io_real, operands[0], remember, faults, progress, err))
        return false;
    *ret_answer = TAKE(faults);
    return true;
}

static int print(const json_t *faults)
{
    size_t i;
    const json_t *fault;

    json_array_foreach (faults, i, fault) {
        fault_print(json_text(fault, "file"), fault);
    }
    if (json_array_size(faults) == 0)
        puts("no fault was found");
    return 0;
}

int cmd_disk_check(int argc, char **argv)
{
    static const struct disk_verb VERB = {
        .syntax = &SYNTAX, .work = work, .print = print, .status = faults_status};
    struct args args = {0};

    return disk_verb_run(&VERB, argc, argv, &args, &args.json);
}
