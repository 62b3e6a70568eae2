/* The home of VMs: where it is, what is in it, and making a new one. */
#include "store_private.h"

#include "log.h"
#include "name_list.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#define SHARE_TRIES   200
#define SHARE_WAIT_US 10000

static bool absolute_home(char *joined, char **ret_home, struct err *err)
{
    AUTO_FREE char *path = joined;
    char *home = path ? path_absolute(path) : NULL;

    if (!home)
        return err_oom(err);
    *ret_home = home;
    return true;
}

bool store_home(char **ret_home, struct err *err)
{
    const char *bough = getenv("BOUGH_HOME"), *data = getenv("XDG_DATA_HOME"), *home = getenv("HOME");

    if (bough && *bough != '\0')
        return absolute_home(strdup(bough), ret_home, err);
    if (data && *data == '/') /* a relative one is to be ignored, says its specification */
        return absolute_home(path_join(data, "bough"), ret_home, err);
    if (home && *home == '/')
        return absolute_home(path_join(home, ".local/share/bough"), ret_home, err);
    return err_set(err, ERR_NOT_FOUND, "no home for VMs: set BOUGH_HOME or HOME");
}

/* Unlike load_guid(): a folder with a damaged VM is a VM too. */
static bool holds_vm(const struct io *io, const char *dir)
{
    struct err err;
    struct guid guid;

    return load_guid(io, dir, &guid, &err) || err.code == ERR_CORRUPT;
}

bool is_folder(const struct io *io, const char *path)
{
    struct io_stat stat;

    return io->ops->stat(io, path, &stat) == 0 && stat.is_directory;
}

/* Held a VM whose own file is gone: what `check --repair` can make again must not just vanish. */
static bool lost_vm(const struct io *io, const char *dir)
{
    AUTO_FREE char *folder = path_join(dir, VM_FOLDER);

    return folder && is_folder(io, folder) && !holds_vm(io, dir);
}

static bool is_vm_or_lost(const struct io *io, const char *dir)
{
    return holds_vm(io, dir) || lost_vm(io, dir);
}

bool store_find(const struct io *io, const char *name, char **ret_vm_dir, struct err *err)
{
    AUTO_FREE char *home = NULL;

    if (!config_check_vm_name(name, err) || !store_home(&home, err))
        return false;
    char *dir = path_join(home, name);
    if (!dir)
        return err_oom(err);
    if (!holds_vm(io, dir)) {
        bool is_lost = lost_vm(io, dir);
        free(dir);
        return err_set(err, ERR_NOT_FOUND, "no VM '%s' in %s%s", name, home,
                       is_lost ? ": its own file is missing; `bough check` tells more, --repair may make it again" : "");
    }
    *ret_vm_dir = dir;
    return true;
}

static bool list(const struct io *io, bool (*wanted)(const struct io *io, const char *dir), char ***ret_names, struct err *err)
{
    AUTO_NAME_LIST struct name_list names = {0};
    AUTO_FREE char *home = NULL;
    size_t count = 0;

    if (!store_home(&home, err))
        return false;
    /* A home that was never used is an empty one. */
    if (!name_list_read(io, home, &names, err) && err->code != ERR_NOT_FOUND)
        return false;
    name_list_sort(&names);
    char **found = calloc(names.count + 1, sizeof *found);
    if (!found)
        return err_oom(err);
    for (size_t i = 0; i < names.count; i++) {
        AUTO_FREE char *dir = names.items[i][0] == '.' ? NULL : path_join(home, names.items[i]);
        if (dir && wanted(io, dir))
            found[count++] = TAKE(names.items[i]);
    }
    *ret_names = found;
    return true;
}

bool store_list(const struct io *io, char ***ret_names, struct err *err)
{
    return list(io, holds_vm, ret_names, err);
}

bool store_list_with_lost(const struct io *io, char ***ret_names, struct err *err)
{
    return list(io, is_vm_or_lost, ret_names, err);
}

bool store_list_folders(const struct io *io, char ***ret_names, struct err *err)
{
    return list(io, is_folder, ret_names, err);
}

void store_list_free(char **names)
{
    for (size_t i = 0; names && names[i]; i++)
        free(names[i]);
    free(names);
}

/* --- making --- */

/* A link's target is not what is removed. */
bool is_link(const char *path)
{
    struct stat st;

    return lstat(path, &st) == 0 && S_ISLNK(st.st_mode);
}

void remove_all(const struct io *io, const char *path)
{
    AUTO_NAME_LIST struct name_list inside = {0};
    struct err err;

    if (!name_list_read(io, path, &inside, &err))
        log_debug("%s", err.text);
    for (size_t i = 0; i < inside.count; i++) {
        AUTO_FREE char *file = path_join(path, inside.items[i]);
        struct io_stat stat;
        bool is_folder = file && io->ops->stat(io, file, &stat) == 0 && stat.is_directory && !is_link(file);
        if (file && (io->ops->unlink(io, file) != 0) && is_folder)
            remove_all(io, file);
    }
    io->ops->remove_dir(io, path);
}

/* `.<GUID>` with a suffix of makers or removers. */
static bool is_leftover(const char *name)
{
    struct guid guid;

    return name[0] == '.' && (name_parse(name + 1, NEW_SUFFIX, &guid) || name_parse(name + 1, REMOVED_SUFFIX, &guid));
}

