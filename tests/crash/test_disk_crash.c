/* The power goes at every change that a history makes on the disk, one after the other; then each sector
 * holds its last flushed value or one written later, whole, and the disk can be written again.
 *
 * Or the process is killed there: then each sector holds its last answered value, by the dirty log, or what was
 * being written. And the power goes in turn while the next process puts the log in place: the log is gone with it.
 *
 * Every written sector is stamped with the number of its write, so that a sector says which write it is of.
 * The history has writes, zeros, flushes (also with writes that come in the middle of them), seals and
 * re-opens.
 *
 *   test_disk_crash [SEEDS [FIRST_SEED]] */
#include "bytes.h"
#include "disk.h"
#include "file.h"
#include "io_failing.h"
#include "io_memory.h"
#include "random.h"

#include <dirent.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <unistd.h>

#define MAX_SECTORS 12288U
#define MAX_RUN     300U
#define OPERATIONS  40
#define CRASHES     2 /* ways in which each cut falls out */
#define IMAGES      "/vm"

/* What a sector may hold: 0 is zeros, else the stamp of a write. */
struct candidates {
    uint32_t *stamps;
    uint32_t count, capacity;
};

struct trial {
    uint64_t seed;
    uint64_t cut; /* the change at which the power goes; 0: never */
    struct random random;
    struct io_memory *memory;
    struct io_failing *failing;
    const struct io *io;
    struct disk *disk;
    uint32_t sectors, block_bytes, base_type;
    unsigned layers, durable_layers; /* layers whose name and content are sure to be there */
    uint32_t stamp;
    struct candidates *sector;
    uint32_t *marks; /* candidates of each sector when the flush under way began */
    uint8_t *bytes;
    bool quiet;                           /* no writes between the steps of a flush */
    const char *log_dir;                  /* NULL: no dirty log */
    uint32_t flying_first, flying_sectors; /* the write that has not been answered */
};

static struct err err;

static void fail(const struct trial *t, const char *what)
{
    fprintf(stderr, "seed %llu, cut at change %llu: %s: %s\n", (unsigned long long)t->seed,
            (unsigned long long)t->cut, what, err.text);
    exit(1);
}

static char *layer_path(unsigned layer)
{
    char *path = string_printf(IMAGES "/%u.%s", layer, layer ? "avhd" : "vhd");

    if (!path)
        abort();
    return path;
}

/* --- stamped sectors --- */

static void stamp_sector(uint8_t *bytes, uint32_t sector, uint32_t stamp)
{
    for (uint32_t i = 0; i < 512; i += 8) {
        put_be32(bytes + i, stamp);
        put_be32(bytes + i + 4, stamp == 0 ? 0 : sector);
    }
}

static void may_hold(struct trial *t, uint32_t sector, uint32_t stamp)
{
    struct candidates *c = &t->sector[sector];

    if (c->count == c->capacity) {
        c->capacity = c->capacity * 2 + 4;
        c->stamps = realloc(c->stamps, c->capacity * sizeof *c->stamps);
        if (!c->stamps)
            abort();
    }
    c->stamps[c->count++] = stamp;
}

static void check_sector(const struct trial *t, uint32_t sector, const uint8_t *bytes)
{
    const struct candidates *c = &t->sector[sector];
    uint8_t whole[512];

    for (uint32_t i = 0; i < c->count; i++) {
        stamp_sector(whole, sector, c->stamps[i]);
        if (memcmp(bytes, whole, sizeof whole) == 0)
            return;
    }
    snprintf(err.text, sizeof err.text, "sector %u holds %08x %08x, %u candidates, the first %u, the last %u",
             sector, get_be32(bytes), get_be32(bytes + 4), c->count, c->stamps[0], c->stamps[c->count - 1]);
    fail(t, "wrong content");
}

/* --- the history; each step is false when the power has gone --- */

static void any_run(struct trial *t, uint32_t *first, uint32_t *count)
{
    uint32_t most = random_below(&t->random, 6) == 0 ? MAX_RUN : 12;

    *first = (uint32_t)random_below(&t->random, t->sectors);
    *count = (uint32_t)(1 + random_below(&t->random, min_u64(most, t->sectors - *first)));
}

/* Is the write of this run answered? */
static bool answered(struct trial *t, uint32_t first, uint32_t count, bool ok)
{
    t->flying_first = first;
    t->flying_sectors = ok ? 0 : count;
    return ok;
}

