/* A VM's folder as a tree. */
#include "store_private.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

#define READ_ATTEMPTS 10

bool name_parse(const char *name, const char *end, struct guid *ret_guid)
{
    char text[GUID_LENGTH + 1];

    if (strlen(name) != GUID_LENGTH + strlen(end) || strcmp(name + GUID_LENGTH, end) != 0)
        return false;
    memcpy(text, name, GUID_LENGTH);
    text[GUID_LENGTH] = '\0';
    return guid_parse(text, ret_guid);
}

struct guid_search {
    struct guid guid;
    unsigned count;
};

static int look_at_name(void *context, const char *name)
{
    struct guid_search *search = context;

    search->count += name_parse(name, ".xml", &search->guid);
    return 0;
}

bool load_guid(const struct io *io, const char *vm_dir, struct guid *ret_guid, struct err *err)
{
    AUTO_FREE char *folder = path_join(vm_dir, VM_FOLDER);
    struct guid_search search = {0};

    if (!folder)
        return err_oom(err);
    if (!io_list(io, folder, look_at_name, &search, err)) {
        if (err->code != ERR_NOT_FOUND && err->sys != ENOTDIR)
            return false;
        return err_set(err, ERR_NOT_FOUND, "%s: holds no VM", vm_dir);
    }
    if (search.count == 0)
        return err_set(err, ERR_NOT_FOUND, "%s: holds no VM", vm_dir);
    if (search.count > 1)
        return err_set(err, ERR_CORRUPT, "%s: holds the files of more than one VM", folder);
    *ret_guid = search.guid;
    return true;
}

bool load_vm(const struct io *io, const char *vm_dir, const struct guid *guid, struct config **ret_vm,
             struct err *err)
{
    AUTO_FREE char *path = string_printf("%s/" VM_FOLDER "/%s.xml", vm_dir, guid->text);
    AUTO_CONFIG struct config *vm = NULL;

    if (!path)
        return err_oom(err);
    if (!config_load(io, path, vm_dir, &vm, err))
        return false;
    if (vm->is_snapshot)
        return err_set(err, ERR_CORRUPT, "%s: is a snapshot's file, not a VM's", path);
    if (!guid_equal(&vm->guid, guid))
        return err_set(err, ERR_CORRUPT, "%s: global_id is %s", path, vm->guid.text);
    *ret_vm = TAKE(vm);
    return true;
}

bool load_snapshot(const struct io *io, const char *vm_dir, const struct guid *guid,
                   struct config **ret_snapshot, struct err *err)
{
    AUTO_FREE char *path = string_printf("%s/" SNAPSHOTS_FOLDER "/%s.xml", vm_dir, guid->text);
    AUTO_CONFIG struct config *snapshot = NULL;

    if (!path)
        return err_oom(err);
    if (!config_load(io, path, vm_dir, &snapshot, err)) {
        if (err->code != ERR_NOT_FOUND)
            return false;
        return err_set(err, ERR_CORRUPT, "%s: the VM lists this snapshot, and its file is missing", path);
    }
    if (!snapshot->is_snapshot)
        return err_set(err, ERR_CORRUPT, "%s: is a VM's file, not a snapshot's", path);
    if (!guid_equal(&snapshot->snapshot, guid))
        return err_set(err, ERR_CORRUPT, "%s: snapshot/id is %s", path, snapshot->snapshot.text);
    *ret_snapshot = TAKE(snapshot);
    return true;
}

static void snapshots_free(struct config **snapshots, size_t count)
{
    for (size_t i = 0; snapshots && i < count; i++)
        config_free(snapshots[i]);
    free(snapshots);
}

/* guid NULL: any. */
static bool is_written_by(const struct plan *plan, const struct guid *guid)
{
    for (size_t i = 0; plan && i < plan->step_count; i++) {
        const struct step *step = &plan->steps[i];
        if (step->kind == STEP_WRITE_CONFIG && (!guid || guid_equal(&step->config->snapshot, guid)))
            return true;
    }
    return false;
}

static bool load_listed(const struct io *io, const char *vm_dir, const struct guid *guid, const struct tree *known,
                        const struct plan *plan, struct config **ret_snapshot, struct err *err)
{
    const struct config *have = known && !is_written_by(plan, guid) ? tree_by_guid(known, guid) : NULL;

    if (!have)
        return load_snapshot(io, vm_dir, guid, ret_snapshot, err);
    struct config *copy = config_copy(have);
    if (!copy)
        return err_oom(err);
    *ret_snapshot = copy;
    return true;
}

bool load_tree(const struct io *io, const char *vm_dir, const struct guid *guid, const struct tree *known,
               const struct plan *plan, struct tree **ret_tree, struct err *err)
{
    AUTO_CONFIG struct config *vm = NULL;

    if (!load_vm(io, vm_dir, guid, &vm, err))
        return false;
    size_t count = vm->listed_count;
    struct config **snapshots = calloc(count + 1, sizeof(struct config *));
    if (!snapshots)
        return err_oom(err);
    bool ok = true;
    if (!is_written_by(plan, NULL))
        plan = NULL;
    for (size_t i = 0; ok && i < count; i++)
        ok = load_listed(io, vm_dir, &vm->listed[i].guid, known, plan, &snapshots[i], err);
    if (!ok || !tree_new(vm_dir, vm, snapshots, count, ret_tree, err)) {
        snapshots_free(snapshots, count);
        return false;
    }
    TAKE(vm);
    return true;
}

/* Did somebody commit since `before` was read? */
static bool has_changed(const struct io *io, const char *xml_path, const struct buf *before)
{
    AUTO_BUF struct buf now = BUF_INIT;
    struct err ignored;

    if (!file_read_all(io, xml_path, CONFIG_XML_MAX_BYTES, &now, &ignored))
        return false;
    return now.length != before->length || memcmp(now.data, before->data, now.length) != 0;
}

/* A snapshot that is deleted between the reading of the list and of its file looks like damage. */
static bool read_once(const struct io *io, const char *vm_dir, bool *ret_again, struct tree **ret_tree,
                      struct err *err)
{
    AUTO_BUF struct buf before = BUF_INIT;
    struct guid guid;

    *ret_again = false;
    if (!load_guid(io, vm_dir, &guid, err))
        return false;
    AUTO_FREE char *xml_path = string_printf("%s/" VM_FOLDER "/%s.xml", vm_dir, guid.text);
    if (!xml_path)
        return err_oom(err);
    if (!file_read_all(io, xml_path, CONFIG_XML_MAX_BYTES, &before, err))
        return false;
    if (load_tree(io, vm_dir, &guid, /* known= */ NULL, /* plan= */ NULL, ret_tree, err))
        return true;
    *ret_again = has_changed(io, xml_path, &before);
    return false;
}

bool store_read(const struct io *io, const char *vm_dir, struct tree **ret_tree, struct err *err)
{
    AUTO_FREE char *dir = path_absolute(vm_dir);
    bool again = true;

    if (!dir)
        return err_oom(err);
    for (unsigned i = 0; again && i < READ_ATTEMPTS; i++)
        if (read_once(io, dir, &again, ret_tree, err))
            return true;
    return false;
}

bool store_read_vm(const struct io *io, const char *vm_dir, struct config **ret_vm, struct err *err)
{
    AUTO_FREE char *dir = path_absolute(vm_dir);
    struct guid guid;

    if (!dir)
        return err_oom(err);
    return load_guid(io, dir, &guid, err) && load_vm(io, dir, &guid, ret_vm, err);
}
