/* Plans about a VM's folder as a whole: copied, one snapshot of it as a machine of its own, moved, removed. Pure, as all plans.
 *
 * Each has one STEP_RENAME, which is its commit: what stands before it makes a new folder under a temporary name that nobody finds,
 * what stands behind it only removes. store_run_folder() runs them. */
#pragma once

#include "plan.h"

/* A new folder. */
struct plan_target {
    const char *dir;       /* absolute, clean; must not exist */
    const char *temporary; /* its name until it is whole, beside dir */
    const char *name;      /* of the VM in it; NULL: as it was */
};

/* The VM with all its snapshots. layers: as plan_apply's. An image that lies outside of the VM's folder is taken along, beside the
 * base disks, and what names it names the copy; a medium, a kernel or an initial RAM disk outside stays where it is.
 * new_identity: a VM GUID of its own, also in the names of its files, other MAC addresses, another generation id. Memory that two
 * share by the same id is shared in the copy too. */
bool plan_copy(const struct tree *tree, const struct plan_source *source, const struct plan_target *target,
               bool new_identity, const struct plan_layer *layers, size_t layer_count, struct plan **ret_plan,
               struct err *err) MUST_CHECK;

/* One snapshot as a VM without snapshots: each disk flattened to one image and compared, settings as they were, under a VM GUID of its
 * own. With memory the VM is Saved, unless disks_only. */
bool plan_extract(const struct tree *tree, const struct plan_source *source, const struct plan_target *target,
                  const struct guid *snapshot, bool disks_only, struct plan **ret_plan, struct err *err) MUST_CHECK;

/* The folder gets the name dir, which must not exist. Nothing in it changes. */
bool plan_move(const struct tree *tree, const char *dir, struct plan **ret_plan, struct err *err) MUST_CHECK;
/* The folder is away as a whole, under a name that nobody looks for (away), then with all that is in it. */
bool plan_remove(const struct tree *tree, const char *away, struct plan **ret_plan, struct err *err) MUST_CHECK;
