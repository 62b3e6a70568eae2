#include "store_look.h"

#include "store_private.h"

#include "name_list.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

struct telling {
    store_fault_fn *report;
    void *context;
};

/* The text is an error's, without the path in front of it. */
static void tell(const struct telling *telling, const char *kind, bool harmless, const char *path, const char *text)
{
    size_t length = strlen(path);

    if (strncmp(text, path, length) == 0 && strncmp(text + length, ": ", 2) == 0)
        text += length + 2;
    telling->report(telling->context,
                    &(struct store_fault){.kind = kind, .harmless = harmless, .path = path, .text = text});
}

/* Is it about the file, not about this process? */
static bool is_finding(const struct err *err)
{
    return err->code != ERR_NO_MEMORY && err->code != ERR_CANCELLED;
}

/* Settings that a newer Bough has written, or that the system does not give out now, are not lost. */
static void note_unsure(struct store_look *look, const struct err *err)
{
    bool is_other_thing = err->sys == ENOTDIR || err->sys == EISDIR || err->sys == ELOOP;

    look->is_unsure |= err->code == ERR_UNSUPPORTED || (err->code == ERR_IO && !is_other_thing);
}

bool store_find_damaged(const struct io *io, const char *name, char **ret_vm_dir, struct err *err)
{
    AUTO_FREE char *home = NULL;
    struct io_stat stat;
    struct err ignored;

    if (store_find(io, name, ret_vm_dir, err))
        return true;
    if (err->code != ERR_NOT_FOUND || !store_home(&home, &ignored))
        return false;
    AUTO_FREE char *dir = path_join(home, name);
    AUTO_FREE char *folder = dir ? path_join(dir, VM_FOLDER) : NULL;
    if (!folder || io->ops->stat(io, folder, &stat) != 0 || !stat.is_directory)
        return false;
    *ret_vm_dir = TAKE(dir);
    return true;
}

/* --- reading --- */

static bool snapshot_add(struct store_look *look, struct config *snapshot, struct err *err)
{
    struct config **grown = reallocarray(look->snapshots, look->snapshot_count + 1, sizeof *grown);

    if (!grown) {
        config_free(snapshot);
        return err_oom(err);
    }
    look->snapshots = grown;
    grown[look->snapshot_count++] = snapshot;
    return true;
}

static bool snapshot_read(struct store_look *look, const struct guid *guid, const struct telling *telling, struct err *err)
{
    AUTO_FREE char *path = string_printf("%s/" SNAPSHOTS_FOLDER "/%s.xml", look->vm_dir, guid->text);
    struct config *snapshot;

    if (!path)
        return err_oom(err);
    if (load_snapshot(look->io, look->vm_dir, guid, &snapshot, err))
        return snapshot_add(look, snapshot, err);
    if (!is_finding(err))
        return false;
    note_unsure(look, err);
    tell(telling, "settings", false, path, err->text);
    return true;
}

/* Where the list is lost. */
static bool snapshots_read_all(struct store_look *look, const struct telling *telling, struct err *err)
{
    AUTO_FREE char *dir = path_join(look->vm_dir, SNAPSHOTS_FOLDER);
    AUTO_NAME_LIST struct name_list names = {0};
    struct guid guid;
    bool ok = true;

    if (!dir)
        return err_oom(err);
    if (!name_list_read(look->io, dir, &names, err)) {
        ok = is_finding(err);
        note_unsure(look, err);
    }
    for (size_t i = 0; ok && i < names.count; i++)
        ok = !name_parse(names.items[i], ".xml", &guid) || snapshot_read(look, &guid, telling, err);
    return ok;
}

static bool vm_read(struct store_look *look, const struct telling *telling, struct err *err)
{
    AUTO_FREE char *path = string_printf("%s/" VM_FOLDER "/%s.xml", look->vm_dir, look->guid.text);

    if (!path)
        return err_oom(err);
    if (file_read_all(look->io, path, CONFIG_XML_MAX_BYTES, &look->vm_xml, err) &&
        load_vm(look->io, look->vm_dir, &look->guid, &look->vm, err))
        return true;
    if (!is_finding(err))
        return false;
    note_unsure(look, err);
    tell(telling, "settings", false, path, err->text);
    return true;
}

