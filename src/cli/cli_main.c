#include "auto.h"
#include "cli.h"
#include "file.h"
#include "cli_commands.h"
#include "cli_disk.h"
#include "cli_output.h"

#include <stdio.h>
#include <string.h>

/* {name, action, usage, summary}; the order is that of the help: a VM's life, its snapshots, the rest. */
static const struct cli_command COMMANDS[] = {
    {"create", cmd_create, "NAME [--memory SIZE] [--cpus N] [--disk SIZE|FILE[,bus=BUS]]... [OPTION...]",
     "make a VM"},
    {"list", cmd_list, "[--json]", "list all VMs"},
    {"show", cmd_show, "NAME [--json]", "show a VM: its state, hardware and disks"},
    {"set", cmd_set, "NAME KEY=VALUE... [--dry-run] [--json]", "change settings of a VM"},
    {"rename", cmd_rename, "NAME NEWNAME [--dry-run] [--json]", "give a VM another name"},
    {"remove", cmd_remove, "NAME [--dry-run] [--yes] [--json]", "remove a VM with all its snapshots"},
    {"start", cmd_start, "NAME [--paused] [--dry-run] [--json]", "start a VM, or go on with a saved one"},
    {"stop", cmd_stop, "NAME [--force] [--timeout SECONDS] [--dry-run] [--json]",
     "press the power button and wait, or cut the power"},
    {"pause", cmd_pause, "NAME [--json]", "let a VM stand still"},
    {"resume", cmd_resume, "NAME [--json]", "let a paused VM go on"},
    {"save", cmd_save, "NAME [--dry-run] [--json]", "save a VM's memory to disk and end it"},
    {"console", cmd_console, "NAME [--json]", "connect to a VM's serial console; Ctrl-] leaves"},
    {"display", cmd_display, "NAME [--json]", "tell where a VNC viewer connects"},
    {"screenshot", cmd_screenshot, "NAME FILE.png [--json]", "save a picture of a VM's screen"},
    {"snapshot", cmd_snapshot, "NAME [--name TEXT] [--notes TEXT] [--scheduled] [--point-now] [OPTION...]",
     "take a snapshot of a VM and print its GUID"},
    {"tree", cmd_tree, "NAME [--json]", "show a VM's snapshots as a tree, with Now in its place"},
    {"apply", cmd_apply, "NAME SNAPSHOT [--snapshot-first] [--no-start] [--disks-only] [OPTION...]",
     "go back to a snapshot"},
    {"revert", cmd_revert, "NAME [--snapshot-first] [--no-start] [--disks-only] [OPTION...]",
     "go back to the snapshot that a VM descends from"},
    {"rename-snapshot", cmd_rename_snapshot, "NAME SNAPSHOT NEWNAME [--dry-run] [--json]",
     "give a snapshot another name"},
    {"notes", cmd_notes, "NAME SNAPSHOT [TEXT] [--dry-run] [--json]", "print or replace a snapshot's notes"},
    {"settings", cmd_settings, "NAME [SNAPSHOT] [--json]", "print a VM's settings, now or at a snapshot"},
    {"delete", cmd_delete, "NAME SNAPSHOT [--subtree] [--no-merge] [--dry-run] [--yes] [--json]",
     "delete a snapshot; nothing else changes"},
    {"merge", cmd_merge, "NAME [--into-base] [--dry-run] [--yes] [--json]",
     "merge the disks that deleted snapshots have left, now\n"
     "What is seen of the VM and of every snapshot stays the same. A merge that is broken off goes on with the next\n"
     "one. `tree` shows what is to be merged, and what is kept and why."},
    {"prune", cmd_prune, "NAME [--keep-last N] [--keep-hourly N] [--keep-daily N] [--keep-weekly N] [--keep-monthly N] [OPTION...]",
     "delete old snapshots that a timer took, and no others\n"
     "Only snapshots taken with `snapshot --scheduled` are looked at. Each rule keeps the newest snapshot of\n"
     "its N newest hours, days, weeks or months that have one, by local time; --keep-last the N newest. What\n"
     "no rule keeps is deleted as by `delete`, the oldest first."},
    {"export", cmd_export, "NAME [SNAPSHOT] DIR [--name NAME] [--disks-only] [--dry-run] [--json]",
     "copy a VM, or one snapshot as a VM of its own, to a folder"},
    {"import", cmd_import, "DIR [--copy] [--name NAME] [--trust] [--dry-run] [--json]", "make a VM of a folder that holds one"},
    {"check", cmd_check, "NAME [--repair [--from SNAPSHOT] [--dry-run]] [--json]", "look for damage in all files of a VM and its snapshots, and repair what provably can be"},
    {"reconnect", cmd_reconnect, "NAME [--dry-run] [--yes] [--json]",
     "take base images that somebody else has changed as they are now"},
    {"unlock", cmd_unlock, "NAME --host HOST [--yes]",
     "take a VM from another host that is dead\n"
     "Only you can know that HOST neither runs the VM's guest nor works on its files: if it did, both would\n"
     "write to the same disks."},
    {"cancel", cmd_cancel, "NAME [--json]", "cancel what is in progress on a VM"},
    {"disk", cmd_disk, "COMMAND ...", "work on virtual disk files, with no VM needed"},
};

static const struct cli_table TABLE = {
    .prefix = "bough",
    .summary = "Virtual machines with a tree of snapshots to go back to",
    .commands = COMMANDS,
    .count = ARRAY_SIZE(COMMANDS),
};

/* Output that did not reach its file is a failure, however well the command went. */
static int stdout_close(int status)
{
    struct err err = ERR_INIT;

    if (fflush(stdout) == 0 && !ferror(stdout))
        return status;
    (void)err_set(&err, ERR_IO, "standard output: could not be written");
    return status != 0 ? status : cli_fail(NULL, &err);
}

int cli_main(int argc, char **argv)
{
    output_setup();
    open_files_raise();
    if (argc >= 2 && strcmp(argv[1], "--version") == 0) {
        printf("bough " BOUGH_VERSION "\n");
        return stdout_close(0);
    }
    return stdout_close(cli_dispatch(&TABLE, argc, argv));
}
