#include "tree.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <strings.h>

static void indexes_free(struct tree *tree)
{
    free(tree->by_guid);
    free(tree->by_parent);
    free(tree->disk_paths);
}

void tree_free(struct tree *tree)
{
    if (!tree)
        return;
    config_free(tree->vm);
    for (size_t i = 0; i < tree->snapshot_count; i++)
        config_free(tree->snapshots[i]);
    free(tree->snapshots);
    indexes_free(tree);
    free(tree->vm_dir);
    free(tree);
}

static int compare_guid(const void *a, const void *b)
{
    const struct config *const *first = a, *const *second = b;

    return strcasecmp((*first)->snapshot.text, (*second)->snapshot.text);
}

static int compare_creation(const void *a, const void *b)
{
    const struct config *const *first = a, *const *second = b;

    if ((*first)->created_ms != (*second)->created_ms)
        return (*first)->created_ms < (*second)->created_ms ? -1 : 1;
    return compare_guid(a, b);
}

static int compare_parent(const void *a, const void *b)
{
    const struct config *const *first = a, *const *second = b;
    int order = strcasecmp((*first)->parent.text, (*second)->parent.text);

    return order != 0 ? order : compare_creation(a, b);
}

static int compare_paths(const void *a, const void *b)
{
    return strcmp(*(const char *const *)a, *(const char *const *)b);
}

/* Into by_guid; snapshot_count if it is not there. */
static size_t index_of(const struct tree *tree, const struct guid *guid)
{
    size_t low = 0, high = tree->snapshot_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        int order = strcasecmp(guid->text, tree->by_guid[middle]->snapshot.text);
        if (order == 0)
            return middle;
        if (order < 0)
            high = middle;
        else
            low = middle + 1;
    }
    return tree->snapshot_count;
}

const struct config *tree_by_guid(const struct tree *tree, const struct guid *guid)
{
    size_t index = index_of(tree, guid);

    return index < tree->snapshot_count ? tree->by_guid[index] : NULL;
}

/* Each listed snapshot is there once, with this VM's id; its parent becomes the list's. */
static bool check_list(const struct tree *tree, struct err *err)
{
    const struct config *vm = tree->vm;

    if (vm->listed_count != tree->snapshot_count)
        return err_set(err, ERR_CORRUPT, "%s: the VM lists %zu snapshots, %zu are there", vm->name,
                       vm->listed_count, tree->snapshot_count);
    for (size_t i = 1; i < tree->snapshot_count; i++)
        if (guid_equal(&tree->by_guid[i - 1]->snapshot, &tree->by_guid[i]->snapshot))
            return err_set(err, ERR_CORRUPT, "%s: the snapshot %s is there twice", vm->name,
                           tree->by_guid[i]->snapshot.text);
    for (size_t i = 0; i < vm->listed_count; i++) {
        const struct config_listed *listed = &vm->listed[i];
        struct config *snapshot = (struct config *)tree_by_guid(tree, &listed->guid);
        if (!snapshot)
            return err_set(err, ERR_CORRUPT, "%s: the snapshot %s is listed and not there", vm->name,
                           listed->guid.text);
        if (!snapshot->is_snapshot || !guid_equal(&snapshot->guid, &vm->guid))
            return err_set(err, ERR_CORRUPT, "%s: the snapshot %s is of the VM %s, this one is %s", vm->name,
                           listed->guid.text, snapshot->guid.text, vm->guid.text);
        snapshot->parent = listed->parent;
    }
    return true;
}

enum walk { NOT_WALKED, WALKING, ENDS_AT_A_ROOT };

/* Up from one snapshot to a root, or to where an earlier walk has been. */
static bool walk_up(const struct tree *tree, size_t start, enum walk *walks, struct err *err)
{
    size_t at = start;

    while (walks[at] == NOT_WALKED) {
        const struct config *snapshot = tree->by_guid[at];
        walks[at] = WALKING;
        if (!guid_is_set(&snapshot->parent))
            break;
        at = index_of(tree, &snapshot->parent);
        if (at == tree->snapshot_count)
            return err_set(err, ERR_CORRUPT, "%s: the snapshot %s descends from one that is not listed: %s",
                           tree->vm->name, snapshot->snapshot.text, snapshot->parent.text);
        if (walks[at] == WALKING)
            return err_set(err, ERR_CORRUPT, "%s: the snapshot %s is its own ancestor", tree->vm->name,
                           tree->by_guid[at]->snapshot.text);
    }
    for (at = start; walks[at] == WALKING; at = index_of(tree, &tree->by_guid[at]->parent)) {
        walks[at] = ENDS_AT_A_ROOT;
        if (!guid_is_set(&tree->by_guid[at]->parent))
            break;
    }
    return true;
}

