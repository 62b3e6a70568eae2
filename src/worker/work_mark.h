/* Which commands work on a VM in their own process, so that `cancel` reaches them. A worker's work is cancelled over its control socket. */
#pragma once

#include "progress.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct work_mark {
    char *path; /* owned; NULL: there is none */
    int fd;
    const struct progress *progress; /* of work_progress(); borrowed */
};

/* Best effort: without a mark it cannot be cancelled by others. */
void work_begin(const char *vm_dir, const char *operation, struct work_mark *ret_mark);
void work_end(struct work_mark *mark);

/* Passes on what is told, and writes into the mark how much of its merges is left. mark and progress (may be NULL) must stay. */
struct progress work_progress(struct work_mark *mark, const struct progress *progress);
/* What a command that merges has told: false if there is none, or it has told nothing yet. */
bool works_merge_left(const char *vm_dir, uint64_t *ret_bytes);

/* Does to each of them what a Ctrl-C would. True if there was one; name gets its operation. */
bool works_cancel(const char *vm_dir, char *name, size_t size);
