/* New folders for VMs: is there room, and then made. What export and import have in common. */
#pragma once

#include "plan_folder.h"
#include "progress.h"

#include <jansson.h>

/* Runs a plan of plan_folder.h. Before anything is made: ERR_NO_SPACE, with what it needs and what there is, if it cannot fit. */
bool folder_make(struct plan *plan, const struct progress *progress, struct err *err) MUST_CHECK;
/* The answer of a dry run: {"plan", "needs_bytes", "free_bytes"}. */
bool folder_answer_plan(const struct plan *plan, json_t **ret_value, struct err *err) MUST_CHECK;

/* The VM's lock was busy: is it worth trying again? Waits a moment if so: a worker whose guest has ended ends soon, and a command too. */
bool folder_wait(const char *vm_dir, unsigned *waited_ms);

/* A target that is DIR, or DIR/NAME where there is such a folder already; the folder that it will lie in must be there. Both strings
 * are owned by it. */
struct folder_target {
    char *dir, *temporary;
};
void folder_target_done(struct folder_target *target);
bool folder_target_find(const char *dir, const char *name, struct folder_target *ret_target, struct err *err) MUST_CHECK;
/* Without the first rule: dir itself. */
bool folder_target_set(const char *dir, struct folder_target *ret_target, struct err *err) MUST_CHECK;

/* Media, kernels and initial RAM disks outside of the folder that the settings name: they are not part of the VM. NULL: out of memory. */
json_t *folder_outside(const struct tree *tree, const struct config *only);
