#include "machine_private.h"

#include <string.h>

static bool disk_find(const struct config *config, const char *node, size_t *ret_disk)
{
    size_t prefix = strlen(MACHINE_DISK_NODE);
    char id[32];

    for (size_t i = 0; i < config->disk_count; i++) {
        machine_disk_id(&config->disks[i], id);
        if (strncmp(node, MACHINE_DISK_NODE, prefix) == 0 && strcmp(node + prefix, id) == 0) {
            *ret_disk = i;
            return true;
        }
    }
    return false;
}

static const char *text_of(const json_t *data, const char *key)
{
    const char *text = json_string_value(json_object_get(data, key));

    return text ? text : "";
}

bool machine_disk_error_read(const json_t *event, const struct config *config, struct machine_disk_error *ret_error)
{
    const json_t *data = json_object_get(event, "data");
    size_t disk;

    if (strcmp(qmp_event_name(event, NULL), "BLOCK_IO_ERROR") != 0 ||
        !disk_find(config, text_of(data, "node-name"), &disk))
        return false;
    *ret_error = (struct machine_disk_error){
        .disk = disk,
        .stops_guest = strcmp(text_of(data, "action"), "stop") == 0,
        .no_space = json_is_true(json_object_get(data, "nospace")),
        .operation = text_of(data, "operation"),
        .reason = text_of(data, "reason"),
    };
    return true;
}
