#include "engine_core.h"

#include "log.h"

#include <errno.h>
#include <string.h>

#define ZERO_BUFFER_BYTES (256U << 10)

static const uint8_t ZEROS[ZERO_BUFFER_BYTES];

void request_list_append(struct request_list *list, struct request *request)
{
    request->next = NULL;
    if (list->last)
        list->last->next = request;
    else
        list->first = request;
    list->last = request;
}

struct request *request_list_take(struct request_list *list)
{
    struct request *request = list->first;

    if (!request)
        return NULL;
    list->first = request->next;
    if (!list->first)
        list->last = NULL;
    return request;
}

void core_init(struct core *core, struct disk *disk, struct ring *ring)
{
    *core = (struct core){.disk = disk, .ring = ring};
}

void core_done(struct core *core)
{
    disk_next_top_abandon(TAKE(core->next_top));
}

void core_finish(struct core *core, struct request *request, int errnum)
{
    request->errnum = errnum;
    request_list_append(&core->finished, request);
}

/* The end of a request's own work; durability, where it is asked for, comes behind. */
static void request_work_ended(struct request *request, int errnum)
{
    struct core *core = request->core;

    core->at_work--;
    if (errnum == 0 && request->fua && request->kind != REQUEST_READ)
        request_list_append(&core->flush.waiting, request);
    else
        core_finish(core, request, errnum);
}

static int request_fail(const struct request *request, const struct err *err)
{
    log_debug("disk request at %llu, %llu bytes: %s", (unsigned long long)request->offset,
              (unsigned long long)request->length, err->text);
    return err_errno(err);
}

static void request_round(struct request *request);
static void zero_round(struct request *request);

/* Writes what comes next of a piece that is to be zeros; false: all is written. */
static bool zeros_write(struct request_piece *piece)
{
    uint64_t rest = piece->zero.length - piece->zeros_written;
    uint64_t part = rest < ZERO_BUFFER_BYTES ? rest : ZERO_BUFFER_BYTES;

    if (rest == 0)
        return false;
    piece->zeros_written += part;
    ring_write(piece->request->core->ring, &piece->op, piece->zero.file,
               piece->zero.file_offset + piece->zeros_written - part, ZEROS, part);
    return true;
}

static void zero_piece_done(struct ring_op *op, int64_t result)
{
    struct request_piece *piece = (struct request_piece *)(void *)op;
    struct request *request = piece->request;

    bool goes_on = result == -EOPNOTSUPP || (result >= 0 && piece->zeros_written > 0);
    if (goes_on && zeros_write(piece))
        return;
    if (result < 0 && request->errnum == 0)
        request->errnum = (int)-result;
    if (result >= 0)
        disk_write_end(request->core->disk, piece->zero.offset, piece->zero.length);
    if (--request->pieces_left > 0)
        return;
    request->core->dirty_bytes += VHD_SECTOR;
    request->moved += request->round_length;
    if (request->errnum != 0)
        request_work_ended(request, request->errnum);
    else
        zero_round(request);
}

static void zero_round(struct request *request)
{
    struct core *core = request->core;
    struct disk_zero_piece pieces[REQUEST_PIECES];
    size_t count = 0;
    struct err err;

    if (request->moved < request->length &&
        !disk_zero_begin(core->disk, request->offset + request->moved, request->length - request->moved, pieces,
                         REQUEST_PIECES, &count, &request->round_length, &err)) {
        request_work_ended(request, request_fail(request, &err));
        return;
    }
    request->pieces_left = (unsigned)count;
    for (size_t i = 0; i < count; i++) {
        struct request_piece *piece = &request->pieces[i];
        *piece = (struct request_piece){.op = {.done = zero_piece_done}, .request = request, .zero = pieces[i]};
        ring_punch(core->ring, &piece->op, pieces[i].file, pieces[i].file_offset, pieces[i].length);
    }
    if (count > 0)
        return;
    if (request->moved == request->length) {
        request_work_ended(request, 0);
        return;
    }
    request->moved += request->round_length;
    request_list_append(&core->zeroing, request);
}

static void piece_done(struct ring_op *op, int64_t result)
{
    struct request *request = ((struct request_piece *)(void *)op)->request;
    struct core *core = request->core;

    if (result < 0 && request->errnum == 0)
        request->errnum = (int)-result;
    if (--request->pieces_left > 0)
        return;
    if (request->errnum != 0) {
        request_work_ended(request, request->errnum);
        return;
    }
    if (request->kind != REQUEST_READ) {
        disk_write_end(core->disk, request->offset + request->moved, request->round_length);
        core->dirty_bytes += request->round_length;
    }
    request->moved += request->round_length;
    request_round(request);
}

