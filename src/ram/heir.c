#include "heir.h"

#include "auto.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <sys/wait.h>
#include <unistd.h>

#define READ_BYTES (64U << 10)

enum { CONTROL_FD, STREAM_FD, FIRST_OTHER_FD };

/* In a copy of a process with threads: system calls alone. Whatever else was open, locks above all, must not outlive it here. */
_Noreturn static void heir_run(int control_fd, int stream_fd)
{
    static char bytes[READ_BYTES];
    ssize_t length;

    if (dup2(control_fd, CONTROL_FD) < 0 || dup2(stream_fd, STREAM_FD) < 0)
        _exit(1);
    close_range(FIRST_OTHER_FD, ~0U, 0);
    while ((length = read(CONTROL_FD, bytes, 1)) < 0 && errno == EINTR)
        continue;
    if (length > 0)
        _exit(0);
    for (;;) {
        struct pollfd stream = {.fd = STREAM_FD, .events = POLLIN};
        poll(&stream, 1, -1);
        length = read(STREAM_FD, bytes, sizeof bytes);
        if (length == 0 || (length < 0 && errno != EINTR && errno != EAGAIN))
            _exit(0);
    }
}

bool heir_start(int stream_fd, struct heir *ret_heir, struct err *err)
{
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) != 0)
        return err_sys(err, errno, "make a pipe");
    AUTO_FD int theirs = ends[0];
    AUTO_FD int ours = ends[1];
    pid_t pid = fork();
    if (pid < 0)
        return err_sys(err, errno, "start a process that reads on if this one dies");
    if (pid == 0)
        heir_run(theirs, stream_fd);
    *ret_heir = (struct heir){.pid = pid, .control_fd = TAKE_FD(ours)};
    return true;
}

void heir_end(struct heir *heir)
{
    if (heir->pid <= 0)
        return;
    (void)!write(heir->control_fd, "", 1);
    close(heir->control_fd);
    while (waitpid(heir->pid, NULL, 0) < 0 && errno == EINTR)
        continue;
    heir->pid = 0;
}
