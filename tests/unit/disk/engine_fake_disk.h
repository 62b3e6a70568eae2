/* A disk that keeps the engine to its contract: flat memory behind the seam, pieces cut small, and a record
 * of every call. It stands in for disk.c, so that the engine's promises are tested without those of the
 * format. Breaking the contract of disk.h fails the test at once. */
#pragma once

#include "disk.h"

#include <stdbool.h>
#include <stdint.h>

struct fake {
    struct io_file file;        /* of the flat content; without a descriptor */
    uint8_t *content, *written; /* written: one byte a sector, set by disk_write_end() */
    uint64_t size_bytes;
    uint64_t piece_bytes; /* a piece is cut at multiples of this */
    size_t writes_begun;  /* begin without end */
    struct disk_flush *flush;
    unsigned flushes, flush_failures, seals, zero_calls, syncs;
    bool sync_failed;
    int begin_errnum, file_errnum, sync_errnum; /* the next ones fail so */
    unsigned depth;
    unsigned gaps, punches; /* sealed layers have so many left; so many were punched */
    int punch_errnum;
};

/* There is one at a time. */
struct disk *fake_disk_new(uint64_t size_bytes, struct fake **ret_fake);
