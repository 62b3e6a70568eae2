#include "child.h"

#include "auto.h"
#include "buf.h"
#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define FDS_MAX      22
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

/* fds: output, error, then those that are given under numbers. */
static int actions_fill(posix_spawn_file_actions_t *actions, const int *fds, size_t count)
{
    int error = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);
    if (!error)
        error = posix_spawn_file_actions_adddup2(actions, fds[0], 1);
    if (!error)
        error = posix_spawn_file_actions_adddup2(actions, fds[1], 2);
    for (size_t i = 2; !error && i < count; i++) {
        int number = CHILD_FIRST_FD + (int)i - 2;
        if (fds[i] >= 0)
            error = posix_spawn_file_actions_adddup2(actions, fds[i], number);
        else /* an own descriptor of that number must not slip through */
            error = posix_spawn_file_actions_addopen(actions, number, "/dev/null", O_RDONLY | O_CLOEXEC, 0);
    }
    if (!error)
        error = posix_spawn_file_actions_addclosefrom_np(actions, CHILD_FIRST_FD + (int)count - 2);
    if (!error)
        error = posix_spawn_file_actions_addchdir_np(actions, "/"); /* keeps no file system busy */
    return error;
}

static int attributes_fill(posix_spawnattr_t *attributes)
{
    sigset_t none, all;
    sigemptyset(&none);
    sigfillset(&all);
    int error = posix_spawnattr_setsigmask(attributes, &none);
    if (!error)
        error = posix_spawnattr_setsigdefault(attributes, &all);
    if (!error)
        error = posix_spawnattr_setflags(attributes,
                                         POSIX_SPAWN_SETSID | POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF);
    return error;
}

static int spawn(char *const *argv, const int *fds, size_t count, pid_t *ret_pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int error = posix_spawn_file_actions_init(&actions);
    if (error)
        return error;
    error = posix_spawnattr_init(&attributes);
    if (!error) {
        error = actions_fill(&actions, fds, count);
        if (!error)
            error = attributes_fill(&attributes);
        if (!error)
            error = posix_spawn(ret_pid, argv[0], &actions, &attributes, argv, environ);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

bool child_start(const struct child *child, pid_t *ret_pid, struct err *err)
{
    int all[FDS_MAX] = {child->output_fd, child->error_fd}, lifted[FDS_MAX];
    size_t count = child->fd_count + 2;

    if (count > FDS_MAX)
        return err_set(err, ERR_INTERNAL, "too many descriptors for a program");
    for (size_t i = 2; i < count; i++)
        all[i] = child->fds[i - 2];
    if (!fds_lift(all, count, lifted, err))
        return false;
    int error = spawn(child->argv, lifted, count, ret_pid);
    for (size_t i = 0; i < count; i++)
        auto_close(&lifted[i]);
    if (error)
        return err_set(err, ERR_QEMU, "%s cannot be started: %s", child->argv[0], strerror(error));
    return true;
}

/* --- running to the end --- */

struct run {
    int read_end;
    child_take_fn *take;
    void *context;
    const struct progress *progress;
    int64_t deadline_ms; /* -1: none */
};

/* Until there is something to read. */
static bool wait_output(const struct run *run, struct err *err)
{
    for (;;) {
        struct pollfd poll_fd = {.fd = run->read_end, .events = POLLIN};
        if (progress_cancelled(run->progress))
            return err_set(err, ERR_CANCELLED, "cancelled");
        if (run->deadline_ms >= 0 && clock_ms() >= run->deadline_ms)
            return err_set(err, ERR_TIMEOUT, "it does not end");
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
    bool ok = output_read(&run, err);
    if (!ok)
        kill(pid, SIGKILL); /* our child, not yet waited for: the number is its own */
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!ok)
        return err_prefix(err, "%s", child->argv[0]);
    *ret_ended = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
}
