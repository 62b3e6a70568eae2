#include "disk_private.h"
#include "disk_tools.h"

#include <string.h>

struct parents {
    struct layer **layers;
    size_t depth;
};

static void parents_done(struct parents *parents)
{
    chain_free(parents->layers, parents->depth);
}

static bool check(const struct vhd *child, const struct parents *parents, bool force, struct err *err)
{
    const struct vhd *parent = parents->layers[parents->depth - 1]->vhd;
    char want[2 * VHD_ID_SIZE + 1], have[2 * VHD_ID_SIZE + 1];

    for (size_t i = 0; i < parents->depth; i++) {
        const struct vhd *other = parents->layers[i]->vhd;
        if (other->device == child->device && other->inode == child->inode)
            return err_set(err, ERR_INVALID, "%s: is among the parents of %s", child->path, parent->path);
    }
    if (!force && memcmp(child->header.parent_id, parent->footer.id, VHD_ID_SIZE) != 0)
        return err_set(err, ERR_MISMATCH, "%s: wants a parent with the unique id %s, but %s has %s",
                       child->path, vhd_id_format(child->header.parent_id, want), parent->path,
                       vhd_id_format(parent->footer.id, have));
    return true;
}

bool disk_reconnect(const struct io *io, const char *path, const char *parent_path, bool force,
                    struct err *err)
{
    AUTO(parents_done) struct parents parents = {0};
    AUTO_VHD struct vhd *child = NULL;
    struct io_stat stat;
    const struct disk_options options = {.io = io, .max_depth = DISK_DEFAULT_MAX_DEPTH};

    if (!vhd_open(io, path, IO_READ_ONLY, &child, err) || !io_stat_path(io, parent_path, &stat, err))
        return false;
    /* Told before its old parent, which may be missing, is looked for. */
    if (stat.device == child->device && stat.inode == child->inode)
        return err_set(err, ERR_INVALID, "%s: an image cannot be its own parent", child->path);
    if (child->type != VHD_DIFFERENCING)
        return err_set(err, ERR_INVALID, "%s: is %s and has no parent", child->path,
                       vhd_type_name(child->type));
    return chain_open(&options, parent_path, &parents.layers, &parents.depth, err) &&
           check(child, &parents, force, err) && vhd_reparent(io, path, parent_path, err);
}
