#include "io.h"

#include "bytes.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>

#define FILE_CALL(verb, call)                                                                                \
    do {                                                                                                     \
        int errnum_ = (call);                                                                                \
        return errnum_ == 0 || err_sys(err, errnum_, verb " %s", file->path);                                \
    } while (0)

#define PATH_CALL(verb, path, call)                                                                          \
    do {                                                                                                     \
        int errnum_ = (call);                                                                                \
        return errnum_ == 0 || err_sys(err, errnum_, verb " %s", path);                                      \
    } while (0)

bool io_open(const struct io *io, const char *path, unsigned flags, struct io_file **ret_file,
             struct err *err)
{
    int errnum = io->ops->open(io, path, flags, ret_file);

    if (errnum == EINVAL) /* our own: the system says it of no flags that are given here */
        return err_set(err, ERR_INVALID, "%s: is no regular file", path);
    return errnum == 0 || err_sys(err, errnum, "open %s", path);
}

void io_close(struct io_file *file)
{
    if (file)
        file->io->ops->close(file);
}

bool io_read_some(struct io_file *file, uint64_t offset, void *bytes, size_t length, size_t *ret_length,
                  struct err *err)
{
    FILE_CALL("read", file->io->ops->read(file, offset, bytes, length, ret_length));
}

bool io_read(struct io_file *file, uint64_t offset, void *bytes, size_t length, struct err *err)
{
    size_t got;

    if (!io_read_some(file, offset, bytes, length, &got, err))
        return false;
    if (got != length)
        return err_set(err, ERR_CORRUPT, "%s: the file ends at byte %llu, %zu bytes at %llu were expected",
                       file->path, (unsigned long long)offset + got, length, (unsigned long long)offset);
    return true;
}

bool io_write(struct io_file *file, uint64_t offset, const void *bytes, size_t length, struct err *err)
{
    FILE_CALL("write", file->io->ops->write(file, offset, bytes, length));
}

bool io_stat_file(struct io_file *file, struct io_stat *ret_stat, struct err *err)
{
    FILE_CALL("stat", file->io->ops->stat_file(file, ret_stat));
}

bool io_truncate(struct io_file *file, uint64_t size_bytes, struct err *err)
{
    FILE_CALL("truncate", file->io->ops->truncate(file, size_bytes));
}

bool io_sync(struct io_file *file, struct err *err)
{
    FILE_CALL("sync", file->io->ops->sync(file));
}

static bool write_zeros(struct io_file *file, uint64_t offset, uint64_t length, struct err *err)
{
    static const uint8_t ZEROS[65536];

    while (length > 0) {
        size_t part = (size_t)min_u64(length, sizeof ZEROS);
        if (!io_write(file, offset, ZEROS, part, err))
            return false;
        offset += part;
        length -= part;
    }
    return true;
}

static bool is_not_offered(int errnum)
{
    return errnum == EOPNOTSUPP || errnum == ENOSYS;
}

bool io_zero(struct io_file *file, uint64_t offset, uint64_t length, struct err *err)
{
    int errnum = file->io->ops->punch(file, offset, length);

    if (is_not_offered(errnum))
        return write_zeros(file, offset, length, err);
    return errnum == 0 || err_sys(err, errnum, "punch %s", file->path);
}

bool io_release(struct io_file *file, uint64_t offset, uint64_t length, struct err *err)
{
    int errnum = file->io->ops->punch(file, offset, length);

    return errnum == 0 || is_not_offered(errnum) || err_sys(err, errnum, "punch %s", file->path);
}

bool io_allocate(struct io_file *file, uint64_t offset, uint64_t length, struct err *err)
{
    int errnum = file->io->ops->allocate(file, offset, length);

    return errnum == 0 || is_not_offered(errnum) || err_sys(err, errnum, "allocate %s", file->path);
}

void io_write_behind(struct io_file *file, bool wait)
{
    unsigned waits = wait ? SYNC_FILE_RANGE_WAIT_BEFORE | SYNC_FILE_RANGE_WAIT_AFTER : 0;

    if (file->fd >= 0)
        (void)sync_file_range(file->fd, 0, 0, SYNC_FILE_RANGE_WRITE | waits);
}

/* What is lent is all bytes but those from here on: who lends goes on sharing them, and keeps other writers away. */
#define LOCK_TAIL (1LL << 62)

static bool lock_set(struct io_file *file, short type, off_t length)
{
    struct flock lock = {.l_type = type, .l_whence = SEEK_SET, .l_len = length};

    return fcntl(file->fd, F_OFD_SETLK, &lock) == 0 || (errno != EAGAIN && errno != EACCES);
}

bool io_lock(struct io_file *file, enum io_lock_kind kind, struct err *err)
{
    bool writes = kind == IO_LOCK_WRITE || kind == IO_LOCK_BORROW;
    off_t length = kind == IO_LOCK_BORROW ? LOCK_TAIL : 0; /* 0: to the end of all */

    if (file->fd < 0)
        return true;
    if (lock_set(file, writes ? F_WRLCK : F_RDLCK, length))
        return kind != IO_LOCK_LEND || lock_set(file, F_UNLCK, LOCK_TAIL);
    return err_set(err, ERR_BUSY, "%s: somebody else is %s it", file->path, writes ? "using" : "writing to");
}

bool io_stat_path(const struct io *io, const char *path, struct io_stat *ret_stat, struct err *err)
{
    PATH_CALL("stat", path, io->ops->stat(io, path, ret_stat));
}

bool io_exists(const struct io *io, const char *path)
{
    struct io_stat stat;

    return io->ops->stat(io, path, &stat) == 0;
}

bool io_rename(const struct io *io, const char *from, const char *to, struct err *err)
{
    int errnum = io->ops->rename(io, from, to);

    return errnum == 0 || err_sys(err, errnum, "rename %s to %s", from, to);
}

bool io_link(const struct io *io, const char *from, const char *to, struct err *err)
{
    int errnum = io->ops->link(io, from, to);

    return errnum == 0 || err_sys(err, errnum, "link %s to %s", from, to);
}

bool io_unlink(const struct io *io, const char *path, struct err *err)
{
    PATH_CALL("remove", path, io->ops->unlink(io, path));
}

bool io_make_dir(const struct io *io, const char *path, struct err *err)
{
    PATH_CALL("make folder", path, io->ops->make_dir(io, path));
}

bool io_remove_dir(const struct io *io, const char *path, struct err *err)
{
    PATH_CALL("remove folder", path, io->ops->remove_dir(io, path));
}

bool io_sync_dir(const struct io *io, const char *path, struct err *err)
{
    PATH_CALL("sync folder", path, io->ops->sync_dir(io, path));
}

bool io_list(const struct io *io, const char *path, int (*each)(void *context, const char *name),
             void *context, struct err *err)
{
    PATH_CALL("list", path, io->ops->list(io, path, each, context));
}
