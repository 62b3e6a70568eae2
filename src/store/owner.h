/* The text of a lock file: who has the VM, or had it and was cut off. It is erased by who lets the VM go in order, so that what is left of
 * another host means that a guest, or a command, may still be at work there, whatever the locks say: a file system may not share its locks
 * between hosts, and a server gives up those of a host that it does not hear from, though that may be alive. Of this host, in this boot, the
 * locks are the truth; in an earlier one everything has ended.
 *
 * Not of text that Bough has written before it told the machine: that was never erased, and counts only while a lock is held. */
#pragma once

#include "store.h"

#define OWNER_TEXT_BYTES 512 /* always: what is there already takes no more space on a full disk */

enum owner_place {
    OWNER_NONE,      /* nobody, or not known */
    OWNER_HERE,      /* this host, now or before it was started */
    OWNER_ELSEWHERE, /* another host, or one that cannot be told from others */
};

/* *ret_owner is zeros for OWNER_NONE, but for text of the old kind. */
enum owner_place owner_read(int fd, struct store_owner *ret_owner);
/* This process, on this host. */
bool owner_write(int fd, const char *path, const char *what, bool has_guest, struct err *err) MUST_CHECK;
bool owner_erase(int fd, const char *path, struct err *err) MUST_CHECK;
bool owner_sync(int fd, const char *path, struct err *err) MUST_CHECK;
/* What owner_erase() writes. */
void owner_text_free(char text[static OWNER_TEXT_BYTES]);
