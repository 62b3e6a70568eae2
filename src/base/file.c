#include "file.h"

#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>

bool file_read_all(const struct io *io, const char *path, size_t limit, struct buf *ret_buf, struct err *err)
{
    AUTO_IO struct io_file *file = NULL;
    AUTO_BUF struct buf buf = BUF_INIT;
    struct io_stat stat;

    if (!io_open(io, path, IO_READ_ONLY, &file, err) || !io_stat_file(file, &stat, err))
        return false;
    if (stat.size_bytes > limit)
        return err_set(err, ERR_CORRUPT, "%s: %llu bytes, more than the %zu that such a file may have", path,
                       (unsigned long long)stat.size_bytes, limit);
    uint8_t *room = buf_reserve(&buf, (size_t)stat.size_bytes);
    if (!room)
        return err_oom(err);
    if (!io_read(file, 0, room, (size_t)stat.size_bytes, err))
        return false;
    buf.length = (size_t)stat.size_bytes;
    buf.data[buf.length] = '\0';
    *ret_buf = buf;
    buf = BUF_INIT;
    return true;
}

static bool write_temporary(const struct io *io, const char *path, const void *bytes, size_t length,
                            struct err *err)
{
    AUTO_IO struct io_file *file = NULL;

    /* The VM's lock makes us the only writer here: what lies there is a dead process's. */
    if (io_exists(io, path) && !io_unlink(io, path, err))
        return false;
    return io_open(io, path, IO_CREATE, &file, err) && io_write(file, 0, bytes, length, err) &&
           io_sync(file, err);
}

bool file_replace(const struct io *io, const char *path, const void *bytes, size_t length, bool *ret_renamed,
                  struct err *err)
{
    AUTO_FREE char *temporary = string_printf("%s%s", path, FILE_TEMPORARY_SUFFIX);
    AUTO_FREE char *dir = path_dir(path);

    *ret_renamed = false;
    if (!temporary || !dir)
        return err_oom(err);
    if (!write_temporary(io, temporary, bytes, length, err) || !io_rename(io, temporary, path, err)) {
        struct err ignored;
        if (io_exists(io, temporary))
            (void)!io_unlink(io, temporary, &ignored);
        return false;
    }
    *ret_renamed = true;
    return io_sync_dir(io, dir, err);
}

char *path_join(const char *dir, const char *name)
{
    size_t length = strlen(dir);

    return string_printf("%s%s%s", dir, length > 0 && dir[length - 1] == '/' ? "" : "/", name);
}

char *path_dir(const char *path)
{
    const char *slash = strrchr(path, '/');

    if (!slash)
        return strdup(".");
    return strndup(path, slash == path ? 1 : (size_t)(slash - path));
}

const char *path_base(const char *path)
{
    const char *slash = strrchr(path, '/');

    return slash ? slash + 1 : path;
}

/* Appends the parts of path to the clean path in buf ("" stands for the root). */
static bool append_parts(struct buf *buf, const char *path)
{
    while (*path != '\0') {
        size_t length = strcspn(path, "/");
        if (length == 2 && strncmp(path, "..", 2) == 0) {
            while (buf->length > 0 && buf->data[--buf->length] != '/')
                ;
            if (buf->data)
                buf->data[buf->length] = '\0';
        } else if (length > 0 && !(length == 1 && *path == '.')) {
            if (!buf_printf(buf, "/%.*s", (int)length, path))
                return false;
        }
        path += length;
        path += strspn(path, "/");
    }
    return true;
}

char *path_absolute(const char *path)
{
    AUTO_BUF struct buf buf = BUF_INIT;

    if (*path != '/') {
        AUTO_FREE char *cwd = getcwd(NULL, 0);
        if (!cwd || !append_parts(&buf, cwd))
            return NULL;
    }
    if (!append_parts(&buf, path) || (buf.length == 0 && !buf_append(&buf, "/", 1)))
        return NULL;
    return buf_take_string(&buf);
}

char *path_rooted(const char *path)
{
    AUTO_FREE char *cwd = NULL;

    if (*path == '/')
        return strdup(path);
    cwd = getcwd(NULL, 0);
    return cwd ? path_join(cwd, path) : NULL;
}

/* The length of what both share, up to a slash boundary. */
static size_t common_prefix(const char *a, const char *b)
{
    size_t shared = 0;
    size_t i = 0;

    for (; a[i] != '\0' && a[i] == b[i]; i++)
        if (a[i] == '/')
            shared = i;
    if ((a[i] == '\0' || a[i] == '/') && (b[i] == '\0' || b[i] == '/'))
        shared = i;
    return shared;
}

char *path_relative(const char *dir, const char *to)
{
    AUTO_BUF struct buf buf = BUF_INIT;
    const char *from = strcmp(dir, "/") == 0 ? "" : dir;
    size_t shared = common_prefix(from, to);

    for (const char *p = from + shared; *p != '\0'; p++)
        if (*p == '/' && !buf_printf(&buf, "../"))
            return NULL;
    const char *rest = to + shared;
    rest += strspn(rest, "/");
    if (!buf_printf(&buf, "%s", *rest == '\0' && buf.length == 0 ? "." : rest))
        return NULL;
    return buf_take_string(&buf);
}

bool path_is_inside(const char *path, const char *dir)
{
    size_t length = strlen(dir);

    return strncmp(path, dir, length) == 0 && path[length] == '/';
}

void open_files_raise(void)
{
    struct rlimit limit;

    if (getrlimit(RLIMIT_NOFILE, &limit) == 0) {
        limit.rlim_cur = limit.rlim_max;
        setrlimit(RLIMIT_NOFILE, &limit);
    }
}

bool dir_make_all(const struct io *io, const char *path, struct err *err)
{
    struct io_stat stat;

    if (io->ops->stat(io, path, &stat) == 0) {
        if (stat.is_directory)
            return true;
        return err_set(err, ERR_EXISTS, "%s: is no folder", path);
    }
    AUTO_FREE char *parent = path_dir(path);
    if (!parent)
        return err_oom(err);
    if (strcmp(parent, path) != 0 && strcmp(parent, ".") != 0 && !dir_make_all(io, parent, err))
        return false;
    if (io_make_dir(io, path, err))
        return io_sync_dir(io, parent, err);
    return err->sys == EEXIST; /* somebody else was quicker */
}

#define SOCKET_DIR_MAX 80 /* of the 107 bytes of a socket's path */

bool dir_make_private(char **ret_dir, struct err *err)
{
    const char *home = getenv("TMPDIR");
    bool fits = home && *home == '/' && strlen(home) <= SOCKET_DIR_MAX;
    AUTO_FREE char *dir = string_printf("%s/bough-XXXXXX", fits ? home : "/tmp");

    if (!dir)
        return err_oom(err);
    if (!mkdtemp(dir))
        return err_sys(err, errno, "make folder %s", dir);
    *ret_dir = TAKE(dir);
    return true;
}
