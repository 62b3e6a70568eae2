#include "cli_hooks.h"

#include "auto.h"
#include "child.h"
#include "cli.h"
#include "cli_output.h"
#include "cli_text.h"
#include "cli_view.h"
#include "client.h"
#include "file.h"
#include "name_list.h"

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#define LIMIT_S     60
#define LIMIT_MAX_S 86400
#define WORDS_MAX   160

/* NULL: there is no place for them, as in a system service without a home. */
static char *hooks_dir(void)
{
    const char *config = getenv("XDG_CONFIG_HOME"), *home = getenv("HOME");

    if (config && *config == '/') /* a relative one is to be ignored, says its specification */
        return path_join(config, "bough/hooks.d");
    return home && *home == '/' ? path_join(home, ".config/bough/hooks.d") : NULL;
}

/* Whoever can write it can have anything run in our name. */
static bool safe_check(const char *path, const struct stat *st, struct err *err)
{
    if (st->st_uid != geteuid() && st->st_uid != 0)
        return err_set(err, ERR_INVALID, "%s: belongs to another user: no hooks are run, and nothing is done", path);
    if ((st->st_mode & (S_IWGRP | S_IWOTH)) != 0)
        return err_set(err, ERR_INVALID, "%s: can be written by others: no hooks are run, and nothing is done", path);
    return true;
}

static bool may_be_hook(const char *name)
{
    return name[0] != '.' && name[strlen(name) - 1] != '~';
}

/* From names to paths; what is no program is left out. */
static bool programs_keep(struct name_list *hooks, const char *dir, struct err *err)
{
    size_t kept = 0;
    bool ok = true;

    for (size_t i = 0; i < hooks->count; i++) {
        AUTO_FREE char *name = hooks->items[i];
        AUTO_FREE char *path = path_join(dir, name);
        struct stat st;
        if (!path)
            ok = err_oom(err);
        if (!ok || !may_be_hook(name) || !child_is_program(path) || stat(path, &st) != 0)
            continue;
        ok = safe_check(path, &st, err);
        hooks->items[kept++] = TAKE(path);
    }
    hooks->count = kept;
    return ok;
}

static bool hooks_find(struct name_list *hooks, struct err *err)
{
    AUTO_FREE char *dir = hooks_dir();
    AUTO_FREE char *parent = dir ? path_dir(dir) : NULL;
    struct stat st;

    if (!dir || !parent)
        return true;
    /* One that cannot be looked at may hold hooks that would say no. */
    if (stat(dir, &st) != 0)
        return errno == ENOENT || errno == ENOTDIR || err_sys(err, errno, "look at %s", dir);
    if (!safe_check(dir, &st, err))
        return false;
    if (stat(parent, &st) != 0)
        return err_sys(err, errno, "look at %s", parent);
    if (!safe_check(parent, &st, err) || !name_list_read(&io_real, dir, hooks, err))
        return false;
    name_list_sort(hooks);
    return programs_keep(hooks, dir, err);
}

/* --- one of them --- */

/* What it prints, a line at a time, and the last of it for the message of its failure. */
struct words {
    const char *name;
    char line[512], last[WORDS_MAX];
    size_t length;
};

static void line_end(struct words *words)
{
    words->line[words->length] = '\0';
    if (words->length == 0)
        return;
    fputs("bough: hook ", stderr);
    text_print(stderr, words->name, TEXT_ONE_LINE);
    fputs(": ", stderr);
    text_print(stderr, words->line, TEXT_ONE_LINE);
    fputc('\n', stderr);
    snprintf(words->last, sizeof words->last, "%.*s", WORDS_MAX - 1, words->line);
    words->length = 0;
}

static bool words_take(void *context, const char *bytes, size_t length, struct err *err)
{
    struct words *words = context;

    (void)err;
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] == '\n' || words->length == sizeof words->line - 1)
            line_end(words);
        if (bytes[i] != '\n')
            words->line[words->length++] = bytes[i] ? bytes[i] : ' ';
    }
    return true;
}

