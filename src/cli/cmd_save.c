#include "cli_call.h"
#include "cli_commands.h"

int cmd_save(int argc, char **argv)
{
    return call_simple(argc, argv, "save", print_state);
}
