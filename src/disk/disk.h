/* A virtual disk: a chain of images, the last one (the top) writable, behind one flat map.
 *
 * Ranges are bytes and multiples of 512; a range past the disk's end is ERR_INVALID. Not thread-safe: one
 * thread owns a disk (engine.h runs one on a thread of its own). Two ways to use it:
 *  - whole calls, disk_read() and the like, which do their I/O at once: tools, tests;
 *  - in pieces, for a caller that does the data I/O itself and many requests at a time: disk_map(),
 *    disk_write_begin()/_end(), disk_flush_begin()/_end(). The whole calls are made of the pieces.
 * Never prints, logs above debug, or exits. */
#pragma once

#include "err.h"
#include "io.h"
#include "progress.h"
#include "vhd.h"

#include <stddef.h>
#include <stdint.h>

#define DISK_DEFAULT_MAX_DEPTH 4096

struct disk;

struct disk_options {
    const struct io *io;
    bool writable;      /* the top is opened for writing; parents are always read-only */
    unsigned max_depth; /* 0: DISK_DEFAULT_MAX_DEPTH */
    /* Where what was written and not yet flushed is kept for the case that this process is killed (dirty_log.h): a
     * directory of this user alone on a file system that dies with the host. What others left there for an image
     * of the chain is put in place first. NULL: a killed process loses what was not flushed. */
    const char *log_dir;
};

/* Opens a chain from its top by the parent locators. Errors: ERR_NOT_FOUND (names child and missing parent),
 * ERR_MISMATCH (unique ids, names both files and both values), ERR_CORRUPT, ERR_UNSUPPORTED, ERR_IO;
 * a cycle and too deep a chain are ERR_CORRUPT. */
bool disk_open(const char *top_path, const struct disk_options *options, struct disk **ret_disk,
               struct err *err) MUST_CHECK;
/* Puts in place what killed processes left in log_dir for the image at top_path and for its parents, as far as they can be
 * reached. Images that somebody writes to are left to him. */
bool disk_settle(const struct io *io, const char *log_dir, const char *top_path, struct err *err) MUST_CHECK;
/* Flushes and puts the footer in order if writable, then frees in any case. What could not be flushed stays in
 * the log_dir, unless it was a sync that failed. */
bool disk_close(struct disk *disk, struct err *err) MUST_CHECK;
/* Frees without writing anything, as a kill would leave it. Accepts NULL. */
void disk_abandon(struct disk *disk);
/* Frees without writing anything; the top will never be read again. */
void disk_drop(struct disk *disk);
AUTO_DEFINE(auto_disk_abandon, struct disk, disk_abandon)
#define AUTO_DISK AUTO(auto_disk_abandon)

const struct io *disk_io(const struct disk *disk);
uint64_t disk_size_bytes(const struct disk *disk);
uint64_t disk_map_bytes(const struct disk *disk); /* memory of the map and its index */

struct disk_layer {
    const char *path; /* valid while the layer is part of the disk */
    enum vhd_type type;
    uint64_t size_bytes;
    uint32_t block_bytes;      /* 0 for a fixed image */
    uint64_t allocated_blocks; /* 0 for a fixed image */
    uint64_t file_bytes, file_allocated_bytes;
    unsigned char id[VHD_ID_SIZE], parent_id[VHD_ID_SIZE];
    bool needs_repair; /* the footer at the end is damaged or missing; the copy served */
    bool parent_time_differs;
};

size_t disk_depth(const struct disk *disk);
/* index 0 is the top, disk_depth() - 1 the base. */
void disk_layer_get(const struct disk *disk, size_t index, struct disk_layer *ret_layer);

/* --- whole calls --- */
bool disk_read(struct disk *disk, uint64_t offset, void *bytes, size_t length, struct err *err) MUST_CHECK;
bool disk_write(struct disk *disk, uint64_t offset, const void *bytes, size_t length,
                struct err *err) MUST_CHECK;
/* The range reads as zeros and hides what the parents hold; takes no space where the file system makes holes.
 * Serves discard as well. */
bool disk_zero(struct disk *disk, uint64_t offset, uint64_t length, struct err *err) MUST_CHECK;
/* All writes that have ended are on stable storage. After a failed sync every later flush fails (sticky). */
bool disk_flush(struct disk *disk, struct err *err) MUST_CHECK;

/* --- in pieces --- */
/* A piece of a range: where its bytes are. */
struct disk_piece {
    struct io_file *file; /* NULL: it reads as zeros */
    uint64_t file_offset;
    uint64_t length; /* bytes, never 0 */
};

/* Where the bytes of the range are, for reading: the first pieces of it, at most max. The sum of their
 * lengths may fall short of length: call again for the rest. Reads bitmaps where it has not seen them yet. A
 * piece is good until the next seal, merge or close. */
bool disk_map(struct disk *disk, uint64_t offset, uint64_t length, struct disk_piece *pieces, size_t max,
              size_t *ret_count, struct err *err) MUST_CHECK;

/* Room in the top for the range: blocks are allocated (in memory and by fallocate) where they are missing.
 * The caller writes its data to the pieces, at most max that cover a prefix of the range, then calls
 * disk_write_end() for exactly the part that it wrote. Any number of writes may be between begin and end. */
bool disk_write_begin(struct disk *disk, uint64_t offset, uint64_t length, struct disk_piece *pieces,
                      size_t max, size_t *ret_count, struct err *err) MUST_CHECK;
