/* The content of a file in memory: sparse, in pages of 4 KiB. A page is a hole, reserved (space taken, reads
 * as zeros), or filled. */
#pragma once

#include <stddef.h>
#include <stdint.h>

#define PAGE_BYTES 4096U

struct pages {
    uint8_t **page; /* count of them; NULL: a hole */
    size_t count;
    uint64_t size_bytes;
    uint64_t taken_pages; /* reserved and filled */
};

void pages_done(struct pages *pages);
size_t pages_read(const struct pages *pages, uint64_t offset, void *bytes, size_t length);
/* The pages that the range would take and that are holes now. */
uint64_t pages_needed(const struct pages *pages, uint64_t offset, uint64_t length);
/* These abort when the machine is out of memory: they serve tests alone. */
void pages_write(struct pages *pages, uint64_t offset, const void *bytes, size_t length);
void pages_reserve(struct pages *pages, uint64_t offset, uint64_t length);
void pages_punch(struct pages *pages, uint64_t offset, uint64_t length);
void pages_truncate(struct pages *pages, uint64_t size_bytes);
void pages_copy(struct pages *to, const struct pages *from); /* what `to` held is freed */
