#include "plan_folder.h"

#include "file.h"
#include "tree_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define MAC_LENGTH 18

/* A file and where it is in the new folder. */
struct place {
    const char *from; /* absolute; borrowed */
    char *to;         /* relative to the new folder; owned */
};

struct mac {
    char old[MAC_LENGTH], fresh[MAC_LENGTH];
};

struct copying {
    struct build *build;
    const struct plan_target *target;
    bool new_identity;
    struct guid guid; /* of the VM in the new folder */
    struct place *places;
    size_t place_count;
    struct mac *macs;
    size_t mac_count;
    char **dirs; /* made so far, relative; without those of snapshots */
    size_t dir_count;
};

static void copying_done(struct copying *copying)
{
    for (size_t i = 0; i < copying->place_count; i++)
        free(copying->places[i].to);
    free(copying->places);
    for (size_t i = 0; i < copying->dir_count; i++)
        free(copying->dirs[i]);
    free(copying->dirs);
    free(copying->macs);
}

/* --- where files go --- */

static int compare_place(const void *a, const void *b)
{
    return strcmp(((const struct place *)a)->from, ((const struct place *)b)->from);
}

static void places_sort(struct copying *copying)
{
    if (copying->place_count > 0)
        qsort(copying->places, copying->place_count, sizeof *copying->places, compare_place);
}

static const char *place_find(const struct copying *copying, const char *from)
{
    struct place key = {.from = from};

    if (copying->place_count == 0)
        return NULL;
    const struct place *place =
        bsearch(&key, copying->places, copying->place_count, sizeof key, compare_place);
    return place ? place->to : NULL;
}

/* Takes to. */
static void place_add(struct copying *copying, const char *from, char *to)
{
    struct place *grown = reallocarray(copying->places, copying->place_count + 1, sizeof *grown);

    if (grown)
        copying->places = grown;
    if (!grown || !to) {
        free(to);
        build_fail(copying->build);
        return;
    }
    grown[copying->place_count++] = (struct place){.from = from, .to = to};
}

/* The same place as in the old folder; the folder of the layers has the VM's GUID for its name. */
static char *place_inside(const struct copying *copying, const char *from)
{
    const struct tree *tree = copying->build->tree;
    const char *relative = from + strlen(tree->vm_dir) + 1;
    AUTO_FREE char *layers = tree_layers_dir(tree);

    if (layers && path_is_inside(from, layers))
        return string_printf("Snapshots/%s/%s", copying->guid.text, from + strlen(layers) + 1);
    return layers ? strdup(relative) : NULL;
}

static bool is_taken(const struct copying *copying, const char *to)
{
    for (size_t i = 0; i < copying->place_count; i++)
        if (strcmp(copying->places[i].to, to) == 0)
            return true;
    return strcmp(to, "Virtual Machines") == 0 || strcmp(to, "Snapshots") == 0;
}

/* In the folder itself, by its own name or one with a number. */
static char *place_free(const struct copying *copying, const char *stem, size_t length, const char *end)
{
    for (unsigned number = 1;; number++) {
        char *to = number == 1 ? string_printf("%.*s%s", (int)length, stem, end)
                               : string_printf("%.*s_%u%s", (int)length, stem, number, end);
        if (!to || !is_taken(copying, to))
            return to;
        free(to);
    }
}

static char *place_outside(const struct copying *copying, const char *from)
{
    const char *name = path_base(from), *end = strrchr(name, '.');

    if (!end || end == name)
        end = name + strlen(name);
    return place_free(copying, name, (size_t)(end - name), end);
}

/* A medium, or what a direct boot needs: only if it is in the folder. Names that more than one setting has are one place. */
static void place_file(struct copying *copying, const char *from)
{
    if (!from || !path_is_inside(from, copying->build->tree->vm_dir))
        return;
    for (size_t i = 0; i < copying->place_count; i++)
        if (strcmp(copying->places[i].from, from) == 0)
            return;
    place_add(copying, from, place_inside(copying, from));
}

