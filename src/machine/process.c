#include "machine_private.h"

#include "auto.h"
#include "buf.h"
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <spawn.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

#define FDS_MAX          20
#define OUTPUT_MAX_BYTES (1U << 20)
#define OUTPUT_LIMIT_MS  10000
#define KILL_LIMIT_MS    10000

/* --- starting --- */

/* Every descriptor moves above all target numbers first, so that no dup2 in the child lands on one still
 * needed. */
static bool fds_lift(const int *fds, size_t count, int *lifted, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        lifted[i] = -1;
        if (fds[i] >= 0 && (lifted[i] = fcntl(fds[i], F_DUPFD_CLOEXEC, PROCESS_FIRST_FD + FDS_MAX)) < 0) {
            int error = errno;
            for (size_t j = 0; j < i; j++)
                auto_close(&lifted[j]);
            return err_sys(err, error, "dup of a descriptor for QEMU");
        }
    }
    return true;
}

static int actions_fill(posix_spawn_file_actions_t *actions, int output_fd, const int *fds, size_t count)
{
    int error = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0);
    if (!error)
        error = posix_spawn_file_actions_adddup2(actions, output_fd, 1);
    if (!error)
        error = posix_spawn_file_actions_adddup2(actions, output_fd, 2);
    for (size_t i = 0; !error && i < count; i++) {
        int number = PROCESS_FIRST_FD + (int)i;
        if (fds[i] >= 0)
            error = posix_spawn_file_actions_adddup2(actions, fds[i], number);
        else /* an own descriptor of that number must not slip through */
            error = posix_spawn_file_actions_addopen(actions, number, "/dev/null", O_RDONLY | O_CLOEXEC, 0);
    }
    if (!error)
        error = posix_spawn_file_actions_addclosefrom_np(actions, PROCESS_FIRST_FD + (int)count);
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

static int spawn(char *const *argv, int output_fd, const int *fds, size_t count, pid_t *ret_pid)
{
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attributes;
    int error = posix_spawn_file_actions_init(&actions);
    if (error)
        return error;
    error = posix_spawnattr_init(&attributes);
    if (!error) {
        error = actions_fill(&actions, output_fd, fds, count);
        if (!error)
            error = attributes_fill(&attributes);
        if (!error)
            error = posix_spawn(ret_pid, argv[0], &actions, &attributes, argv, environ);
        posix_spawnattr_destroy(&attributes);
    }
    posix_spawn_file_actions_destroy(&actions);
    return error;
}

bool process_start(char *const *argv, int output_fd, const int *fds, size_t fd_count, pid_t *ret_pid,
                   struct err *err)
{
    int all[FDS_MAX + 1], lifted[FDS_MAX + 1];
    if (fd_count > FDS_MAX)
        return err_set(err, ERR_INTERNAL, "too many descriptors for a process");
    for (size_t i = 0; i < fd_count; i++)
        all[i] = fds[i];
    all[fd_count] = output_fd;
    if (!fds_lift(all, fd_count + 1, lifted, err))
        return false;
    int error = spawn(argv, lifted[fd_count], lifted, fd_count, ret_pid);
    for (size_t i = 0; i <= fd_count; i++)
        auto_close(&lifted[i]);
    if (error)
        return err_set(err, ERR_QEMU, "%s cannot be started: %s", argv[0], strerror(error));
    return true;
}

/* --- a short run --- */

static bool output_read(int fd, struct buf *output, struct err *err)
{
    for (int64_t deadline_ms = clock_ms() + OUTPUT_LIMIT_MS;;) {
        int64_t left_ms = deadline_ms - clock_ms();
        struct pollfd poll_fd = {.fd = fd, .events = POLLIN};
        int ready = left_ms > 0 ? poll(&poll_fd, 1, (int)left_ms) : 0;
        if (ready == 0)
            return err_set(err, ERR_TIMEOUT, "it does not end");
        if (ready < 0)
            continue;
        uint8_t *room = buf_reserve(output, 4096);
        if (!room)
            return err_oom(err);
        ssize_t count = read(fd, room, 4096);
        if (count <= 0)
            return count == 0 || err_sys(err, errno, "read its output");
        output->length += (size_t)count;
        if (output->length > OUTPUT_MAX_BYTES)
            return err_set(err, ERR_QEMU, "it writes without end");
    }
}

