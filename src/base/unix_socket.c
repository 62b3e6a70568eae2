#include "unix_socket.h"

#include "auto.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#define BACKLOG 64

static bool old_socket_remove(const char *path, struct err *err)
{
    struct stat st;

    if (lstat(path, &st) != 0)
        return errno == ENOENT ? true : err_sys(err, errno, "%s", path);
    if (!S_ISSOCK(st.st_mode))
        return err_set(err, ERR_EXISTS, "%s: there is a file that is no socket", path);
    if (unlink(path) != 0 && errno != ENOENT)
        return err_sys(err, errno, "remove the old socket %s", path);
    return true;
}

static bool address_make(const char *path, struct sockaddr_un *ret_address, struct err *err)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    size_t length = strlen(path);

    if (length == 0 || length >= sizeof address.sun_path)
        return err_set(err, ERR_INVALID, "%s: the path of a socket has 1 to %zu bytes, this one %zu", path,
                       sizeof address.sun_path - 1, length);
    memcpy(address.sun_path, path, length + 1);
    *ret_address = address;
    return true;
}

bool unix_listen(const char *path, struct unix_listener *ret_listener, struct err *err)
{
    struct sockaddr_un address;
    struct unix_listener made = {0};
    struct stat st;

    if (!address_make(path, &address, err))
        return false;
    memcpy(made.path, address.sun_path, sizeof made.path);
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
    if (fd < 0)
        return err_sys(err, errno, "socket for %s", path);
    /* Linux gives the file the mode of the socket, less the umask: no instant at which others could connect. */
    if (fchmod(fd, 0600) != 0)
        return err_sys(err, errno, "socket for %s", path);
    if (!old_socket_remove(path, err))
        return false;
    if (bind(fd, (const struct sockaddr *)&address, sizeof address) != 0)
        return err_sys(err, errno, "bind %s", path);
    if (chmod(path, 0600) != 0 || lstat(path, &st) != 0 || listen(fd, BACKLOG) != 0) {
        int errnum = errno;
        unlink(path);
        return err_sys(err, errnum, "listen on %s", path);
    }
    made.device = st.st_dev;
    made.inode = st.st_ino;
    made.fd = TAKE_FD(fd);
    *ret_listener = made;
    return true;
}

bool unix_connect(const char *path, int flags, int *ret_fd, struct err *err)
{
    struct sockaddr_un address;

    if (!address_make(path, &address, err))
        return false;
    AUTO_FD int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | flags, 0);
    if (fd < 0 || connect(fd, (const struct sockaddr *)&address, sizeof address) != 0)
        return err_sys(err, errno, "connect to %s", path);
    *ret_fd = TAKE_FD(fd);
    return true;
}

void unix_listener_close(struct unix_listener *listener)
{
    struct stat st;

    if (listener->fd < 0)
        return;
    close(TAKE_FD(listener->fd));
    if (lstat(listener->path, &st) == 0 && st.st_dev == listener->device && st.st_ino == listener->inode)
        unlink(listener->path);
}
