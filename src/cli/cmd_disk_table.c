#include "auto.h"
#include "cli_disk.h"

/* {name, action, usage, summary}; the order is that of the help. */
static const struct cli_command COMMANDS[] = {
    {"create", cmd_disk_create, "FILE --size SIZE [--fixed] [--block-size SIZE] [--json] | FILE --parent FILE [--size SIZE]...",
     "make an empty virtual disk"},
    {"info", cmd_disk_info, "FILE [--json]", "what a virtual disk is, with the chain of files below it"},
    {"map", cmd_disk_map, "FILE [--json]", "which file holds which bytes of a virtual disk"},
    {"check", cmd_disk_check, "FILE [--json]", "look for damage in a virtual disk and the files below it"},
    {"convert", cmd_disk_convert, "FROM TO [--format FORMAT] [--block-size SIZE] [--source-format FORMAT] [--trust-source] [--json]",
     "copy what a disk holds into one image without a parent: VHD, raw, qcow2 and others"},
    {"merge", cmd_disk_merge, "TOP [--into-base] [--child FILE]... [--json]",
     "put what a differencing image holds into its parent"},
    {"reconnect", cmd_disk_reconnect, "FILE PARENT [--force] [--json]", "tell a differencing image where its parent is now"},
    {"repair", cmd_disk_repair, "FILE [--json]", "put in order what is provably safe to"},
    {"resize", cmd_disk_resize, "FILE SIZE [--json]", "make a virtual disk larger"},
    {"serve", cmd_disk_serve, "FILE [--socket PATH] [--name NAME] [--writable] [--json]",
     "serve a chain to other tools over NBD"},
};

int cmd_disk(int argc, char **argv)
{
    static const struct cli_table TABLE = {
        .prefix = "bough disk",
        .summary = "Work on virtual disk files, with no VM needed",
        .commands = COMMANDS,
        .count = ARRAY_SIZE(COMMANDS),
    };

    return cli_dispatch(&TABLE, argc, argv);
}
