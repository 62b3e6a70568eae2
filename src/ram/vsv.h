/* The header of a `.vsv`: a pure codec over 4096 bytes (docs/ram.md).
 *
 *     0   8  "BOUGHVSV"                       all integers big-endian
 *     8   4  version, 1
 *    12   4  bytes of this header, 4096
 *    16   8  memory_bytes: the size of .bin
 *    24   4  page size, 4096
 *    28   4  chunk size, 2 MiB
 *    32   8  offset of the chunk table, 4096
 *    40   8  bytes of the chunk table: 8 for each chunk, its sum
 *    48   8  offset of the stream, the next multiple of 4096 behind the table
 *    56   8  bytes of the stream; the file ends with it
 *    64   8  XXH3 of the stream
 *    72   8  XXH3 of the chunk table
 *    80  40  id: a GUID as 36 characters, then NULs
 *   120  32  version of QEMU, text and NULs
 *   152  64  machine, text and NULs
 *   216      zeros
 *  4088   8  XXH3 of the bytes before it */
#pragma once

#include "ram.h"

#define VSV_HEADER_BYTES 4096U
#define VSV_STREAM_MAX   (2ULL << 30) /* more than this module itself would ever write */

struct vsv_header {
    struct vsv_info info;
    uint64_t stream_bytes, stream_sum, table_sum;
};

uint64_t vsv_table_bytes(uint64_t memory_bytes);
uint64_t vsv_stream_offset(uint64_t memory_bytes);
/* The size that a whole file has. */
uint64_t vsv_file_bytes(const struct vsv_header *header);

void vsv_encode(const struct vsv_header *header, uint8_t bytes[static VSV_HEADER_BYTES]);
/* ERR_CORRUPT names the field; ERR_UNSUPPORTED: a later version. Every value is within its range behind it.
 */
bool vsv_decode(const uint8_t bytes[static VSV_HEADER_BYTES], struct vsv_header *ret_header,
                struct err *err) MUST_CHECK;

/* Opens a .vsv and reads its header, naming path in errors; its size is right behind it. */
bool vsv_open(const char *path, int *ret_fd, struct vsv_header *ret_header, struct err *err) MUST_CHECK;
