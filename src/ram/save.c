/* Saving: a thread that reads QEMU's stream from a pipe, and what is done when it has ended.
 *
 * The thread must keep up with QEMU between the stop of the processors and the end of the stream, because
 * that is the guest's pause: it parses in place in its read buffer, and writes to the page cache only.
 * Whatever can wait (the .vsv, the sums of the chunks, every sync) is done by ram_save_finish(), when the
 * guest runs again. */
#include "ahead.h"
#include "auto.h"
#include "binfile.h"
#include "buf.h"
#include "bytes.h"
#include "description.h"
#include "heir.h"
#include "input.h"
#include "ram.h"
#include "rawfile.h"
#include "smallblocks.h"
#include "stream.h"
#include "vsvwriter.h"

#include <assert.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <stdatomic.h>
#include <sys/stat.h>

#define HEAD_MAX       (1U << 20)
#define STATE_MAX      (64U << 20)
#define PROGRESS_EVERY (16ULL << 20)
#define HURRY_BYTES    (512U << 20)
#define AHEAD_BYTES    (256ULL << 20)

static_assert(STREAM_TOKEN_MAX <= INPUT_HELD_MAX, "what the parser leaves must fit");

struct ram_save {
    struct vsv_info info;
    const struct progress *progress;
    bool reads_to_the_end;
    struct heir heir; /* where it does */
    char *bin_path, *vsv_path;
    bool bin_made, vsv_made; /* ours to remove on failure */
    int vsv_fd;
    struct input *input;
    struct ahead *ahead; /* or NULL */
    pthread_t thread;
    atomic_bool failed; /* set by the thread: then err is complete */
    struct err err;

    /* Of the thread until it is joined. */
    struct stream *stream;
    struct binfile *bin;
    struct smallblocks *small; /* NULL until the table of blocks has come */
    unsigned ram_block;        /* RAM_BLOCK's index in the table */
    struct buf head, state;
    uint64_t stream_bytes, reported_bytes;
};

static bool append(struct buf *buf, const uint8_t *bytes, size_t length, size_t limit, const char *what,
                   struct err *err)
{
    if (length > limit - buf->length)
        return err_set(err, ERR_CORRUPT, "more than %zu bytes of %s in the stream", limit, what);
    return buf_append(buf, bytes, length) || err_oom(err);
}

static bool on_head(void *context, const uint8_t *bytes, size_t length, struct err *err)
{
    struct ram_save *save = context;
    return append(&save->head, bytes, length, HEAD_MAX, "head", err);
}

static bool on_state(void *context, const uint8_t *bytes, size_t length, struct err *err)
{
    struct ram_save *save = context;
    return append(&save->state, bytes, length, STATE_MAX, "device state", err);
}

static bool on_blocks(void *context, struct err *err)
{
    struct ram_save *save = context;
    unsigned count = 0;
    const struct stream_block *blocks = stream_blocks(save->stream, &count);
    unsigned ram = 0;
    while (ram < count && strcmp(blocks[ram].name, RAM_BLOCK) != 0)
        ram++;
    if (ram == count)
        return err_set(err, ERR_CORRUPT, "the stream has no memory block " RAM_BLOCK);
    if (blocks[ram].used_bytes != save->info.memory_bytes)
        return err_set(err, ERR_CORRUPT, "the memory block " RAM_BLOCK " has %" PRIu64 " bytes, not %" PRIu64,
                       blocks[ram].used_bytes, save->info.memory_bytes);
    save->ram_block = ram;
    return smallblocks_new(blocks, count, ram, &save->small, err);
}

static bool on_page(void *context, unsigned block, uint64_t offset, const uint8_t *bytes, struct err *err)
{
    struct ram_save *save = context;
    if (block != save->ram_block) {
        smallblocks_page(save->small, block, offset, bytes);
        return true;
    }
    ahead_reached(save->ahead, offset);
    if (bytes)
        return binfile_page(save->bin, offset, bytes, err);
    binfile_zero(save->bin, offset);
    return true;
}

