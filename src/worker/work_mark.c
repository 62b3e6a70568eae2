/* A mark is a file OPERATION.PID in the VM's runtime directory, which its process holds a flock on: it ends with the process. */
#include "work_mark.h"

#include "auto.h"
#include "buf.h"
#include "file.h"
#include "runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/pidfd.h>
#include <unistd.h>

#define MARK_PREFIX "work-"

void work_begin(const char *vm_dir, const char *operation, struct work_mark *ret_mark)
{
    AUTO_FREE char *dir = NULL;
    struct err ignored;

    *ret_mark = (struct work_mark){.fd = -1};
    if (!runtime_dir(vm_dir, &dir, &ignored))
        return;
    AUTO_FREE char *path = string_printf("%s/" MARK_PREFIX "%s.%ld", dir, operation, (long)getpid());
    AUTO_FD int fd = path ? open(path, O_RDWR | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600) : -1;
    if (fd < 0 || flock(fd, LOCK_EX | LOCK_NB) != 0)
        return;
    *ret_mark = (struct work_mark){.path = TAKE(path), .fd = TAKE_FD(fd)};
}

void work_end(struct work_mark *mark)
{
    if (!mark->path)
        return;
    unlink(mark->path);
    close(mark->fd);
    free(mark->path);
    *mark = (struct work_mark){.fd = -1};
}

static void report(void *context, const char *phase, uint64_t done, uint64_t total)
{
    const struct work_mark *mark = context;
    char text[24];

    if (mark->path && strcmp(phase, "merge") == 0 && done <= total) {
        int length = snprintf(text, sizeof text, "%020" PRIu64 "\n", total - done);
        (void)!pwrite(mark->fd, text, (size_t)length, 0); /* without it others see less */
    }
    progress_report(mark->progress, phase, done, total);
}

static bool is_cancelled(void *context)
{
    return progress_cancelled(((const struct work_mark *)context)->progress);
}

struct progress work_progress(struct work_mark *mark, const struct progress *progress)
{
    mark->progress = progress;
    return (struct progress){.report = report, .cancelled = is_cancelled, .context = mark};
}

struct cancelling {
    const char *dir;
    char *name;
    size_t size;
    bool found;
};

/* Its process holds the lock as long as it lives: asked again behind pidfd_open(), the number is no other's. */
static bool is_alive(int fd)
{
    if (flock(fd, LOCK_SH | LOCK_NB) != 0)
        return errno == EWOULDBLOCK;
    flock(fd, LOCK_UN);
    return false;
}

static int cancel_one(void *context, const char *file)
{
    struct cancelling *cancelling = context;
    const char *dot = strrchr(file, '.'), *operation = file + strlen(MARK_PREFIX);
    AUTO_FREE char *path = path_join(cancelling->dir, file);

    if (!path || !dot || strncmp(file, MARK_PREFIX, strlen(MARK_PREFIX)) != 0)
        return 0;
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW);
    AUTO_FD int pidfd = fd >= 0 ? pidfd_open(atoi(dot + 1), 0) : -1;
    if (fd >= 0 && !is_alive(fd))
        unlink(path); /* of one that was killed */
    else if (pidfd >= 0 && pidfd_send_signal(pidfd, SIGINT, NULL, 0) == 0) {
        snprintf(cancelling->name, cancelling->size, "%.*s", (int)(dot - operation), operation);
        cancelling->found = true;
    }
    return 0;
}

bool works_cancel(const char *vm_dir, char *name, size_t size)
{
    AUTO_FREE char *dir = NULL;
    struct err ignored;

    if (!runtime_dir(vm_dir, &dir, &ignored))
        return false;
    struct cancelling cancelling = {.dir = dir, .name = name, .size = size};
    (void)!io_list(&io_real, dir, cancel_one, &cancelling, &ignored);
    return cancelling.found;
}

struct left {
    const char *dir;
    uint64_t bytes;
    bool found;
};

static int left_read(void *context, const char *file)
{
    struct left *left = context;
    char text[24] = "", *end;

    if (strncmp(file, MARK_PREFIX, strlen(MARK_PREFIX)) != 0)
        return 0;
    AUTO_FREE char *path = path_join(left->dir, file);
    AUTO_FD int fd = path ? open(path, O_RDONLY | O_CLOEXEC | O_NOFOLLOW) : -1;
    if (fd < 0 || pread(fd, text, sizeof text - 1, 0) <= 0 || !is_alive(fd))
        return 0;
    left->bytes = strtoull(text, &end, 10);
    left->found |= *end == '\n';
    return 0;
}

bool works_merge_left(const char *vm_dir, uint64_t *ret_bytes)
{
    AUTO_FREE char *dir = NULL;
    struct err ignored;

    if (!runtime_dir_path(vm_dir, &dir, &ignored))
        return false;
    struct left left = {.dir = dir};
    (void)!io_list(&io_real, dir, left_read, &left, &ignored);
    *ret_bytes = left.bytes;
    return left.found;
}