bool process_output(char *const *argv, char **ret_text, int *ret_ended, struct err *err)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        return err_sys(err, errno, "pipe");
    AUTO_FD int read_end = ends[0];
    pid_t pid;
    bool started = process_start(argv, ends[1], NULL, 0, &pid, err);
    close(ends[1]);
    if (!started)
        return false;
    AUTO_BUF struct buf output = BUF_INIT;
    bool ok = output_read(read_end, &output, err);
    if (!ok)
        kill(pid, SIGKILL); /* our child, not yet waited for: the number is its own */
    int status;
    while (waitpid(pid, &status, 0) < 0 && errno == EINTR)
        ;
    if (!ok)
        return err_prefix(err, "%s", argv[0]);
    char *text = buf_take_string(&output);
    if (!text)
        return err_oom(err);
    *ret_text = text;
    *ret_ended = WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
    return true;
}

/* --- ending --- */

static bool wait_end(int pidfd, int limit_ms)
{
    int64_t deadline_ms = clock_ms() + limit_ms;
    struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN};
    for (;;) {
        int64_t left_ms = deadline_ms - clock_ms();
        int ready = poll(&poll_fd, 1, left_ms > 0 ? (int)left_ms : 0);
        if (ready > 0 || (ready == 0 && left_ms <= 0))
            return ready > 0;
    }
}

/* Keeps how it ended, if it has; only its parent can know. */
static void reap(struct machine *machine)
{
    if (!machine->reaped && waitid(P_PIDFD, (id_t)machine->pidfd, &machine->how, WEXITED | WNOHANG) == 0 &&
        machine->how.si_pid != 0)
        machine->reaped = true;
}

void machine_release(struct machine *machine)
{
    if (!machine)
        return;
    if (machine->pidfd >= 0) {
        reap(machine);
        close(machine->pidfd);
    }
    qmp_free(machine->qmp);
    free(machine->dir);
    free(machine);
}

void machine_kill(struct machine *machine)
{
    if (!machine)
        return;
    if (machine->pidfd >= 0) {
        pidfd_send_signal(machine->pidfd, SIGKILL, NULL, 0);
        wait_end(machine->pidfd, KILL_LIMIT_MS);
    }
    machine_release(machine);
}

/* --- last words --- */

/* The last lines of a log, at most size - 1 bytes, as one line. */
static void log_tail(const char *dir, char *text, size_t size)
{
    text[0] = '\0';
    AUTO_FREE char *path = path_join(dir, "qemu.log");
    AUTO_FD int fd = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    off_t end = fd < 0 ? 0 : lseek(fd, 0, SEEK_END);
    off_t start = end > (off_t)size - 1 ? end - ((off_t)size - 1) : 0;
    ssize_t count = end > 0 ? pread(fd, text, size - 1, start) : 0;
    if (count <= 0)
        return;
    text[count] = '\0';
    while (count > 0 && strchr("\n\r ", text[count - 1]))
        text[--count] = '\0';
    char *line = start > 0 ? strchr(text, '\n') : NULL; /* the first line is cut off: leave it out */
    if (line)
        memmove(text, line + 1, strlen(line + 1) + 1);
    for (char *at = text; (at = strpbrk(at, "\n\r"));)
        *at = ' ';
}

/* "qemu-system-x86_64: " in front of every line says nothing. */
static void drop_program_name(char *text)
{
    static const char name[] = "qemu-system-x86_64: ";
    for (char *at; (at = strstr(text, name));)
        memmove(at, at + strlen(name), strlen(at + strlen(name)) + 1);
}

void machine_last_words(struct machine *machine, char *text, size_t size)
{
    char words[401], how[64] = "QEMU ended";
    wait_end(machine->pidfd, 1000);
    reap(machine);
    if (!machine->reaped && !wait_end(machine->pidfd, 0))
        snprintf(how, sizeof(how), "QEMU is still there");
    else if (machine->reaped && machine->how.si_code == CLD_EXITED)
        snprintf(how, sizeof(how), "QEMU ended with status %d", machine->how.si_status);
    else if (machine->reaped)
        snprintf(how, sizeof(how), "QEMU was ended by signal %d (%s)", machine->how.si_status,
                 strsignal(machine->how.si_status));
    log_tail(machine->dir, words, sizeof(words));
    drop_program_name(words);
    snprintf(text, size, words[0] ? "%s: %s" : "%s", how, words);
}
