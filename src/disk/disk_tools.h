/* What the disk tools do with a chain as a whole. */
#pragma once

#include "disk.h"

enum disk_fault_kind {
    DISK_FAULT_FOOTER,  /* the footer at the end is missing or damaged: repaired when next opened for writing
                         */
    DISK_FAULT_COPY,    /* the copy of the footer is damaged or differs */
    DISK_FAULT_OVERLAP, /* two blocks, or a block and a locator, share space in the file */
    DISK_FAULT_OUTSIDE, /* a BAT entry points where no block can be */
    DISK_FAULT_BITMAP,  /* a bitmap cannot be read */
    DISK_FAULT_STRAY,   /* sectors that the bitmap of a dynamic image says were never written hold data */
    DISK_FAULT_TIME,    /* the parent's time stamp differs: copies and some programs change it */
};

struct disk_fault {
    enum disk_fault_kind kind;
    bool harmless;    /* nothing is lost or read wrongly by it */
    const char *path; /* of the image; borrowed for the call, as is: */
    const char *text;
};

/* Checks every layer of the chain, read-only, and calls report for each fault. True if it could look at
 * everything that it must; faults are no failure. What keeps the chain from being opened (a footer beyond
 * help, a parent that is missing or another) is the error. */
typedef void disk_fault_fn(void *context, const struct disk_fault *fault);
bool disk_check(const struct io *io, const char *top_path, disk_fault_fn *report, void *context,
                const struct progress *progress, struct err *err) MUST_CHECK;

/* Tells a differencing image where its parent is now. Without force the parent must have the unique id that
 * the image names (it was moved or renamed): ERR_MISMATCH if not. With force the image takes the id that is
 * there, and whoever asks answers for what is read then. ERR_INVALID if the parent is the image itself or has
 * it among its own parents. At every instant the image has the old parent or the new one. Nobody may have it
 * open for writing. */
bool disk_reconnect(const struct io *io, const char *path, const char *parent_path, bool force,
                    struct err *err) MUST_CHECK;

/* Puts in order what provably can be, in the image at path alone (its parent need not be there): the footer at
 * the end from its copy, with what a crash left behind the end cut off; the copy from the footer. Calls done
 * for each repair, then checks the image, and calls report for each fault that is left: those are not guessed
 * at. Durable on return. Nobody may have the image open for writing (ERR_BUSY). What keeps the image from
 * being opened is the error, and then nothing was changed. */
typedef void disk_repair_fn(void *context, const char *text);
bool disk_repair(const struct io *io, const char *path, disk_repair_fn *done, disk_fault_fn *report,
                 void *context, const struct progress *progress, struct err *err) MUST_CHECK;

/* Makes the image at path larger: vhd_resize(). First it must be sound (ERR_CORRUPT), and no image below it
 * may be larger than it is now, since what that holds past this image's end would come into sight
 * (ERR_UNSUPPORTED). */
bool disk_resize(const struct io *io, const char *path, uint64_t size_bytes, const struct progress *progress,
                 struct err *err) MUST_CHECK;

/* Two neighbours become one. DOWN: the child's sectors go into its parent, then those of the children, images over
 * the child, that are named get the parent as their own; the child itself is not changed. UP: the parent's sectors
 * that the child lacks go into the child, which then gets its parent's parent as its own; the parent is not
 * changed. What is seen from the child, and from all above it, is the same before, during and after, whatever ends
 * the merge (power, ERR_CANCELLED, ERR_NO_SPACE): it can be done again. What is left over may be removed on
 * success, if no other image names it. What cannot be known here: other images over the image that is written to
 * would read wrongly (DOWN), other images over the parent still need it (UP).
 * Refused: a parent without a parent: DOWN unless into_base, UP always; an image to write to with another hard link
 * (ERR_STATE); images that somebody uses (ERR_BUSY); sizes that would bring into sight what is hidden
 * (ERR_UNSUPPORTED; a smaller parent is grown, but not if borrowed); a parent that is not the one at parent_path, a
 * child that names neither (ERR_MISMATCH). */
