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

static bool arguments_fill(const struct args *args, json_t *arguments, struct err *err)
{
    if (args->timeout_s > 0 &&
        json_object_set_new(arguments, "timeout_s", json_integer((json_int_t)args->timeout_s)) != 0)
        return err_oom(err);
    return argument_flag(arguments, "force", args->force, err) &&
           argument_flag(arguments, "dry_run", args->dry_run, err);
}

int cmd_stop(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    json_auto_t *arguments = json_object();
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (args.timeout_s > TIMEOUT_MAX_S)
        return cli_usage_error("--timeout: at most %u seconds", TIMEOUT_MAX_S);
    if (!arguments_fill(&args, arguments, &err))
        return cli_fail(operands.items[0], &err);
    return call_and_print(operands.items[0], "stop", TAKE(arguments), args.json, print_state);
}