static bool write_some(struct trial *t)
{
    uint32_t first, count;

    any_run(t, &first, &count);
    t->stamp++;
    for (uint32_t i = 0; i < count; i++) {
        stamp_sector(t->bytes + (size_t)i * 512, first + i, t->stamp);
        may_hold(t, first + i, t->stamp);
    }
    return answered(t, first, count,
                    disk_write(t->disk, (uint64_t)first * 512, t->bytes, (size_t)count * 512, &err));
}

static bool zero_some(struct trial *t)
{
    uint32_t first, count;

    any_run(t, &first, &count);
    for (uint32_t i = 0; i < count; i++)
        may_hold(t, first + i, 0);
    return answered(t, first, count,
                    disk_zero(t->disk, (uint64_t)first * 512, (uint64_t)count * 512, &err));
}

static bool maybe_write(struct trial *t)
{
    return t->quiet || random_below(&t->random, 3) != 0 || write_some(t);
}

static bool flush_steps(struct trial *t, const struct disk_flush *flush)
{
    for (size_t i = 0; i < flush->sync_first_count; i++)
        if (!maybe_write(t) || !io_sync(flush->sync_first[i], &err))
            return false;
    for (size_t i = 0; i < flush->write_count; i++) {
        const struct disk_flush_write *write = &flush->writes[i];
        if (!maybe_write(t) || !io_write(write->file, write->file_offset, write->bytes, write->length, &err))
            return false;
    }
    for (size_t i = 0; i < flush->sync_last_count; i++)
        if (!maybe_write(t) || !io_sync(flush->sync_last[i], &err))
            return false;
    return true;
}

static bool release(struct trial *t)
{
    struct disk_gap gap;

    while (disk_release_next(t->disk, &gap))
        if (gap.length > 0 && !io_zero(gap.file, gap.file_offset, gap.length, &err))
            return false;
    return true;
}

/* A flush with writes between its steps; what was written before it began is sure from its end on. */
static bool flush(struct trial *t)
{
    struct disk_flush *flush;

    for (uint32_t s = 0; s < t->sectors; s++)
        t->marks[s] = t->sector[s].count;
    if (!disk_flush_begin(t->disk, &flush, &err))
        fail(t, "flush_begin");
    bool ok = flush_steps(t, flush);
    disk_flush_end(t->disk, flush, ok ? NULL : &err, false);
    if (!ok || !release(t))
        return false;
    for (uint32_t s = 0; s < t->sectors; s++) {
        struct candidates *c = &t->sector[s];
        uint32_t gone = t->marks[s] - 1;
        memmove(c->stamps, c->stamps + gone, (c->count - gone) * sizeof *c->stamps);
        c->count -= gone;
    }
    return true;
}

static bool create_layer(struct trial *t)
{
    AUTO_FREE char *path = layer_path(t->layers);
    AUTO_FREE char *parent = t->layers > 0 ? layer_path(t->layers - 1) : NULL;
    struct vhd_create_options options = {.type = parent ? VHD_DIFFERENCING : (enum vhd_type)t->base_type,
                                         .size_bytes = (uint64_t)t->sectors * 512,
                                         .block_bytes = t->block_bytes,
                                         .parent_path = parent};

    if (!vhd_create(t->io, path, &options, &err))
        return false;
    t->layers++;
    if (!io_sync_dir(t->io, IMAGES, &err))
        return false;
    t->durable_layers = t->layers;
    return true;
}

static bool seal(struct trial *t)
{
    struct disk_next_top *next;

    if (!create_layer(t))
        return false;
    AUTO_FREE char *path = layer_path(t->layers - 1);
    if (!disk_next_top_open(t->disk, path, &next, &err))
        return false;
    if (!maybe_write(t)) {
        disk_next_top_abandon(next);
        return false;
    }
    disk_seal_and_push(t->disk, next);
    return true;
}

static bool open_top(struct trial *t, const struct io *io, bool writable)
{
    AUTO_FREE char *path = layer_path(t->durable_layers - 1);
    struct disk_options options = {.io = io, .writable = writable, .log_dir = t->log_dir};

    return disk_open(path, &options, &t->disk, &err);
}

/* An orderly close is a flush. All is clean before it: its own steps would take a failed sync for what it is, but
 * here it may stand for a kill. */
static bool reopen(struct trial *t)
{
    t->quiet = true;
    bool flushed = flush(t);
    t->quiet = false;
    if (!flushed)
        return false;
    return disk_close(TAKE(t->disk), &err) && open_top(t, t->io, true);
}

