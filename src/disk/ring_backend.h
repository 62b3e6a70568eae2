/* What the two backends of ring.h have to offer, and what they share. Private to ring*.c. */
#pragma once

#include "ring.h"

struct ring_list {
    struct ring_op *first, *last;
};

struct ring_backend {
    void (*submit)(struct ring *ring, struct ring_op *op); /* the part of op that has not moved yet */
    void (*cancel)(struct ring *ring, struct ring_op *op);
    bool (*wait)(struct ring *ring, bool block, struct err *err);
    void (*destroy)(struct ring *ring); /* frees ring */
};

/* The first member of each backend's own structure. */
struct ring {
    const struct ring_backend *backend;
    struct ring_list ended; /* done() is called from the next ring_wait() */
};

/* NULL where the kernel refuses, or without memory. */
struct ring *ring_uring_new(void);
struct ring *ring_plain_new(void);

/* A file operation by the functions of the seam: the bytes moved, or a negative errno. */
int64_t ring_seam_do(const struct ring_op *op);
/* A send or a vectored read has moved so many bytes of what its message still has. */
void ring_message_advance(struct ring_op *op, size_t bytes);

void ring_list_append(struct ring_list *list, struct ring_op *op);
void ring_list_remove(struct ring_list *list, struct ring_op *op);

/* One step of op has ended so: the rest of it is submitted, or done() called. */
void ring_step_ended(struct ring *ring, struct ring_op *op, int64_t result);
