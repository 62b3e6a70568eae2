#include "cli_call.h"

#include "bytes.h"
#include "cli_hooks.h"
#include "cli_output.h"
#include "cli_progress.h"
#include "cli_text.h"
#include "file.h"

#include <stdio.h>
#include <string.h>

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

static int call_and_print(const struct vm_verb *verb, const char *vm_name, json_t *arguments, bool json)
{
    struct cli_progress progress;
    json_auto_t *value = NULL;
    struct err err = ERR_INIT;

    cli_progress_begin(&progress, verb->operation, /* is_own_work= */ verb->work != NULL);
    bool done = verb->work ? verb->work(vm_name, arguments, &progress.progress, &value, &err)
                           : hooks_call(vm_name, verb->operation, json_incref(arguments), &progress.progress, &value, &err);
    cli_progress_end(&progress, done);
    return done ? print_value(vm_name, value, json, verb->print) : cli_fail(vm_name, &err);
}

static bool is_argument(const struct cli_option *option)
{
    static const char *const OURS[] = {"json", "yes", CLI_VERBOSE_NAME};

    for (size_t i = 0; i < ARRAY_SIZE(OURS); i++)
        if (strcmp(OURS[i], option->name) == 0)
            return false;
    return true;
}

static bool argument_option(json_t *arguments, const struct cli_option *option, const void *args, struct err *err)
{
    const void *value = (const char *)args + option->offset;
    char key[32];

    snprintf(key, sizeof key, "%s", option->name);
    for (char *c = key; (c = strchr(c, '-'));)
        *c = '_';
    if (option->kind == CLI_FLAG)
        return argument_flag(arguments, key, *(const bool *)value, err);
    return option->kind != CLI_TEXT || argument_text(arguments, key, *(const char *const *)value, err);
}

static bool arguments_fill(const struct vm_verb *verb, json_t *arguments, const struct cli_operands *operands,
                           const void *args, struct err *err)
{
    const struct cli_option *options = verb->syntax->options;

    for (size_t i = 0; i < ARRAY_SIZE(verb->operands) && (int)i + 1 < operands->count; i++)
        if (verb->operands[i] && !argument_text(arguments, verb->operands[i], operands->items[i + 1], err))
            return false;
    if (verb->fill && !verb->fill(arguments, args, operands, err))
        return false;
    for (size_t i = 0; i < verb->syntax->option_count; i++)
        if (is_argument(&options[i]) && !argument_option(arguments, &options[i], args, err))
            return false;
    return true;
}

int vm_verb_call(const struct vm_verb *verb, const struct cli_operands *operands, void *args, bool json)
{
    json_auto_t *arguments = json_object();
    const char *name = operands->items[0];
    struct err err = ERR_INIT;

    if (verb->ask && !verb->ask(args, operands->items))
        return err_exit_status(ERR_CANCELLED);
    if (!arguments_fill(verb, arguments, operands, args, &err))
        return err.code == ERR_USAGE ? cli_usage_error("%s", err.text) : cli_fail(name, &err);
    return call_and_print(verb, name, arguments, json);
}

int vm_verb_run(const struct vm_verb *verb, int argc, char **argv, void *args, const bool *json)
{
    struct cli_operands operands;
    int status;

    if (!cli_parse(verb->syntax, argc, argv, args, &operands, &status))
        return status;
    return vm_verb_call(verb, &operands, args, *json);
}

int vm_call(const char *vm_name, const char *operation, bool json, people_print *print)
{
    const struct vm_verb verb = {.operation = operation, .print = print};

    return call_and_print(&verb, vm_name, /* arguments= */ NULL, json);
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
    return vm_call(operands.items[0], operation, args.json, print);
}
