/* A mark is a file OPERATION.PID in the VM's runtime directory, which its process holds a flock on: it ends with the process. */
#include "work_mark.h"

#include "auto.h"
#include "buf.h"
#include "file.h"
#include "runtime.h"

#include <errno.h>
#include <fcntl.h>
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
