/* Requests on a disk, many at a time, on one thread with a ring: what a front end (NBD today) is built on.
 *
 * core_submit() takes a request; its done() is called from a later core_turn(). The loop of the thread is
 *     ring_wait(ring, !core_is_busy(core)); core_turn(core);
 * Reads, writes and zeros are mapped by the disk and done by the ring in rounds of a few pieces; zeroing that finds
 * nothing to do in many blocks goes on in the next turn; flushes are gathered: all that wait share one, and those that come while one
 * runs share the next, since it may have begun before the writes that they stand for had ended.
 *
 *   new ──> [held, while a switch waits] ──> at work ──> (fua, flush: waits for a flush) ──> finished ──>
 * done()
 *
 * A switch of the top waits until nothing is at work. It does not wait for flushes: a flush that runs belongs
 * to the layer that was the top when it began, and goes on. */
#pragma once

#include "disk.h"
#include "ring.h"

enum request_kind {
    REQUEST_READ,
    REQUEST_WRITE,
    REQUEST_ZERO,          /* holes where they can be made */
    REQUEST_ZERO_RESERVED, /* zeros with their space reserved */
    REQUEST_FLUSH,
};

#define REQUEST_PIECES 32

struct core;
struct request;

struct request_piece {
    struct ring_op op;
    struct request *request;
    struct disk_zero_piece zero; /* of a REQUEST_ZERO */
    uint64_t zeros_written;      /* of it, where no hole can be made */
};

struct request {
    /* Set by the caller. Memory is the caller's until done(). */
    enum request_kind kind;
    bool fua;        /* durable before done(): not for reads */
    uint64_t offset; /* bytes, multiples of 512 inside the disk; ignored for a flush */
    uint64_t length;
    uint8_t *bytes;                                    /* of a read or a write */
    void (*done)(struct request *request, int errnum); /* 0 or an errno; request may be used anew in it */

    bool holes_only; /* after a read: it was all zeros, and found without looking at data */

    /* The rest belongs to the core. */
    struct core *core;
    int errnum;
    uint64_t moved;        /* of length, by earlier rounds */
    uint64_t round_length; /* of the round at work */
    unsigned pieces_left;  /* of the round */
    struct request *next;
    struct request_piece pieces[REQUEST_PIECES];
    struct iovec vectors[2 * REQUEST_PIECES]; /* of reads that go on behind a gap */
};

struct request_list {
    struct request *first, *last;
};

void request_list_append(struct request_list *list, struct request *request);
struct request *request_list_take(struct request_list *list); /* the first, or NULL */

struct core_flush {
    struct disk_flush *running; /* NULL: none */
    enum { FLUSH_SYNC_FIRST, FLUSH_WRITE, FLUSH_SYNC_LAST } stage;
    size_t index; /* into the stage's array */
    struct ring_op op;
    struct err failure;
    bool sync_failed;
    uint64_t covered_bytes;      /* of core->dirty_bytes */
    struct request_list covered; /* end with the running one */
    struct request_list waiting; /* for the next one */
};

/* Space of sealed layers is given back piece by piece, beside all else. */
struct core_release {
    struct ring_op op;
    bool running;
    bool searching; /* there may be more, to be looked for in the next turn */
    bool refused;   /* the file system cannot */
};

struct core_counters {
    uint64_t reads, writes, flushes;
    uint64_t read_bytes, written_bytes;
};

struct core {
    struct disk *disk;
    struct ring *ring;
    size_t at_work; /* requests that read or write now */
    struct request_list held, zeroing, finished;
    struct core_flush flush;
    struct core_release release;
    struct disk_next_top *next_top;  /* prepared; owned */
    void (*switched)(void *context); /* set: an instant with no request at work is wanted */
    void *switched_context;
    bool pushes; /* then the prepared top takes over */
    struct core_counters counters;
    uint64_t dirty_bytes;
    bool ending;    /* nothing that nobody asked for is begun any more */
    bool abandoned; /* no more flushes are begun: those that wait fail */
};

/* disk and ring stay the caller's. */
void core_init(struct core *core, struct disk *disk, struct ring *ring);
void core_done(struct core *core); /* nothing may be in flight */
void core_submit(struct core *core, struct request *request);
/* One step for all that can go on; calls done() of what has finished. */
void core_turn(struct core *core);
/* There is work that waits for no event: call core_turn() again soon. */
bool core_is_busy(const struct core *core);
/* Nothing is held, at work, flushing or unreported. */
bool core_is_idle(const struct core *core);
/* At an instant with no request at work, the prepared top takes over; then switched(context) is called, once.
 * New requests are held until then. One switch at a time. */
void core_switch_top(struct core *core, void (*switched)(void *context), void *context);
/* The same for something else, which act() does. One at a time, switches among them. */
void core_at_instant(struct core *core, void (*act)(void *context), void *context);

/* --- between engine_core.c and engine_flush.c --- */
void core_finish(struct core *core, struct request *request, int errnum);
void flush_turn(struct core *core);