/* A piece that goes on in its file where an earlier one ended, with others between them that are of other layers: one
 * operation reads both, and what is between them in the file goes where nobody looks. A long read of a chain is then a
 * few operations, not one for each change of layer. */
#define GAP_MAX_BYTES (16U << 10)

struct gather {
    struct request *request;
    const struct disk_piece *pieces;
    size_t count;
    bool taken[REQUEST_PIECES];
    size_t vectors_used;
};

/* All that goes on from the piece at first, bytes in the request: its vectors, from vectors_used on. */
static size_t gather_from(struct gather *gather, size_t first, uint8_t *bytes)
{
    static uint8_t nobody_looks[GAP_MAX_BYTES]; /* written by the kernel, never read */
    const struct disk_piece *pieces = gather->pieces;
    struct iovec *vectors = gather->request->vectors + gather->vectors_used;
    uint64_t gap = 0, file_end = pieces[first].file_offset + pieces[first].length;
    size_t count = 0;

    vectors[count++] = (struct iovec){bytes, pieces[first].length};
    bytes += pieces[first].length;
    for (size_t i = first + 1; i < gather->count && gap <= GAP_MAX_BYTES; bytes += pieces[i++].length) {
        if (pieces[i].file != pieces[first].file || pieces[i].file_offset != file_end + gap) {
            gap += pieces[i].length;
            continue;
        }
        if (gap > 0)
            vectors[count++] = (struct iovec){nobody_looks, gap};
        vectors[count++] = (struct iovec){bytes, pieces[i].length};
        gather->taken[i] = true;
        file_end += gap + pieces[i].length;
        gap = 0;
    }
    gather->vectors_used += count;
    return count;
}

/* Starts the pieces; done() of none comes before this has returned. */
static void read_start(struct request *request, const struct disk_piece *pieces, size_t count)
{
    struct ring *ring = request->core->ring;
    struct gather gather = {.request = request, .pieces = pieces, .count = count};
    uint8_t *bytes = request->bytes + request->moved;

    request->pieces_left = 0;
    for (size_t i = 0; i < count; bytes += pieces[i++].length) {
        struct request_piece *piece = &request->pieces[request->pieces_left];
        if (!pieces[i].file)
            memset(bytes, 0, pieces[i].length);
        if (!pieces[i].file || gather.taken[i])
            continue;
        piece->op.done = piece_done;
        piece->request = request;
        request->holes_only = false;
        request->pieces_left++;
        struct iovec *vectors = request->vectors + gather.vectors_used;
        size_t parts = gather_from(&gather, i, bytes);
        if (parts == 1)
            ring_read(ring, &piece->op, pieces[i].file, pieces[i].file_offset, bytes, pieces[i].length);
        else
            ring_readv(ring, &piece->op, pieces[i].file, pieces[i].file_offset, vectors, parts);
    }
}

static void write_start(struct request *request, const struct disk_piece *pieces, size_t count)
{
    bool zeros = request->kind == REQUEST_ZERO_RESERVED;
    const uint8_t *bytes = zeros ? ZEROS : request->bytes + request->moved;

    request->pieces_left = (unsigned)count;
    for (size_t i = 0; i < count; bytes += pieces[i++].length) {
        struct request_piece *piece = &request->pieces[i];
        piece->op.done = piece_done;
        piece->request = request;
        ring_write(request->core->ring, &piece->op, pieces[i].file, pieces[i].file_offset, bytes, pieces[i].length);
    }
}

static bool round_map(struct request *request, struct disk_piece *pieces, size_t *ret_count, struct err *err)
{
    struct disk *disk = request->core->disk;
    uint64_t offset = request->offset + request->moved;
    uint64_t length = request->length - request->moved;

    if (request->kind == REQUEST_READ)
        return disk_map(disk, offset, length, pieces, REQUEST_PIECES, ret_count, err);
    if (request->kind == REQUEST_ZERO_RESERVED && length > ZERO_BUFFER_BYTES)
        length = ZERO_BUFFER_BYTES;
    return disk_write_begin(disk, offset, length, pieces, REQUEST_PIECES, ret_count, err);
}

