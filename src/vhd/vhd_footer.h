/* The footer of a VHD: 512 bytes at the end of the file, and in dynamic and differencing images a copy at its
 * start. Pure: byte arrays to values and back. Source: VHD specification 1.0, "Hard Disk Footer Format".
 *
 *   off size
 *     0    8  "conectix"
 *     8    4  features: 0x2 always set; 0x1 temporary
 *    12    4  format version 0x00010000
 *    16    8  offset of the dynamic header; all ones for a fixed image
 *    24    4  seconds since 2000-01-01 00:00 UTC
 *    28    4  creator application
 *    32    4  creator version
 *    36    4  creator host system
 *    40    8  size when created
 *    48    8  size now: bytes, a multiple of 512
 *    56    4  geometry: cylinders u16, heads u8, sectors per track u8
 *    60    4  type: 2 fixed, 3 dynamic, 4 differencing
 *    64    4  checksum: ones' complement of the sum of all bytes, these four as 0
 *    68   16  unique id: what a child names its parent by
 *    84    1  saved state
 *    85  427  zeros
 * All integers are big-endian. */
#pragma once

#include "err.h"

#include <stddef.h>
#include <stdint.h>

#define VHD_FOOTER_BYTES 512U
#define VHD_NO_OFFSET    UINT64_MAX
#define VHD_EPOCH        946684800 /* Unix time of the format's second 0 */

struct vhd_geometry {
    uint16_t cylinders;
    uint8_t heads, sectors_per_track;
};

struct vhd_footer {
    uint32_t features;
    uint64_t data_offset;
    uint32_t timestamp;
    char creator_app[4]; /* no NUL */
    uint32_t creator_version;
    uint32_t creator_system;
    uint64_t original_bytes;
    uint64_t current_bytes;
    struct vhd_geometry geometry;
    uint32_t type; /* enum vhd_type, checked */
    unsigned char id[16];
    bool saved_state;
};

/* length is 512, or 511: so Virtual PC wrote it before 2004. ERR_CORRUPT, or ERR_UNSUPPORTED for a type or
 * version that exists but is not read here. */
bool vhd_footer_decode(const uint8_t *bytes, size_t length, struct vhd_footer *ret_footer,
                       struct err *err) MUST_CHECK;
void vhd_footer_encode(const struct vhd_footer *footer, uint8_t bytes[static VHD_FOOTER_BYTES]);

/* The specification's appendix "CHS Calculation". */
struct vhd_geometry vhd_geometry_of(uint64_t size_bytes);
uint64_t vhd_geometry_bytes(const struct vhd_geometry *geometry);
/* The size that a guest sees. Virtual PC and old QEMUs showed cylinders x heads x sectors, all others
 * current_bytes; the largest geometry means that it was too small for the size. */
uint64_t vhd_footer_size_bytes(const struct vhd_footer *footer);

/* For the footer and the dynamic header: the four bytes at checksum_offset count as 0. */
uint32_t vhd_checksum(const uint8_t *bytes, size_t length, size_t checksum_offset);