static void place_media(struct copying *copying, const struct config *config)
{
    place_file(copying, config->kernel);
    place_file(copying, config->initrd);
    for (size_t i = 0; i < config->disk_count; i++)
        if (config->disks[i].is_cdrom)
            place_file(copying, config->disks[i].path);
}

/* What is inside first: it keeps its name. */
static void place_layers(struct copying *copying, const struct plan_layer *layers, size_t layer_count)
{
    const char *vm_dir = copying->build->tree->vm_dir;

    for (size_t i = 0; i < layer_count; i++)
        if (path_is_inside(layers[i].path, vm_dir))
            place_add(copying, layers[i].path, place_inside(copying, layers[i].path));
    for (size_t i = 0; i < layer_count; i++)
        if (!path_is_inside(layers[i].path, vm_dir))
            place_add(copying, layers[i].path, place_outside(copying, layers[i].path));
}

/* --- pieces of plans --- */

static char *temporary_path(const struct copying *copying, const char *relative)
{
    return path_join(copying->target->temporary, relative);
}

static void build_dir(struct copying *copying, const char *relative)
{
    build_step(copying->build, STEP_MAKE_DIR, temporary_path(copying, relative));
}

/* The folders that lead to the file, and are not known to be there. */
static void build_dirs_to(struct copying *copying, const char *file)
{
    for (const char *slash = strchr(file, '/'); slash; slash = strchr(slash + 1, '/')) {
        AUTO_FREE char *dir = strndup(file, (size_t)(slash - file));
        bool known = false;
        for (size_t i = 0; dir && i < copying->dir_count; i++)
            known |= strcmp(copying->dirs[i], dir) == 0;
        if (known)
            continue;
        char **grown = reallocarray(copying->dirs, copying->dir_count + 1, sizeof *grown);
        if (!grown || !dir) {
            build_fail(copying->build);
            return;
        }
        copying->dirs = grown;
        build_dir(copying, dir);
        grown[copying->dir_count++] = TAKE(dir);
    }
}

/* Those that every VM has. */
static void build_skeleton(struct copying *copying)
{
    AUTO_FREE char *state = string_printf("Virtual Machines/%s/", copying->guid.text);

    build_step(copying->build, STEP_MAKE_DIR, strdup(copying->target->temporary));
    if (!state) {
        build_fail(copying->build);
        return;
    }
    build_dirs_to(copying, state);
    build_dirs_to(copying, "Snapshots/");
}

/* Deepest first, then the folder itself, and its name. */
static void build_publish(struct copying *copying)
{
    for (size_t i = copying->dir_count; i-- > 0;)
        build_step(copying->build, STEP_SYNC_DIR, temporary_path(copying, copying->dirs[i]));
    build_step(copying->build, STEP_SYNC_DIR, strdup(copying->target->temporary));
    build_from(copying->build, STEP_RENAME, strdup(copying->target->dir), strdup(copying->target->temporary));
}

static void build_write(struct copying *copying, const char *folder, const struct guid *guid,
                        const struct config *config)
{
    AUTO_FREE char *dir = temporary_path(copying, folder);

    if (!copying->build->failed && !config_check(config, copying->build->err))
        copying->build->failed = true;
    build_config(copying->build, STEP_WRITE_CONFIG, dir ? tree_state_path(dir, guid, ".xml") : NULL, config_copy(config));
}

/* <from_dir>/<from>.bin and .vsv to <to_dir>/<to>.*; shared: both lie in the new folder. */
static void build_memory(struct build *build, enum step_kind kind, const char *from_dir, const struct guid *from,
                         const char *to_dir, const struct guid *to)
{
    build_state_file(build, kind, from_dir, from, to_dir, to, ".bin");
    build_state_file(build, kind, from_dir, from, to_dir, to, ".vsv");
}

/* --- settings in the new folder --- */

/* A path in the settings, as seen from where the folder will be. */
static void repath(struct copying *copying, char **path)
{
    const char *to = *path ? place_find(copying, *path) : NULL;

    if (!to)
        return;
    free(*path);
    if (!(*path = path_join(copying->target->dir, to)))
        build_fail(copying->build);
}

