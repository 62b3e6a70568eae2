#include "cli_view.h"

#include "buf.h"
#include "bytes.h"
#include "cli_output.h"
#include "cli_text.h"
#include "client.h"
#include "last_end.h"
#include "store.h"

#include <stdio.h>
#include <string.h>

bool view_tree(const char *vm_name, struct tree **ret_tree, struct err *err)
{
    AUTO_FREE char *vm_dir = NULL;

    if (!store_find(&io_real, vm_name, &vm_dir, err) || !store_read(&io_real, vm_dir, ret_tree, err))
        return false;
    /* A folder that was moved or copied has the name of the folder. */
    return config_set_string(&(*ret_tree)->vm->name, vm_name, err);
}

char *view_state_text(const json_t *status)
{
    const char *state = json_text(status, "state");
    const char *reason = json_text(json_object_get(status, "paused_for"), "code");

    if (strcmp(state, "elsewhere") == 0)
        reason = json_text(status, "host");
    if (last_end_is_fault(json_object_get(status, "ended")))
        reason = json_text(json_object_get(status, "ended"), "code");

    return *reason == '\0' ? strdup(state) : string_printf("%s: %s", state, reason);
}

uint64_t view_allocated_bytes(const char *path)
{
    struct io_stat stat;
    struct err ignored;

    return io_stat_path(&io_real, path, &stat, &ignored) ? stat.allocated_bytes : 0;
}

uint64_t view_memory_bytes(const struct tree *tree, const struct config *snapshot)
{
    if (!guid_is_set(&snapshot->memory))
        return 0;
    AUTO_FREE char *dir = tree_snapshot_dir(tree, &snapshot->snapshot);
    AUTO_FREE char *path = dir ? tree_state_path(dir, &snapshot->snapshot, ".bin") : NULL;
    return path ? view_allocated_bytes(path) : 0;
}

json_t *view_thumbnail(const struct tree *tree, const struct config *snapshot)
{
    AUTO_FREE char *dir = tree_snapshot_dir(tree, &snapshot->snapshot);
    AUTO_FREE char *path = dir ? tree_state_path(dir, &snapshot->snapshot, ".png") : NULL;

    return path && io_exists(&io_real, path) ? json_from_text(path) : json_null();
}

json_t *view_guid(const struct guid *guid)
{
    return guid_is_set(guid) ? json_string(guid->text) : json_null();
}

json_t *view_disk_paths(const struct config *config)
{
    json_t *paths = json_array();

    for (size_t i = 0; i < config->disk_count; i++)
        if (!config->disks[i].is_cdrom)
            json_array_append_new(paths, json_from_text(config->disks[i].path));
    return paths;
}

static json_t *disks_json(const struct config *config)
{
    json_t *disks = json_array();

    for (size_t i = 0; i < config->disk_count; i++) {
        const struct config_disk *disk = &config->disks[i];
        json_array_append_new(disks, json_pack("{s:s, s:i, s:b, s:o}", "bus", config_bus_name(disk->bus),
                                               "slot", (int)disk->slot, "cdrom", disk->is_cdrom, "path",
                                               json_from_text(disk->path)));
    }
    return disks;
}

static json_t *nics_json(const struct config *config)
{
    static const char *const KINDS[] = {[NIC_USER] = "user", [NIC_BRIDGE] = "bridge", [NIC_TAP] = "tap"};
    json_t *nics = json_array();

    for (size_t i = 0; i < config->nic_count; i++) {
        const struct config_nic *nic = &config->nics[i];
        json_t *forwards = json_array();
        for (size_t j = 0; j < nic->forward_count; j++)
            json_array_append_new(forwards, json_from_text(nic->forwards[j]));
        json_array_append_new(nics,
                              json_pack("{s:s, s:s, s:o, s:o}", "kind", KINDS[nic->kind], "mac", nic->mac,
                                        "target", json_from_text(nic->target), "forwards", forwards));
    }
    return nics;
}

