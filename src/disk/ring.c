#include "ring_backend.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>

bool ring_new(bool no_io_uring, struct ring **ret_ring, struct err *err)
{
    const char *setting = getenv("BOUGH_NO_IO_URING");
    struct ring *ring = NULL;

    if (!no_io_uring && !(setting && strcmp(setting, "1") == 0))
        ring = ring_uring_new();
    if (!ring)
        ring = ring_plain_new();
    if (!ring)
        return err_oom(err);
    *ret_ring = ring;
    return true;
}

void ring_free(struct ring *ring)
{
    if (ring)
        ring->backend->destroy(ring);
}

void ring_list_append(struct ring_list *list, struct ring_op *op)
{
    op->next = NULL;
    op->previous = list->last;
    if (list->last)
        list->last->next = op;
    else
        list->first = op;
    list->last = op;
}

void ring_list_remove(struct ring_list *list, struct ring_op *op)
{
    if (op->previous)
        op->previous->next = op->next;
    else
        list->first = op->next;
    if (op->next)
        op->next->previous = op->previous;
    else
        list->last = op->previous;
    op->previous = op->next = NULL;
}

static void op_start(struct ring *ring, struct ring_op *op, enum ring_kind kind, int fd, void *bytes,
                     size_t length)
{
    op->ring = ring;
    op->kind = kind;
    op->cancelled = false;
    op->fd = fd;
    op->file = NULL;
    op->offset = 0;
    op->bytes = bytes;
    op->length = length;
    op->moved = 0;
}

static int seam_readv(const struct ring_op *op, size_t *ret_length)
{
    size_t done = 0;

    for (size_t i = 0; i < op->message.msg_iovlen; i++) {
        const struct iovec *part = &op->message.msg_iov[i];
        size_t length = part->iov_len;
        int errnum = op->file->io->ops->read(op->file, op->offset + done, part->iov_base, part->iov_len, &length);
        if (errnum != 0)
            return errnum;
        done += length;
        if (length < part->iov_len)
            break;
    }
    *ret_length = done;
    return 0;
}

int64_t ring_seam_do(const struct ring_op *op)
{
    const struct io_ops *ops = op->file->io->ops;
    size_t length = op->length;
    int errnum = EINVAL;

    if (op->kind == RING_READ)
        errnum = ops->read(op->file, op->offset, op->bytes, op->length, &length);
    else if (op->kind == RING_READV)
        errnum = seam_readv(op, &length);
    else if (op->kind == RING_WRITE)
        errnum = ops->write(op->file, op->offset, op->bytes, op->length);
    else if (op->kind == RING_SYNC)
        errnum = ops->sync(op->file);
    else if (op->kind == RING_PUNCH)
        errnum = ops->punch(op->file, op->offset, op->length);
    if (errnum == 0 && length < op->length)
        errnum = EIO;
    return errnum == 0 ? (int64_t)op->length : -errnum;
}

/* A file that lives behind the seam only: its own functions do the work now, done() is called later. */
static void file_op_at_once(struct ring *ring, struct ring_op *op)
{
    op->result = ring_seam_do(op);
    ring_list_append(&ring->ended, op);
}

static void file_op_submit(struct ring *ring, struct ring_op *op, struct io_file *file, uint64_t offset)
{
    op->file = file;
    op->offset = offset;
    if (file->fd < 0)
        file_op_at_once(ring, op);
    else
        ring->backend->submit(ring, op);
}

static void file_op_start(struct ring *ring, struct ring_op *op, enum ring_kind kind, struct io_file *file,
                          uint64_t offset, void *bytes, size_t length)
{
    op_start(ring, op, kind, file->fd, bytes, length);
    file_op_submit(ring, op, file, offset);
}

static void vector_start(struct ring *ring, struct ring_op *op, enum ring_kind kind, int fd, struct iovec *vector,
                         size_t count)
{
    size_t length = 0;

    for (size_t i = 0; i < count; i++)
        length += vector[i].iov_len;
    op_start(ring, op, kind, fd, NULL, length);
    op->message = (struct msghdr){.msg_iov = vector, .msg_iovlen = count};
}

