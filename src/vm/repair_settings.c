/* The list and the parents of a VM whose file can be read, and what became of snapshots whose files cannot. */
#include "repair.h"

#include "auto.h"
#include "buf.h"
#include "file.h"

#include <stdlib.h>
#include <string.h>

static const struct config *snapshot_find(const struct store_look *look, const struct guid *guid)
{
    for (size_t i = 0; i < look->snapshot_count; i++)
        if (guid_equal(&look->snapshots[i]->snapshot, guid))
            return look->snapshots[i];
    return NULL;
}

static const struct config_listed *listed_find(const struct config *vm, const struct guid *guid)
{
    for (size_t i = 0; i < vm->listed_count; i++)
        if (guid_equal(&vm->listed[i].guid, guid))
            return &vm->listed[i];
    return NULL;
}

/* --- parents --- */

/* A snapshot's own file says what it was taken of. That stays so until that one is deleted. */
static bool parent_correct(struct repair *repair, const struct config *vm, struct config_listed *listed)
{
    const struct config *snapshot = snapshot_find(repair->look, &listed->guid);
    const struct guid none = {0};

    if (!snapshot)
        return false;
    bool was_root = !guid_is_set(&snapshot->parent);
    if (was_root ? !guid_is_set(&listed->parent)
                 : guid_equal(&snapshot->parent, &listed->parent) || !listed_find(vm, &snapshot->parent))
        return false;
    listed->parent = was_root ? none : snapshot->parent;
    repair_tell(repair, repair->look->vm_dir, "the list names the parent of the snapshot %s by its own file now: %s", listed->guid.text,
                was_root ? "none" : listed->parent.text);
    return true;
}

/* The snapshot whose image lies nearest below the image at index; NULL: none does. */
static const struct config *owner_below(const struct repair *repair, ptrdiff_t index)
{
    for (size_t steps = 0; index >= 0 && steps < repair->image_count; steps++) {
        for (size_t i = 0; i < repair->look->snapshot_count; i++)
            for (size_t j = 0; j < repair->look->snapshots[i]->disk_count; j++)
                if (!repair->look->snapshots[i]->disks[j].is_cdrom &&
                    strcmp(repair->look->snapshots[i]->disks[j].path, repair->images[index].path) == 0)
                    return repair->look->snapshots[i];
        index = repair->images[index].parent;
    }
    return NULL;
}

/* What the VM descends from, where its file names one that is not listed: by its disks, if they all agree. */
static bool now_correct(struct repair *repair, struct config *vm)
{
    const struct config *found = NULL;

    if (!guid_is_set(&vm->parent) || listed_find(vm, &vm->parent))
        return false;
    for (size_t i = 0; i < vm->disk_count; i++) {
        if (vm->disks[i].is_cdrom)
            continue;
        ptrdiff_t image = repair_image_at(repair, vm->disks[i].path);
        const struct config *owner = image < 0 ? NULL : owner_below(repair, repair->images[image].parent);
        if (!owner || (found && owner != found) || !listed_find(vm, &owner->snapshot))
            return false;
        found = owner;
    }
    if (!found)
        return false;
    vm->parent = found->snapshot;
    repair_tell(repair, repair->look->vm_dir, "the VM descends from the snapshot %s ('%s'), whose images its disks lie over",
                found->snapshot.text, found->name);
    return true;
}

/* --- snapshots whose settings are lost --- */

/* The nearest one upward that is not lost. */
static struct guid kept_parent(const struct store_look *look, const struct config *vm, struct guid guid)
{
    for (size_t steps = 0; guid_is_set(&guid) && !snapshot_find(look, &guid) && steps <= vm->listed_count; steps++) {
        const struct config_listed *listed = listed_find(vm, &guid);
        guid = listed ? listed->parent : (struct guid){0};
    }
    return guid;
}

static bool files_aside(struct repair *repair, const struct guid *guid, struct err *err)
{
    AUTO_FREE char *dir = string_printf("%s/Snapshots/%s", repair->look->vm_dir, guid->text);
    AUTO_FREE char *xml = dir ? string_printf("%s.xml", dir) : NULL;

    if (!xml)
        return err_oom(err);
    return repair_put_aside(repair, xml, "these settings cannot be read", err) &&
           repair_put_aside(repair, dir, "the settings of this snapshot are lost", err);
}

