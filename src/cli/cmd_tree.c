#include "bytes.h"
#include "cli_commands.h"
#include "cli_merging.h"
#include "cli_options.h"
#include "cli_output.h"
#include "cli_view.h"
#include "client.h"
#include "file.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct args {
    bool json;
};

static const struct cli_option OPTIONS[] = {CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

enum { COLUMN_NAME, COLUMN_CREATED, COLUMN_STATE, COLUMN_DISKS, COLUMN_MEMORY, COLUMN_ID };

/* --- for programs --- */

static json_t *snapshot_disks(const struct config *snapshot)
{
    json_t *disks = json_array();

    for (size_t i = 0; i < snapshot->disk_count; i++) {
        const struct config_disk *disk = &snapshot->disks[i];
        if (!disk->is_cdrom)
            json_array_append_new(disks, json_pack("{s:o, s:I}", "path", json_from_text(disk->path), "bytes",
                                                   (json_int_t)view_allocated_bytes(disk->path)));
    }
    return disks;
}

static json_t *snapshot_json(const struct tree *tree, const struct config *snapshot)
{
    char created[32];

    return json_pack("{s:s, s:o, s:s, s:o, s:o, s:b, s:s, s:o, s:I, s:o}", "guid", snapshot->snapshot.text, "name",
                     json_from_text(snapshot->name), "created", time_rfc3339(snapshot->created_ms, created),
                     "parent", view_guid(&snapshot->parent), "notes", json_from_text(snapshot->notes),
                     "scheduled", (int)snapshot->is_scheduled,
                     "state_when_taken", config_state_name(snapshot->state_when_taken), "disks",
                     snapshot_disks(snapshot), "memory_bytes", (json_int_t)view_memory_bytes(tree, snapshot),
                     "thumbnail", view_thumbnail(tree, snapshot));
}

/* An image of a deleted snapshot that is still there, or one that it is to be merged with. */
static void image_note(json_t *images, const struct tree *tree, const char *path)
{
    if (path_is_inside(path, tree->vm_dir))
        json_object_set_new_nocheck(images, path, json_true());
}

/* What all of it takes, with what deleted snapshots have left: each image once, however many name it. */
static uint64_t all_disks_bytes(const struct tree *tree, json_t *merging)
{
    json_auto_t *images = json_object();
    uint64_t sum = 0;
    const char *path;
    json_t *entry;
    size_t i;

    for (i = 0; i < tree->disk_path_count; i++)
        json_object_set_new_nocheck(images, tree->disk_paths[i], json_true());
    json_array_foreach (merging, i, entry) {
        image_note(images, tree, json_text(entry, "path"));
        image_note(images, tree, json_text(entry, "into"));
    }
    json_object_foreach (images, path, entry)
        sum += view_allocated_bytes(path);
    return sum;
}

static uint64_t all_memory_bytes(const struct tree *tree)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < tree->snapshot_count; i++)
        sum += view_memory_bytes(tree, tree->snapshots[i]);
    return sum;
}

static int tree_print_json(const struct tree *tree, const json_t *status, json_t *merging)
{
    json_t *snapshots = json_array();
    struct err err = ERR_INIT;

    for (size_t i = 0; i < tree->snapshot_count; i++)
        json_array_append_new(snapshots, snapshot_json(tree, tree->snapshots[i]));
    json_auto_t *value = json_pack("{s:{s:o, s:s, s:s, s:O?}, s:{s:I, s:I}, s:{s:o, s:o}, s:o, s:O}", "vm", "name",
                                   json_from_text(tree->vm->name), "guid", tree->vm->guid.text, "state",
                                   json_text(status, "state"), "paused_for",
                                   json_object_get(status, "paused_for"), "space", "disks_bytes",
                                   (json_int_t)all_disks_bytes(tree, merging), "memory_bytes",
                                   (json_int_t)all_memory_bytes(tree), "now", "parent",
                                   view_guid(&tree->vm->parent), "disks", view_disk_paths(tree->vm),
                                   "snapshots", snapshots, "merging", merging);
    if (value)
        return output_json(value);
    (void)err_oom(&err);
    return cli_fail(tree->vm->name, &err);
}

/* --- for people --- */

static bool size_set(struct libscols_line *line, size_t column, uint64_t bytes)
{
    char size[16];

    return bytes == 0 || table_set(line, column, size_format(bytes, size));
}

static uint64_t disks_bytes(const struct config *config)
{
    uint64_t sum = 0;

    for (size_t i = 0; i < config->disk_count; i++)
        if (!config->disks[i].is_cdrom)
            sum += view_allocated_bytes(config->disks[i].path);
    return sum;
}

