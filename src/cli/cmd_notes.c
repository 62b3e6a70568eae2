#include "cli_call.h"
#include "cli_commands.h"
#include "cli_output.h"
#include "cli_text.h"
#include "cli_view.h"

#include <stdio.h>

struct args {
    bool dry_run, json;
};

static const struct cli_option OPTIONS[] = {CLI_DRY_RUN(struct args), CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 2, 3};

static int notes_print(const char *vm_name, const char *selector, bool json)
{
    AUTO_TREE struct tree *tree = NULL;
    const struct config *snapshot = NULL;
    struct err err = ERR_INIT;

    if (!view_tree(vm_name, &tree, &err) || !tree_find(tree, selector, &snapshot, &err))
        return cli_fail(vm_name, &err);
    if (json) {
        json_auto_t *value = json_pack("{s:s, s:o}", "guid", snapshot->snapshot.text, "notes",
                                       json_from_text(snapshot->notes));
        return output_json(value);
    }
    if (*snapshot->notes != '\0') {
        text_print(stdout, snapshot->notes, TEXT_LINES);
        putchar('\n');
    }
    return 0;
}

int cmd_notes(int argc, char **argv)
{
    static const struct vm_verb VERB = {.syntax = &SYNTAX, .operation = "notes", .operands = {"snapshot", "text"}};
    struct args args = {0};
    struct cli_operands operands;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (operands.count == 2)
        return notes_print(operands.items[0], operands.items[1], args.json);
    return vm_verb_call(&VERB, &operands, &args, args.json);
}
