#include "vhd_footer.h"

#include "bytes.h"
#include "vhd.h"

#include <string.h>

enum offset {
    COOKIE = 0,
    FEATURES = 8,
    VERSION = 12,
    DATA_OFFSET = 16,
    TIMESTAMP = 24,
    CREATOR_APP = 28,
    CREATOR_VERSION = 32,
    CREATOR_SYSTEM = 36,
    ORIGINAL_SIZE = 40,
    CURRENT_SIZE = 48,
    GEOMETRY = 56,
    TYPE = 60,
    CHECKSUM = 64,
    UNIQUE_ID = 68,
    SAVED_STATE = 84,
};

#define FORMAT_VERSION    0x00010000U
#define FEATURES_RESERVED 0x2U

uint32_t vhd_checksum(const uint8_t *bytes, size_t length, size_t checksum_offset)
{
    uint32_t sum = 0;

    for (size_t i = 0; i < length; i++)
        if (i < checksum_offset || i >= checksum_offset + 4)
            sum += bytes[i];
    return ~sum;
}

static bool check_identity(const uint8_t *bytes, size_t length, struct err *err)
{
    if (length < VHD_FOOTER_BYTES - 1 || memcmp(bytes + COOKIE, "conectix", 8) != 0)
        return err_set(err, ERR_CORRUPT, "no VHD footer");
    uint32_t sum = vhd_checksum(bytes, length, CHECKSUM);
    if (get_be32(bytes + CHECKSUM) != sum)
        return err_set(err, ERR_CORRUPT, "footer: the checksum is 0x%08x, of the bytes it is 0x%08x",
                       get_be32(bytes + CHECKSUM), sum);
    if (get_be32(bytes + VERSION) >> 16 != FORMAT_VERSION >> 16)
        return err_set(err, ERR_UNSUPPORTED, "footer: format version 0x%08x", get_be32(bytes + VERSION));
    return true;
}

static bool check_fields(const struct vhd_footer *footer, struct err *err)
{
    if (footer->type < VHD_FIXED || footer->type > VHD_DIFFERENCING)
        return err_set(err, ERR_UNSUPPORTED, "footer: disk type %u", footer->type);
    if (footer->current_bytes == 0 || footer->current_bytes % VHD_SECTOR != 0)
        return err_set(err, ERR_CORRUPT, "footer: a size of %llu bytes is no multiple of 512",
                       (unsigned long long)footer->current_bytes);
    if (footer->current_bytes > VHD_MAX_SIZE_BYTES)
        return err_set(err, ERR_UNSUPPORTED, "footer: a size of %llu bytes, the format ends at 2040 GiB",
                       (unsigned long long)footer->current_bytes);
    if (footer->type != VHD_FIXED && footer->data_offset < VHD_FOOTER_BYTES)
        return err_set(err, ERR_CORRUPT, "footer: the dynamic header at %llu lies in the footer's copy",
                       (unsigned long long)footer->data_offset);
    return true;
}

bool vhd_footer_decode(const uint8_t *bytes, size_t length, struct vhd_footer *ret_footer, struct err *err)
{
    if (!check_identity(bytes, length, err))
        return false;
    struct vhd_footer footer = {
        .features = get_be32(bytes + FEATURES),
        .data_offset = get_be64(bytes + DATA_OFFSET),
        .timestamp = get_be32(bytes + TIMESTAMP),
        .creator_version = get_be32(bytes + CREATOR_VERSION),
        .creator_system = get_be32(bytes + CREATOR_SYSTEM),
        .original_bytes = get_be64(bytes + ORIGINAL_SIZE),
        .current_bytes = get_be64(bytes + CURRENT_SIZE),
        .geometry = {.cylinders = get_be16(bytes + GEOMETRY),
                     .heads = bytes[GEOMETRY + 2],
                     .sectors_per_track = bytes[GEOMETRY + 3]},
        .type = get_be32(bytes + TYPE),
        .saved_state = bytes[SAVED_STATE] == 1,
    };
    memcpy(footer.creator_app, bytes + CREATOR_APP, sizeof footer.creator_app);
    memcpy(footer.id, bytes + UNIQUE_ID, sizeof footer.id);
    if (!check_fields(&footer, err))
        return false;
    *ret_footer = footer;
    return true;
}