/* What it was when it was taken, and whether `prune` may delete it. */
static bool state_set(struct libscols_line *line, const struct config *snapshot)
{
    char text[32];

    snprintf(text, sizeof text, "%s%s", config_state_name(snapshot->state_when_taken),
             snapshot->is_scheduled ? ", scheduled" : "");
    return table_set(line, COLUMN_STATE, text);
}

static struct libscols_line *snapshot_line(struct libscols_table *table, struct libscols_line *parent,
                                           const struct tree *tree, const struct config *snapshot)
{
    struct libscols_line *line = scols_table_new_line(table, parent);
    char created[32], id[9];

    if (!line || !table_set(line, COLUMN_NAME, snapshot->name) ||
        !table_set(line, COLUMN_CREATED, time_local(snapshot->created_ms, created)) ||
        !state_set(line, snapshot) ||
        !size_set(line, COLUMN_DISKS, disks_bytes(snapshot)) ||
        !size_set(line, COLUMN_MEMORY, view_memory_bytes(tree, snapshot)) ||
        !table_set(line, COLUMN_ID, guid_short(snapshot->snapshot.text, id)))
        return NULL;
    return line;
}

static bool now_line(struct libscols_table *table, struct libscols_line *parent, const struct tree *tree,
                     const char *state)
{
    struct libscols_line *line = scols_table_new_line(table, parent);

    if (!line || !table_set(line, COLUMN_NAME, "Now") || !table_set(line, COLUMN_STATE, state) ||
        !size_set(line, COLUMN_DISKS, disks_bytes(tree->vm)))
        return false;
    return !output_is_colored() || scols_line_set_color(line, "\033[1m") == 0;
}

/* What descends from the snapshot `from` (unset: the roots), and Now behind it where it belongs. */
static bool branch_add(struct libscols_table *table, struct libscols_line *parent, const struct tree *tree,
                       const struct guid *from, const char *state)
{
    size_t count = tree_children(tree, from, NULL, 0);
    AUTO_FREE const struct config **children = calloc(count + 1, sizeof *children);

    if (!children)
        return false;
    tree_children(tree, from, children, count);
    for (size_t i = 0; i < count; i++) {
        struct libscols_line *line = snapshot_line(table, parent, tree, children[i]);
        if (!line || !branch_add(table, line, tree, &children[i]->snapshot, state))
            return false;
    }
    return !guid_equal(from, &tree->vm->parent) || now_line(table, parent, tree, state);
}

/* The VM itself, with what all its snapshots come to: forgotten ones are to be seen. */
static struct libscols_line *root_line(struct libscols_table *table, const struct tree *tree, json_t *merging)
{
    struct libscols_line *line = scols_table_new_line(table, NULL);
    bool told = tree->snapshot_count + json_array_size(merging) > 0;
    char text[48] = "";

    if (tree->snapshot_count > 0)
        snprintf(text, sizeof text, "%zu snapshot%s", tree->snapshot_count, tree->snapshot_count > 1 ? "s" : "");
    if (!line || !table_set(line, COLUMN_NAME, tree->vm->name) || !table_set(line, COLUMN_STATE, text) ||
        (told && (!size_set(line, COLUMN_DISKS, all_disks_bytes(tree, merging)) ||
                  !size_set(line, COLUMN_MEMORY, all_memory_bytes(tree)))))
        return NULL;
    return line;
}

static int tree_print_table(const struct tree *tree, const json_t *status, json_t *merging)
{
    static const struct output_column COLUMNS[] = {
        [COLUMN_NAME] = {"NAME", SCOLS_FL_TREE},
        [COLUMN_CREATED] = {"CREATED", 0},
        [COLUMN_STATE] = {"STATE", 0},
        [COLUMN_DISKS] = {"DISKS", SCOLS_FL_RIGHT},
        [COLUMN_MEMORY] = {"MEMORY", SCOLS_FL_RIGHT},
        [COLUMN_ID] = {"ID", 0},
    };
    AUTO_TABLE struct libscols_table *table = table_new(COLUMNS, ARRAY_SIZE(COLUMNS));
    struct libscols_line *root = table ? root_line(table, tree, merging) : NULL;
    AUTO_FREE char *state = view_state_text(status);
    const struct guid none = {""};
    bool filled = root && state && branch_add(table, root, tree, &none, state);

    int exit_status = table_print(filled ? table : NULL);
    merging_print(merging);
    return exit_status;
}

int cmd_tree(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    AUTO_TREE struct tree *tree = NULL;
    json_auto_t *vm_status = NULL;
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (!view_tree(operands.items[0], &tree, &err) || !client_status(operands.items[0], &vm_status, &err))
        return cli_fail(operands.items[0], &err);
    json_auto_t *merging = merging_read(tree, vm_status);
    return args.json ? tree_print_json(tree, vm_status, merging) : tree_print_table(tree, vm_status, merging);
}
