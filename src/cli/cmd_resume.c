#include "cli_call.h"
#include "cli_commands.h"

int cmd_resume(int argc, char **argv)
{
    return call_simple(argc, argv, "resume", print_state);
}
