/* Merging two neighbours.
 *
 *   1  sectors are copied: DOWN the child's into its parent, UP into the child what it lacks of the parent's; flushed now
 *      and then
 *   2  the image that was written to is flushed
 *   3  DOWN each child of the child gets the parent as its own, UP the child gets its parent's parent: vhd_reparent()
 *
 * Nobody above sees anything of it. DOWN: for each sector that is written to the parent the child has one of its own, the
 * same, which counts. UP: for each sector that the child gets, the parent's counted until its bit was set, and it is the
 * same. So at no instant does it matter how far the copying has come, nor in which order bits reach the file, as long as
 * a bit never comes before its sector (disk_flush.c); and who reads the old files through handles of his own, by tables
 * that he read before, reads the same too. Whoever is cut off does it all again: 1 writes the same once more, UP not even
 * that; 3 passes over children that are done. */
#include "bytes.h"
#include "disk_merge_private.h"

#include <stdlib.h>
#include <string.h>

#define STEP_BYTES (16U << 20)

struct disk_merging {
    const struct io *io;
    const struct disk_merge_options *options;
    const struct progress *progress;
    struct vhd *locked[2];  /* handles that keep others away */
    struct layer **layers;  /* the child's chain, read-only, the child the last one; nothing else of it is used */
    size_t depth;
    struct vhd **children; /* as many as options say, NULL: done already */
    struct merge_copy copy;
    bool all_copied, finished;
};

void disk_merging_close(struct disk_merging *merging)
{
    if (!merging)
        return;
    merge_copy_done(&merging->copy);
    for (size_t i = 0; merging->children && i < merging->options->child_count; i++)
        vhd_close(merging->children[i]);
    free(merging->children);
    chain_free(merging->layers, merging->depth);
    for (size_t i = 0; i < ARRAY_SIZE(merging->locked); i++)
        vhd_close(merging->locked[i]);
    free(merging);
}

static bool is_up(const struct disk_merging *merging)
{
    return merging->options->direction == DISK_MERGE_UP;
}

static const struct vhd *child_of(const struct disk_merging *merging)
{
    return merging->layers[merging->depth - 1]->vhd;
}

static const struct vhd *parent_of(const struct disk_merging *merging)
{
    return merging->layers[merging->depth - 2]->vhd;
}

static unsigned write_flags(const struct disk_merging *merging)
{
    return merging->options->borrowed ? IO_WRITE | VHD_BORROWED : IO_WRITE;
}

/* --- what is refused --- */

static bool check_parent_path(const struct disk_merging *merging, struct err *err)
{
    const char *path = merging->options->parent_path;
    const struct vhd *parent = parent_of(merging);
    struct io_stat stat;

    if (!path)
        return true;
    if (!io_stat_path(merging->io, path, &stat, err))
        return false;
    if (stat.device != parent->device || stat.inode != parent->inode)
        return err_set(err, ERR_MISMATCH, "%s: its parent is %s, not %s", child_of(merging)->path, parent->path,
                       path);
    return true;
}

static bool check_links(const struct vhd *vhd, struct err *err)
{
    struct io_stat stat;

    if (!io_stat_file(vhd->file, &stat, err))
        return false;
    if (stat.links > 1)
        return err_set(err, ERR_STATE, "%s: has another name in the file system, where others may use it", vhd->path);
    return true;
}

static bool check_down(const struct disk_merging *merging, struct err *err)
{
    const struct vhd *parent = parent_of(merging), *child = child_of(merging);

    if (parent->type != VHD_DIFFERENCING && !merging->options->into_base)
        return err_set(err, ERR_STATE, "%s: is a base disk: merging into it must be asked for (--into-base)", parent->path);
    if (parent->size_bytes > child->size_bytes)
        return err_set(err, ERR_UNSUPPORTED, "%s: is larger than %s, which hides what lies behind its end",
                       parent->path, child->path);
    if (parent->size_bytes < child->size_bytes && merging->options->borrowed)
        return err_set(err, ERR_UNSUPPORTED, "%s: is smaller than %s, and in use: it cannot grow now", parent->path,
                       child->path);
    return check_links(parent, err);
}

static bool check_up(const struct disk_merging *merging, struct err *err)
{
    const struct vhd *parent = parent_of(merging), *child = child_of(merging);

    if (parent->type != VHD_DIFFERENCING)
        return err_set(err, ERR_STATE, "%s: is a base disk: it stays, and others can only be merged into it",
                       parent->path);
    const struct vhd *below = merging->layers[merging->depth - 3]->vhd;
    if (parent->size_bytes < child->size_bytes && below->size_bytes > parent->size_bytes)
        return err_set(err, ERR_UNSUPPORTED, "%s: ends before %s does, and what that holds behind would come into sight",
                       parent->path, below->path);
    return check_links(child, err);
}

/* --- opening --- */