static bool tell_progress(struct ram_save *save, struct err *err)
{
    uint64_t done = binfile_counters(save->bin)->seen_pages * RAM_PAGE_BYTES;
    uint64_t all = done + binfile_counters(save->bin)->resent_pages * RAM_PAGE_BYTES;
    if (all - save->reported_bytes >= PROGRESS_EVERY) {
        bool again = done == save->info.memory_bytes; /* how much will have changed nobody knows */
        progress_report(save->progress, again ? "changed memory" : "memory", done, again ? 0 : save->info.memory_bytes);
        save->reported_bytes = all;
    }
    if (progress_cancelled(save->progress))
        return err_set(err, ERR_CANCELLED, "the saving of memory was cancelled");
    return true;
}

static bool take_stream(struct ram_save *save, struct err *err)
{
    for (;;) {
        bool at_end = false;
        size_t length = 0, consumed = 0;
        if (!input_more(save->input, &at_end, err))
            return false;
        const uint8_t *bytes = input_bytes(save->input, &length);
        if (at_end)
            return stream_end(save->stream, length, err);
        if (!stream_parse(save->stream, bytes, length, &consumed, err) || !binfile_flush(save->bin, err))
            return false;
        input_take(save->input, consumed);
        save->stream_bytes += consumed;
        if (!tell_progress(save, err))
            return false;
    }
}

/* What is not wanted any more is read for the writer's sake, until it ends or this is given up. */
static void read_to_the_end(struct ram_save *save)
{
    struct err ignored;
    bool at_end = false;
    size_t length = 0;
    do {
        (void)input_bytes(save->input, &length);
        input_take(save->input, length);
    } while (!at_end && input_more(save->input, &at_end, &ignored));
}

/* On failure the pipe is closed at once: QEMU then ends the migration instead of waiting for a reader. Whoever
 * sees that pipe broken must find the reason, so that is there before. */
static void *run(void *context)
{
    struct ram_save *save = context;
    struct err err = ERR_INIT;
    bool ok = take_stream(save, &err);
    if (!ok) {
        save->err = err;
        atomic_store(&save->failed, true);
        if (save->reads_to_the_end)
            read_to_the_end(save);
    }
    input_close(save->input);
    return NULL;
}

static void remove_files(const struct ram_save *save)
{
    if (save->bin_made)
        unlink(save->bin_path);
    if (save->vsv_made)
        unlink(save->vsv_path);
}

static void save_free(struct ram_save *save)
{
    heir_end(&save->heir);
    if (save->vsv_fd >= 0)
        close(save->vsv_fd);
    ahead_end(save->ahead);
    input_free(save->input);
    binfile_close(save->bin);
    smallblocks_free(save->small);
    stream_free(save->stream);
    buf_done(&save->head);
    buf_done(&save->state);
    free(save->bin_path);
    free(save->vsv_path);
    free(save);
}

