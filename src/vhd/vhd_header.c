#include "vhd_header.h"

#include "bytes.h"
#include "vhd.h"

#include <string.h>

enum offset {
    COOKIE = 0,
    DATA_OFFSET = 8,
    TABLE_OFFSET = 16,
    VERSION = 24,
    TABLE_ENTRIES = 28,
    BLOCK_SIZE = 32,
    CHECKSUM = 36,
    PARENT_ID = 40,
    PARENT_TIMESTAMP = 56,
    PARENT_NAME = 64,
    LOCATORS = 576,
};

enum locator_offset { PLATFORM = 0, SPACE = 4, LENGTH = 8, OFFSET = 16, LOCATOR_BYTES = 24 };

#define HEADER_VERSION 0x00010000U

static struct vhd_locator locator_decode(const uint8_t *bytes)
{
    struct vhd_locator locator = {
        .platform = get_be32(bytes + PLATFORM),
        .space_bytes = get_be32(bytes + SPACE),
        .length_bytes = get_be32(bytes + LENGTH),
        .offset = get_be64(bytes + OFFSET),
    };

    if (locator.space_bytes < VHD_SECTOR)
        locator.space_bytes *= VHD_SECTOR;
    /* One bad locator is no reason to refuse the image: there may be others. */
    if (locator.space_bytes % VHD_SECTOR != 0 || locator.length_bytes > locator.space_bytes)
        return (struct vhd_locator){.platform = VHD_PLATFORM_NONE};
    return locator;
}

static void locator_encode(const struct vhd_locator *locator, uint8_t *bytes)
{
    put_be32(bytes + PLATFORM, locator->platform);
    put_be32(bytes + SPACE, locator->space_bytes);
    put_be32(bytes + LENGTH, locator->length_bytes);
    put_be64(bytes + OFFSET, locator->offset);
}

static bool check(const uint8_t *bytes, struct err *err)
{
    uint32_t sum = vhd_checksum(bytes, VHD_HEADER_BYTES, CHECKSUM);

    if (memcmp(bytes + COOKIE, "cxsparse", 8) != 0)
        return err_set(err, ERR_CORRUPT, "no dynamic header where the footer says");
    if (get_be32(bytes + CHECKSUM) != sum)
        return err_set(err, ERR_CORRUPT, "dynamic header: the checksum is 0x%08x, of the bytes it is 0x%08x",
                       get_be32(bytes + CHECKSUM), sum);
    if (get_be32(bytes + VERSION) >> 16 != HEADER_VERSION >> 16)
        return err_set(err, ERR_UNSUPPORTED, "dynamic header: version 0x%08x", get_be32(bytes + VERSION));
    uint32_t block_bytes = get_be32(bytes + BLOCK_SIZE);
    if (block_bytes < VHD_SECTOR || !is_power_of_two(block_bytes))
        return err_set(err, ERR_CORRUPT,
                       "dynamic header: a block size of %u bytes is no power of two from 512", block_bytes);
    return true;
}

bool vhd_header_decode(const uint8_t bytes[static VHD_HEADER_BYTES], struct vhd_header *ret_header,
                       struct err *err)
{
    if (!check(bytes, err))
        return false;
    struct vhd_header header = {
        .table_offset = get_be64(bytes + TABLE_OFFSET),
        .table_entries = get_be32(bytes + TABLE_ENTRIES),
        .block_bytes = get_be32(bytes + BLOCK_SIZE),
        .parent_timestamp = get_be32(bytes + PARENT_TIMESTAMP),
    };
    memcpy(header.parent_id, bytes + PARENT_ID, sizeof header.parent_id);
    memcpy(header.parent_name, bytes + PARENT_NAME, sizeof header.parent_name);
    for (unsigned i = 0; i < VHD_LOCATORS; i++)
        header.locators[i] = locator_decode(bytes + LOCATORS + (size_t)i * LOCATOR_BYTES);
    *ret_header = header;
    return true;
}

void vhd_header_encode(const struct vhd_header *header, uint8_t bytes[static VHD_HEADER_BYTES])
{
    memset(bytes, 0, VHD_HEADER_BYTES);
    memcpy(bytes + COOKIE, "cxsparse", 8);
    put_be64(bytes + DATA_OFFSET, VHD_NO_OFFSET);
    put_be64(bytes + TABLE_OFFSET, header->table_offset);
    put_be32(bytes + VERSION, HEADER_VERSION);
    put_be32(bytes + TABLE_ENTRIES, header->table_entries);
    put_be32(bytes + BLOCK_SIZE, header->block_bytes);
    memcpy(bytes + PARENT_ID, header->parent_id, sizeof header->parent_id);
    put_be32(bytes + PARENT_TIMESTAMP, header->parent_timestamp);
    memcpy(bytes + PARENT_NAME, header->parent_name, sizeof header->parent_name);
    for (unsigned i = 0; i < VHD_LOCATORS; i++)
        locator_encode(&header->locators[i], bytes + LOCATORS + (size_t)i * LOCATOR_BYTES);
    put_be32(bytes + CHECKSUM, vhd_checksum(bytes, VHD_HEADER_BYTES, CHECKSUM));
}
