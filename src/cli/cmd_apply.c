#include "cli_back.h"
#include "cli_commands.h"

int cmd_apply(int argc, char **argv)
{
    return back_run(argc, argv, "apply", /* with_snapshot= */ true);
}
