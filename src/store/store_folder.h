/* A VM's folder as a whole: plan_folder.h's plans, done. */
#pragma once

#include "plan_folder.h"
#include "store.h"

/* Runs the steps in order. Until the rename, which is the commit, nobody finds what is made, and after a failure or a cancel nothing of it
 * is there any more; a crash leaves a folder that the next one who makes or removes something in the same place removes.
 * machine->step does STEP_CHECK_MEMORY and STEP_VERIFY_MEMORY; NULL where the plan has none. Cancelling is obeyed up to the commit.
 * ERR_EXISTS: the new name is taken. A failure that says "it is done" comes behind the commit. */
bool store_run_folder(const struct io *io, struct plan *plan, const struct store_machine *machine,
                      const struct progress *progress, struct err *err) MUST_CHECK;

/* The space that such a plan takes; extents that can be shared take none of `copied`. */
struct store_folder_bytes {
    uint64_t copied, flattened;
};
bool store_folder_bytes(const struct io *io, const struct plan *plan, struct store_folder_bytes *ret_bytes,
                        struct err *err) MUST_CHECK;

/* Names beside dir that nobody lists, and that are cleared away after a crash. Owned; NULL when out of memory. */
char *store_temporary_dir(const char *dir); /* for plan_target */
char *store_removed_dir(const char *dir);   /* for plan_remove() */
