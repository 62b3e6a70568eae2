/* What the files of a guest share (guest.c, guest_run.c, guest_adopt.c). */
#pragma once

#include "guest.h"

/* Its settings, and room for the engines of its disks. */
bool guest_make_room(struct guest *guest, const struct config *config, struct err *err) MUST_CHECK;
/* Opens its disks and serves them, on the sockets that it has already, else on new ones in its disks_dir. It waits so long for images
 * that somebody still has open: the kernel, for a process that was killed. */
bool guest_engines_start(struct guest *guest, unsigned busy_ms, struct err *err) MUST_CHECK;
/* For the next worker: to be called when what it holds has changed, before QEMU hears of it. */
bool guest_remember(const struct guest *guest, struct err *err) MUST_CHECK;
