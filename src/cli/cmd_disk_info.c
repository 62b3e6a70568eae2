#include "bytes.h"
#include "cli_disk.h"
#include "cli_options.h"
#include "cli_output.h"
#include "disk.h"

#include <stdio.h>

struct args {
    bool json;
};

static const struct cli_option OPTIONS[] = {CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

AUTO_DEFINE(auto_table_unref, struct libscols_table, scols_unref_table)

static json_t *layer_json(const struct disk_layer *layer)
{
    char id[2 * VHD_ID_SIZE + 1], parent_id[2 * VHD_ID_SIZE + 1];
    bool child = layer->type == VHD_DIFFERENCING;

    vhd_id_format(layer->id, id);
    vhd_id_format(layer->parent_id, parent_id);
    return json_pack(
        "{s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:s?, s:b, s:b}", "path", json_from_text(layer->path),
        "type", vhd_type_name(layer->type), "size_bytes", (json_int_t)layer->size_bytes, "block_bytes",
        (json_int_t)layer->block_bytes, "allocated_blocks", (json_int_t)layer->allocated_blocks, "file_bytes",
        (json_int_t)layer->file_bytes, "file_allocated_bytes", (json_int_t)layer->file_allocated_bytes, "id",
        id, "parent_id", child ? parent_id : NULL, "needs_repair", (int)layer->needs_repair,
        "parent_time_differs", (int)layer->parent_time_differs);
}

static int print_json(const struct disk *disk)
{
    json_auto_t *value = json_pack("{s:I, s:I, s:[]}", "size_bytes", (json_int_t)disk_size_bytes(disk),
                                   "depth", (json_int_t)disk_depth(disk), "layers");
    struct err err = ERR_INIT;

    for (size_t i = 0; i < disk_depth(disk); i++) {
        struct disk_layer layer;
        disk_layer_get(disk, i, &layer);
        if (json_array_append_new(json_object_get(value, "layers"), layer_json(&layer)) != 0) {
            (void)err_oom(&err);
            return cli_fail(NULL, &err);
        }
    }
    return output_json(value);
}

static bool add_line(struct libscols_table *table, const struct disk_layer *layer)
{
    struct libscols_line *line = scols_table_new_line(table, NULL);
    char size[16], block[16], taken[16], id[2 * VHD_ID_SIZE + 1];

    if (!line)
        return false;
    size_format(layer->size_bytes, size);
    size_format(layer->block_bytes, block);
    size_format(layer->file_allocated_bytes, taken);
    vhd_id_format(layer->id, id);
    const char *note = layer->needs_repair          ? "footer to be repaired"
                       : layer->parent_time_differs ? "parent's time differs"
                                                    : "";
    return table_set(line, 0, layer->path) && table_set(line, 1, vhd_type_name(layer->type)) &&
           table_set(line, 2, size) && table_set(line, 3, layer->block_bytes ? block : "") &&
           table_set(line, 4, taken) && table_set(line, 5, id) && table_set(line, 6, note);
}

/* The chain from the top to the base. */
static int print_table(const struct disk *disk)
{
    static const struct output_column COLUMNS[] = {{"FILE", 0},
                                                   {"TYPE", 0},
                                                   {"SIZE", SCOLS_FL_RIGHT},
                                                   {"BLOCK", SCOLS_FL_RIGHT},
                                                   {"TAKEN", SCOLS_FL_RIGHT},
                                                   {"ID", 0},
                                                   {"NOTE", 0}};
    AUTO(auto_table_unref) struct libscols_table *table = table_new(COLUMNS, ARRAY_SIZE(COLUMNS));
    bool filled = table != NULL;
    struct err err = ERR_INIT;

    for (size_t i = 0; filled && i < disk_depth(disk); i++) {
        struct disk_layer layer;
        disk_layer_get(disk, i, &layer);
        filled = add_line(table, &layer);
    }
    if (filled)
        return table_print(table);
    (void)err_oom(&err);
    return cli_fail(NULL, &err);
}

int cmd_disk_info(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    struct disk_options options = {.io = &io_real};
    AUTO_DISK struct disk *disk = NULL;
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (!disk_open(operands.items[0], &options, &disk, &err))
        return cli_fail(operands.items[0], &err);
    return args.json ? print_json(disk) : print_table(disk);
}
