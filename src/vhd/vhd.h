/* VHD image files, one at a time: create, open, and the metadata that a disk keeps in memory.
 *
 * Format: "Virtual Hard Disk Image Format Specification" 1.0 (2006); docs/vhd.md has the byte tables and what
 * other writers do. All sizes and offsets are bytes unless a name says sector (512 bytes) or block.
 * Not thread-safe: one thread owns an image. Never prints, logs above debug, or exits. */
#pragma once

#include "err.h"
#include "io.h"

#include <stdint.h>

#define VHD_SECTOR 512U
#define VHD_ID_SIZE 16
#define VHD_MAX_SIZE_BYTES (2040ULL << 30) /* the BAT counts sectors in 32 bits */
#define VHD_DEFAULT_BLOCK_BYTES (2U << 20)
#define VHD_BAT_UNALLOCATED 0xFFFFFFFFU

enum vhd_type { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFFERENCING = 4 };

struct vhd_create_options {
    enum vhd_type type;
    uint64_t size_bytes;      /* multiple of 512; for a differencing image 0 means the parent's */
    uint32_t block_bytes;     /* power of two, 512 KiB to 4 MiB offered; 0 means 2 MiB; not for fixed */
    const char *parent_path;  /* differencing only: how we reach the parent now */
};

/* Creates path (must not exist; mode 0600) complete and durable: data, directory entry's file sync included,
 * the directory itself not (the caller syncs it once for many). On failure nothing is left behind.
 * Errors: ERR_INVALID (size, block size), ERR_EXISTS, ERR_NO_SPACE, ERR_IO, and those of opening the parent. */
bool vhd_create(const struct io *io, const char *path, const struct vhd_create_options *options,
                struct err *err) MUST_CHECK;
