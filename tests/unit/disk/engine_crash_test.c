/* The power goes while requests are in flight, flushes run and tops are switched: afterwards each sector is
 * what the last answered flush stood for, or something that was written later. The real disk, on files that
 * forget what was not synced. A sector holds its own number and a version that only grows. */
#include "bytes.h"
#include "engine_core.h"
#include "io_memory.h"
#include "random.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

enum { JOBS = 24, JOB_SECTORS = 1024, SECTORS = JOBS * JOB_SECTORS, WRITE_SECTORS = 16, SEEDS = 150 };
#define SIZE_BYTES ((uint64_t)SECTORS * 512)

struct world;

struct job {
    struct request request;
    struct world *world;
    bool busy;
    uint32_t first, count;       /* sectors of a write */
    uint32_t stood_for[SECTORS]; /* of a flush: the versions that were answered when it was asked for */
    uint8_t bytes[WRITE_SECTORS * 512];
};

struct world {
    struct random random;
    struct io_memory *memory;
    struct ring *ring;
    struct disk *disk;
    struct core core;
    char top[32];
    unsigned tops, switches_done;
    uint32_t submitted[SECTORS], answered[SECTORS], durable[SECTORS];
    struct job jobs[JOBS];
};

static void must(bool ok, const struct err *err)
{
    if (!ok)
        fail_msg("%s", err->text);
}

static void raise_to(uint32_t *versions, const uint32_t *at_least)
{
    for (unsigned i = 0; i < SECTORS; i++)
        if (versions[i] < at_least[i])
            versions[i] = at_least[i];
}

static void job_done(struct request *request, int errnum)
{
    struct job *job = (struct job *)(void *)request;
    struct world *world = job->world;

    assert_int_equal(errnum, 0);
    job->busy = false;
    if (request->kind == REQUEST_FLUSH) {
        raise_to(world->durable, job->stood_for);
        return;
    }
    for (uint32_t i = job->first; i < job->first + job->count; i++) {
        world->answered[i] = world->submitted[i];
        if (request->fua)
            world->durable[i] = world->submitted[i];
    }
}

static void write_submit(struct world *world, struct job *job)
{
    uint32_t region = (uint32_t)(job - world->jobs) * JOB_SECTORS;

    job->count = 1 + (uint32_t)random_below(&world->random, WRITE_SECTORS);
    job->first = region + (uint32_t)random_below(&world->random, JOB_SECTORS - job->count);
    for (uint32_t i = 0; i < job->count; i++) {
        uint8_t *sector = job->bytes + (size_t)i * 512;
        put_be32(sector, job->first + i);
        put_be32(sector + 4, ++world->submitted[job->first + i]);
        memcpy(sector + 504, sector, 8);
    }
    job->request.kind = REQUEST_WRITE;
    job->request.fua = random_below(&world->random, 8) == 0;
    job->request.offset = (uint64_t)job->first * 512;
    job->request.length = (uint64_t)job->count * 512;
    job->request.bytes = job->bytes;
}

static void job_submit(struct world *world, struct job *job)
{
    job->world = world;
    job->busy = true;
    job->request.done = job_done;
    if (random_below(&world->random, 6) > 0) {
        write_submit(world, job);
    } else {
        job->request.kind = REQUEST_FLUSH;
        memcpy(job->stood_for, world->answered, sizeof job->stood_for);
    }
    core_submit(&world->core, &job->request);
}

static void switched(void *context)
{
    struct world *world = context;

    world->switches_done++;
    snprintf(world->top, sizeof world->top, "/vm/top%u.avhd", world->tops);
}

static void switch_submit(struct world *world)
{
    const struct io *io = io_memory_io(world->memory);
    struct vhd_create_options options = {.type = VHD_DIFFERENCING, .parent_path = world->top};
    char path[32];
    struct err err;

    snprintf(path, sizeof path, "/vm/top%u.avhd", ++world->tops);
    must(vhd_create(io, path, &options, &err), &err);
    must(io_sync_dir(io, "/vm", &err), &err);
    must(disk_next_top_open(world->disk, path, &world->core.next_top, &err), &err);
    core_switch_top(&world->core, switched, world);
}

static void world_begin(struct world *world, uint64_t seed)
{
    struct vhd_create_options options = {
        .type = VHD_DYNAMIC, .size_bytes = SIZE_BYTES, .block_bytes = 512 << 10};
    struct err err;

    *world =
        (struct world){.random = {seed}, .top = "/vm/base.vhd", .memory = io_memory_new(IO_MEMORY_FORGETS)};
    const struct io *io = io_memory_io(world->memory);
    must(io_make_dir(io, "/vm", &err) && io_sync_dir(io, "/", &err), &err);
    must(vhd_create(io, world->top, &options, &err) && io_sync_dir(io, "/vm", &err), &err);
    struct disk_options disk_options = {.io = io, .writable = true};
    must(disk_open(world->top, &disk_options, &world->disk, &err), &err);
    must(ring_new(false, &world->ring, &err), &err);
    core_init(&world->core, world->disk, world->ring);
}

static void world_run(struct world *world)
{
    uint64_t steps = 50 + random_below(&world->random, 400);
    struct err err;

    for (uint64_t step = 0; step < steps; step++) {
        struct job *job = &world->jobs[random_below(&world->random, JOBS)];
        if (!job->busy)
            job_submit(world, job);
        if (random_below(&world->random, 60) == 0 && !world->core.switched)
            switch_submit(world);
        if (random_below(&world->random, 3) > 0) {
            must(ring_wait(world->ring, false, &err), &err);
            core_turn(&world->core);
        }
    }
}

static void world_crash(struct world *world)
{
    core_done(&world->core);
    disk_abandon(world->disk);
    ring_free(world->ring);
    io_memory_crash(world->memory, random_next(&world->random));
}

static void sector_check(const struct world *world, uint32_t i, const uint8_t *sector, uint64_t seed)
{
    uint32_t version = get_be32(sector + 4);

    if (version < world->durable[i] || version > world->submitted[i])
        fail_msg("seed %llu: sector %u has version %u, was durable at %u and submitted up to %u",
                 (unsigned long long)seed, i, version, world->durable[i], world->submitted[i]);
    if (version > 0)
        assert_int_equal(get_be32(sector), i);
    assert_memory_equal(sector + 504, sector, 8);
}

static void world_check(struct world *world, uint64_t seed)
{
    struct disk_options options = {.io = io_memory_io(world->memory), .writable = true};
    AUTO_FREE uint8_t *bytes = malloc(SIZE_BYTES);
    struct disk *disk;
    struct err err;

    must(disk_open(world->top, &options, &disk, &err), &err);
    must(disk_read(disk, 0, bytes, SIZE_BYTES, &err), &err);
    for (uint32_t i = 0; i < SECTORS; i++)
        sector_check(world, i, bytes + (size_t)i * 512, seed);
    must(disk_close(disk, &err), &err);
    io_memory_free(world->memory);
}

static void power_cut_leaves_what_was_flushed_or_what_came_later(void **state)
{
    AUTO_FREE struct world *world = malloc(sizeof *world);
    unsigned switches = 0;
    uint64_t durable = 0;

    (void)state;
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        world_begin(world, seed);
        world_run(world);
        world_crash(world);
        switches += world->switches_done;
        for (unsigned i = 0; i < SECTORS; i++)
            durable += world->durable[i] > 0;
        world_check(world, seed);
    }
    /* It means something only if much was durable and tops were switched on the way. */
    assert_true(switches > SEEDS);
    assert_true(durable > SEEDS * 100);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(power_cut_leaves_what_was_flushed_or_what_came_later),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
