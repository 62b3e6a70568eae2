/* What an operation takes of the file system, and what is free there: told by a dry run, and refused beforehand where it cannot fit. What
 * fits by this may yet find no space, since others write too: then the operation fails as a whole. */
#pragma once

#include "room_merge.h"
#include "vm_priv.h"

struct room {
    uint64_t needs_bytes;    /* about */
    uint64_t at_least_bytes; /* by which it is refused */
    struct room_fs fs;       /* of the VM's folder */
};

bool room_look(const struct vm *vm, const struct plan *plan, struct room *ret_room, struct err *err) MUST_CHECK;
/* ERR_NO_SPACE with both figures. Plans that make nothing larger are not refused: they may be what makes room. */
bool room_check(const struct vm *vm, const struct plan *plan, struct err *err) MUST_CHECK;

/* --- room_memory.c --- */
/* How much of a process's mapping of memory_bytes is not zero, by a sample of its pages: about, and at least (with a
 * certainty of 0.9997). False where it cannot be looked at: nothing is known then. */
bool room_memory(pid_t pid, uint64_t memory_bytes, uint64_t *ret_about, uint64_t *ret_at_least);
