/* When a guest that QEMU stopped because the host had no room for what it wrote is set going again. QEMU keeps the request
 * and repeats it then, so that a try that fails costs nothing: the guest stops again.
 *
 * Where statvfs() shows room the tries come after 1, 2, 4, 8 and then every 10 seconds: at once where somebody has made
 * room, and with patience where the limit is one that it does not show, as quotas are. Where it shows none a try is made
 * every minute all the same, since some file systems do not know exactly. */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

struct space_wait {
    bool stopped;         /* for want of space, and not set going since */
    size_t disk;          /* whose request failed: index in the settings */
    unsigned stops;       /* that came soon one after the other; 0: none yet */
    int64_t stopped_ms;   /* monotonic, as all times here */
    int64_t continued_ms; /* the last time that it was set going */
};

void space_note_stop(struct space_wait *wait, size_t disk, int64_t now_ms);
void space_note_continued(struct space_wait *wait, int64_t now_ms);
/* Has the time for a try come? has_room: what statvfs() shows. Only for one that is stopped. */
bool space_is_due(const struct space_wait *wait, bool has_room, int64_t now_ms);
/* Is this stop worth a line in a log, where each try may end in another? */
bool space_is_news(const struct space_wait *wait);
