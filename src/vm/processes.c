#include "processes.h"

#include "auto.h"
#include "buf.h"
#include "file.h"

#include <dirent.h>
#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>

#define END_TIMEOUT_MS   10000
#define COMMAND_LINE_MAX (256U << 10)
#define FDINFO_MAX       4096
#define ALIVE_RANGE      " 1 1" /* byte 1, at the end of a line of fdinfo */

struct scan {
    const char *runtime_dir;
    dev_t device; /* of the lock file */
    ino_t inode;
    struct vm_processes found;
};

/* --- the lock --- */

static int lock_note(void *context, const char *name)
{
    char **found = context;
    size_t length = strlen(name);

    if (length > 5 && strcmp(name + length - 5, ".lock") == 0 && !*found)
        *found = strdup(name);
    return 0;
}

static bool lock_identify(const char *vm_dir, struct scan *scan, struct err *err)
{
    AUTO_FREE char *dir = path_join(vm_dir, "Virtual Machines");
    AUTO_FREE char *name = NULL;
    struct stat st;

    if (!dir)
        return err_oom(err);
    if (!io_list(&io_real, dir, lock_note, &name, err))
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

/* The beginning of a file below /proc as text; its length, 0 if it cannot be read. */
static size_t proc_read(const char *pid, const char *name, char *text, size_t size)
{
    AUTO_FREE char *path = string_printf("/proc/%s/%s", pid, name);
    AUTO_IO struct io_file *file = NULL;
    size_t length = 0;
    struct err ignored;

    if (!path || !io_open(&io_real, path, IO_READ_ONLY, &file, &ignored) ||
        !io_read_some(file, 0, text, size - 1, &length, &ignored))
        length = 0;
    text[length] = '\0';
    return length;
}

/* "lock:\t1: OFDLCK ADVISORY  READ -1 fe:00:1234 1 1" */
static bool has_alive_lock(const char *pid, const char *fd)
{
    char name[300], text[FDINFO_MAX];
    size_t range = strlen(ALIVE_RANGE);

    snprintf(name, sizeof name, "fdinfo/%s", fd);
    proc_read(pid, name, text, sizeof text);
    for (char *line = strstr(text, "lock:"); line; line = strstr(line, "lock:")) {
        size_t length = strcspn(line, "\n");
        const char *kind = strstr(line, "OFDLCK");
        if (kind && kind < line + length && length > range && strncmp(line + length - range, ALIVE_RANGE, range) == 0)
            return true;
        line += length;
    }
    return false;
}

static bool keeps_alive(const struct scan *scan, const char *pid)
{
    AUTO_FREE char *dir_path = string_printf("/proc/%s/fd", pid);
    AUTO_DIR DIR *dir = dir_path ? opendir(dir_path) : NULL;
    const struct dirent *entry;
    struct stat st;

    while (dir && (entry = readdir(dir)))
        if (fstatat(dirfd(dir), entry->d_name, &st, 0) == 0 && st.st_dev == scan->device && st.st_ino == scan->inode &&
            has_alive_lock(pid, entry->d_name))
            return true;
    return false;
}

/* --- whose process directory --- */

/* The number in "<runtime>/NUMBER/qmp.sock" of a command line; owned, NULL: there is none. */
static char *process_dir(const struct scan *scan, const char *pid)
{
    static const char MONITOR[] = "/qmp.sock";
    AUTO_FREE char *line = malloc(COMMAND_LINE_MAX);
    AUTO_FREE char *prefix = string_printf("%s/", scan->runtime_dir);

    if (!line || !prefix)
        return NULL;
    size_t length = proc_read(pid, "cmdline", line, COMMAND_LINE_MAX), prefix_length = strlen(prefix);
    const char *at = line, *end = line + length;
    while ((at = memmem(at, (size_t)(end - at), prefix, prefix_length))) {
        size_t digits = strspn(at + prefix_length, "0123456789");
        if (digits > 0 && strncmp(at + prefix_length + digits, MONITOR, strlen(MONITOR)) == 0)
            return strndup(at, prefix_length + digits);
        at += prefix_length;
    }
    return NULL;
}

uint64_t vm_process_started(pid_t pid)
{
    char number[16], text[1024];
    unsigned long long started = 0;

    snprintf(number, sizeof number, "%ld", (long)pid);
    proc_read(number, "stat", text, sizeof text);
    const char *at = strrchr(text, ')'); /* the name before it may hold anything */
    for (unsigned field = 2; at && field < 22; field++)
        at = strchr(at + 1, ' ');
    return at && sscanf(at, " %llu", &started) == 1 ? started : 0;
}

/* Looked at behind pidfd_open(): the number cannot have become another process's in between. */
static int process_look(void *context, const char *name)
{
    struct scan *scan = context;
    struct vm_processes *found = &scan->found;
    pid_t pid = name[strspn(name, "0123456789")] == '\0' ? atoi(name) : 0;

    if (pid <= 0 || pid == getpid())
        return 0;
    AUTO_FD int pidfd = pidfd_open(pid, 0);
    if (pidfd < 0 || !keeps_alive(scan, name))
        return 0;
    struct vm_process *grown = reallocarray(found->items, found->count + 1, sizeof *grown);
    if (!grown)
        return ENOMEM;
    found->items = grown;
    grown[found->count++] = (struct vm_process){
        .pid = pid, .pidfd = TAKE_FD(pidfd), .started = vm_process_started(pid), .dir = process_dir(scan, name)};
    return 0;
}

bool vm_processes_find(const char *vm_dir, const char *runtime_dir, struct vm_processes *ret_processes,
                       struct err *err)
{
    struct scan scan = {.runtime_dir = runtime_dir};

    if (!lock_identify(vm_dir, &scan, err))
        return false;
    if (!io_list(&io_real, "/proc", process_look, &scan, err)) {
        vm_processes_done(&scan.found);
        return false;
    }
    *ret_processes = scan.found;
    return true;
}

void vm_processes_done(struct vm_processes *processes)
{
    for (size_t i = 0; i < processes->count; i++) {
        if (processes->items[i].pidfd >= 0)
            close(processes->items[i].pidfd);
        free(processes->items[i].dir);
    }
    free(processes->items);
    *processes = (struct vm_processes){0};
}

bool vm_process_end(const struct vm_process *process)
{
    struct pollfd ended = {.fd = process->pidfd, .events = POLLIN};

    return (pidfd_send_signal(process->pidfd, SIGKILL, NULL, 0) == 0 || errno == ESRCH) &&
           poll(&ended, 1, END_TIMEOUT_MS) > 0;
}