static bool open_chain(struct disk_merging *merging, const char *child_path, struct err *err)
{
    const struct disk_options options = {.io = merging->io, .max_depth = DISK_DEFAULT_MAX_DEPTH};

    if (!vhd_open(merging->io, child_path, write_flags(merging), &merging->locked[0], err))
        return false;
    if (!chain_open(&options, child_path, &merging->layers, &merging->depth, err))
        return false;
    if (merging->depth < 2)
        return err_set(err, ERR_INVALID, "%s: is %s and has no parent", child_of(merging)->path,
                       vhd_type_name(child_of(merging)->type));
    return check_parent_path(merging, err) && (is_up(merging) ? check_up(merging, err) : check_down(merging, err));
}

/* Over the child, or, by a merge that was cut off, over the parent already. */
static bool open_child(struct disk_merging *merging, size_t i, struct err *err)
{
    AUTO_VHD struct vhd *over = NULL;
    const struct vhd *child = child_of(merging), *parent = parent_of(merging);

    if (!vhd_open(merging->io, merging->options->children[i], write_flags(merging), &over, err))
        return false;
    if (over->inode == child->inode && over->device == child->device)
        return err_set(err, ERR_INVALID, "%s: is no child of itself", over->path);
    if (over->type == VHD_DIFFERENCING && memcmp(over->header.parent_id, child->footer.id, VHD_ID_SIZE) == 0)
        merging->children[i] = TAKE(over);
    else if (over->type != VHD_DIFFERENCING || memcmp(over->header.parent_id, parent->footer.id, VHD_ID_SIZE) != 0)
        return err_set(err, ERR_MISMATCH, "%s: its parent is neither %s nor %s", over->path, child->path, parent->path);
    return true;
}

static bool open_children(struct disk_merging *merging, struct err *err)
{
    size_t count = is_up(merging) ? 0 : merging->options->child_count;

    merging->children = calloc(merging->options->child_count + 1, sizeof(struct vhd *));
    if (!merging->children)
        return err_oom(err);
    for (size_t i = 0; i < count; i++)
        if (!open_child(merging, i, err))
            return false;
    return true;
}

/* A parent that ends before the child does is grown first: the child hides what that adds. */
static bool grow_parent(struct disk_merging *merging, struct err *err)
{
    uint64_t size = child_of(merging)->size_bytes;

    return parent_of(merging)->size_bytes == size ||
           disk_resize(merging->io, parent_of(merging)->path, size, merging->progress, err);
}

static bool open_copy(struct disk_merging *merging, struct err *err)
{
    const struct vhd *parent = parent_of(merging), *child = child_of(merging);
    struct disk *to;
    struct vhd *vhd;

    if (is_up(merging)) {
        if (!vhd_open(merging->io, parent->path, write_flags(merging), &merging->locked[1], err) ||
            !vhd_open(merging->io, child->path, IO_WRITE | VHD_UNLOCKED, &vhd, err))
            return false;
    } else if (!grow_parent(merging, err) ||
               !vhd_open(merging->io, parent->path, write_flags(merging), &vhd, err)) {
        return false;
    }
    return disk_open_alone(merging->io, vhd, &to, err) &&
           merge_copy_init(&merging->copy, is_up(merging) ? parent : child, to, /* keeps= */ is_up(merging), err);
}

/* --- going on where one was broken off --- */

static bool is_as_it_was(const struct io_stat *was, const struct io_stat *now)
{
    return was->device == now->device && was->inode == now->inode && was->size_bytes == now->size_bytes &&
           was->mtime_seconds == now->mtime_seconds && was->mtime_ns == now->mtime_ns;
}

static bool stat_both(const struct disk_merging *merging, struct disk_merge_mark *mark, struct err *err)
{
    return io_stat_file(child_of(merging)->file, &mark->child, err) && io_stat_file(parent_of(merging)->file, &mark->parent, err);
}

/* Before anything is written. *ret_blocks: done by the one before. */
static bool find_mark(const struct disk_merging *merging, size_t *ret_blocks, struct err *err)
{
    const struct disk_merge_mark *was = merging->options->mark;
    struct disk_merge_mark now;

    *ret_blocks = 0;
    if (!was || was->blocks_done == 0 || was->direction != merging->options->direction)
        return true;
    if (!stat_both(merging, &now, err))
        return false;
    if (is_as_it_was(&was->child, &now.child) && is_as_it_was(&was->parent, &now.parent))
        *ret_blocks = was->blocks_done;
    return true;
}

bool disk_merging_mark(const struct disk_merging *merging, struct disk_merge_mark *ret_mark, struct err *err)
{
    struct disk_merge_mark mark = {.direction = merging->options->direction, .blocks_done = merging->copy.next_block};

    if (!merging->finished)
        return err_set(err, ERR_INTERNAL, "%s: is marked before it is durable", child_of(merging)->path);
    if (!stat_both(merging, &mark, err))
        return false;
    *ret_mark = mark;
    return true;
}

