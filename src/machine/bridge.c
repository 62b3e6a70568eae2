/* TAP interfaces on a bridge, by QEMU's own set-uid helper. QEMU in its sandbox may not start programs, so
 * the helper is started here and its descriptor handed over. */
#include "machine_private.h"

#include "auto.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/wait.h>

#define HELPER_LIMIT_MS 10000

static const char *helper_path(void)
{
    static const char *const places[] = {"/usr/lib/qemu/qemu-bridge-helper",
                                         "/usr/libexec/qemu-bridge-helper", "/usr/lib/qemu-bridge-helper"};
    const char *given = getenv("BOUGH_BRIDGE_HELPER");
    if (given && given[0])
        return given;
    for (size_t i = 0; i < ARRAY_SIZE(places); i++)
        if (access(places[i], X_OK) == 0)
            return places[i];
    return NULL;
}

/* The descriptor that comes through the socket; -1 if the other end closes without one. */
static int fd_receive(int socket)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    char byte;
    struct iovec vector = {.iov_base = &byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &vector,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    struct pollfd poll_fd = {.fd = socket, .events = POLLIN};
    if (poll(&poll_fd, 1, HELPER_LIMIT_MS) <= 0 || recvmsg(socket, &message, MSG_CMSG_CLOEXEC) <= 0)
        return -1;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    int fd = -1;
    if (header && header->cmsg_level == SOL_SOCKET && header->cmsg_type == SCM_RIGHTS)
        memcpy(&fd, CMSG_DATA(header), sizeof(fd));
    return fd;
}

bool bridge_open(const char *bridge, int log_fd, int *ret_fd, struct err *err)
{
    const char *helper = helper_path();
    if (!helper)
        return err_set(err, ERR_QEMU, "bridge %s: qemu-bridge-helper is not installed", bridge);
    int ends[2];
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return err_sys(err, errno, "socketpair");
    AUTO_FD int ours = ends[0];
    AUTO_FREE char *option = NULL;
    if (asprintf(&option, "--br=%s", bridge) < 0) {
        option = NULL;
        close(ends[1]);
        return err_oom(err);
    }
    char *const argv[] = {(char *)helper, (char *)"--use-vnet", (char *)"--fd=3", option, NULL};
    const struct child child = {
        .argv = argv, .output_fd = log_fd, .error_fd = log_fd, .fds = &ends[1], .fd_count = 1};
    pid_t pid;
    bool started = child_start(&child, &pid, err);
    close(ends[1]);
    if (!started)
        return false;
    int fd = fd_receive(ours);
    if (fd < 0)
        kill(pid, SIGKILL); /* our child, not yet waited for */
    while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
        ;
    if (fd < 0)
        return err_set(err, ERR_QEMU,
                       "bridge %s: %s gave no interface (is the bridge there, and allowed in "
                       "/etc/qemu/bridge.conf?)",
                       bridge, helper);
    *ret_fd = fd;
    return true;
}
