#include "cli_text.h"

#include "auto.h"
#include "buf.h"

#include <stdbool.h>
#include <stdint.h>
#include <string.h>

/* The length of the character that bytes begin with and its number; 0 if it is no UTF-8. */
static size_t utf8_decode(const unsigned char *bytes, uint32_t *ret_character)
{
    static const uint32_t LEAST[] = {0, 0, 0x80, 0x800, 0x10000};
    size_t length = bytes[0] < 0x80 ? 1 : bytes[0] >= 0xf0 ? 4 : bytes[0] >= 0xe0 ? 3 : 2;
    uint32_t character = length == 1 ? bytes[0] : bytes[0] & (0xffU >> (length + 1));

    if (bytes[0] >= 0xf8 || (bytes[0] >= 0x80 && bytes[0] < 0xc0))
        return 0;
    for (size_t i = 1; i < length; i++) {
        if ((bytes[i] & 0xc0) != 0x80) /* the NUL at the end stops here as well */
            return 0;
        character = character << 6 | (bytes[i] & 0x3f);
    }
    if (character < LEAST[length] || character > 0x10ffff || (character >= 0xd800 && character < 0xe000))
        return 0;
    *ret_character = character;
    return length;
}

static bool character_is_control(uint32_t character)
{
    return character < 0x20 || (character >= 0x7f && character < 0xa0);
}

/* Marks, overrides and isolates of the direction, and the line and paragraph separators. */
static bool character_deceives(uint32_t character)
{
    return character == 0x061c || character == 0x200e || character == 0x200f ||
           (character >= 0x2028 && character <= 0x202e) || (character >= 0x2066 && character <= 0x2069);
}

char *text_escape(const char *text, enum text_form form)
{
    AUTO_BUF struct buf buf = BUF_INIT;
    const unsigned char *bytes = (const unsigned char *)text;
    bool fits = buf_append(&buf, "", 0);

    while (fits && *bytes != '\0') {
        uint32_t character = 0;
        size_t length = utf8_decode(bytes, &character);
        bool keeps_lines = form == TEXT_LINES && (character == '\n' || character == '\t');
        if (length == 0 || (character_is_control(character) && character < 0x80 && !keeps_lines)) {
            fits = buf_printf(&buf, "\\x%02x", *bytes);
            length = 1;
        } else if (character_deceives(character) || (character_is_control(character) && !keeps_lines)) {
            fits = buf_printf(&buf, "\\u%04x", (unsigned)character);
        } else {
            fits = buf_append(&buf, bytes, length);
        }
        bytes += length;
    }
    return fits ? buf_take_string(&buf) : NULL;
}

void text_print(FILE *stream, const char *text, enum text_form form)
{
    AUTO_FREE char *escaped = text_escape(text, form);

    fputs(escaped ? escaped : "(out of memory)", stream);
}