/* Only what is ours: an export may go to a folder that others can write to as well. */
static bool is_own_folder(const char *path)
{
    struct stat st;

    return lstat(path, &st) != 0 || (S_ISDIR(st.st_mode) && st.st_uid == geteuid());
}

/* Whoever clears away has it alone, for as long as that takes. But anybody who can read the folder can have it, and for ever. */
static bool share_lock(int fd)
{
    for (unsigned i = 0; i < SHARE_TRIES; i++) {
        if (flock(fd, LOCK_SH | LOCK_NB) == 0)
            return true;
        if (errno != EWOULDBLOCK && errno != EINTR)
            return false;
        usleep(SHARE_WAIT_US);
    }
    return false;
}

/* What makers and removers left that did not come to their end. The home's lock is shared while one is at
 * work: who gets it alone knows that none is. Best effort. */
int home_lock(const struct io *io, const char *home)
{
    AUTO_NAME_LIST struct name_list names = {0};
    struct err err;
    int fd = open(home, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
        if (!name_list_read(io, home, &names, &err))
            log_debug("%s", err.text);
        for (size_t i = 0; i < names.count; i++) {
            AUTO_FREE char *path = is_leftover(names.items[i]) ? path_join(home, names.items[i]) : NULL;
            if (path && is_own_folder(path))
                remove_all(io, path);
        }
    }
    if (fd >= 0 && !share_lock(fd))
        log_debug("lock %s: %s", home, strerror(errno));
    return fd;
}

/* A VM in the making. */
struct making {
    const struct io *io;
    const struct config *vm;
    bool (*make_files)(void *context, const char *dir, struct err *err);
    void *context;
    char *temporary, *final; /* the VM's folder, now and when all is well */
};

static bool make_folder(const struct making *making, const char *name, struct err *err)
{
    AUTO_FREE char *path = path_join(making->temporary, name);

    if (!path)
        return err_oom(err);
    return io_make_dir(making->io, path, err);
}

static bool sync_folder(const struct making *making, const char *name, struct err *err)
{
    AUTO_FREE char *path = path_join(making->temporary, name);

    if (!path)
        return err_oom(err);
    return io_sync_dir(making->io, path, err);
}

static bool make_lock(const struct making *making, struct err *err)
{
    AUTO_FREE char *path =
        string_printf("%s/" VM_FOLDER "/%s.lock", making->temporary, making->vm->guid.text);
    struct io_file *file;

    if (!path)
        return err_oom(err);
    if (!io_open(making->io, path, IO_WRITE | IO_CREATE, &file, err))
        return false;
    io_close(file);
    return true;
}

static bool make_xml(const struct making *making, struct err *err)
{
    AUTO_FREE char *path = string_printf("%s/" VM_FOLDER "/%s.xml", making->temporary, making->vm->guid.text);
    AUTO_FREE char *xml = NULL;
    size_t length;
    bool renamed;

    if (!path)
        return err_oom(err);
    /* As seen from where it will be. */
    return config_format(making->vm, making->final, &xml, &length, err) &&
           file_replace(making->io, path, xml, length, &renamed, err);
}

/* All of S1, durable, under the temporary name. */
static bool make_content(const struct making *making, struct err *err)
{
    AUTO_FREE char *state = path_join(VM_FOLDER, making->vm->guid.text);

    if (!state)
        return err_oom(err);
    return make_folder(making, VM_FOLDER, err) && make_folder(making, state, err) &&
           make_folder(making, SNAPSHOTS_FOLDER, err) &&
           (!making->make_files || making->make_files(making->context, making->temporary, err)) &&
           make_lock(making, err) && make_xml(making, err) && sync_folder(making, state, err) &&
           sync_folder(making, SNAPSHOTS_FOLDER, err) && sync_folder(making, VM_FOLDER, err) &&
           io_sync_dir(making->io, making->temporary, err);
}

static bool make_vm(const struct making *making, const char *home, struct err *err)
{
    if (!io_make_dir(making->io, making->temporary, err))
        return false;
    bool made = make_content(making, err);
    /* A rename would replace an empty folder of that name, which somebody may have made meanwhile: no harm.
     */
    if (made && io_exists(making->io, making->final))
        made = err_set(err, ERR_EXISTS, "%s: the name is taken", making->final);
    if (made && io_rename(making->io, making->temporary, making->final, err))
        return io_sync_dir(making->io, home, err);
    remove_all(making->io, making->temporary);
    return false;
}

bool store_create(const struct io *io, const struct config *vm,
                  bool (*make_files)(void *context, const char *dir, struct err *err), void *context,
                  char **ret_vm_dir, struct err *err)
{
    AUTO_FREE char *home = NULL;
    struct guid guid = guid_new();

    if (!config_check_vm_name(vm->name, err) || !store_home(&home, err) || !dir_make_all(io, home, err))
        return false;
    AUTO_FREE char *final = path_join(home, vm->name);
    AUTO_FREE char *temporary = string_printf("%s/.%s" NEW_SUFFIX, home, guid.text);
    if (!final || !temporary)
        return err_oom(err);
    if (io_exists(io, final))
        return err_set(err, ERR_EXISTS, "%s: the name is taken", final);
    struct making making = {.io = io,
                            .vm = vm,
                            .make_files = make_files,
                            .context = context,
                            .temporary = temporary,
                            .final = final};
    AUTO_FD int lock_fd = home_lock(io, home);
    (void)lock_fd; /* held until the end */
    if (!make_vm(&making, home, err))
        return false;
    *ret_vm_dir = TAKE(final);
    return true;
}
