/* The user's own programs before and after an operation (docs/hooks.md): snapshot, apply, revert, delete.
 *
 * They lie in `$XDG_CONFIG_HOME/bough/hooks.d` (~/.config/bough/hooks.d), never in a VM's folder: that may come from a stranger,
 * and what was only imported must not run. They run in the command's own process, one after the other by name, each for at most
 * $BOUGH_HOOK_TIMEOUT seconds (60). */
#pragma once

#include "err.h"
#include "progress.h"

#include <jansson.h>

/* client_call() with the hooks of the operation around it, if there are any and it is no dry run. arguments: stolen, NULL for none.
 * ERR_HOOK: one that ran before it has failed, and nothing was done. What hooks print goes to standard error. */
bool hooks_call(const char *vm_name, const char *operation, json_t *arguments, const struct progress *progress,
                json_t **ret_value, struct err *err) MUST_CHECK;