void ring_read(struct ring *ring, struct ring_op *op, struct io_file *file, uint64_t offset, void *bytes,
               size_t length)
{
    file_op_start(ring, op, RING_READ, file, offset, bytes, length);
}

void ring_readv(struct ring *ring, struct ring_op *op, struct io_file *file, uint64_t offset, struct iovec *vector,
                size_t count)
{
    vector_start(ring, op, RING_READV, file->fd, vector, count);
    file_op_submit(ring, op, file, offset);
}

void ring_write(struct ring *ring, struct ring_op *op, struct io_file *file, uint64_t offset,
                const void *bytes, size_t length)
{
    file_op_start(ring, op, RING_WRITE, file, offset, (void *)(uintptr_t)bytes, length);
}

void ring_sync(struct ring *ring, struct ring_op *op, struct io_file *file)
{
    file_op_start(ring, op, RING_SYNC, file, 0, NULL, 0);
}

void ring_punch(struct ring *ring, struct ring_op *op, struct io_file *file, uint64_t offset, uint64_t length)
{
    file_op_start(ring, op, RING_PUNCH, file, offset, NULL, length);
}

void ring_recv(struct ring *ring, struct ring_op *op, int fd, void *bytes, size_t length)
{
    op_start(ring, op, RING_RECV, fd, bytes, length);
    ring->backend->submit(ring, op);
}

void ring_send(struct ring *ring, struct ring_op *op, int fd, struct iovec *vector, size_t count)
{
    vector_start(ring, op, RING_SEND, fd, vector, count);
    ring->backend->submit(ring, op);
}

void ring_poll(struct ring *ring, struct ring_op *op, int fd)
{
    op_start(ring, op, RING_POLL, fd, NULL, 0);
    ring->backend->submit(ring, op);
}

void ring_cancel(struct ring *ring, struct ring_op *op)
{
    op->cancelled = true;
    ring->backend->cancel(ring, op);
}

/* The vector without its first bytes, which have been moved. */
void ring_message_advance(struct ring_op *op, size_t bytes)
{
    struct msghdr *message = &op->message;

    while (message->msg_iovlen > 0 && bytes >= message->msg_iov->iov_len) {
        bytes -= message->msg_iov->iov_len;
        message->msg_iov++;
        message->msg_iovlen--;
    }
    if (bytes > 0) {
        message->msg_iov->iov_base = (char *)message->msg_iov->iov_base + bytes;
        message->msg_iov->iov_len -= bytes;
    }
}

static bool op_is_whole(const struct ring_op *op)
{
    return op->kind == RING_READ || op->kind == RING_READV || op->kind == RING_WRITE || op->kind == RING_SEND;
}

void ring_step_ended(struct ring *ring, struct ring_op *op, int64_t result)
{
    if ((result == -EINTR || result == -EAGAIN) && !op->cancelled) {
        ring->backend->submit(ring, op);
        return;
    }
    if (result >= 0 && op_is_whole(op)) {
        op->moved += (size_t)result;
        if (result > 0 && op->moved < op->length) {
            if (op->kind == RING_SEND || op->kind == RING_READV)
                ring_message_advance(op, (size_t)result);
            ring->backend->submit(ring, op);
            return;
        }
        result = op->moved < op->length ? -EIO : (int64_t)op->moved;
    }
    op->done(op, result);
}

static void ended_deliver(struct ring *ring)
{
    struct ring_list list = ring->ended;

    ring->ended = (struct ring_list){0};
    while (list.first) {
        struct ring_op *op = list.first;
        ring_list_remove(&list, op);
        op->done(op, op->result);
    }
}

bool ring_wait(struct ring *ring, bool block, struct err *err)
{
    if (!ring->backend->wait(ring, block && !ring->ended.first, err))
        return false;
    ended_deliver(ring);
    return true;
}
