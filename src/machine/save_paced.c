/* Pre-copy in several passes of which each ends while the guest stands (TCG; save.c tells why it must).
 *
 * QEMU reads its bitmap of changed pages when less is left to copy than a limit, downtime-limit times the bandwidth, which
 * it is told (avail-switchover-bandwidth) or, before, measures anew each 100 ms. So that it does not come there while the
 * guest runs, the reader of the pipe takes no more than it is told to, and QEMU waits in a write.
 *
 *   pace, query-migrate ...     runs; until little more than the limit is left
 *   flush the disks             runs; what is dirty now need not be flushed behind STOP
 *   stop                        stands
 *   pace: go on                 stands; QEMU comes below the limit and reads the bitmap
 *   <- MIGRATION_PASS
 *   query-migrate               how much has changed since the reading before?
 *   much: pace: halt,
 *   [forget,] cont              runs; the next pass, over what has changed
 *   little: pace: all           stands; QEMU copies it, finds nothing more, and goes on to the instant
 *
 * How far QEMU may come with so many bytes depends on what the pages hold: a page of zeros takes 9 bytes, any other 4104. In the
 * first pass all may be zeros. Later ones hold what the guest has written; there the pages of the pass so far
 * are the measure, with a margin. Where it is not enough the bitmap is read while the guest runs: that is heard, and
 * all is done again, in one pass. */
#include "save_private.h"

#include "bytes.h"
#include "log.h"

#include <inttypes.h>
#include <poll.h>
#include <string.h>
#include <time.h>

#define PAGE_BYTES        4096
#define NEAR_PAGES        64  /* how near to the end of a pass the guest is stopped, at least: twice the limit that is told */
#define WINDOW_MS         100 /* in which QEMU measures its bandwidth, at least */
#define FIRST_MORE_PAGES  300 /* and farther from the end of the first, whose last pages may be zeros: coming nearer takes long */
#define RECORD_BYTES_MIN  16  /* what a page takes in the stream: of zeros 9 and, now and then, a header */
#define RECORD_MARGIN     3   /* pages may become so much smaller than they were in this pass so far */
#define STEP_BYTES_MAX    (64 << 20) /* read between two looks */
#define COPIED_PAGES_A_MS 150        /* with margin */
#define HELD_LOOKS        20         /* of 50 us, between looks at the rest of the world */
#define UNREAD_BYTES      (SAVE_PACED_PIPE_BYTES + (256 << 10)) /* what QEMU has counted, and nobody has read: less than this */

struct pass {
    uint64_t first_pages; /* left at its beginning */
    uint64_t pages;       /* left */
    uint64_t bytes;       /* read */
    uint64_t all_bytes;   /* read in all passes */
    /* Of QEMU's bandwidth: the last value, what had been read at the last look, and before its window began. */
    double mbit_a_s;
    uint64_t looked_bytes, window_bytes;
    bool is_over;         /* QEMU copies no more, or the guest has stopped by itself */
};

static void pace(const struct saving *saving, uint64_t bytes)
{
    saving->save->pace(saving->save->context, bytes);
}

/* Hears what has come. */
static bool listen(struct saving *saving, int wait_ms, bool *ret_is_over)
{
    if (!saving_listen(saving, wait_ms) || !saving_check_others(saving) || !saving_check_exact(saving))
        return false;
    bool own_stop = saving->stop_us != saving->asked_stop_us;
    if (own_stop && !saving->pre_switchover && !saving_check_own_stop(saving))
        return false;
    *ret_is_over = saving->pre_switchover || saving->guest_stopped;
    return true;
}

/* How many pages are left by QEMU's count. */
static bool look(struct saving *saving, struct pass *pass)
{
    json_t *value = NULL;
    if (!machine_execute(saving->machine, "query-migrate", NULL, -1, &value, saving->err))
        return false;
    const char *status = json_string_value(json_object_get(value, "status"));
    json_t *ram = json_object_get(value, "ram");
    json_int_t left = json_integer_value(json_object_get(ram, "remaining"));
    pass->is_over |= !status || strcmp(status, "active") != 0 || !ram;
    pass->pages = left > 0 ? (uint64_t)left / PAGE_BYTES : 0;
    double mbit_a_s = json_number_value(json_object_get(ram, "mbps"));
    if (mbit_a_s != pass->mbit_a_s) /* a window has ended since the last look */
        pass->window_bytes = pass->looked_bytes;
    pass->mbit_a_s = mbit_a_s;
    pass->looked_bytes = pass->all_bytes;
    json_decref(value);
    return true;
}

/* What a page will take at least. */
static uint64_t record_bytes(const struct saving *saving, const struct pass *pass)
{
    uint64_t pages = pass->first_pages - min_u64(pass->pages, pass->first_pages);
    if (saving->passes < 2 || pages == 0)
        return RECORD_BYTES_MIN;
    return max_u64(RECORD_BYTES_MIN, pass->bytes / pages / RECORD_MARGIN);
}

