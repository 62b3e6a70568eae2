#include "auto.h"
#include "cli_disk.h"

/* {name, action, usage, summary}; the order is that of the help. */
static const struct cli_command COMMANDS[] = {
    {"create", cmd_disk_create,
     "FILE --size SIZE [--fixed] [--block-size SIZE] [--json]\n"
     "FILE --parent FILE [--size SIZE] [--block-size SIZE] [--json]",
     "make an empty virtual disk\n"
     "It is a VHD: dynamic (it grows as it is written), fixed, or differencing over a parent, on\n"
     "which it then depends: a parent must not change any more."},
    {"info", cmd_disk_info, "FILE [--json]",
     "tell what a virtual disk is, with the chain of files below it\n"
     "A line each file, FILE first: its own size, block size and id, and the space that it takes."},
    {"map", cmd_disk_map, "FILE [--json]",
     "tell which file holds which bytes of a virtual disk\n"
     "A line each piece: where it begins on the disk, its length, where it is, and in which file."},
    {"check", cmd_disk_check, "FILE [--json]",
     "look for damage in a virtual disk and the files below it\n"
     "The exit status is 10 if something is wrong that is not harmless."},
    {"repair", cmd_disk_repair, "FILE [--json]",
     "put in order what is provably safe to\n"
     "That is: footers, and what a crash left behind the end of FILE. The rest is told as by check,\n"
     "and stays."},
    {"convert", cmd_disk_convert,
     "FROM TO [--format FORMAT] [--block-size SIZE] [--source-format FORMAT] [--trust-source] [--json]",
     "copy a virtual disk into one image of another kind\n"
     "From a VHD with all below it, raw, qcow2, vmdk, vdi or vhdx, to any of these, without a parent.\n"
     "Zeros take no space where TO can do without. TO must not exist; it is there when it is whole.\n"
     "All but VHD and raw need qemu-img."},
    {"merge", cmd_disk_merge, "TOP [--into-base] [--child FILE]... [--json]",
     "put what a differencing image holds into its parent\n"
     "TOP shows the same all the time; if this is interrupted it can be done again. Afterwards TOP\n"
     "can be removed, once each image over it was given as a child. No other image may be over the\n"
     "parent: it would read wrongly."},
    {"resize", cmd_disk_resize, "FILE SIZE [--json]",
     "make a virtual disk larger\n"
     "What is new reads as zeros. A disk is never made smaller."},
    {"reconnect", cmd_disk_reconnect, "FILE PARENT [--force] [--json]",
     "tell a differencing image where its parent is now\n"
     "For a parent that was moved or renamed. It is known by its unique id."},
    {"serve", cmd_disk_serve, "FILE [--socket PATH] [--name NAME] [--writable] [--json]",
     "serve a virtual disk to other programs over NBD\n"
     "Prints the address that qemu-img, nbdcopy and others take, and goes on until Ctrl-C."},
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