/* The next part of a read or a write: until it has pieces in flight, or has ended. */
static void request_round(struct request *request)
{
    struct disk_piece pieces[REQUEST_PIECES];
    size_t count;
    struct err err;

    while (request->moved < request->length) {
        if (!round_map(request, pieces, &count, &err)) {
            request_work_ended(request, request_fail(request, &err));
            return;
        }
        if (count == 0) { /* would go on for ever */
            request_work_ended(request, EIO);
            return;
        }
        request->round_length = 0;
        for (size_t i = 0; i < count; i++)
            request->round_length += pieces[i].length;
        if (request->kind == REQUEST_READ)
            read_start(request, pieces, count);
        else
            write_start(request, pieces, count);
        if (request->pieces_left > 0)
            return;
        request->moved += request->round_length;
    }
    request_work_ended(request, 0);
}

static void request_start(struct request *request)
{
    struct core *core = request->core;

    if (request->kind == REQUEST_FLUSH) {
        request_list_append(&core->flush.waiting, request);
        return;
    }
    core->at_work++;
    if (request->kind == REQUEST_ZERO)
        zero_round(request);
    else
        request_round(request);
}

void core_submit(struct core *core, struct request *request)
{
    request->core = core;
    request->errnum = 0;
    request->moved = 0;
    request->holes_only = request->kind == REQUEST_READ;
    if (core->switched)
        request_list_append(&core->held, request);
    else
        request_start(request);
}

/* Zeroing that had nothing to do in a part of its range goes on. */
static void zeroing_turn(struct core *core)
{
    struct request_list list = core->zeroing;
    struct request *request;

    core->zeroing = (struct request_list){0};
    while ((request = request_list_take(&list)))
        zero_round(request);
}

void core_at_instant(struct core *core, void (*act)(void *context), void *context)
{
    core->switched = act;
    core->switched_context = context;
    core->pushes = false;
}

void core_switch_top(struct core *core, void (*switched)(void *context), void *context)
{
    core_at_instant(core, switched, context);
    core->pushes = true;
}

static void switch_turn(struct core *core)
{
    struct request_list held = core->held;
    struct request *request;

    if (!core->switched || core->at_work > 0)
        return;
    void (*switched)(void *context) = TAKE(core->switched);
    if (core->pushes && core->next_top)
        disk_seal_and_push(core->disk, TAKE(core->next_top));
    core->held = (struct request_list){0};
    switched(core->switched_context);
    while ((request = request_list_take(&held)))
        request_start(request);
}

static void count_finished(struct core_counters *counters, const struct request *request)
{
    if (request->kind == REQUEST_READ) {
        counters->reads++;
        counters->read_bytes += request->moved;
    } else if (request->kind == REQUEST_FLUSH) {
        counters->flushes++;
    } else {
        counters->writes++;
        counters->written_bytes += request->kind == REQUEST_WRITE ? request->moved : 0;
    }
}

static void finished_turn(struct core *core)
{
    struct request_list list = core->finished;
    struct request *request;

    core->finished = (struct request_list){0};
    while ((request = request_list_take(&list))) {
        count_finished(&core->counters, request);
        request->done(request, request->errnum);
    }
}

static void release_done(struct ring_op *op, int64_t result)
{
    struct core *core = (struct core *)(void *)((char *)op - offsetof(struct core, release.op));

    core->release.running = false;
    core->release.refused = result < 0;
}

static void release_turn(struct core *core)
{
    struct core_release *release = &core->release;
    struct disk_gap gap;

    if (release->running || core->ending)
        return;
    if (release->refused)
        disk_release_none(core->disk);
    release->searching = disk_release_next(core->disk, &gap);
    if (!release->searching || gap.length == 0)
        return;
    release->searching = false; /* its end is an event */
    release->running = true;
    release->op.done = release_done;
    ring_punch(core->ring, &release->op, gap.file, gap.file_offset, gap.length);
}

void core_turn(struct core *core)
{
    zeroing_turn(core);
    switch_turn(core);
    flush_turn(core);
    release_turn(core);
    finished_turn(core);
}

bool core_is_busy(const struct core *core)
{
    return core->zeroing.first || core->finished.first || (core->release.searching && !core->ending) ||
           (core->flush.waiting.first && !core->flush.running) || (core->switched && core->at_work == 0);
}

bool core_is_idle(const struct core *core)
{
    return core->at_work == 0 && !core->held.first && !core->finished.first && !core->flush.waiting.first &&
           !core->flush.running && !core->release.running && !core->switched;
}
