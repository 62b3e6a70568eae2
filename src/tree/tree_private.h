/* Shared by the files of tree/. */
#pragma once

#include "plan.h"

/* The name of a layer's file without ".avhd", ".vhd", ".vhdx" and the GUIDs behind it; points into path,
 * *ret_length characters, which may be 0. */
const char *layer_stem(const char *path, size_t *ret_length);

/* --- a plan in the making: failures are sticky, build_end() tells --- */
struct build {
    const struct tree *tree;
    const struct plan_source *source;
    struct plan *plan; /* NULL after a failure */
    struct err *err;
    bool failed;
};

void build_begin(struct build *build, const struct tree *tree, const struct plan_source *source,
                 struct err *err);
struct guid build_guid(struct build *build);
/* Takes path, which is NULL only if memory is out, and from and config, which are NULL where the kind has
 * none. */
struct step *build_step(struct build *build, enum step_kind kind, char *path);
void build_from(struct build *build, enum step_kind kind, char *path, char *from);
void build_config(struct build *build, enum step_kind kind, char *path, struct config *config);
/* A step that has none of them. */
struct step *build_plain(struct build *build, enum step_kind kind, enum config_state state);
void build_fail(struct build *build); /* out of memory */
bool build_end(struct build *build, struct plan **ret_plan, const char *summary_format, ...)
    __attribute__((format(printf, 3, 4), warn_unused_result));

/* --- pieces that several plans have --- */
/* The disk becomes a new layer over the one it names. */
void build_new_layer(struct build *build, struct config_disk *disk);
/* config's hard disks become new layers over the ones it names, made and durable. */
void build_new_layers(struct build *build, struct config *config);
/* Folders for layers and, if snapshot is set, for that snapshot. */
void build_snapshot_dirs(struct build *build, const struct guid *snapshot);
void build_sync_snapshots(struct build *build); /* Snapshots and the VM's folder */
/* Shares or copies dir/from_guid.suffix to to_dir/to_guid.suffix; takes nothing. */
void build_state_file(struct build *build, enum step_kind kind, const char *from_dir, const struct guid *from,
                      const char *to_dir, const struct guid *to, const char *suffix);
void build_commit(struct build *build, const struct config *config); /* copies; checks */
void build_write_snapshot(struct build *build, const struct config *snapshot);
/* Behind a commit: what `now` no longer names of the VM's saved state and NVRAM. */
void build_remove_state(struct build *build, const struct config *now);
/* Behind a commit: every layer of `layers`, and the VM's tops, that neither now nor a snapshot that is not in
 * `deleted` needs; the ones above first. deleted: by index of tree->snapshots, NULL for none. */
void build_remove_layers(struct build *build, const struct config *now, const bool *deleted,
                         const struct plan_layer *layers, size_t layer_count);

/* --- plan_snapshot.c --- */
bool plan_snapshot_check(const struct tree *tree, const struct plan_snapshot *request, struct err *err) MUST_CHECK;
/* The VM's settings as they are, under the snapshot's own name. NULL: *err. */
struct config *build_snapshot_config(struct build *build, const struct plan_snapshot *request, const struct guid *guid,
                                     struct err *err);
/* Puts it into the list of vm, which descends from it then. */
bool plan_list_snapshot(struct config *vm, const struct guid *guid, struct err *err) MUST_CHECK;
/* The files of a snapshot of a VM that is Off or Saved, durable. */
void build_snapshot_still(struct build *build, enum plan_machine machine, const struct config *snapshot);
/* Of one that runs: the engines get tops to switch to, and the VM's file names them; */
void build_snapshot_tops(struct build *build, const struct config *before);
/* its memory and sealed disks, durable. goes_on: what the machine is behind it. */
void build_snapshot_memory(struct build *build, const struct config *snapshot, enum config_state goes_on);

/* --- plan_apply.c --- */
/* What the present becomes, and how. */
struct apply {
    const struct plan_apply *request;
    const struct config *snapshot;
    bool has_memory; /* that is used */
    bool starts;     /* the target runs or stands loaded behind the commit; else Off or Saved */
    bool is_alive;   /* the present */
};
bool apply_begin(const struct tree *tree, const struct plan_apply *request, struct apply *ret_apply,
                 struct err *err) MUST_CHECK;
/* The snapshot's hardware under the VM's identity and list. Disks are still the sealed ones. NULL: *err. */
struct config *build_present_again(struct build *build, const struct apply *apply, struct err *err);
/* All that is made beside the present; config's disks become the new layers. The target is loaded. */
void build_apply_prepare(struct build *build, const struct apply *apply, struct config *config);
/* The commit, and what comes behind it, but for layers. */
void build_apply_commit(struct build *build, const struct apply *apply, const struct config *config);
/* The whole. */
void build_apply(struct build *build, const struct apply *apply, struct config *config);
