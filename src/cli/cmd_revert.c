#include "cli_back.h"
#include "cli_commands.h"

int cmd_revert(int argc, char **argv)
{
    return back_run(argc, argv, "revert", /* with_snapshot= */ false);
}
