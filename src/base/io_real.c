/* The seam on the kernel's own files. */
#include "io.h"

#include <dirent.h>
#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static int real_open(const struct io *io, const char *path, unsigned flags, struct io_file **ret_file)
{
    int mode = flags & (IO_WRITE | IO_CREATE) ? O_RDWR : O_RDONLY;

    if (flags & IO_CREATE)
        mode |= O_CREAT | O_EXCL;
    AUTO_FD int fd = open(path, mode | O_CLOEXEC | O_NOCTTY | O_NONBLOCK, 0600);
    if (fd < 0)
        return errno;
    struct stat st;
    if (fstat(fd, &st) != 0)
        return errno;
    /* O_NONBLOCK and this: a FIFO or a device in the place of a file must neither hang nor be read. */
    if (!S_ISREG(st.st_mode))
        return S_ISDIR(st.st_mode) ? EISDIR : EINVAL;
    /* Left on, an older kernel's io_uring would end reads with EAGAIN on block devices that cannot do without waiting. */
    /* And reading is nothing that an image remembers, where we may say so: a long read of a deep chain touches many. */
    if (fcntl(fd, F_SETFL, O_NOATIME) != 0 && fcntl(fd, F_SETFL, 0) != 0)
        return errno;
    struct io_file *file = calloc(1, sizeof *file);
    char *copy = strdup(path);
    if (!file || !copy) {
        free(file);
        free(copy);
        return ENOMEM;
    }
    *file = (struct io_file){.io = io, .path = copy, .fd = TAKE_FD(fd)};
    *ret_file = file;
    return 0;
}

static void real_close(struct io_file *file)
{
    close(file->fd);
    free(file->path);
    free(file);
}

static int real_read(struct io_file *file, uint64_t offset, void *bytes, size_t length, size_t *ret_length)
{
    size_t done = 0;

    while (done < length) {
        ssize_t n = pread(file->fd, (char *)bytes + done, length - done, (off_t)(offset + done));
        if (n == 0)
            break;
        if (n > 0)
            done += (size_t)n;
        else if (errno != EINTR)
            return errno;
    }
    *ret_length = done;
    return 0;
}

static int real_write(struct io_file *file, uint64_t offset, const void *bytes, size_t length)
{
    size_t done = 0;

    while (done < length) {
        ssize_t n = pwrite(file->fd, (const char *)bytes + done, length - done, (off_t)(offset + done));
        if (n > 0)
            done += (size_t)n;
        else if (n == 0)
            return EIO;
        else if (errno != EINTR)
            return errno;
    }
    return 0;
}

static void stat_convert(const struct stat *st, struct io_stat *ret_stat)
{
    *ret_stat = (struct io_stat){
        .size_bytes = (uint64_t)st->st_size,
        .allocated_bytes = (uint64_t)st->st_blocks * 512,
        .device = st->st_dev,
        .inode = st->st_ino,
        .links = st->st_nlink,
        .mtime_seconds = st->st_mtim.tv_sec,
        .mtime_ns = (uint32_t)st->st_mtim.tv_nsec,
        .uid = st->st_uid,
        .is_directory = S_ISDIR(st->st_mode),
        .is_regular = S_ISREG(st->st_mode),
    };
}

static int real_stat_file(struct io_file *file, struct io_stat *ret_stat)
{
    struct stat st;

    if (fstat(file->fd, &st) != 0)
        return errno;
    stat_convert(&st, ret_stat);
    return 0;
}

static int real_truncate(struct io_file *file, uint64_t size_bytes)
{
    return ftruncate(file->fd, (off_t)size_bytes) == 0 ? 0 : errno;
}

static int real_sync(struct io_file *file)
{
    return fdatasync(file->fd) == 0 ? 0 : errno;
}

static int real_punch(struct io_file *file, uint64_t offset, uint64_t length)
{
    int mode = FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE;

    return fallocate(file->fd, mode, (off_t)offset, (off_t)length) == 0 ? 0 : errno;
}

static int real_allocate(struct io_file *file, uint64_t offset, uint64_t length)
{
    return fallocate(file->fd, 0, (off_t)offset, (off_t)length) == 0 ? 0 : errno;
}

static int real_stat(const struct io *io, const char *path, struct io_stat *ret_stat)
{
    struct stat st;

    (void)io;
    if (stat(path, &st) != 0)
        return errno;
    stat_convert(&st, ret_stat);
    return 0;
}

static int real_rename(const struct io *io, const char *from, const char *to)
{
    (void)io;
    return rename(from, to) == 0 ? 0 : errno;
}

static int real_link(const struct io *io, const char *from, const char *to)
{
    (void)io;
    return link(from, to) == 0 ? 0 : errno;
}

static int real_unlink(const struct io *io, const char *path)
{
    (void)io;
    return unlink(path) == 0 ? 0 : errno;
}

static int real_make_dir(const struct io *io, const char *path)
{
    (void)io;
    return mkdir(path, 0700) == 0 ? 0 : errno;
}

static int real_remove_dir(const struct io *io, const char *path)
{
    (void)io;
    return rmdir(path) == 0 ? 0 : errno;
}

static int real_sync_dir(const struct io *io, const char *path)
{
    (void)io;
    AUTO_FD int fd = open(path, O_RDONLY | O_DIRECTORY | O_CLOEXEC);

    if (fd < 0)
        return errno;
    return fsync(fd) == 0 ? 0 : errno;
}

static int real_list(const struct io *io, const char *path, int (*each)(void *context, const char *name),
                     void *context)
{
    (void)io;
    AUTO_DIR DIR *dir = opendir(path);

    if (!dir)
        return errno;
    for (;;) {
        errno = 0;
        const struct dirent *entry = readdir(dir);
        if (!entry)
            return errno;
        if (strcmp(entry->d_name, ".") == 0 || strcmp(entry->d_name, "..") == 0)
            continue;
        int errnum = each(context, entry->d_name);
        if (errnum != 0)
            return errnum;
    }
}

static const struct io_ops REAL_OPS = {
    .open = real_open,
    .close = real_close,
    .read = real_read,
    .write = real_write,
    .stat_file = real_stat_file,
    .truncate = real_truncate,
    .sync = real_sync,
    .punch = real_punch,
    .allocate = real_allocate,
    .stat = real_stat,
    .rename = real_rename,
    .link = real_link,
    .unlink = real_unlink,
    .make_dir = real_make_dir,
    .remove_dir = real_remove_dir,
    .sync_dir = real_sync_dir,
    .list = real_list,
};

const struct io io_real = {.ops = &REAL_OPS};
