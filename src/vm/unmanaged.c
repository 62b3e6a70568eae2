/* A machine that is alive without its worker: how to end it.
 *
 * What says that it is alive is that it has the VM's lock file open, inherited from the worker; no record could be as true. Commands that
 * look at the lock have it open too, for a moment: QEMU is told from them by its command line, which names sockets in the VM's runtime
 * directory. */
#include "vm.h"

#include "auto.h"
#include "buf.h"
#include "file.h"
#include "runtime.h"
#include "store.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <time.h>

#define END_TIMEOUT_MS    10000
#define LOOK_EVERY_MS     20
#define COMMAND_LINE_MAX  (256U << 10)

struct end_scan {
    const char *sockets; /* the runtime directory with a slash behind it */
    dev_t device;        /* of the lock file */
    ino_t inode;
    unsigned ended;
};

static int find_lock(void *context, const char *name)
{
    const char **found = context;
    size_t length = strlen(name);

    if (length > 5 && strcmp(name + length - 5, ".lock") == 0 && !*found)
        *found = strdup(name);
    return 0;
}

static bool lock_identify(const char *vm_dir, struct end_scan *scan, struct err *err)
{
    AUTO_FREE char *dir = path_join(vm_dir, "Virtual Machines");
    AUTO_FREE char *name = NULL;
    struct stat st;

    if (!dir)
        return err_oom(err);
    if (!io_list(&io_real, dir, find_lock, &name, err))
        return false;
    AUTO_FREE char *path = name ? path_join(dir, name) : NULL;
    if (!path)
        return err_set(err, ERR_NOT_FOUND, "%s: there is no lock file in it", dir);
    if (stat(path, &st) != 0)
        return err_sys(err, errno, "stat %s", path);
    scan->device = st.st_dev;
    scan->inode = st.st_ino;
    return true;
}

static bool has_lock_open(const struct end_scan *scan, const char *pid)
{
    AUTO_FREE char *dir_path = string_printf("/proc/%s/fd", pid);
    AUTO_DIR DIR *dir = dir_path ? opendir(dir_path) : NULL;
    const struct dirent *entry;
    struct stat st;

    while (dir && (entry = readdir(dir)))
        if (fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 && st.st_dev == scan->device && st.st_ino == scan->inode)
            return true;
    return false;
}

static bool names_sockets(const struct end_scan *scan, const char *pid)
{
    AUTO_FREE char *path = string_printf("/proc/%s/cmdline", pid);
    AUTO_FREE char *line = malloc(COMMAND_LINE_MAX);
    AUTO_IO struct io_file *file = NULL;
    size_t length;
    struct err ignored;

    return path && line && io_open(&io_real, path, IO_READ_ONLY, &file, &ignored) &&
           io_read_some(file, 0, line, COMMAND_LINE_MAX, &length, &ignored) &&
           memmem(line, length, scan->sockets, strlen(scan->sockets));
}

/* Looked at behind pidfd_open(): the number cannot have become another process's in between. */
static int end_if_ours(void *context, const char *name)
{
    struct end_scan *scan = context;

    if (name[strspn(name, "0123456789")] != '\0')
        return 0;
    AUTO_FD int pidfd = pidfd_open(atoi(name), 0);
    if (pidfd < 0 || !has_lock_open(scan, name) || !names_sockets(scan, name))
        return 0;
    if (pidfd_send_signal(pidfd, SIGKILL, NULL, 0) != 0)
        return 0;
    struct pollfd ended = {.fd = pidfd, .events = POLLIN};
    scan->ended += poll(&ended, 1, END_TIMEOUT_MS) > 0;
    return 0;
}

bool vm_end_unmanaged(const char *vm_dir, struct err *err)
{
    AUTO_FREE char *dir = NULL;
    enum store_lock_state state;
    struct store_owner owner;
    struct end_scan scan = {0};

    if (!runtime_dir(vm_dir, &dir, err) || !lock_identify(vm_dir, &scan, err))
        return false;
    AUTO_FREE char *sockets = string_printf("%s/", dir);
    if (!sockets)
        return err_oom(err);
    scan.sockets = sockets;
    /* Again and again: a worker that died while it started QEMU leaves a child that becomes QEMU only now. */
    for (unsigned waited_ms = 0; waited_ms < END_TIMEOUT_MS; waited_ms += LOOK_EVERY_MS) {
        if (!io_list(&io_real, "/proc", end_if_ours, &scan, err) || !store_probe(vm_dir, &state, &owner, err))
            return false;
        if (state != STORE_UNMANAGED)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = LOOK_EVERY_MS * 1000000L}, NULL);
    }
    return err_set(err, ERR_STATE, "%s: its guest is alive, but %s of its processes could be ended from this host",
                   vm_dir, scan.ended ? "not all" : "none");
}
