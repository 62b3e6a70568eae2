/* GUIDs as the files spell them: 36 characters, upper case, without braces; compared without case. */
#pragma once

#include <stdbool.h>

#define GUID_LENGTH 36

struct guid {
    char text[GUID_LENGTH + 1]; /* empty string: no GUID */
};

struct guid guid_new(void);                                /* a fresh random (version 4) GUID */
bool guid_parse(const char *text, struct guid *ret_guid);  /* any case; false unless exactly a GUID */
bool guid_equal(const struct guid *a, const struct guid *b);
static inline bool guid_is_set(const struct guid *guid)
{
    return guid->text[0] != '\0';
}
/* Does guid start with prefix, case aside? */
bool guid_has_prefix(const struct guid *guid, const char *prefix);
/* 16 random bytes for a VHD's unique id, never derived from the time. */
void guid_new_bytes(unsigned char bytes[static 16]);
