#include "staging.h"

#include "buf.h"
#include "file.h"
#include "guid.h"

#include <errno.h>

static bool name_all(const char *to, struct staging *staging, struct err *err)
{
    struct guid unique = guid_new();
    AUTO_FREE char *parent = NULL;

    if (*path_base(to) == '\0')
        return err_set(err, ERR_INVALID, "'%s' names no file", to);
    staging->to = path_rooted(to);
    parent = staging->to ? path_dir(staging->to) : NULL;
    staging->dir =
        parent ? string_printf("%s/bough-convert-%.8s" FILE_TEMPORARY_SUFFIX, parent, unique.text) : NULL;
    staging->path = staging->dir ? path_join(staging->dir, path_base(to)) : NULL;
    return staging->path || err_oom(err);
}

static void forget(struct staging *staging)
{
    free(staging->to);
    free(staging->dir);
    free(staging->path);
    *staging = (struct staging){0};
}

static bool check_free(const struct io *io, const char *path, struct err *err)
{
    struct io_stat stat;

    if (io_stat_path(io, path, &stat, err))
        return err_set(err, ERR_EXISTS, "%s: is there already", path);
    return err->code == ERR_NOT_FOUND;
}

bool staging_begin(const struct io *io, const char *to, struct staging *ret_staging, struct err *err)
{
    struct staging staging = {.io = io};

    bool ok = name_all(to, &staging, err) && check_free(io, to, err) && io_make_dir(io, staging.dir, err);
    if (!ok && err->code == ERR_NOT_FOUND)
        ok = err_set(err, ERR_NOT_FOUND, "%s: its folder is not there", to);
    if (!ok) {
        forget(&staging);
        return false;
    }
    *ret_staging = staging;
    return true;
}

/* A second name and then the first one's end: unlike a rename it never replaces. Not all file systems can. */
static bool give_name(const struct staging *staging, struct err *err)
{
    struct err why;

    if (io_link(staging->io, staging->path, staging->to, &why))
        return true;
    if (why.sys != EPERM && why.sys != EOPNOTSUPP && why.sys != ENOSYS && why.sys != EMLINK) {
        *err = why;
        return false;
    }
    return check_free(staging->io, staging->to, err) &&
           io_rename(staging->io, staging->path, staging->to, err);
}

bool staging_publish(struct staging *staging, struct err *err)
{
    AUTO_FREE char *parent = path_dir(staging->to);
    struct err ignored;

    if (!parent)
        return err_oom(err);
    if (!give_name(staging, err))
        return false;
    if (io_sync_dir(staging->io, parent, err))
        return true;
    (void)!io_unlink(staging->io, staging->to, &ignored);
    return false;
}

void staging_done(struct staging *staging)
{
    struct err ignored;

    if (staging->dir) {
        (void)!io_unlink(staging->io, staging->path, &ignored);
        (void)!io_remove_dir(staging->io, staging->dir, &ignored);
    }
    forget(staging);
}
