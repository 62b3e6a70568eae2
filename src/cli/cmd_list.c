#include "bytes.h"
#include "cli_commands.h"
#include "cli_options.h"
#include "cli_output.h"
#include "cli_view.h"
#include "client.h"
#include "store.h"

#include <stdio.h>
#include <string.h>

struct args {
    bool json;
};

static const struct cli_option OPTIONS[] = {CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 0, 0};

AUTO_DEFINE(auto_names_free, char *, store_list_free)

/* One VM as {"name", "guid", "state", "paused_for", "ended", "memory_bytes", "cpus", "snapshots", "oldest_snapshot"}. */
static bool row_get(const char *name, json_t **ret_row, struct err *err)
{
    AUTO_TREE struct tree *tree = NULL;
    json_auto_t *status = NULL;

    if (!view_tree(name, &tree, err) || !client_status(name, &status, err))
        return false;
    char oldest[32];
    bool any = tree->snapshot_count > 0;
    json_t *row =
        json_pack("{s:o, s:s, s:s, s:O?, s:O?, s:I, s:i, s:I, s:s?}", "name", json_from_text(name), "guid",
                  tree->vm->guid.text, "state", json_text(status, "state"), "paused_for",
                  json_object_get(status, "paused_for"), "ended", json_object_get(status, "ended"), "memory_bytes",
                  (json_int_t)tree->vm->memory_bytes, "cpus", (int)tree->vm->cpus, "snapshots",
                  (json_int_t)tree->snapshot_count, "oldest_snapshot",
                  any ? time_rfc3339(tree->snapshots[0]->created_ms, oldest) : NULL);
    if (!row)
        return err_oom(err);
    *ret_row = row;
    return true;
}

/* A VM that cannot be read is told on standard error and listed as damaged: it must not hide the others. */
static json_t *rows_get(char *const *names, int *ret_status)
{
    json_t *rows = json_array();

    for (size_t i = 0; names[i]; i++) {
        struct err err = ERR_INIT;
        json_t *row;
        if (!row_get(names[i], &row, &err)) {
            *ret_status = cli_fail(names[i], &err);
            row = json_pack("{s:o, s:s, s:{s:s, s:o}}", "name", json_from_text(names[i]), "state", "damaged",
                            "error", "code", err_name(err.code), "message", json_from_text(err.text));
        }
        json_array_append_new(rows, row);
    }
    return rows;
}

/* The day alone: it is there to see that one has been forgotten. */
static char *oldest_local(const json_t *row, char text[static 32])
{
    time_local_json(json_text(row, "oldest_snapshot"), text);
    text[strcspn(text, " ")] = '\0';
    return text;
}

static bool row_fill(struct libscols_line *line, const json_t *row)
{
    AUTO_FREE char *state = view_state_text(row);
    char size[16], number[24], oldest[32];
    bool known = json_object_get(row, "error") == NULL;

    if (!state || !table_set(line, 0, json_text(row, "name")) || !table_set(line, 1, state))
        return false;
    if (state_color(state) && scols_cell_set_color(scols_line_get_cell(line, 1), state_color(state)) != 0)
        return false;
    if (!known)
        return true;
    size_format((uint64_t)json_integer_value(json_object_get(row, "memory_bytes")), size);
    snprintf(number, sizeof number, "%lld", (long long)json_integer_value(json_object_get(row, "cpus")));
    if (!table_set(line, 2, size) || !table_set(line, 3, number))
        return false;
    snprintf(number, sizeof number, "%lld", (long long)json_integer_value(json_object_get(row, "snapshots")));
    return table_set(line, 4, number) && table_set(line, 5, oldest_local(row, oldest));
}

static int rows_print(const json_t *rows)
{
    static const struct output_column COLUMNS[] = {{"NAME", 0},
                                                   {"STATE", 0},
                                                   {"MEMORY", SCOLS_FL_RIGHT},
                                                   {"CPUS", SCOLS_FL_RIGHT},
                                                   {"SNAPSHOTS", SCOLS_FL_RIGHT},
                                                   {"OLDEST", 0}};

    return table_print_rows(COLUMNS, ARRAY_SIZE(COLUMNS), rows, row_fill);
}

int cmd_list(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    AUTO(auto_names_free) char **names = NULL;
    struct err err = ERR_INIT;
    int status = 0;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (!store_list_with_lost(&io_real, &names, &err))
        return cli_fail(NULL, &err);
    json_auto_t *rows = rows_get(names, &status);
    int print_status = args.json ? output_json(rows) : rows_print(rows);
    return status != 0 ? status : print_status;
}
