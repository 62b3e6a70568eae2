/* The steps of a plan that are about files. */
#include "store_private.h"

#include "bytes.h"
#include "vhd.h"

#include <errno.h>
#include <stdlib.h>

bool make_dir(const struct io *io, const char *path, struct err *err)
{
    struct io_stat stat;

    if (io->ops->stat(io, path, &stat) == 0)
        return stat.is_directory || err_set(err, ERR_EXISTS, "%s: is no folder", path);
    return io_make_dir(io, path, err);
}

static bool create_layer(const struct io *io, const struct step *step, struct err *err)
{
    struct vhd_create_options options = {.type = VHD_DIFFERENCING, .parent_path = step->from};

    return vhd_create(io, step->path, &options, err);
}

/* Not every file system has links, and a file cannot have any number of them. */
bool share_file(const struct io *io, const struct step *step, struct err *err)
{
    int errnum = io->ops->link(io, step->from, step->path);

    if (errnum == EPERM || errnum == EOPNOTSUPP || errnum == ENOSYS || errnum == EMLINK || errnum == EXDEV)
        return copy_file(io, step->from, step->path, /* progress= */ NULL, err);
    return errnum == 0 || err_sys(err, errnum, "link %s to %s", step->from, step->path);
}

static bool write_config(struct store *store, const struct step *step, bool *ret_renamed, struct err *err)
{
    AUTO_FREE char *xml = NULL;
    size_t length;

    return config_format(step->config, store->vm_dir, &xml, &length, err) &&
           file_replace(store->io, step->path, xml, length, ret_renamed, err);
}

/* Which images the snapshot means, when it is written for the first time. */
static bool note_images(const struct io *io, const struct step *step, struct err *err)
{
    struct config *config = step->config;

    if (!config->is_snapshot || io_exists(io, step->path))
        return true;
    for (size_t i = 0; i < config->disk_count; i++) {
        AUTO_VHD struct vhd *image = NULL;
        if (config->disks[i].is_cdrom)
            continue;
        if (!vhd_open(io, config->disks[i].path, IO_READ_ONLY, &image, err))
            return false;
        vhd_id_format(image->footer.id, config->disks[i].image_id);
    }
    return true;
}

/* Renamed into its place, and then the folder could not be synced: what is told to have failed is not to be found. The file of before is
 * written again; where that is not possible either the new one stays, which is as good as the old one. */
static bool replace_config(struct store *store, const struct step *step, struct err *err)
{
    AUTO_BUF struct buf before = BUF_INIT;
    struct err ignored;
    bool renamed = false;

    bool existed = file_read_all(store->io, step->path, CONFIG_XML_MAX_BYTES, &before, &ignored);
    if (write_config(store, step, &renamed, err))
        return true;
    if (existed && renamed)
        (void)!file_replace(store->io, step->path, before.data, before.length, &renamed, &ignored);
    return false;
}

static bool commit(struct store *store, const struct step *step, bool *ret_uncertain, struct err *err)
{
    bool renamed = false;

    if (!lock_is_ours(store, err))
        return false;
    if (!write_config(store, step, &renamed, err)) {
        *ret_uncertain = renamed;
        return false;
    }
    return true;
}

static bool remove_file(const struct io *io, const char *path, struct err *err)
{
    return io_unlink(io, path, err) || err->code == ERR_NOT_FOUND;
}

/* Of one whose changes somebody else may have left in the system's memory. */
static bool sync_file(const struct io *io, const char *path, struct err *err)
{
    AUTO_IO struct io_file *file = NULL;

    return io_open(io, path, IO_READ_ONLY, &file, err) && io_sync(file, err);
}

bool step_do(struct store *store, const struct step *step, const struct progress *progress, bool *ret_uncertain,
             struct err *err)
{
    const struct io *io = store->io;

    *ret_uncertain = false;
    switch (step->kind) {
    case STEP_MAKE_DIR:
        return make_dir(io, step->path, err);
    case STEP_CREATE_LAYER:
        return create_layer(io, step, err);
    case STEP_SHARE_FILE:
        return share_file(io, step, err);
    case STEP_COPY_FILE:
        return copy_file(io, step->from, step->path, /* progress= */ NULL, err);
    case STEP_WRITE_CONFIG:
        return note_images(io, step, err) && replace_config(store, step, err);
    case STEP_SYNC_DIR:
        return io_sync_dir(io, step->path, err);
    case STEP_SYNC_FILE:
        return sync_file(io, step->path, err);
    case STEP_MERGE_DATA:
        return merge_data(io, step, progress, err);
    case STEP_EMPTY_LAYER:
        return vhd_empty(io, step->path, err);
    case STEP_CHECK_EMPTY:
        return vhd_check_empty(io, step->path, err);
    case STEP_REPARENT:
        return vhd_reparent(io, step->path, step->from, err);
    case STEP_COMMIT:
        return commit(store, step, ret_uncertain, err);
    case STEP_REMOVE_FILE:
        return remove_file(io, step->path, err);
    case STEP_REMOVE_DIR:
        remove_folder(io, step->path);
        return true;
    default:
        return err_set(err, ERR_STATE, "step %s: needs a machine, and there is none", step_name(step->kind));
    }
}
