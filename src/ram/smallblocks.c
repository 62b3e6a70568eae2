#include "smallblocks.h"

#include "bytes.h"

#include <errno.h>
#include <sys/mman.h>

enum page_state { ABSENT, ZERO, DATA };

struct small {
    char name[STREAM_NAME_MAX + 1];
    uint64_t bytes;  /* 0: not kept here */
    uint8_t *pages;  /* mapped, with states behind them; only what was written to takes memory */
    uint8_t *states; /* enum page_state of each page */
};

struct smallblocks {
    unsigned count;
    struct small *blocks;
};

static size_t map_bytes(uint64_t block_bytes)
{
    return block_bytes + block_bytes / STREAM_PAGE_BYTES;
}

static bool small_init(struct small *small, const struct stream_block *block, struct err *err)
{
    memcpy(small->name, block->name, sizeof(small->name));
    void *pages = mmap(NULL, map_bytes(block->used_bytes), PROT_READ | PROT_WRITE,
                       MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
    if (pages == MAP_FAILED)
        return err_sys(err, errno, "memory for the block %.64s", block->name);
    small->pages = pages;
    small->states = small->pages + block->used_bytes;
    small->bytes = block->used_bytes;
    return true;
}

static bool fill(struct smallblocks *small, const struct stream_block *blocks, unsigned without,
                 struct err *err)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < small->count; i++) {
        if (i == without)
            continue;
        if (!add_u64(total, blocks[i].used_bytes, &total) || total > SMALL_BYTES_MAX)
            return err_set(err, ERR_UNSUPPORTED, "the block %.64s: too much memory besides %.64s",
                           blocks[i].name, blocks[without].name);
        if (!small_init(&small->blocks[i], &blocks[i], err))
            return false;
    }
    return true;
}

bool smallblocks_new(const struct stream_block *blocks, unsigned count, unsigned without,
                     struct smallblocks **ret_small, struct err *err)
{
    struct smallblocks *small = calloc(1, sizeof(*small));
    if (!small)
        return err_oom(err);
    small->count = count;
    small->blocks = calloc(count, sizeof(*small->blocks));
    if (!small->blocks || !fill(small, blocks, without, err)) {
        bool no_memory = !small->blocks;
        smallblocks_free(small);
        return no_memory ? err_oom(err) : false;
    }
    *ret_small = small;
    return true;
}

void smallblocks_free(struct smallblocks *small)
{
    if (!small)
        return;
    for (unsigned i = 0; small->blocks && i < small->count; i++) {
        if (small->blocks[i].pages)
            munmap(small->blocks[i].pages, map_bytes(small->blocks[i].bytes));
    }
    free(small->blocks);
    free(small);
}

void smallblocks_page(struct smallblocks *small, unsigned block, uint64_t offset, const uint8_t *bytes)
{
    struct small *to = &small->blocks[block];
    to->states[offset / STREAM_PAGE_BYTES] = bytes ? DATA : ZERO;
    if (bytes)
        memcpy(to->pages + offset, bytes, STREAM_PAGE_BYTES);
}

static bool write_page(const struct small *small, uint64_t page, bool continues, smallblocks_put *put,
                       void *context, struct err *err)
{
    uint8_t head[8 + 1 + STREAM_NAME_MAX];
    size_t length = 8;
    bool has_data = small->states[page] == DATA;
    put_be64(head, page * STREAM_PAGE_BYTES | (has_data ? STREAM_PAGE : STREAM_ZERO) |
                       (continues ? STREAM_CONTINUE : 0U));
    if (!continues) {
        size_t name_length = strlen(small->name);
        head[length] = (uint8_t)name_length;
        memcpy(head + length + 1, small->name, name_length);
        length += 1 + name_length;
    }
    static const uint8_t fill_byte = 0;
    return put(context, head, length, err) &&
           (has_data ? put(context, small->pages + page * STREAM_PAGE_BYTES, STREAM_PAGE_BYTES, err)
                     : put(context, &fill_byte, 1, err));
}

bool smallblocks_write(const struct smallblocks *small, smallblocks_put *put, void *context, struct err *err)
{
    for (unsigned i = 0; i < small->count; i++) {
        const struct small *block = &small->blocks[i];
        bool continues = false;
        for (uint64_t page = 0; page < block->bytes / STREAM_PAGE_BYTES; page++) {
            if (block->states[page] == ABSENT)
                continue;
            if (!write_page(block, page, continues, put, context, err))
                return false;
            continues = true;
        }
    }
    return true;
}
