/* Taking a snapshot. */
#include "tree_private.h"

#include "buf.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

/* Hyper-V's default: "VM - (date - time)", by local time; a long VM name gives way. */
static char *default_name(const char *vm_name, int64_t now_ms)
{
    time_t seconds = (time_t)(now_ms / 1000);
    struct tm tm;
    char when[64] = "";

    if (localtime_r(&seconds, &tm))
        strftime(when, sizeof when, " - (%Y-%m-%d - %H:%M:%S)", &tm);
    size_t length = strlen(vm_name), room = CONFIG_NAME_MAX - strlen(when);
    if (length > room) { /* in bytes, which are no fewer than characters */
        length = room;
        while (length > 0 && (vm_name[length] & 0xC0) == 0x80)
            length--;
    }
    return string_printf("%.*s%s", (int)length, vm_name, when);
}

static enum config_state state_taken(const struct tree *tree, enum plan_machine machine)
{
    switch (machine) {
    case MACHINE_RUNNING:
        return STATE_RUNNING;
    case MACHINE_PAUSED:
        return STATE_PAUSED;
    case MACHINE_SAVED:
        return tree->vm->saved_state;
    case MACHINE_OFF:
    default:
        return STATE_OFF;
    }
}

struct config *build_snapshot_config(struct build *build, const struct plan_snapshot *request, const struct guid *guid,
                                     struct err *err)
{
    const struct config *vm = build->tree->vm;
    AUTO_CONFIG struct config *config = config_copy(vm);
    AUTO_FREE char *made = request->name ? NULL : default_name(vm->name, build->source->now_ms);
    const char *name = request->name ? request->name : made;
    bool is_live = request->machine == MACHINE_RUNNING || request->machine == MACHINE_PAUSED;

    if (!config || !name || !config_set_string(&config->name, name, err) ||
        !config_set_string(&config->notes, request->notes ? request->notes : "", err) ||
        (is_live && !config_set_string(&config->qemu_version, request->qemu_version, err)))
        return NULL;
    config->is_snapshot = true;
    config->is_scheduled = request->scheduled;
    config->snapshot = *guid;
    config->created_ms = build->source->now_ms;
    config->state_when_taken = state_taken(build->tree, request->machine);
    config->saved = (struct guid){0};
    config->saved_state = STATE_OFF;
    config->listed_count = 0;
    config_bases_clear(config);
    if (is_live) {
        config->memory = build_guid(build);
        config->accel_used = request->accel_used;
    }
    if (guid_is_set(&vm->nvram))
        config->nvram = build_guid(build);
    return TAKE(config);
}

bool plan_list_snapshot(struct config *vm, const struct guid *guid, struct err *err)
{
    struct config_listed listed = {.guid = *guid, .parent = vm->parent};

    if (!config_add_listed(vm, &listed, err))
        return false;
    vm->parent = *guid;
    return true;
}

static void copy_nvram(struct build *build, const struct config *snapshot)
{
    const struct config *vm = build->tree->vm;

    if (!guid_is_set(&vm->nvram))
        return;
    AUTO_FREE char *from = tree_vm_state_dir(build->tree);
    AUTO_FREE char *to = tree_snapshot_dir(build->tree, &snapshot->snapshot);
    build_state_file(build, STEP_COPY_FILE, from, &vm->nvram, to, &snapshot->nvram, ".nvram");
}

static void share_saved(struct build *build, const struct config *snapshot)
{
    const struct config *vm = build->tree->vm;
    AUTO_FREE char *from = tree_vm_state_dir(build->tree);
    AUTO_FREE char *to = tree_snapshot_dir(build->tree, &snapshot->snapshot);

    build_state_file(build, STEP_SHARE_FILE, from, &vm->saved, to, &snapshot->snapshot, ".bin");
    build_state_file(build, STEP_SHARE_FILE, from, &vm->saved, to, &snapshot->snapshot, ".vsv");
}

void build_snapshot_still(struct build *build, enum plan_machine machine, const struct config *snapshot)
{
    if (machine == MACHINE_SAVED)
        share_saved(build, snapshot);
    copy_nvram(build, snapshot);
    build_step(build, STEP_SYNC_DIR, tree_snapshot_dir(build->tree, &snapshot->snapshot));
}

/* The VM is Off or Saved: nobody writes its disks, so that one commit does. */
static void plan_still(struct build *build, enum plan_machine machine, const struct config *snapshot,
                       const struct config *after)
{
    build_snapshot_still(build, machine, snapshot);
    build_sync_snapshots(build);
    build_write_snapshot(build, snapshot);
    build_commit(build, after);
}

