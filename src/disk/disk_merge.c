/* Merging a differencing image into its parent, while nobody uses either.
 *
 *   1  the top's sectors are written to the parent, sector for sector: what is seen from the top does not
 *      change by it, since the top has those sectors itself; flushed now and then
 *   2  the parent is flushed
 *   3  each child of the top gets the parent as its own: vhd_reparent()
 * Whoever is cut off does it all again: 1 writes the same once more, 3 passes over children that are done. */
#include "bytes.h"
#include "disk_private.h"
#include "disk_tools.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK       (1U << 20)
#define FLUSH_EVERY (64U << 20)
#define PIECES      32

struct merge {
    const struct io *io;
    const struct disk_merge_options *options;
    const struct progress *progress;
    struct vhd *lock;      /* the top, open for writing: nobody else is */
    struct disk *top;      /* read-only, with all below */
    struct disk *parent;   /* the same chain without the top, writable */
    struct vhd **children; /* locked; as many as options say, NULL: done already */
    uint8_t *chunk;
    uint64_t copied_bytes, unflushed_bytes;
};

static void merge_done(struct merge *merge)
{
    for (size_t i = 0; merge->children && i < merge->options->child_count; i++)
        vhd_close(merge->children[i]);
    free(merge->children);
    disk_abandon(merge->parent);
    disk_abandon(merge->top);
    vhd_close(merge->lock);
    free(merge->chunk);
}

static const struct vhd *parent_of(const struct merge *merge)
{
    return merge->top->layers[merge->top->depth - 2]->vhd;
}

static bool check_parent(const struct merge *merge, struct err *err)
{
    const struct vhd *parent = parent_of(merge), *top = disk_top(merge->top)->vhd;
    struct io_stat stat;

    if (parent->type != VHD_DIFFERENCING && !merge->options->into_base)
        return err_set(err, ERR_STATE, "%s: is a base disk: merging into it must be asked for (--into-base)", parent->path);
    if (!io_stat_file(parent->file, &stat, err))
        return false;
    if (stat.links > 1)
        return err_set(err, ERR_STATE, "%s: has another name in the file system, where others may use it",
                       parent->path);
    if (parent->size_bytes > top->size_bytes)
        return err_set(err, ERR_UNSUPPORTED, "%s: is larger than %s, which hides what lies behind its end",
                       parent->path, top->path);
    return true;
}

static bool open_top(struct merge *merge, const char *path, struct err *err)
{
    struct disk_options options = {.io = merge->io};

    if (!vhd_open(merge->io, path, IO_WRITE, &merge->lock, err))
        return false;
    if (merge->lock->type != VHD_DIFFERENCING)
        return err_set(err, ERR_INVALID, "%s: is %s and has no parent", merge->lock->path,
                       vhd_type_name(merge->lock->type));
    return disk_open(path, &options, &merge->top, err) &&
           check_parent(merge, err);
}

/* Over the top, or, by a merge that was cut off, over the parent already. */
static bool open_child(struct merge *merge, size_t i, struct err *err)
{
    const char *path = merge->options->children[i];
    AUTO_VHD struct vhd *child = NULL;
    const struct vhd *top = disk_top(merge->top)->vhd, *parent = parent_of(merge);

    if (!vhd_open(merge->io, path, IO_WRITE, &child, err))
        return false;
    if (child->inode == top->inode && child->device == top->device)
        return err_set(err, ERR_INVALID, "%s: is no child of itself", child->path);
    if (child->type == VHD_DIFFERENCING && memcmp(child->header.parent_id, top->footer.id, VHD_ID_SIZE) == 0)
        merge->children[i] = TAKE(child);
    else if (child->type != VHD_DIFFERENCING ||
             memcmp(child->header.parent_id, parent->footer.id, VHD_ID_SIZE) != 0)
        return err_set(err, ERR_MISMATCH, "%s: its parent is neither %s nor %s", child->path, top->path,
                       parent->path);
    return true;
}

