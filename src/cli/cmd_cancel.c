#include "cli_call.h"
#include "cli_commands.h"
#include "cli_output.h"
#include "cli_text.h"

static void print_cancelled(const char *vm_name, const json_t *value)
{
    const char *name = json_text(value, "cancelled");

    text_print(stdout, vm_name, TEXT_ONE_LINE);
    fputs(": ", stdout);
    text_print(stdout, *name == '\0' ? "nothing is in progress" : name, TEXT_ONE_LINE);
    puts(*name == '\0' ? "" : " is being cancelled");
}

int cmd_cancel(int argc, char **argv)
{
    return call_simple(argc, argv, "cancel", print_cancelled);
}
