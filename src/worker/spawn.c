#include "spawn.h"

#include "auto.h"
#include "buf.h"
#include "file.h"
#include "runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <linux/close_range.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#define CLIENT_FD 3 /* in the worker */

/* Beside this program, where it is installed (that is told from there too, so that what is installed can be moved), or
 * where it is built. */
static bool worker_find(char **ret_path, struct err *err)
{
    static const char *const PLACES[] = {"bough-worker", BOUGH_WORKER_INSTALLED, "../worker/bough-worker"};
    const char *set = getenv("BOUGH_WORKER");
    char self[4096];

    if (set && *set != '\0')
        return (*ret_path = strdup(set)) || err_oom(err);
    ssize_t length = readlink("/proc/self/exe", self, sizeof self - 1);
    if (length < 0)
        return err_sys(err, errno, "find this program");
    self[length] = '\0';
    AUTO_FREE char *dir = path_dir(self);
    for (size_t i = 0; dir && i < ARRAY_SIZE(PLACES); i++) {
        AUTO_FREE char *path = *PLACES[i] == '/' ? strdup(PLACES[i]) : path_join(dir, PLACES[i]);
        if (path && access(path, X_OK) == 0) {
            *ret_path = TAKE(path);
            return true;
        }
    }
    return err_set(err, ERR_NOT_FOUND, "bough-worker: is not beside %s", self);
}

_Noreturn static void worker_exec(const char *program, const char *vm_dir, int client_fd, int log_fd)
{
    char client_text[16];
    sigset_t none;

    sigemptyset(&none);
    sigprocmask(SIG_SETMASK, &none, NULL);
    setsid();
    int null_fd = open("/dev/null", O_RDWR | O_CLOEXEC);
    /* client_fd may be CLIENT_FD itself, and dup2 would then leave its close-on-exec flag on. */
    int client_high = fcntl(client_fd, F_DUPFD, 10);
    if (null_fd < 0 || client_high < 0 || dup2(null_fd, 0) < 0 || dup2(log_fd, 1) < 0 || dup2(log_fd, 2) < 0 ||
        dup2(client_high, CLIENT_FD) < 0 || chdir("/") != 0)
        _exit(126);
    close_range(CLIENT_FD + 1, ~0U, 0);
    snprintf(client_text, sizeof client_text, "%d", CLIENT_FD);
    execl(program, "bough-worker", "--vm", vm_dir, "--client", client_text, (char *)NULL);
    _exit(127);
}

/* Twice forked, so that it is no child of ours to wait for. */
static bool worker_start(const char *program, const char *vm_dir, int client_fd, int log_fd, struct err *err)
{
    int status;
    pid_t pid = fork();

    if (pid < 0)
        return err_sys(err, errno, "start a worker");
    if (pid == 0) {
        pid_t worker = fork();
        if (worker == 0)
            worker_exec(program, vm_dir, client_fd, log_fd);
        _exit(worker < 0);
    }
    if (waitpid(pid, &status, 0) < 0 || !WIFEXITED(status) || WEXITSTATUS(status) != 0)
        return err_set(err, ERR_NO_MEMORY, "start a worker: it could not be forked");
    return true;
}

bool worker_spawn(const char *vm_dir, int *ret_fd, struct err *err)
{
    AUTO_FREE char *program = NULL;
    AUTO_FREE char *dir = NULL;
    int ends[2];

    if (!worker_find(&program, err) || !runtime_dir(vm_dir, &dir, err))
        return false;
    AUTO_FREE char *log_path = path_join(dir, RUNTIME_WORKER_LOG);
    if (!log_path)
        return err_oom(err);
    AUTO_FD int log_fd = open(log_path, O_WRONLY | O_CREAT | O_APPEND | O_CLOEXEC, 0600);
    if (log_fd < 0)
        return err_sys(err, errno, "open %s", log_path);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return err_sys(err, errno, "make a socket pair");
    AUTO_FD int ours = ends[0];
    AUTO_FD int theirs = ends[1];
    if (!worker_start(program, vm_dir, theirs, log_fd, err))
        return false;
    *ret_fd = TAKE_FD(ours);
    return true;
}
