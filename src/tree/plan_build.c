/* Plans in the making, and the pieces that several of them have. */
#include "tree_private.h"

#include "file.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

const char *step_name(enum step_kind kind)
{
    static const char *const NAMES[] = {
        [STEP_MAKE_DIR] = "make-dir",
        [STEP_CREATE_LAYER] = "create-layer",
        [STEP_SHARE_FILE] = "share-file",
        [STEP_COPY_FILE] = "copy-file",
        [STEP_WRITE_CONFIG] = "write-config",
        [STEP_SYNC_DIR] = "sync-dir",
        [STEP_SYNC_FILE] = "sync-file",
        [STEP_COMMIT] = "commit",
        [STEP_MERGE_DATA] = "merge-data",
        [STEP_EMPTY_LAYER] = "empty-layer",
        [STEP_CHECK_EMPTY] = "check-empty",
        [STEP_REPARENT] = "reparent",
        [STEP_REMOVE_FILE] = "remove-file",
        [STEP_REMOVE_DIR] = "remove-dir",
        [STEP_COPY_OPTIONAL] = "copy-optional",
        [STEP_LINK_PARENT] = "link-parent",
        [STEP_FLATTEN] = "flatten",
        [STEP_RENAME] = "rename",
        [STEP_REMOVE_TREE] = "remove-tree",
        [STEP_CHECK_MEMORY] = "check-memory",
        [STEP_VERIFY_MEMORY] = "verify-memory",
        [STEP_PREPARE_TOPS] = "prepare-tops",
        [STEP_SAVE_MEMORY] = "save-memory",
        [STEP_SAVE_THUMBNAIL] = "save-thumbnail",
        [STEP_FLUSH_SEALED] = "flush-sealed",
        [STEP_START_TARGET] = "start-target",
        [STEP_STOP_PRESENT] = "stop-present",
        [STEP_DROP_PRESENT] = "drop-present",
        [STEP_RUN_TARGET] = "run-target",
    };

    return (unsigned)kind < ARRAY_SIZE(NAMES) ? NAMES[kind] : "?";
}

void plan_free(struct plan *plan)
{
    if (!plan)
        return;
    for (size_t i = 0; i < plan->step_count; i++) {
        free(plan->steps[i].path);
        free(plan->steps[i].from);
        config_free(plan->steps[i].config);
    }
    free(plan->steps);
    free(plan->summary);
    free(plan);
}

void build_begin(struct build *build, const struct tree *tree, const struct plan_source *source,
                 struct err *err)
{
    *build =
        (struct build){.tree = tree, .source = source, .err = err, .plan = calloc(1, sizeof *build->plan)};
    if (!build->plan)
        build_fail(build);
}

void build_fail(struct build *build)
{
    /* The first failure is the one to tell. */
    if (!build->failed)
        err_set_text(build->err, ERR_NO_MEMORY, 0, "out of memory");
    build->failed = true;
}

struct guid build_guid(struct build *build)
{
    return build->source->fresh_guid(build->source->context);
}

static struct step *step_add(struct build *build, enum step_kind kind)
{
    if (build->failed)
        return NULL;
    struct step *steps =
        reallocarray(build->plan->steps, build->plan->step_count + 1, sizeof *build->plan->steps);
    if (!steps) {
        build_fail(build);
        return NULL;
    }
    build->plan->steps = steps;
    struct step *step = &steps[build->plan->step_count++];
    *step = (struct step){.kind = kind};
    return step;
}

struct step *build_step(struct build *build, enum step_kind kind, char *path)
{
    struct step *step = step_add(build, kind);

    if (!step) {
        free(path);
        return NULL;
    }
    step->path = path;
    if (!path)
        build_fail(build);
    return step;
}

void build_from(struct build *build, enum step_kind kind, char *path, char *from)
{
    struct step *step = build_step(build, kind, path);

    if (!step) {
        free(from);
        return;
    }
    step->from = from;
    if (!from)
        build_fail(build);
}

void build_config(struct build *build, enum step_kind kind, char *path, struct config *config)
{
    struct step *step = build_step(build, kind, path);

    if (!step) {
        config_free(config);
        return;
    }
    step->config = config;
    if (!config)
        build_fail(build);
}

struct step *build_plain(struct build *build, enum step_kind kind, enum config_state state)
{
    struct step *step = step_add(build, kind);

    if (step)
        step->state = state;
    return step;
}

