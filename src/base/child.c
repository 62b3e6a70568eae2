#include "child.h"

#include "auto.h"
#include "buf.h"
#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define FDS_MAX       22
#define LOOK_EVERY_MS 100

bool child_is_program(const char *path)
{
    struct stat status;

    return stat(path, &status) == 0 && S_ISREG(status.st_mode) && access(path, X_OK) == 0;
}

char *child_find_program(const char *name)
{
    const char *path = getenv("PATH");

    for (const char *at = path ? path : "/usr/bin:/bin"; *at;) {
        size_t length = strcspn(at, ":");
        char *candidate = string_printf("%.*s/%s", (int)length, at, name);
        if (candidate && at[0] == '/' && child_is_program(candidate))
            return candidate;
        free(candidate);
        at += length + (at[length] == ':');
    }
    return NULL;
}

/* --- starting --- */

/* Every descriptor moves above all target numbers first, so that no dup2 in the child lands on one still
 * needed. */
static bool fds_lift(const int *fds, size_t count, int *lifted, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        lifted[i] = -1;
        if (fds[i] >= 0 && (lifted[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, CHILD_FIRST_FD + FDS_MAX)) < 0) {
            int error = errno;
            for (size_t j = 0; j < i; j++)
                auto_close(&lifted[j]);
            return err_sys(err, error, "dup of a descriptor for a program");
        }
    }
    return true;
}

/* In the child, where only what a signal handler may do is allowed. fds: output, error, then those that are
 * given under numbers. Returns only if it fails, with errno. */
static void become(const struct child *child, const int *fds, size_t count)
{
    sigset_t none;
    int null_fd = open("/dev/null", O_RDONLY | O_CLOEXEC);

    sigemptyset(&none);
    for (int number = 1; number < NSIG; number++)
        signal(number, SIG_DFL);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    if (null_fd < 0 || dup2(null_fd, 0) < 0 || dup2(fds[0], 1) < 0 || dup2(fds[1], 2) < 0 ||
        (child->dies_with_us && prctl(PR_SET_PDEATHSIG, SIGKILL) != 0))
        return;
    for (size_t i = 2; i < count; i++) {
        int number = CHILD_FIRST_FD + (int)i - 2;
        if (fds[i] < 0) /* an own descriptor of that number must not slip through */
            close(number);
        else if (dup2(fds[i], number) < 0)
            return;
    }
    /* Not closed here: the pipe of the report is among them. */
    if (close_range(CHILD_FIRST_FD + (unsigned)count - 2, ~0U, CLOSE_RANGE_CLOEXEC) == 0 &&
        chdir("/") == 0) /* keeps no file system busy */
        execv(child->argv[0], child->argv);
}

static bool spawn(const struct child *child, const int *fds, size_t count, pid_t *ret_pid, int *ret_error)
{
    int report[2], error = 0;

    if (pipe2(report, O_CLOEXEC) != 0)
        return (*ret_error = errno) == 0;
    AUTO_FD int read_end = report[0];
    AUTO_FD int write_end = fcntl(report[1], F_DUPFD_CLOEXEC, CHILD_FIRST_FD + FDS_MAX);
    close(report[1]);
    pid_t pid = write_end < 0 ? -1 : fork();
    if (pid < 0)
        return (*ret_error = errno) == 0;
    if (pid == 0) {
        become(child, fds, count);
        error = errno;
        (void)!write(write_end, &error, sizeof error);
        _exit(127);
    }
    close(TAKE_FD(write_end));
    /* What is read tells that it did not become the program; the end of the pipe, that it did. */
    while (read(read_end, &error, sizeof error) < 0 && errno == EINTR)
        ;
    while (error != 0 && waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    *ret_error = error;
    *ret_pid = pid;
    return error == 0;
}

bool child_start(const struct child *child, pid_t *ret_pid, struct err *err)
{
    int all[FDS_MAX] = {child->output_fd, child->error_fd}, lifted[FDS_MAX], error;
    size_t count = child->fd_count + 2;

    if (count > FDS_MAX)
        return err_set(err, ERR_INTERNAL, "too many descriptors for a program");
    for (size_t i = 2; i < count; i++)
        all[i] = child->fds[i - 2];
    if (!fds_lift(all, count, lifted, err))
        return false;
    bool started = spawn(child, lifted, count, ret_pid, &error);
    for (size_t i = 0; i < count; i++)
        auto_close(&lifted[i]);
    return started || err_set(err, ERR_QEMU, "%s cannot be started: %s", child->argv[0], strerror(error));
}

/* --- running to the end --- */

struct run {
    int read_end;
    child_take_fn *take;
    void *context;
    const struct progress *progress;
    int64_t deadline_ms; /* -1: none */
};

static bool may_go_on(const struct run *run, struct err *err)
{
    if (progress_cancelled(run->progress))
        return err_set(err, ERR_CANCELLED, "cancelled");
    return run->deadline_ms < 0 || clock_ms() < run->deadline_ms || err_set(err, ERR_TIMEOUT, "it does not end");
}

/* Until there is something to read. */
static bool wait_output(const struct run *run, struct err *err)
{
    for (;;) {
        struct pollfd poll_fd = {.fd = run->read_end, .events = POLLIN};
        if (!may_go_on(run, err))
            return false;
        if (poll(&poll_fd, 1, LOOK_EVERY_MS) > 0)
            return true;
    }
}

static bool output_read(const struct run *run, struct err *err)
{
    char bytes[4096];

    for (;;) {
        if (!wait_output(run, err))
            return false;
        ssize_t count = read(run->read_end, bytes, sizeof bytes);
        if (count < 0 && errno == EINTR)
            continue;
        if (count <= 0)
            return count == 0 || err_sys(err, errno, "read its output");
        if (!run->take(run->context, bytes, (size_t)count, err))
            return false;
    }
}

/* One that has closed its output may still run. */
static bool wait_end(const struct run *run, pid_t pid, struct err *err)
{
    for (unsigned wait_us = 500;; wait_us = wait_us < LOOK_EVERY_MS * 500U ? wait_us * 2 : wait_us) {
        siginfo_t info = {0};
        if (waitid(P_PID, (id_t)pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 && info.si_pid != 0)
            return true;
        if (!may_go_on(run, err))
            return false;
        usleep(wait_us);
    }
}

bool child_run(const struct child *child, child_take_fn *take, void *context, const struct progress *progress,
               int limit_ms, int *ret_ended, struct err *err)
{
    int ends[2], status;
    pid_t pid;

    if (pipe2(ends, O_CLOEXEC) != 0)
        return err_sys(err, errno, "pipe");
    AUTO_FD int read_end = ends[0];
    struct child piped = *child;
    piped.output_fd = ends[1];
    if (piped.error_fd < 0)
        piped.error_fd = ends[1];
    bool started = child_start(&piped, &pid, err);
    close(ends[1]);
    if (!started)
        return false;
    struct run run = {.read_end = read_end,
                      .take = take,
                      .context = context,
                      .progress = progress,
                      .deadline_ms = limit_ms < 0 ? -1 : clock_ms() + limit_ms};
    bool ok = output_read(&run, err) && wait_end(&run, pid, err);
    if (!ok)
        kill(child->kills_group ? -pid : pid, SIGKILL); /* our child, not yet waited for: the number is its own */
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!ok)
        return err_prefix(err, "%s", child->argv[0]);
    *ret_ended = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
}
