/* UTF-16 as VHD parent names and locators hold it. Unpaired surrogates are kept (as three-byte UTF-8, what
 * is called WTF-8): Windows file names may contain them. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum utf16_order { UTF16_LE, UTF16_BE };

/* Decodes up to length bytes, ending early at a NUL unit. An owned string, or NULL when out of memory. */
char *utf16_decode(const uint8_t *bytes, size_t length, enum utf16_order order);
/* Encodes text without a NUL. False if it needs more than capacity bytes or is no (W)UTF-8. */
bool utf16_encode(const char *text, enum utf16_order order, uint8_t *bytes, size_t capacity,
                  size_t *ret_length);
