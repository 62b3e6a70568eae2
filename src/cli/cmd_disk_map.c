#include "cli_disk.h"
#include "cli_output.h"
#include "disk.h"

#include <stdio.h>

struct args {
    bool json;
};

static const struct cli_option OPTIONS[] = {CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

static bool add_row(json_t *rows, uint64_t start, const struct disk_piece *piece)
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

static bool collect(struct disk *disk, json_t *rows, const struct progress *progress, struct err *err)
{
    struct disk_piece pieces[64];
    uint64_t size = disk_size_bytes(disk);
    size_t count;

    for (uint64_t start = 0; start < size;) {
        progress_report(progress, "map", start, size);
        if (progress_cancelled(progress))
            return err_set(err, ERR_CANCELLED, "cancelled");
        if (!disk_map(disk, start, size - start, pieces, ARRAY_SIZE(pieces), &count, err))
            return false;
        for (size_t i = 0; i < count; i++) {
            if (!add_row(rows, start, &pieces[i]))
                return err_oom(err);
            start += pieces[i].length;
        }
    }
    return true;
}

static bool work(const void *args, char **operands, const struct progress *progress, json_t **ret_answer,
                 struct err *err)
{
    struct disk_options options = {.io = &io_real};
    AUTO_DISK struct disk *disk = NULL;
    json_auto_t *rows = json_array();

    (void)args;
    if (!disk_open(operands[0], &options, &disk, err) || !collect(disk, rows, progress, err))
        return false;
    *ret_answer = TAKE(rows);
    return true;
}

static bool set_number(struct libscols_line *line, size_t column, const json_t *number)
{
    char text[24];

    snprintf(text, sizeof text, "%lld", (long long)json_integer_value(number));
    return table_set(line, column, json_is_integer(number) ? text : "");
}

static bool row_fill(struct libscols_line *line, const json_t *row)
{
    const char *file = json_string_value(json_object_get(row, "file"));

    return set_number(line, 0, json_object_get(row, "start")) &&
           set_number(line, 1, json_object_get(row, "length")) && table_set(line, 2, file ? file : "(zeros)") &&
           set_number(line, 3, json_object_get(row, "offset"));
}

static int print(const json_t *rows)
{
    static const struct output_column COLUMNS[] = {
        {"START", SCOLS_FL_RIGHT}, {"LENGTH", SCOLS_FL_RIGHT}, {"FILE", 0}, {"OFFSET", SCOLS_FL_RIGHT}};

    return table_print_rows(COLUMNS, ARRAY_SIZE(COLUMNS), rows, row_fill);
}

int cmd_disk_map(int argc, char **argv)
{
    static const struct disk_verb VERB = {.syntax = &SYNTAX, .work = work, .print = print};
    struct args args = {0};

    return disk_verb_run(&VERB, argc, argv, &args, &args.json);
}
