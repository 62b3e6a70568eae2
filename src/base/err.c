#include "err.h"

#include <errno.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>

static const struct {
    int exit_status;
    const char *name;
} ERR_ROWS[ERR_CODES] = {
#define ERR_ROW(code, exit_status, name) [code] = {exit_status, name},
    ERR_TABLE(ERR_ROW)
#undef ERR_ROW
};

void err_set_text(struct err *err, enum err_code code, int sys, const char *format, ...)
{
    va_list args;

    err->code = code;
    err->sys = sys;
    va_start(args, format);
    vsnprintf(err->text, sizeof err->text, format, args);
    va_end(args);
}

static enum err_code code_of_errno(int errnum)
{
    switch (errnum) {
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return ERR_NO_SPACE;
    case ENOMEM:
        return ERR_NO_MEMORY;
    case ENOENT:
        return ERR_NOT_FOUND;
    case EEXIST:
        return ERR_EXISTS;
    case ECANCELED:
        return ERR_CANCELLED;
    default:
        return ERR_IO;
    }
}

void err_set_errno(struct err *err, int errnum, const char *format, ...)
{
    va_list args;
    char text[sizeof err->text];
    char reason[128];

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    err_set_text(err, code_of_errno(errnum), errnum, "%s: %s", text,
                 strerror_r(errnum, reason, sizeof reason));
}

void err_prefix_text(struct err *err, const char *format, ...)
{
    va_list args;
    char old[sizeof err->text];
    char where[sizeof err->text];

    memcpy(old, err->text, sizeof old);
    va_start(args, format);
    vsnprintf(where, sizeof where, format, args);
    va_end(args);
    /* What went wrong matters more than where: a long prefix is cut, not the reason behind it. */
    size_t old_length = strlen(old);
    size_t room = sizeof err->text - 1 - 2 - (old_length < sizeof old - 3 ? old_length : sizeof old - 3);
    size_t where_length = strlen(where) < room ? strlen(where) : room;
    memcpy(err->text, where, where_length);
    memcpy(err->text + where_length, ": ", 2);
    memcpy(err->text + where_length + 2, old, sizeof err->text - where_length - 3);
    err->text[sizeof err->text - 1] = '\0';
}

/* The length of the valid UTF-8 character at p, 0 if there is none. */
static size_t character_length(const unsigned char *p)
{
    size_t length = p[0] < 0x80 ? 1 : p[0] < 0xC2 ? 0 : p[0] < 0xE0 ? 2 : p[0] < 0xF0 ? 3 : p[0] < 0xF5 ? 4 : 0;

    for (size_t i = 1; i < length; i++)
        if ((p[i] & 0xC0) != 0x80)
            return 0;
    bool too_long_or_high = (p[0] == 0xE0 && p[1] < 0xA0) || (p[0] == 0xED && p[1] >= 0xA0) ||
                            (p[0] == 0xF0 && p[1] < 0x90) || (p[0] == 0xF4 && p[1] >= 0x90);
    return too_long_or_high ? 0 : length;
}

void err_text_utf8(const struct err *err, char text[static sizeof(((struct err *)0)->text)])
{
    const unsigned char *from = (const unsigned char *)err->text;
    char *to = text;

    while (*from != '\0') {
        size_t length = character_length(from);
        if (length == 0)
            *to++ = '?';
        else
            to = (char *)memcpy(to, from, length) + length;
        from += length ? length : 1;
    }
    *to = '\0';
}

int err_exit_status(enum err_code code)
{
    return (unsigned)code < ERR_CODES ? ERR_ROWS[code].exit_status : ERR_ROWS[ERR_INTERNAL].exit_status;
}

const char *err_name(enum err_code code)
{
    return (unsigned)code < ERR_CODES ? ERR_ROWS[code].name : ERR_ROWS[ERR_INTERNAL].name;
}

enum err_code err_code_by_name(const char *name)
{
    for (unsigned code = 0; code < ERR_CODES; code++)
        if (strcmp(ERR_ROWS[code].name, name) == 0)
            return (enum err_code)code;
    return ERR_INTERNAL;
}

int err_errno(const struct err *err)
{
    if (err->code == ERR_NO_SPACE)
        return ENOSPC;
    if (err->code == ERR_NO_MEMORY)
        return ENOMEM;
    if (err->code == ERR_INVALID)
        return EINVAL;
    return EIO;
}
