#include "buf.h"
#include "cli_commands.h"
#include "cli_merging.h"
#include "cli_options.h"
#include "cli_output.h"
#include "cli_view.h"
#include "client.h"
#include "disk.h"

#include <stdio.h>
#include <string.h>

struct args {
    bool json;
};

static const struct cli_option OPTIONS[] = {CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

/* Adds the image files of the disk, top first, as "chain"; or why they cannot be told as "error". */
static void chain_add(json_t *disk_json)
{
    const struct disk_options options = {.io = &io_real};
    const char *path = json_text(disk_json, "path");
    AUTO_DISK struct disk *disk = NULL;
    struct err err = ERR_INIT;

    if (json_is_true(json_object_get(disk_json, "cdrom")))
        return;
    if (!disk_open(path, &options, &disk, &err)) {
        json_object_set_new(disk_json, "error", json_from_text(err.text));
        return;
    }
    json_t *chain = json_array();
    for (size_t i = 0; i < disk_depth(disk); i++) {
        struct disk_layer layer;
        disk_layer_get(disk, i, &layer);
        json_array_append_new(chain, json_from_text(layer.path));
    }
    json_object_set_new(disk_json, "bytes", json_integer((json_int_t)disk_size_bytes(disk)));
    json_object_set_new(disk_json, "chain", chain);
}

/* The settings, each disk with its chain, and the answer of `status`. */
static bool show_get(const char *vm_name, json_t **ret_value, struct err *err)
{
    AUTO_TREE struct tree *tree = NULL;
    json_auto_t *status = NULL;
    size_t i;
    json_t *disk;

    if (!view_tree(vm_name, &tree, err) || !client_status(vm_name, &status, err))
        return false;
    json_auto_t *value = view_settings(tree->vm);
    if (!value || json_object_update(value, status) != 0 ||
        json_object_set_new(value, "merging", merging_read(tree, status)) != 0 ||
        json_object_set_new(value, "folder", json_from_text(tree->vm_dir)) != 0 ||
        json_object_set_new(value, "snapshots", json_integer((json_int_t)tree->snapshot_count)) != 0)
        return err_oom(err);
    json_array_foreach (json_object_get(value, "disks"), i, disk) {
        chain_add(disk);
    }
    *ret_value = TAKE(value);
    return true;
}

static void number_print(const char *key, const json_t *number)
{
    char text[24];

    if (!json_is_integer(number))
        return;
    snprintf(text, sizeof text, "%lld", (long long)json_integer_value(number));
    view_line(key, text);
}

/* Errors that the guest was told of, a line for each disk. */
static void errors_print(const json_t *errors)
{
    size_t i;
    json_t *error;

    json_array_foreach (errors, i, error) {
        AUTO_FREE char *text = string_printf(
            "%s: %lld, the last: %s: %s (%s)", json_text(error, "disk"),
            (long long)json_integer_value(json_object_get(error, "count")), json_text(error, "operation"),
            json_text(error, "reason"), json_text(error, "path"));
        view_line("disk errors:", text ? text : "");
    }
}

static void show_print(const json_t *value)
{
    view_line("name:", json_text(value, "name"));
    view_line("guid:", json_text(value, "guid"));
    view_line("state:", json_text(value, "state"));
    view_line("host:", json_text(value, "host"));
    if (strcmp(json_text(value, "state"), "unmanaged") == 0)
        view_line("worker:", "has ended; the next command that is more than a look starts another one");
    view_line("run state:", json_text(value, "run_state"));
    view_line("paused for:", json_text(json_object_get(value, "paused_for"), "message"));
    view_line("ended:", json_text(json_object_get(value, "ended"), "message"));
    if (json_integer_value(json_object_get(value, "resets")) > 0)
        number_print("resets:", json_object_get(value, "resets"));
    errors_print(json_object_get(value, "disk_errors"));
    view_line("in progress:", json_text(value, "operation"));
    view_line("runs by:", json_text(value, "accelerator"));
    view_line("qemu:", json_text(value, "qemu_version"));
    number_print("qemu pid:", json_object_get(value, "qemu_pid"));
    number_print("worker pid:", json_object_get(value, "worker_pid"));
    view_line("folder:", json_text(value, "folder"));
    view_line("notes:", json_text(value, "notes"));
    number_print("snapshots:", json_object_get(value, "snapshots"));
    merging_print(json_object_get(value, "merging"));
    view_settings_print(value);
}

int cmd_show(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    json_auto_t *value = NULL;
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (!show_get(operands.items[0], &value, &err))
        return cli_fail(operands.items[0], &err);
    if (args.json)
        return output_json(value);
    show_print(value);
    return 0;
}
