/* The actions of all commands of `bough`, one file each. */
#pragma once

int cmd_apply(int argc, char **argv);
int cmd_cancel(int argc, char **argv);
int cmd_check(int argc, char **argv);
int cmd_console(int argc, char **argv);
int cmd_create(int argc, char **argv);
int cmd_delete(int argc, char **argv);
int cmd_display(int argc, char **argv);
int cmd_export(int argc, char **argv);
int cmd_import(int argc, char **argv);
int cmd_list(int argc, char **argv);
int cmd_merge(int argc, char **argv);
int cmd_notes(int argc, char **argv);
int cmd_pause(int argc, char **argv);
int cmd_prune(int argc, char **argv);
int cmd_reconnect(int argc, char **argv);
int cmd_remove(int argc, char **argv);
int cmd_rename(int argc, char **argv);
int cmd_rename_snapshot(int argc, char **argv);
int cmd_resume(int argc, char **argv);
int cmd_revert(int argc, char **argv);
int cmd_save(int argc, char **argv);
int cmd_screenshot(int argc, char **argv);
int cmd_set(int argc, char **argv);
int cmd_settings(int argc, char **argv);
int cmd_show(int argc, char **argv);
int cmd_snapshot(int argc, char **argv);
int cmd_start(int argc, char **argv);
int cmd_stop(int argc, char **argv);
int cmd_tree(int argc, char **argv);
int cmd_unlock(int argc, char **argv);
