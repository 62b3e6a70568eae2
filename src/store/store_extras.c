/* Files in a VM's folder that nothing names. */
#include "store_look.h"

#include "store_private.h"

#include <errno.h>
#include <string.h>

struct search {
    const struct store_look *look;
    const struct store_look_images *images;
    store_fault_fn *report;
    void *context;
    const char *dir;
    const struct config *snapshot; /* whose folder it is; NULL: another's */
    bool (*is_known)(const struct search *search, const char *name);
};

static bool is_name(const char *name, const struct guid *guid, const char *suffix)
{
    return guid_is_set(guid) && strncmp(name, guid->text, GUID_LENGTH) == 0 && strcmp(name + GUID_LENGTH, suffix) == 0;
}

static bool is_vm_file(const struct search *search, const char *name)
{
    const struct guid *guid = &search->look->guid;

    return is_name(name, guid, ".xml") || is_name(name, guid, ".lock") || is_name(name, guid, "");
}

static bool is_saved_file(const struct search *search, const char *name)
{
    const struct config *vm = search->look->vm;

    return is_name(name, &vm->saved, ".bin") || is_name(name, &vm->saved, ".vsv") || is_name(name, &vm->nvram, ".nvram");
}

static bool is_snapshots_file(const struct search *search, const char *name)
{
    const struct store_look *look = search->look;

    if (is_name(name, &look->guid, ""))
        return true;
    for (size_t i = 0; i < look->snapshot_count; i++)
        if (is_name(name, &look->snapshots[i]->snapshot, ".xml") || is_name(name, &look->snapshots[i]->snapshot, ""))
            return true;
    return false;
}

static bool is_snapshot_file(const struct search *search, const char *name)
{
    const struct config *snapshot = search->snapshot;
    bool memory = snapshot->state_when_taken != STATE_OFF;

    return (memory && (is_name(name, &snapshot->snapshot, ".bin") || is_name(name, &snapshot->snapshot, ".vsv"))) ||
           is_name(name, &snapshot->snapshot, ".png") || is_name(name, &snapshot->nvram, ".nvram");
}

static bool is_layer_file(const struct search *search, const char *name)
{
    AUTO_FREE char *path = path_join(search->dir, name);
    struct io_stat stat;

    return path && search->look->io->ops->stat(search->look->io, path, &stat) == 0 &&
           search->images->holds(search->images->context, stat.device, stat.inode);
}

static int look_at(void *context, const char *name)
{
    const struct search *search = context;

    if (search->is_known(search, name))
        return 0;
    AUTO_FREE char *path = path_join(search->dir, name);
    if (!path)
        return ENOMEM;
    search->report(search->context, &(struct store_fault){.kind = "extra", .harmless = true, .path = path,
                                                          .text = "nothing names it"});
    return 0;
}

/* A folder that is not there has nothing in it. Takes dir. */
static bool search_in(struct search search, char *taken_dir,
                      bool (*is_known)(const struct search *search, const char *name), struct err *err)
{
    AUTO_FREE char *dir = taken_dir;

    if (!dir)
        return err_oom(err);
    search.dir = dir;
    search.is_known = is_known;
    return io_list(search.look->io, dir, look_at, &search, err) || err->code != ERR_NO_MEMORY;
}

bool store_look_extras(const struct store_look *look, const struct store_look_images *images, store_fault_fn *report,
                       void *context, struct err *err)
{
    struct search search = {.look = look, .images = images, .report = report, .context = context};
    const char *dir = look->vm_dir, *guid = look->guid.text;

    if (!look->is_alone)
        return true; /* what is being made is not named yet */
    if (!look->vm || look->snapshot_count < look->vm->listed_count)
        return true; /* what they name is not known */
    if (!search_in(search, path_join(dir, VM_FOLDER), is_vm_file, err) ||
        !search_in(search, string_printf("%s/" VM_FOLDER "/%s", dir, guid), is_saved_file, err) ||
        !search_in(search, path_join(dir, SNAPSHOTS_FOLDER), is_snapshots_file, err) ||
        (images && !search_in(search, string_printf("%s/" SNAPSHOTS_FOLDER "/%s", dir, guid), is_layer_file, err)))
        return false;
    for (size_t i = 0; i < look->snapshot_count; i++) {
        search.snapshot = look->snapshots[i];
        if (!search_in(search, string_printf("%s/" SNAPSHOTS_FOLDER "/%s", dir, search.snapshot->snapshot.text),
                       is_snapshot_file, err))
            return false;
    }
    return true;
}
