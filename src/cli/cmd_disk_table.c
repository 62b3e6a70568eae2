#include "auto.h"
#include "cli_disk.h"

/* {name, action, usage, summary}; the order is that of the help. */
static const struct cli_command COMMANDS[] = {};

int cmd_disk(int argc, char **argv)
{
    static const struct cli_table TABLE = {
        .prefix = "bough disk",
        .summary = "work on virtual disk files, with no VM needed",
        .commands = COMMANDS,
        .count = ARRAY_SIZE(COMMANDS),
    };

    return cli_dispatch(&TABLE, argc, argv);
}
