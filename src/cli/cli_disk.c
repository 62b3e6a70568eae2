#include "cli_disk.h"

#include "buf.h"
#include "cli_output.h"
#include "cli_progress.h"
#include "cli_text.h"
#include "disk.h"
#include "disk_tools.h"
#include "log.h"
#include "runtime.h"

#include <stdio.h>

bool settle_images(const char *const *paths, size_t count, struct err *err)
{
    AUTO_FREE char *dir = dirty_dir();

    for (size_t i = 0; dir && i < count; i++)
        if (!disk_settle(&io_real, dir, paths[i], err))
            return false;
    return true;
}

static bool work(const struct disk_verb *verb, void *args, char **operands, json_t **ret_answer,
                 struct err *err)
{
    struct cli_progress progress;

    cli_progress_begin(&progress, cli_command()->name, /* is_own_work= */ true);
    bool ok = verb->work(args, operands, &progress.progress, ret_answer, err);
    cli_progress_end(&progress, ok && verb->changes);
    return ok && (verb->tell || *ret_answer || err_oom(err));
}

int disk_verb_run(const struct disk_verb *verb, int argc, char **argv, void *args, const bool *json)
{
    struct cli_operands operands;
    json_auto_t *answer = NULL;
    struct err err = ERR_INIT;
    int status = 0;

    if (!cli_parse(verb->syntax, argc, argv, args, &operands, &status))
        return status;
    if (verb->check && (status = verb->check(args, operands.items)) != 0)
        return status;
    /* An operand is an image, or is not there. */
    if (!settle_images((const char *const *)operands.items, (size_t)operands.count, &err) ||
        !work(verb, args, operands.items, &answer, &err))
        return cli_fail(operands.items[0], &err);
    if (verb->tell)
        return verb->tell(args);
    status = *json ? output_json(answer) : verb->print(answer);
    return status == 0 && verb->status ? verb->status(answer) : status;
}

char *dirty_dir(void)
{
    char *dir = NULL;
    struct err err;

    if (!runtime_dirty_dir(&dir, &err))
        log_debug("%s", err.text);
    return dir;
}

bool block_size_is_wrong(uint64_t block_bytes, int *ret_status)
{
    if (block_bytes == 0 || (block_bytes >= 512U << 10 && block_bytes <= 4U << 20))
        return false;
    *ret_status = cli_usage_error("a block size is from 512K to 4M");
    return true;
}

json_t *fault_json(const struct disk_fault *fault)
{
    return json_pack("{s:o, s:o, s:b}", "file", json_from_text(fault->path), "text",
                     json_from_text(fault->text), "harmless", (int)fault->harmless);
}

static bool is_harmless(const json_t *fault)
{
    return json_is_true(json_object_get(fault, "harmless"));
}

void fault_print(const char *what, const json_t *fault)
{
    AUTO_FREE char *text =
        string_printf("%s%s", json_text(fault, "text"), is_harmless(fault) ? " (harmless)" : "");

    line_print(what, text ? text : "");
}

int faults_status(const json_t *faults)
{
    size_t i;
    const json_t *fault;

    json_array_foreach (faults, i, fault) {
        if (!is_harmless(fault))
            return err_exit_status(ERR_CORRUPT);
    }
    return 0;
}

void line_print(const char *what, const char *text)
{
    if (what) {
        text_print(stdout, what, TEXT_ONE_LINE);
        fputs(": ", stdout);
    }
    text_print(stdout, text, TEXT_ONE_LINE);
    putchar('\n');
}

uint64_t json_bytes(const json_t *object, const char *key)
{
    return (uint64_t)json_integer_value(json_object_get(object, key));
}
