/* Merges as JSON, in the answers of operations and of `tree` and `show`. */
#pragma once

#include "store.h"

#include <jansson.h>

/* An array of {"path": what goes, "into": what stays or null, "bytes", "done_bytes": 0, "state": "pending" or "kept", "reason": text or
 * null}; one that is pending has a reason where there is no room for it. A new reference, NULL when out of memory. */
json_t *mergings_json(const struct store_merges *merges);
