/* From a top to its base by the parent locators. */
#include "bytes.h"
#include "disk_private.h"

#include <stdlib.h>
#include <string.h>

struct chain {
    struct layer **layers; /* the top first */
    size_t depth, capacity;
};

void chain_free(struct layer **layers, size_t depth)
{
    for (size_t i = 0; i < depth; i++)
        layer_free(layers[i]);
    free(layers);
}

static void chain_done(struct chain *chain)
{
    chain_free(chain->layers, chain->depth);
}

/* Takes vhd, also on failure. */
static bool append(struct chain *chain, struct vhd *vhd, struct err *err)
{
    AUTO_LAYER struct layer *layer = calloc(1, sizeof *layer);

    if (!layer) {
        vhd_close(vhd);
        return err_oom(err);
    }
    layer->vhd = vhd;
    if (chain->depth == chain->capacity) {
        size_t capacity = chain->capacity * 2 + 8;
        struct layer **layers = realloc(chain->layers, capacity * sizeof(struct layer *));
        if (!layers)
            return err_oom(err);
        chain->layers = layers;
        chain->capacity = capacity;
    }
    chain->layers[chain->depth++] = TAKE(layer);
    return true;
}

/* By what the file is, not by its unique id: some programs have given parent and child the same. */
static bool check_cycle(const struct chain *chain, const struct vhd *child, const struct vhd *parent,
                        struct err *err)
{
    for (size_t i = 0; i < chain->depth; i++) {
        const struct vhd *other = chain->layers[i]->vhd;
        if (other->device == parent->device && other->inode == parent->inode)
            return err_set(err, ERR_CORRUPT, "%s: its parent %s is %s: the chain is a circle", child->path,
                           parent->path, other == child ? "itself" : "one of its children");
    }
    return true;
}

/* Writes that a process left behind when it was killed come to their places before the image is read. */
static bool settle(const struct disk_options *options, const char *path, bool *ret_changed, struct err *err)
{
    *ret_changed = false;
    return !options->log_dir || dirty_log_replay(options->io, options->log_dir, path, ret_changed, err);
}

static bool open_parent(const struct disk_options *options, const struct vhd *child, struct vhd **ret_parent, struct err *err)
{
    AUTO_VHD struct vhd *parent = NULL;
    bool changed;

    if (!vhd_open_parent(child, &parent, err) || !settle(options, parent->path, &changed, err))
        return false;
    if (!changed) {
        *ret_parent = TAKE(parent);
        return true;
    }
    return vhd_open_parent(child, ret_parent, err);
}

/* As long as a chain is written on top, nobody may write below it. */
static bool append_parent(struct chain *chain, const struct disk_options *options, struct err *err)
{
    struct layer *child = chain->layers[chain->depth - 1];
    AUTO_VHD struct vhd *parent = NULL;

    if (chain->depth >= options->max_depth)
        return err_set(err, ERR_CORRUPT, "%s: the chain of %s is deeper than %u", child->vhd->path,
                       chain->layers[0]->vhd->path, options->max_depth);
    if (!open_parent(options, child->vhd, &parent, err) || !check_cycle(chain, child->vhd, parent, err) ||
        (options->writable && !io_lock(parent->file, IO_LOCK_SHARE, err)))
        return false;
    uint32_t stamp = child->vhd->header.parent_timestamp;
    /* 0 is what Windows 10 and we write: nothing is claimed. */
    child->parent_time_differs = stamp != 0 && stamp != (uint32_t)(parent->mtime_seconds - VHD_EPOCH);
    return append(chain, TAKE(parent), err);
}

/* Turns the order round, and finds out how much is seen of each layer: past its end a layer reads as zeros,
 * whatever lies below. */
static void number(struct chain *chain)
{
    uint64_t visible = UINT64_MAX;

    for (size_t i = 0; i < chain->depth; i++) {
        struct layer *layer = chain->layers[i];
        visible = min_u64(visible, layer->vhd->size_bytes);
        layer->visible_bytes = visible;
        layer->number = (uint16_t)(chain->depth - 1 - i);
    }
    for (size_t i = 0; i < chain->depth / 2; i++) {
        struct layer *layer = chain->layers[i];
        chain->layers[i] = chain->layers[chain->depth - 1 - i];
        chain->layers[chain->depth - 1 - i] = layer;
    }
}

bool chain_open(const struct disk_options *options, const char *top_path, struct layer ***ret_layers, size_t *ret_depth,
                struct err *err)
{
    AUTO(chain_done) struct chain chain = {0};
    struct vhd *top;
    bool ignored;

    if (!settle(options, top_path, &ignored, err) ||
        !vhd_open(options->io, top_path, options->writable ? IO_WRITE : IO_READ_ONLY, &top, err) ||
        !append(&chain, top, err))
        return false;
    while (chain.layers[chain.depth - 1]->vhd->type == VHD_DIFFERENCING)
        if (!append_parent(&chain, options, err))
            return false;
    number(&chain);
    *ret_layers = chain.layers;
    *ret_depth = chain.depth;
    chain = (struct chain){0};
    return true;
}

bool disk_settle(const struct io *io, const char *log_dir, const char *top_path, struct err *err)
{
    AUTO_VHD struct vhd *child = NULL;
    struct vhd *parent;
    bool changed;
    struct err ignored;

    if (!dirty_log_replay(io, log_dir, top_path, &changed, err))
        return false;
    if (!vhd_open(io, top_path, IO_READ_ONLY, &child, &ignored))
        return true; /* whoever needs it tells */
    for (unsigned depth = 0; depth < MAP_MAX_LAYERS && child->type == VHD_DIFFERENCING; depth++) {
        if (!vhd_open_parent(child, &parent, &ignored))
            return true;
        vhd_close(child);
        child = parent;
        if (!dirty_log_replay(io, log_dir, child->path, &changed, err))
            return false;
    }
    return true;
}