/* Their files go aside before the commit: behind it they would be garbage. */
static bool lost_drop(struct repair *repair, struct config *vm, struct err *err)
{
    const struct store_look *look = repair->look;
    AUTO_CONFIG struct config *before = config_copy(vm);
    size_t kept = 0;

    if (!before)
        return err_oom(err);
    for (size_t i = 0; i < before->listed_count; i++) {
        const struct config_listed *listed = &before->listed[i];
        if (!snapshot_find(look, &listed->guid))
            continue;
        vm->listed[kept].guid = listed->guid;
        vm->listed[kept++].parent = kept_parent(look, before, listed->parent);
    }
    vm->listed_count = kept;
    vm->parent = kept_parent(look, before, vm->parent);
    if (!repair_layers_spare(repair, vm, err))
        return false;
    for (size_t i = 0; i < before->listed_count; i++) {
        const struct guid *guid = &before->listed[i].guid;
        if (snapshot_find(look, guid))
            continue;
        if (!files_aside(repair, guid, err))
            return false;
        repair_tell(repair, look->vm_dir, "the snapshot %s is no more listed: its settings are lost", guid->text);
    }
    return repair_layers_aside(repair, vm, err);
}

/* --- the whole --- */

/* All that loading asks of them. */
static bool is_sound(const struct repair *repair, const struct config *vm, struct err *err)
{
    const struct store_look *look = repair->look;
    struct config *copy = config_copy(vm);
    struct config **snapshots = calloc(look->snapshot_count + 1, sizeof *snapshots);
    size_t count = 0;
    struct tree *tree = NULL;
    bool ok = copy && snapshots;

    for (size_t i = 0; ok && i < look->snapshot_count; i++)
        if (listed_find(vm, &look->snapshots[i]->snapshot))
            ok = (snapshots[count++] = config_copy(look->snapshots[i])) != NULL;
    ok = ok ? tree_new(look->vm_dir, copy, snapshots, count, &tree, err) : err_oom(err);
    if (ok) {
        tree_free(tree);
        return true;
    }
    for (size_t i = 0; snapshots && i < count; i++)
        config_free(snapshots[i]);
    free(snapshots);
    config_free(copy);
    return false;
}

/* *ret_sound: the VM's file is one that can be loaded, now. */
static bool list_repair(struct repair *repair, bool *ret_sound, struct err *err)
{
    AUTO_CONFIG struct config *vm = config_copy(repair->look->vm);
    bool changed = false;

    if (!vm)
        return err_oom(err);
    for (size_t i = 0; i < vm->listed_count; i++)
        changed |= parent_correct(repair, vm, &vm->listed[i]);
    if (repair->look->snapshot_count < vm->listed_count) {
        changed = true;
        if (!lost_drop(repair, vm, err))
            return false;
    }
    changed |= now_correct(repair, vm);
    for (size_t i = 0; i < repair->image_count; i++) /* noted again when it is used next */
        changed |= repair->images[i].is_renewed && config_base_forget(vm, repair->images[i].path);
    *ret_sound = is_sound(repair, vm, err);
    if (!*ret_sound)
        return repair_may_go_on(err);
    return !changed || repair_write_config(repair, vm, err);
}

/* The old file stays beside the new one. */
static bool whole_rebuild(struct repair *repair, const char *why, struct err *err)
{
    AUTO_CONFIG struct config *vm = NULL;
    AUTO_FREE char *path = string_printf("%s/Virtual Machines/%s.xml", repair->look->vm_dir, repair->look->guid.text);

    if (!path)
        return err_oom(err);
    if (!repair_rebuild(repair, &vm, err))
        return false;
    if (!vm)
        return true;
    if (!is_sound(repair, vm, err) || !repair_put_aside(repair, path, why, err) ||
        !repair_write_config(repair, vm, err))
        return false;
    repair_tell(repair, path, "was made again from the snapshots' files: Now descends from %s ('%s'), with that one's settings",
                vm->parent.text, snapshot_find(repair->look, &vm->parent)->name);
    return true;
}

bool repair_settings(struct repair *repair, struct err *err)
{
    bool sound = false;

    if (!repair->look->vm)
        return whole_rebuild(repair, "these settings cannot be read", err);
    return list_repair(repair, &sound, err) &&
           (sound || whole_rebuild(repair, "these settings contradict those of the snapshots", err));
}
