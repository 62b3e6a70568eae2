/* The block allocation table (BAT) and where things are in the file.
 *
 * The BAT: table_entries u32, big-endian, each the file sector of a block's bitmap, the data right behind it;
 * 0xFFFFFFFF: not allocated. Padded with ones to a sector. Block n is the virtual disk's bytes from n *
 * block_bytes. */
#include "vhd.h"

#include "bytes.h"
#include "vhd_bitmap.h"

#include <stdlib.h>
#include <string.h>

#define CHUNK_BYTES 65536U
/* Headers, locators, alignment; and again where the parent changed. */
#define OTHER_BYTES (1U << 20)

static bool overlaps(uint64_t a, uint64_t a_end, uint64_t b, uint64_t b_end)
{
    return a < b_end && b < a_end;
}

uint64_t vhd_bat_file_bytes(const struct vhd *vhd)
{
    return round_up((uint64_t)vhd->header.table_entries * 4, VHD_SECTOR);
}

uint64_t vhd_largest_bytes(uint32_t block_bytes)
{
    /* As blocks are appended: the old footer's place, the bitmap, the aligned data; and the entry. */
    uint64_t each = round_up(VHD_FOOTER_BYTES + vhd_bitmap_bytes(block_bytes), VHD_DATA_ALIGNMENT) +
                    round_up(block_bytes, VHD_DATA_ALIGNMENT) + 4;
    uint64_t blocks = ((uint64_t)UINT32_MAX * VHD_SECTOR - OTHER_BYTES) / each;

    return min_u64(min_u64(blocks, VHD_MAX_TABLE_ENTRIES) * block_bytes, VHD_MAX_SIZE_BYTES);
}

bool vhd_blocks_fit(uint64_t size_bytes, uint32_t block_bytes, struct err *err)
{
    uint64_t largest = vhd_largest_bytes(block_bytes);

    if (size_bytes > largest)
        return err_set(err, ERR_INVALID, "%llu bytes: in blocks of %u a disk can have %llu at most",
                       (unsigned long long)size_bytes, block_bytes, (unsigned long long)largest);
    return true;
}

static bool check_entry(const struct vhd *vhd, uint32_t block, uint32_t entry, struct err *err)
{
    uint64_t start = vhd_bitmap_offset(entry);
    uint64_t end = vhd_data_offset(vhd, entry) + vhd->block_bytes;
    uint64_t header = vhd->footer.data_offset;
    uint64_t table = vhd->header.table_offset;

    if (end > vhd->file_bytes - vhd->trailer_bytes)
        return err_set(err, ERR_CORRUPT, "%s: BAT entry %u: block at %llu to %llu, the data end at %llu",
                       vhd->path, block, (unsigned long long)start, (unsigned long long)end,
                       (unsigned long long)vhd->file_bytes - vhd->trailer_bytes);
    if (end / VHD_SECTOR > UINT32_MAX)
        return err_set(err, ERR_UNSUPPORTED, "%s: BAT entry %u: a block past 2 TiB of the file", vhd->path,
                       block);
    if (start < VHD_FOOTER_BYTES || overlaps(start, end, header, header + VHD_HEADER_BYTES) ||
        overlaps(start, end, table, table + (uint64_t)vhd->header.table_entries * 4))
        return err_set(err, ERR_CORRUPT, "%s: BAT entry %u: block at %llu, in the image's own structures",
                       vhd->path, block, (unsigned long long)start);
    return true;
}

static bool chunk_each(const struct vhd *vhd, const uint8_t *bytes, uint32_t first, uint32_t count,
                       vhd_bat_each_fn *each, void *context, struct err *err)
{
    for (uint32_t i = 0; i < count; i++) {
        uint32_t entry = get_be32(bytes + (size_t)i * 4);
        if (entry == VHD_BAT_UNALLOCATED)
            continue;
        if (!check_entry(vhd, first + i, entry, err) || !each(context, first + i, entry, err))
            return false;
    }
    return true;
}

/* Most of a table is unallocated, and a chain of a thousand has a thousand tables: skip by eight entries. */
static uint32_t skip_unallocated(const uint8_t *bytes, uint32_t count)
{
    uint32_t i = 0;

    while (count - i >= 8) {
        uint64_t words[4];
        memcpy(words, bytes + (size_t)i * 4, sizeof words);
        if ((words[0] & words[1] & words[2] & words[3]) != UINT64_MAX)
            break;
        i += 8;
    }
    return i;
}

static bool chunk_scan(const struct vhd *vhd, const uint8_t *bytes, uint32_t first, uint32_t count,
                       vhd_bat_each_fn *each, void *context, struct err *err)
{
    for (uint32_t i = 0; i < count;) {
        i += skip_unallocated(bytes + (size_t)i * 4, count - i);
        uint32_t part = (uint32_t)min_u64(8, count - i);
        if (!chunk_each(vhd, bytes + (size_t)i * 4, first + i, part, each, context, err))
            return false;
        i += part;
    }
    return true;
}

