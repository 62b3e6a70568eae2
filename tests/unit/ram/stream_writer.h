/* Migration streams as QEMU would write them, and as it never would. */
#pragma once

#include "buf.h"

#include <stdint.h>

#define W_SECTION 2U

struct w_block {
    const char *name;
    uint64_t bytes;
};

void w_bytes(struct buf *out, const void *bytes, size_t length);
void w_u8(struct buf *out, unsigned value);
void w_u16(struct buf *out, unsigned value);
void w_u32(struct buf *out, uint32_t value);
void w_u64(struct buf *out, uint64_t value);
void w_str8(struct buf *out, const char *text);

void w_header(struct buf *out);                      /* magic and version */
void w_config(struct buf *out, const char *machine); /* without subsections */
void w_config_part(struct buf *out, const char *name);
void w_start_header(struct buf *out);
/* The whole START section. count 0: ends behind the record MEM_SIZE of total bytes. */
void w_start(struct buf *out, const struct w_block *blocks, unsigned count);
void w_part(struct buf *out); /* opens a PART section */
void w_end(struct buf *out);  /* opens the END section */
void w_eos(struct buf *out);  /* ends a section's records, and its footer */
void w_footer(struct buf *out, uint32_t section);
/* name NULL: CONTINUE. The page's bytes are made of its seed. */
void w_page(struct buf *out, const char *name, uint64_t offset, unsigned seed);
void w_zero(struct buf *out, const char *name, uint64_t offset);
void w_page_bytes(uint8_t page[static 4096], unsigned seed);
/* A device's section, EOF and a description that fits. */
void w_state(struct buf *out);
/* header, config and START of machine `pc-test`. */
void w_open(struct buf *out, const struct w_block *blocks, unsigned count);
