/* Loading: a thread that writes the stream of a .vsv to QEMU. */
#include "auto.h"
#include "bytes.h"
#include "ram.h"
#include "rawfile.h"
#include "vsv.h"

#include <errno.h>
#include <inttypes.h>
#include <poll.h>

#define PIECE_BYTES (256U << 10)

struct ram_load {
    char *path;
    int vsv_fd, fd, stop_fd;
    uint64_t offset, left; /* of the stream in the file */
    uint8_t *piece;
    pthread_t thread;
    bool ok; /* of the thread, once it is joined; else err */
    struct err err;
};

static bool put_piece(struct ram_load *load, size_t length, struct err *err)
{
    for (size_t done = 0; done < length;) {
        ssize_t put = write(load->fd, load->piece + done, length - done);
        if (put >= 0)
            done += (size_t)put;
        else if (errno == EPIPE || errno == ECONNRESET)
            return err_set(err, ERR_QEMU, "QEMU closed the migration stream with %" PRIu64 " bytes left",
                           load->left - done);
        else if (errno == EAGAIN && !stop_wait(load->stop_fd, load->fd, POLLOUT, err))
            return false;
        else if (errno != EAGAIN && errno != EINTR)
            return err_sys(err, errno, "write the migration stream");
    }
    return true;
}

static bool put_stream(struct ram_load *load, struct err *err)
{
    while (load->left > 0) {
        size_t length = (size_t)min_u64(PIECE_BYTES, load->left);
        if (!raw_read(load->vsv_fd, load->offset, load->piece, length, err))
            return err_prefix(err, "%s", load->path);
        if (!put_piece(load, length, err))
            return false;
        load->offset += length;
        load->left -= length;
    }
    return true;
}

static void *run(void *context)
{
    struct ram_load *load = context;
    load->ok = put_stream(load, &load->err);
    close(TAKE_FD(load->fd));
    return NULL;
}

static void load_free(struct ram_load *load)
{
    const int fds[] = {load->vsv_fd, load->fd, load->stop_fd};
    for (size_t i = 0; i < ARRAY_SIZE(fds); i++) {
        if (fds[i] >= 0)
            close(fds[i]);
    }
    free(load->path);
    free(load->piece);
    free(load);
}

static bool load_start(struct ram_load *load, const char *vsv_path, struct err *err)
{
    struct vsv_header header;
    load->path = strdup(vsv_path);
    load->piece = malloc(PIECE_BYTES);
    if (!load->path || !load->piece)
        return err_oom(err);
    if (!vsv_open(vsv_path, &load->vsv_fd, &header, err) || !stop_new(&load->stop_fd, err) ||
        !fd_set_nonblocking(load->fd, err))
        return false;
    load->offset = vsv_stream_offset(header.info.memory_bytes);
    load->left = header.stream_bytes;
    return thread_start(run, load, "ram-load", &load->thread, err);
}

bool ram_load_start(const char *vsv_path, int fd, struct ram_load **ret_load, struct err *err)
{
    AUTO_FD int stream_fd = fd;
    struct ram_load *load = calloc(1, sizeof(*load));
    if (!load)
        return err_oom(err);
    load->vsv_fd = load->stop_fd = -1;
    load->fd = TAKE_FD(stream_fd);
    if (!load_start(load, vsv_path, err)) {
        load_free(load);
        return false;
    }
    *ret_load = load;
    return true;
}

bool ram_load_finish(struct ram_load *load, struct err *err)
{
    pthread_join(load->thread, NULL);
    bool ok = load->ok;
    if (!ok)
        *err = load->err;
    load_free(load);
    return ok;
}

void ram_load_abandon(struct ram_load *load)
{
    if (!load)
        return;
    stop_set(load->stop_fd);
    pthread_join(load->thread, NULL);
    load_free(load);
}
