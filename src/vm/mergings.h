/* Merges as JSON, in the answers of operations and of `tree` and `show`. */
#pragma once

#include "store.h"

#include <jansson.h>

/* One: {"path": what goes, "into": what stays or null, "bytes", "done_bytes": 0, "state": "pending" or "kept", "reason": text or null}. */
json_t *merging_json(const struct plan_merging *merging);
/* An array of all. New references, NULL when out of memory. */
json_t *mergings_json(const struct store_merges *merges);