/* The same card has the same address in all settings. */
static void readdress(struct copying *copying, struct config_nic *nic)
{
    for (size_t i = 0; i < copying->mac_count; i++) {
        if (strcmp(copying->macs[i].old, nic->mac) == 0) {
            memcpy(nic->mac, copying->macs[i].fresh, MAC_LENGTH);
            return;
        }
    }
    struct mac *grown = reallocarray(copying->macs, copying->mac_count + 1, sizeof *grown);
    if (!grown) {
        build_fail(copying->build);
        return;
    }
    copying->macs = grown;
    struct mac *mac = &grown[copying->mac_count++];
    struct guid guid = build_guid(copying->build);
    const char *digits = guid.text + GUID_LENGTH - 6;
    memcpy(mac->old, nic->mac, MAC_LENGTH);
    snprintf(mac->fresh, MAC_LENGTH, "52:54:00:%.2s:%.2s:%.2s", digits, digits + 2, digits + 4);
    for (char *p = mac->fresh; *p != '\0'; p++)
        if (*p >= 'A' && *p <= 'F')
            *p = (char)(*p - 'A' + 'a');
    memcpy(nic->mac, mac->fresh, MAC_LENGTH);
}

/* NULL when out of memory. */
static struct config *config_there(struct copying *copying, const struct config *old)
{
    struct config *config = config_copy(old);

    if (!config)
        return NULL;
    config->guid = copying->guid;
    config_bases_clear(config); /* of other files */
    repath(copying, &config->kernel);
    repath(copying, &config->initrd);
    for (size_t i = 0; i < config->disk_count; i++)
        repath(copying, &config->disks[i].path);
    for (size_t i = 0; copying->new_identity && i < config->nic_count; i++)
        readdress(copying, &config->nics[i]);
    return config;
}

/* --- a copy of the whole --- */

/* Memory that an earlier one of the snapshots has too; NULL: none. */
static const struct config *same_memory(const struct tree *tree, const struct config *config, size_t before)
{
    for (size_t i = 0; i < before; i++)
        if (tree->snapshots[i]->state_when_taken != STATE_OFF &&
            guid_equal(&tree->snapshots[i]->memory, &config->memory))
            return tree->snapshots[i];
    return NULL;
}

/* The memory of config, which has some, from from_dir/guid to to_dir/guid: copied, or shared in the new folder. */
static void build_copied_memory(struct copying *copying, const struct config *config, size_t snapshots_before,
                                const char *from_dir, const char *to_dir, const struct guid *guid)
{
    const struct config *same = same_memory(copying->build->tree, config, snapshots_before);

    if (!same) {
        build_memory(copying->build, STEP_COPY_FILE, from_dir, guid, to_dir, guid);
    } else {
        AUTO_FREE char *shared = string_printf("%s/Snapshots/%s", copying->target->temporary, same->snapshot.text);
        build_memory(copying->build, STEP_SHARE_FILE, shared, &same->snapshot, to_dir, guid);
    }
    build_config(copying->build, STEP_CHECK_MEMORY, to_dir ? tree_state_path(to_dir, guid, "") : NULL, config_copy(config));
}

static void build_copied_snapshot(struct copying *copying, size_t index)
{
    struct build *build = copying->build;
    const struct config *old = build->tree->snapshots[index];
    AUTO_CONFIG struct config *config = config_there(copying, old);
    AUTO_FREE char *from = tree_snapshot_dir(build->tree, &old->snapshot);
    AUTO_FREE char *to = string_printf("%s/Snapshots/%s", copying->target->temporary, old->snapshot.text);

    if (!config || !from || !to) {
        build_fail(build);
        return;
    }
    build_step(build, STEP_MAKE_DIR, strdup(to));
    if (old->state_when_taken != STATE_OFF)
        build_copied_memory(copying, old, index, from, to, &old->snapshot);
    if (guid_is_set(&old->nvram))
        build_state_file(build, STEP_COPY_FILE, from, &old->nvram, to, &old->nvram, ".nvram");
    if (old->display != DISPLAY_NONE)
        build_state_file(build, STEP_COPY_OPTIONAL, from, &old->snapshot, to, &old->snapshot, ".png");
    build_step(build, STEP_SYNC_DIR, strdup(to));
    build_write(copying, "Snapshots", &old->snapshot, config);
}

