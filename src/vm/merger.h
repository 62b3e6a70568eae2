/* Merging of a VM that runs, behind its back: which merge is next, sealing where it must be, the plan behind the copying. All on the
 * thread that has the VM; the copying alone is on its own (merge_job.h). */
#pragma once

#include "vm.h"

#include <jansson.h>

struct merger;

bool merger_new(struct merger **ret_merger, struct err *err) MUST_CHECK;
void merger_free(struct merger *merger); /* merger_end() has been called; accepts NULL */

/* An operation comes: what must not go on beside it is ended, all else stands until merger_go_on(). */
void merger_make_way(struct vm *vm, const char *operation);
/* It has ended: there may be other merges now. */
void merger_go_on(struct vm *vm, const char *operation, bool done);
/* Ends what is going on; it is pending again. Before the machine's engines end. */
void merger_end(struct vm *vm);

/* All that is pending, at once and without regard to the machine; what was done goes to `merged`, also on failure. True without vm->present:
 * the machine has ended meanwhile, and there may be more. */
bool merger_run(struct vm *vm, const struct progress *progress, json_t *merged, struct err *err) MUST_CHECK;
/* [{"path", "into", "bytes", "done_bytes", "state": "running", "reason": null}], or []; NULL when out of memory */
json_t *merger_json(const struct vm *vm);
