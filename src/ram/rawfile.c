#include "rawfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <sys/eventfd.h>

bool raw_read(int fd, uint64_t offset, void *bytes, size_t length, struct err *err)
{
    size_t done = 0;
    while (done < length) {
        ssize_t got = pread(fd, (uint8_t *)bytes + done, length - done, (off_t)(offset + done));
        if (got < 0 && errno == EINTR)
            continue;
        if (got < 0)
            return err_sys(err, errno, "read at %" PRIu64, offset + done);
        if (got == 0)
            return err_set(err, ERR_CORRUPT, "the file ends at %" PRIu64, offset + done);
        done += (size_t)got;
    }
    return true;
}

bool raw_write(int fd, uint64_t offset, const void *bytes, size_t length, struct err *err)
{
    size_t done = 0;
    while (done < length) {
        ssize_t put = pwrite(fd, (const uint8_t *)bytes + done, length - done, (off_t)(offset + done));
        if (put < 0 && errno == EINTR)
            continue;
        if (put <= 0)
            return err_sys(err, put < 0 ? errno : EIO, "write at %" PRIu64, offset + done);
        done += (size_t)put;
    }
    return true;
}

bool stop_new(int *ret_stop_fd, struct err *err)
{
    int fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return err_sys(err, errno, "eventfd");
    *ret_stop_fd = fd;
    return true;
}

void stop_set(int stop_fd)
{
    uint64_t one = 1;
    /* It fails only when the counter is full, and then the flag is set. */
    ssize_t put = write(stop_fd, &one, sizeof(one));
    (void)put;
}

bool stop_wait(int stop_fd, int fd, short events, struct err *err)
{
    struct pollfd fds[] = {{.fd = stop_fd, .events = POLLIN}, {.fd = fd, .events = events}};
    while (poll(fds, ARRAY_SIZE(fds), -1) < 0) {
        if (errno != EINTR)
            return err_sys(err, errno, "poll");
    }
    if (fds[0].revents)
        return err_set(err, ERR_CANCELLED, "given up");
    return true;
}

bool fd_set_nonblocking(int fd, struct err *err)
{
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fcntl(fd, F_SETFL, flags | O_NONBLOCK) < 0)
        return err_sys(err, errno, "descriptor of the migration stream");
    return true;
}

bool thread_start(void *(*run)(void *context), void *context, const char *name, pthread_t *ret_thread,
                  struct err *err)
{
    sigset_t all, before;
    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &before);
    pthread_t thread;
    int error = pthread_create(&thread, NULL, run, context);
    pthread_sigmask(SIG_SETMASK, &before, NULL);
    if (error != 0)
        return err_sys(err, error, "start a thread");
    pthread_setname_np(thread, name);
    *ret_thread = thread;
    return true;
}