bool build_end(struct build *build, struct plan **ret_plan, const char *summary_format, ...)
{
    AUTO_PLAN struct plan *plan = build->plan;
    char summary[512];
    va_list args;

    build->plan = NULL;
    if (build->failed)
        return false;
    va_start(args, summary_format);
    vsnprintf(summary, sizeof summary, summary_format, args);
    va_end(args);
    plan->summary = strdup(summary);
    if (!plan->summary)
        return err_oom(build->err);
    *ret_plan = TAKE(plan);
    return true;
}

void build_snapshot_dirs(struct build *build, const struct guid *snapshot)
{
    const struct tree *tree = build->tree;

    build_step(build, STEP_MAKE_DIR, tree_snapshots_dir(tree));
    build_step(build, STEP_MAKE_DIR, tree_layers_dir(tree));
    if (snapshot)
        build_step(build, STEP_MAKE_DIR, tree_snapshot_dir(tree, snapshot));
}

void build_sync_snapshots(struct build *build)
{
    build_step(build, STEP_SYNC_DIR, tree_snapshots_dir(build->tree));
    build_step(build, STEP_SYNC_DIR, strdup(build->tree->vm_dir));
}

void build_new_layer(struct build *build, struct config_disk *disk)
{
    struct guid guid = build_guid(build);
    char *path = tree_layer_path(build->tree, disk->path, &guid);

    build_from(build, STEP_CREATE_LAYER, path ? strdup(path) : NULL, disk->path);
    disk->path = path;
    disk->image_id[0] = '\0';
}

void build_new_layers(struct build *build, struct config *config)
{
    size_t made = 0;

    for (size_t i = 0; i < config->disk_count; i++) {
        struct config_disk *disk = &config->disks[i];
        if (disk->is_cdrom)
            continue;
        build_new_layer(build, disk);
        made++;
    }
    if (made > 0)
        build_step(build, STEP_SYNC_DIR, tree_layers_dir(build->tree));
}

void build_state_file(struct build *build, enum step_kind kind, const char *from_dir, const struct guid *from,
                      const char *to_dir, const struct guid *to, const char *suffix)
{
    if (!from_dir || !to_dir) {
        build_fail(build);
        return;
    }
    build_from(build, kind, tree_state_path(to_dir, to, suffix), tree_state_path(from_dir, from, suffix));
}

/* A plan that would write what cannot be read again is refused before anything is done. */
static void build_checked(struct build *build, enum step_kind kind, char *path, const struct config *config)
{
    if (!build->failed && !config_check(config, build->err)) {
        build->failed = true;
        free(path);
        return;
    }
    build_config(build, kind, path, config_copy(config));
}

void build_commit(struct build *build, const struct config *config)
{
    build_checked(build, STEP_COMMIT, tree_vm_xml_path(build->tree), config);
}

void build_write_snapshot(struct build *build, const struct config *snapshot)
{
    build_checked(build, STEP_WRITE_CONFIG, tree_snapshot_xml_path(build->tree, &snapshot->snapshot),
                  snapshot);
}

void build_remove_state(struct build *build, const struct config *now)
{
    const struct config *vm = build->tree->vm;
    AUTO_FREE char *dir = tree_vm_state_dir(build->tree);

    if (!dir) {
        build_fail(build);
        return;
    }
    if (guid_is_set(&vm->saved) && !guid_equal(&vm->saved, &now->saved)) {
        build_step(build, STEP_REMOVE_FILE, tree_state_path(dir, &vm->saved, ".bin"));
        build_step(build, STEP_REMOVE_FILE, tree_state_path(dir, &vm->saved, ".vsv"));
    }
    if (guid_is_set(&vm->nvram) && !guid_equal(&vm->nvram, &now->nvram))
        build_step(build, STEP_REMOVE_FILE, tree_state_path(dir, &vm->nvram, ".nvram"));
}

struct config *plan_memory_config(const struct plan *plan, size_t index)
{
    for (size_t i = index + 1; i < plan->step_count; i++)
        if (plan->steps[i].config && guid_is_set(&plan->steps[i].config->memory))
            return plan->steps[i].config;
    return NULL;
}

char *plan_nvram_path(const struct plan *plan, size_t index)
{
    const struct step *step = &plan->steps[index];
    const struct config *naming = plan_memory_config(plan, index);
    AUTO_FREE char *dir = step->from && naming ? path_dir(step->path) : NULL;

    return dir ? tree_state_path(dir, &naming->nvram, ".nvram") : NULL;
}
