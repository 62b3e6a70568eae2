/* The .vsv as a whole: the header, the sums of .bin's chunks, and the stream put together again. */
#pragma once

#include "binfile.h"
#include "buf.h"
#include "smallblocks.h"
#include "stream.h"
#include "vsv.h"

/* What the stream was taken apart into. */
struct vsv_parts {
    const struct stream *stream;
    const struct buf *head;  /* verbatim, through the START section */
    const struct buf *state; /* verbatim, from the first device on */
    const struct smallblocks *small;
    const struct binfile *bin;
};

/* Writes all of it into an empty file, not synced. */
bool vsv_write(int fd, const struct vsv_info *info, const struct vsv_parts *parts,
               struct err *err) MUST_CHECK;
