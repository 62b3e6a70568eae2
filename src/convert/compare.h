/* Do two VHD chains show the same disk? */
#pragma once

#include "err.h"
#include "io.h"
#include "progress.h"

/* Reads both, but for what both say is zero; what was just written comes from the disk, not from the page cache, where the kernel lets it
 * go. ERR_CORRUPT: names where they differ first, or their sizes. ERR_CANCELLED. */
bool convert_compare(const struct io *io, const char *from, const char *to, const struct progress *progress,
                     struct err *err) MUST_CHECK;
/* How many bytes of the disk at path are not known to be zeros. */
bool convert_data_bytes(const struct io *io, const char *path, uint64_t *ret_bytes, struct err *err) MUST_CHECK;