static bool step(struct trial *t)
{
    uint64_t choice = random_below(&t->random, 100);

    if (choice < 55)
        return write_some(t);
    if (choice < 68)
        return zero_some(t);
    if (choice < 86)
        return flush(t);
    if (choice < 94)
        return seal(t);
    return reopen(t);
}

static void run_history(struct trial *t)
{
    for (unsigned i = 0; i < OPERATIONS; i++)
        if (!step(t))
            return;
}

/* --- a trial --- */

static void trial_start(struct trial *t, uint64_t seed, uint64_t cut, const char *log_dir)
{
    static const uint32_t BLOCKS[] = {4096, 65536, 2 << 20};

    *t = (struct trial){.seed = seed, .cut = cut, .random = {.state = seed}, .log_dir = log_dir};
    t->memory = io_memory_new(IO_MEMORY_FORGETS);
    t->failing = io_failing_new(io_memory_io(t->memory));
    t->io = io_failing_io(t->failing);
    t->block_bytes = BLOCKS[random_below(&t->random, 3)];
    t->base_type = random_below(&t->random, 3) == 0 ? VHD_FIXED : VHD_DYNAMIC;
    t->sectors = (uint32_t)(1 + random_below(&t->random, t->block_bytes == 4096 ? 512 : MAX_SECTORS));
    t->sector = calloc(t->sectors, sizeof *t->sector);
    t->marks = calloc(t->sectors, sizeof *t->marks);
    t->bytes = malloc(MAX_RUN * 512);
    if (!t->sector || !t->marks || !t->bytes)
        abort();
    for (uint32_t s = 0; s < t->sectors; s++)
        may_hold(t, s, 0);
    if (!io_make_dir(t->io, IMAGES, &err) || !io_sync_dir(t->io, "/", &err) || !create_layer(t) ||
        !open_top(t, t->io, true))
        fail(t, "start");
    io_failing_set(t->failing, (struct io_fault){.calls = IO_CALLS_CHANGES,
                                                 .nth = cut,
                                                 .errnum = EIO,
                                                 .done_anyway = seed % 2 == 0,
                                                 .forever = true});
}

static void trial_done(struct trial *t)
{
    disk_abandon(t->disk);
    for (uint32_t s = 0; s < t->sectors; s++)
        free(t->sector[s].stamps);
    free(t->sector);
    free(t->marks);
    free(t->bytes);
    io_failing_free(t->failing);
    io_memory_free(t->memory);
}

/* Each sector is one of its candidates, and from now on exactly that one. */
static void check_disk(struct trial *t, bool settle)
{
    uint8_t bytes[512];

    for (uint32_t s = 0; s < t->sectors; s++) {
        if (!disk_read(t->disk, (uint64_t)s * 512, bytes, sizeof bytes, &err))
            fail(t, "read");
        check_sector(t, s, bytes);
        if (settle) {
            t->sector[s].count = 0;
            may_hold(t, s, get_be32(bytes));
        }
    }
}

/* The machine comes up: the chain opens, holds what it must, takes writes, and holds those. */
static void check_after_crash(struct trial *t)
{
    const struct io *io = io_memory_io(t->memory);

    if (!open_top(t, io, true))
        fail(t, "open after the crash");
    check_disk(t, true);
    for (unsigned i = 0; i < 6; i++)
        if (!write_some(t))
            fail(t, "write after the crash");
    for (uint32_t s = 0; s < t->sectors; s++) {
        uint32_t last = t->sector[s].stamps[t->sector[s].count - 1];
        t->sector[s].count = 0;
        may_hold(t, s, last);
    }
    if (!disk_close(TAKE(t->disk), &err) || !open_top(t, io, false))
        fail(t, "close and open after the crash");
    for (size_t i = 0; i < disk_depth(t->disk); i++) {
        struct disk_layer layer;
        disk_layer_get(t->disk, i, &layer);
        if (i == 0 && layer.needs_repair)
            fail(t, "the top has no footer at its end after an orderly close");
    }
    check_disk(t, false);
}

static uint64_t count_changes(uint64_t seed)
{
    struct trial t;

    trial_start(&t, seed, 0, NULL);
    run_history(&t);
    uint64_t changes = io_failing_count(t.failing);
    check_disk(&t, false);
    trial_done(&t);
    return changes;
}

