/* `.bin`: guest memory as a flat, sparse file that can be mapped, written page by page as the stream brings
 * them.
 *
 * Adjacent pages are gathered and written together. A page that is zeros is a hole in the end. Where the file
 * began as a clone of its parent's, a page that comes for the first time and is the parent's is not written. Of
 * each page's content a 64-bit sum is kept in memory, so that the checksums of the chunks need no second reading,
 * however often pages are sent again (docs/ram.md defines both). */
#pragma once

#include "auto.h"
#include "err.h"

#include <stddef.h>
#include <stdint.h>

#define BIN_PAGE_BYTES  4096U
#define BIN_CHUNK_BYTES (2U << 20)
#define BIN_CHUNK_PAGES (BIN_CHUNK_BYTES / BIN_PAGE_BYTES)

/* 0 for a page of zeros. */
uint64_t bin_page_sum(const uint8_t page[static BIN_PAGE_BYTES]);
/* Over the sums of a chunk's pages; the last chunk may have fewer. */
uint64_t bin_chunk_sum(const uint64_t *page_sums, size_t count);
uint64_t bin_chunk_count(uint64_t memory_bytes);

struct binfile_counters {
    uint64_t seen_pages;   /* different pages that came, zeros included */
    uint64_t pages;        /* that came with content */
    uint64_t zero_pages;   /* that came as zeros */
    uint64_t resent_pages; /* of both, that had come before */
    uint64_t shared_pages; /* with content, left as the parent has them */
};

struct binfile;

/* Creates path, 0600, which must not exist; memory_bytes is a multiple of the page size. parent (may be NULL):
 * the image to begin as a clone of, if that can be done. */
bool binfile_create(const char *path, const char *parent, uint64_t memory_bytes, struct binfile **ret_file,
                    struct err *err) MUST_CHECK;
void binfile_close(struct binfile *file); /* accepts NULL; the file stays */

/* A page at a byte offset inside the file (checked by the caller). bytes must stay as they are until
 * binfile_flush(). */
bool binfile_page(struct binfile *file, uint64_t offset, const uint8_t *bytes, struct err *err) MUST_CHECK;
void binfile_zero(struct binfile *file, uint64_t offset);
/* Hands what was gathered to the page cache. */
bool binfile_flush(struct binfile *file, struct err *err) MUST_CHECK;
/* From any thread: from now on nothing is compared with the parent, which may have to be read from a disk. */
void binfile_hurry(struct binfile *file);
/* When no more pages come, and nobody waits: pages that became zeros become holes, and what is shared with the
 * parent between many changed pages is not shared any more. */
bool binfile_settle(struct binfile *file, struct err *err) MUST_CHECK;
bool binfile_sync(struct binfile *file, struct err *err) MUST_CHECK;

const struct binfile_counters *binfile_counters(const struct binfile *file);
/* Has every page come? Else *ret_offset is the first that has not. */
bool binfile_is_complete(const struct binfile *file, uint64_t *ret_offset);
/* The sum of one chunk, of what was written last. */
uint64_t binfile_chunk_sum(const struct binfile *file, uint64_t chunk);