/* QEMU's limit lies below that: the one that follows from the present bandwidth, and the one that it may compute next. */
static uint64_t near_pages(const struct saving *saving, const struct pass *pass)
{
    if (!saving->is_old)
        return NEAR_PAGES;
    uint64_t window_bytes = pass->all_bytes - pass->window_bytes + UNREAD_BYTES;
    uint64_t now_bytes_a_ms = (uint64_t)(pass->mbit_a_s * 1000 / 8);
    uint64_t limit_bytes = max_u64(now_bytes_a_ms, window_bytes / WINDOW_MS) * SAVE_PACED_LIMIT_MS;
    return max_u64(NEAR_PAGES, limit_bytes / PAGE_BYTES * 5 / 4);
}

/* QEMU may write no more. With the buffer of its own, of 32 pages, which it fills next, that is where it waits. */
static bool is_full(const struct saving *saving)
{
    struct pollfd pipe = {.fd = saving->pipe_fd, .events = POLLOUT};
    return poll(&pipe, 1, 0) == 0;
}

/* Until QEMU waits again. Before that its count tells nothing of how far it may come. */
static bool wait_until_held(struct saving *saving, struct pass *pass)
{
    for (unsigned look = 0; !is_full(saving); look++) {
        if (look % HELD_LOOKS == HELD_LOOKS - 1 && !listen(saving, 0, &pass->is_over))
            return false;
        if (pass->is_over)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 50000}, NULL);
    }
    return true;
}

/* The guest runs, until little is left of the pass. The last pages of the first one, which may be zeros, would take long. */
static bool approach(struct saving *saving, struct pass *pass)
{
    for (;;) {
        if (!listen(saving, 0, &pass->is_over) || !wait_until_held(saving, pass) ||
            (!pass->is_over && !look(saving, pass)))
            return false;
        uint64_t near = near_pages(saving, pass);
        if (pass->is_over || pass->pages <= near * 2 + (saving->passes < 2 ? FIRST_MORE_PAGES : 0))
            return true;
        uint64_t bytes = min_u64((pass->pages - near) * record_bytes(saving, pass), STEP_BYTES_MAX);
        pace(saving, bytes);
        while (!pass->is_over && saving->save->paced(saving->save->context, SAVE_LOOK_MS) > 0)
            if (!listen(saving, 0, &pass->is_over))
                return false;
        pass->bytes += bytes;
        pass->all_bytes += bytes;
    }
}

/* The guest stands, until the bitmap has been read. */
static bool read_changes(struct saving *saving, struct pass *pass)
{
    uint64_t passes = saving->passes;
    saving->save->before_stop(saving->save->context);
    /* Asked before QEMU may go on: with nothing changed it comes to the end at once, in a run state of its own. */
    if (!saving_stop(saving) || !saving_check_stopped(saving))
        return false;
    pace(saving, pass->pages * (PAGE_BYTES + 16) + 2 * UNREAD_BYTES);
    pass->all_bytes += pass->pages * PAGE_BYTES;
    while (saving->passes == passes && !pass->is_over)
        if (!listen(saving, SAVE_LOOK_MS, &pass->is_over))
            return false;
    return pass->is_over || look(saving, pass);
}

/* Little enough to be copied while the guest stands? The less the passes help the more that may be. */
static bool is_little(struct saving *saving, const struct pass *pass, uint64_t before_pages)
{
    bool did_not_help = saving->passes > 2 && pass->pages > before_pages / 4 * 3;
    unsigned allowed_ms = saving_allowed_ms(saving, did_not_help);
    log_debug("pass %" PRIu64 ": %" PRIu64 " pages have changed, %u ms allowed", saving->passes, pass->pages, allowed_ms);
    uint64_t shortest = near_pages(saving, pass) * 2 + UNREAD_BYTES / PAGE_BYTES; /* would be over before it is held */
    return pass->pages <= max_u64((uint64_t)allowed_ms * COPIED_PAGES_A_MS, shortest);
}

/* Will TCG see what the guest writes from now on? Else this pass is the last, and the guest stands, however much there is. */
static bool may_run(struct saving *saving)
{
    struct err why;
    if (!saving->is_old || machine_forget_written(saving->machine, &why))
        return true;
    log_warning("the pause of this snapshot is longer: %s", why.text);
    return false;
}

/* QEMU that has copied all meanwhile is behind the point where the guest could run on. */
static bool let_run(struct saving *saving, struct pass *pass)
{
    char state[32];
    pace(saving, 0);
    saving->held = false;
    if (machine_continue(saving->machine, saving->err))
        return true;
    pass->is_over = true;
    return machine_run_state(saving->machine, state, saving->err) && strcmp(state, "finish-migrate") == 0;
}

bool saving_copy_paced(struct saving *saving)
{
    struct pass pass = {0};
    pace(saving, 0);
    while (!saving->active && !pass.is_over)
        if (!listen(saving, SAVE_LOOK_MS, &pass.is_over))
            return false;
    pass.is_over |= saving->passes == 0; /* read later than at the set-up: so it stands */
    bool ok = pass.is_over || (look(saving, &pass) && let_run(saving, &pass));
    while (ok && !pass.is_over) {
        uint64_t before_pages = pass.first_pages = pass.pages;
        pass.bytes = 0;
        ok = approach(saving, &pass) && (pass.is_over || read_changes(saving, &pass));
        if (!ok || pass.is_over || is_little(saving, &pass, before_pages) || !may_run(saving))
            break;
        ok = let_run(saving, &pass);
    }
    saving->held = false; /* what follows is the last pass: the guest stands to its end */
    pace(saving, UINT64_MAX);
    return ok;
}
