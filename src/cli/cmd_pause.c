#include "cli_call.h"
#include "cli_commands.h"

int cmd_pause(int argc, char **argv)
{
    return call_simple(argc, argv, "pause", print_state);
}
