/* Paths in parent locators. Pure text and bytes; nothing is opened here.
 *
 * W2ru and W2ku hold UTF-16LE with `\` between the parts and no NUL at the end; W2ru begins with `.\` or
 * `..\` and is relative to the child's folder. Files of Unix programs hold `/home/...` as `\home\...` under
 * W2ku, relative paths under the absolute code too, and URLs under MacX. */
#pragma once

#include "err.h"
#include "vhd_header.h"

#include <stddef.h>
#include <stdint.h>

/* The path that a locator of that platform with that data names for a child in the absolute folder `dir`:
 * absolute, clean, owned. *ret_path is NULL where it names nothing that can be reached here (a drive letter,
 * an unknown platform). ERR_NO_MEMORY. */
bool vhd_path_decode(uint32_t platform, const uint8_t *data, size_t length, const char *dir, char **ret_path,
                     struct err *err) MUST_CHECK;
/* The last part of what a locator or the header's parent name (as VHD_PLATFORM_NONE: UTF-16BE) says, inside
 * `dir`; the last resort for images that came from Windows with a drive letter. Owned, NULL if there is none.
 */
bool vhd_path_beside(uint32_t platform, const uint8_t *data, size_t length, const char *dir, char **ret_path,
                     struct err *err) MUST_CHECK;

struct vhd_path_data {
    uint8_t *bytes; /* owned */
    size_t length;
};
/* The data of W2RU (relative from dir, which is absolute and clean) or W2KU for an absolute, clean path.
 * ERR_INVALID for a path that a locator cannot hold: with `\` in it, or no UTF-8. */
bool vhd_path_encode(uint32_t platform, const char *path, const char *dir, struct vhd_path_data *ret_data,
                     struct err *err) MUST_CHECK;
