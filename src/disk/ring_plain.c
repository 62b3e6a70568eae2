/* The ring on poll, pread and pwrite, for where io_uring is refused. File operations block the thread;
 * sockets do not: they are tried when poll says so. */
#include "ring_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <unistd.h>

struct plain {
    struct ring ring;
    struct ring_list files;   /* to be done in the next wait */
    struct ring_list sockets; /* waiting for their descriptors */
    struct pollfd *polls;     /* room for every one in sockets */
    struct ring_op **polled;
    size_t capacity, socket_count;
};

static const struct ring_backend PLAIN_BACKEND;

static struct plain *plain_of(struct ring *ring)
{
    return (struct plain *)ring;
}

struct ring *ring_plain_new(void)
{
    struct plain *plain = calloc(1, sizeof *plain);

    if (!plain)
        return NULL;
    plain->ring.backend = &PLAIN_BACKEND;
    return (struct ring *)plain;
}

static void plain_destroy(struct ring *ring)
{
    free(plain_of(ring)->polls);
    free(plain_of(ring)->polled);
    free(ring);
}

static bool op_is_file(const struct ring_op *op)
{
    return op->kind == RING_READ || op->kind == RING_READV || op->kind == RING_WRITE || op->kind == RING_SYNC ||
           op->kind == RING_PUNCH;
}

static void plain_submit(struct ring *ring, struct ring_op *op)
{
    struct plain *plain = plain_of(ring);

    if (op_is_file(op)) {
        ring_list_append(&plain->files, op);
        return;
    }
    ring_list_append(&plain->sockets, op);
    plain->socket_count++;
}

static void socket_remove(struct plain *plain, struct ring_op *op)
{
    ring_list_remove(&plain->sockets, op);
    plain->socket_count--;
}

static void plain_cancel(struct ring *ring, struct ring_op *op)
{
    struct plain *plain = plain_of(ring);

    for (struct ring_op *each = plain->sockets.first; each; each = each->next) {
        if (each != op)
            continue;
        socket_remove(plain, op);
        op->result = -ECANCELED;
        ring_list_append(&ring->ended, op);
        return;
    }
}

static int64_t file_op_do(const struct ring_op *op)
{
    size_t rest = op->length - op->moved;
    int64_t result;

    if (op->kind == RING_READ)
        result = pread(op->fd, op->bytes + op->moved, rest, (off_t)(op->offset + op->moved));
    else if (op->kind == RING_READV)
        result = preadv(op->fd, op->message.msg_iov, (int)op->message.msg_iovlen, (off_t)(op->offset + op->moved));
    else if (op->kind == RING_WRITE)
        result = pwrite(op->fd, op->bytes + op->moved, rest, (off_t)(op->offset + op->moved));
    else if (op->kind == RING_PUNCH)
        result = fallocate(op->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)op->offset, (off_t)op->length);
    else
        result = fdatasync(op->fd);
    return result < 0 ? -errno : result;
}

static int64_t socket_op_do(struct ring_op *op)
{
    int64_t result = 0;

    if (op->kind == RING_RECV)
        result = recv(op->fd, op->bytes, op->length, MSG_DONTWAIT);
    else if (op->kind == RING_SEND)
        result = sendmsg(op->fd, &op->message, MSG_DONTWAIT | MSG_NOSIGNAL);
    return result < 0 ? -errno : result;
}

/* Those that were there on entry: their done() may ask for more, which is for the next turn. */
static bool files_do(struct plain *plain)
{
    struct ring_list list = plain->files;

    plain->files = (struct ring_list){0};
    bool any = list.first != NULL;
    while (list.first) {
        struct ring_op *op = list.first;
        ring_list_remove(&list, op);
        ring_step_ended(&plain->ring, op, file_op_do(op));
    }
    return any;
}

static bool polls_reserve(struct plain *plain, struct err *err)
{
    if (plain->socket_count <= plain->capacity)
        return true;
    size_t capacity = plain->socket_count * 2;
    struct pollfd *polls = reallocarray(plain->polls, capacity, sizeof *polls);
    if (polls)
        plain->polls = polls;
    struct ring_op **polled = reallocarray(plain->polled, capacity, sizeof(struct ring_op *));
    if (polled)
        plain->polled = polled;
    if (!polls || !polled)
        return err_oom(err);
    plain->capacity = capacity;
    return true;
}

/* done() of one may cancel another, which is then no longer in the list: polled[] entries are checked by it.
 */
static bool op_is_waiting(const struct plain *plain, const struct ring_op *op)
{
    for (const struct ring_op *each = plain->sockets.first; each; each = each->next)
        if (each == op)
            return true;
    return false;
}

static void sockets_do(struct plain *plain, size_t count)
{
    for (size_t i = 0; i < count; i++) {
        struct ring_op *op = plain->polled[i];
        if (plain->polls[i].revents == 0 || !op_is_waiting(plain, op))
            continue;
        socket_remove(plain, op);
        ring_step_ended(&plain->ring, op, socket_op_do(op));
    }
}

static bool plain_wait(struct ring *ring, bool block, struct err *err)
{
    struct plain *plain = plain_of(ring);
    size_t count = 0;

    bool any = files_do(plain);
    if (!polls_reserve(plain, err))
        return false;
    for (struct ring_op *op = plain->sockets.first; op; op = op->next, count++) {
        plain->polls[count] =
            (struct pollfd){.fd = op->fd, .events = op->kind == RING_SEND ? POLLOUT : POLLIN};
        plain->polled[count] = op;
    }
    bool idle = block && !any && !plain->files.first && !ring->ended.first;
    int ready = poll(plain->polls, count, idle ? -1 : 0);
    if (ready < 0 && errno != EINTR)
        return err_sys(err, errno, "poll");
    if (ready > 0)
        sockets_do(plain, count);
    return true;
}

static const struct ring_backend PLAIN_BACKEND = {
    .submit = plain_submit,
    .cancel = plain_cancel,
    .wait = plain_wait,
    .destroy = plain_destroy,
};
