/* Text that may stand in the XML. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum text_kind {
    TEXT_LINE,  /* no control characters */
    TEXT_LINES, /* tab, newline and carriage return are fine */
};

/* Well-formed UTF-8 of characters that XML can hold? *ret_characters (may be NULL) gets their number. */
bool text_is_valid(const char *text, enum text_kind kind, size_t *ret_characters);
