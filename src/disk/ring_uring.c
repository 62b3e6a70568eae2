/* The ring on io_uring: sockets and files in one queue, submitted in batches by the wait. */
#include "log.h"
#include "ring_backend.h"

#include <errno.h>
#include <fcntl.h>
#include <liburing.h>
#include <poll.h>
#include <stdlib.h>
#include <sys/uio.h>
#include <time.h>
#include <unistd.h>

#define QUEUE_ENTRIES      256U
#define COMPLETION_ENTRIES 4096U
#define REAP_BATCH         64U
/* What is likely to be done at once is not sent through the ring: every send, a read of so much from the page cache, and
 * a write of so much into it if it is alone, so that it is known only in the wait. Not more reads than this between two
 * waits: a batch is faster through the ring, and the writes of one have threads of their own there. */
#define AT_ONCE_BYTES (64U << 10)
#define AT_ONCE_READS 2U
/* A write may wait after all, for memory or for the disk. One that took so long sends those of the next time through the
 * ring, so that they do not hold up all else. */
#define SLOW_WRITE_NS  500000
#define SLOW_WRITES_NS 5000000000
/* Turns in a row that may pass without a look at the kernel's completions, as long as there is something to do. */
#define MAX_TURNS_ALONE 16U

struct uring {
    struct ring ring;
    struct io_uring kernel;
    unsigned turns_alone, reads_at_once;
    unsigned urgent; /* of what waits to be handed over: all but what waits for others itself */
    unsigned file_operations; /* under way in the kernel */
    struct ring_op *lone_write; /* asked for, not yet handed over: no other operation on a file is under way */
    int64_t no_writes_until_ns;
    bool no_nowait; /* a file system that cannot tell whether it would have to wait */
};

static const struct ring_backend URING_BACKEND;

static struct uring *uring_of(struct ring *ring)
{
    return (struct uring *)ring;
}

bool ring_is_io_uring(const struct ring *ring)
{
    return ring->backend == &URING_BACKEND;
}

struct ring *ring_uring_new(void)
{
    /* Newest first: completions only when we ask for them and no interrupts for them; 6.1 has it all. */
    static const unsigned FLAGS[] = {IORING_SETUP_SINGLE_ISSUER | IORING_SETUP_DEFER_TASKRUN,
                                     IORING_SETUP_COOP_TASKRUN, 0};
    struct uring *uring = calloc(1, sizeof *uring);

    if (!uring)
        return NULL;
    uring->ring.backend = &URING_BACKEND;
    for (size_t i = 0; i < ARRAY_SIZE(FLAGS); i++) {
        struct io_uring_params params = {.flags = FLAGS[i] | IORING_SETUP_CQSIZE,
                                         .cq_entries = COMPLETION_ENTRIES};
        int result = io_uring_queue_init_params(QUEUE_ENTRIES, &uring->kernel, &params);
        /* Without these two an operation could be lost, or would need its own threads for sockets. */
        unsigned needed = IORING_FEAT_NODROP | IORING_FEAT_FAST_POLL;
        if (result == 0 && (params.features & needed) == needed)
            return &uring->ring;
        if (result == 0)
            io_uring_queue_exit(&uring->kernel);
        log_debug("io_uring with flags %#x: error %d", FLAGS[i], -result);
    }
    free(uring);
    return NULL;
}

static void uring_destroy(struct ring *ring)
{
    io_uring_queue_exit(&uring_of(ring)->kernel);
    free(ring);
}

static struct io_uring_sqe *sqe_get(struct uring *uring)
{
    struct io_uring_sqe *sqe = io_uring_get_sqe(&uring->kernel);

    /* The queue is full: hand it over. EBUSY and EAGAIN mean that completions have to be taken first, which
     * submit_and_get_events() lets the kernel spill into its overflow list. */
    while (!sqe) {
        io_uring_submit_and_get_events(&uring->kernel);
        sqe = io_uring_get_sqe(&uring->kernel);
    }
    return sqe;
}

static int64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000000000LL + now.tv_nsec;
}

static ssize_t read_at_once(struct uring *uring, const struct ring_op *op, size_t rest)
{
    struct iovec vector = {.iov_base = op->bytes + op->moved, .iov_len = rest};

    if (uring->no_nowait || uring->reads_at_once == AT_ONCE_READS)
        return 0;
    uring->reads_at_once++;
    ssize_t moved = preadv2(op->fd, &vector, 1, (off_t)(op->offset + op->moved), RWF_NOWAIT);
    uring->no_nowait = moved < 0 && errno == EOPNOTSUPP;
    return moved;
}

static ssize_t write_at_once(struct uring *uring, const struct ring_op *op, size_t rest)
{
    int64_t begun_ns = now_ns();

    if (op != uring->lone_write || begun_ns < uring->no_writes_until_ns)
        return 0;
    ssize_t moved = pwrite(op->fd, op->bytes + op->moved, rest, (off_t)(op->offset + op->moved));
    int64_t ended_ns = now_ns();
    if (ended_ns - begun_ns > SLOW_WRITE_NS)
        uring->no_writes_until_ns = ended_ns + SLOW_WRITES_NS;
    return moved;
}

static ssize_t try_at_once(struct uring *uring, const struct ring_op *op)
{
    size_t rest = op->length - op->moved;

    if (op->kind == RING_SEND)
        return sendmsg(op->fd, &op->message, MSG_NOSIGNAL | MSG_DONTWAIT);
    if (rest > AT_ONCE_BYTES)
        return 0;
    return op->kind == RING_READ ? read_at_once(uring, op, rest) : op->kind == RING_WRITE ? write_at_once(uring, op, rest) : 0;
}