/* --- what the files say of each other --- */

static bool is_listed(const struct config *vm, const struct guid *guid)
{
    for (size_t i = 0; i < vm->listed_count; i++)
        if (guid_equal(&vm->listed[i].guid, guid))
            return true;
    return false;
}

/* The parent in a snapshot's own file is that of when it was taken: it counts no more only where that one was deleted. */
static bool parent_compare(const struct store_look *look, const struct config_listed *listed,
                           const struct config *snapshot, const struct telling *telling, struct err *err)
{
    AUTO_FREE char *path = string_printf("%s/" SNAPSHOTS_FOLDER "/%s.xml", look->vm_dir, listed->guid.text);
    if (!path)
        return err_oom(err);
    bool was_root = !guid_is_set(&snapshot->parent);
    if ((was_root && guid_is_set(&listed->parent)) ||
        (!was_root && is_listed(look->vm, &snapshot->parent) && !guid_equal(&snapshot->parent, &listed->parent))) {
        AUTO_FREE char *text = string_printf("parent_snapshot is %s, the VM's list says %s",
                                             was_root ? "none" : snapshot->parent.text,
                                             guid_is_set(&listed->parent) ? listed->parent.text : "none");
        if (!text)
            return err_oom(err);
        tell(telling, "tree", false, path, text);
    }
    if (!guid_equal(&snapshot->guid, &look->vm->guid))
        tell(telling, "settings", true, path, "global_id is not the VM's");
    return true;
}

/* All that tree_new() asks of them as a whole; only where all can be read. */
static bool tree_check(const struct store_look *look, const struct telling *telling, struct err *err)
{
    AUTO_CONFIG struct config *vm = config_copy(look->vm);
    AUTO_FREE char *path = string_printf("%s/" VM_FOLDER "/%s.xml", look->vm_dir, look->guid.text);
    struct config **snapshots = calloc(look->snapshot_count + 1, sizeof *snapshots);
    bool copied = vm && path && snapshots;
    struct tree *tree = NULL;

    for (size_t i = 0; copied && i < look->snapshot_count; i++)
        copied = (snapshots[i] = config_copy(look->snapshots[i])) != NULL;
    bool sound = copied ? tree_new(look->vm_dir, vm, snapshots, look->snapshot_count, &tree, err) : err_oom(err);
    if (sound) {
        TAKE(vm);
        tree_free(tree);
        return true;
    }
    for (size_t i = 0; snapshots && i < look->snapshot_count; i++)
        config_free(snapshots[i]);
    free(snapshots);
    if (!is_finding(err))
        return false;
    tell(telling, "tree", false, path, err->text);
    return true;
}

static bool settings_read(struct store_look *look, const struct telling *telling, struct err *err)
{
    if (guid_is_set(&look->guid) && !look->is_lost && !vm_read(look, telling, err))
        return false;
    if (!look->vm)
        return snapshots_read_all(look, telling, err);
    for (size_t i = 0; i < look->vm->listed_count; i++) {
        const struct config_listed *listed = &look->vm->listed[i];
        size_t before = look->snapshot_count;
        if (!snapshot_read(look, &listed->guid, telling, err) ||
            (look->snapshot_count > before && !parent_compare(look, listed, look->snapshots[before], telling, err)))
            return false;
    }
    return look->snapshot_count < look->vm->listed_count || tree_check(look, telling, err);
}

/* --- opening --- */

struct lost {
    struct guid guid;
    bool is_clear; /* all that tell it tell the same */
};

static void lost_add(struct lost *lost, const struct guid *guid)
{
    lost->is_clear = !guid_is_set(&lost->guid) || (lost->is_clear && guid_equal(&lost->guid, guid));
    lost->guid = *guid;
}

static int lost_look_at(void *context, const char *name)
{
    struct guid guid;

    if (name_parse(name, ".lock", &guid) || name_parse(name, "", &guid))
        lost_add(context, &guid);
    return 0;
}

