#include "bytes.h"
#include "cli_call.h"
#include "cli_commands.h"
#include "cli_output.h"
#include "cli_text.h"

#include <string.h>

struct args {
    bool dry_run, json;
};

static const struct cli_option OPTIONS[] = {CLI_DRY_RUN(struct args), CLI_JSON(struct args)};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 2, -1};

/* A path is meant from here, and who does the operation may be elsewhere. */
static bool is_path(const char *key, const char *value)
{
    uint64_t size_bytes;

    if (*value == '\0') /* takes the setting away */
        return false;
    if (strcmp(key, "disk") == 0) {
        AUTO_FREE char *what = strndup(value, strcspn(value, ","));
        return what && !size_parse(what, &size_bytes);
    }
    return strcmp(key, "kernel") == 0 || strcmp(key, "initrd") == 0 || strcmp(key, "cdrom") == 0;
}

/* KEY=VALUE into settings. What keys and values there are is the VM's business. */
static bool setting_add(json_t *settings, const char *text, struct err *err)
{
    const char *equals = strchr(text, '=');

    if (!equals || equals == text)
        return err_set(err, ERR_USAGE, "'%s' is not KEY=VALUE", text);
    AUTO_FREE char *key = strndup(text, (size_t)(equals - text));
    if (!key)
        return err_oom(err);
    if (json_object_get(settings, key))
        return err_set(err, ERR_USAGE, "'%s' is given twice", key);
    if (is_path(key, equals + 1))
        return argument_path(settings, key, equals + 1, err);
    return argument_text(settings, key, equals + 1, err);
}

static void print_changed(const char *vm_name, const json_t *value)
{
    size_t i;
    json_t *key;

    text_print(stdout, vm_name, TEXT_ONE_LINE);
    fputs(json_array_size(json_object_get(value, "changed")) > 0 ? ": changed:" : ": nothing changed",
          stdout);
    json_array_foreach (json_object_get(value, "changed"), i, key) {
        putchar(' ');
        text_print(stdout, json_string_value(key), TEXT_ONE_LINE);
    }
    putchar('\n');
}

static bool fill(json_t *arguments, const void *values, const struct cli_operands *operands, struct err *err)
{
    json_t *settings = json_object();

    (void)values;
    if (json_object_set_new(arguments, "settings", settings) != 0)
        return err_oom(err);
    for (int i = 1; i < operands->count; i++)
        if (!setting_add(settings, operands->items[i], err))
            return false;
    return true;
}

int cmd_set(int argc, char **argv)
{
    static const struct vm_verb VERB = {.syntax = &SYNTAX, .operation = "set", .fill = fill, .print = print_changed};
    struct args args = {0};

    return vm_verb_run(&VERB, argc, argv, &args, &args.json);
}
