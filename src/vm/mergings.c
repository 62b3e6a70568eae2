#include "mergings.h"

#include "room_merge.h"
#include "text_json.h"

/* Of one that is pending: why it is not begun now. */
static void waiting_reason(const struct plan_merging *merging, bool beside_guest, char *text, size_t size)
{
    struct room_merge_request request = room_merge_of(merging);
    struct room_merge room;

    text[0] = '\0';
    request.beside_guest = beside_guest;
    if (merging->child_is_empty)
        return;
    room_merge_look(&request, &room);
    if (!room_merge_fits(&room))
        room_merge_text(&room, text, size);
}

static json_t *merging_json(const struct plan_merging *merging, bool beside_guest)
{
    const char *into = merging_stays(merging);
    bool kept = merging->kept != MERGE_NOT_KEPT;
    char reason[320];

    if (kept)
        merging_reason(merging, reason, sizeof reason);
    else
        waiting_reason(merging, beside_guest, reason, sizeof reason);
    return json_pack("{s:o, s:o, s:I, s:i, s:s, s:o}", "path", text_json(merging_gone(merging)), "into",
                     into ? text_json(into) : json_null(), "bytes", (json_int_t)merging->bytes, "done_bytes", 0, "state",
                     kept ? "kept" : "pending", "reason", reason[0] ? text_json(reason) : json_null());
}

json_t *mergings_json(const struct store_merges *merges)
{
    bool beside_guest = merges->machine == MACHINE_RUNNING || merges->machine == MACHINE_PAUSED;
    json_t *list = json_array();

    for (size_t i = 0; list && i < merges->count; i++)
        if (json_array_append_new(list, merging_json(&merges->mergings[i], beside_guest)) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}
