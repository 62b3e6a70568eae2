/* What the other VMs of this home need of ours.
 *
 * A VM that can be read as a whole tells its chains. One that cannot may be repaired later (`check --repair`): there every image
 * in its folder, and every disk that its readable settings name, is followed as far as its parents can be opened. One whose own file is
 * lost is a folder like any other: of all folders of the home the images are looked at. */
#include "vm_priv.h"

#include "auto.h"
#include "file.h"
#include "store_look.h"
#include "vhd.h"

#include <errno.h>
#include <string.h>
#include <strings.h>

#define FOLLOW_MAX DISK_DEFAULT_MAX_DEPTH

struct images {
    const struct plan_layer *layers; /* ours */
    size_t layer_count;
    const char *name, *dir; /* of the other VM */
    struct err *err;        /* is set when one of ours is found */
};

static bool is_ours(const struct images *images, uint64_t device, uint64_t inode)
{
    struct io_stat stat;

    for (size_t i = 0; i < images->layer_count; i++)
        if (io_real.ops->stat(&io_real, images->layers[i].path, &stat) == 0 && stat.device == device && stat.inode == inode)
            return true;
    return false;
}

static bool is_needed(const struct images *images, const char *path)
{
    return err_set(images->err, ERR_BUSY, "%s: the VM '%s' needs it", path, images->name);
}

/* From the image at path downward. What cannot be opened ends it: that VM does not get there either. */
static bool chain_leaves(const struct images *images, const char *path)
{
    AUTO_VHD struct vhd *image = NULL;
    struct err ignored;

    if (!vhd_open(&io_real, path, IO_READ_ONLY, &image, &ignored))
        return true;
    for (unsigned depth = 0; depth < FOLLOW_MAX; depth++) {
        if (!path_is_inside(image->path, images->dir) && is_ours(images, image->device, image->inode))
            return is_needed(images, image->path);
        AUTO_VHD struct vhd *parent = NULL;
        if (image->type != VHD_DIFFERENCING || !vhd_open_parent(image, &parent, &ignored))
            return true;
        vhd_close(image);
        image = TAKE(parent);
        if (depth == 0 && path_is_inside(image->path, images->dir))
            return true; /* has a turn of its own */
    }
    return true;
}

static int image_leaves(void *context, const char *path)
{
    const struct images *images = context;
    const char *end = strrchr(path, '.');

    if (!end || (strcasecmp(end, ".avhd") != 0 && strcasecmp(end, ".vhd") != 0))
        return 0;
    return chain_leaves(images, path) ? 0 : EBUSY;
}

struct folder {
    const struct images *images;
    const char *path;
    unsigned deep; /* folders below that are looked into */
};

static int folder_leaves(void *context, const char *name)
{
    const struct folder *folder = context;
    AUTO_FREE char *path = path_join(folder->path, name);
    struct io_stat stat;
    struct err ignored;

    if (!path)
        return ENOMEM;
    if (io_real.ops->stat(&io_real, path, &stat) != 0)
        return 0;
    if (!stat.is_directory)
        return stat.is_regular ? image_leaves((void *)folder->images, path) : 0;
    struct folder below = {.images = folder->images, .path = path, .deep = folder->deep - 1};
    if (folder->deep > 0 && !io_list(&io_real, path, folder_leaves, &below, &ignored) &&
        folder->images->err->code == ERR_BUSY)
        return EBUSY;
    return 0;
}

static bool disks_leave(const struct images *images, const struct config *config)
{
    for (size_t i = 0; config && i < config->disk_count; i++)
        if (!config->disks[i].is_cdrom && !chain_leaves(images, config->disks[i].path))
            return false;
    return true;
}

static void fault_ignored(void *context, const struct store_fault *fault)
{
    (void)context;
    (void)fault;
}

/* *ret_failure: why some of them could not be looked at. */
static bool images_leave(const struct images *images, struct err *ret_failure)
{
    struct folder folder = {.images = images, .path = images->dir, .deep = 2};

    *images->err = ERR_INIT;
    return io_list(&io_real, images->dir, folder_leaves, &folder, ret_failure) || images->err->code != ERR_BUSY;
}

static bool damaged_leaves(const struct images *images)
{
    AUTO_STORE_LOOK struct store_look *look = NULL;
    struct err failure = ERR_INIT;

    if (!images_leave(images, &failure))
        return false;
    if (failure.code != ERR_NONE || !store_look_open(&io_real, images->dir, "look", fault_ignored, NULL, &look, &failure))
        return err_set(images->err, ERR_STATE, "it is not known what the VM '%s' needs: %s", images->name, failure.text);
    for (size_t i = 0; i < look->snapshot_count; i++)
        if (!disks_leave(images, look->snapshots[i]))
            return false;
    return disks_leave(images, look->vm);
}

/* Of a folder without a VM's file: one whose VM was lost, one that is no VM's, or one that was just removed. */
static bool folder_spares(struct images *images)
{
    AUTO_FREE char *dir = NULL;
    struct err failure = ERR_INIT;

    if (!store_find_damaged(&io_real, images->name, &dir, &failure))
        return images_leave(images, &failure);
    return damaged_leaves(images);
}

static bool needed_by(const char *home, const char *name, const struct plan_layer *layers, size_t layer_count, struct err *err)
{
    AUTO_FREE char *dir = path_join(home, name);
    AUTO_FREE char *found = NULL;
    AUTO_TREE struct tree *tree = NULL;
    struct plan_layer *theirs;
    size_t their_count;
    struct io_stat stat;
    bool is_free = true;

    if (!dir)
        return err_oom(err);
    struct images images = {.layers = layers, .layer_count = layer_count, .name = name, .dir = dir, .err = err};
    if (!store_find(&io_real, name, &found, err))
        return folder_spares(&images);
    if (!store_read(&io_real, dir, &tree, err) || !store_tree_layers(&io_real, tree, &theirs, &their_count, err))
        return damaged_leaves(&images);
    for (size_t i = 0; i < their_count && is_free; i++)
        if (!path_is_inside(theirs[i].path, dir) && io_real.ops->stat(&io_real, theirs[i].path, &stat) == 0 &&
            is_ours(&images, stat.device, stat.inode))
            is_free = is_needed(&images, theirs[i].path);
    store_layers_free(theirs, their_count);
    return is_free;
}

bool vm_others_spare(const char *vm_dir, const struct plan_layer *layers, size_t count, struct err *err)
{
    AUTO_FREE char *home = NULL;
    char **names;
    bool is_free = true;

    if (count == 0)
        return true;
    if (!store_home(&home, err) || !store_list_folders(&io_real, &names, err))
        return false;
    for (size_t i = 0; names[i] && is_free; i++)
        is_free = strcmp(names[i], path_base(vm_dir)) == 0 || needed_by(home, names[i], layers, count, err);
    store_list_free(names);
    return is_free;
}

bool vm_others_spare_inside(const char *vm_dir, struct plan_layer *layers, size_t count, struct err *err)
{
    size_t inside = 0;

    for (size_t i = 0; i < count; i++) { /* those that are in the folder come first */
        struct plan_layer layer = layers[i];
        if (!path_is_inside(layer.path, vm_dir))
            continue;
        layers[i] = layers[inside];
        layers[inside++] = layer;
    }
    return vm_others_spare(vm_dir, layers, inside, err);
}

bool vm_others_spare_all(struct vm *vm, struct err *err)
{
    struct plan_layer *layers;
    size_t count;

    if (!store_layers(vm->store, &layers, &count, err))
        return false;
    bool is_free = vm_others_spare_inside(vm->dir, layers, count, err);
    store_layers_free(layers, count);
    return is_free;
}