static int limit_ms(void)
{
    const char *text = getenv("BOUGH_HOOK_TIMEOUT");
    long seconds = text ? strtol(text, NULL, 10) : 0;

    return (seconds > 0 && seconds <= LIMIT_MAX_S ? (int)seconds : LIMIT_S) * 1000;
}

static bool hook_run(const char *path, const char *const words_given[3], const struct progress *progress,
                     struct err *err)
{
    char *argv[] = {(char *)(uintptr_t)path, (char *)(uintptr_t)words_given[0], (char *)(uintptr_t)words_given[1],
                    (char *)(uintptr_t)words_given[2], NULL};
    struct child child = {.argv = argv, .output_fd = -1, .error_fd = -1, .kills_group = true};
    struct words words = {.name = path_base(path)};
    int ended = 0;

    if (!child_run(&child, words_take, &words, progress, limit_ms(), &ended, err)) {
        line_end(&words);
        err->code = err->code == ERR_CANCELLED ? ERR_CANCELLED : ERR_HOOK;
        return err_prefix(err, "hook");
    }
    line_end(&words);
    if (ended == 0)
        return true;
    return err_set(err, ERR_HOOK, "hook %s: exit status %d%s%s", words.name, ended, words.last[0] ? ": " : "", words.last);
}

/* --- around an operation --- */

struct around {
    const char *operation, *vm_name;
    struct guid vm, snapshot; /* snapshot: the one it is about; unset: none yet */
    struct guid first;        /* the one that was taken before going back */
    bool with_first;          /* is asked for */
    char *folder;             /* owned */
    struct name_list hooks; /* their paths, by name */
    size_t begun; /* so many ran before it: they are told how it ended */
};

static void around_done(struct around *around)
{
    name_list_done(&around->hooks);
    free(around->folder);
}

/* What is to be gone back to or deleted is looked up once, so that hooks and operation mean the same: arguments get its GUID. */
static bool around_look(struct around *around, json_t *arguments, struct err *err)
{
    const char *selector = json_string_value(json_object_get(arguments, "snapshot"));
    AUTO_TREE struct tree *tree = NULL;
    const struct config *snapshot = NULL;

    if (!view_tree(around->vm_name, &tree, err))
        return err_prefix(err, "%s", around->operation);
    if (selector && !tree_find(tree, selector, &snapshot, err))
        return err_prefix(err, "%s: %s", around->operation, around->vm_name);
    if (!selector && strcmp(around->operation, "revert") == 0)
        snapshot = tree_by_guid(tree, &tree->vm->parent);
    if (snapshot && json_object_set_new(arguments, "snapshot", json_string(snapshot->snapshot.text)) != 0)
        return err_oom(err);
    around->vm = tree->vm->guid;
    around->with_first = json_is_true(json_object_get(arguments, "snapshot_first"));
    if (snapshot)
        around->snapshot = snapshot->snapshot;
    return config_set_string(&around->folder, tree->vm_dir, err);
}

/* For the hooks alone: a worker that the operation starts would keep it for ever. failure: behind the operation, NULL where it was
 * done; when "before": not looked at. */
static bool environment_set(const struct around *around, const char *when, const struct err *failure, struct err *err)
{
    bool is_after = strcmp(when, "after") == 0;
    char status[12];

    snprintf(status, sizeof status, "%d", failure ? err_exit_status(failure->code) : 0);
    bool ok = setenv("BOUGH_HOOK", when, 1) == 0 && setenv("BOUGH_OPERATION", around->operation, 1) == 0 &&
              setenv("BOUGH_VM", around->vm_name, 1) == 0 && setenv("BOUGH_VM_GUID", around->vm.text, 1) == 0 &&
              setenv("BOUGH_VM_FOLDER", around->folder, 1) == 0 &&
              setenv("BOUGH_SNAPSHOT", around->snapshot.text, 1) == 0 &&
              setenv("BOUGH_SNAPSHOT_FIRST", is_after ? around->first.text : around->with_first ? "yes" : "", 1) == 0;
    if (is_after)
        ok = ok && setenv("BOUGH_OUTCOME", failure ? "failed" : "done", 1) == 0 &&
             setenv("BOUGH_ERROR", failure ? failure->text : "", 1) == 0 &&
             setenv("BOUGH_EXIT_STATUS", status, 1) == 0;
    return ok || err_oom(err);
}

