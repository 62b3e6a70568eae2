#include "bytes.h"
#include "cli_disk.h"
#include "cli_options.h"
#include "cli_output.h"
#include "cli_progress.h"
#include "disk_tools.h"

#include <stdio.h>

struct args {
    bool json;
};

static const struct cli_option OPTIONS[] = {CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 2, 2};

static int tell(const char *file, uint64_t bytes, bool json)
{
    char size[16];

    if (!json) {
        printf("%s\n", size_format(bytes, size));
        return 0;
    }
    json_auto_t *value =
        json_pack("{s:o, s:I}", "file", json_from_text(file), "size_bytes", (json_int_t)bytes);
    return output_json(value);
}

int cmd_disk_resize(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    struct cli_progress progress;
    struct err err = ERR_INIT;
    uint64_t size_bytes;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (!size_parse(operands.items[1], &size_bytes))
        return cli_usage_error("`%s` is no size", operands.items[1]);
    cli_progress_begin(&progress, "resize");
    bool ok = disk_resize(&io_real, operands.items[0], size_bytes, &progress.progress, &err);
    cli_progress_end(&progress);
    return ok ? tell(operands.items[0], size_bytes, args.json) : cli_fail(operands.items[0], &err);
}
