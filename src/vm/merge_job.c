#include "merge_job.h"

#include "bytes.h"
#include "log.h"
#include "room_merge.h"

#include <errno.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

/* While the machine reads or writes, a step is short, comes to the disk before the next, and then the disk is the machine's for
 * so many times as long. */
#define STEP_BYTES      (1U << 20)
#define IDLE_STEP_BYTES (8U << 20)
#define LEAVES_TIMES    10U
#define NICE            10
/* How often it is looked how much is free. */
#define ROOM_LOOK_BYTES (64U << 20)

struct merge_job {
    struct plan_merging merging; /* its strings are owned */
    char *parent, *child;
    struct engine *engine;
    struct engine **engines;
    size_t engine_count;
    bool hurries;
    int over_fd;
    pthread_t thread;

    pthread_mutex_t mutex; /* over all below */
    pthread_cond_t changed;
    bool paused, stopped, over;
    uint64_t done_bytes, total_bytes;

    /* Of the thread alone; of its joiner behind it. */
    uint64_t requests_seen;
    uint64_t reserve_bytes;             /* left to the machine; 0: it is not known what is free */
    uint64_t began_bytes, looked_bytes; /* what the file took that becomes larger; what was copied at the last look for room */
    bool succeeded;
    struct err err;
    struct disk_merge_mark mark; /* where it begins; then where it was broken off */
};

void merge_job_free(struct merge_job *job)
{
    if (!job)
        return;
    pthread_cond_destroy(&job->changed);
    pthread_mutex_destroy(&job->mutex);
    free(job->engines);
    free(job->parent);
    free(job->child);
    free(job);
}

/* --- when the next step may come --- */

static struct timespec in_us(uint64_t us)
{
    struct timespec when;

    clock_gettime(CLOCK_MONOTONIC, &when);
    uint64_t ns = (uint64_t)when.tv_nsec + us % 1000000 * 1000;
    when.tv_sec += (time_t)(us / 1000000 + ns / 1000000000);
    when.tv_nsec = (long)(ns % 1000000000);
    return when;
}

static uint64_t now_us(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000000 + (uint64_t)now.tv_nsec / 1000;
}

/* Leaves the disk alone for so long, and for as long as it is told to pause. False: it is to stop. */
static bool wait_for_turn(struct merge_job *job, uint64_t us)
{
    struct timespec until = in_us(us);
    bool is_time = us == 0;

    pthread_mutex_lock(&job->mutex);
    while (!job->stopped && (job->paused || !is_time)) {
        if (job->paused)
            pthread_cond_wait(&job->changed, &job->mutex);
        else
            is_time = pthread_cond_timedwait(&job->changed, &job->mutex, &until) == ETIMEDOUT;
    }
    bool goes_on = !job->stopped;
    pthread_mutex_unlock(&job->mutex);
    return goes_on;
}

/* Since it was asked last. */
static bool machine_is_busy(struct merge_job *job)
{
    uint64_t requests = 0;

    for (size_t i = 0; i < job->engine_count; i++) {
        struct engine_status status;
        engine_status_get(job->engines[i], &status);
        requests += status.reads + status.writes + status.flushes;
    }
    bool busy = requests != job->requests_seen;
    job->requests_seen = requests;
    return busy;
}

static void note_progress(struct merge_job *job, const struct disk_merging *merging)
{
    pthread_mutex_lock(&job->mutex);
    disk_merging_progress(merging, &job->done_bytes, &job->total_bytes);
    pthread_mutex_unlock(&job->mutex);
}

/* --- room --- */

static uint64_t allocated_bytes(const struct merge_job *job)
{
    struct io_stat stat;

    return io_real.ops->stat(&io_real, merging_stays(&job->merging), &stat) == 0 ? stat.allocated_bytes : 0;
}

static void room_begin(struct merge_job *job)
{
    struct room_fs fs;
    struct err ignored;

    job->began_bytes = allocated_bytes(job);
    if (room_fs_look(merging_stays(&job->merging), &fs, &ignored))
        job->reserve_bytes = room_reserve_bytes(&fs);
}

