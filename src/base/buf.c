#include "buf.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

void buf_done(struct buf *buf)
{
    free(buf->data);
    *buf = BUF_INIT;
}

uint8_t *buf_reserve(struct buf *buf, size_t length)
{
    if (length >= SIZE_MAX / 2 - buf->length)
        return NULL;
    size_t need = buf->length + length + 1;
    if (need > buf->capacity) {
        size_t capacity = buf->capacity < 128 ? 128 : buf->capacity;
        while (capacity < need)
            capacity *= 2;
        uint8_t *data = realloc(buf->data, capacity);
        if (!data)
            return NULL;
        buf->data = data;
        buf->capacity = capacity;
    }
    return buf->data + buf->length;
}

bool buf_append(struct buf *buf, const void *bytes, size_t length)
{
    uint8_t *room = buf_reserve(buf, length);

    if (!room)
        return false;
    if (length > 0)
        memcpy(room, bytes, length);
    buf->length += length;
    buf->data[buf->length] = '\0';
    return true;
}

__attribute__((format(printf, 2, 0))) static bool append_format(struct buf *buf, const char *format, va_list args)
{
    va_list again;

    va_copy(again, args);
    int length = vsnprintf(NULL, 0, format, again);
    va_end(again);
    if (length < 0)
        return false;
    uint8_t *room = buf_reserve(buf, (size_t)length);
    if (!room)
        return false;
    vsnprintf((char *)room, (size_t)length + 1, format, args);
    buf->length += (size_t)length;
    return true;
}

bool buf_printf(struct buf *buf, const char *format, ...)
{
    va_list args;

    va_start(args, format);
    bool done = append_format(buf, format, args);
    va_end(args);
    return done;
}

char *buf_take_string(struct buf *buf)
{
    if (!buf_append(buf, "", 0))
        return NULL;
    char *text = (char *)buf->data;
    *buf = BUF_INIT;
    return text;
}

char *string_printf(const char *format, ...)
{
    struct buf buf = BUF_INIT;
    va_list args;

    va_start(args, format);
    bool done = append_format(&buf, format, args);
    va_end(args);
    if (!done) {
        buf_done(&buf);
        return NULL;
    }
    return buf_take_string(&buf);
}
