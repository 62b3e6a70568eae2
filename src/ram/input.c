#include "input.h"

#include "bytes.h"
#include "rawfile.h"

#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <string.h>
#include <sys/mman.h>

#define PIPE_BYTES  (1 << 20)
#define AHEAD_BYTES (4U << 20) /* of the reserve, made ready beforehand */

struct input {
    int fd, stop_fd;
    int hurry_fd;         /* wakes the working thread from its poll */
    uint8_t *buffer;      /* INPUT_HELD_MAX + INPUT_READ_BYTES */
    const uint8_t *bytes; /* what is held: in buffer or in reserve */
    size_t length;
    bool in_reserve;

    pthread_mutex_t lock; /* of what follows, and of who reads from fd */
    pthread_cond_t arrived;
    pthread_cond_t paced;          /* of allowed_bytes, and of what follows */
    uint64_t allowed_bytes;        /* that may be read yet; UINT64_MAX: all */
    bool hurried, closed, stopped; /* each set once */
    bool gulping;         /* the second thread reads, or what it read is not yet taken over */
    bool gulp_ended;
    pthread_t gulper;
    uint8_t *reserve;          /* INPUT_HELD_MAX + reserve_bytes, mapped */
    size_t reserve_bytes;      /* constant */
    size_t filled, seen;       /* bytes of the reserve behind its first INPUT_HELD_MAX */
    bool gulp_ok, gulp_at_end; /* how it ended; neither, when it was full */
    struct err gulp_err;
};

bool input_new(int fd, size_t hurry_bytes, struct input **ret_input, struct err *err)
{
    AUTO_FD int taken = fd;
    struct input *input = calloc(1, sizeof(*input));
    if (!input)
        return err_oom(err);
    input->stop_fd = input->hurry_fd = -1;
    input->reserve_bytes = hurry_bytes;
    input->fd = TAKE_FD(taken);
    input->buffer = malloc(INPUT_HELD_MAX + INPUT_READ_BYTES);
    input->bytes = input->buffer;
    pthread_mutex_init(&input->lock, NULL);
    pthread_cond_init(&input->arrived, NULL);
    pthread_cond_init(&input->paced, NULL);
    input->allowed_bytes = UINT64_MAX;
    /* Refused above the user's share of pipe memory, and for what is no pipe: it is only faster. */
    fcntl(input->fd, F_SETPIPE_SZ, PIPE_BYTES);
    bool ok = input->buffer ? stop_new(&input->stop_fd, err) && stop_new(&input->hurry_fd, err) &&
                                  fd_set_nonblocking(input->fd, err)
                            : err_oom(err);
    if (!ok)
        input_free(input);
    else
        *ret_input = input;
    return ok;
}

void input_free(struct input *input)
{
    if (!input)
        return;
    input_close(input);
    if (input->stop_fd >= 0)
        close(input->stop_fd);
    if (input->hurry_fd >= 0)
        close(input->hurry_fd);
    if (input->reserve)
        munmap(input->reserve, INPUT_HELD_MAX + input->reserve_bytes);
    pthread_cond_destroy(&input->arrived);
    pthread_cond_destroy(&input->paced);
    pthread_mutex_destroy(&input->lock);
    free(input->buffer);
    free(input);
}

void input_close(struct input *input)
{
    pthread_mutex_lock(&input->lock);
    bool has_gulper = input->reserve && !input->closed;
    input->closed = true;
    pthread_cond_broadcast(&input->paced);
    pthread_mutex_unlock(&input->lock);
    if (has_gulper) {
        stop_set(input->stop_fd);
        pthread_join(input->gulper, NULL);
    }
    if (input->fd >= 0)
        close(TAKE_FD(input->fd));
}

void input_stop(struct input *input)
{
    stop_set(input->stop_fd);
    pthread_mutex_lock(&input->lock);
    input->stopped = true;
    pthread_cond_broadcast(&input->paced);
    pthread_mutex_unlock(&input->lock);
}

/* --- pacing --- */

void input_pace(struct input *input, uint64_t bytes)
{
    pthread_mutex_lock(&input->lock);
    input->allowed_bytes = bytes;
    pthread_cond_broadcast(&input->paced);
    pthread_mutex_unlock(&input->lock);
}