void vhd_footer_encode(const struct vhd_footer *footer, uint8_t bytes[static VHD_FOOTER_BYTES])
{
    memset(bytes, 0, VHD_FOOTER_BYTES);
    memcpy(bytes + COOKIE, "conectix", 8);
    put_be32(bytes + FEATURES, footer->features | FEATURES_RESERVED);
    put_be32(bytes + VERSION, FORMAT_VERSION);
    put_be64(bytes + DATA_OFFSET, footer->data_offset);
    put_be32(bytes + TIMESTAMP, footer->timestamp);
    memcpy(bytes + CREATOR_APP, footer->creator_app, sizeof footer->creator_app);
    put_be32(bytes + CREATOR_VERSION, footer->creator_version);
    put_be32(bytes + CREATOR_SYSTEM, footer->creator_system);
    put_be64(bytes + ORIGINAL_SIZE, footer->original_bytes);
    put_be64(bytes + CURRENT_SIZE, footer->current_bytes);
    put_be16(bytes + GEOMETRY, footer->geometry.cylinders);
    bytes[GEOMETRY + 2] = footer->geometry.heads;
    bytes[GEOMETRY + 3] = footer->geometry.sectors_per_track;
    put_be32(bytes + TYPE, footer->type);
    memcpy(bytes + UNIQUE_ID, footer->id, sizeof footer->id);
    bytes[SAVED_STATE] = footer->saved_state;
    put_be32(bytes + CHECKSUM, vhd_checksum(bytes, VHD_FOOTER_BYTES, CHECKSUM));
}

#define MAX_CYLINDERS 65535U
#define MAX_HEADS     16U
#define MAX_SPT       255U

struct vhd_geometry vhd_geometry_of(uint64_t size_bytes)
{
    uint64_t total = min_u64(size_bytes / VHD_SECTOR, (uint64_t)MAX_CYLINDERS * MAX_HEADS * MAX_SPT);
    uint64_t sectors = 17, heads, tracks = total / 17;

    heads = max_u64(4, (tracks + 1023) / 1024);
    if (total >= (uint64_t)MAX_CYLINDERS * MAX_HEADS * 63) {
        sectors = MAX_SPT;
        heads = MAX_HEADS;
        tracks = total / sectors;
    } else {
        if (tracks >= heads * 1024 || heads > MAX_HEADS) {
            sectors = 31;
            heads = MAX_HEADS;
            tracks = total / sectors;
        }
        if (tracks >= heads * 1024) {
            sectors = 63;
            tracks = total / sectors;
        }
    }
    return (struct vhd_geometry){.cylinders = (uint16_t)(tracks / heads),
                                 .heads = (uint8_t)heads,
                                 .sectors_per_track = (uint8_t)sectors};
}

uint64_t vhd_geometry_bytes(const struct vhd_geometry *geometry)
{
    return (uint64_t)geometry->cylinders * geometry->heads * geometry->sectors_per_track * VHD_SECTOR;
}

uint64_t vhd_footer_size_bytes(const struct vhd_footer *footer)
{
    bool old = memcmp(footer->creator_app, "vpc ", 4) == 0 || memcmp(footer->creator_app, "qemu", 4) == 0;
    uint64_t bytes = vhd_geometry_bytes(&footer->geometry);
    bool largest = bytes == (uint64_t)MAX_CYLINDERS * MAX_HEADS * MAX_SPT * VHD_SECTOR;

    return old && !largest && bytes > 0 && bytes < footer->current_bytes ? bytes : footer->current_bytes;
}
