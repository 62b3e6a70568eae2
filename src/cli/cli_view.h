/* Looking at a VM without its lock: its tree, and its settings as JSON and for people. */
#pragma once

#include "tree.h"

#include <jansson.h>

/* The VM's tree as its files tell it now, read without a lock. */
bool view_tree(const char *vm_name, struct tree **ret_tree, struct err *err) MUST_CHECK;
/* Of a client_status(), for people: its state, and in a word why it stands if nobody has paused it:
 * "paused: no-space". Owned, NULL when out of memory. */
char *view_state_text(const json_t *status);

/* The space that a file takes on its file system; 0 if it is not there. */
uint64_t view_allocated_bytes(const char *path);
/* The allocated size of a snapshot's memory image; 0 if it has none. */
uint64_t view_memory_bytes(const struct tree *tree, const struct config *snapshot);
/* The picture of the screen beside a snapshot's memory; null if it has none. A new reference. */
json_t *view_thumbnail(const struct tree *tree, const struct config *snapshot);
/* null for an unset GUID. A new reference. */
json_t *view_guid(const struct guid *guid);
/* The paths of the hard disks, without optical drives. A new reference. */
json_t *view_disk_paths(const struct config *config);

/* Settings, of a VM or as a snapshot keeps them: a JSON object (a new reference, NULL when out of memory),
 * ... */
json_t *view_settings(const struct config *config);
/* ... and that object for people, one `key: value` a line. A member that is not known to it is left out. */
void view_settings_print(const json_t *settings);
/* One aligned line `key:   value`, the value escaped; nothing where value is empty. */
void view_line(const char *key, const char *value);
