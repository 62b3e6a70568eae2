/* The sector bitmap in front of each block's data. Pure.
 *
 * One bit a sector, the most significant bit of a byte first: sector s is byte s >> 3, mask 0x80 >> (s & 7).
 * Padded to whole sectors, so 512 bytes for a block of 2 MiB. 1: the sector is in this image. 0: in a
 * differencing image ask the parent; in a dynamic one it was never written and its place holds zeros. */
#pragma once

#include "bytes.h"

static inline uint32_t vhd_bitmap_bytes(uint32_t block_bytes)
{
    return (uint32_t)round_up(block_bytes / 512 / 8 + (block_bytes / 512 % 8 != 0), 512);
}

static inline bool vhd_bit_get(const uint8_t *bits, uint32_t sector)
{
    return bits[sector >> 3] & 0x80U >> (sector & 7);
}

/* How many sectors from first on, below end, have the same bit as first; first < end. */
uint32_t vhd_bits_run(const uint8_t *bits, uint32_t first, uint32_t end);
/* Sets the bits of first to end - 1. True if any of them was 0. */
bool vhd_bits_set(uint8_t *bits, uint32_t first, uint32_t end);
