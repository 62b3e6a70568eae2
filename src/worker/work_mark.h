/* Which commands work on a VM in their own process, so that `cancel` reaches them. A worker's work is cancelled over its control socket. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

struct work_mark {
    char *path; /* owned; NULL: there is none */
    int fd;
};

/* Best effort: without a mark it cannot be cancelled by others. */
void work_begin(const char *vm_dir, const char *operation, struct work_mark *ret_mark);
void work_end(struct work_mark *mark);

/* Does to each of them what a Ctrl-C would. True if there was one; name gets its operation. */
bool works_cancel(const char *vm_dir, char *name, size_t size);
