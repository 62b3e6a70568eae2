/* Trees for tests, and a source of GUIDs and times that gives the same ones in each run. */
#pragma once

#include "config_sample.h"
#include "plan.h"

#include "buf.h"

#define SAMPLE_LAYERS SAMPLE_DIR "/Snapshots/" SAMPLE_VM

static inline struct guid sample_fresh(void *context)
{
    return sample_guid(++*(unsigned *)context);
}

#define SAMPLE_SOURCE(counter)                                                                               \
    ((struct plan_source){.fresh_guid = sample_fresh, .now_ms = 1700000000000, .context = (counter)})

/* A snapshot of vm; its disks are the layers d_<number>.avhd, its parent has the number `parent` (0: a root).
 * It is put into vm's list. */
static inline struct config *sample_listed(struct config *vm, unsigned number, unsigned parent,
                                           enum config_state state)
{
    struct config *config = config_copy(vm);
    struct config_listed listed = {.guid = sample_guid(number)};
    struct err err;
    char name[32];

    if (parent)
        listed.parent = sample_guid(parent);
    snprintf(name, sizeof name, "snap %u", number);
    sample_check(
        config && config_set_string(&config->name, name, &err) && config_add_listed(vm, &listed, &err), &err);
    config_clear_saved(config);
    config->listed_count = 0;
    config->is_snapshot = true;
    config->snapshot = listed.guid;
    config->parent = (struct guid){0}; /* the list's counts */
    config->created_ms = 1204286400000 + number;
    config->state_when_taken = state;
    if (state != STATE_OFF) {
        config->memory = sample_guid(number + 1000);
        config->accel_used = ACCEL_TCG;
        sample_check(config_set_string(&config->qemu_version, "7.2.1", &err), &err);
    }
    for (size_t i = 0; i < config->disk_count; i++) {
        free(config->disks[i].path);
        config->disks[i].path = string_printf(SAMPLE_LAYERS "/d%zu_%s.avhd", i, listed.guid.text);
    }
    return config;
}

static inline struct tree *sample_tree(struct config *vm, struct config **snapshots, size_t count)
{
    struct config **array = calloc(count + 1, sizeof(struct config *));
    struct tree *tree;
    struct err err;

    for (size_t i = 0; i < count; i++)
        array[i] = snapshots[i];
    sample_check(tree_new(SAMPLE_DIR, vm, array, count, &tree, &err), &err);
    return tree;
}
