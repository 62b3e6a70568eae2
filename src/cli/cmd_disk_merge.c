#include "bytes.h"
#include "cli_disk.h"
#include "cli_options.h"
#include "cli_output.h"
#include "cli_progress.h"
#include "cli_text.h"
#include "disk_tools.h"

#include <stdio.h>

struct args {
    bool into_base, json;
    struct cli_list children;
};

static const struct cli_option OPTIONS[] = {
    {"into-base", CLI_FLAG, offsetof(struct args, into_base), NULL,
     "also if the parent is a base disk; every other image over it would read wrongly"},
    {"child", CLI_LIST, offsetof(struct args, children), "FILE",
     "an image over TOP, to get TOP's parent as its own; may be given again"},
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

static int tell_json(const char *top, const struct args *args, const struct disk_merge_result *result)
{
    json_auto_t *value =
        json_pack("{s:o, s:I, s:[], s:o}", "parent", json_from_text(result->parent_path), "copied_bytes",
                  (json_int_t)result->copied_bytes, "children", "removable", json_from_text(top));

    for (size_t i = 0; i < args->children.count; i++)
        json_array_append_new(json_object_get(value, "children"), json_from_text(args->children.items[i]));
    return output_json(value);
}

static int tell(const char *top, const struct args *args, const struct disk_merge_result *result)
{
    char size[16];

    if (args->json)
        return tell_json(top, args, result);
    text_print(stdout, result->parent_path, TEXT_ONE_LINE);
    printf(": now holds what the merged image held, %s\n", size_format(result->copied_bytes, size));
    for (size_t i = 0; i < args->children.count; i++) {
        text_print(stdout, args->children.items[i], TEXT_ONE_LINE);
        puts(": has it as its parent");
    }
    text_print(stdout, top, TEXT_ONE_LINE);
    puts(args->children.count > 0 ? ": can be removed, if no image but these had it as its parent"
                                  : ": can be removed, if no image has it as its parent");
    return 0;
}

int cmd_disk_merge(int argc, char **argv)
{
    struct args args = {0};
    struct disk_merge_result result = {0};
    struct cli_operands operands;
    struct cli_progress progress;
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    struct disk_merge_options options = {
        .into_base = args.into_base, .children = args.children.items, .child_count = args.children.count};
    cli_progress_begin(&progress, "merge");
    bool ok = disk_merge(&io_real, operands.items[0], &options, &progress.progress, &result, &err);
    cli_progress_end(&progress);
    if (!ok)
        return cli_fail(operands.items[0], &err);
    status = tell(operands.items[0], &args, &result);
    free(result.parent_path);
    return status;
}
