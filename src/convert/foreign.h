/* Images in the formats of others, by way of qemu-img. QEMU is never shown a VHD: a chain is served to it
 * over NBD by our own engine, on a socket that nobody else can reach. */
#pragma once

#include "disk.h"
#include "image_format.h"
#include "progress.h"

/* A file that qemu-img can read: of a foreign format, or raw. */
struct foreign {
    enum image_format format;
    struct io_file *file; /* owned */
    char *path;           /* absolute; owned; NULL unless it is trusted */
    char *qemu_img;       /* the program; owned */
    uint64_t size_bytes;  /* of the disk; a raw one's may be no multiple of 512 */
};

/* Unless trusted, an image that names other files (backing file, data file, extents) is ERR_UNSUPPORTED,
 * before QEMU looks at it: whoever made it could have any file read that we can read. */
bool foreign_open(const struct io *io, enum image_format format, const char *path, bool trusted,
                  const struct progress *progress, struct foreign *ret_foreign, struct err *err) MUST_CHECK;
void foreign_done(struct foreign *foreign);
#define AUTO_FOREIGN AUTO(foreign_done)

/* Into a new, empty disk of the same size, rounded up. Takes the disk, and closes it. */
bool foreign_to_disk(const struct foreign *from, struct disk *to, const struct progress *progress,
                     struct err *err) MUST_CHECK;
/* Into a new file at an absolute path, durable on return. */
bool foreign_to_file(const struct io *io, const struct foreign *from, enum image_format format,
                     const char *path, const struct progress *progress, struct err *err) MUST_CHECK;
/* A disk, which is taken, into a new file in the same way. */
bool foreign_from_disk(const struct io *io, struct disk *from, enum image_format format, const char *path,
                       const struct progress *progress, struct err *err) MUST_CHECK;
