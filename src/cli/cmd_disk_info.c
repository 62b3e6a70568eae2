#include "bytes.h"
#include "cli_disk.h"
#include "cli_output.h"
#include "disk.h"

struct args {
    bool json;
};

static const struct cli_option OPTIONS[] = {CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

static json_t *layer_json(const struct disk_layer *layer)
{
    char id[2 * VHD_ID_SIZE + 1], parent_id[2 * VHD_ID_SIZE + 1];
    bool child = layer->type == VHD_DIFFERENCING;

    vhd_id_format(layer->id, id);
    vhd_id_format(layer->parent_id, parent_id);
    return json_pack(
        "{s:o, s:s, s:I, s:I, s:I, s:I, s:I, s:s, s:s?, s:b, s:b}", "file", json_from_text(layer->path),
        "type", vhd_type_name(layer->type), "size_bytes", (json_int_t)layer->size_bytes, "block_bytes",
        (json_int_t)layer->block_bytes, "allocated_blocks", (json_int_t)layer->allocated_blocks, "file_bytes",
        (json_int_t)layer->file_bytes, "file_allocated_bytes", (json_int_t)layer->file_allocated_bytes, "id",
        id, "parent_id", child ? parent_id : NULL, "needs_repair", (int)layer->needs_repair,
        "parent_time_differs", (int)layer->parent_time_differs);
}

static bool work(void *args, char **operands, const struct progress *progress, json_t **ret_answer,
                 struct err *err)
{
    struct disk_options options = {.io = &io_real};
    AUTO_DISK struct disk *disk = NULL;

    (void)args, (void)progress;
    if (!disk_open(operands[0], &options, &disk, err))
        return false;
    json_auto_t *answer = json_pack("{s:I, s:I, s:[]}", "size_bytes", (json_int_t)disk_size_bytes(disk),
                                    "depth", (json_int_t)disk_depth(disk), "layers");
    for (size_t i = 0; i < disk_depth(disk); i++) {
        struct disk_layer layer;
        disk_layer_get(disk, i, &layer);
        if (json_array_append_new(json_object_get(answer, "layers"), layer_json(&layer)) != 0)
            return err_oom(err);
    }
    *ret_answer = TAKE(answer);
    return true;
}

static bool layer_fill(struct libscols_line *line, const json_t *layer)
{
    char size[16], block[16], taken[16];
    uint64_t block_bytes = json_bytes(layer, "block_bytes");
    const char *note = json_is_true(json_object_get(layer, "needs_repair"))          ? "footer to be repaired"
                       : json_is_true(json_object_get(layer, "parent_time_differs")) ? "parent's time differs"
                                                                                     : "";

    size_format(json_bytes(layer, "size_bytes"), size);
    size_format(block_bytes, block);
    size_format(json_bytes(layer, "file_allocated_bytes"), taken);
    return table_set(line, 0, json_text(layer, "file")) && table_set(line, 1, json_text(layer, "type")) &&
           table_set(line, 2, size) && table_set(line, 3, block_bytes ? block : "") &&
           table_set(line, 4, taken) && table_set(line, 5, json_text(layer, "id")) &&
           table_set(line, 6, note);
}

/* The chain from the top to the base. */
static int print(const json_t *answer)
{
    static const struct output_column COLUMNS[] = {{"FILE", 0},
                                                   {"TYPE", 0},
                                                   {"SIZE", SCOLS_FL_RIGHT},
                                                   {"BLOCK", SCOLS_FL_RIGHT},
                                                   {"TAKEN", SCOLS_FL_RIGHT},
                                                   {"ID", 0},
                                                   {"NOTE", 0}};

    return table_print_rows(COLUMNS, ARRAY_SIZE(COLUMNS), json_object_get(answer, "layers"), layer_fill);
}

int cmd_disk_info(int argc, char **argv)
{
    static const struct disk_verb VERB = {.syntax = &SYNTAX, .work = work, .print = print};
    struct args args = {0};

    return disk_verb_run(&VERB, argc, argv, &args, &args.json);
}
