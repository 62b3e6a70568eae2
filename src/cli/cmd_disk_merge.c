#include "buf.h"
#include "bytes.h"
#include "cli_disk.h"
#include "cli_output.h"
#include "disk_tools.h"
#include "room_merge.h"

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

static json_t *answer_of(const char *top, const struct args *args, const struct disk_merge_result *result)
{
    json_auto_t *answer =
        json_pack("{s:o, s:I, s:[], s:o}", "parent", json_from_text(result->parent_path), "copied_bytes",
                  (json_int_t)result->copied_bytes, "children", "removable", json_from_text(top));

    for (size_t i = 0; i < args->children.count; i++)
        json_array_append_new(json_object_get(answer, "children"), json_from_text(args->children.items[i]));
    return TAKE(answer);
}

static bool work(void *values, char **operands, const struct progress *progress, json_t **ret_answer,
                 struct err *err)
{
    const struct args *args = values;
    const struct disk_merge_options options = {
        .into_base = args->into_base, .children = args->children.items, .child_count = args->children.count};
    const struct room_merge_request room = {.child = operands[0], .direction = MERGE_DOWN, .is_asked_for = true};
    struct disk_merge_result result;

    if (!settle_images(args->children.items, args->children.count, err) ||
        !room_merge_check(&room, err) || !disk_merge(&io_real, operands[0], &options, progress, &result, err))
        return false;
    *ret_answer = answer_of(operands[0], args, &result);
    free(result.parent_path);
    return true;
}

static int print(const json_t *answer)
{
    const json_t *children = json_object_get(answer, "children"), *child;
    char size[16];
    AUTO_FREE char *text = string_printf("now holds what the merged image held, %s",
                                         size_format(json_bytes(answer, "copied_bytes"), size));
    size_t i;

    line_print(json_text(answer, "parent"), text ? text : "");
    json_array_foreach (children, i, child) {
        line_print(json_string_value(child), "has it as its parent");
    }
    line_print(json_text(answer, "removable"),
               json_array_size(children) > 0 ? "can be removed, if no image but these had it as its parent"
                                             : "can be removed, if no image has it as its parent");
    return 0;
}

int cmd_disk_merge(int argc, char **argv)
{
    static const struct disk_verb VERB = {.syntax = &SYNTAX, .changes = true, .work = work, .print = print};
    struct args args = {0};

    return disk_verb_run(&VERB, argc, argv, &args, &args.json);
}