enum disk_merge_direction { DISK_MERGE_DOWN, DISK_MERGE_UP };

/* How far a merge came that was broken off; all zeros: there was none. It holds for the same two files with nothing written to either since,
 * as far as their sizes and times tell: who keeps one lets nobody else write to them, and keeps it for no other process. */
struct disk_merge_mark {
    enum disk_merge_direction direction;
    size_t blocks_done; /* of the image that is read */
    struct io_stat child, parent;
};

struct disk_merge_options {
    enum disk_merge_direction direction;
    bool into_base;
    bool borrowed; /* who has these images open lends them: disk_lend() */
    const char *parent_path;     /* what the child's parent must be; NULL: whatever it is */
    const char *const *children; /* DOWN alone */
    size_t child_count;
    const struct disk_merge_mark *mark; /* it goes on there, if that holds; NULL: begins at the beginning */
};
struct disk_merge_result {
    char *parent_path; /* DOWN: of the image that now has both; UP: the child's parent now; owned */
    uint64_t copied_bytes;
};
bool disk_merge(const struct io *io, const char *child_path, const struct disk_merge_options *options,
                const struct progress *progress, struct disk_merge_result *ret_result,
                struct err *err) MUST_CHECK;

/* The same in pieces, for who has something else to do between them: open, step until there is no more, finish,
 * link, close. Only close must come, and may at any time. One thread at a time. */
struct disk_merging;
/* options and what they point to must stay. */
bool disk_merging_open(const struct io *io, const char *child_path, const struct disk_merge_options *options,
                       const struct progress *progress, struct disk_merging **ret_merging,
                       struct err *err) MUST_CHECK;
/* Copies until budget_bytes are copied or looked at, or a little more. *ret_more false: all is copied. */
bool disk_merging_step(struct disk_merging *merging, uint64_t budget_bytes, bool *ret_more,
                       struct err *err) MUST_CHECK;
/* What was copied has left the system's memory for the disk: the next step's time is its own. */
void disk_merging_settle(struct disk_merging *merging);
/* What was copied is durable and the image whole, also if there was more to copy. No step comes behind it. */
bool disk_merging_finish(struct disk_merging *merging, struct err *err) MUST_CHECK;
/* Behind finish: for who goes on later. */
bool disk_merging_mark(const struct disk_merging *merging, struct disk_merge_mark *ret_mark, struct err *err) MUST_CHECK;
/* The new parents, durable, when all was copied and finished. */
bool disk_merging_link(struct disk_merging *merging, struct err *err) MUST_CHECK;
void disk_merging_close(struct disk_merging *merging); /* accepts NULL */
AUTO_DEFINE(auto_disk_merging_close, struct disk_merging, disk_merging_close)
#define AUTO_DISK_MERGING AUTO(auto_disk_merging_close)

/* done reaches total at the end; total is an estimate. Both count what is copied. */
void disk_merging_progress(const struct disk_merging *merging, uint64_t *ret_done, uint64_t *ret_total);
uint64_t disk_merging_copied_bytes(const struct disk_merging *merging); /* in fact */

/* About how much each direction would copy, from the two tables and the files' sizes alone. */
struct disk_merge_estimate {
    uint64_t down_bytes, up_bytes;
    bool parent_is_base; /* up is not possible, down is into a base */
    uint64_t parent_links;
};
bool disk_merge_estimate(const struct io *io, const char *child_path, struct disk_merge_estimate *ret_estimate,
                         struct err *err) MUST_CHECK;
/* By how much the image becomes larger that a merge copies to: what it lacks of the other's sectors, by the bitmaps of max_blocks blocks,
 * and the others taken to be like these (0: of all blocks). Zeros take less, and only copying tells which they are. */
struct disk_merge_sides {
    const char *child_path, *parent_path; /* parent_path NULL: what the child names */
    enum disk_merge_direction direction;
};
bool disk_merge_new_bytes(const struct io *io, const struct disk_merge_sides *sides, uint64_t max_blocks,
                          uint64_t *ret_bytes, struct err *err) MUST_CHECK;
