#include "cli_commands.h"
#include "cli_hooks.h"
#include "cli_options.h"
#include "cli_output.h"
#include "cli_progress.h"
#include "cli_text.h"
#include "cli_view.h"
#include "prune.h"

#include <stdio.h>
#include <stdlib.h>
#include <time.h>

struct args {
    uint64_t last, hourly, daily, weekly, monthly;
    bool dry_run, json;
};

static const struct cli_option OPTIONS[] = {
    {"keep-last", CLI_NUMBER, offsetof(struct args, last), "N", "keep the N newest"},
    {"keep-hourly", CLI_NUMBER, offsetof(struct args, hourly), "N", "keep one of each of the N newest hours"},
    {"keep-daily", CLI_NUMBER, offsetof(struct args, daily), "N", "keep one of each of the N newest days"},
    {"keep-weekly", CLI_NUMBER, offsetof(struct args, weekly), "N", "keep one of each of the N newest weeks"},
    {"keep-monthly", CLI_NUMBER, offsetof(struct args, monthly), "N", "keep one of each of the N newest months"},
    {"dry-run", CLI_FLAG, offsetof(struct args, dry_run), NULL,
     "tell what would be deleted, and why the others stay; do nothing"},
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

static json_t *reasons_json(unsigned reasons)
{
    json_t *list = json_array();

    for (unsigned i = 0; i < PRUNE_REASONS; i++)
        if (reasons & 1U << i)
            json_array_append_new(list, json_string(prune_reason_name((enum prune_reason)i)));
    return list;
}

static json_t *choice_json(const struct prune_choice *choice)
{
    char created[32];

    return json_pack("{s:s, s:o, s:s, s:o}", "guid", choice->snapshot->snapshot.text, "name",
                     json_from_text(choice->snapshot->name), "created",
                     time_rfc3339(choice->snapshot->created_ms, created), "reasons", reasons_json(choice->reasons));
}

/* {"delete": the oldest first, "keep": the same, "unscheduled": number of those that are none of our business}. */
static bool choose(const char *vm_name, const struct args *args, json_t **ret_choice, struct err *err)
{
    AUTO_TREE struct tree *tree = NULL;
    AUTO_FREE struct prune_choice *choices = NULL;
    struct prune_rules rules = {.keep = {[PRUNE_LAST] = args->last,
                                         [PRUNE_HOURLY] = args->hourly,
                                         [PRUNE_DAILY] = args->daily,
                                         [PRUNE_WEEKLY] = args->weekly,
                                         [PRUNE_MONTHLY] = args->monthly},
                                .now_ms = (int64_t)time(NULL) * 1000 + 999};
    size_t count;

    if (!view_tree(vm_name, &tree, err) || !prune_choose(tree, &rules, &choices, &count, err))
        return false;
    json_t *delete = json_array(), *keep = json_array();
    for (size_t i = count; i-- > 0;)
        json_array_append_new(choices[i].reasons ? keep : delete, choice_json(&choices[i]));
    json_t *choice = json_pack("{s:o, s:o, s:I}", "delete", delete, "keep", keep, "unscheduled",
                               (json_int_t)(tree->snapshot_count - count));
    if (!choice)
        return err_oom(err);
    *ret_choice = choice;
    return true;
}

/* --- for people --- */

static bool row_fill(struct libscols_line *line, const json_t *row)
{
    const json_t *reasons = json_object_get(row, "reasons");
    char why[128] = "", id[9], created[32];
    size_t i, used = 0;
    json_t *reason;

    json_array_foreach (reasons, i, reason) {
        used += (size_t)snprintf(why + used, sizeof why - used, "%s%s", i ? ", " : "", json_string_value(reason));
    }
    return table_set(line, 0, i > 0 ? "keep" : "delete") && table_set(line, 1, time_local_json(json_text(row, "created"), created)) &&
           table_set(line, 2, guid_short(json_text(row, "guid"), id)) && table_set(line, 3, why) &&
           table_set(line, 4, json_text(row, "name"));
}

static int choice_print(const json_t *choice)
{
    static const struct output_column COLUMNS[] = {{"WHAT", 0}, {"CREATED", 0}, {"ID", 0}, {"KEPT AS", 0}, {"NAME", 0}};
    json_auto_t *rows = json_array();
    json_int_t others = json_integer_value(json_object_get(choice, "unscheduled"));

    json_array_extend(rows, json_object_get(choice, "delete"));
    json_array_extend(rows, json_object_get(choice, "keep"));
    int status = table_print_rows(COLUMNS, ARRAY_SIZE(COLUMNS), rows, row_fill);
    if (others > 0)
        printf("%" JSON_INTEGER_FORMAT " snapshot(s) not taken with --scheduled: never deleted by prune\n", others);
    return status;
}

/* --- doing it --- */

static void deleted_print(const json_t *row)
{
    printf("deleted %s '", json_text(row, "guid"));
    text_print(stdout, json_text(row, "name"), TEXT_ONE_LINE);
    puts("'");
    fflush(stdout);
}

/* What the last one is merged with is merged once, behind all of them. NULL: out of memory. */
static json_t *delete_arguments(const json_t *row, bool is_last)
{
    return json_pack("{s:s, s:b}", "snapshot", json_text(row, "guid"), "no_merge", (int)!is_last);
}

/* Each by `delete` itself, with its hooks. The first that fails ends it: what stands in the way of one is in the way of all.
 * deleted gets the rows of those that are gone. */
static bool delete_all(const char *vm_name, const json_t *rows, bool tell, const struct progress *progress,
                       json_t *deleted, struct err *err)
{
    size_t i, count = json_array_size(rows);
    json_t *row;

    json_array_foreach (rows, i, row) {
        json_auto_t *value = NULL;
        progress_report(progress, "prune", i, count);
        if (progress_cancelled(progress))
            return err_set(err, ERR_CANCELLED, "cancelled after %zu of %zu", i, count);
        if (!hooks_call(vm_name, "delete", delete_arguments(row, i + 1 == count), progress, &value, err))
            return false;
        json_array_append(deleted, row);
        if (tell)
            deleted_print(row);
    }
    return true;
}

static int prune(const char *vm_name, const json_t *choice, bool json)
{
    struct cli_progress progress;
    json_auto_t *deleted = json_array();
    struct err err = ERR_INIT;

    cli_progress_begin(&progress, "prune", /* is_own_work= */ false);
    bool done = delete_all(vm_name, json_object_get(choice, "delete"), !json, &progress.progress, deleted, &err);
    cli_progress_end(&progress, done);
    int status = done ? 0 : cli_fail(vm_name, &err);
    if (!json)
        return status;
    json_auto_t *answer = json_pack("{s:O, s:O, s:O}", "deleted", deleted, "kept", json_object_get(choice, "keep"),
                                    "unscheduled", json_object_get(choice, "unscheduled"));
    int print_status = output_json(answer);
    return status != 0 ? status : print_status;
}

int cmd_prune(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    json_auto_t *choice = NULL;
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (!choose(operands.items[0], &args, &choice, &err))
        return err.code == ERR_USAGE ? cli_usage_error("%s", err.text) : cli_fail(operands.items[0], &err);
    if (args.dry_run)
        return args.json ? output_json(choice) : choice_print(choice);
    return prune(operands.items[0], choice, args.json);
}
