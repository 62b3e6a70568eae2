/* The group `bough disk`: commands on plain image files, with no VM needed.
 *
 * To add one: write `int cmd_disk_VERB(int argc, char **argv)` in a file of its own, declare it here, and add
 * its row to cmd_disk_table.c and its file to meson.build. */
#pragma once

#include "cli.h"
#include "cli_options.h"
#include "progress.h"

#include <jansson.h>

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

/* What all of them but `serve` are: a command line, work with a bar that Ctrl-C and SIGTERM cancel, and an
 * answer, as JSON or for people. */
struct disk_verb {
    const struct cli_syntax *syntax;
    bool changes; /* files, so that what comes behind the work is not broken off */
    /* What the table of options cannot tell to be wrong: 0, or the status of cli_usage_error(). May be NULL.
     */
    int (*check)(void *args, char **operands);
    /* *ret_answer: a new reference, NULL when out of memory. Where tell is given none is wanted. */
    bool (*work)(void *args, char **operands, const struct progress *progress, json_t **ret_answer,
                 struct err *err);
    int (*print)(const json_t *answer); /* for people; 0, or the exit status of cli_fail() */
    /* The exit status that the answer itself stands for. NULL: 0. */
    int (*status)(const json_t *answer);
    /* Instead of print and JSON, for what is too large to be a value: prints what work left in args, and
     * returns the exit status. */
    int (*tell)(void *args);
};

/* args: the verb's own struct with its defaults; json: its member for --json. Returns the exit status.
 * Messages name the first operand. */
int disk_verb_run(const struct disk_verb *verb, int argc, char **argv, void *args, const bool *json);

/* --- pieces of the verbs --- */
/* What servers or workers that were killed had answered comes to its place in these images and their parents.
 */
bool settle_images(const char *const *paths, size_t count, struct err *err) MUST_CHECK;
/* Where dirty logs are kept (disk.h); owned. NULL: this user has no such place here. */
char *dirty_dir(void);
/* True if a --block-size is given (not 0) that others would not read: the usage error has been told. */
bool block_size_is_wrong(uint64_t block_bytes, int *ret_status);
/* A fault as a row of JSON, and that row as a line behind what (a file, a word). */
struct disk_fault;
json_t *fault_json(const struct disk_fault *fault);
void fault_print(const char *what, const json_t *fault);
/* The exit status of a list of faults: that of a damaged file if one is not harmless. */
int faults_status(const json_t *faults);
/* `what: text`, both escaped. what NULL: the text alone. */
void line_print(const char *what, const char *text);
/* A size of the object. */
uint64_t json_bytes(const json_t *object, const char *key);