static bool create_files(struct ram_save *save, const char *parent_bin_path, struct err *err)
{
    if (!binfile_create(save->bin_path, parent_bin_path, save->info.memory_bytes, &save->bin, err))
        return false;
    save->bin_made = true;
    save->vsv_fd = open(save->vsv_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    if (save->vsv_fd < 0)
        return err_sys(err, errno, "create %s", save->vsv_path);
    save->vsv_made = true;
    return true;
}

static bool save_start(struct ram_save *save, const struct ram_save_options *options, struct err *err)
{
    const struct stream_events events = {
        .context = save, .head = on_head, .blocks = on_blocks, .page = on_page, .state = on_state};
    save->bin_path = strdup(options->bin_path);
    save->vsv_path = strdup(options->vsv_path);
    save->stream = stream_new(&events);
    if (!save->bin_path || !save->vsv_path || !save->stream)
        return err_oom(err);
    if (!guid_is_set(&save->info.id))
        return err_set(err, ERR_INVALID, "%s: saved without an id", save->vsv_path);
    if (!create_files(save, options->parent_bin_path, err))
        return false;
    if (options->mapped_fd > 0)
        save->ahead = ahead_start(options->mapped_fd, save->info.memory_bytes, AHEAD_BYTES);
    return thread_start(run, save, "ram-save", &save->thread, err);
}

bool ram_save_start(const struct ram_save_options *options, struct ram_save **ret_save, struct err *err)
{
    struct input *input = NULL;
    if (!input_new(options->stream_fd, HURRY_BYTES, &input, err))
        return false;
    struct ram_save *save = calloc(1, sizeof(*save));
    if (!save) {
        input_free(input);
        return err_oom(err);
    }
    save->info = options->info;
    save->progress = options->progress;
    save->reads_to_the_end = options->reads_to_the_end;
    save->vsv_fd = -1;
    save->input = input;
    if ((save->reads_to_the_end && !heir_start(options->stream_fd, &save->heir, err)) ||
        !save_start(save, options, err)) {
        remove_files(save);
        save_free(save);
        return false;
    }
    *ret_save = save;
    return true;
}

static bool check_whole(struct ram_save *save, struct err *err)
{
    size_t description = 0;
    uint64_t missing = 0;
    if (!stream_check_state(save->state.data, save->state.length, &description, err) ||
        !description_check(save->state.data, save->state.length, description, err))
        return false;
    /* QEMU sends every page at least once; a hole that nobody asked for would be silent damage. */
    if (!binfile_is_complete(save->bin, &missing))
        return err_set(err, ERR_CORRUPT, "the page at %" PRIu64 " of " RAM_BLOCK " is not in the stream",
                       missing);
    return true;
}

static bool complete(struct ram_save *save, struct err *err)
{
    if (atomic_load(&save->failed)) {
        *err = save->err;
        return false;
    }
    if (!check_whole(save, err) || !binfile_settle(save->bin, err))
        return false;
    progress_report(save->progress, "writing to disk", 0, 0);
    memset(save->info.machine, 0, sizeof(save->info.machine));
    strncpy(save->info.machine, stream_machine(save->stream), sizeof(save->info.machine) - 1);
    const struct vsv_parts parts = {.stream = save->stream,
                                    .head = &save->head,
                                    .state = &save->state,
                                    .small = save->small,
                                    .bin = save->bin};
    if (!vsv_write(save->vsv_fd, &save->info, &parts, err))
        return err_prefix(err, "%s", save->vsv_path);
    if (fdatasync(save->vsv_fd) < 0)
        return err_sys(err, errno, "%s: sync", save->vsv_path);
    return binfile_sync(save->bin, err);
}

bool ram_save_finish(struct ram_save *save, struct ram_save_result *ret_result, struct err *err)
{
    pthread_join(save->thread, NULL);
    bool ok = complete(save, err);
    if (ok) {
        const struct binfile_counters *counters = binfile_counters(save->bin);
        *ret_result = (struct ram_save_result){.stream_bytes = save->stream_bytes,
                                               .pages = counters->pages,
                                               .zero_pages = counters->zero_pages,
                                               .resent_pages = counters->resent_pages,
                                               .state_bytes = save->state.length,
                                               .shared_pages = counters->shared_pages};
    } else {
        remove_files(save);
    }
    save_free(save);
    return ok;
}

void ram_save_hurry(struct ram_save *save)
{
    ahead_stop(save->ahead);
    binfile_hurry(save->bin);
    input_hurry(save->input);
}

void ram_save_pace(struct ram_save *save, uint64_t bytes)
{
    input_pace(save->input, bytes);
}

uint64_t ram_save_paced(struct ram_save *save, int wait_ms)
{
    return input_paced(save->input, wait_ms);
}

bool ram_save_failed(struct ram_save *save, struct err *err)
{
    if (!atomic_load(&save->failed))
        return false;
    *err = save->err;
    return true;
}

void ram_save_abandon(struct ram_save *save)
{
    if (!save)
        return;
    input_stop(save->input);
    pthread_join(save->thread, NULL);
    remove_files(save);
    save_free(save);
}
