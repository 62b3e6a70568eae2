#include "cli_merging.h"

#include "buf.h"
#include "bytes.h"
#include "cli_disk.h"
#include "cli_output.h"
#include "cli_view.h"
#include "file.h"
#include "mergings.h"
#include "work_mark.h"

#include <stdio.h>
#include <string.h>

static bool is_alive(const json_t *status)
{
    const char *state = json_text(status, "state");

    return strcmp(state, "off") != 0 && strcmp(state, "saved") != 0;
}

/* What the process that merges tells of it itself. */
static void take_running(json_t *merging, const json_t *running)
{
    size_t i, j;
    json_t *entry, *told;

    json_array_foreach (merging, i, entry) {
        json_array_foreach (running, j, told) {
            if (strcmp(json_text(told, "path"), json_text(entry, "path")) == 0)
                json_object_update(entry, told);
        }
    }
}

static bool is_pending(const json_t *entry)
{
    return strcmp(json_text(entry, "state"), "pending") == 0;
}

/* What a command that merges has done of the first: it tells what is left of all. */
static uint64_t done_bytes(const char *vm_dir, const json_t *merging, uint64_t first_bytes)
{
    uint64_t bytes = 0, left;
    size_t i;
    json_t *entry;

    json_array_foreach ((json_t *)merging, i, entry) {
        bytes += is_pending(entry) ? json_bytes(entry, "bytes") : 0;
    }
    return works_merge_left(vm_dir, &left) && left < bytes ? min_u64(bytes - left, first_bytes) : 0;
}

/* A command that merges does one after the other, as they stand here. */
static void mark_first(const char *vm_dir, json_t *merging)
{
    size_t i;
    json_t *entry;

    json_array_foreach (merging, i, entry) {
        if (!is_pending(entry) || *json_text(entry, "reason") != '\0')
            continue;
        uint64_t done = done_bytes(vm_dir, merging, json_bytes(entry, "bytes"));
        json_object_set_new(entry, "done_bytes", json_integer((json_int_t)done));
        json_object_set_new(entry, "state", json_string("running"));
        return;
    }
}

json_t *merging_read(const struct tree *tree, const json_t *status)
{
    const char *operation = json_text(status, "operation");
    struct store_merges merges;
    struct err ignored;

    if (!store_merges_read(&io_real, tree, is_alive(status) ? MACHINE_RUNNING : MACHINE_OFF, /* into_base= */ false,
                           &merges, &ignored))
        return json_array();
    json_t *merging = mergings_json(&merges);
    store_merges_done(&merges);
    if (json_object_get(status, "merging"))
        take_running(merging, json_object_get(status, "merging"));
    else if (strcmp(operation, "merge") == 0 || strcmp(operation, "delete") == 0)
        mark_first(tree->vm_dir, merging);
    return merging;
}

static char *pending_text(const json_t *entry, const char *name)
{
    uint64_t done_bytes = json_bytes(entry, "done_bytes");
    const char *reason = json_text(entry, "reason");
    char size[16], done[32] = "";

    if (done_bytes > 0)
        snprintf(done, sizeof done, "%s of ", size_format(done_bytes, size));
    return string_printf("%s into %s, %s%s, %s%s%s", name, path_base(json_text(entry, "into")), done,
                         size_format(json_bytes(entry, "bytes"), size), json_text(entry, "state"), *reason != '\0' ? ": " : "",
                         reason);
}

/* The reason begins with the name of the file that is the reason. */
static char *kept_text(const char *name, const char *reason)
{
    return strncmp(reason, name, strlen(name)) == 0 ? strdup(reason) : string_printf("%s: %s", name, reason);
}

void merging_print(const json_t *merging)
{
    size_t i;
    json_t *entry;

    json_array_foreach (merging, i, entry) {
        const char *name = path_base(json_text(entry, "path")), *reason = json_text(entry, "reason");
        bool kept = strcmp(json_text(entry, "state"), "kept") == 0;
        AUTO_FREE char *text = kept ? kept_text(name, reason) : pending_text(entry, name);
        view_line(kept ? "kept:" : "merging:", text ? text : "");
    }
}

void merged_print(const json_t *merged)
{
    size_t i;
    json_t *entry;

    json_array_foreach (merged, i, entry) {
        char size[16];
        AUTO_FREE char *text = string_printf("%s into %s, %s", path_base(json_text(entry, "path")),
                                             path_base(json_text(entry, "into")),
                                             size_format(json_bytes(entry, "bytes"), size));
        view_line("merged:", text ? text : "");
    }
}