static void environment_clear(void)
{
    static const char *const NAMES[] = {"BOUGH_HOOK",     "BOUGH_OPERATION", "BOUGH_VM",
                                        "BOUGH_VM_GUID",  "BOUGH_VM_FOLDER", "BOUGH_SNAPSHOT",
                                        "BOUGH_OUTCOME",  "BOUGH_ERROR",     "BOUGH_EXIT_STATUS",
                                        "BOUGH_SNAPSHOT_FIRST"};

    for (size_t i = 0; i < ARRAY_SIZE(NAMES); i++)
        unsetenv(NAMES[i]);
}

static bool run_before(struct around *around, const struct progress *progress, struct err *err)
{
    const char *const words[] = {"before", around->operation, around->vm_name};
    bool ok = environment_set(around, "before", /* failure= */ NULL, err);

    while (ok && around->begun < around->hooks.count)
        ok = hook_run(around->hooks.items[around->begun++], words, progress, err);
    environment_clear();
    return ok || err_prefix(err, "%s: %s: nothing was done", around->operation, around->vm_name);
}

/* Each that ran before it hears how it ended, also where another of them has stopped it. It cannot be undone any more, nor
 * cancelled: a failure is a warning. */
static void run_after(struct around *around, const json_t *value, const struct err *failure)
{
    const char *const words[] = {"after", around->operation, around->vm_name};
    struct err err;

    if (!failure) {
        (void)!guid_parse(json_text(value, "guid"), &around->snapshot);
        (void)!guid_parse(json_text(json_object_get(value, "first"), "guid"), &around->first);
    }
    if (!environment_set(around, "after", failure, &err))
        cli_warn(around->vm_name, err.text);
    for (size_t i = 0; i < around->begun; i++)
        if (!hook_run(around->hooks.items[i], words, /* progress= */ NULL, &err))
            cli_warn(around->vm_name, err.text);
    environment_clear();
}

static bool call_with_hooks(struct around *around, json_t *taken_arguments, const struct progress *progress,
                            json_t **ret_value, struct err *err)
{
    json_auto_t *arguments = taken_arguments ? taken_arguments : json_object();

    if (!arguments)
        return err_oom(err);
    if (!around_look(around, arguments, err))
        return false;
    bool done = run_before(around, progress, err) &&
                client_call(around->vm_name, around->operation, json_incref(arguments), progress, ret_value, err);
    run_after(around, done ? *ret_value : NULL, done ? NULL : err);
    return done;
}

static bool has_hooks(const char *operation, const json_t *arguments)
{
    static const char *const OPERATIONS[] = {"snapshot", "apply", "revert", "delete"};

    /* Not for a command that a hook runs: it would go on for ever. */
    if (getenv("BOUGH_HOOK") || json_is_true(json_object_get(arguments, "dry_run")))
        return false;
    for (size_t i = 0; i < ARRAY_SIZE(OPERATIONS); i++)
        if (strcmp(OPERATIONS[i], operation) == 0)
            return true;
    return false;
}

bool hooks_call(const char *vm_name, const char *operation, json_t *arguments, const struct progress *progress,
                json_t **ret_value, struct err *err)
{
    AUTO(around_done) struct around around = {.operation = operation, .vm_name = vm_name};

    if (has_hooks(operation, arguments) && !hooks_find(&around.hooks, err)) {
        json_decref(arguments);
        return err_prefix(err, "%s: %s", operation, vm_name);
    }
    if (around.hooks.count == 0)
        return client_call(vm_name, operation, arguments, progress, ret_value, err);
    return call_with_hooks(&around, arguments, progress, ret_value, err);
}