/* The range has been written to its pieces: its sectors are present from now on. Cannot fail. */
void disk_write_end(struct disk *disk, uint64_t offset, uint64_t length);

/* Zeros: the first part of the range, *ret_covered bytes of it. The caller makes the bytes of each piece zero (a hole, or
 * zeros written), then calls disk_write_end() for the piece's own range; where there is no piece, nothing is to be done. A
 * failure may leave a prefix done. */
struct disk_zero_piece {
    struct io_file *file;
    uint64_t file_offset;
    uint64_t offset, length; /* of the disk */
};
bool disk_zero_begin(struct disk *disk, uint64_t offset, uint64_t length, struct disk_zero_piece *pieces, size_t max,
                     size_t *ret_count, uint64_t *ret_covered, struct err *err) MUST_CHECK;

/* A flush: the metadata as it was when it began, so that bits set later do not overtake their data.
 * Steps for the caller: sync `sync_first[]`; then write `writes[]` in order; then sync `sync_last[]`; then
 * disk_flush_end(). Empty arrays are common: an overwrite costs one sync, a clean disk none.
 * Writes that end after begin belong to the next flush. At most one flush at a time. */
struct disk_flush_write {
    struct io_file *file;
    uint64_t file_offset;
    const void *bytes; /* owned by the flush */
    size_t length;
};

struct disk_flush {
    struct io_file **sync_first;
    size_t sync_first_count;
    struct disk_flush_write *writes;
    size_t write_count;
    struct io_file **sync_last;
    size_t sync_last_count;
};

bool disk_flush_begin(struct disk *disk, struct disk_flush **ret_flush, struct err *err) MUST_CHECK;
/* failure NULL: all steps were done. Else what went wrong; it is remembered (sticky) if sync_failed. Frees
 * flush. */
void disk_flush_end(struct disk *disk, struct disk_flush *flush, const struct err *failure, bool sync_failed);

/* --- seal and push --- */
/* A new, empty, differencing top that has been created over this disk's present top (vhd_create) is opened
 * and checked, beside the disk. Slow; changes nothing. */
struct disk_next_top;
bool disk_next_top_open(struct disk *disk, const char *path, struct disk_next_top **ret_next,
                        struct err *err) MUST_CHECK;
void disk_next_top_abandon(struct disk_next_top *next); /* accepts NULL */
/* No write may be between begin and end. The top becomes read-only to us and the new one takes all writes:
 * memory is swapped, it cannot fail. Flushes cover the old top until it is clean. Takes next. */
void disk_seal_and_push(struct disk *disk, struct disk_next_top *next);
/* True when no layer below the top has anything that is not on stable storage, its end footer included. */
bool disk_sealed_layers_are_clean(const struct disk *disk);

/* Space in sealed layers that nobody will ever fill, a piece at a time: the caller gives it back to the file system
 * (io_zero, or a hole punched), or leaves it. A length of 0: none was found yet, ask again. False: there is no more. Called
 * again and again behind each flush that made a sealed layer clean, until it is false; memory of the layer is let go by
 * that. Each call takes a bounded time. */
struct disk_gap {
    struct io_file *file;
    uint64_t file_offset, length;
};
bool disk_release_next(struct disk *disk, struct disk_gap *ret_gap);
/* Of the layers that are clean now nothing is to be given back. */
void disk_release_none(struct disk *disk);

/* --- two sealed layers become one (disk_merged.c) --- */
/* Is the file at path a layer, the top included? */
bool disk_has(const struct disk *disk, const char *path);
/* The images at these paths, sealed layers, are lent to disk_merging_open() and the like until they are taken back.
 * ERR_BUSY: one of them has been written to a moment ago: flush, and ask again. */
bool disk_lend(struct disk *disk, const char *const *paths, size_t count, struct err *err) MUST_CHECK;
void disk_take_back(struct disk *disk);
/* The image at kept_path, which now holds what both did, opened anew; on any thread. */
struct disk_merged;
bool disk_merged_open(const struct io *io, const char *kept_path, const char *gone_path, struct disk_merged **ret_merged,
                      struct err *err) MUST_CHECK;
/* With no request at work: it takes the place of both. Nothing may be lent. On failure nothing has changed. */
bool disk_merged_take(struct disk *disk, struct disk_merged *merged, struct err *err) MUST_CHECK;
void disk_merged_free(struct disk_merged *merged); /* what it holds then is closed; on any thread; accepts NULL */
AUTO_DEFINE(auto_disk_merged_free, struct disk_merged, disk_merged_free)
#define AUTO_DISK_MERGED AUTO(auto_disk_merged_free)

/* Another parent for the top while it is written to: see vhd_relink_make(). Room in its file; */
bool disk_top_append(struct disk *disk, uint64_t bytes, uint64_t *ret_offset, struct err *err) MUST_CHECK;
/* the next flush ends the file with the footer. */
void disk_top_link(struct disk *disk, const struct vhd_relink *relink);

enum disk_status_kind { DISK_DATA, DISK_ZERO };
/* What the range starts with and how far that goes (a prefix, at least 512 bytes): for NBD block status. */
bool disk_status(struct disk *disk, uint64_t offset, uint64_t length, enum disk_status_kind *ret_kind,
                 uint64_t *ret_length, struct err *err) MUST_CHECK;