static bool is_file_operation(const struct ring_op *op)
{
    return op->file != NULL;
}

/* True: it has ended, with success. An error is met again by the ring, and told there. */
static bool ends_at_once(struct uring *uring, struct ring_op *op)
{
    ssize_t moved = try_at_once(uring, op);

    if (moved <= 0)
        return false;
    op->moved += (size_t)moved;
    if (op->moved < op->length) {
        if (op->kind == RING_SEND)
            ring_message_advance(op, (size_t)moved);
        return false;
    }
    op->result = (int64_t)op->length;
    ring_list_append(&uring->ring.ended, op);
    return true;
}

static void op_hand_over(struct uring *uring, struct ring_op *op)
{
    if (ends_at_once(uring, op))
        return;
    uring->file_operations += is_file_operation(op);
    uring->urgent += op->kind != RING_RECV && op->kind != RING_POLL;
    struct io_uring_sqe *sqe = sqe_get(uring);
    /* The kernel counts in 32 bits, and moves at most 2 GiB at once: what is left follows by
     * ring_step_ended(). */
    unsigned rest = op->length - op->moved > (1U << 30) ? 1U << 30 : (unsigned)(op->length - op->moved);

    switch (op->kind) {
    case RING_READ:
        io_uring_prep_read(sqe, op->fd, op->bytes + op->moved, rest, op->offset + op->moved);
        break;
    case RING_READV:
        io_uring_prep_readv(sqe, op->fd, op->message.msg_iov, (unsigned)op->message.msg_iovlen,
                            op->offset + op->moved);
        break;
    case RING_WRITE:
        io_uring_prep_write(sqe, op->fd, op->bytes + op->moved, rest, op->offset + op->moved);
        break;
    case RING_SYNC:
        io_uring_prep_fsync(sqe, op->fd, IORING_FSYNC_DATASYNC);
        break;
    case RING_PUNCH:
        io_uring_prep_fallocate(sqe, op->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, (off_t)op->offset,
                                (off_t)op->length);
        break;
    case RING_RECV:
        io_uring_prep_recv(sqe, op->fd, op->bytes, op->length, 0);
        break;
    case RING_SEND:
        io_uring_prep_sendmsg(sqe, op->fd, &op->message, MSG_NOSIGNAL);
        break;
    case RING_POLL:
        io_uring_prep_poll_add(sqe, op->fd, POLLIN);
        break;
    }
    io_uring_sqe_set_data(sqe, op);
}

static void lone_write_hand_over(struct uring *uring, bool is_alone)
{
    struct ring_op *op = uring->lone_write;

    if (!op)
        return;
    if (!is_alone)
        uring->lone_write = NULL;
    op_hand_over(uring, op);
    uring->lone_write = NULL;
}

static void uring_submit(struct ring *ring, struct ring_op *op)
{
    struct uring *uring = uring_of(ring);

    if (is_file_operation(op)) {
        bool alone = !uring->lone_write && uring->file_operations == 0;
        lone_write_hand_over(uring, /* is_alone= */ false);
        if (alone && op->kind == RING_WRITE && op->length <= AT_ONCE_BYTES) {
            uring->lone_write = op;
            return;
        }
    }
    op_hand_over(uring, op);
}

static void uring_cancel(struct ring *ring, struct ring_op *op)
{
    struct io_uring_sqe *sqe = sqe_get(uring_of(ring));

    io_uring_prep_cancel64(sqe, (uint64_t)(uintptr_t)op, 0);
    io_uring_sqe_set_data(sqe, NULL); /* its own end is of no interest */
}

/* Operations are copied out and the queue's heads moved on before done() is called, which may submit more. */
static unsigned uring_reap(struct uring *uring)
{
    struct io_uring_cqe *cqes[REAP_BATCH];
    struct ring_op *ops[REAP_BATCH];
    int results[REAP_BATCH];
    unsigned count = io_uring_peek_batch_cqe(&uring->kernel, cqes, REAP_BATCH);

    for (unsigned i = 0; i < count; i++) {
        ops[i] = io_uring_cqe_get_data(cqes[i]);
        results[i] = cqes[i]->res;
        uring->file_operations -= ops[i] && is_file_operation(ops[i]);
    }
    io_uring_cq_advance(&uring->kernel, count);
    for (unsigned i = 0; i < count; i++)
        if (ops[i])
            ring_step_ended(&uring->ring, ops[i],
                            ops[i]->kind == RING_POLL && results[i] > 0 ? 0 : results[i]);
    return count;
}

static bool uring_wait(struct ring *ring, bool block, struct err *err)
{
    struct uring *uring = uring_of(ring);

    uring->reads_at_once = 0;
    lone_write_hand_over(uring, /* is_alone= */ true);
    /* A request that was done at once is answered before the next one is waited for. */
    if (ring->ended.first && uring->urgent == 0 && uring->turns_alone++ < MAX_TURNS_ALONE)
        return true;
    uring->turns_alone = uring->urgent = 0;
    int result =
        block && !ring->ended.first ? io_uring_submit_and_wait(&uring->kernel, 1) : io_uring_submit_and_get_events(&uring->kernel);

    if (result < 0 && result != -EINTR && result != -EAGAIN && result != -EBUSY)
        return err_sys(err, -result, "io_uring");
    /* A bounded number of rounds, so that a busy file cannot keep the caller from its other duties. */
    for (unsigned round = 0; round < COMPLETION_ENTRIES / REAP_BATCH; round++)
        if (uring_reap(uring) < REAP_BATCH)
            break;
    return true;
}

static const struct ring_backend URING_BACKEND = {
    .submit = uring_submit,
    .cancel = uring_cancel,
    .wait = uring_wait,
    .destroy = uring_destroy,
};
