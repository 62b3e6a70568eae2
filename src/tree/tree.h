/* The snapshot tree of one VM, as a value. Pure: no I/O. */
#pragma once

#include "config.h"

struct tree {
    char *vm_dir; /* absolute, clean */
    struct config *vm;
    struct config **snapshots; /* the listed ones, by creation time, then GUID */
    size_t snapshot_count;
    const struct config **by_guid; /* the same, by GUID: for tree_by_guid() */
    const struct config **by_parent; /* the same, by parent, then creation: for tree_children() */
    const char **disk_paths;         /* the images of hard disks that the VM or a snapshot names, sorted: for tree_names_disk() */
    size_t disk_path_count;
};

void tree_free(struct tree *tree); /* accepts NULL */
AUTO_DEFINE(auto_tree_free, struct tree, tree_free)
#define AUTO_TREE AUTO(auto_tree_free)

/* Takes vm and the snapshots (an allocated array of snapshot_count owned configs, in any order; the array
 * too). Checks that list and snapshots agree, that parents are listed, that no cycle exists, and that no
 * snapshot names a disk that the VM writes (ERR_CORRUPT); sets each snapshot's parent from the list, sorts.
 * On failure the caller still owns all. */
bool tree_new(const char *vm_dir, struct config *vm, struct config **snapshots, size_t snapshot_count,
              struct tree **ret_tree, struct err *err) MUST_CHECK;

/* The tree as it will be with these settings and one more snapshot, listed in vm. Borrows everything, checks nothing. */
bool tree_with(const struct tree *tree, struct config *vm, struct config *snapshot, struct tree *ret_later,
               struct err *err) MUST_CHECK;
void tree_with_done(struct tree *later);

/* ERR_CORRUPT if a disk that the VM would write by these settings belongs to a listed snapshot: a guest that wrote to a sealed layer
 * would change the point in time. */
bool tree_check_disks(const struct tree *tree, const struct config *vm, struct err *err) MUST_CHECK;

/* By GUID, by a unique prefix of it of 4 characters or more, or by a name if unique. A full GUID wins, then
 * an exact name, then a prefix. ERR_NOT_FOUND; ERR_AMBIGUOUS lists the candidates (name and GUID, at most 8).
 */
bool tree_find(const struct tree *tree, const char *selector, const struct config **ret_snapshot,
               struct err *err) MUST_CHECK;
const struct config *tree_by_guid(const struct tree *tree, const struct guid *guid); /* NULL if not listed */
/* Children of the snapshot (unset guid: the roots) in order of creation; returns the count, fills at most
 * max. */
size_t tree_children(const struct tree *tree, const struct guid *guid, const struct config **children,
                     size_t max);
/* Do the settings of the VM or of a listed snapshot name this image as a hard disk's? Not by way of a parent link. */
bool tree_names_disk(const struct tree *tree, const char *path);
/* Does some listed snapshot or the VM descend directly from it? */
bool tree_has_dependants(const struct tree *tree, const struct guid *guid);

/* --- the names of files (owned strings, NULL when out of memory) --- */
char *tree_vm_xml_path(const struct tree *tree);
char *tree_vm_state_dir(const struct tree *tree);  /* Virtual Machines/VMGUID */
char *tree_snapshots_dir(const struct tree *tree); /* Snapshots */
char *tree_layers_dir(const struct tree *tree);    /* Snapshots/VMGUID */
char *tree_snapshot_xml_path(const struct tree *tree, const struct guid *snapshot);
char *tree_snapshot_dir(const struct tree *tree, const struct guid *snapshot); /* Snapshots/SNAPGUID */
/* <dir>/<GUID><suffix>, suffix ".bin", ".vsv", ".nvram", ".png" */
char *tree_state_path(const char *dir, const struct guid *guid, const char *suffix);
/* Snapshots/<VMGUID>/<stem>_<GUID>.avhd: stem is that of the image that it goes over, without an earlier
 * GUID. */
char *tree_layer_path(const struct tree *tree, const char *parent, const struct guid *guid);
/* May both lie over the same base, by their names? */
bool tree_same_stem(const char *path, const char *other);
/* Is it in the layers' folder under a name that tree_layer_path() gives? Nothing else is ever removed as a
 * layer. */
bool tree_is_layer(const struct tree *tree, const char *path);