static void build_copied_vm(struct copying *copying, const char *name)
{
    struct build *build = copying->build;
    const struct config *old = build->tree->vm;
    AUTO_CONFIG struct config *config = config_there(copying, old);
    AUTO_FREE char *from = tree_vm_state_dir(build->tree);
    AUTO_FREE char *to =
        string_printf("%s/Virtual Machines/%s", copying->target->temporary, copying->guid.text);

    if (!config || !from || !to || (name && !config_set_string(&config->name, name, build->err))) {
        build_fail(build);
        return;
    }
    if (copying->new_identity)
        config->generation_id = build_guid(build);
    if (guid_is_set(&old->saved))
        build_copied_memory(copying, old, build->tree->snapshot_count, from, to, &old->saved);
    if (guid_is_set(&old->nvram))
        build_state_file(build, STEP_COPY_FILE, from, &old->nvram, to, &old->nvram, ".nvram");
    build_write(copying, "Virtual Machines", &copying->guid, config);
}

static void build_copied_files(struct copying *copying, const struct plan_layer *layers, size_t layer_count)
{
    struct build *build = copying->build;

    for (size_t i = 0; i < copying->place_count; i++) {
        build_dirs_to(copying, copying->places[i].to);
        build_from(build, STEP_COPY_FILE, temporary_path(copying, copying->places[i].to),
                   strdup(copying->places[i].from));
    }
    for (size_t i = 0; i < layer_count; i++) {
        const char *child = place_find(copying, layers[i].path);
        const char *parent = layers[i].parent ? place_find(copying, layers[i].parent) : NULL;
        if (child && parent)
            build_from(build, STEP_LINK_PARENT, temporary_path(copying, child), temporary_path(copying, parent));
    }
}

bool plan_copy(const struct tree *tree, const struct plan_source *source, const struct plan_target *target,
               bool new_identity, const struct plan_layer *layers, size_t layer_count, struct plan **ret_plan,
               struct err *err)
{
    struct build build;
    AUTO(copying_done)
    struct copying copying = {
        .build = &build, .target = target, .new_identity = new_identity, .guid = tree->vm->guid};

    build_begin(&build, tree, source, err);
    if (new_identity)
        copying.guid = build_guid(&build);
    place_layers(&copying, layers, layer_count);
    place_media(&copying, tree->vm);
    for (size_t i = 0; i < tree->snapshot_count; i++)
        place_media(&copying, tree->snapshots[i]);
    places_sort(&copying);
    build_skeleton(&copying);
    build_copied_files(&copying, layers, layer_count);
    for (size_t i = 0; i < tree->snapshot_count; i++)
        build_copied_snapshot(&copying, i);
    build_copied_vm(&copying, target->name);
    build_publish(&copying);
    return build_end(&build, ret_plan, "copy %s to %s", tree->vm->name, target->dir);
}

/* --- one snapshot --- */

static void place_flat(struct copying *copying, const struct config *snapshot)
{
    for (size_t i = 0; i < snapshot->disk_count; i++) {
        const struct config_disk *disk = &snapshot->disks[i];
        size_t length;
        const char *stem = layer_stem(disk->path ? disk->path : "", &length);
        if (disk->is_cdrom)
            continue;
        if (length == 0) {
            stem = "disk";
            length = strlen(stem);
        }
        place_add(copying, disk->path, place_free(copying, stem, length, ".vhd"));
    }
}

/* The snapshot's settings as those of a VM without snapshots. */
static struct config *config_alone(struct copying *copying, const struct config *snapshot, bool has_memory)
{
    const struct plan_target *target = copying->target;
    struct build *build = copying->build;
    AUTO_CONFIG struct config *config = config_there(copying, snapshot);

