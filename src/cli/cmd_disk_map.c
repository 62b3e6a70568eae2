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

static const struct output_column COLUMNS[] = {
    {"START", SCOLS_FL_RIGHT}, {"LENGTH", SCOLS_FL_RIGHT}, {"FILE", 0}, {"OFFSET", SCOLS_FL_RIGHT}};

/* One of both is filled. */
struct output {
    json_t *rows;
    struct libscols_table *table;
};

static bool add_json(json_t *rows, uint64_t start, const struct disk_piece *piece)
{
    json_t *row = json_pack("{s:I, s:I}", "start", (json_int_t)start, "length", (json_int_t)piece->length);

    if (piece->file) {
        json_object_set_new(row, "file", json_from_text(piece->file->path));
        json_object_set_new(row, "offset", json_integer((json_int_t)piece->file_offset));
    } else {
        json_object_set_new(row, "file", json_null());
    }
    return json_array_append_new(rows, row) == 0;
}

static bool add_line(struct libscols_table *table, uint64_t start, const struct disk_piece *piece)
{
    struct libscols_line *line = scols_table_new_line(table, NULL);
    char number[24];

    if (!line)
        return false;
    snprintf(number, sizeof number, "%llu", (unsigned long long)start);
    if (!table_set(line, 0, number))
        return false;
    snprintf(number, sizeof number, "%llu", (unsigned long long)piece->length);
    if (!table_set(line, 1, number) || !table_set(line, 2, piece->file ? piece->file->path : "(zeros)"))
        return false;
    snprintf(number, sizeof number, "%llu", (unsigned long long)piece->file_offset);
    return table_set(line, 3, piece->file ? number : "");
}

static bool collect(struct disk *disk, const struct output *output, struct err *err)
{
    struct disk_piece pieces[64];
    size_t count;

    for (uint64_t start = 0; start < disk_size_bytes(disk);) {
        if (!disk_map(disk, start, disk_size_bytes(disk) - start, pieces, ARRAY_SIZE(pieces), &count, err))
            return false;
        for (size_t i = 0; i < count; i++) {
            if (!(output->table ? add_line(output->table, start, &pieces[i])
                                : add_json(output->rows, start, &pieces[i])))
                return err_oom(err);
            start += pieces[i].length;
        }
    }
    return true;
}

static bool map(const char *path, const struct output *output, struct err *err)
{
    struct disk_options options = {.io = &io_real};
    AUTO_DISK struct disk *disk = NULL;

    return disk_open(path, &options, &disk, err) && collect(disk, output, err);
}

int cmd_disk_map(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    json_auto_t *rows = json_array();
    AUTO(auto_table_unref)
    struct libscols_table *table = args.json ? NULL : table_new(COLUMNS, ARRAY_SIZE(COLUMNS));
    struct output output = {.rows = rows, .table = table};
    if (!map(operands.items[0], &output, &err))
        return cli_fail(operands.items[0], &err);
    return args.json ? output_json(rows) : table_print(table);
}
