/* Images below the layers that Bough made: bases, and what lies under a disk that was brought along. The VM's file notes their size and
 * time, so that a change by somebody else is seen before it is used: unique ids stay the same. */
#pragma once

#include "plan.h"
#include "progress.h"

/* ERR_MISMATCH if one that these settings' disks (the VM's, or a snapshot's) lie over is not as vm notes it. One without a note is
 * accepted; so is one in the VM's folder that has another inode: the folder was copied. */
bool bases_check(const struct tree *tree, const struct config *of, struct err *err) MUST_CHECK;
/* Notes those under the disks of `of` that have no note, or one of another inode; with_tops: the disks themselves too, since they are being
 * sealed. Forgets those that the VM writes now. For a VM whose machine is off: what was written is in its place. */
bool bases_note(struct config *vm, const char *vm_dir, const struct config *of, bool with_tops, bool *ret_changed,
                struct err *err) MUST_CHECK;
/* The same for what the commits of a plan name. */
bool bases_note_plan(const struct tree *tree, struct plan *plan, const struct config *of, bool with_tops, struct err *err) MUST_CHECK;
/* Does the plan write to one that is noted (a merge)? Then all its commits forget it, and *ret_first is to be run before it: NULL if it
 * writes to none. A merge that is cut off leaves no wrong note. */
bool bases_forget_written(const struct tree *tree, struct plan *plan, struct plan **ret_first, struct err *err) MUST_CHECK;
/* Takes each as it is now. each is called for those that had changed. */
typedef void base_changed_fn(void *context, const struct config_base *was, const struct config_base *is);
bool bases_accept(struct config *vm, const char *vm_dir, base_changed_fn *each, void *context, bool *ret_changed, struct err *err) MUST_CHECK;
/* "4096 bytes, modified 2026-03-01 14:05:09.123456789" (UTC). */
char *base_text(const struct config_base *base, char text[static 80]);
/* Is it as noted, or a copy that the folder's copy made? */
bool base_is_as_noted(const struct config_base *noted, const struct config_base *now, const char *vm_dir);
/* As it is now. path is borrowed. */
bool base_read(const char *path, struct config_base *ret_base, struct err *err) MUST_CHECK;
