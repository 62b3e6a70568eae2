/* Who has a VM. The lock file holds two OFD locks, which end with the last descriptor of their open file
 * description, and the owner of the first as text. The locks decide; the text only tells. */
#include "store_private.h"

#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

enum { MANAGER_BYTE, ALIVE_BYTE };

#define OWNER_TEXT_MAX 512

static struct flock byte_of(int byte)
{
    return (struct flock){.l_type = F_WRLCK, .l_whence = SEEK_SET, .l_start = byte, .l_len = 1};
}

/* *ret_taken: it is ours now. */
static bool byte_lock(int fd, int byte, const char *path, bool *ret_taken, struct err *err)
{
    struct flock lock = byte_of(byte);

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
    struct flock lock = byte_of(byte);

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

static void boot_id(char text[static 40])
{
    AUTO_FD int fd = open("/proc/sys/kernel/random/boot_id", O_RDONLY | O_CLOEXEC);
    ssize_t length = fd >= 0 ? read(fd, text, 36) : 0;

    text[length > 0 ? length : 0] = '\0';
}

static void host_name(char text[static 65])
{
    if (gethostname(text, 65) != 0)
        text[0] = '\0';
    text[64] = '\0';
}

/* A full disk must not stop the commands that make room on it: who has the lock is then not told. */
static void owner_write(int fd, const char *path, const char *what)
{
    char host[65], boot[40], text[OWNER_TEXT_MAX];

    host_name(host);
    boot_id(boot);
    int length = snprintf(text, sizeof text, "host %s\nboot %s\npid %ld\nwhat %.63s\n", host, boot,
                          (long)getpid(), what);
    if (ftruncate(fd, 0) != 0 || pwrite(fd, text, (size_t)length, 0) != length)
        log_debug("%s: the owner could not be written: %s", path, strerror(errno));
}

/* The value behind `key ` at the start of a line; "" if there is none. */
static void owner_field(const char *text, const char *key, char *value, size_t size)
{
    size_t key_length = strlen(key);

    value[0] = '\0';
    for (const char *line = text; *line != '\0'; line += strcspn(line, "\n"), line += *line == '\n') {
        if (strncmp(line, key, key_length) != 0 || line[key_length] != ' ')
            continue;
        const char *start = line + key_length + 1;
        size_t length = strcspn(start, "\n");
        snprintf(value, size, "%.*s", (int)(length < size ? length : size - 1), start);
        return;
    }
}

static void owner_read(int fd, struct store_owner *ret_owner)
{
    char text[OWNER_TEXT_MAX], pid[24], boot[40], here_host[65], here_boot[40];
    ssize_t length = pread(fd, text, sizeof text - 1, 0);

    *ret_owner = (struct store_owner){0};
    if (length <= 0)
        return;
    text[length] = '\0';
    owner_field(text, "host", ret_owner->host, sizeof ret_owner->host);
    owner_field(text, "what", ret_owner->what, sizeof ret_owner->what);
    owner_field(text, "pid", pid, sizeof pid);
    owner_field(text, "boot", boot, sizeof boot);
    ret_owner->pid = strtoll(pid, NULL, 10);
    host_name(here_host);
    boot_id(here_boot);
    ret_owner->this_boot =
        boot[0] != '\0' && strcmp(boot, here_boot) == 0 && strcmp(ret_owner->host, here_host) == 0;
}

static bool report_busy(int fd, const char *vm_dir, struct err *err)
{
    struct store_owner owner;

    owner_read(fd, &owner);
    if (owner.pid == 0)
        return err_set(err, ERR_BUSY, "%s: another process works on the VM", vm_dir);
    return err_set(err, ERR_BUSY, "%s: '%s' works on the VM (process %lld%s%s)", vm_dir, owner.what,
                   (long long)owner.pid, owner.this_boot ? "" : " on ", owner.this_boot ? "" : owner.host);
}

bool lock_manager(const char *vm_dir, const struct guid *guid, const char *what, int *ret_fd, struct err *err)
{
    AUTO_FREE char *path = lock_path(vm_dir, guid);
    AUTO_FD int fd = -1;
    struct stat st;
    bool taken;

    if (!path)
        return err_oom(err);
    if (!lock_open(path, &fd, err) || !byte_lock(fd, MANAGER_BYTE, path, &taken, err))
        return false;
    if (!taken)
        return report_busy(fd, vm_dir, err);
    /* The VM may have been removed between the open and the lock. */
    if (fstat(fd, &st) != 0 || st.st_nlink == 0)
        return err_set(err, ERR_NOT_FOUND, "%s: the VM has just been removed", vm_dir);
    owner_write(fd, path, what);
    *ret_fd = TAKE_FD(fd);
    return true;
}

bool lock_alive(const char *vm_dir, const struct guid *guid, int *ret_fd, struct err *err)
{
    AUTO_FREE char *path = lock_path(vm_dir, guid);
    AUTO_FD int fd = -1;
    bool taken;

    if (!path)
        return err_oom(err);
    if (!lock_open(path, &fd, err) || !byte_lock(fd, ALIVE_BYTE, path, &taken, err))
        return false;
    *ret_fd = taken ? TAKE_FD(fd) : -1;
    return true;
}

static bool probe_fd(int fd, const char *path, enum store_lock_state *ret_state,
                     struct store_owner *ret_owner, struct err *err)
{
    struct store_owner owner = {0};
    bool is_managed, is_alive;

    if (!byte_is_held(fd, MANAGER_BYTE, path, &is_managed, err) ||
        !byte_is_held(fd, ALIVE_BYTE, path, &is_alive, err))
        return false;
    if (is_managed || is_alive)
        owner_read(fd, &owner);
    *ret_state = is_managed ? STORE_MANAGED : is_alive ? STORE_UNMANAGED : STORE_FREE;
    *ret_owner = owner;
    return true;
}

bool store_probe(const char *vm_dir, enum store_lock_state *ret_state, struct store_owner *ret_owner,
                 struct err *err)
{
    struct guid guid;

    if (!load_guid(&io_real, vm_dir, &guid, err))
        return false;
    AUTO_FREE char *path = lock_path(vm_dir, &guid);
    if (!path)
        return err_oom(err);
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW | O_NOCTTY | O_NONBLOCK);
    if (fd >= 0)
        return probe_fd(fd, path, ret_state, ret_owner, err);
    if (errno != ENOENT)
        return err_sys(err, errno, "open %s", path);
    *ret_state = STORE_FREE;
    *ret_owner = (struct store_owner){0};
    return true;
}

bool store_alive_lock(struct store *store, int *ret_fd, struct err *err)
{
    if (store->alive_fd < 0 && !lock_alive(store->vm_dir, &store->guid, &store->alive_fd, err))
        return false;
    if (store->alive_fd < 0)
        return err_set(err, ERR_BUSY, "%s: a machine of this VM is alive already", store->vm_dir);
    *ret_fd = store->alive_fd;
    return true;
}

void store_alive_unlock(struct store *store)
{
    if (store->alive_fd >= 0)
        close(store->alive_fd);
    store->alive_fd = -1;
}