static bool open_children(struct merge *merge, struct err *err)
{
    size_t count = merge->options->child_count;

    merge->children = calloc(count + 1, sizeof(struct vhd *));
    merge->chunk = malloc(CHUNK);
    if (!merge->children || !merge->chunk)
        return err_oom(err);
    for (size_t i = 0; i < count; i++)
        if (!open_child(merge, i, err))
            return false;
    return true;
}

/* A parent that ends before the top does is grown first: the top hides what that adds. */
static bool open_parent(struct merge *merge, struct err *err)
{
    struct disk_options options = {.io = merge->io, .writable = true};
    uint64_t size = disk_size_bytes(merge->top);

    if (parent_of(merge)->size_bytes < size &&
        !disk_resize(merge->io, parent_of(merge)->path, size, merge->progress, err))
        return false;
    return disk_open(parent_of(merge)->path, &options, &merge->parent, err);
}

/* Zeros are written as zeros: they hide what the parent's parents hold. */
static bool copy_piece(struct merge *merge, uint64_t offset, const struct disk_piece *piece, struct err *err)
{
    for (uint64_t done = 0; done < piece->length;) {
        size_t part = (size_t)min_u64(CHUNK, piece->length - done);
        if (!io_read(piece->file, piece->file_offset + done, merge->chunk, part, err))
            return false;
        bool ok = bytes_are_zero(merge->chunk, part)
                      ? disk_zero(merge->parent, offset + done, part, err)
                      : disk_write(merge->parent, offset + done, merge->chunk, part, err);
        if (!ok)
            return false;
        done += part;
    }
    merge->copied_bytes += piece->length;
    merge->unflushed_bytes += piece->length;
    if (merge->unflushed_bytes < FLUSH_EVERY)
        return true;
    merge->unflushed_bytes = 0;
    return disk_flush(merge->parent, err);
}

static bool copy_all(struct merge *merge, struct err *err)
{
    const struct io_file *own = disk_top(merge->top)->vhd->file;
    uint64_t size = disk_size_bytes(merge->top);
    struct disk_piece pieces[PIECES];
    size_t count;

    for (uint64_t offset = 0; offset < size;) {
        if (progress_cancelled(merge->progress))
            return err_set(err, ERR_CANCELLED, "the merge was cancelled; it can be done again");
        progress_report(merge->progress, "merge", offset, size);
        if (!disk_map(merge->top, offset, min_u64(size - offset, 16 * CHUNK), pieces, PIECES, &count, err))
            return false;
        for (size_t i = 0; i < count; i++) {
            if (pieces[i].file == own && !copy_piece(merge, offset, &pieces[i], err))
                return false;
            offset += pieces[i].length;
        }
    }
    return true;
}

/* What was copied stays whatever comes then: an orderly end of the parent, its footer included. */
static bool copy(struct merge *merge, struct err *err)
{
    struct err closing = ERR_INIT;
    bool copied = copy_all(merge, err);
    bool closed = disk_close(TAKE(merge->parent), &closing);

    if (copied && !closed)
        *err = closing;
    return copied && closed;
}

static bool reparent_children(struct merge *merge, struct err *err)
{
    for (size_t i = 0; i < merge->options->child_count; i++) {
        if (merge->children[i] &&
            !vhd_reparent_open(merge->children[i], parent_of(merge)->path, err))
            return false;
    }
    return true;
}

bool disk_merge(const struct io *io, const char *top_path, const struct disk_merge_options *options,
                const struct progress *progress, struct disk_merge_result *ret_result, struct err *err)
{
    AUTO(merge_done) struct merge merge = {.io = io, .options = options, .progress = progress};

    if (!open_top(&merge, top_path, err) || !open_children(&merge, err) || !open_parent(&merge, err) ||
        !copy(&merge, err) || !reparent_children(&merge, err))
        return false;
    char *path = strdup(parent_of(&merge)->path);
    if (!path)
        return err_oom(err);
    *ret_result = (struct disk_merge_result){.parent_path = path, .copied_bytes = merge.copied_bytes};
    return true;
}
