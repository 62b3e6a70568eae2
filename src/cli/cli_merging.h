/* Merges as `tree`, `show`, `merge` and `delete` tell of them: docs/operations.md, "merging". */
#pragma once

#include "tree.h"

#include <jansson.h>

/* What is being merged, is to be, or is kept and why. status: client_status(). Empty where the images cannot be looked at: `check`
 * tells why. A new reference. */
json_t *merging_read(const struct tree *tree, const json_t *status);
/* One line for each; nothing for none. */
void merging_print(const json_t *merging);
/* The list "merged" of an answer. */
void merged_print(const json_t *merged);
