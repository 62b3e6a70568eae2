#include "utf16.h"

#include "buf.h"
#include "bytes.h"

static bool append_utf8(struct buf *buf, uint32_t c)
{
    uint8_t out[4];
    size_t length;

    if (c < 0x80) {
        out[0] = (uint8_t)c;
        length = 1;
    } else if (c < 0x800) {
        out[0] = (uint8_t)(0xC0 | c >> 6);
        out[1] = (uint8_t)(0x80 | (c & 0x3F));
        length = 2;
    } else if (c < 0x10000) {
        out[0] = (uint8_t)(0xE0 | c >> 12);
        out[1] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
        out[2] = (uint8_t)(0x80 | (c & 0x3F));
        length = 3;
    } else {
        out[0] = (uint8_t)(0xF0 | c >> 18);
        out[1] = (uint8_t)(0x80 | (c >> 12 & 0x3F));
        out[2] = (uint8_t)(0x80 | (c >> 6 & 0x3F));
        out[3] = (uint8_t)(0x80 | (c & 0x3F));
        length = 4;
    }
    return buf_append(buf, out, length);
}

static uint32_t unit_at(const uint8_t *bytes, size_t i, enum utf16_order order)
{
    return order == UTF16_LE ? get_le16(bytes + 2 * i) : get_be16(bytes + 2 * i);
}

char *utf16_decode(const uint8_t *bytes, size_t length, enum utf16_order order)
{
    AUTO_BUF struct buf buf = BUF_INIT;
    size_t units = length / 2;

    for (size_t i = 0; i < units; i++) {
        uint32_t c = unit_at(bytes, i, order);
        if (c == 0)
            break;
        if (c >= 0xD800 && c < 0xDC00 && i + 1 < units) {
            uint32_t low = unit_at(bytes, i + 1, order);
            if (low >= 0xDC00 && low < 0xE000) {
                c = 0x10000 + ((c - 0xD800) << 10) + (low - 0xDC00);
                i++;
            }
        }
        if (!append_utf8(&buf, c))
            return NULL;
    }
    return buf_take_string(&buf);
}

/* The code point at *text, which moves past it; UINT32_MAX if it is none. */
static uint32_t next_code_point(const uint8_t **text)
{
    const uint8_t *p = *text;
    unsigned more = p[0] < 0x80 ? 0 : p[0] < 0xC2 ? 4 : p[0] < 0xE0 ? 1 : p[0] < 0xF0 ? 2 : p[0] < 0xF5 ? 3 : 4;
    static const uint32_t LEAST[] = {0, 0x80, 0x800, 0x10000};

    if (more == 4)
        return UINT32_MAX;
    uint32_t c = more == 0 ? p[0] : p[0] & (0x3FU >> more);
    for (unsigned i = 1; i <= more; i++) {
        if ((p[i] & 0xC0) != 0x80)
            return UINT32_MAX;
        c = c << 6 | (p[i] & 0x3F);
    }
    *text = p + 1 + more;
    return c < LEAST[more] || c > 0x10FFFF ? UINT32_MAX : c;
}

bool utf16_encode(const char *text, enum utf16_order order, uint8_t *bytes, size_t capacity,
                  size_t *ret_length)
{
    void (*put)(uint8_t *, uint16_t) = order == UTF16_LE ? put_le16 : put_be16;
    const uint8_t *rest = (const uint8_t *)text;
    size_t length = 0;

    while (*rest != '\0') {
        uint32_t c = next_code_point(&rest);
        size_t need = c >= 0x10000 ? 4 : 2;
        if (c == UINT32_MAX || capacity - length < need)
            return false;
        if (need == 4) {
            put(bytes + length, (uint16_t)(0xD800 + ((c - 0x10000) >> 10)));
            put(bytes + length + 2, (uint16_t)(0xDC00 + ((c - 0x10000) & 0x3FF)));
        } else {
            put(bytes + length, (uint16_t)c);
        }
        length += need;
    }
    *ret_length = length;
    return true;
}
