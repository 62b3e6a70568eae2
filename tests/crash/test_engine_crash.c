/* The engine's core with many requests in flight, reads compared with what was written: the power goes, or
 * the process is killed, at every change that it makes on the disk, one after the other.
 *
 * After a power cut each sector holds what the last answered flush (or FUA) stood for or something later;
 * after a kill, by the dirty log, what was last answered or something later. The chain is sound, and takes
 * writes again.
 *
 * The ring under the core is one of its own: what is in flight ends in an order drawn from the seed, and a
 * sync covers sometimes what was written before it was asked for, sometimes what was written before it ended.
 *
 *   test_engine_crash [SEEDS [FIRST_SEED]]      the default is $BOUGH_TEST_SEEDS, or 2 */
#include "bytes.h"
#include "disk_tools.h"
#include "engine_core.h"
#include "file.h"
#include "io_failing.h"
#include "io_memory.h"
#include "random.h"
#include "ring_backend.h"

#include <dirent.h>
#include <errno.h>
#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

enum { JOBS = 16, JOB_SECTORS = 192, SECTORS = JOBS * JOB_SECTORS, RUN = 24, VERSIONS = 48, STEPS = 400 };
#define SIZE_BYTES ((uint64_t)SECTORS * 512)
#define FLYING     (JOBS * REQUEST_PIECES + 2)
#define IMAGES     "/vm"

struct world;

/* --- a ring in which nothing ends when it was asked for --- */

struct late_ring {
    struct ring ring;
    struct random *random;
    const struct io_failing *failing; /* once it has struck nobody hears anything any more */
    bool no_holes;                    /* as on a file system that has none */
    struct {
        struct ring_op *op;
        bool done;
        int64_t result;
    } flying[FLYING];
    size_t count;
};

static int64_t op_do(const struct late_ring *late, const struct ring_op *op)
{
    return op->kind == RING_PUNCH && late->no_holes ? -EOPNOTSUPP : ring_seam_do(op);
}

static void late_submit(struct ring *ring, struct ring_op *op)
{
    struct late_ring *late = (struct late_ring *)ring;
    size_t i = late->count++;

    if (i == FLYING)
        abort();
    late->flying[i].op = op;
    late->flying[i].done = op->kind == RING_SYNC && random_below(late->random, 2) == 0;
    if (late->flying[i].done)
        late->flying[i].result = op_do(late, op);
}

/* What ends may start something else. */
static bool late_wait(struct ring *ring, bool block, struct err *err)
{
    struct late_ring *late = (struct late_ring *)ring;
    size_t endings = late->count == 0 ? 0 : random_below(late->random, late->count + 1);

    (void)err;
    if (block && endings == 0 && late->count > 0)
        endings = 1;
    for (; endings > 0 && !io_failing_struck(late->failing); endings--) {
        size_t i = random_below(late->random, late->count);
        struct ring_op *op = late->flying[i].op;
        int64_t result = late->flying[i].done ? late->flying[i].result : op_do(late, op);
        late->flying[i] = late->flying[--late->count];
        if (!io_failing_struck(late->failing))
            ring_step_ended(ring, op, result);
    }
    return true;
}

static const struct ring_backend LATE_BACKEND = {.submit = late_submit, .wait = late_wait};

/* --- files that go through it --- */

/* The seam of io_failing, but for open: only a file with a descriptor is given to a ring's backend. */
static struct io_ops late_ops;
static const struct io *late_inner;

static int late_open(const struct io *io, const char *path, unsigned flags, struct io_file **ret_file)
{
    int errnum = late_inner->ops->open(late_inner, path, flags, ret_file);

    (void)io;
    if (errnum == 0)
        (*ret_file)->fd = INT_MAX;
    return errnum;
}

/* Calls on paths find the seam behind io: this one's are handed on. */
#define HAND_ON(name, parameters, ...)                                                                       \
    static int late_##name parameters                                                                        \
    {                                                                                                        \
        (void)io;                                                                                            \
        return late_inner->ops->name(late_inner, __VA_ARGS__);                                               \
    }
HAND_ON(stat, (const struct io *io, const char *path, struct io_stat *ret_stat), path, ret_stat)
HAND_ON(unlink, (const struct io *io, const char *path), path)
HAND_ON(sync_dir, (const struct io *io, const char *path), path)
HAND_ON(make_dir, (const struct io *io, const char *path), path)

static const struct io LATE_IO = {.ops = &late_ops};

/* --- the world --- */

struct job {
    struct request request;
    struct world *world;
    bool busy;
    uint32_t first, count;      /* sectors */
    uint8_t stood_for[SECTORS]; /* of a flush: the versions that were answered when it was asked for */
    uint8_t bytes[JOB_SECTORS * 512];
};

