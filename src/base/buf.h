/* A growing byte buffer, for text and for encoding. All functions that can run out of memory return false
 * (errno-free: the caller reports err_oom). */
#pragma once

#include <stdarg.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct buf {
    uint8_t *data; /* owned; one NUL is kept behind length, so that text can be used as a string */
    size_t length;
    size_t capacity;
};

#define BUF_INIT ((struct buf){0})

void buf_done(struct buf *buf); /* frees the content; the buffer is empty and usable again */
bool buf_append(struct buf *buf, const void *bytes, size_t length);
bool buf_printf(struct buf *buf, const char *format, ...) __attribute__((format(printf, 2, 3)));
/* Room for length more bytes; a pointer to it, or NULL. buf->length is not changed. */
uint8_t *buf_reserve(struct buf *buf, size_t length);
/* The content as an owned NUL-terminated string; the buffer is empty behind it. NULL when out of memory. */
char *buf_take_string(struct buf *buf);

#define AUTO_BUF __attribute__((cleanup(buf_done)))

/* An owned string by format, or NULL. */
char *string_printf(const char *format, ...) __attribute__((format(printf, 1, 2)));