static void build_prepare_tops(struct build *build, const struct config *before)
{
    struct step *step = build_plain(build, STEP_PREPARE_TOPS, STATE_OFF);

    if (step && !(step->config = config_copy(before)))
        build_fail(build);
}

/* The firmware writes its variables while the guest runs: they must be copied at the instant. */
static char *live_nvram(struct build *build)
{
    const struct guid *nvram = &build->tree->vm->nvram;

    if (!guid_is_set(nvram))
        return NULL;
    AUTO_FREE char *dir = tree_vm_state_dir(build->tree);
    char *path = dir ? tree_state_path(dir, nvram, ".nvram") : NULL;
    if (!path)
        build_fail(build);
    return path;
}

static bool has_hard_disks(const struct config *config)
{
    for (size_t i = 0; i < config->disk_count; i++)
        if (!config->disks[i].is_cdrom)
            return true;
    return false;
}

void build_snapshot_memory(struct build *build, const struct config *snapshot, enum config_state goes_on)
{
    AUTO_FREE char *dir = tree_snapshot_dir(build->tree, &snapshot->snapshot);
    struct step *save =
        build_step(build, STEP_SAVE_MEMORY, dir ? tree_state_path(dir, &snapshot->snapshot, "") : NULL);

    if (save) {
        save->state = goes_on;
        save->from = live_nvram(build);
    }
    if (snapshot->display != DISPLAY_NONE)
        build_step(build, STEP_SAVE_THUMBNAIL, dir ? tree_state_path(dir, &snapshot->snapshot, ".png") : NULL);
    if (has_hard_disks(snapshot))
        build_plain(build, STEP_FLUSH_SEALED, STATE_OFF);
    build_step(build, STEP_SYNC_DIR, dir ? strdup(dir) : NULL);
}

void build_snapshot_tops(struct build *build, const struct config *before)
{
    build_sync_snapshots(build);
    if (has_hard_disks(before)) {
        build_prepare_tops(build, before);
        build_commit(build, before);
    }
}

/* before: the VM with its new tops, the snapshot not yet listed. The engines write to the old tops until the
 * instant: an empty child reads as its parent, so that both are true in between. */
static void plan_live(struct build *build, enum plan_machine machine, const struct config *before,
                      const struct config *snapshot, const struct config *after)
{
    build_snapshot_tops(build, before);
    build_snapshot_memory(build, snapshot, machine == MACHINE_RUNNING ? STATE_RUNNING : STATE_PAUSED);
    build_write_snapshot(build, snapshot);
    build_commit(build, after);
}

bool plan_snapshot_check(const struct tree *tree, const struct plan_snapshot *request, struct err *err)
{
    if ((request->machine == MACHINE_SAVED) != guid_is_set(&tree->vm->saved))
        return err_set(err, ERR_INTERNAL, "%s: its file says that it is %s", tree->vm->name,
                       guid_is_set(&tree->vm->saved) ? "saved" : "not saved");
    return !request->name || config_check_snapshot_name(request->name, err);
}

bool plan_snapshot(const struct tree *tree, const struct plan_source *source,
                   const struct plan_snapshot *request, struct plan **ret_plan, struct guid *ret_snapshot,
                   struct err *err)
{
    struct build build;

    if (!plan_snapshot_check(tree, request, err))
        return false;
    build_begin(&build, tree, source, err);
    struct guid guid = build_guid(&build);
    AUTO_CONFIG struct config *snapshot = build_snapshot_config(&build, request, &guid, err);
    AUTO_CONFIG struct config *before = config_copy(tree->vm);
    AUTO_CONFIG struct config *after = NULL;
    if (snapshot && before) {
        build_snapshot_dirs(&build, &guid);
        build_new_layers(&build, before);
        after = config_copy(before);
    }
    if (!after || !plan_list_snapshot(after, &guid, err))
        build_fail(&build);
    else if (request->machine == MACHINE_OFF || request->machine == MACHINE_SAVED)
        plan_still(&build, request->machine, snapshot, after);
    else
        plan_live(&build, request->machine, before, snapshot, after);
    if (!build_end(&build, ret_plan, "snapshot %s: take '%s'", tree->vm->name,
                   snapshot ? snapshot->name : ""))
        return false;
    *ret_snapshot = guid;
    return true;
}
