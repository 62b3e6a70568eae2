/* What the files of a merge share. */
#pragma once

#include "disk_private.h"
#include "disk_tools.h"

/* The copying of one image's own sectors into another one. */
struct merge_copy {
    const struct vhd *from; /* a differencing image; borrowed */
    struct disk *to;        /* that image alone, writable; owned */
    bool keeps;             /* sectors that `to` has stay as they are */
    uint64_t end_sector;    /* what lies behind is not seen */

    struct vhd_blocks blocks; /* of `from`, all that is to be seen */
    size_t next_block;
    uint8_t *bits, *chunk; /* owned */
    uint32_t next_sector; /* of the block at hand; 0: its bitmap has not been read */
    bool is_dense;        /* most of the block at hand is to be copied */

    uint64_t copied_bytes, unflushed_bytes, looked_blocks;
    uint64_t estimate_bytes;
};

/* Takes to, also on failure. */
bool merge_copy_init(struct merge_copy *copy, const struct vhd *from, struct disk *to, bool keeps,
                     struct err *err) MUST_CHECK;
bool merge_copy_step(struct merge_copy *copy, uint64_t budget_bytes, bool *ret_more, struct err *err) MUST_CHECK;
void merge_copy_done(struct merge_copy *copy); /* what was not flushed is left as by a kill */
