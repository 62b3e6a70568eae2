/* The formats that are read and written here: VHD chains and raw files, as one kind of thing.
 *
 * Ranges are bytes and multiples of 512, and may go past the end of a raw file by less than a sector: there
 * are zeros. */
#pragma once

#include "disk.h"
#include "image_format.h"

struct native {
    struct disk *disk;   /* owned; or */
    struct io_file *raw; /* owned */
    struct vhd *lock;    /* owned; the top of a chain that is read: nobody writes to it meanwhile */
    uint64_t size_bytes; /* exact; a raw file's may be no multiple of 512 */
};

/* ERR_BUSY if somebody writes to the image: what is read would be of no one moment. */
bool native_open(const struct io *io, enum image_format format, const char *path, struct native *ret_native,
                 struct err *err) MUST_CHECK;
/* A new, empty image, written next. size_bytes is exact for raw, a multiple of 512 for others. */
bool native_create(const struct io *io, enum image_format format, uint32_t block_bytes, const char *path,
                   uint64_t size_bytes, struct native *ret_native, struct err *err) MUST_CHECK;
/* What to holds is what from holds; zeros take no space where they need none. */
bool native_copy(struct native *from, struct native *to, const struct progress *progress,
                 struct err *err) MUST_CHECK;
/* Gives back the space that a dynamic VHD reserved for sectors that were never written. Durable. */
bool native_release(const struct io *io, const char *path, struct err *err) MUST_CHECK;
/* What was written is durable and the file whole; frees in any case. */
bool native_finish(struct native *native, struct err *err) MUST_CHECK;
void native_done(struct native *native); /* without writing anything */
#define AUTO_NATIVE AUTO(native_done)
