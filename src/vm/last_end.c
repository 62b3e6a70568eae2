#include "last_end.h"

#include "auto.h"
#include "buf.h"
#include "file.h"
#include "guest_record.h"
#include "log.h"
#include "machine.h"

#include <errno.h>
#include <string.h>
#include <unistd.h>

#define END_FILE      "ended.json"
#define END_MAX_BYTES (64U << 10)

static void end_write(const char *runtime_dir, const json_t *end)
{
    AUTO_FREE char *path = path_join(runtime_dir, END_FILE);
    AUTO_FREE char *text = end ? json_dumps(end, JSON_COMPACT) : NULL;
    struct err err = ERR_INIT;
    bool ignored;

    if (!path || !text || !file_replace(&io_real, path, text, strlen(text), &ignored, &err))
        log_warning("why the machine has ended cannot be kept: %s", err.text);
}

static json_t *end_json(const char *code, const char *text)
{
    struct err plain;
    char utf8[sizeof plain.text];

    err_set_text(&plain, ERR_QEMU, 0, "%s", text);
    err_text_utf8(&plain, utf8);
    return json_pack("{s:s, s:s}", "code", code, "message", utf8);
}

void last_end_write(const char *runtime_dir, const char *code, const char *text)
{
    json_auto_t *end = end_json(code, text);

    end_write(runtime_dir, end);
}

/* --- of one that nobody has watched --- */

struct left {
    const char *runtime_dir;
    json_t *end; /* of the first one that was found */
};

static int left_look(void *context, const char *name)
{
    struct left *left = context;
    AUTO_FREE char *dir = path_join(left->runtime_dir, name);
    AUTO_FREE char *record = dir ? path_join(dir, GUEST_RECORD_FILE) : NULL;
    char words[480], text[600];

    if (!record)
        return ENOMEM;
    if (left->end || access(record, F_OK) != 0)
        return 0;
    bool in_order = machine_dir_ended_in_order(dir);
    machine_dir_last_words(dir, words, sizeof words);
    snprintf(text, sizeof text, "%s (while no worker was there: %s)", words,
             in_order ? "most likely the guest has switched itself off" : "its exit status is not known");
    left->end = end_json(in_order ? END_QEMU_ENDED : END_QEMU_FAILED, text);
    return 0;
}

static json_t *left_end(const char *runtime_dir)
{
    struct left left = {.runtime_dir = runtime_dir};
    struct err ignored;

    (void)!io_list(&io_real, runtime_dir, left_look, &left, &ignored);
    return left.end;
}

/* --- both --- */

json_t *last_end_read(const char *runtime_dir)
{
    AUTO_FREE char *path = path_join(runtime_dir, END_FILE);
    AUTO_BUF struct buf text = BUF_INIT;
    json_t *end = left_end(runtime_dir);
    struct err ignored;

    if (!end && path && file_read_all(&io_real, path, END_MAX_BYTES, &text, &ignored))
        end = json_loadb((const char *)text.data, text.length, 0, NULL);
    return end ? end : json_null();
}

void last_end_keep(const char *runtime_dir)
{
    json_auto_t *end = left_end(runtime_dir);

    if (end)
        end_write(runtime_dir, end);
}

void last_end_forget(const char *runtime_dir)
{
    AUTO_FREE char *path = path_join(runtime_dir, END_FILE);

    if (path)
        unlink(path);
}

bool last_end_is_fault(const json_t *end)
{
    const char *code = json_string_value(json_object_get(end, "code"));

    return code && strcmp(code, END_GUEST_SHUTDOWN) != 0 && strcmp(code, END_QEMU_ENDED) != 0;
}