static bool hardware_add(json_t *settings, const struct config *config)
{
    json_auto_t *hardware =
        json_pack("{s:i, s:I, s:i, s:o, s:o, s:s, s:s, s:s, s:o, s:o, s:o, s:o, s:o}", "generation",
                  (int)config->generation, "memory_bytes", (json_int_t)config->memory_bytes, "cpus",
                  (int)config->cpus, "machine", json_from_text(config->machine), "cpu_model",
                  json_from_text(config->cpu_model), "accel", config_accel_name(config->accel), "clock",
                  config_clock_name(config->clock), "display", config_display_name(config->display), "kernel",
                  json_from_text(config->kernel), "initrd", json_from_text(config->initrd), "append",
                  json_from_text(config->append), "disks", disks_json(config), "nics", nics_json(config));

    return hardware && json_object_update(settings, hardware) == 0;
}

/* What a snapshot's file has more than a VM's. */
static bool snapshot_add(json_t *settings, const struct config *config)
{
    json_auto_t *taken = json_pack(
        "{s:s, s:b, s:s, s:o, s:s, s:I}", "snapshot", config->snapshot.text, "scheduled", (int)config->is_scheduled, "state_when_taken",
        config_state_name(config->state_when_taken), "qemu_version", json_from_text(config->qemu_version),
        "accel_used", config_accel_name(config->accel_used), "pause_us", (json_int_t)config->pause_us);

    return taken && json_object_update(settings, taken) == 0;
}

json_t *view_settings(const struct config *config)
{
    char created[32];
    json_auto_t *settings =
        json_pack("{s:o, s:s, s:s, s:o, s:o}", "name", json_from_text(config->name), "guid",
                  config->guid.text, "created", time_rfc3339(config->created_ms, created), "parent",
                  view_guid(&config->parent), "notes", json_from_text(config->notes));

    if (!settings || !hardware_add(settings, config) ||
        (config->is_snapshot && !snapshot_add(settings, config)))
        return NULL;
    return TAKE(settings);
}

void view_line(const char *key, const char *value)
{
    if (*value == '\0')
        return;
    printf("%-12s ", key);
    text_print(stdout, value, TEXT_ONE_LINE);
    putchar('\n');
}

static void disks_print(const json_t *disks)
{
    size_t i, j;
    json_t *disk, *link;

    json_array_foreach (disks, i, disk) {
        char key[32];
        const char *path = json_text(disk, "path");
        snprintf(key, sizeof key, "%s %d:", json_text(disk, "bus"),
                 (int)json_integer_value(json_object_get(disk, "slot")));
        view_line(key, *path == '\0' ? "(empty optical drive)" : path);
        json_array_foreach (json_object_get(disk, "chain"), j, link) {
            if (j > 0)
                view_line("  over", json_string_value(link));
        }
        view_line("  damaged:", json_text(disk, "error"));
    }
}

static void nics_print(const json_t *nics)
{
    size_t i, j;
    json_t *nic, *forward;

    json_array_foreach (nics, i, nic) {
        char text[160];
        snprintf(text, sizeof text, "%s %s %s", json_text(nic, "kind"), json_text(nic, "mac"),
                 json_text(nic, "target"));
        view_line("nic:", text);
        json_array_foreach (json_object_get(nic, "forwards"), j, forward) {
            view_line("  forward", json_string_value(forward));
        }
    }
}

void view_settings_print(const json_t *settings)
{
    static const char *const TEXTS[] = {"machine", "cpu_model", "accel",  "clock",
                                        "display", "kernel",    "initrd", "append"};
    char size[16], line[64];

    snprintf(line, sizeof line, "%d", (int)json_integer_value(json_object_get(settings, "generation")));
    view_line("generation:", line);
    view_line("memory:",
              size_format((uint64_t)json_integer_value(json_object_get(settings, "memory_bytes")), size));
    snprintf(line, sizeof line, "%d", (int)json_integer_value(json_object_get(settings, "cpus")));
    view_line("cpus:", line);
    for (size_t i = 0; i < ARRAY_SIZE(TEXTS); i++) {
        snprintf(line, sizeof line, "%s:", TEXTS[i]);
        view_line(line, json_text(settings, TEXTS[i]));
    }
    disks_print(json_object_get(settings, "disks"));
    nics_print(json_object_get(settings, "nics"));
}
