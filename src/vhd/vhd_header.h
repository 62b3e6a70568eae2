/* The dynamic header: 1024 bytes at the footer's data offset, in dynamic and differencing images. Pure.
 * Source: VHD specification 1.0, "Dynamic Disk Header Format".
 *
 *   off size
 *     0    8  "cxsparse"
 *     8    8  all ones
 *    16    8  offset of the block allocation table (BAT)
 *    24    4  header version 0x00010000
 *    28    4  entries of the BAT
 *    32    4  bytes of data in a block: a power of two
 *    36    4  checksum, as the footer's, over 1024 bytes
 *    40   16  the parent's unique id
 *    56    4  the parent's time stamp; advice only
 *    60    4  0
 *    64  512  the parent's name: UTF-16BE, padded with zeros
 *   576  192  8 parent locators of 24 bytes
 *   768  256  zeros
 * A parent locator:
 *     0    4  platform: 0 none, "W2ru" relative, "W2ku" absolute, "MacX" URL, ...
 *     4    4  space for its data: bytes in practice; the specification says sectors, so below 512 it is
 * sectors 8    4  bytes of data 12    4  0 16    8  offset of the data in the file */
#pragma once

#include "err.h"

#include <stddef.h>
#include <stdint.h>

#define VHD_HEADER_BYTES 1024U
#define VHD_LOCATORS     8
#define VHD_NAME_BYTES   512

enum vhd_platform {
    VHD_PLATFORM_NONE = 0,
    VHD_PLATFORM_WI2R = 0x57693272, /* deprecated: ANSI, relative */
    VHD_PLATFORM_WI2K = 0x5769326B, /* deprecated: ANSI, absolute */
    VHD_PLATFORM_W2RU = 0x57327275, /* UTF-16LE, relative to the child's folder */
    VHD_PLATFORM_W2KU = 0x57326B75, /* UTF-16LE, absolute */
    VHD_PLATFORM_MAC = 0x4D616320,
    VHD_PLATFORM_MACX = 0x4D616358, /* UTF-8 file URL */
};

struct vhd_locator {
    uint32_t platform; /* enum vhd_platform or unknown; VHD_PLATFORM_NONE where the entry makes no sense */
    uint32_t space_bytes;
    uint32_t length_bytes;
    uint64_t offset;
};

struct vhd_header {
    uint64_t table_offset;
    uint32_t table_entries;
    uint32_t block_bytes;
    unsigned char parent_id[16];
    uint32_t parent_timestamp;
    uint8_t parent_name[VHD_NAME_BYTES];
    struct vhd_locator locators[VHD_LOCATORS];
};

/* ERR_CORRUPT; ERR_UNSUPPORTED for another version. Offsets are not compared with any file here. */
bool vhd_header_decode(const uint8_t bytes[static VHD_HEADER_BYTES], struct vhd_header *ret_header,
                       struct err *err) MUST_CHECK;
void vhd_header_encode(const struct vhd_header *header, uint8_t bytes[static VHD_HEADER_BYTES]);