uint64_t input_paced(struct input *input, int wait_ms)
{
    struct timespec until;
    int waited = 0;
    clock_gettime(CLOCK_REALTIME, &until);
    until.tv_nsec += (long)(wait_ms % 1000) * 1000000;
    until.tv_sec += wait_ms / 1000 + until.tv_nsec / 1000000000;
    until.tv_nsec %= 1000000000;
    pthread_mutex_lock(&input->lock);
    while (input->allowed_bytes > 0 && !input->closed && waited == 0)
        waited = pthread_cond_timedwait(&input->paced, &input->lock, &until);
    uint64_t left = input->closed ? 0 : input->allowed_bytes;
    pthread_mutex_unlock(&input->lock);
    return left;
}

/* With the lock held: how much of `room` may be read; waits while it is nothing. 0: things have changed, look again. */
static size_t wait_for_allowance(struct input *input, size_t room)
{
    if (input->allowed_bytes == 0 && !input->closed && !input->stopped)
        pthread_cond_wait(&input->paced, &input->lock);
    return (size_t)min_u64(room, input->allowed_bytes);
}

/* With the lock held. */
static void spend_allowance(struct input *input, size_t bytes)
{
    if (input->allowed_bytes == UINT64_MAX)
        return;
    input->allowed_bytes -= min_u64(bytes, input->allowed_bytes); /* it may have been set anew meanwhile */
    if (input->allowed_bytes == 0)
        pthread_cond_broadcast(&input->paced);
}

/* One read that does not wait; *ret_length stays negative if there was nothing yet. */
static bool read_once(int fd, void *bytes, size_t length, ssize_t *ret_length, struct err *err)
{
    ssize_t got = read(fd, bytes, length);
    if (got < 0 && errno != EAGAIN && errno != EINTR)
        return err_sys(err, errno, "read the migration stream");
    *ret_length = got;
    return true;
}

/* The second thread: until the end of the stream, of the reserve, or a stop. */
static void *gulp(void *context)
{
    struct input *input = context;
    struct err err = ERR_INIT;
    bool ok = true, at_end = false, closed = false;
    size_t filled = 0;
    while (ok && !at_end && !closed && filled < input->reserve_bytes) {
        ssize_t got = -1;
        pthread_mutex_lock(&input->lock);
        size_t room = wait_for_allowance(input, (size_t)min_u64(input->reserve_bytes - filled, INPUT_READ_BYTES));
        closed = input->closed || input->stopped;
        pthread_mutex_unlock(&input->lock);
        if (closed || room == 0)
            continue;
        ok = read_once(input->fd, input->reserve + INPUT_HELD_MAX + filled, room, &got, &err);
        if (ok && got < 0)
            ok = stop_wait(input->stop_fd, input->fd, POLLIN, &err);
        at_end = got == 0;
        if (got <= 0)
            continue;
        filled += (size_t)got;
        pthread_mutex_lock(&input->lock);
        input->filled = filled;
        closed = input->closed;
        spend_allowance(input, (size_t)got);
        pthread_cond_signal(&input->arrived);
        pthread_mutex_unlock(&input->lock);
    }
    pthread_mutex_lock(&input->lock);
    input->gulp_ended = true;
    input->gulp_ok = ok;
    input->gulp_at_end = at_end;
    input->gulp_err = err;
    pthread_cond_signal(&input->arrived);
    pthread_mutex_unlock(&input->lock);
    return NULL;
}

