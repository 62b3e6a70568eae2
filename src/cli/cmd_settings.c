#include "cli_commands.h"
#include "cli_options.h"
#include "cli_output.h"
#include "cli_view.h"

struct args {
    bool json;
};

static const struct cli_option OPTIONS[] = {CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 2};

static bool settings_get(const char *vm_name, const char *selector, json_t **ret_settings,
                         int64_t *ret_created_ms, struct err *err)
{
    AUTO_TREE struct tree *tree = NULL;

    if (!view_tree(vm_name, &tree, err))
        return false;
    const struct config *config = tree->vm;
    if (selector && !tree_find(tree, selector, &config, err))
        return false;
    json_t *settings = view_settings(config);
    if (!settings ||
        (config->is_snapshot && json_object_set_new(settings, "thumbnail", view_thumbnail(tree, config)) != 0)) {
        json_decref(settings);
        return err_oom(err);
    }
    *ret_settings = settings;
    *ret_created_ms = config->created_ms;
    return true;
}

int cmd_settings(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    json_auto_t *settings = NULL;
    struct err err = ERR_INIT;
    int64_t created_ms;
    char created[32];
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (!settings_get(operands.items[0], operands.count > 1 ? operands.items[1] : NULL, &settings,
                      &created_ms, &err))
        return cli_fail(operands.items[0], &err);
    if (args.json)
        return output_json(settings);
    view_line("name:", json_text(settings, "name"));
    view_line("notes:", json_text(settings, "notes"));
    view_line("created:", time_local(created_ms, created));
    view_line("taken:", json_text(settings, "state_when_taken"));
    view_line("scheduled:", json_is_true(json_object_get(settings, "scheduled")) ? "yes" : "");
    view_line("thumbnail:", json_text(settings, "thumbnail"));
    view_settings_print(settings);
    return 0;
}
