#include "cli_disk.h"
#include "cli_options.h"
#include "disk_tools.h"

struct args {
    bool force;
};

static const struct cli_option OPTIONS[] = {
    {"force", CLI_FLAG, offsetof(struct args, force), NULL,
     "also over an image with another unique id: what is read then is yours to answer for"},
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 2, 2};

int cmd_disk_reconnect(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (disk_reconnect(&io_real, operands.items[0], operands.items[1], args.force, &err))
        return 0;
    return cli_fail(operands.items[0], &err);
}
