/* Merges in both directions and a resize, and the power goes at every change. Behind each cut the chain opens and is sound,
 * what is seen from above is what it was, and the tool, started again, brings it to its end.
 *
 *   test_tools_crash [SEEDS]     a seed says how each cut falls out, and where the data lies */
#include "bytes.h"
#include "disk_tools.h"
#include "io_failing.h"
#include "io_memory.h"
#include "random.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>

#define BLOCK   4096U
#define SIZE    (600U << 10) /* 150 blocks: the table has a second sector */
#define LARGER  (1500U << 10)
#define WRITES  12
#define SECTORS (LARGER / 512)

static struct err err;
static unsigned faults;

struct trial {
    uint64_t seed, cut;
    struct io_memory *memory;
    struct io_failing *failing;
    const struct io *io;     /* the one that fails */
    uint8_t model[SECTORS];  /* the value of all bytes of a sector, seen from the top */
    uint8_t middle[SECTORS]; /* from the image that is merged */
};

static void fail(const struct trial *t, const char *what)
{
    fprintf(stderr, "seed %llu, cut at change %llu: %s: %s\n", (unsigned long long)t->seed,
            (unsigned long long)t->cut, what, err.text);
    exit(1);
}

#define MUST(t, call)                                                                                        \
    do {                                                                                                     \
        if (!(call))                                                                                         \
            fail(t, #call);                                                                                  \
    } while (0)

/* Zeros now and then: they hide what lies below. */
static void write_some(struct trial *t, const char *path, struct random *random, uint8_t *model)
{
    struct disk_options options = {.io = io_memory_io(t->memory), .writable = true};
    uint8_t bytes[40 * 512];
    struct disk *disk = NULL;

    MUST(t, disk_open(path, &options, &disk, &err));
    for (unsigned i = 0; i < WRITES; i++) {
        uint64_t first = random_below(random, SIZE / 512), count = 1 + random_below(random, 40);
        uint8_t value = random_below(random, 3) == 0 ? 0 : (uint8_t)random_next(random);
        count = min_u64(count, SIZE / 512 - first);
        memset(bytes, value, sizeof bytes);
        memset(model + first, value, count);
        MUST(t, disk_write(disk, first * 512, bytes, count * 512, &err));
    }
    MUST(t, disk_close(disk, &err));
}

static void create(struct trial *t, const char *path, enum vhd_type type, const char *parent)
{
    struct vhd_create_options options = {.type = type,
                                         .size_bytes = SIZE,
                                         .parent_path = parent,
                                         .block_bytes = type == VHD_FIXED ? 0 : BLOCK};

    MUST(t, vhd_create(io_memory_io(t->memory), path, &options, &err));
}

static void trial_start(struct trial *t, uint64_t seed, uint64_t cut, enum vhd_type base)
{
    struct random random = {.state = seed};

    *t = (struct trial){.seed = seed, .cut = cut, .memory = io_memory_new(IO_MEMORY_FORGETS)};
    t->failing = io_failing_new(io_memory_io(t->memory));
    t->io = io_failing_io(t->failing);
    create(t, "/base.vhd", base, NULL);
    write_some(t, "/base.vhd", &random, t->model);
    create(t, "/middle.avhd", VHD_DIFFERENCING, "/base.vhd");
    write_some(t, "/middle.avhd", &random, t->model);
    memcpy(t->middle, t->model, sizeof t->model);
    create(t, "/top.avhd", VHD_DIFFERENCING, "/middle.avhd");
    write_some(t, "/top.avhd", &random, t->model);
    io_memory_sync_all(t->memory);
    io_failing_set(t->failing, (struct io_fault){.calls = IO_CALLS_CHANGES,
                                                 .nth = cut,
                                                 .errnum = EIO,
                                                 .done_anyway = seed % 2 == 0,
                                                 .forever = true});
}

static void trial_done(struct trial *t)
{
    io_failing_free(t->failing);
    io_memory_free(t->memory);
}

static void count_harm(void *context, const struct disk_fault *fault)
{
    (void)context;
    if (!fault->harmless)
        faults++;
}

static void check(struct trial *t, const char *path, const uint8_t *model, uint64_t sectors)
{
    struct disk_options options = {.io = io_memory_io(t->memory)};
    AUTO_DISK struct disk *disk = NULL;
    uint8_t bytes[512], want[512];

    faults = 0;
    MUST(t, disk_check(options.io, path, count_harm, NULL, NULL, &err));
    MUST(t, faults == 0);
    MUST(t, disk_open(path, &options, &disk, &err));
    for (uint64_t s = 0; s < sectors; s++) {
        memset(want, model[s], sizeof want);
        MUST(t, disk_read(disk, s * 512, bytes, sizeof bytes, &err));
        if (memcmp(want, bytes, sizeof bytes) != 0) {
            snprintf(err.text, sizeof err.text, "%s: sector %llu is %u, not %u", path, (unsigned long long)s,
                     bytes[0], want[0]);
            fail(t, "wrong content");
        }
    }
}

/* --- merge --- */

/* Of the middle into the base, or upwards: the top takes what the middle has. */
static bool merge(const struct io *io, bool up)
{
    static const char *const CHILDREN[] = {"/top.avhd"};
    const struct disk_merge_options down_options = {.into_base = true, .children = CHILDREN, .child_count = 1};
    const struct disk_merge_options up_options = {.direction = DISK_MERGE_UP, .parent_path = "/middle.avhd"};
    struct disk_merge_result result = {0};
    bool ok = disk_merge(io, up ? "/top.avhd" : "/middle.avhd", up ? &up_options : &down_options, NULL, &result, &err);

    free(result.parent_path);
    return ok;
}

/* False when there was no change left to cut off at. */
static bool merge_trial(uint64_t seed, uint64_t cut, bool up)
{
    struct trial t;

    trial_start(&t, seed, cut, seed % 3 == 0 ? VHD_FIXED : VHD_DYNAMIC);
    bool done = merge(t.io, up), struck = io_failing_struck(t.failing);
    MUST(&t, done == !struck);
    io_memory_crash(t.memory, seed * 1000003 + cut);
    check(&t, "/top.avhd", t.model, SIZE / 512);
    check(&t, "/middle.avhd", t.middle, SIZE / 512);
    /* Upwards it is over once the top is linked to the base, whoever was told so. */
    MUST(&t, merge(io_memory_io(t.memory), up) || (up && err.code == ERR_MISMATCH));
    check(&t, "/middle.avhd", t.middle, SIZE / 512);
    MUST(&t, io_unlink(io_memory_io(t.memory), "/middle.avhd", &err));
    check(&t, "/top.avhd", t.model, SIZE / 512);
    if (!up)
        check(&t, "/base.vhd", t.middle, SIZE / 512);
    trial_done(&t);
    return struck;
}

/* --- another parent for a top that is written to --- */

#define BETWEEN 32 /* sectors, at the end: written and never flushed, so that they may hold either */

static bool write_between(struct disk *disk, uint8_t value)
{
    uint8_t bytes[BETWEEN * 512];

    memset(bytes, value, sizeof bytes);
    return disk_write(disk, SIZE - sizeof bytes, bytes, sizeof bytes, &err);
}

/* As an engine does it (engine_reparent_top()), with new blocks at every point. */
static bool relink(struct disk *disk, const struct vhd *image)
{
    AUTO(vhd_relink_done) struct vhd_relink made = {0};
    uint8_t footer[VHD_FOOTER_BYTES];
    uint64_t offset;

    if (!vhd_relink_make(image, "/base.vhd", 0, &made, &err) || !disk_top_append(disk, made.length, &offset, &err))
        return false;
    vhd_relink_done(&made);
    if (!vhd_relink_make(image, "/base.vhd", offset, &made, &err) || !write_between(disk, 1) ||
        !io_write(image->file, offset, made.bytes, made.length, &err) || !io_sync(image->file, &err))
        return false;
    disk_top_link(disk, &made);
    vhd_footer_encode(&made.footer, footer);
    return write_between(disk, 2) && disk_flush(disk, &err) && write_between(disk, 3) &&
           io_write(image->file, 0, footer, sizeof footer, &err) && io_sync(image->file, &err) &&
           disk_flush(disk, &err);
}

static bool relink_open(const struct io *io)
{
    struct disk_options options = {.io = io, .writable = true};
    AUTO_DISK struct disk *disk = NULL;
    AUTO_VHD struct vhd *image = NULL;

    return disk_open("/top.avhd", &options, &disk, &err) &&
           vhd_open(io, "/top.avhd", IO_WRITE | VHD_UNLOCKED, &image, &err) && relink(disk, image);
}

static bool relink_trial(uint64_t seed, uint64_t cut)
{
    struct trial t;

    trial_start(&t, seed, cut, seed % 3 == 0 ? VHD_FIXED : VHD_DYNAMIC);
    struct disk_merge_options options = {.into_base = true};
    struct disk_merge_result result = {0};
    MUST(&t, disk_merge(io_memory_io(t.memory), "/middle.avhd", &options, NULL, &result, &err));
    free(result.parent_path);
    bool done = relink_open(t.io), struck = io_failing_struck(t.failing);
    MUST(&t, done == !struck);
    io_memory_crash(t.memory, seed * 1000003 + cut);
    check(&t, "/top.avhd", t.model, SIZE / 512 - BETWEEN);
    MUST(&t, relink_open(io_memory_io(t.memory)));
    check(&t, "/top.avhd", t.model, SIZE / 512 - BETWEEN);
    MUST(&t, io_unlink(io_memory_io(t.memory), "/middle.avhd", &err));
    io_memory_crash(t.memory, seed + cut);
    check(&t, "/top.avhd", t.model, SIZE / 512 - BETWEEN);
    trial_done(&t);
    return struck;
}

/* --- resize --- */

static uint64_t size_of(struct trial *t, const char *path)
{
    struct disk_options options = {.io = io_memory_io(t->memory)};
    AUTO_DISK struct disk *disk = NULL;

    MUST(t, disk_open(path, &options, &disk, &err));
    return disk_size_bytes(disk);
}

/* The machine starts again, makes the file grow, and the power goes before any flush: where the footers had
 * just been switched, the copy at the start counts now. */
static void grow_and_crash(struct trial *t, uint64_t size)
{
    struct disk_options options = {.io = io_memory_io(t->memory), .writable = true};
    uint8_t bytes[512] = {1};
    struct disk *disk = NULL;

    MUST(t, disk_open("/top.avhd", &options, &disk, &err));
    MUST(t, disk_write(disk, size - 512, bytes, sizeof bytes, &err));
    t->model[size / 512 - 1] = 0; /* that sector is not looked at: it may hold either */
    disk_abandon(disk);
    io_memory_crash(t->memory, t->seed ^ t->cut);
}

/* What is behind the old size reads as zeros; of a fixed image only once the tool has come to its end. */
static bool resize_trial(uint64_t seed, uint64_t cut)
{
    struct trial t;
    struct random random = {.state = seed};

    trial_start(&t, seed, cut, VHD_DYNAMIC);
    bool done = disk_resize(t.io, "/top.avhd", LARGER, NULL, &err), struck = io_failing_struck(t.failing);
    MUST(&t, done == !struck);
    io_memory_crash(t.memory, seed * 1000003 + cut);
    uint64_t size = size_of(&t, "/top.avhd");
    MUST(&t, size == LARGER || (struck && size == SIZE));
    check(&t, "/top.avhd", t.model, size / 512);
    /* Written to in between, as by a machine that starts again: neither size nor data are lost by that. */
    if (seed % 4 < 2)
        write_some(&t, "/top.avhd", &random, t.model);
    check(&t, "/top.avhd", t.model, size / 512);
    grow_and_crash(&t, size);
    MUST(&t, size_of(&t, "/top.avhd") == size);
    check(&t, "/top.avhd", t.model, size / 512 - 1);
    MUST(&t, disk_resize(io_memory_io(t.memory), "/top.avhd", LARGER, NULL, &err));
    check(&t, "/top.avhd", t.model, size / 512 - 1);
    trial_done(&t);
    return struck;
}

static bool resize_fixed_trial(uint64_t seed, uint64_t cut)
{
    struct trial t;
    struct random random = {.state = seed};
    uint8_t model[SECTORS] = {0};

    trial_start(&t, seed, 0, VHD_DYNAMIC);
    create(&t, "/fixed.vhd", VHD_FIXED, NULL);
    write_some(&t, "/fixed.vhd", &random, model);
    io_memory_sync_all(t.memory);
    io_failing_set(t.failing,
                   (struct io_fault){.calls = IO_CALLS_CHANGES, .nth = cut, .errnum = EIO, .forever = true});
    bool done = disk_resize(t.io, "/fixed.vhd", LARGER, NULL, &err), struck = io_failing_struck(t.failing);
    MUST(&t, done == !struck);
    io_memory_crash(t.memory, seed * 1000003 + cut);
    uint64_t size = size_of(&t, "/fixed.vhd");
    MUST(&t, size == LARGER || (struck && size == SIZE));
    check(&t, "/fixed.vhd", model, SIZE / 512);
    MUST(&t, disk_resize(io_memory_io(t.memory), "/fixed.vhd", LARGER, NULL, &err));
    check(&t, "/fixed.vhd", model, done ? LARGER / 512 : SIZE / 512);
    trial_done(&t);
    return struck;
}

int main(int argc, char **argv)
{
    uint64_t seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 12;
    uint64_t merges = 0, upward_merges = 0, relinks = 0, resizes = 0;

    for (uint64_t seed = 0; seed < seeds; seed++) {
        for (uint64_t cut = 1; merge_trial(seed, cut, /* up= */ false); cut++)
            merges++;
        for (uint64_t cut = 1; merge_trial(seed, cut, /* up= */ true); cut++)
            upward_merges++;
        for (uint64_t cut = 1; relink_trial(seed, cut); cut++)
            relinks++;
        for (uint64_t cut = 1; resize_trial(seed, cut); cut++)
            resizes++;
        for (uint64_t cut = 1; resize_fixed_trial(seed, cut); cut++)
            resizes++;
    }
    printf("%llu power cuts in merges down, %llu in merges up, %llu while a top got another parent, %llu in "
           "resizes: nothing that is seen from above has changed\n",
           (unsigned long long)merges, (unsigned long long)upward_merges, (unsigned long long)relinks,
           (unsigned long long)resizes);
    return relinks >= seeds * 10 && merges >= seeds * 20 && upward_merges >= seeds * 20 && resizes >= seeds * 8 ? 0 : 1;
}
