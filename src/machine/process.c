#include "machine_private.h"

#include "auto.h"
#include "buf.h"
#include "child.h"
#include "clock.h"
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>
#include <unistd.h>

#define OUTPUT_MAX_BYTES (1U << 20)
#define OUTPUT_LIMIT_MS  10000
#define KILL_LIMIT_MS    10000

/* --- a short run --- */

static bool output_take(void *context, const char *bytes, size_t length, struct err *err)
{
    struct buf *output = context;
    if (!buf_append(output, bytes, length))
        return err_oom(err);
    return output->length <= OUTPUT_MAX_BYTES || err_set(err, ERR_QEMU, "it writes without end");
}

bool process_output(char *const *argv, char **ret_text, int *ret_ended, struct err *err)
{
    AUTO_BUF struct buf output = BUF_INIT;
    const struct child child = {.argv = argv, .error_fd = -1};
    int ended;
    if (!child_run(&child, output_take, &output, NULL, OUTPUT_LIMIT_MS, &ended, err))
        return false;
    char *text = buf_append(&output, "", 0) ? buf_take_string(&output) : NULL;
    if (!text)
        return err_oom(err);
    *ret_text = text;
    *ret_ended = ended;
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

void machine_kill_start(struct machine *machine)
{
    if (machine && machine->pidfd >= 0)
        pidfd_send_signal(machine->pidfd, SIGKILL, NULL, 0);
}

void machine_kill(struct machine *machine)
{
    if (!machine)
        return;
    machine_kill_start(machine);
    if (machine->pidfd >= 0)
        wait_end(machine->pidfd, KILL_LIMIT_MS);
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

/* In order QEMU removes the sockets that it listens at. */
bool machine_dir_ended_in_order(const char *dir)
{
    AUTO_FREE char *path = path_join(dir, MACHINE_MONITOR_SOCKET);

    return path && access(path, F_OK) != 0;
}

static void words_put(const char *dir, const char *how, char *text, size_t size)
{
    char words[401];

    log_tail(dir, words, sizeof(words));
    drop_program_name(words);
    snprintf(text, size, words[0] ? "%s: %s" : "%s", how, words);
}

void machine_dir_last_words(const char *dir, char *text, size_t size)
{
    words_put(dir, machine_dir_ended_in_order(dir) ? "QEMU ended" : "QEMU was killed or crashed", text, size);
}

bool machine_ended_in_order(struct machine *machine)
{
    wait_end(machine->pidfd, 1000);
    reap(machine);
    if (!machine->reaped)
        return machine_dir_ended_in_order(machine->dir);
    return machine->how.si_code == CLD_EXITED && machine->how.si_status == 0;
}

void machine_last_words(struct machine *machine, char *text, size_t size)
{
    char how[64];
    wait_end(machine->pidfd, 1000);
    reap(machine);
    if (!machine->reaped && !wait_end(machine->pidfd, 0)) {
        words_put(machine->dir, "QEMU is still there", text, size);
        return;
    }
    if (!machine->reaped) {
        machine_dir_last_words(machine->dir, text, size);
        return;
    }
    if (machine->how.si_code == CLD_EXITED)
        snprintf(how, sizeof(how), "QEMU ended with status %d", machine->how.si_status);
    else
        snprintf(how, sizeof(how), "QEMU was ended by signal %d (%s)", machine->how.si_status,
                 strsignal(machine->how.si_status));
    words_put(machine->dir, how, text, size);
}
