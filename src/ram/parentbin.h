/* The `.bin` that a new one descends from: where the file system shares extents (XFS, btrfs), the new one
 * starts as its clone, and a page that did not change is not written.
 *
 * Pages are compared byte by byte with what the clone was made from: nothing that is wrong there, and no sum
 * that happens to be the same, can get into the new image. They are read from the parent and not from the
 * clone, because the parent may be in the page cache, which a clone never is. */
#pragma once

#include "auto.h"

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct parentbin;

/* Makes the file fd, which is empty, a clone of the parent. NULL where that cannot be, for whatever reason
 * (no such file, another size, another file system, one without clones); what fd holds then is undefined. */
struct parentbin *parentbin_clone(const char *path, int fd, uint64_t memory_bytes);
void parentbin_close(struct parentbin *parent); /* accepts NULL */

/* Has the parent this page at this offset? One that cannot be read differs. ahead: bytes from the offset on
 * that are worth reading, at least one page. May wait for a disk. */
bool parentbin_has(struct parentbin *parent, uint64_t offset, const uint8_t *page, uint64_t ahead);

/* All of it, or false. */
bool parentbin_read(const struct parentbin *parent, uint64_t offset, uint8_t *bytes, size_t length);
