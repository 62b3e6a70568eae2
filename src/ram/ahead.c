#include "ahead.h"

#include "auto.h"
#include "bytes.h"
#include "rawfile.h"

#include <fcntl.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <sys/resource.h>
#include <time.h>

#define PIECE_BYTES    (2U << 20)
#define LOOK_NS        500000
#define LEAST_PRIORITY 19

struct ahead {
    int fd;
    uint64_t bytes, window_bytes;
    _Atomic uint64_t reached;
    atomic_bool stopped;
    pthread_t thread;
};

static bool is_stopped(struct ahead *ahead)
{
    return atomic_load_explicit(&ahead->stopped, memory_order_relaxed);
}

static bool is_far_enough(struct ahead *ahead, uint64_t at)
{
    uint64_t reached = atomic_load_explicit(&ahead->reached, memory_order_relaxed);

    return reached == 0 || (at > reached && at - reached >= ahead->window_bytes);
}

/* The next bytes of a hole, from at on; 0: there are no more. */
static uint64_t next_piece(const struct ahead *ahead, uint64_t *at)
{
    off_t hole = lseek(ahead->fd, (off_t)*at, SEEK_HOLE);
    if (hole < 0 || (uint64_t)hole >= ahead->bytes)
        return 0;
    off_t data = lseek(ahead->fd, hole, SEEK_DATA);
    *at = (uint64_t)hole;
    return min_u64(PIECE_BYTES, (data < 0 ? ahead->bytes : (uint64_t)data) - *at);
}

static void *run(void *context)
{
    struct ahead *ahead = context;
    uint64_t at = 0, length;

    setpriority(PRIO_PROCESS, (id_t)gettid(), LEAST_PRIORITY);
    while (!is_stopped(ahead) && (length = next_piece(ahead, &at)) > 0) {
        if (is_far_enough(ahead, at)) {
            nanosleep(&(struct timespec){.tv_nsec = LOOK_NS}, NULL);
            continue;
        }
        if (posix_fadvise(ahead->fd, (off_t)at, (off_t)length, POSIX_FADV_WILLNEED) != 0)
            break;
        at += length;
    }
    return NULL;
}

struct ahead *ahead_start(int fd, uint64_t bytes, uint64_t window_bytes)
{
    AUTO_FREE struct ahead *ahead = calloc(1, sizeof(*ahead));
    struct err ignored;

    if (!ahead)
        return NULL;
    ahead->bytes = bytes;
    ahead->window_bytes = window_bytes;
    AUTO_FD int own = fcntl(fd, F_DUPFD_CLOEXEC, 0);
    if (own < 0)
        return NULL;
    ahead->fd = own;
    if (!thread_start(run, ahead, "ram-ahead", &ahead->thread, &ignored))
        return NULL;
    (void)TAKE_FD(own);
    return TAKE(ahead);
}

void ahead_reached(struct ahead *ahead, uint64_t offset)
{
    if (ahead && offset > atomic_load_explicit(&ahead->reached, memory_order_relaxed))
        atomic_store_explicit(&ahead->reached, offset, memory_order_relaxed);
}

void ahead_stop(struct ahead *ahead)
{
    if (ahead)
        atomic_store(&ahead->stopped, true);
}

void ahead_end(struct ahead *ahead)
{
    if (!ahead)
        return;
    ahead_stop(ahead);
    pthread_join(ahead->thread, NULL);
    close(ahead->fd);
    free(ahead);
}
