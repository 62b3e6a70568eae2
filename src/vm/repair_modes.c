/* Who may use the files of a VM. Bough makes them for their owner alone. */
#include "repair.h"

#include "auto.h"
#include "buf.h"
#include "file.h"

#include <errno.h>
#include <fts.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#define OTHERS_WRITE (S_IWGRP | S_IWOTH)

/* What is sealed need not be writable; what is written under its own name must be. */
static unsigned needed(const struct stat *stat, const char *path)
{
    const char *end = strrchr(path_base(path), '.');

    if (S_ISDIR(stat->st_mode))
        return S_IRWXU;
    return end && (strcmp(end, ".lock") == 0 || strcmp(end, ".nvram") == 0) ? S_IRUSR | S_IWUSR : S_IRUSR;
}

/* Only below the folder itself the images and the two folders are ours. */
static bool is_ours(const FTSENT *entry)
{
    if (entry->fts_statp->st_uid != geteuid())
        return false;
    if (entry->fts_level > 1 || S_ISDIR(entry->fts_statp->st_mode))
        return true;
    size_t length = strlen(entry->fts_name);
    return length > 4 && strcmp(entry->fts_name + length - 4, ".vhd") == 0;
}

static bool entry_look(const FTSENT *entry, mode_fn *each, void *context, struct err *err)
{
    const struct stat *stat = entry->fts_statp;

    if ((!S_ISREG(stat->st_mode) && !S_ISDIR(stat->st_mode)) || !is_ours(entry))
        return true;
    unsigned mode = stat->st_mode & 07777U;
    unsigned better = (mode | needed(stat, entry->fts_path)) & ~(unsigned)OTHERS_WRITE;
    return mode == better || each(context, entry->fts_path, mode, better, err);
}

static bool is_foreign(const FTSENT *entry)
{
    return entry->fts_level == 1 && strcmp(entry->fts_name, "Virtual Machines") != 0 && strcmp(entry->fts_name, "Snapshots") != 0;
}

bool modes_look(const char *vm_dir, mode_fn *each, void *context, struct err *err)
{
    AUTO_FREE char *dir = path_absolute(vm_dir);
    char *const roots[] = {dir, NULL};
    FTS *walk = dir ? fts_open(roots, FTS_PHYSICAL | FTS_NOCHDIR, NULL) : NULL;
    FTSENT *entry;
    bool ok = true;

    if (!walk)
        return dir ? err_sys(err, errno, "list %s", dir) : err_oom(err);
    while (ok && (entry = fts_read(walk))) {
        if (entry->fts_info == FTS_D && is_foreign(entry))
            fts_set(walk, entry, FTS_SKIP);
        else if (entry->fts_info == FTS_D || entry->fts_info == FTS_DNR || entry->fts_info == FTS_F)
            ok = entry_look(entry, each, context, err);
    }
    fts_close(walk);
    return ok;
}

static bool mode_set(void *context, const char *path, unsigned mode, unsigned better, struct err *err)
{
    struct repair *repair = context;

    if (!repair->options->dry_run && chmod(path, better) != 0)
        return err_sys(err, errno, "chmod %s", path);
    repair_tell(repair, path, "its mode is %04o now, it was %04o", better, mode);
    return true;
}

bool repair_modes(struct repair *repair, struct err *err)
{
    return modes_look(repair->look->vm_dir, mode_set, repair, err);
}
