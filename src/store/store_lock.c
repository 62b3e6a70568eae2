/* Who has a VM. The lock file holds two OFD locks, which end with the last descriptor of their open file
 * description, and the owner of the first as text. On one host the locks decide, and the text only tells. Of another host the locks may not
 * be seen here, or may have been given up by a server that did not hear from it: there the text decides (owner.h). */
#include "store_private.h"

#include "owner.h"

#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MANAGER_BYTE, ALIVE_BYTE };

static struct flock byte_of(int byte, short type)
{
    return (struct flock){.l_type = type, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
}

/* *ret_taken: it is ours now. */
static bool byte_lock(int fd, int byte, short type, const char *path, bool *ret_taken, struct err *err)
{
    struct flock lock = byte_of(byte, type);

    if (fcntl(fd, F_OFD_SETLK, &lock) == 0)
        *ret_taken = true;
    else if (errno == EAGAIN || errno == EACCES)
        *ret_taken = false;
    else
        return err_sys(err, errno, "lock %s", path);
    return true;
}

static bool byte_is_held(int fd, int byte, const char *path, bool *ret_held, struct err *err)
{
    struct flock lock = byte_of(byte, F_WRLCK);

    if (fcntl(fd, F_OFD_GETLK, &lock) != 0)
        return err_sys(err, errno, "ask for the lock of %s", path);
    *ret_held = lock.l_type != F_UNLCK;
    return true;
}

static char *lock_path(const char *vm_dir, const struct guid *guid)
{
    return string_printf("%s/" VM_FOLDER "/%s.lock", vm_dir, guid->text);
}

/* Made anew where a copy of the folder came without it. */
static bool lock_open(const char *path, int *ret_fd, struct err *err)
{
    int fd = open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK, 0600);

    if (fd < 0)
        return err_sys(err, errno, "open %s", path);
    *ret_fd = fd;
    return true;
}

static bool report_busy(int fd, const char *vm_dir, struct err *err)
{
    struct store_owner owner;

    (void)owner_read(fd, &owner);
    if (owner.pid == 0)
        return err_set(err, ERR_BUSY, "%s: another process works on the VM", vm_dir);
    return err_set(err, ERR_BUSY, "%s: '%s' works on the VM (process %lld%s%s)", vm_dir, owner.what,
                   (long long)owner.pid, owner.this_boot ? "" : " on ", owner.this_boot ? "" : owner.host);
}

bool store_elsewhere(const char *vm_dir, const struct store_owner *owner, struct err *err)
{
    return err_set(err, ERR_STATE,
                   "%s the host '%s' ('%s', process %lld), which has not let it go; once you know that it does not, "
                   "`bough unlock %s --host %s` gives it free",
                   owner->has_guest ? "its guest may run on" : "it may be worked on by", owner->host, owner->what,
                   (long long)owner->pid, path_base(vm_dir), owner->host);
}

/* What another host may do cannot be seen from here. */
static bool not_elsewhere(int fd, const char *vm_dir, struct err *err)
{
    struct store_owner owner;

    return owner_read(fd, &owner) != OWNER_ELSEWHERE || store_elsewhere(vm_dir, &owner, err);
}

/* Where others could not read who has it, nobody starts. But a full disk must not stop the commands that make room on it. */
static bool owner_update(int fd, const char *path, const char *what, struct err *err)
{
    bool is_alive;
    struct err write_err;

    if (!byte_is_held(fd, ALIVE_BYTE, path, &is_alive, err))
        return false;
    if (!owner_write(fd, path, what, is_alive, &write_err))
        log_debug("%s", write_err.text);
    return true;
}

bool lock_manager(const char *vm_dir, const struct guid *guid, const char *what, int *ret_fd, struct err *err)
{
    AUTO_FREE char *path = lock_path(vm_dir, guid);
    AUTO_FD int fd = -1;
    struct stat st;
    bool taken;

    if (!path)
        return err_oom(err);
    if (!lock_open(path, &fd, err) || !byte_lock(fd, MANAGER_BYTE, F_WRLCK, path, &taken, err))
        return false;
    if (!taken)
        return report_busy(fd, vm_dir, err);
    /* The VM may have been removed between the open and the lock. */
    if (fstat(fd, &st) != 0 || st.st_nlink == 0)
        return err_set(err, ERR_NOT_FOUND, "%s: the VM has just been removed", vm_dir);
    if (!not_elsewhere(fd, vm_dir, err) || !owner_update(fd, path, what, err))
        return false;
    *ret_fd = TAKE_FD(fd);
    return true;
}

void lock_release(const char *vm_dir, const struct guid *guid, const char *what, int fd)
{
    AUTO_FREE char *path = lock_path(vm_dir, guid);
    bool is_alive = true;
    struct err err;

    if (path && byte_is_held(fd, ALIVE_BYTE, path, &is_alive, &err) &&
        !(is_alive ? owner_write(fd, path, what, true, &err) : owner_erase(fd, path, &err)))
        log_debug("%s", err.text);
    close(fd);
}

bool lock_is_ours(const struct store *store, struct err *err)
{
    AUTO_FREE char *path = lock_path(store->vm_dir, &store->guid);
    struct stat here, ours;

    if (!path)
        return err_oom(err);
    if (stat(path, &here) == 0 && fstat(store->manager_fd, &ours) == 0 && here.st_dev == ours.st_dev &&
        here.st_ino == ours.st_ino)
        return true;
    return err_set(err, ERR_STATE, "%s: its lock has been broken by somebody who took this host for dead: nothing is changed",
                   store->vm_dir);
}

