/* Which folder a VM's GUID runs from, on this host, for this user: a folder that was copied has the same GUID, and the two must not run at the
 * same time. */
#pragma once

#include "err.h"
#include "guid.h"

struct claim;

/* ERR_STATE names the folder that runs already. */
bool claim_take(const struct guid *guid, const char *vm_dir, struct claim **ret_claim, struct err *err) MUST_CHECK;
/* still_runs: its machine goes on without us, and whoever asks finds that out by its folder's lock. Accepts NULL. */
void claim_release(struct claim *claim, bool still_runs);
