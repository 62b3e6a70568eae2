/* A VM with many snapshots, for bench/scale:
 *
 *   scale_make VM_FOLDER COUNT
 *
 * The VM has one hard disk and no snapshot yet, and is off. It gets COUNT snapshots taken off, with the files that `bough snapshot` and
 * `bough apply` would have made: a trunk of half of them, at most 500, and fans of up to 200 on places of the trunk; each but the first
 * has an empty image of its own. The VM then descends from the end of the trunk. */
#include "auto.h"
#include "bytes.h"
#include "file.h"
#include "store.h"
#include "vhd.h"

#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#define TRUNK_MAX 500U
#define FAN_MAX   200U
#define COUNT_MAX 1000000U

struct forest {
    const struct io *io;
    struct tree *tree; /* as it was */
    struct config *vm; /* as it will be */
    char **disks;      /* the image of each snapshot */
    size_t count;
};

/* Nothing made here has to outlive a crash: one sync at the end serves for all. */
static int sync_later(struct io_file *file)
{
    (void)file;
    return 0;
}

static int sync_dir_later(const struct io *io, const char *path)
{
    (void)io;
    (void)path;
    return 0;
}

/* The number of the snapshot that this one descends from. */
static size_t parent_of(size_t index, size_t count)
{
    size_t trunk = count / 2 < TRUNK_MAX ? (count + 1) / 2 : TRUNK_MAX;
    size_t fans = (count - trunk + FAN_MAX - 1) / FAN_MAX;

    if (index < trunk)
        return index - 1;
    return (index - trunk) % fans * trunk / fans;
}

static bool config_put(const struct forest *forest, const char *path, const struct config *config, struct err *err)
{
    AUTO_FREE char *xml = NULL;
    size_t length;
    bool renamed;

    return config_format(config, forest->tree->vm_dir, &xml, &length, err) &&
           file_replace(forest->io, path, xml, length, &renamed, err);
}

static bool layer_make(const struct forest *forest, const char *parent, char **ret_path, struct err *err)
{
    struct guid guid = guid_new();
    struct vhd_create_options options = {.type = VHD_DIFFERENCING, .parent_path = parent};
    AUTO_FREE char *path = tree_layer_path(forest->tree, parent, &guid);

    if (!path)
        return err_oom(err);
    if (!vhd_create(forest->io, path, &options, err))
        return false;
    *ret_path = TAKE(path);
    return true;
}

/* The snapshot's settings: the VM's, with the image and its id. */
static struct config *snapshot_config(const struct forest *forest, size_t index, struct err *err)
{
    AUTO_CONFIG struct config *config = config_copy(forest->tree->vm);
    AUTO_VHD struct vhd *image = NULL;
    char name[32];

    snprintf(name, sizeof name, "snapshot %zu", index);
    if (!config || !config_set_string(&config->name, name, err) ||
        !config_set_string(&config->disks[0].path, forest->disks[index], err) ||
        !vhd_open(forest->io, forest->disks[index], IO_READ_ONLY, &image, err))
        return NULL;
    vhd_id_format(image->footer.id, config->disks[0].image_id);
    config->is_snapshot = true;
    config->is_scheduled = index % 2 == 1;
    config->snapshot = guid_new();
    config->created_ms = 1600000000000 + (int64_t)index * 1800000;
    if (index > 0)
        config->parent = forest->vm->listed[parent_of(index, forest->count)].guid;
    return TAKE(config);
}

static bool snapshot_make(struct forest *forest, size_t index, struct err *err)
{
    if (index == 0)
        forest->disks[0] = strdup(forest->tree->vm->disks[0].path);
    else if (!layer_make(forest, forest->disks[parent_of(index, forest->count)], &forest->disks[index], err))
        return false;
    if (!forest->disks[index])
        return err_oom(err);
    AUTO_CONFIG struct config *config = snapshot_config(forest, index, err);
    if (!config)
        return false;
    AUTO_FREE char *dir = tree_snapshot_dir(forest->tree, &config->snapshot);
    AUTO_FREE char *path = tree_snapshot_xml_path(forest->tree, &config->snapshot);
    struct config_listed listed = {.guid = config->snapshot, .parent = config->parent};
    if (!dir || !path)
        return err_oom(err);
    return io_make_dir(forest->io, dir, err) && config_put(forest, path, config, err) &&
           config_add_listed(forest->vm, &listed, err);
}

static bool forest_make(struct forest *forest, struct err *err)
{
    AUTO_FREE char *layers_dir = tree_layers_dir(forest->tree);
    AUTO_FREE char *xml = tree_vm_xml_path(forest->tree);
    size_t last = (forest->count / 2 < TRUNK_MAX ? (forest->count + 1) / 2 : TRUNK_MAX) - 1;
    char *top;

    if (!layers_dir || !xml)
        return err_oom(err);
    if (!io_make_dir(forest->io, layers_dir, err))
        return false;
    for (size_t i = 0; i < forest->count; i++)
        if (!snapshot_make(forest, i, err))
            return false;
    if (!layer_make(forest, forest->disks[last], &top, err))
        return false;
    free(forest->vm->disks[0].path);
    forest->vm->disks[0].path = top;
    forest->vm->parent = forest->vm->listed[last].guid;
    return config_put(forest, xml, forest->vm, err);
}

static bool run(const char *vm_dir, size_t count, struct err *err)
{
    struct io_ops ops = *io_real.ops;
    struct io io = {.ops = &ops};
    AUTO_TREE struct tree *tree = NULL;

    ops.sync = sync_later;
    ops.sync_dir = sync_dir_later;
    if (!store_read(&io, vm_dir, &tree, err))
        return false;
    if (tree->vm->disk_count != 1 || tree->vm->disks[0].is_cdrom || tree->snapshot_count > 0)
        return err_set(err, ERR_USAGE, "%s: one hard disk and no snapshot are needed", vm_dir);
    AUTO_CONFIG struct config *vm = config_copy(tree->vm);
    struct forest forest = {.io = &io, .tree = tree, .vm = vm, .count = count, .disks = calloc(count, sizeof(char *))};
    bool ok = vm && forest.disks ? forest_make(&forest, err) : err_oom(err);
    for (size_t i = 0; forest.disks && i < count; i++)
        free(forest.disks[i]);
    free(forest.disks);
    sync();
    return ok;
}

int main(int argc, char **argv)
{
    unsigned long count = argc == 3 ? strtoul(argv[2], NULL, 10) : 0;
    struct err err;

    if (count < 1 || count > COUNT_MAX) {
        fprintf(stderr, "usage: scale_make VM_FOLDER COUNT\n");
        return err_exit_status(ERR_USAGE);
    }
    if (run(argv[1], count, &err))
        return 0;
    fprintf(stderr, "scale_make: %s\n", err.text);
    return err_exit_status(err.code);
}
