#include "guest_record.h"

#include "auto.h"
#include "buf.h"
#include "file.h"

#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#define RECORD_MAX_BYTES (1U << 20)

static json_t *exports_json(const struct guest_record *record)
{
    json_t *exports = json_array();

    for (size_t i = 0; i < record->export_count; i++)
        json_array_append_new(exports, json_pack("{s:s, s:s}", "disk", record->exports[i].disk, "socket",
                                                 record->exports[i].socket));
    return exports;
}

/* NULL also for one that is no UTF-8: it is a hint. */
static json_t *hint_json(const char *text)
{
    json_t *string = text ? json_string(text) : NULL;

    return string ? string : json_null();
}

/* It outlives this process, not the host: nothing is to be synced. */
static bool text_replace(const char *path, const char *text, struct err *err)
{
    AUTO_FREE char *made = string_printf("%s" FILE_TEMPORARY_SUFFIX, path);
    struct io_file *file;

    if (!made)
        return err_oom(err);
    unlink(made);
    if (!io_open(&io_real, made, IO_CREATE, &file, err))
        return false;
    bool written = io_write(file, 0, text, strlen(text), err);
    io_close(file);
    return written && io_rename(&io_real, made, path, err);
}

bool guest_record_write(const char *process_dir, const struct guest_record *record, struct err *err)
{
    AUTO_FREE char *path = path_join(process_dir, GUEST_RECORD_FILE);
    json_auto_t *json =
        json_pack("{s:I, s:I, s:s, s:s, s:b, s:b, s:s, s:o, s:o}", "pid", (json_int_t)record->pid, "started",
                  (json_int_t)record->started, "generation_id", record->generation_id.text, "accelerator",
                  config_accel_name(record->accel), "is_to_run", record->is_to_run, "resources_held",
                  record->resources_held, "disks_dir", record->disks_dir, "memory", hint_json(record->memory),
                  "exports", exports_json(record));
    AUTO_FREE char *text = json ? json_dumps(json, JSON_INDENT(1)) : NULL;

    if (!path || !text)
        return err_oom(err);
    return text_replace(path, text, err);
}

static bool accel_read(const char *name, enum config_accel *ret_accel)
{
    for (unsigned accel = ACCEL_AUTO; accel <= ACCEL_TCG; accel++) {
        if (strcmp(name, config_accel_name(accel)) != 0)
            continue;
        *ret_accel = accel;
        return true;
    }
    return false;
}

static bool exports_read(json_t *exports, struct guest_record *record)
{
    size_t i;
    json_t *export;

    record->exports = calloc(json_array_size(exports) + 1, sizeof *record->exports);
    json_array_foreach (exports, i, export) {
        const char *disk, *socket;
        if (!record->exports || json_unpack(export, "{s:s, s:s}", "disk", &disk, "socket", &socket) != 0)
            return false;
        struct guest_record_export *entry = &record->exports[record->export_count];
        snprintf(entry->disk, sizeof entry->disk, "%s", disk);
        if (!(entry->socket = strdup(socket)))
            return false;
        record->export_count++;
    }
    return record->exports != NULL;
}

static bool record_read(json_t *json, struct guest_record *record)
{
    json_int_t pid, started;
    int is_to_run, resources_held;
    const char *generation_id, *accel, *disks_dir, *memory = json_string_value(json_object_get(json, "memory"));
    json_t *exports;

    if (json_unpack(json, "{s:I, s:I, s:s, s:s, s:b, s:b, s:s, s:o}", "pid", &pid, "started", &started,
                    "generation_id", &generation_id, "accelerator", &accel, "is_to_run", &is_to_run, "resources_held",
                    &resources_held, "disks_dir", &disks_dir, "exports", &exports) != 0 ||
        !accel_read(accel, &record->accel) ||
        (*generation_id != '\0' && !guid_parse(generation_id, &record->generation_id)))
        return false;
    record->pid = (pid_t)pid;
    record->started = (uint64_t)started;
    record->is_to_run = is_to_run;
    record->resources_held = resources_held;
    record->disks_dir = strdup(disks_dir);
    record->memory = memory ? strdup(memory) : NULL;
    return record->disks_dir && (!memory || record->memory) && exports_read(exports, record);
}

bool guest_record_read(const char *process_dir, struct guest_record *ret_record, struct err *err)
{
    AUTO_FREE char *path = path_join(process_dir, GUEST_RECORD_FILE);
    AUTO_BUF struct buf text = BUF_INIT;
    struct guest_record record = {0};

    if (!path)
        return err_oom(err);
    if (!file_read_all(&io_real, path, RECORD_MAX_BYTES, &text, err))
        return false;
    json_auto_t *json = json_loadb((const char *)text.data, text.length, JSON_REJECT_DUPLICATES, NULL);
    if (!json || !record_read(json, &record)) {
        guest_record_done(&record);
        return err_set(err, ERR_CORRUPT, "%s: is no record of a guest", path);
    }
    *ret_record = record;
    return true;
}

void guest_record_done(struct guest_record *record)
{
    for (size_t i = 0; i < record->export_count; i++)
        free(record->exports[i].socket);
    free(record->exports);
    free(record->disks_dir);
    free(record->memory);
    *record = (struct guest_record){0};
}
