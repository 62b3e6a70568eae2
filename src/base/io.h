/* The I/O seam: every file operation of vhd/, disk/ and store/ goes through this small table, so that tests
 * can put memory, a failure at the n-th call, or a power cut under the same code.
 *
 * Paths are absolute, or relative to the working directory. All wrappers name the path in their errors.
 * Nothing here is atomic beyond what the system call of that name is. */
#pragma once

#include "auto.h"
#include "err.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct io;
struct io_file;

enum io_open_flags {
    IO_READ_ONLY = 0,
    IO_WRITE = 1,     /* read and write */
    IO_CREATE = 2,    /* must not exist yet; mode 0600; implies IO_WRITE */
};

struct io_stat {
    uint64_t size_bytes;
    uint64_t allocated_bytes; /* space taken on the file system */
    uint64_t device, inode;
    uint64_t links;
    int64_t mtime_seconds;
    uint32_t mtime_ns;
    uint32_t uid; /* owner */
    bool is_directory, is_regular;
};

/* An implementation returns 0 or an errno. read returns fewer bytes only at the end of the file. */
struct io_ops {
    int (*open)(const struct io *io, const char *path, unsigned flags, struct io_file **ret_file);
    void (*close)(struct io_file *file);
    int (*read)(struct io_file *file, uint64_t offset, void *bytes, size_t length, size_t *ret_length);
    int (*write)(struct io_file *file, uint64_t offset, const void *bytes, size_t length);
    int (*stat_file)(struct io_file *file, struct io_stat *ret_stat);
    int (*truncate)(struct io_file *file, uint64_t size_bytes);
    int (*sync)(struct io_file *file);
    int (*punch)(struct io_file *file, uint64_t offset, uint64_t length);    /* EOPNOTSUPP: caller writes zeros */
    int (*allocate)(struct io_file *file, uint64_t offset, uint64_t length); /* may grow the file; the same */
    int (*stat)(const struct io *io, const char *path, struct io_stat *ret_stat);
    int (*rename)(const struct io *io, const char *from, const char *to); /* replaces */
    int (*link)(const struct io *io, const char *from, const char *to);
    int (*unlink)(const struct io *io, const char *path);
    int (*make_dir)(const struct io *io, const char *path); /* mode 0700 */
    int (*remove_dir)(const struct io *io, const char *path);
    int (*sync_dir)(const struct io *io, const char *path);
    int (*list)(const struct io *io, const char *path, int (*each)(void *context, const char *name),
                void *context);
};

struct io {
    const struct io_ops *ops;
};

/* The first member of each implementation's file. */
struct io_file {
    const struct io *io;
    char *path; /* for messages; owned */
    int fd;     /* of the kernel's file, for io_uring; -1 where there is none */
};

extern const struct io io_real;

bool io_open(const struct io *io, const char *path, unsigned flags, struct io_file **ret_file,
             struct err *err) MUST_CHECK;
void io_close(struct io_file *file); /* accepts NULL */
AUTO_DEFINE(auto_io_close, struct io_file, io_close)
#define AUTO_IO AUTO(auto_io_close)

/* Exactly length bytes: an earlier end of the file is ERR_CORRUPT. */
bool io_read(struct io_file *file, uint64_t offset, void *bytes, size_t length, struct err *err) MUST_CHECK;
/* Up to length bytes, fewer only at the end of the file. */
bool io_read_some(struct io_file *file, uint64_t offset, void *bytes, size_t length, size_t *ret_length,
                  struct err *err) MUST_CHECK;
bool io_write(struct io_file *file, uint64_t offset, const void *bytes, size_t length,
              struct err *err) MUST_CHECK;
bool io_stat_file(struct io_file *file, struct io_stat *ret_stat, struct err *err) MUST_CHECK;
bool io_truncate(struct io_file *file, uint64_t size_bytes, struct err *err) MUST_CHECK;
/* fdatasync. After a failure the kernel may have forgotten what was dirty: never retry as if it could help. */
bool io_sync(struct io_file *file, struct err *err) MUST_CHECK;
/* The range reads as zeros afterwards, whether or not the file system can make holes. */
bool io_zero(struct io_file *file, uint64_t offset, uint64_t length, struct err *err) MUST_CHECK;
/* Gives back the space of a range that reads as zeros already; where the file system cannot, nothing happens. */
bool io_release(struct io_file *file, uint64_t offset, uint64_t length, struct err *err) MUST_CHECK;
/* Reserves space; where the file system cannot, that is no error. ENOSPC is ERR_NO_SPACE. */
bool io_allocate(struct io_file *file, uint64_t offset, uint64_t length, struct err *err) MUST_CHECK;

/* What was written is on its way to the disk from now on, as far as the system can be told so; wait: and has come there. This
 * makes nothing durable. */
void io_write_behind(struct io_file *file, bool wait);

/* Locks among those who ask, until this file is closed: one writer, or any number that want nobody to write; ERR_BUSY if others hold
 * what excludes it. A second call changes the kind; from IO_LOCK_WRITE to IO_LOCK_SHARE it cannot fail. Where the file system has no
 * locks, that is no error. */
/* Who shares can lend: one borrower may write then, if nobody else shares, and for all others nothing changes. */
enum io_lock_kind { IO_LOCK_SHARE, IO_LOCK_WRITE, IO_LOCK_LEND, IO_LOCK_BORROW };
bool io_lock(struct io_file *file, enum io_lock_kind kind, struct err *err) MUST_CHECK;

bool io_stat_path(const struct io *io, const char *path, struct io_stat *ret_stat, struct err *err) MUST_CHECK;
bool io_exists(const struct io *io, const char *path);
bool io_rename(const struct io *io, const char *from, const char *to, struct err *err) MUST_CHECK;
bool io_link(const struct io *io, const char *from, const char *to, struct err *err) MUST_CHECK;
bool io_unlink(const struct io *io, const char *path, struct err *err) MUST_CHECK;
bool io_make_dir(const struct io *io, const char *path, struct err *err) MUST_CHECK;
bool io_remove_dir(const struct io *io, const char *path, struct err *err) MUST_CHECK;
bool io_sync_dir(const struct io *io, const char *path, struct err *err) MUST_CHECK;
/* Every name but `.` and `..`, in no order. each returns 0 to go on, else an errno that becomes the error. */
bool io_list(const struct io *io, const char *path, int (*each)(void *context, const char *name),
             void *context, struct err *err) MUST_CHECK;
