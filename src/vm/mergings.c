#include "mergings.h"

#include "text_json.h"

json_t *merging_json(const struct plan_merging *merging)
{
    const char *into = merging_stays(merging);
    bool kept = merging->kept != MERGE_NOT_KEPT;
    char reason[320];

    merging_reason(merging, reason, sizeof reason);
    return json_pack("{s:o, s:o, s:I, s:i, s:s, s:o}", "path", text_json(merging_gone(merging)), "into",
                     into ? text_json(into) : json_null(), "bytes", (json_int_t)merging->bytes, "done_bytes", 0, "state",
                     kept ? "kept" : "pending", "reason", kept ? text_json(reason) : json_null());
}

json_t *mergings_json(const struct store_merges *merges)
{
    json_t *list = json_array();

    for (size_t i = 0; list && i < merges->count; i++)
        if (json_array_append_new(list, merging_json(&merges->mergings[i])) != 0) {
            json_decref(list);
            return NULL;
        }
    return list;
}