static bool check_parents(const struct tree *tree, struct err *err)
{
    const struct guid *parent = &tree->vm->parent;

    if (guid_is_set(parent) && !tree_by_guid(tree, parent))
        return err_set(err, ERR_CORRUPT, "%s: descends from a snapshot that is not listed: %s",
                       tree->vm->name, parent->text);
    AUTO_FREE enum walk *walks = calloc(tree->snapshot_count + 1, sizeof *walks);
    if (!walks)
        return err_oom(err);
    for (size_t i = 0; i < tree->snapshot_count; i++)
        if (!walk_up(tree, i, walks, err))
            return false;
    return true;
}

bool tree_check_disks(const struct tree *tree, const struct config *vm, struct err *err)
{
    for (size_t i = 0; i < vm->disk_count; i++) {
        const struct config_disk *written = &vm->disks[i];
        for (size_t j = 0; !written->is_cdrom && j < tree->snapshot_count; j++) {
            const struct config *snapshot = tree->snapshots[j];
            for (size_t k = 0; k < snapshot->disk_count; k++)
                if (!snapshot->disks[k].is_cdrom && strcmp(snapshot->disks[k].path, written->path) == 0)
                    return err_set(err, ERR_CORRUPT,
                                   "%s: is written by the VM %s and belongs to its snapshot %s",
                                   written->path, vm->name, snapshot->snapshot.text);
        }
    }
    return true;
}

static bool set_order(struct tree *tree, struct config **snapshots, size_t snapshot_count, struct err *err)
{
    tree->by_guid = calloc(snapshot_count + 1, sizeof *tree->by_guid);
    if (!tree->by_guid)
        return err_oom(err);
    tree->snapshots = snapshots;
    tree->snapshot_count = snapshot_count;
    for (size_t i = 0; i < snapshot_count; i++)
        tree->by_guid[i] = snapshots[i];
    if (snapshot_count > 0) {
        qsort(tree->by_guid, snapshot_count, sizeof(struct config *), compare_guid);
        qsort(snapshots, snapshot_count, sizeof(struct config *), compare_creation);
    }
    return true;
}

static void disk_paths_add(struct tree *tree, const struct config *config)
{
    for (size_t i = 0; i < config->disk_count; i++)
        if (!config->disks[i].is_cdrom)
            tree->disk_paths[tree->disk_path_count++] = config->disks[i].path;
}

/* What is asked for each of thousands of snapshots or files must not look at all of them each time. Behind check_list(), which
 * sets the parents. */
static bool set_indexes(struct tree *tree, struct err *err)
{
    size_t count = tree->snapshot_count, disks = tree->vm->disk_count;

    for (size_t i = 0; i < count; i++)
        disks += tree->snapshots[i]->disk_count;
    tree->by_parent = calloc(count + 1, sizeof *tree->by_parent);
    tree->disk_paths = calloc(disks + 1, sizeof *tree->disk_paths);
    if (!tree->by_parent || !tree->disk_paths)
        return err_oom(err);
    disk_paths_add(tree, tree->vm);
    for (size_t i = 0; i < count; i++) {
        tree->by_parent[i] = tree->snapshots[i];
        disk_paths_add(tree, tree->snapshots[i]);
    }
    if (count > 0)
        qsort(tree->by_parent, count, sizeof(struct config *), compare_parent);
    if (tree->disk_path_count > 0)
        qsort(tree->disk_paths, tree->disk_path_count, sizeof(char *), compare_paths);
    return true;
}

bool tree_new(const char *vm_dir, struct config *vm, struct config **snapshots, size_t snapshot_count,
              struct tree **ret_tree, struct err *err)
{
    struct tree *tree = calloc(1, sizeof *tree);

    if (!tree)
        return err_oom(err);
    tree->vm = vm;
    if (config_set_string(&tree->vm_dir, vm_dir, err) && set_order(tree, snapshots, snapshot_count, err) &&
        check_list(tree, err) && check_parents(tree, err) && tree_check_disks(tree, tree->vm, err) &&
        set_indexes(tree, err)) {
        *ret_tree = tree;
        return true;
    }
    indexes_free(tree);
    free(tree->vm_dir);
    free(tree);
    return false;
}

