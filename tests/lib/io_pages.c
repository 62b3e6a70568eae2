#include "io_pages.h"

#include "bytes.h"

#include <stdlib.h>
#include <string.h>

static uint8_t
    RESERVED[PAGE_BYTES]; /* its address says: reserved; its content is what such a page reads as */

static void page_free(struct pages *pages, size_t index)
{
    if (!pages->page[index])
        return;
    if (pages->page[index] != RESERVED)
        free(pages->page[index]);
    pages->page[index] = NULL;
    pages->taken_pages--;
}

void pages_done(struct pages *pages)
{
    for (size_t i = 0; i < pages->count; i++)
        page_free(pages, i);
    free(pages->page);
    *pages = (struct pages){0};
}

static void *must(void *pointer)
{
    if (!pointer)
        abort();
    return pointer;
}

static void grow(struct pages *pages, uint64_t size_bytes)
{
    size_t count = (size_t)div_round_up(size_bytes, PAGE_BYTES);

    if (size_bytes > pages->size_bytes)
        pages->size_bytes = size_bytes;
    if (count <= pages->count)
        return;
    pages->page = must(realloc(pages->page, count * sizeof *pages->page));
    memset(pages->page + pages->count, 0, (count - pages->count) * sizeof *pages->page);
    pages->count = count;
}

size_t pages_read(const struct pages *pages, uint64_t offset, void *bytes, size_t length)
{
    uint8_t *out = bytes;

    if (offset >= pages->size_bytes)
        return 0;
    size_t total = (size_t)min_u64(length, pages->size_bytes - offset);
    for (size_t done = 0; done < total;) {
        size_t within = (size_t)((offset + done) % PAGE_BYTES);
        size_t part = (size_t)min_u64(PAGE_BYTES - within, total - done);
        const uint8_t *page = pages->page[(offset + done) / PAGE_BYTES];
        if (page)
            memcpy(out + done, page + within, part);
        else
            memset(out + done, 0, part);
        done += part;
    }
    return total;
}

uint64_t pages_needed(const struct pages *pages, uint64_t offset, uint64_t length)
{
    uint64_t needed = 0;

    if (length == 0)
        return 0;
    for (uint64_t i = offset / PAGE_BYTES; i <= (offset + length - 1) / PAGE_BYTES; i++)
        needed += i >= pages->count || !pages->page[i];
    return needed;
}

void pages_write(struct pages *pages, uint64_t offset, const void *bytes, size_t length)
{
    const uint8_t *in = bytes;

    if (length == 0)
        return;
    grow(pages, offset + length);
    for (size_t done = 0; done < length;) {
        size_t within = (size_t)((offset + done) % PAGE_BYTES);
        size_t part = (size_t)min_u64(PAGE_BYTES - within, length - done);
        uint8_t **page = &pages->page[(offset + done) / PAGE_BYTES];
        pages->taken_pages += !*page;
        if (!*page || *page == RESERVED)
            *page = must(calloc(1, PAGE_BYTES));
        memcpy(*page + within, in + done, part);
        done += part;
    }
}

void pages_reserve(struct pages *pages, uint64_t offset, uint64_t length)
{
    if (length == 0)
        return;
    grow(pages, offset + length);
    for (uint64_t i = offset / PAGE_BYTES; i <= (offset + length - 1) / PAGE_BYTES; i++) {
        if (!pages->page[i]) {
            pages->page[i] = RESERVED;
            pages->taken_pages++;
        }
    }
}

static void zero_part(struct pages *pages, uint64_t offset, uint64_t length)
{
    if (offset / PAGE_BYTES >= pages->count)
        return;
    uint8_t *page = pages->page[offset / PAGE_BYTES];
    if (page && page != RESERVED)
        memset(page + offset % PAGE_BYTES, 0, length);
}

void pages_punch(struct pages *pages, uint64_t offset, uint64_t length)
{
    uint64_t end = min_u64(offset + length, pages->size_bytes);

    while (offset < end) {
        uint64_t part = min_u64(PAGE_BYTES - offset % PAGE_BYTES, end - offset);
        if (part == PAGE_BYTES)
            page_free(pages, (size_t)(offset / PAGE_BYTES));
        else
            zero_part(pages, offset, part);
        offset += part;
    }
}

void pages_truncate(struct pages *pages, uint64_t size_bytes)
{
    if (size_bytes >= pages->size_bytes) {
        grow(pages, size_bytes);
        return;
    }
    if (size_bytes % PAGE_BYTES != 0)
        zero_part(pages, size_bytes, PAGE_BYTES - size_bytes % PAGE_BYTES);
    for (uint64_t i = div_round_up(size_bytes, PAGE_BYTES); i < pages->count; i++)
        page_free(pages, (size_t)i);
    pages->size_bytes = size_bytes;
}

void pages_copy(struct pages *to, const struct pages *from)
{
    pages_done(to);
    grow(to, from->size_bytes);
    for (size_t i = 0; i < from->count && i < to->count; i++) {
        const uint8_t *page = from->page[i];
        if (!page)
            continue;
        to->page[i] = page == RESERVED ? RESERVED : must(malloc(PAGE_BYTES));
        if (page != RESERVED)
            memcpy(to->page[i], page, PAGE_BYTES);
        to->taken_pages++;
    }
}
