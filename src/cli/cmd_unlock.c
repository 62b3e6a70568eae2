#include "cli_commands.h"
#include "cli_options.h"
#include "cli_output.h"
#include "client.h"

struct args {
    const char *host;
    bool yes;
};

static const struct cli_option OPTIONS[] = {
    {"host", CLI_TEXT, offsetof(struct args, host), "HOST", "the one that has it, as messages name it"},
    CLI_YES(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

int cmd_unlock(int argc, char **argv)
{
    struct args args = {0};
    struct cli_operands operands;
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (!args.host)
        return cli_usage_error("--host says which host is dead");
    if (!args.yes && !can_ask())
        return cli_usage_error("--yes says that the host '%s' does not run it", args.host);
    if (!confirmed(args.yes, "Is it certain that the host '%s' does not run %s? [y/N] ", args.host, operands.items[0]))
        return err_exit_status(ERR_CANCELLED);
    return client_unlock(operands.items[0], args.host, &err) ? 0 : cli_fail(operands.items[0], &err);
}
