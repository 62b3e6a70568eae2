#include "cli_call.h"

#include "bytes.h"
#include "cli_hooks.h"
#include "cli_output.h"
#include "cli_progress.h"
#include "cli_text.h"
#include "file.h"

#include <stdio.h>
#include <string.h>

bool call_operation(const char *vm_name, const char *operation, json_t *arguments, json_t **ret_value,
                    struct err *err)
{
    struct cli_progress progress;

    cli_progress_begin(&progress, operation, /* is_own_work= */ false);
    bool done = hooks_call(vm_name, operation, arguments, &progress.progress, ret_value, err);
    cli_progress_end(&progress, done);
    return done;
}

bool argument_text(json_t *arguments, const char *key, const char *text, struct err *err)
{
    if (!text)
        return true;
    json_t *value = json_string(text);
    if (!value)
        return err_set(err, ERR_INVALID, "%s: '%s' is no valid UTF-8", key, text);
    return json_object_set_new(arguments, key, value) == 0 || err_oom(err);
}

bool argument_flag(json_t *arguments, const char *key, bool flag, struct err *err)
{
    return !flag || json_object_set_new(arguments, key, json_true()) == 0 || err_oom(err);
}

bool argument_path(json_t *arguments, const char *key, const char *path, struct err *err)
{
    if (!path)
        return true;
    if (*path == '\0')
        return err_set(err, ERR_INVALID, "%s: the path is empty", key);
    AUTO_FREE char *absolute = path_absolute(path);
    if (!absolute)
        return err_oom(err);
    return argument_text(arguments, key, absolute, err);
}

void print_state(const char *vm_name, const json_t *value)
{
    text_print(stdout, vm_name, TEXT_ONE_LINE);
    fputs(": ", stdout);
    text_print(stdout, json_text(value, "state"), TEXT_ONE_LINE);
    putchar('\n');
}

/* Where the plan takes space: what it needs, and what there is. */
static void print_room(const json_t *value)
{
    const json_t *needs = json_object_get(value, "needs_bytes"), *has = json_object_get(value, "free_bytes");
    char needs_text[16], has_text[16];

    if (needs && has)
        printf("needs about %s, free: %s\n", size_format((uint64_t)json_integer_value(needs), needs_text),
               size_format((uint64_t)json_integer_value(has), has_text));
}

int print_value(const char *vm_name, const json_t *value, bool json, people_print *print)
{
    if (json)
        return output_json(value);
    if (json_object_get(value, "plan")) {
        int status = output_plan(json_object_get(value, "plan"));
        print_room(value);
        return status;
    }
    if (print)
        print(vm_name, value);
    return 0;
}

int call_and_print(const char *vm_name, const char *operation, json_t *arguments, bool json,
                   people_print *print)
{
    json_auto_t *value = NULL;
    struct err err = ERR_INIT;

    if (!call_operation(vm_name, operation, arguments, &value, &err))
        return cli_fail(vm_name, &err);
    return print_value(vm_name, value, json, print);
}

int call_simple(int argc, char **argv, const char *operation, people_print *print)
{
    struct simple {
        bool json;
    } args = {0};
    static const struct cli_option OPTIONS[] = {CLI_JSON(struct simple)};
    static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};
    struct cli_operands operands;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    return call_and_print(operands.items[0], operation, NULL, args.json, print);
}
