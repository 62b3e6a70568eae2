/* QEMU's migration stream, read as it flows: a state machine over byte chunks, without any I/O.
 *
 * The layout is QEMU's (migration/savevm.c, migration/ram.c; docs/ram.md has the part that is used here). All
 * integers are big-endian, `str8` is a length byte and that many bytes.
 *
 *   header   "QEVM", u32 version 3
 *   config   07, u32 length, machine name; subsections (05, str8 name, u32 version, fields)
 *   RAM      01 START with the table of blocks, 02 PART..., 03 END (not there in a background snapshot);
 *            each: u32 section id, [START: str8 "ram", u32 instance 0, u32 version 4,] records, footer 7e u32
 * id state    from the first 04 (device state) to the end: taken as it is, because only the devices know
 *            their own lengths; it ends with 00 and QEMU's description of it: 06, u32 length, JSON
 *
 * The input is hostile: every length, offset and name is checked before use, what is not known is ERR_CORRUPT
 * with the byte's offset in the stream, what is known but cannot be taken apart (compressed pages, shared
 * memory left out, postcopy) is ERR_UNSUPPORTED. */
#pragma once

#include "auto.h"
#include "err.h"

#include <stddef.h>
#include <stdint.h>

#define STREAM_PAGE_BYTES  4096U
#define STREAM_BLOCKS_MAX  256U
#define STREAM_NAME_MAX    255U
#define STREAM_MACHINE_MAX 63U
/* With this many bytes at hand the parser always comes forward: the longest is a page with its block's name.
 */
#define STREAM_TOKEN_MAX (8U + 1U + STREAM_NAME_MAX + STREAM_PAGE_BYTES)

struct stream_block {
    char name[STREAM_NAME_MAX + 1];
    uint64_t used_bytes; /* a multiple of the page size */
};

/* What the stream is told to be made of, in its order. Each returns false with *err to end the parsing. Bytes
 * are the caller's input: valid until it changes that. */
struct stream_events {
    void *context;
    /* Everything up to the end of the START section, verbatim, in pieces. */
    bool (*head)(void *context, const uint8_t *bytes, size_t length, struct err *err);
    /* The table is complete: stream_blocks() tells it. */
    bool (*blocks)(void *context, struct err *err);
    /* A page at a byte offset inside a block; bytes NULL: all zeros. The offset lies in the block. */
    bool (*page)(void *context, unsigned block, uint64_t offset, const uint8_t *bytes, struct err *err);
    /* Everything from the first device's section to the end, verbatim, in pieces. */
    bool (*state)(void *context, const uint8_t *bytes, size_t length, struct err *err);
};

struct stream;

/* NULL when out of memory. events is copied. */
struct stream *stream_new(const struct stream_events *events);
void stream_free(struct stream *stream); /* accepts NULL */
AUTO_DEFINE(auto_stream_free, struct stream, stream_free)

/* Takes what is complete of bytes; the rest (less than STREAM_TOKEN_MAX) must come again, with more behind
 * it. After a failure the stream is not used any more. */
bool stream_parse(struct stream *stream, const uint8_t *bytes, size_t length, size_t *ret_consumed,
                  struct err *err) MUST_CHECK;
/* The input has ended, with `left` bytes that were not taken: was that a place where it may? */
bool stream_end(const struct stream *stream, size_t left, struct err *err) MUST_CHECK;

const char *stream_machine(const struct stream *stream); /* "" before the configuration section */
const struct stream_block *stream_blocks(const struct stream *stream, unsigned *ret_count);
uint32_t stream_ram_section(const struct stream *stream); /* the id of the RAM section */
/* Did QEMU (10.0 and later) announce the switch-over? A loader of that version waits for it. */
bool stream_has_switchover(const struct stream *stream);

/* Is the device state whole? It must end in `00 06 u32-length {JSON}`, the length reaching exactly to the
 * end. *ret_description is the offset of the JSON. */
bool stream_check_state(const uint8_t *state, size_t length, size_t *ret_description,
                        struct err *err) MUST_CHECK;

/* Bytes of the format that the writer of a .vsv needs too. */
enum stream_element {
    STREAM_EOF = 0x00,
    STREAM_START = 0x01,
    STREAM_PART = 0x02,
    STREAM_END = 0x03,
    STREAM_FULL = 0x04,
    STREAM_SUBSECTION = 0x05,
    STREAM_DESCRIPTION = 0x06,
    STREAM_CONFIGURATION = 0x07,
    STREAM_COMMAND = 0x08,
    STREAM_FOOTER = 0x7e,
};
enum stream_flag {
    STREAM_ZERO = 0x02,
    STREAM_MEM_SIZE = 0x04,
    STREAM_PAGE = 0x08,
    STREAM_EOS = 0x10,
    STREAM_CONTINUE = 0x20,
    STREAM_XBZRLE = 0x40,
    STREAM_HOOK = 0x80,
    STREAM_COMPRESS = 0x100,
    STREAM_MULTIFD_FLUSH = 0x200,
};
#define STREAM_COMMAND_SWITCHOVER 11U