static uint64_t look_every_bytes(const struct merge_job *job)
{
    return max_u64(STEP_BYTES, min_u64(ROOM_LOOK_BYTES, job->reserve_bytes / 2));
}

/* One that takes no space goes on: it makes room. */
static bool is_room_left(struct merge_job *job, uint64_t copied_bytes, struct err *err)
{
    const char *path = merging_stays(&job->merging);
    struct room_fs fs;
    struct err ignored;
    char has[16], reserve[16];

    if (job->reserve_bytes == 0 || copied_bytes - job->looked_bytes < look_every_bytes(job) / 2)
        return true;
    job->looked_bytes = copied_bytes;
    if (!room_fs_look(path, &fs, &ignored) || fs.free_bytes >= job->reserve_bytes ||
        allocated_bytes(job) <= job->began_bytes + STEP_BYTES)
        return true;
    return err_set(err, ERR_NO_SPACE, "%s: the merge gives way to the guest: %s are free, and %s are left to it", path,
                   size_format(fs.free_bytes, has), size_format(job->reserve_bytes, reserve));
}

/* --- the work --- */

static bool copy_steps(struct merge_job *job, struct disk_merging *merging, struct err *err)
{
    uint64_t leave_us = 0, idle_step = min_u64(IDLE_STEP_BYTES, look_every_bytes(job));
    bool more = true;

    while (more) {
        if (!wait_for_turn(job, leave_us))
            return err_set(err, ERR_CANCELLED, "the merge is broken off; it can be begun again");
        bool yields = !job->hurries && machine_is_busy(job);
        uint64_t start_us = now_us();
        if (!disk_merging_step(merging, yields ? STEP_BYTES : idle_step, &more, err))
            return false;
        if (!job->hurries)
            disk_merging_settle(merging);
        leave_us = yields ? LEAVES_TIMES * (now_us() - start_us) : 0;
        note_progress(job, merging);
        if (more && !is_room_left(job, disk_merging_copied_bytes(merging), err))
            return false;
    }
    return true;
}

static bool copy_images(struct merge_job *job, struct err *err)
{
    const struct disk_merge_mark begin = job->mark;
    const struct disk_merge_options options = {
        .direction = job->merging.direction == MERGE_UP ? DISK_MERGE_UP : DISK_MERGE_DOWN,
        .into_base = true, /* the plan knows whether it may be */
        .borrowed = job->engine != NULL,
        .parent_path = job->parent,
        .mark = &begin,
    };
    AUTO_DISK_MERGING struct disk_merging *merging = NULL;
    struct err ignored;

    job->mark = (struct disk_merge_mark){0};
    if (!disk_merging_open(&io_real, job->child, &options, /* progress= */ NULL, &merging, err))
        return false;
    note_progress(job, merging);
    if (job->done_bytes > 0)
        log_info("%s: the merge goes on behind %" PRIu64 " of %" PRIu64 " bytes", job->child, job->done_bytes, job->total_bytes);
    room_begin(job);
    bool copied = copy_steps(job, merging, err);
    if (!disk_merging_finish(merging, copied ? err : &ignored))
        return false;
    (void)!disk_merging_mark(merging, &job->mark, &ignored);
    return copied;
}

static bool copy(struct merge_job *job, struct err *err)
{
    const char *paths[2];
    size_t count = 0;

    if (job->merging.child_is_empty)
        return vhd_check_empty(&io_real, job->child, err);
    /* By a merge that was cut off behind the engine's part, one of them may have been left out of its chain. */
    for (int i = 0; job->engine && i < 2; i++) {
        const char *path = i == 0 ? job->child : job->parent;
        if (engine_has(job->engine, path))
            paths[count++] = path;
    }
    if (count > 0 && !engine_lend(job->engine, paths, count, err))
        return false;
    bool copied = copy_images(job, err);
    if (count > 0)
        engine_take_back(job->engine);
    return copied;
}