bool vhd_bat_each(const struct vhd *vhd, vhd_bat_each_fn *each, void *context, struct err *err)
{
    AUTO_FREE uint8_t *chunk = malloc(CHUNK_BYTES);
    uint32_t entries = vhd->header.table_entries;

    if (!chunk)
        return err_oom(err);
    for (uint32_t first = 0; first < entries;) {
        uint32_t count = (uint32_t)min_u64(CHUNK_BYTES / 4, entries - first);
        if (!io_read(vhd->file, vhd->header.table_offset + (uint64_t)first * 4, chunk, (size_t)count * 4,
                     err) ||
            !chunk_scan(vhd, chunk, first, count, each, context, err))
            return false;
        first += count;
    }
    return true;
}

struct collecting {
    struct vhd_blocks *blocks;
    uint32_t end_block;
};

static bool collect(void *context, uint32_t block, uint32_t entry, struct err *err)
{
    const struct collecting *collecting = context;
    struct vhd_blocks *blocks = collecting->blocks;

    if (block >= collecting->end_block)
        return true;
    if (blocks->count == blocks->capacity) {
        size_t capacity = blocks->capacity * 2 + 256;
        struct vhd_block *items = reallocarray(blocks->items, capacity, sizeof *items);
        if (!items)
            return err_oom(err);
        blocks->items = items;
        blocks->capacity = capacity;
    }
    blocks->items[blocks->count++] = (struct vhd_block){.block = block, .entry = entry};
    return true;
}

bool vhd_bat_collect(const struct vhd *vhd, uint32_t end_block, struct vhd_blocks *blocks, struct err *err)
{
    struct collecting collecting = {.blocks = blocks, .end_block = end_block};

    return vhd_bat_each(vhd, collect, &collecting, err);
}

void vhd_blocks_done(struct vhd_blocks *blocks)
{
    free(blocks->items);
    *blocks = (struct vhd_blocks){0};
}

bool vhd_bat_read(const struct vhd *vhd, uint8_t **ret_bytes, size_t *ret_length, struct err *err)
{
    size_t length = (size_t)vhd_bat_file_bytes(vhd);
    size_t used = (size_t)vhd->header.table_entries * 4;
    AUTO_FREE uint8_t *bytes = malloc(length);

    if (!bytes)
        return err_oom(err);
    if (!io_read(vhd->file, vhd->header.table_offset, bytes, used, err))
        return false;
    memset(bytes + used, 0xFF, length - used);
    *ret_bytes = TAKE(bytes);
    *ret_length = length;
    return true;
}

bool vhd_bitmap_read(const struct vhd *vhd, uint32_t entry, uint8_t *bits, struct err *err)
{
    return io_read(vhd->file, vhd_bitmap_offset(entry), bits, vhd->bitmap_bytes, err);
}

struct end_search {
    const struct vhd *vhd;
    uint64_t end;
};

static bool end_of_block(void *context, uint32_t block, uint32_t entry, struct err *err)
{
    struct end_search *search = context;

    (void)block;
    (void)err;
    search->end = max_u64(search->end, vhd_data_offset(search->vhd, entry) + search->vhd->block_bytes);
    return true;
}

/* blktap keeps a map of full blocks behind the BAT: "tdbatmap", offset u64, sectors u32. It stays true when
 * bits are only ever set, so it is left alone; new blocks must not overwrite it. */
static bool end_of_batmap(const struct vhd *vhd, uint64_t *end, struct err *err)
{
    uint64_t offset = vhd->header.table_offset + vhd_bat_file_bytes(vhd);
    uint8_t bytes[20];
    size_t got;

    if (!io_read_some(vhd->file, offset, bytes, sizeof bytes, &got, err))
        return false;
    if (got < sizeof bytes || memcmp(bytes, "tdbatmap", 8) != 0)
        return true;
    uint64_t map_end;
    if (add_u64(get_be64(bytes + 8), (uint64_t)get_be32(bytes + 16) * VHD_SECTOR, &map_end) &&
        map_end <= vhd->file_bytes)
        *end = max_u64(*end, map_end);
    *end = max_u64(*end, offset + VHD_SECTOR);
    return true;
}

bool vhd_end_bytes(const struct vhd *vhd, uint64_t *ret_end, struct err *err)
{
    struct end_search search = {.vhd = vhd, .end = vhd->footer.current_bytes};

    if (vhd->type != VHD_FIXED) {
        search.end = max_u64(vhd->footer.data_offset + VHD_HEADER_BYTES,
                             vhd->header.table_offset + vhd_bat_file_bytes(vhd));
        for (unsigned i = 0; i < VHD_LOCATORS; i++) {
            const struct vhd_locator *locator = &vhd->header.locators[i];
            uint64_t end;
            /* One that points past the file's end names nothing. */
            if (locator->platform != VHD_PLATFORM_NONE &&
                add_u64(locator->offset, locator->space_bytes, &end) && end <= vhd->file_bytes)
                search.end = max_u64(search.end, end);
        }
        if (!end_of_batmap(vhd, &search.end, err) || !vhd_bat_each(vhd, end_of_block, &search, err))
            return false;
    }
    *ret_end = search.end;
    return true;
}