    if (!config || !config_set_string(&config->name, target->name ? target->name : build->tree->vm->name, build->err))
        return NULL;
    config->is_snapshot = false;
    config->snapshot = config->parent = (struct guid){0};
    config->state_when_taken = STATE_OFF;
    config->pause_us = 0;
    config->created_ms = build->source->now_ms;
    config->generation_id = build_guid(build);
    for (size_t i = 0; i < config->disk_count; i++)
        config->disks[i].image_id[0] = '\0';
    if (guid_is_set(&snapshot->nvram))
        config->nvram = build_guid(build);
    if (!has_memory) {
        config_clear_saved(config);
    } else {
        config->saved = build_guid(build);
        config->saved_state = snapshot->state_when_taken;
    }
    return TAKE(config);
}

static void build_flat(struct copying *copying, const struct config *snapshot)
{
    for (size_t i = 0; i < copying->place_count; i++) {
        const struct place *place = &copying->places[i];
        bool is_disk = false;
        for (size_t j = 0; j < snapshot->disk_count; j++)
            is_disk |= !snapshot->disks[j].is_cdrom && strcmp(snapshot->disks[j].path, place->from) == 0;
        build_dirs_to(copying, place->to);
        build_from(copying->build, is_disk ? STEP_FLATTEN : STEP_COPY_FILE, temporary_path(copying, place->to),
                   strdup(place->from));
    }
}

static void build_alone(struct copying *copying, const struct config *snapshot, const struct config *config)
{
    struct build *build = copying->build;
    AUTO_FREE char *from = tree_snapshot_dir(build->tree, &snapshot->snapshot);
    AUTO_FREE char *to =
        string_printf("%s/Virtual Machines/%s", copying->target->temporary, copying->guid.text);

    build_skeleton(copying);
    build_flat(copying, snapshot);
    if (guid_is_set(&config->saved)) {
        build_memory(build, STEP_COPY_FILE, from, &snapshot->snapshot, to, &config->saved);
        build_config(build, STEP_VERIFY_MEMORY, to ? tree_state_path(to, &config->saved, "") : NULL, config_copy(config));
    }
    if (guid_is_set(&snapshot->nvram))
        build_state_file(build, STEP_COPY_FILE, from, &snapshot->nvram, to, &config->nvram, ".nvram");
    build_write(copying, "Virtual Machines", &copying->guid, config);
    build_publish(copying);
}

bool plan_extract(const struct tree *tree, const struct plan_source *source, const struct plan_target *target,
                  const struct guid *snapshot, bool disks_only, struct plan **ret_plan, struct err *err)
{
    const struct config *old = tree_by_guid(tree, snapshot);
    struct build build;
    AUTO(copying_done) struct copying copying = {.build = &build, .target = target};

    if (!old)
        return err_set(err, ERR_NOT_FOUND, "has no snapshot %s", snapshot->text);
    build_begin(&build, tree, source, err);
    copying.guid = build_guid(&build);
    place_flat(&copying, old);
    place_media(&copying, old);
    places_sort(&copying);
    AUTO_CONFIG struct config *config =
        config_alone(&copying, old, old->state_when_taken != STATE_OFF && !disks_only);
    if (config)
        build_alone(&copying, old, config);
    else
        build_fail(&build);
    return build_end(&build, ret_plan, "export %s: snapshot '%s' to %s", tree->vm->name, old->name, target->dir);
}

/* --- the folder itself --- */

bool plan_move(const struct tree *tree, const char *dir, struct plan **ret_plan, struct err *err)
{
    struct build build;

    build_begin(&build, tree, /* source= */ NULL, err);
    build_from(&build, STEP_RENAME, strdup(dir), strdup(tree->vm_dir));
    return build_end(&build, ret_plan, "rename %s to %s", path_base(tree->vm_dir), path_base(dir));
}

bool plan_remove(const struct tree *tree, const char *away, struct plan **ret_plan, struct err *err)
{
    struct build build;

    build_begin(&build, tree, /* source= */ NULL, err);
    build_from(&build, STEP_RENAME, strdup(away), strdup(tree->vm_dir));
    build_step(&build, STEP_REMOVE_TREE, strdup(away));
    return build_end(&build, ret_plan, "remove %s", path_base(tree->vm_dir));
}
