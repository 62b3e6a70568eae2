/* How a command reaches a VM: its worker, this very process, or a new worker, whichever is right. */
#pragma once

#include "err.h"
#include "progress.h"

#include <jansson.h>

/* Does the operation (docs/operations.md) on the VM of that name. arguments: stolen, NULL for none. While it waits for a worker,
 * progress->cancelled() true sends `cancel` to it, once. *ret_value is the caller's reference. */
bool client_call(const char *vm_name, const char *operation, json_t *arguments, const struct progress *progress,
                 json_t **ret_value, struct err *err) MUST_CHECK;
/* `check`: any VM at any time, also one whose files no other command can open, by this process alone. */
bool client_check(const char *vm_name, const struct progress *progress, json_t **ret_value, struct err *err) MUST_CHECK;
/* `check --repair`: the same. */
struct vm_repair_options;
bool client_repair(const char *vm_name, const struct vm_repair_options *options, const struct progress *progress, json_t **ret_value,
                   struct err *err) MUST_CHECK;
/* store_unlock(). */
bool client_unlock(const char *vm_name, const char *host, struct err *err) MUST_CHECK;
/* vm_export(): by this process alone, also of a VM that runs. arguments is borrowed. */
bool client_export(const char *vm_name, const json_t *arguments, const struct progress *progress, json_t **ret_value,
                   struct err *err) MUST_CHECK;
/* The answer of `status`, for any VM at any time, without waiting for its lock: off, running, paused, saved, unmanaged,
 * elsewhere. */
bool client_status(const char *vm_name, json_t **ret_status, struct err *err) MUST_CHECK;
