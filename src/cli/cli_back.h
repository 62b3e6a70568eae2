/* What `apply` and `revert` have in common: the present is lost, and the machine may run again at once. */
#pragma once

#include <stdbool.h>

/* The whole command; with_snapshot: a second operand names the snapshot to go back to. */
int back_run(int argc, char **argv, const char *operation, bool with_snapshot);
