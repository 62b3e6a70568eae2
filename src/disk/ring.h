/* An event loop for sockets and files: operations that are started now and tell their end from ring_wait().
 *
 * Two backends behind one face: io_uring, and plain poll + pread/pwrite (file operations block there) where
 * io_uring is refused. One thread makes a ring and is the only one to use it. A ring_op is owned by the
 * caller and must stay where it is until its done() has been called, which never happens inside the function
 * that started it. Nothing is allocated per operation. */
#pragma once

#include "io.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/socket.h>
#include <sys/uio.h>

struct ring;
struct ring_op;

/* result: bytes moved or 0, or a negative errno. */
typedef void ring_done(struct ring_op *op, int64_t result);

enum ring_kind { RING_READ, RING_READV, RING_WRITE, RING_SYNC, RING_PUNCH, RING_RECV, RING_SEND, RING_POLL };

struct ring_op {
    ring_done *done;
    /* The rest belongs to the ring. */
    struct ring *ring;
    enum ring_kind kind;
    bool cancelled;
    int fd;
    struct io_file *file;
    uint64_t offset;
    uint8_t *bytes;
    size_t length;
    size_t moved; /* of length, by earlier parts of the operation */
    int64_t result;
    struct msghdr message;
    struct ring_op *previous, *next;
};

/* no_io_uring, BOUGH_NO_IO_URING=1, or a kernel that refuses io_uring: the plain backend. */
bool ring_new(bool no_io_uring, struct ring **ret_ring, struct err *err) MUST_CHECK;
void ring_free(struct ring *ring); /* nothing may be in flight; accepts NULL */
bool ring_is_io_uring(const struct ring *ring);

/* Exactly length bytes or an error: an earlier end of the file is EIO. A file of the seam without a
 * descriptor is asked at once. */
void ring_read(struct ring *ring, struct ring_op *op, struct io_file *file, uint64_t offset, void *bytes,
               size_t length);
/* The same into the parts of a vector (which is changed), one behind the other. */
void ring_readv(struct ring *ring, struct ring_op *op, struct io_file *file, uint64_t offset, struct iovec *vector,
                size_t count);
void ring_write(struct ring *ring, struct ring_op *op, struct io_file *file, uint64_t offset,
                const void *bytes, size_t length);
void ring_sync(struct ring *ring, struct ring_op *op, struct io_file *file); /* fdatasync */
/* A hole, which reads as zeros; -EOPNOTSUPP where the file system has none. */
void ring_punch(struct ring *ring, struct ring_op *op, struct io_file *file, uint64_t offset, uint64_t length);
/* At least one byte, at most length; 0 at the end of the stream. */
void ring_recv(struct ring *ring, struct ring_op *op, int fd, void *bytes, size_t length);
/* All of the vector (which is changed), without SIGPIPE. */
void ring_send(struct ring *ring, struct ring_op *op, int fd, struct iovec *vector, size_t count);
/* Until fd can be read. */
void ring_poll(struct ring *ring, struct ring_op *op, int fd);
/* Makes a started operation on a socket end soon, with -ECANCELED if it had not ended yet. done() is still
 * called. */
void ring_cancel(struct ring *ring, struct ring_op *op);

/* Starts what was asked for, waits (if block) until something has ended, and calls done() for all that has.
 */
bool ring_wait(struct ring *ring, bool block, struct err *err) MUST_CHECK;