bool disk_merging_open(const struct io *io, const char *child_path, const struct disk_merge_options *options,
                       const struct progress *progress, struct disk_merging **ret_merging, struct err *err)
{
    AUTO_DISK_MERGING struct disk_merging *merging = calloc(1, sizeof *merging);
    struct disk_merge_estimate estimate;
    size_t blocks_done;

    if (!merging)
        return err_oom(err);
    merging->io = io;
    merging->options = options;
    merging->progress = progress;
    if (!open_chain(merging, child_path, err) || !open_children(merging, err) || !find_mark(merging, &blocks_done, err) ||
        !open_copy(merging, err) || !disk_merge_estimate(io, child_path, &estimate, err))
        return false;
    merging->copy.next_block = (size_t)min_u64(blocks_done, merging->copy.blocks.count);
    merging->copy.estimate_bytes = is_up(merging) ? estimate.up_bytes : estimate.down_bytes;
    *ret_merging = TAKE(merging);
    return true;
}

/* --- the work --- */

bool disk_merging_step(struct disk_merging *merging, uint64_t budget_bytes, bool *ret_more, struct err *err)
{
    if (!merge_copy_step(&merging->copy, budget_bytes, ret_more, err))
        return false;
    merging->all_copied = !*ret_more;
    return true;
}

void disk_merging_settle(struct disk_merging *merging)
{
    io_write_behind(disk_top(merging->copy.to)->vhd->file, /* wait= */ true);
}

bool disk_merging_finish(struct disk_merging *merging, struct err *err)
{
    if (!disk_close(TAKE(merging->copy.to), err))
        return false;
    merging->finished = true;
    return true;
}

/* The child is opened anew: it has grown. */
static bool link_up(struct disk_merging *merging, struct err *err)
{
    AUTO_VHD struct vhd *child = NULL;

    return vhd_open(merging->io, child_of(merging)->path, IO_WRITE | VHD_UNLOCKED, &child, err) &&
           vhd_reparent_open(child, merging->layers[merging->depth - 3]->vhd->path, err);
}

bool disk_merging_link(struct disk_merging *merging, struct err *err)
{
    if (!merging->all_copied || !merging->finished)
        return err_set(err, ERR_INTERNAL, "%s: is linked before it is merged", child_of(merging)->path);
    if (is_up(merging))
        return link_up(merging, err);
    for (size_t i = 0; i < merging->options->child_count; i++)
        if (merging->children[i] && !vhd_reparent_open(merging->children[i], parent_of(merging)->path, err))
            return false;
    return true;
}

void disk_merging_progress(const struct disk_merging *merging, uint64_t *ret_done, uint64_t *ret_total)
{
    const struct merge_copy *copy = &merging->copy;

    *ret_total = max_u64(copy->estimate_bytes, 1);
    *ret_done = *ret_total;
    if (copy->blocks.count > 0)
        *ret_done = (uint64_t)((double)*ret_total * (double)copy->next_block / (double)copy->blocks.count);
}

uint64_t disk_merging_copied_bytes(const struct disk_merging *merging)
{
    return merging->copy.copied_bytes;
}

static bool copy_all(struct disk_merging *merging, struct err *err)
{
    uint64_t done, total;
    bool more = true;

    while (more) {
        if (progress_cancelled(merging->progress))
            return err_set(err, ERR_CANCELLED, "the merge was cancelled; it can be done again");
        disk_merging_progress(merging, &done, &total);
        progress_report(merging->progress, "merge", done, total);
        if (!disk_merging_step(merging, STEP_BYTES, &more, err))
            return false;
    }
    return true;
}

/* What was copied stays whatever comes then: an orderly end of the image, its footer included. */
static bool copy(struct disk_merging *merging, struct err *err)
{
    struct err finishing = ERR_INIT;
    bool copied = copy_all(merging, err);
    bool finished = disk_merging_finish(merging, &finishing);

    if (copied && !finished)
        *err = finishing;
    return copied && finished;
}

bool disk_merge(const struct io *io, const char *child_path, const struct disk_merge_options *options,
                const struct progress *progress, struct disk_merge_result *ret_result, struct err *err)
{
    AUTO_DISK_MERGING struct disk_merging *merging = NULL;

    if (!disk_merging_open(io, child_path, options, progress, &merging, err) || !copy(merging, err) ||
        !disk_merging_link(merging, err))
        return false;
    const struct vhd *now = is_up(merging) ? merging->layers[merging->depth - 3]->vhd : parent_of(merging);
    char *path = strdup(now->path);
    if (!path)
        return err_oom(err);
    *ret_result = (struct disk_merge_result){.parent_path = path, .copied_bytes = merging->copy.copied_bytes};
    return true;
}
