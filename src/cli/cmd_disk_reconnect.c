#include "cli_disk.h"
#include "cli_output.h"
#include "disk_tools.h"

#include <stdio.h>

struct args {
    bool force, json;
};

static const struct cli_option OPTIONS[] = {
    {"force", CLI_FLAG, offsetof(struct args, force), NULL,
     "also over an image with another unique id: what is read then is yours to answer for"},
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 2, 2};

static bool work(void *values, char **operands, const struct progress *progress, json_t **ret_answer,
                 struct err *err)
{
    const struct args *args = values;

    (void)progress;
    if (!disk_reconnect(&io_real, operands[0], operands[1], args->force, err))
        return false;
    *ret_answer =
        json_pack("{s:o, s:o}", "file", json_from_text(operands[0]), "parent", json_from_text(operands[1]));
    return true;
}

static int print(const json_t *answer)
{
    printf("its parent is now ");
    line_print(NULL, json_text(answer, "parent"));
    return 0;
}

int cmd_disk_reconnect(int argc, char **argv)
{
    static const struct disk_verb VERB = {.syntax = &SYNTAX, .changes = true, .work = work, .print = print};
    struct args args = {0};

    return disk_verb_run(&VERB, argc, argv, &args, &args.json);
}
