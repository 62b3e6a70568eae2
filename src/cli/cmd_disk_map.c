#include "bytes.h"
#include "cli_disk.h"
#include "cli_output.h"
#include "cli_text.h"
#include "disk.h"

#include <stdio.h>

/* A fragmented disk has millions of these: they are kept small, and printed one by one. */
struct row {
    uint64_t start, length, offset;
    const char *path; /* of the layer; NULL: zeros */
};

struct args {
    bool json;
    struct disk *disk; /* owned, and so are: */
    struct row *rows;
    size_t count, capacity;
};

static const struct cli_option OPTIONS[] = {CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

static void args_done(struct args *args)
{
    disk_abandon(args->disk);
    free(args->rows);
}

static bool add_row(struct args *args, uint64_t start, const struct disk_piece *piece)
{
    if (args->count == args->capacity) {
        size_t capacity = args->capacity * 2 + 256;
        struct row *rows = realloc(args->rows, capacity * sizeof *rows);
        if (!rows)
            return false;
        args->rows = rows;
        args->capacity = capacity;
    }
    args->rows[args->count++] = (struct row){.start = start,
                                             .length = piece->length,
                                             .offset = piece->file_offset,
                                             .path = piece->file ? piece->file->path : NULL};
    return true;
}

static bool collect(struct args *args, const struct progress *progress, struct err *err)
{
    uint64_t size = disk_size_bytes(args->disk);
    struct disk_piece pieces[64];
    size_t count;

    for (uint64_t start = 0; start < size;) {
        progress_report(progress, "map", start, size);
        if (progress_cancelled(progress))
            return err_set(err, ERR_CANCELLED, "cancelled");
        if (!disk_map(args->disk, start, size - start, pieces, ARRAY_SIZE(pieces), &count, err))
            return false;
        for (size_t i = 0; i < count; i++) {
            if (!add_row(args, start, &pieces[i]))
                return err_oom(err);
            start += pieces[i].length;
        }
    }
    return true;
}

static bool work(void *values, char **operands, const struct progress *progress, json_t **ret_answer,
                 struct err *err)
{
    struct disk_options options = {.io = &io_real};
    struct args *args = values;

    (void)ret_answer;
    return disk_open(operands[0], &options, &args->disk, err) && collect(args, progress, err);
}

static json_t *row_json(const struct row *row)
{
    json_t *value = json_pack("{s:I, s:I, s:o}", "start", (json_int_t)row->start, "length",
                              (json_int_t)row->length, "file", json_from_text(row->path));

    if (row->path)
        json_object_set_new(value, "offset", json_integer((json_int_t)row->offset));
    return value;
}

static int tell_json(const struct args *args)
{
    int status = output_json_begin();

    for (size_t i = 0; status == 0 && i < args->count; i++) {
        json_auto_t *row = row_json(&args->rows[i]);
        status = output_json_row(row, i == 0);
    }
    return status == 0 ? output_json_end() : status;
}

static int digits(uint64_t number)
{
    return snprintf(NULL, 0, "%llu", (unsigned long long)number);
}

static int tell_people(const struct args *args)
{
    uint64_t length = 0, offset = 0;

    for (size_t i = 0; i < args->count; i++) {
        length = max_u64(length, args->rows[i].length);
        offset = max_u64(offset, args->rows[i].offset);
    }
    int width = (int)max_u64(5, (uint64_t)digits(disk_size_bytes(args->disk)));
    int length_width = (int)max_u64(6, (uint64_t)digits(length));
    int offset_width = (int)max_u64(6, (uint64_t)digits(offset));
    printf("%*s %*s %*s %s\n", width, "START", length_width, "LENGTH", offset_width, "OFFSET", "FILE");
    for (size_t i = 0; i < args->count; i++) {
        const struct row *row = &args->rows[i];
        printf("%*llu %*llu ", width, (unsigned long long)row->start, length_width,
               (unsigned long long)row->length);
        if (row->path)
            printf("%*llu ", offset_width, (unsigned long long)row->offset);
        else
            printf("%*s ", offset_width, "");
        line_print(NULL, row->path ? row->path : "(zeros)");
    }
    return 0;
}

static int tell(void *values)
{
    const struct args *args = values;

    return args->json ? tell_json(args) : tell_people(args);
}

int cmd_disk_map(int argc, char **argv)
{
    static const struct disk_verb VERB = {.syntax = &SYNTAX, .work = work, .tell = tell};
    AUTO(args_done) struct args args = {0};

    return disk_verb_run(&VERB, argc, argv, &args, &args.json);
}