/* Without memory or a thread for it all goes on as before, only slower: no error. */
void input_hurry(struct input *input)
{
    struct err ignored;
    pthread_mutex_lock(&input->lock);
    bool first = !input->hurried && !input->closed;
    input->hurried = true;
    void *reserve = MAP_FAILED;
    if (first)
        reserve = mmap(NULL, INPUT_HELD_MAX + input->reserve_bytes, PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (reserve != MAP_FAILED) {
        input->reserve = reserve;
        input->gulping = thread_start(gulp, input, "ram-hurry", &input->gulper, &ignored);
        if (!input->gulping)
            munmap(TAKE(input->reserve), INPUT_HELD_MAX + input->reserve_bytes);
    }
    uint8_t *next = input->reserve ? input->reserve + (input->filled + 4095) / 4096 * 4096 : NULL;
    size_t left = input->reserve_bytes - min_u64(input->reserve_bytes, input->filled + 4096);
    pthread_cond_broadcast(&input->paced);
    pthread_mutex_unlock(&input->lock);
    /* Memory for what comes next, before somebody waits for it; without it the faults take their time. */
    if (next)
        (void)madvise(next, min_u64(left / 4096 * 4096, AHEAD_BYTES), MADV_POPULATE_WRITE);
    stop_set(input->hurry_fd);
}

/* Puts what is held in front of where the next bytes will stand, when it is elsewhere. */
static void move_held(struct input *input, uint8_t *next, bool in_reserve)
{
    memmove(next - input->length, input->bytes, input->length);
    input->bytes = next - input->length;
    input->in_reserve = in_reserve;
}

/* With the lock held, while the second thread reads: what it has brought. *ret_got: more is held now. */
static bool more_from_gulper(struct input *input, bool *ret_got, bool *ret_end, struct err *err)
{
    while (input->filled == input->seen && !input->gulp_ended)
        pthread_cond_wait(&input->arrived, &input->lock);
    if (!input->in_reserve)
        move_held(input, input->reserve + INPUT_HELD_MAX, true);
    *ret_got = input->filled > input->seen;
    input->length += input->filled - input->seen;
    input->seen = input->filled;
    if (*ret_got)
        return true;
    if (!input->gulp_ok) {
        *err = input->gulp_err;
        return false;
    }
    *ret_end = input->gulp_at_end;
    input->gulping = input->gulp_at_end; /* else it was full: this thread reads again */
    return true;
}

static bool more_from_pipe(struct input *input, bool *ret_got, bool *ret_end, struct err *err)
{
    ssize_t got = -1;
    size_t room = wait_for_allowance(input, INPUT_READ_BYTES);
    if (input->stopped)
        return err_set(err, ERR_CANCELLED, "given up");
    if (room == 0 || input->gulping)
        return true;
    move_held(input, input->buffer + INPUT_HELD_MAX, false);
    if (!read_once(input->fd, input->buffer + INPUT_HELD_MAX, room, &got, err))
        return false;
    spend_allowance(input, got > 0 ? (size_t)got : 0);
    *ret_got = got > 0;
    *ret_end = got == 0;
    input->length += got > 0 ? (size_t)got : 0;
    return true;
}

static bool wait_for_input(struct input *input, struct err *err)
{
    struct pollfd fds[] = {{.fd = input->stop_fd, .events = POLLIN},
                           {.fd = input->hurry_fd, .events = POLLIN},
                           {.fd = input->fd, .events = POLLIN}};
    while (poll(fds, ARRAY_SIZE(fds), -1) < 0) {
        if (errno != EINTR)
            return err_sys(err, errno, "poll");
    }
    uint64_t count = 0;
    if (fds[1].revents && read(input->hurry_fd, &count, sizeof(count)) < 0 && errno != EAGAIN)
        return err_sys(err, errno, "eventfd");
    if (fds[0].revents)
        return err_set(err, ERR_CANCELLED, "given up");
    return true;
}

bool input_more(struct input *input, bool *ret_end, struct err *err)
{
    for (;;) {
        bool got = false, end = false;
        pthread_mutex_lock(&input->lock);
        bool from_gulper = input->gulping, may_wait = false;
        bool ok =
            from_gulper ? more_from_gulper(input, &got, &end, err) : more_from_pipe(input, &got, &end, err);
        may_wait = input->allowed_bytes > 0 && !input->gulping;
        pthread_mutex_unlock(&input->lock);
        if (!ok)
            return false;
        if (got || end) {
            *ret_end = end;
            return true;
        }
        if (!from_gulper && may_wait && !wait_for_input(input, err))
            return false;
    }
}

const uint8_t *input_bytes(const struct input *input, size_t *ret_length)
{
    *ret_length = input->length;
    return input->bytes;
}

void input_take(struct input *input, size_t length)
{
    input->bytes += length;
    input->length -= length;
}
