#include "space.h"

#define FIRST_PAUSE_MS   1000
#define LONGEST_PAUSE_MS 10000
#define NO_ROOM_PAUSE_MS 60000
#define SOON_MS          30000 /* a guest that ran for longer had room */

void space_note_stop(struct space_wait *wait, size_t disk, int64_t now_ms)
{
    bool soon = wait->stops > 0 && now_ms - wait->continued_ms < SOON_MS;

    if (!wait->stopped)
        wait->stops = soon ? wait->stops + 1 : 1;
    wait->stopped = true;
    wait->disk = disk;
    wait->stopped_ms = now_ms;
}

void space_note_continued(struct space_wait *wait, int64_t now_ms)
{
    wait->stopped = false;
    wait->continued_ms = now_ms;
}

bool space_is_due(const struct space_wait *wait, bool has_room, int64_t now_ms)
{
    int64_t pause_ms = FIRST_PAUSE_MS;

    for (unsigned i = 1; i < wait->stops && pause_ms < LONGEST_PAUSE_MS; i++)
        pause_ms *= 2;
    if (pause_ms > LONGEST_PAUSE_MS)
        pause_ms = LONGEST_PAUSE_MS;
    return now_ms - wait->stopped_ms >= (has_room ? pause_ms : NO_ROOM_PAUSE_MS);
}

bool space_is_news(const struct space_wait *wait)
{
    return (wait->stops & (wait->stops - 1)) == 0;
}
