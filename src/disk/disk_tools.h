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

/* The content of the differencing image at top_path goes into its parent; then each of children, images over
 * the top, gets that parent as its own. What is seen from the top, and from the children, is the same before,
 * during and after, whatever ends the merge (power, ERR_CANCELLED, ERR_NO_SPACE): it can be done again and
 * goes on. The top itself is not changed and may be removed on success, if no other image names it.
 * What cannot be known here: other images over the same parent would read wrongly.
 * Refused: a parent without a parent, unless into_base; a parent with another hard link (ERR_STATE); images
 * that somebody writes to (ERR_BUSY); a parent larger than the top (ERR_UNSUPPORTED; a smaller one is grown); a
 * child that names neither (ERR_MISMATCH). */
struct disk_merge_options {
    bool into_base;
    const char *const *children;
    size_t child_count;
};
struct disk_merge_result {
    char *parent_path; /* owned */
    uint64_t copied_bytes;
};
bool disk_merge(const struct io *io, const char *top_path, const struct disk_merge_options *options,
                const struct progress *progress, struct disk_merge_result *ret_result,
                struct err *err) MUST_CHECK;
