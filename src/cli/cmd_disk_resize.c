#include "bytes.h"
#include "cli_disk.h"
#include "cli_output.h"
#include "disk_tools.h"

struct args {
    uint64_t size_bytes; /* of the second operand */
    bool json;
};

static const struct cli_option OPTIONS[] = {CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 2, 2};

static int check(void *values, char **operands)
{
    struct args *args = values;

    if (size_parse(operands[1], &args->size_bytes))
        return 0;
    return cli_usage_error("'%s' is no size (such as 512M or 2G)", operands[1]);
}

static bool work(void *values, char **operands, const struct progress *progress, json_t **ret_answer,
                 struct err *err)
{
    const struct args *args = values;

    if (!disk_resize(&io_real, operands[0], args->size_bytes, progress, err))
        return false;
    *ret_answer = json_pack("{s:o, s:I}", "file", json_from_text(operands[0]), "size_bytes",
                            (json_int_t)args->size_bytes);
    return true;
}

static int print(const json_t *answer)
{
    char size[16];

    line_print(json_text(answer, "file"), size_format(json_bytes(answer, "size_bytes"), size));
    return 0;
}

int cmd_disk_resize(int argc, char **argv)
{
    static const struct disk_verb VERB = {
        .syntax = &SYNTAX, .changes = true, .check = check, .work = work, .print = print};
    struct args args = {0};

    return disk_verb_run(&VERB, argc, argv, &args, &args.json);
}
