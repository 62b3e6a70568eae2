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

/* What the chain holds as one image of its own, fixed or dynamic, without a parent: to must not exist; it is
 * durable on return, its folder's entry aside. block_bytes 0: 2 MiB; not for fixed. Blocks of zeros are left
 * out of a dynamic one. On failure, ERR_CANCELLED too, nothing is left behind. */
bool disk_convert(const struct io *io, const char *from, const char *to, enum vhd_type type,
                  uint32_t block_bytes, const struct progress *progress, struct err *err) MUST_CHECK;
