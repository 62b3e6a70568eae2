/* Flushes of the core: the stages of a disk_flush by the ring, one flush at a time, shared by all who wait.
 */
#include "engine_core.h"
#include "log.h"

#include <errno.h>

static void flush_step(struct core *core);

static void list_finish(struct core *core, struct request_list *list, int errnum)
{
    struct request *request;

    while ((request = request_list_take(list)))
        core_finish(core, request, errnum);
}

static void flush_end(struct core *core, bool failed)
{
    struct core_flush *flush = &core->flush;

    disk_flush_end(core->disk, TAKE(flush->running), failed ? &flush->failure : NULL,
                   failed && flush->sync_failed);
    if (!failed)
        core->dirty_bytes -= flush->covered_bytes;
    else
        log_debug("flush: %s", flush->failure.text);
    list_finish(core, &flush->covered, failed ? err_errno(&flush->failure) : 0);
}

static void flush_op_done(struct ring_op *op, int64_t result)
{
    struct core *core = (struct core *)(void *)((char *)op - offsetof(struct core, flush.op));
    struct core_flush *flush = &core->flush;

    if (result < 0) {
        flush->sync_failed = flush->stage != FLUSH_WRITE;
        err_set_errno(&flush->failure, (int)-result, "%s: %s", op->file->path,
                      flush->sync_failed ? "fdatasync" : "write");
        /* Also for want of space: it has cost what was written, and who makes room does not bring that back. */
        if (flush->sync_failed)
            flush->failure.code = ERR_IO;
        flush_end(core, true);
        return;
    }
    flush->index++;
    flush_step(core);
}

/* True when an operation of the stage was started, false when the stage is over. */
static bool stage_step(struct core *core)
{
    struct core_flush *flush = &core->flush;
    const struct disk_flush *running = flush->running;
    size_t index = flush->index;

    if (flush->stage == FLUSH_WRITE) {
        if (index == running->write_count)
            return false;
        const struct disk_flush_write *write = &running->writes[index];
        ring_write(core->ring, &flush->op, write->file, write->file_offset, write->bytes, write->length);
        return true;
    }
    bool first = flush->stage == FLUSH_SYNC_FIRST;
    if (index == (first ? running->sync_first_count : running->sync_last_count))
        return false;
    ring_sync(core->ring, &flush->op, first ? running->sync_first[index] : running->sync_last[index]);
    return true;
}

static void flush_step(struct core *core)
{
    struct core_flush *flush = &core->flush;

    while (!stage_step(core)) {
        if (flush->stage == FLUSH_SYNC_LAST) {
            flush_end(core, false);
            return;
        }
        flush->stage++;
        flush->index = 0;
    }
}

/* Begun at the end of a turn, so that all flushes that came with one batch share it. */
void flush_turn(struct core *core)
{
    struct core_flush *flush = &core->flush;
    struct err err;

    if (flush->running || !flush->waiting.first)
        return;
    if (core->abandoned) {
        list_finish(core, &flush->waiting, ECANCELED);
        return;
    }
    flush->covered = flush->waiting;
    flush->waiting = (struct request_list){0};
    if (!disk_flush_begin(core->disk, &flush->running, &err)) {
        log_debug("flush: %s", err.text);
        list_finish(core, &flush->covered, err_errno(&err));
        return;
    }
    flush->covered_bytes = core->dirty_bytes;
    flush->stage = FLUSH_SYNC_FIRST;
    flush->index = 0;
    flush->op.done = flush_op_done;
    flush_step(core);
}
