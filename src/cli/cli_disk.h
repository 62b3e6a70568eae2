/* The group `bough disk`: commands on plain image files, with no VM needed.
 *
 * To add one: write `int cmd_disk_VERB(int argc, char **argv)` in a file of its own (argv[0] is the verb;
 * parse with cli_options.h, fail with cli_fail()), declare it here, and add its row to cmd_disk_table.c and
 * its file to meson.build. */
#pragma once

#include "cli.h"

int cmd_disk(int argc, char **argv);
int cmd_disk_check(int argc, char **argv);
int cmd_disk_convert(int argc, char **argv);
int cmd_disk_create(int argc, char **argv);
int cmd_disk_info(int argc, char **argv);
int cmd_disk_map(int argc, char **argv);
int cmd_disk_merge(int argc, char **argv);
int cmd_disk_reconnect(int argc, char **argv);
int cmd_disk_repair(int argc, char **argv);
int cmd_disk_resize(int argc, char **argv);
int cmd_disk_serve(int argc, char **argv);
