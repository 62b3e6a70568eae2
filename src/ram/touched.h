/* The pages that a restored guest touches first, kept beside its `.bin` so that the next restore reads them
 * together before they are missed. docs/ram.md has the bytes.
 *
 * They are kept in an extended attribute: it goes where the file goes, is no file that somebody has to know,
 * and whoever copies the image without it loses nothing but some milliseconds. It is a hint: whatever it
 * says, no content depends on it. */
#pragma once

#include "err.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

#define TOUCHED_UNIT_BYTES (64U << 10)
#define TOUCHED_BYTES_MAX  2048 /* of what is kept: ext4 has a block for all attributes */

/* From a bit for each unit of the memory; coarser where it would not fit. *ret_length is 0 if none is set. */
void touched_encode(const uint8_t *units, uint64_t count, uint8_t bytes[static TOUCHED_BYTES_MAX],
                    size_t *ret_length);

/* Calls piece() with each range of bytes, in rising order, all of them below memory_bytes. What makes no
 * sense ends it. */
void touched_decode(const uint8_t *bytes, size_t length, uint64_t memory_bytes,
                    void (*piece)(void *context, uint64_t offset, uint64_t length), void *context);