void tree_with_done(struct tree *later)
{
    free(later->snapshots);
    free(later->by_guid);
    *later = (struct tree){0};
}

bool tree_with(const struct tree *tree, struct config *vm, struct config *snapshot, struct tree *ret_later,
               struct err *err)
{
    struct tree later = {.vm_dir = tree->vm_dir, .vm = vm};
    struct config **snapshots = calloc(tree->snapshot_count + 1, sizeof(struct config *));

    if (!snapshots)
        return err_oom(err);
    for (size_t i = 0; i < tree->snapshot_count; i++)
        snapshots[i] = tree->snapshots[i];
    snapshots[tree->snapshot_count] = snapshot;
    if (!set_order(&later, snapshots, tree->snapshot_count + 1, err)) {
        free(snapshots);
        return false;
    }
    *ret_later = later;
    return true;
}

static bool is_match(const struct config *snapshot, const char *selector, bool by_name)
{
    return by_name ? strcmp(snapshot->name, selector) == 0 : guid_has_prefix(&snapshot->snapshot, selector);
}

static bool report_ambiguous(const struct tree *tree, const char *selector, bool by_name, struct err *err)
{
    char list[400] = "";
    size_t used = 0, shown = 0;

    for (size_t i = 0; i < tree->snapshot_count; i++) {
        const struct config *snapshot = tree->snapshots[i];
        if (!is_match(snapshot, selector, by_name) || ++shown > 8)
            continue;
        /* With the whole GUID of each: one of them is what the user will type next. */
        int length = by_name ? snprintf(list + used, sizeof list - used, "%s%s", used ? ", " : "",
                                        snapshot->snapshot.text)
                             : snprintf(list + used, sizeof list - used, "%s%.18s '%.16s'", used ? ", " : "",
                                        snapshot->snapshot.text, snapshot->name);
        used += (size_t)length < sizeof list - used ? (size_t)length : sizeof list - used - 1;
    }
    return err_set(err, ERR_AMBIGUOUS, "'%.40s' is %zu snapshots: %s%s", selector, shown, list,
                   shown > 8 ? ", ..." : "");
}

/* False only with *err set; *ret_snapshot NULL: none. */
static bool find_one(const struct tree *tree, const char *selector, bool by_name,
                     const struct config **ret_snapshot, struct err *err)
{
    const struct config *found = NULL;

    for (size_t i = 0; i < tree->snapshot_count; i++) {
        if (!is_match(tree->snapshots[i], selector, by_name))
            continue;
        if (found)
            return report_ambiguous(tree, selector, by_name, err);
        found = tree->snapshots[i];
    }
    *ret_snapshot = found;
    return true;
}

bool tree_find(const struct tree *tree, const char *selector, const struct config **ret_snapshot,
               struct err *err)
{
    const struct config *found = NULL;
    struct guid guid;

    if (guid_parse(selector, &guid))
        found = tree_by_guid(tree, &guid);
    if (!found && !find_one(tree, selector, /* by_name= */ true, &found, err))
        return false;
    if (!found && strlen(selector) >= 4 && !find_one(tree, selector, /* by_name= */ false, &found, err))
        return false;
    if (!found)
        return err_set(err, ERR_NOT_FOUND, "has no snapshot '%.120s'", selector);
    *ret_snapshot = found;
    return true;
}

bool tree_names_disk(const struct tree *tree, const char *path)
{
    return tree->disk_path_count > 0 &&
           bsearch(&path, tree->disk_paths, tree->disk_path_count, sizeof(char *), compare_paths);
}

/* The first in by_parent whose parent is not less. */
static size_t first_child(const struct tree *tree, const struct guid *guid)
{
    size_t low = 0, high = tree->snapshot_count;

    while (low < high) {
        size_t middle = low + (high - low) / 2;
        if (strcasecmp(tree->by_parent[middle]->parent.text, guid->text) < 0)
            low = middle + 1;
        else
            high = middle;
    }
    return low;
}

size_t tree_children(const struct tree *tree, const struct guid *guid, const struct config **children,
                     size_t max)
{
    size_t count = 0;

    for (size_t i = first_child(tree, guid); i < tree->snapshot_count; i++, count++) {
        if (!guid_equal(&tree->by_parent[i]->parent, guid))
            break;
        if (count < max)
            children[count] = tree->by_parent[i];
    }
    return count;
}

bool tree_has_dependants(const struct tree *tree, const struct guid *guid)
{
    return guid_equal(&tree->vm->parent, guid) || tree_children(tree, guid, NULL, 0) > 0;
}