static uint64_t run_seed(uint64_t seed)
{
    uint64_t changes = count_changes(seed);

    for (uint64_t cut = 1; cut <= changes; cut++) {
        for (uint64_t way = 0; way < CRASHES; way++) {
            struct trial t;
            trial_start(&t, seed, cut, NULL);
            run_history(&t);
            if (!io_failing_struck(t.failing))
                fail(&t, "the history differs from its first run");
            disk_abandon(TAKE(t.disk));
            io_memory_crash(t.memory, seed * 1000003 + cut * CRASHES + way);
            check_after_crash(&t);
            trial_done(&t);
        }
    }
    return changes * CRASHES;
}

/* --- kills --- */

static unsigned logs_in(const char *dir, bool remove_them)
{
    AUTO_DIR DIR *open = opendir(dir);
    const struct dirent *entry;
    unsigned count = 0;

    if (!open)
        abort();
    while ((entry = readdir(open))) {
        if (entry->d_name[0] == '.')
            continue;
        count++;
        if (remove_them && unlinkat(dirfd(open), entry->d_name, 0) != 0)
            abort();
    }
    return count;
}

/* What was answered is all that a sector may hold, but for a write that was not. */
static void only_answered_counts(struct trial *t)
{
    for (uint32_t s = 0; s < t->sectors; s++) {
        struct candidates *c = &t->sector[s];
        bool flying = s >= t->flying_first && s - t->flying_first < t->flying_sectors;
        uint32_t keep = flying && c->count > 1 ? 2 : 1;
        memmove(c->stamps, c->stamps + c->count - keep, keep * sizeof *c->stamps);
        c->count = keep;
    }
}

static void trial_until_kill(struct trial *t, uint64_t seed, uint64_t cut, const char *log_dir)
{
    trial_start(t, seed, cut, log_dir);
    run_history(t);
    if (!io_failing_struck(t->failing))
        fail(t, "the history differs from its first run");
    disk_abandon(TAKE(t->disk));
}

static void kill_at(uint64_t seed, uint64_t cut, const char *log_dir)
{
    struct trial t;

    trial_until_kill(&t, seed, cut, log_dir);
    only_answered_counts(&t);
    check_after_crash(&t);
    disk_abandon(TAKE(t.disk));
    if (logs_in(log_dir, false) > 1) /* one may be of a top that was never reached */
        fail(&t, "dirty logs are left after an orderly close");
    logs_in(log_dir, true);
    trial_done(&t);
}

/* The power goes at the nth change of putting the logs in place; false: there are not so many. */
static bool kill_and_cut_at(uint64_t seed, uint64_t cut, uint64_t nth, const char *log_dir)
{
    struct trial t;

    trial_until_kill(&t, seed, cut, log_dir);
    io_failing_set(t.failing, (struct io_fault){.calls = IO_CALLS_CHANGES,
                                                .nth = nth,
                                                .errnum = EIO,
                                                .done_anyway = seed % 2 == 0,
                                                .forever = true});
    (void)!open_top(&t, t.io, true);
    bool struck = io_failing_struck(t.failing);
    disk_abandon(TAKE(t.disk));
    io_memory_crash(t.memory, seed * 1000003 + cut + nth);
    logs_in(log_dir, true);
    t.log_dir = NULL;
    check_after_crash(&t);
    trial_done(&t);
    return struck;
}

static uint64_t run_kills(uint64_t seed, const char *log_dir)
{
    uint64_t changes = count_changes(seed), cuts = 0;

    for (uint64_t cut = 1; cut <= changes; cut++) {
        kill_at(seed, cut, log_dir);
        for (uint64_t nth = 1; cut % 8 == 0 && kill_and_cut_at(seed, cut, nth, log_dir); nth++)
            cuts++;
    }
    printf("seed %llu: %llu kills, %llu power cuts behind kills\n", (unsigned long long)seed,
           (unsigned long long)changes, (unsigned long long)cuts);
    return changes + cuts;
}

int main(int argc, char **argv)
{
    uint64_t seeds = argc > 1 ? strtoull(argv[1], NULL, 10) : 6;
    uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    char log_dir[] = "/tmp/bough-kills-XXXXXX";
    uint64_t cuts = 0, kills = 0;

    if (!mkdtemp(log_dir))
        abort();
    for (uint64_t i = 0; i < seeds; i++) {
        cuts += run_seed(first + i);
        kills += run_kills(first + i, log_dir);
    }
    rmdir(log_dir);
    printf("%llu power cuts in %llu histories from seed %llu: each sector is its last flushed value or a "
           "later one\n"
           "%llu kills, some with a power cut while the dirty logs were put in place: each sector is its last answered "
           "value\n",
           (unsigned long long)cuts, (unsigned long long)seeds, (unsigned long long)first, (unsigned long long)kills);
    return 0;
}
