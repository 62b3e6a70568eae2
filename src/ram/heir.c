#include "heir.h"

#include "auto.h"
#include "child.h"

#include <errno.h>
#include <fcntl.h>
#include <sys/wait.h>
#include <unistd.h>

/* A program of its own: a mere copy of this process would keep what it has mapped, with its locks, and the rings of its disks alive.
 * The stream is opened anew, because here it may be non-blocking. */
static const char *const READ_ON[] = {"/bin/sh", "-c", "read -r _ <&3 || exec cat </dev/fd/4 >/dev/null", NULL};

bool heir_start(int stream_fd, struct heir *ret_heir, struct err *err)
{
    AUTO_FD int null_fd = open("/dev/null", O_WRONLY | O_CLOEXEC);
    int ends[2];

    if (null_fd < 0 || pipe2(ends, O_CLOEXEC) != 0)
        return err_sys(err, errno, "make a pipe");
    AUTO_FD int theirs = ends[0];
    AUTO_FD int ours = ends[1];
    const int fds[] = {theirs, stream_fd};
    const struct child child = {
        .argv = (char *const *)(uintptr_t)READ_ON, .output_fd = null_fd, .error_fd = null_fd, .fds = fds, .fd_count = 2};
    struct heir heir;
    if (!child_start(&child, &heir.pid, err))
        return err_prefix(err, "start a process that reads on if this one dies");
    heir.control_fd = TAKE_FD(ours);
    *ret_heir = heir;
    return true;
}

void heir_end(struct heir *heir)
{
    if (heir->pid <= 0)
        return;
    (void)!write(heir->control_fd, "\n", 1);
    close(heir->control_fd);
    while (waitpid(heir->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    heir->pid = 0;
}
