#include "cli_call.h"
#include "cli_commands.h"
#include "cli_output.h"
#include "cli_text.h"

static void print_socket(const char *vm_name, const json_t *value)
{
    (void)vm_name;
    text_print(stdout, json_text(value, "socket"), TEXT_ONE_LINE);
    putchar('\n');
}

int cmd_display(int argc, char **argv)
{
    return call_simple(argc, argv, "display", print_socket);
}
