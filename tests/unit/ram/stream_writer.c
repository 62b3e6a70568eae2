#include "stream_writer.h"

#include "bytes.h"

#include <stdio.h>
#include <stdlib.h>

void w_bytes(struct buf *out, const void *bytes, size_t length)
{
    if (!buf_append(out, bytes, length))
        abort();
}

void w_u8(struct buf *out, unsigned value)
{
    w_bytes(out, &(uint8_t){(uint8_t)value}, 1);
}

void w_u16(struct buf *out, unsigned value)
{
    w_u8(out, value >> 8);
    w_u8(out, value & 0xff);
}

void w_u32(struct buf *out, uint32_t value)
{
    w_u16(out, value >> 16);
    w_u16(out, value & 0xffff);
}

void w_u64(struct buf *out, uint64_t value)
{
    w_u32(out, (uint32_t)(value >> 32));
    w_u32(out, (uint32_t)value);
}

void w_str8(struct buf *out, const char *text)
{
    w_u8(out, (unsigned)strlen(text));
    w_bytes(out, text, strlen(text));
}

void w_header(struct buf *out)
{
    w_bytes(out, "QEVM", 4);
    w_u32(out, 3);
}

void w_config(struct buf *out, const char *machine)
{
    w_u8(out, 7);
    w_u32(out, (uint32_t)strlen(machine));
    w_bytes(out, machine, strlen(machine));
}

void w_config_part(struct buf *out, const char *name)
{
    w_u8(out, 5);
    w_str8(out, name);
    w_u32(out, 1);
}

void w_start_header(struct buf *out)
{
    w_u8(out, 1);
    w_u32(out, W_SECTION);
    w_str8(out, "ram");
    w_u32(out, 0);
    w_u32(out, 4);
}

void w_start(struct buf *out, const struct w_block *blocks, unsigned count)
{
    uint64_t total = 0;
    for (unsigned i = 0; i < count; i++)
        total += blocks[i].bytes;
    w_start_header(out);
    w_u64(out, total | 4);
    for (unsigned i = 0; i < count; i++) {
        w_str8(out, blocks[i].name);
        w_u64(out, blocks[i].bytes);
    }
    w_eos(out);
}

void w_footer(struct buf *out, uint32_t section)
{
    w_u8(out, 0x7e);
    w_u32(out, section);
}

void w_part(struct buf *out)
{
    w_u8(out, 2);
    w_u32(out, W_SECTION);
}

void w_end(struct buf *out)
{
    w_u8(out, 3);
    w_u32(out, W_SECTION);
}

void w_eos(struct buf *out)
{
    w_u64(out, 0x10);
    w_footer(out, W_SECTION);
}

void w_page_bytes(uint8_t page[static 4096], unsigned seed)
{
    uint32_t value = seed * 2654435761U + 1;
    for (unsigned i = 0; i < 4096; i++) {
        value = value * 1664525U + 1013904223U;
        page[i] = (uint8_t)(value >> 24);
    }
}

static void w_record(struct buf *out, const char *name, uint64_t offset, unsigned flag)
{
    w_u64(out, offset | flag | (name ? 0U : 0x20U));
    if (name)
        w_str8(out, name);
}

void w_page(struct buf *out, const char *name, uint64_t offset, unsigned seed)
{
    uint8_t page[4096];
    w_page_bytes(page, seed);
    w_record(out, name, offset, 8);
    w_bytes(out, page, sizeof(page));
}

void w_zero(struct buf *out, const char *name, uint64_t offset)
{
    w_record(out, name, offset, 2);
    w_u8(out, 0);
}

void w_state(struct buf *out)
{
    static const char json[] = "{\"page_size\": 4096, \"devices\": [{\"name\": \"timer\", \"instance_id\": 0, \"version\": 2, "
                               "\"fields\": [{\"name\": \"x\", \"type\": \"buffer\", \"size\": 12}]}]}";
    w_u8(out, 4);
    w_u32(out, 3);
    w_str8(out, "timer");
    w_u32(out, 0);
    w_u32(out, 2);
    w_bytes(out, "\0\6\0\0\0\1{state", 12);
    w_footer(out, 3);
    w_u8(out, 0);
    w_u8(out, 6);
    w_u32(out, sizeof(json) - 1);
    w_bytes(out, json, sizeof(json) - 1);
}

void w_open(struct buf *out, const struct w_block *blocks, unsigned count)
{
    w_header(out);
    w_config(out, "pc-test");
    w_start(out, blocks, count);
}
