#include "runtime.h"

#include "auto.h"
#include "buf.h"
#include "file.h"

#include <errno.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* The longest name of a socket in a process directory; a path to one must fit into sockaddr_un. */
#define SOCKET_PATH_MAX 107
#define SOCKET_NAME_ROOM 24

/* Does the user's own runtime directory stay when he logs out? Only with lingering; else it would take the sockets of a
 * running VM with it. */
static bool lingers(uid_t uid)
{
    char path[64];
    struct stat st;

    snprintf(path, sizeof path, "/run/user/%u", (unsigned)uid);
    if (stat(path, &st) != 0 || st.st_uid != uid)
        return false;
    AUTO_FREE char *user = NULL;
    const char *name = getenv("USER");
    if (!name || strchr(name, '/') || !(user = path_join("/var/lib/systemd/linger", name)))
        return false;
    return access(user, F_OK) == 0;
}

static char *base_dir(bool for_processes)
{
    const char *set = getenv("BOUGH_RUNTIME");

    if (set && *set != '\0')
        return path_absolute(set);
    if (for_processes && lingers(geteuid()))
        return string_printf("/run/user/%u/bough", (unsigned)geteuid());
    return string_printf("/dev/shm/bough-%u", (unsigned)geteuid());
}

/* Makes it, or checks that nobody else can have put anything into it. */
static bool own_dir(const char *path, struct err *err)
{
    struct stat st;

    if (mkdir(path, 0700) != 0 && errno != EEXIST)
        return err_sys(err, errno, "make folder %s", path);
    if (lstat(path, &st) != 0)
        return err_sys(err, errno, "stat %s", path);
    if (!S_ISDIR(st.st_mode) || st.st_uid != geteuid() || (st.st_mode & 077) != 0)
        return err_set(err, ERR_INVALID, "%s: must be a folder of this user alone (mode 0700)", path);
    return true;
}

static bool dir_name(const char *vm_dir, char **ret_base, char **ret_dir, struct err *err)
{
    AUTO_FREE char *base = base_dir(/* for_processes= */ true);
    struct stat st;

    if (!base)
        return err_oom(err);
    /* QEMU's command line would escape them, and a guest without a worker is found by that line. */
    if (strpbrk(base, ",\"\\"))
        return err_set(err, ERR_INVALID, "%s: a runtime folder's path must not hold a comma, a quote or a backslash", base);
    if (stat(vm_dir, &st) != 0)
        return err_sys(err, errno, "stat %s", vm_dir);
    AUTO_FREE char *dir =
        string_printf("%s/%" PRIx64 "-%" PRIx64, base, (uint64_t)st.st_dev, (uint64_t)st.st_ino);
    if (!dir)
        return err_oom(err);
    if (strlen(dir) + SOCKET_NAME_ROOM > SOCKET_PATH_MAX)
        return err_set(err, ERR_INVALID, "%s: too long for the paths of sockets in it (at most %d bytes)", base,
                       SOCKET_PATH_MAX - SOCKET_NAME_ROOM - 34);
    *ret_base = TAKE(base);
    *ret_dir = TAKE(dir);
    return true;
}

bool runtime_dir_path(const char *vm_dir, char **ret_dir, struct err *err)
{
    AUTO_FREE char *base = NULL;

    return dir_name(vm_dir, &base, ret_dir, err);
}

bool runtime_dir(const char *vm_dir, char **ret_dir, struct err *err)
{
    AUTO_FREE char *base = NULL;
    AUTO_FREE char *dir = NULL;

    if (!dir_name(vm_dir, &base, &dir, err) || !own_dir(base, err) || !own_dir(dir, err))
        return false;
    *ret_dir = TAKE(dir);
    return true;
}

/* Always in the same place: whoever looks next must find it. */
static bool named_dir(const char *name, char **ret_dir, struct err *err)
{
    AUTO_FREE char *base = base_dir(/* for_processes= */ false);
    AUTO_FREE char *dir = base ? path_join(base, name) : NULL;

    if (!dir)
        return err_oom(err);
    if (!own_dir(base, err) || !own_dir(dir, err))
        return false;
    *ret_dir = TAKE(dir);
    return true;
}

bool runtime_dirty_dir(char **ret_dir, struct err *err)
{
    return named_dir("dirty", ret_dir, err);
}

bool runtime_guids_dir(char **ret_dir, struct err *err)
{
    return named_dir("guids", ret_dir, err);
}

bool runtime_process_dir(const char *dir, char **ret_dir, struct err *err)
{
    for (unsigned number = 0; number < 1000; number++) {
        AUTO_FREE char *path = string_printf("%s/%u", dir, number);
        if (!path)
            return err_oom(err);
        if (mkdir(path, 0700) == 0) {
            *ret_dir = TAKE(path);
            return true;
        }
        if (errno != EEXIST)
            return err_sys(err, errno, "make folder %s", path);
    }
    return err_set(err, ERR_INTERNAL, "%s: a thousand process folders are left in it", dir);
}

static int remove_entry(void *context, const char *name)
{
    AUTO_FREE char *path = path_join(context, name);

    if (path)
        unlink(path);
    return 0;
}

void runtime_remove(const char *process_dir)
{
    struct err ignored;

    (void)!io_list(&io_real, process_dir, remove_entry, (void *)process_dir, &ignored);
    rmdir(process_dir);
}

static bool is_process_dir(const char *name)
{
    return name[strspn(name, "0123456789")] == '\0';
}

struct sweep {
    const char *dir;
    const char *const *kept;
    size_t count;
};

static int sweep_entry(void *context, const char *name)
{
    const struct sweep *sweep = context;
    AUTO_FREE char *path = path_join(sweep->dir, name);

    if (!path || !is_process_dir(name))
        return 0;
    for (size_t i = 0; i < sweep->count; i++)
        if (strcmp(path, sweep->kept[i]) == 0)
            return 0;
    runtime_remove(path);
    return 0;
}

void runtime_sweep(const char *dir, const char *const *kept, size_t count)
{
    struct sweep sweep = {.dir = dir, .kept = kept, .count = count};
    struct err ignored;

    (void)!io_list(&io_real, dir, sweep_entry, &sweep, &ignored);
}