bool lock_alive(const char *vm_dir, const struct guid *guid, int *ret_fd, struct err *err)
{
    AUTO_FREE char *path = lock_path(vm_dir, guid);
    AUTO_FD int fd = -1;
    bool taken;

    if (!path)
        return err_oom(err);
    if (!lock_open(path, &fd, err) || !byte_lock(fd, ALIVE_BYTE, F_WRLCK, path, &taken, err))
        return false;
    *ret_fd = -1;
    if (!taken)
        return true;
    /* Nobody else is alive. From here on whoever adopts our machine may have a lock beside it. */
    if (!byte_lock(fd, ALIVE_BYTE, F_RDLCK, path, &taken, err))
        return false;
    *ret_fd = TAKE_FD(fd);
    return true;
}

bool store_alive_share(struct store *store, struct err *err)
{
    AUTO_FREE char *path = lock_path(store->vm_dir, &store->guid);
    AUTO_FD int fd = -1;
    bool taken;

    if (!path)
        return err_oom(err);
    if (!lock_open(path, &fd, err) || !byte_lock(fd, ALIVE_BYTE, F_RDLCK, path, &taken, err))
        return false;
    if (!taken)
        return err_set(err, ERR_BUSY, "%s: another process is just looking whether its machine is alive", store->vm_dir);
    store_alive_unlock(store);
    store->alive_fd = TAKE_FD(fd);
    return true;
}

static bool probe_fd(int fd, const char *path, enum store_lock_state *ret_state,
                     struct store_owner *ret_owner, struct err *err)
{
    struct store_owner owner = {0};
    enum owner_place place = owner_read(fd, &owner);
    bool is_managed, is_alive;

    if (!byte_is_held(fd, MANAGER_BYTE, path, &is_managed, err) ||
        !byte_is_held(fd, ALIVE_BYTE, path, &is_alive, err))
        return false;
    if (!is_managed && place == OWNER_ELSEWHERE)
        *ret_state = STORE_ELSEWHERE;
    else
        *ret_state = is_managed ? STORE_MANAGED : is_alive ? STORE_UNMANAGED : STORE_FREE;
    *ret_owner = *ret_state == STORE_FREE ? (struct store_owner){0} : owner;
    ret_owner->machine_is_alive = is_alive;
    return true;
}

/* The VM's lock file, to be looked at. *ret_fd: -1 where it cannot be opened, with errno. */
static bool lock_look(const char *vm_dir, char **ret_path, int *ret_fd, struct err *err)
{
    struct guid guid;

    if (!load_guid(&io_real, vm_dir, &guid, err))
        return false;
    char *path = lock_path(vm_dir, &guid);
    if (!path)
        return err_oom(err);
    *ret_path = path;
    *ret_fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
    return true;
}

bool store_probe(const char *vm_dir, enum store_lock_state *ret_state, struct store_owner *ret_owner,
                 struct err *err)
{
    AUTO_FREE char *path = NULL;
    AUTO_FD int fd = -1;

    if (!lock_look(vm_dir, &path, &fd, err))
        return false;
    if (fd >= 0)
        return probe_fd(fd, path, ret_state, ret_owner, err);
    if (errno != ENOENT)
        return err_sys(err, errno, "open %s", path);
    *ret_state = STORE_FREE;
    *ret_owner = (struct store_owner){0};
    return true;
}

/* It must be found even after the host's death. */
static bool owner_tell_guest(struct store *store, struct err *err)
{
    AUTO_FREE char *path = lock_path(store->vm_dir, &store->guid);

    if (!path)
        return err_oom(err);
    return owner_write(store->manager_fd, path, store->what, true, err) && owner_sync(store->manager_fd, path, err);
}

bool store_alive_lock(struct store *store, int *ret_fd, struct err *err)
{
    bool taken = store->alive_fd < 0;

    if (store->alive_fd < 0 && !lock_alive(store->vm_dir, &store->guid, &store->alive_fd, err))
        return false;
    if (store->alive_fd < 0)
        return err_set(err, ERR_BUSY, "%s: a machine of this VM is alive already", store->vm_dir);
    if (taken && !owner_tell_guest(store, err)) {
        store_alive_unlock(store);
        return false;
    }
    *ret_fd = store->alive_fd;
    return true;
}

void store_alive_unlock(struct store *store)
{
    AUTO_FREE char *path = lock_path(store->vm_dir, &store->guid);
    struct err err;

    if (store->alive_fd < 0)
        return;
    close(store->alive_fd);
    store->alive_fd = -1;
    if (store->manager_fd >= 0 && path && !owner_update(store->manager_fd, path, store->what, &err))
        log_debug("%s", err.text);
}

bool store_unlock(const char *vm_dir, const char *host, struct err *err)
{
    AUTO_FREE char *path = NULL;
    AUTO_FD int fd = -1;
    struct store_owner owner;
    bool renamed;

    if (!lock_look(vm_dir, &path, &fd, err))
        return false;
    enum owner_place place = fd >= 0 ? owner_read(fd, &owner) : OWNER_NONE;
    if (place == OWNER_NONE)
        return err_set(err, ERR_STATE, "%s: nobody has it", vm_dir);
    if (place == OWNER_HERE)
        return err_set(err, ERR_STATE, "%s: it is this host that has it, or had it: there is nothing to break", vm_dir);
    if (strcmp(owner.host, host) != 0)
        return err_set(err, ERR_MISMATCH, "%s: it is the host '%s' that has it, not '%s'", vm_dir, owner.host, host);
    /* A file of its own: whatever locks a server still keeps for that host, or gives it again, are on the old one. */
    char text[OWNER_TEXT_BYTES];
    owner_text_free(text);
    return file_replace(&io_real, path, text, sizeof text, &renamed, err);
}
