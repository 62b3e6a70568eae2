#include "cli_call.h"
#include "cli_commands.h"

#define TIMEOUT_MAX_S 86400U

struct args {
    bool force, dry_run, json;
    uint64_t timeout_s;
};

static const struct cli_option OPTIONS[] = {
    {"force", CLI_FLAG, offsetof(struct args, force), NULL, "cut the power"},
    {"timeout", CLI_NUMBER, offsetof(struct args, timeout_s), "SECONDS",
     "how long to wait for the guest; default: 60"},
    CLI_DRY_RUN(struct args),
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

static bool fill(json_t *arguments, const void *values, const struct cli_operands *operands, struct err *err)
{
    const struct args *args = values;

    (void)operands;
    if (args->timeout_s > TIMEOUT_MAX_S)
        return err_set(err, ERR_USAGE, "--timeout: at most %u seconds", TIMEOUT_MAX_S);
    return args->timeout_s == 0 ||
           json_object_set_new(arguments, "timeout_s", json_integer((json_int_t)args->timeout_s)) == 0 || err_oom(err);
}

int cmd_stop(int argc, char **argv)
{
    static const struct vm_verb VERB = {.syntax = &SYNTAX, .operation = "stop", .fill = fill, .print = print_state};
    struct args args = {0};

    return vm_verb_run(&VERB, argc, argv, &args, &args.json);
}