static bool lost_ask_snapshots(struct store_look *look, struct lost *lost, struct err *err)
{
    AUTO_FREE char *dir = path_join(look->vm_dir, SNAPSHOTS_FOLDER);
    AUTO_NAME_LIST struct name_list names = {0};
    struct guid guid;

    if (!dir)
        return err_oom(err);
    bool ok = name_list_read(look->io, dir, &names, err) || is_finding(err);
    for (size_t i = 0; ok && i < names.count; i++) {
        AUTO_CONFIG struct config *snapshot = NULL;
        if (!name_parse(names.items[i], ".xml", &guid))
            continue;
        if (load_snapshot(look->io, look->vm_dir, &guid, &snapshot, err))
            lost_add(lost, &snapshot->guid);
        else
            ok = is_finding(err);
    }
    return ok;
}

/* The GUID of a VM whose own file is gone: from the names that have it too, else from its snapshots. Stays unset where they do not
 * agree. */
static bool lost_guid(struct store_look *look, const char *folder, struct err *err)
{
    struct lost lost = {0};

    if (!io_list(look->io, folder, lost_look_at, &lost, err) && !is_finding(err))
        return false;
    if (!guid_is_set(&lost.guid) && !lost_ask_snapshots(look, &lost, err))
        return false;
    if (lost.is_clear)
        look->guid = lost.guid;
    return true;
}

/* Whoever has the VM may change it meanwhile; that is no reason not to look. */
static bool lock_try(struct store_look *look, const char *what, struct err *err)
{
    if (!lock_manager(look->vm_dir, &look->guid, what, &look->manager_fd, err)) {
        if (err->code != ERR_BUSY && err->code != ERR_STATE)
            return false;
        look->manager_fd = -1;
        return true;
    }
    if (!lock_alive(look->vm_dir, &look->guid, &look->alive_fd, err))
        return false;
    look->is_alone = look->alive_fd >= 0;
    if (!look->is_alone) /* a machine without its worker: whoever wants to end it must not find it busy */
        lock_release(look->vm_dir, &look->guid, what, TAKE_FD(look->manager_fd));
    return true;
}

bool store_look_open(const struct io *io, const char *vm_dir, const char *what, store_fault_fn *report, void *context,
                     struct store_look **ret_look, struct err *err)
{
    const struct telling telling = {.report = report, .context = context};
    AUTO_STORE_LOOK struct store_look *look = calloc(1, sizeof *look);

    if (!look)
        return err_oom(err);
    *look = (struct store_look){.io = io, .manager_fd = -1, .alive_fd = -1, .vm_dir = path_absolute(vm_dir)};
    AUTO_FREE char *folder = look->vm_dir ? path_join(look->vm_dir, VM_FOLDER) : NULL;
    if (!folder)
        return err_oom(err);
    if (!load_guid(io, look->vm_dir, &look->guid, err)) {
        if (!is_finding(err))
            return false;
        look->is_lost = err->code == ERR_NOT_FOUND;
        note_unsure(look, err);
        tell(&telling, "settings", false, folder, look->is_lost ? "the VM's file is missing" : err->text);
        if (look->is_lost && !lost_guid(look, folder, err))
            return false;
    }
    if (guid_is_set(&look->guid) && !lock_try(look, what, err))
        return false;
    if (!settings_read(look, &telling, err))
        return false;
    *ret_look = TAKE(look);
    return true;
}

void store_look_close(struct store_look *look)
{
    if (!look)
        return;
    for (size_t i = 0; i < look->snapshot_count; i++)
        config_free(look->snapshots[i]);
    free(look->snapshots);
    config_free(look->vm);
    buf_done(&look->vm_xml);
    if (look->alive_fd >= 0)
        close(look->alive_fd);
    if (look->manager_fd >= 0)
        lock_release(look->vm_dir, &look->guid, "check", look->manager_fd);
    free(look->vm_dir);
    free(look);
}

bool store_look_has_changed(const struct store_look *look)
{
    AUTO_FREE char *path = string_printf("%s/" VM_FOLDER "/%s.xml", look->vm_dir, look->guid.text);
    AUTO_BUF struct buf now = BUF_INIT;
    struct err ignored;

    if (look->is_alone || !guid_is_set(&look->guid) || look->is_lost)
        return false;
    return !path || !file_read_all(look->io, path, CONFIG_XML_MAX_BYTES, &now, &ignored) ||
           now.length != look->vm_xml.length || memcmp(now.data, look->vm_xml.data, now.length) != 0;
}
