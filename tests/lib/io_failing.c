#include "io_failing.h"

#include <errno.h>
#include <string.h>

struct io_failing {
    struct io io; /* first: an io is cast to its wrapper */
    const struct io *inner;
    struct io_fault fault;
    uint64_t count;
    bool struck;
};

struct failing_file {
    struct io_file file; /* first */
    struct io_file *inner;
};

enum verdict { PASS, FAIL, FAIL_DONE };

static enum verdict judge(const struct io *io, unsigned call)
{
    struct io_failing *failing = (struct io_failing *)(uintptr_t)io;

    if (failing->struck && failing->fault.forever)
        return FAIL;
    if (failing->struck && failing->fault.again && (failing->fault.calls & call))
        return FAIL;
    if (!(failing->fault.calls & call) || ++failing->count != failing->fault.nth)
        return PASS;
    failing->struck = true;
    return failing->fault.done_anyway ? FAIL_DONE : FAIL;
}

static int fault_of(const struct io *io)
{
    return ((const struct io_failing *)io)->fault.errnum;
}

static const struct io *inner_of(const struct io *io)
{
    return ((const struct io_failing *)io)->inner;
}

static struct io_file *inner_file(struct io_file *file)
{
    return ((struct failing_file *)file)->inner;
}

/* Passes the call on, fails instead, or does it and fails. */
#define JUDGED(io, kind, call)                                                                               \
    do {                                                                                                     \
        enum verdict verdict_ = judge(io, kind);                                                             \
        if (verdict_ == FAIL)                                                                                \
            return fault_of(io);                                                                             \
        int errnum_ = (call);                                                                                \
        return errnum_ != 0 || verdict_ == PASS ? errnum_ : fault_of(io);                                    \
    } while (0)

static int open_inner(const struct io *io, const char *path, unsigned flags, struct io_file **ret_file)
{
    struct io_file *inner = NULL;
    int errnum = inner_of(io)->ops->open(inner_of(io), path, flags, &inner);

    if (errnum != 0)
        return errnum;
    struct failing_file *file = calloc(1, sizeof *file);
    if (!file)
        abort();
    *file = (struct failing_file){.file = {.io = io, .path = strdup(path), .fd = inner->fd}, .inner = inner};
    *ret_file = &file->file;
    return 0;
}

static int failing_open(const struct io *io, const char *path, unsigned flags, struct io_file **ret_file)
{
    enum verdict verdict = judge(io, flags & IO_CREATE ? IO_CALL_CREATE : IO_CALL_OPEN);
    struct io_file *file = NULL;

    if (verdict == FAIL)
        return fault_of(io);
    int errnum = open_inner(io, path, flags, &file);
    if (errnum == 0 && verdict == FAIL_DONE) {
        io_close(file);
        return fault_of(io);
    }
    if (errnum == 0)
        *ret_file = file;
    return errnum;
}

static void failing_close(struct io_file *file)
{
    io_close(inner_file(file));
    free(file->path);
    free(file);
}

static int failing_read(struct io_file *file, uint64_t offset, void *bytes, size_t length, size_t *ret_length)
{
    JUDGED(file->io, IO_CALL_READ,
           inner_of(file->io)->ops->read(inner_file(file), offset, bytes, length, ret_length));
}

static int failing_write(struct io_file *file, uint64_t offset, const void *bytes, size_t length)
{
    JUDGED(file->io, IO_CALL_WRITE, inner_of(file->io)->ops->write(inner_file(file), offset, bytes, length));
}

static int failing_stat_file(struct io_file *file, struct io_stat *ret_stat)
{
    JUDGED(file->io, IO_CALL_STAT, inner_of(file->io)->ops->stat_file(inner_file(file), ret_stat));
}

static int failing_truncate(struct io_file *file, uint64_t size_bytes)
{
    JUDGED(file->io, IO_CALL_TRUNCATE, inner_of(file->io)->ops->truncate(inner_file(file), size_bytes));
}

static int failing_sync(struct io_file *file)
{
    JUDGED(file->io, IO_CALL_SYNC, inner_of(file->io)->ops->sync(inner_file(file)));
}

static int failing_punch(struct io_file *file, uint64_t offset, uint64_t length)
{
    JUDGED(file->io, IO_CALL_PUNCH, inner_of(file->io)->ops->punch(inner_file(file), offset, length));
}

static int failing_allocate(struct io_file *file, uint64_t offset, uint64_t length)
{
    JUDGED(file->io, IO_CALL_ALLOCATE, inner_of(file->io)->ops->allocate(inner_file(file), offset, length));
}

static int failing_stat(const struct io *io, const char *path, struct io_stat *ret_stat)
{
    JUDGED(io, IO_CALL_STAT, inner_of(io)->ops->stat(inner_of(io), path, ret_stat));
}

static int failing_rename(const struct io *io, const char *from, const char *to)
{
    JUDGED(io, IO_CALL_RENAME, inner_of(io)->ops->rename(inner_of(io), from, to));
}

static int failing_link(const struct io *io, const char *from, const char *to)
{
    JUDGED(io, IO_CALL_LINK, inner_of(io)->ops->link(inner_of(io), from, to));
}

static int failing_unlink(const struct io *io, const char *path)
{
    JUDGED(io, IO_CALL_UNLINK, inner_of(io)->ops->unlink(inner_of(io), path));
}

static int failing_make_dir(const struct io *io, const char *path)
{
    JUDGED(io, IO_CALL_DIR, inner_of(io)->ops->make_dir(inner_of(io), path));
}

static int failing_remove_dir(const struct io *io, const char *path)
{
    JUDGED(io, IO_CALL_DIR, inner_of(io)->ops->remove_dir(inner_of(io), path));
}

static int failing_sync_dir(const struct io *io, const char *path)
{
    JUDGED(io, IO_CALL_SYNC_DIR, inner_of(io)->ops->sync_dir(inner_of(io), path));
}

static int failing_list(const struct io *io, const char *path, int (*each)(void *context, const char *name),
                        void *context)
{
    JUDGED(io, IO_CALL_LIST, inner_of(io)->ops->list(inner_of(io), path, each, context));
}

static const struct io_ops FAILING_OPS = {
    .open = failing_open,
    .close = failing_close,
    .read = failing_read,
    .write = failing_write,
    .stat_file = failing_stat_file,
    .truncate = failing_truncate,
    .sync = failing_sync,
    .punch = failing_punch,
    .allocate = failing_allocate,
    .stat = failing_stat,
    .rename = failing_rename,
    .link = failing_link,
    .unlink = failing_unlink,
    .make_dir = failing_make_dir,
    .remove_dir = failing_remove_dir,
    .sync_dir = failing_sync_dir,
    .list = failing_list,
};

struct io_failing *io_failing_new(const struct io *inner)
{
    struct io_failing *failing = calloc(1, sizeof *failing);

    if (!failing)
        abort();
    *failing = (struct io_failing){.io = {.ops = &FAILING_OPS}, .inner = inner};
    return failing;
}

void io_failing_free(struct io_failing *failing)
{
    free(failing);
}

const struct io *io_failing_io(struct io_failing *failing)
{
    return &failing->io;
}

void io_failing_set(struct io_failing *failing, struct io_fault fault)
{
    failing->fault = fault;
    failing->count = 0;
    failing->struck = false;
}

uint64_t io_failing_count(const struct io_failing *failing)
{
    return failing->count;
}

bool io_failing_struck(const struct io_failing *failing)
{
    return failing->struck;
}