static bool work(struct merge_job *job, struct err *err)
{
    const char *gone = merging_gone(&job->merging);

    if (!copy(job, err))
        return false;
    return !job->engine || !engine_has(job->engine, gone) ||
           engine_merged(job->engine, merging_stays(&job->merging), gone, err);
}

static void *thread_main(void *argument)
{
    struct merge_job *job = argument;

    (void)setpriority(PRIO_PROCESS, (id_t)gettid(), NICE);
    if (!job->hurries)
        machine_is_busy(job);
    job->succeeded = work(job, &job->err);
    pthread_mutex_lock(&job->mutex);
    job->over = true;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->mutex);
    eventfd_write(job->over_fd, 1);
    return NULL;
}

/* --- for others --- */

static struct merge_job *job_new(const struct merge_job_options *options)
{
    struct merge_job *job = calloc(1, sizeof *job);
    pthread_condattr_t clock;

    if (!job)
        return NULL;
    pthread_mutex_init(&job->mutex, NULL);
    pthread_condattr_init(&clock);
    pthread_condattr_setclock(&clock, CLOCK_MONOTONIC);
    pthread_cond_init(&job->changed, &clock);
    pthread_condattr_destroy(&clock);
    job->merging = *options->merging;
    job->merging.parent = job->parent = strdup(options->merging->parent);
    job->merging.child = job->child = strdup(options->merging->child);
    job->engine = options->engine;
    job->engines = calloc(options->engine_count + 1, sizeof(struct engine *));
    job->hurries = options->hurries;
    job->over_fd = options->over_fd;
    if (options->mark)
        job->mark = *options->mark;
    job->total_bytes = options->merging->bytes;
    if (job->parent && job->child && job->engines)
        return job;
    merge_job_free(job);
    return NULL;
}

bool merge_job_start(const struct merge_job_options *options, struct merge_job **ret_job, struct err *err)
{
    struct merge_job *job = job_new(options);

    if (!job)
        return err_oom(err);
    for (size_t i = 0; i < options->engine_count; i++)
        if (options->engines[i])
            job->engines[job->engine_count++] = options->engines[i];
    int errnum = pthread_create(&job->thread, NULL, thread_main, job);
    if (errnum != 0) {
        merge_job_free(job);
        return err_sys(err, errnum, "thread of a merge");
    }
    pthread_setname_np(job->thread, "bough-merge");
    *ret_job = job;
    return true;
}

static void job_tell(struct merge_job *job, bool paused, bool stopped)
{
    pthread_mutex_lock(&job->mutex);
    job->paused = paused;
    job->stopped = job->stopped || stopped;
    pthread_cond_broadcast(&job->changed);
    pthread_mutex_unlock(&job->mutex);
}

void merge_job_pause(struct merge_job *job, bool paused)
{
    job_tell(job, paused, /* stopped= */ false);
}

bool merge_job_is_over(struct merge_job *job)
{
    pthread_mutex_lock(&job->mutex);
    bool over = job->over;
    pthread_mutex_unlock(&job->mutex);
    return over;
}

bool merge_job_join(struct merge_job *job, struct err *err)
{
    job_tell(job, /* paused= */ false, /* stopped= */ true);
    pthread_join(job->thread, NULL);
    if (!job->succeeded)
        *err = job->err;
    return job->succeeded;
}

const struct disk_merge_mark *merge_job_mark(const struct merge_job *job)
{
    return &job->mark;
}

const struct plan_merging *merge_job_merging(const struct merge_job *job)
{
    return &job->merging;
}

void merge_job_progress(struct merge_job *job, uint64_t *ret_done, uint64_t *ret_total)
{
    pthread_mutex_lock(&job->mutex);
    *ret_done = job->done_bytes;
    *ret_total = job->total_bytes;
    pthread_mutex_unlock(&job->mutex);
}