struct world {
    uint64_t seed, cut;
    struct random random;
    struct io_memory *memory;
    struct io_failing *failing;
    struct late_ring late;
    struct disk *disk;
    struct core core;
    const char *log_dir; /* NULL: no dirty log */
    char top[32];
    unsigned tops;
    uint32_t block_bytes;
    /* Of each sector the numbers of its last write submitted, answered and durable; 0: none. */
    uint8_t submitted[SECTORS], answered[SECTORS], durable[SECTORS];
    bool zeros[SECTORS][VERSIONS]; /* is the write of that number zeros? */
    struct job jobs[JOBS];
};

static struct err err;

static void fail(const struct world *w, const char *what)
{
    fprintf(stderr, "seed %llu, cut at change %llu%s: %s: %s\n", (unsigned long long)w->seed,
            (unsigned long long)w->cut, w->log_dir ? ", a kill" : "", what, err.text);
    exit(1);
}

#define MUST(w, call)                                                                                        \
    do {                                                                                                     \
        if (!(call))                                                                                         \
            fail(w, #call);                                                                                  \
    } while (0)

static bool over(const struct world *w)
{
    return io_failing_struck(w->failing);
}

static void sector_fill(uint8_t *bytes, uint32_t sector, uint8_t version)
{
    for (uint32_t i = 0; i < 512; i += 8) {
        put_be32(bytes + i, sector);
        put_be32(bytes + i + 4, version);
    }
}

static bool is_version(const struct world *w, uint32_t sector, uint8_t version, const uint8_t *bytes)
{
    uint8_t want[512];

    if (version == 0 || w->zeros[sector][version])
        return bytes_are_zero(bytes, 512);
    sector_fill(want, sector, version);
    return memcmp(bytes, want, sizeof want) == 0;
}

/* Nobody else writes there: the read gives what was written last. */
static void check_read(const struct world *w, const struct job *job)
{
    for (uint32_t i = 0; i < job->count; i++) {
        uint32_t sector = job->first + i;
        snprintf(err.text, sizeof err.text, "sector %u is not its version %u", sector, w->submitted[sector]);
        MUST(w, is_version(w, sector, w->submitted[sector], job->bytes + (size_t)i * 512));
    }
}

static void job_done(struct request *request, int errnum)
{
    struct job *job = (struct job *)(void *)request;
    struct world *w = job->world;

    job->busy = false;
    if (errnum != 0) {
        snprintf(err.text, sizeof err.text, "%s", strerror(errnum));
        MUST(w, over(w));
        return;
    }
    if (request->kind == REQUEST_READ) {
        check_read(w, job);
        return;
    }
    if (request->kind == REQUEST_FLUSH) {
        for (uint32_t s = 0; s < SECTORS; s++)
            w->durable[s] = w->durable[s] < job->stood_for[s] ? job->stood_for[s] : w->durable[s];
        return;
    }
    for (uint32_t s = job->first; s < job->first + job->count; s++) {
        w->answered[s] = w->submitted[s];
        if (request->fua)
            w->durable[s] = w->submitted[s];
    }
}

/* Each job has its own part of the disk: what is in flight does not overlap. Not aligned to blocks, so that
 * two jobs often want the same new block. */
static bool change_prepare(struct world *w, struct job *job, bool zero)
{
    job->count = 1 + (uint32_t)random_below(&w->random, RUN);
    job->first = (uint32_t)(job - w->jobs) * JOB_SECTORS +
                 (uint32_t)random_below(&w->random, JOB_SECTORS - job->count);
    for (uint32_t i = 0; i < job->count; i++)
        if (w->submitted[job->first + i] == VERSIONS - 1)
            return false;
    for (uint32_t i = 0; i < job->count; i++) {
        uint32_t sector = job->first + i;
        uint8_t version = ++w->submitted[sector];
        w->zeros[sector][version] = zero;
        if (!zero)
            sector_fill(job->bytes + (size_t)i * 512, sector, version);
    }
    job->request.fua = random_below(&w->random, 8) == 0;
    job->request.offset = (uint64_t)job->first * 512;
    job->request.length = (uint64_t)job->count * 512;
    job->request.bytes = job->bytes;
    return true;
}

static void read_prepare(struct world *w, struct job *job)
{
    uint32_t offset = (uint32_t)random_below(&w->random, JOB_SECTORS);

    job->first = (uint32_t)(job - w->jobs) * JOB_SECTORS + offset;
    job->count = 1 + (uint32_t)random_below(&w->random, JOB_SECTORS - offset);
    job->request.kind = REQUEST_READ;
    job->request.offset = (uint64_t)job->first * 512;
    job->request.length = (uint64_t)job->count * 512;
    job->request.bytes = job->bytes;
}

static void job_submit(struct world *w, struct job *job)
{
    uint64_t choice = random_below(&w->random, 14);
    bool zero = choice >= 7 && choice < 10;

    job->world = w;
    job->request = (struct request){.done = job_done};
    if (choice < 10) {
        if (!change_prepare(w, job, zero))
            return;
        job->request.kind = !zero ? REQUEST_WRITE : choice == 7 ? REQUEST_ZERO_RESERVED : REQUEST_ZERO;
    } else if (choice < 12) {
        read_prepare(w, job);
    } else {
        job->request.kind = REQUEST_FLUSH;
        memcpy(job->stood_for, w->answered, sizeof job->stood_for);
    }
    job->busy = true;
    core_submit(&w->core, &job->request);
}

static void switched(void *context)
{
    struct world *w = context;

    snprintf(w->top, sizeof w->top, IMAGES "/top%u.avhd", w->tops);
}

static void switch_submit(struct world *w)
{
    struct vhd_create_options options = {
        .type = VHD_DIFFERENCING, .parent_path = w->top, .block_bytes = w->block_bytes};
    char path[32];

    snprintf(path, sizeof path, IMAGES "/top%u.avhd", ++w->tops);
    bool ok = vhd_create(&LATE_IO, path, &options, &err) && io_sync_dir(&LATE_IO, IMAGES, &err) &&
              disk_next_top_open(w->disk, path, &w->core.next_top, &err);
    MUST(w, ok || over(w));
    if (ok)
        core_switch_top(&w->core, switched, w);
}

static void open_top(struct world *w, const struct io *io)
{
    struct disk_options options = {.io = io, .writable = true, .log_dir = w->log_dir};

    MUST(w, disk_open(w->top, &options, &w->disk, &err));
}

static void world_start(struct world *w, uint64_t seed, uint64_t cut, const char *log_dir)
{
    static const uint32_t BLOCKS[] = {4096, 32768, 512 << 10};

    memset(w, 0, sizeof *w);
    w->seed = seed;
    w->cut = cut;
    w->log_dir = log_dir;
    w->random.state = seed;
    w->memory = io_memory_new(IO_MEMORY_FORGETS);
    w->failing = io_failing_new(io_memory_io(w->memory));
    late_inner = io_failing_io(w->failing);
    late_ops = *late_inner->ops;
    late_ops.open = late_open;
    late_ops.stat = late_stat;
    late_ops.unlink = late_unlink;
    late_ops.sync_dir = late_sync_dir;
    late_ops.make_dir = late_make_dir;
    w->late = (struct late_ring){.ring = {.backend = &LATE_BACKEND},
                                 .random = &w->random,
                                 .failing = w->failing,
                                 .no_holes = seed % 3 == 0};
    w->block_bytes = BLOCKS[random_below(&w->random, ARRAY_SIZE(BLOCKS))];
    snprintf(w->top, sizeof w->top, IMAGES "/base.vhd");
    struct vhd_create_options options = {.type = random_below(&w->random, 4) == 0 ? VHD_FIXED : VHD_DYNAMIC,
                                         .size_bytes = SIZE_BYTES};
    options.block_bytes = options.type == VHD_FIXED ? 0 : w->block_bytes;
    MUST(w, io_make_dir(&LATE_IO, IMAGES, &err) && io_sync_dir(io_memory_io(w->memory), "/", &err));
    MUST(w, vhd_create(&LATE_IO, w->top, &options, &err) && io_sync_dir(&LATE_IO, IMAGES, &err));
    open_top(w, &LATE_IO);
    core_init(&w->core, w->disk, &w->late.ring);
    io_failing_set(w->failing, (struct io_fault){.calls = IO_CALLS_CHANGES,
                                                 .nth = cut,
                                                 .errnum = EIO,
                                                 .done_anyway = seed % 2 == 0,
                                                 .forever = true});
}

static void world_run(struct world *w)
{
    for (unsigned step = 0; step < STEPS && !over(w); step++) {
        struct job *job = &w->jobs[random_below(&w->random, JOBS)];
        if (!job->busy)
            job_submit(w, job);
        if (random_below(&w->random, 40) == 0 && !w->core.switched && !over(w))
            switch_submit(w);
        if (random_below(&w->random, 2) == 0) {
            MUST(w, ring_wait(&w->late.ring, false, &err));
            if (!over(w))
                core_turn(&w->core);
        }
    }
}

static void world_leave(struct world *w)
{
    core_done(&w->core);
    disk_abandon(TAKE(w->disk));
}

static void world_end(struct world *w)
{
    disk_abandon(w->disk);
    io_failing_free(w->failing);
    io_memory_free(w->memory);
}

/* --- afterwards --- */

static void check_sector(const struct world *w, uint32_t sector, const uint8_t *at_least,
                         const uint8_t *bytes)
{
    for (unsigned version = at_least[sector]; version <= w->submitted[sector]; version++)
        if (is_version(w, sector, (uint8_t)version, bytes))
            return;
    snprintf(err.text, sizeof err.text, "sector %u holds %08x %08x; wanted version %u to %u", sector,
             get_be32(bytes), get_be32(bytes + 4), at_least[sector], w->submitted[sector]);
    fail(w, "wrong content");
}

static void check_sectors(struct world *w, const uint8_t *at_least)
{
    static uint8_t bytes[SIZE_BYTES];

    MUST(w, disk_read(w->disk, 0, bytes, sizeof bytes, &err));
    for (uint32_t s = 0; s < SECTORS; s++)
        check_sector(w, s, at_least, bytes + (size_t)s * 512);
}

static void no_harm(void *context, const struct disk_fault *fault)
{
    if (fault->harmless)
        return;
    snprintf(err.text, sizeof err.text, "%s: %s", fault->path, fault->text);
    fail(context, "the chain is not sound");
}

static void check_after(struct world *w, const uint8_t *at_least)
{
    const struct io *io = io_memory_io(w->memory);
    uint8_t bytes[512];

    open_top(w, io);
    check_sectors(w, at_least);
    for (unsigned i = 0; i < 8; i++) {
        uint32_t s = (uint32_t)random_below(&w->random, SECTORS);
        w->submitted[s]++;
        w->zeros[s][w->submitted[s]] = false;
        sector_fill(bytes, s, w->submitted[s]);
        MUST(w, disk_write(w->disk, (uint64_t)s * 512, bytes, sizeof bytes, &err));
    }
    MUST(w, disk_close(TAKE(w->disk), &err) && disk_check(io, w->top, no_harm, w, NULL, &err));
    open_top(w, io);
    check_sectors(w, at_least);
}

static uint64_t count_changes(struct world *w, uint64_t seed)
{
    uint64_t durable = 0;

    world_start(w, seed, 0, NULL);
    world_run(w);
    uint64_t changes = io_failing_count(w->failing);
    for (uint32_t s = 0; s < SECTORS; s++)
        durable += w->durable[s] > 0;
    /* It means something only if much was durable. */
    MUST(w, durable > 20);
    world_leave(w);
    world_end(w);
    return changes;
}

static void power_cut(struct world *w, uint64_t seed, uint64_t cut)
{
    world_start(w, seed, cut, NULL);
    world_run(w);
    MUST(w, over(w));
    world_leave(w);
    io_memory_crash(w->memory, seed * 1000003 + cut);
    check_after(w, w->durable);
    world_end(w);
}

static void logs_remove(const char *dir)
{
    AUTO_DIR DIR *open = opendir(dir);
    const struct dirent *entry;

    while (open && (entry = readdir(open)))
        if (entry->d_name[0] != '.' && unlinkat(dirfd(open), entry->d_name, 0) != 0)
            abort();
}

static void kill_at(struct world *w, uint64_t seed, uint64_t cut, const char *log_dir)
{
    world_start(w, seed, cut, log_dir);
    world_run(w);
    MUST(w, over(w));
    world_leave(w);
    check_after(w, w->answered);
    world_end(w);
    logs_remove(log_dir);
}

int main(int argc, char **argv)
{
    const char *setting = getenv("BOUGH_TEST_SEEDS");
    uint64_t seeds = strtoull(argc > 1 ? argv[1] : setting ? setting : "2", NULL, 10);
    uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    char log_dir[] = "/tmp/bough-engine-kills-XXXXXX";
    static struct world world;
    uint64_t cuts = 0;

    if (!mkdtemp(log_dir))
        abort();
    for (uint64_t seed = first; seed < first + seeds; seed++) {
        uint64_t changes = count_changes(&world, seed);
        for (uint64_t cut = 1; cut <= changes; cut++) {
            power_cut(&world, seed, cut);
            kill_at(&world, seed, cut, log_dir);
        }
        cuts += changes;
    }
    rmdir(log_dir);
    printf("%llu power cuts and as many kills in %llu histories from seed %llu, with requests in flight: "
           "each sector is its "
           "last flushed, or answered, value or a later one\n",
           (unsigned long long)cuts, (unsigned long long)seeds, (unsigned long long)first);
    return 0;
}
