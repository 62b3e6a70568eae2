/* What lies under the disks of the VM and its snapshots. */
#include "store_private.h"

#include "name_list.h"
#include "vhd.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

static size_t slot_of(const struct chains *chains, uint64_t device, uint64_t inode)
{
    uint64_t hash = (inode ^ device << 32 ^ device >> 32) * 0x9E3779B97F4A7C15U;

    return (size_t)(hash >> 20) & (chains->slot_count - 1);
}

struct chain_file *chains_find(const struct chains *chains, uint64_t device, uint64_t inode)
{
    if (chains->slot_count == 0)
        return NULL;
    for (size_t slot = slot_of(chains, device, inode); chains->slots[slot] != 0;
         slot = (slot + 1) & (chains->slot_count - 1)) {
        struct chain_file *file = &chains->files[chains->slots[slot] - 1];
        if (file->device == device && file->inode == inode)
            return file;
    }
    return NULL;
}

static void slot_take(struct chains *chains, size_t index)
{
    const struct chain_file *file = &chains->files[index];
    size_t slot = slot_of(chains, file->device, file->inode);

    while (chains->slots[slot] != 0)
        slot = (slot + 1) & (chains->slot_count - 1);
    chains->slots[slot] = index + 1;
}

/* Room for one more, in both. */
static bool chains_grow(struct chains *chains, struct err *err)
{
    struct chain_file *files = reallocarray(chains->files, chains->count + 1, sizeof *files);

    if (!files)
        return err_oom(err);
    chains->files = files;
    if ((chains->count + 1) * 2 <= chains->slot_count)
        return true;
    size_t slot_count = chains->slot_count ? chains->slot_count * 2 : 64;
    size_t *slots = calloc(slot_count, sizeof *slots);
    if (!slots)
        return err_oom(err);
    free(chains->slots);
    chains->slots = slots;
    chains->slot_count = slot_count;
    for (size_t i = 0; i < chains->count; i++)
        slot_take(chains, i);
    return true;
}

static bool chain_add(struct chains *chains, const char *path, uint64_t device, uint64_t inode,
                      struct err *err)
{
    char *copy = strdup(path);

    if (!copy)
        return err_oom(err);
    if (!chains_grow(chains, err)) {
        free(copy);
        return false;
    }
    chains->files[chains->count] = (struct chain_file){.path = copy, .device = device, .inode = inode};
    slot_take(chains, chains->count++);
    return true;
}

void chains_done(struct chains *chains)
{
    for (size_t i = 0; i < chains->count; i++) {
        free(chains->files[i].path);
        free(chains->files[i].parent);
    }
    free(chains->files);
    free(chains->slots);
    free(chains->alias);
    *chains = (struct chains){0};
}

static bool note_alias(struct chains *chains, const struct chain_file *known, const char *path, struct err *err)
{
    if (chains->alias || strcmp(known->path, path) == 0)
        return true;
    chains->alias_of = (size_t)(known - chains->files);
    return (chains->alias = strdup(path)) || err_oom(err);
}

/* What the settings name goes first, so that it has the name that they know it by: a parent locator may reach
 * the same file by another path. */
static bool add_named(const struct io *io, const struct config *config, struct chains *chains,
                      struct err *err)
{
    for (size_t i = 0; i < config->disk_count; i++) {
        const struct config_disk *disk = &config->disks[i];
        struct io_stat stat;
        if (disk->is_cdrom)
            continue;
        if (!io_stat_path(io, disk->path, &stat, err))
            return false;
        const struct chain_file *known = chains_find(chains, stat.device, stat.inode);
        if (known ? !note_alias(chains, known, disk->path, err)
                  : !chain_add(chains, disk->path, stat.device, stat.inode, err))
            return false;
    }
    return true;
}

/* Is there no room in the file for a block? That it is empty is another matter; and one that a merge has emptied has kept its size. */
static bool may_be_empty(const struct vhd *image)
{
    return image->type == VHD_DIFFERENCING && image->file_bytes < vhd_bat_file_bytes(image) + image->block_bytes;
}

static bool note_image(struct chain_file *file, const struct vhd *image, struct err *err)
{
    struct io_stat stat;

    if (!io_stat_file(image->file, &stat, err))
        return false;
    file->is_followed = true;
    file->size_bytes = image->size_bytes;
    file->allocated_bytes = stat.allocated_bytes;
    file->is_linked = stat.links > 1;
    file->may_be_empty = may_be_empty(image);
    file->has_moved = image->footer.data_offset != VHD_FOOTER_BYTES;
    vhd_id_format(image->footer.id, file->id);
    return true;
}

/* The parent of image, which is files[index]; *ret_parent NULL: there is none, or it was followed before. */
static bool follow_one(struct chains *chains, size_t index, const struct vhd *image, struct vhd **ret_parent,
                       size_t *ret_index, struct err *err)
{
    AUTO_VHD struct vhd *parent = NULL;

    *ret_parent = NULL;
    if (!note_image(&chains->files[index], image, err))
        return false;
    if (image->type != VHD_DIFFERENCING)
        return true;
    if (!vhd_open_parent(image, &parent, err))
        return false;
    const struct chain_file *known = chains_find(chains, parent->device, parent->inode);
    if (!known && !chain_add(chains, parent->path, parent->device, parent->inode, err))
        return false;
    if (!known)
        known = &chains->files[chains->count - 1];
    chains->files[index].parent = strdup(known->path);
    if (!chains->files[index].parent)
        return err_oom(err);
    *ret_index = (size_t)(known - chains->files);
    if (!known->is_followed)
        *ret_parent = TAKE(parent);
    return true;
}

/* Up to a base, or to where an earlier walk has been: each image is opened once, and a circle of them ends
 * too. */
static bool follow(const struct io *io, struct chains *chains, size_t index, struct err *err)
{
    struct vhd *image;

    if (chains->files[index].is_followed)
        return true;
    if (!vhd_open(io, chains->files[index].path, IO_READ_ONLY, &image, err))
        return false;
    while (image) {
        struct vhd *parent = NULL;
        bool ok = follow_one(chains, index, image, &parent, &index, err);
        vhd_close(image);
        if (!ok)
            return false;
        image = parent;
    }
    return true;
}

bool chains_add(const struct io *io, const struct tree *tree, struct chains *chains, struct err *err)
{
    bool ok = add_named(io, tree->vm, chains, err);

    for (size_t i = 0; ok && i < tree->snapshot_count; i++)
        ok = add_named(io, tree->snapshots[i], chains, err);
    chains->named_count = chains->count;
    for (size_t i = 0; ok && i < chains->named_count; i++)
        ok = follow(io, chains, i, err);
    return ok;
}

/* --- of a folder --- */

#define FOLDERS_DEEP 2

static bool is_image_name(const char *name)
{
    const char *end = strrchr(name, '.');

    return end && (strcasecmp(end, ".avhd") == 0 || strcasecmp(end, ".vhd") == 0);
}

/* False: out of memory. */
static bool add_image(const struct io *io, const char *path, const struct io_stat *stat, struct chains *chains, struct err *err)
{
    const struct chain_file *known = chains_find(chains, stat->device, stat->inode);
    size_t index = known ? (size_t)(known - chains->files) : chains->count;

    return (known || chain_add(chains, path, stat->device, stat->inode, err)) &&
           (follow(io, chains, index, err) || err->code != ERR_NO_MEMORY);
}

static bool add_folder(const struct io *io, const char *dir, unsigned deep, struct chains *chains, struct err *err)
{
    AUTO_NAME_LIST struct name_list names = {0};
    bool ok = name_list_read(io, dir, &names, err) || err->code != ERR_NO_MEMORY;

    for (size_t i = 0; ok && i < names.count; i++) {
        AUTO_FREE char *path = path_join(dir, names.items[i]);
        struct io_stat stat;
        if (!path)
            return err_oom(err);
        if (io->ops->stat(io, path, &stat) != 0)
            continue;
        if (stat.is_directory)
            ok = deep == 0 || add_folder(io, path, deep - 1, chains, err);
        else if (stat.is_regular && is_image_name(path))
            ok = add_image(io, path, &stat, chains, err);
    }
    return ok;
}

bool chains_add_images(const struct io *io, const char *dir, struct chains *chains, struct err *err)
{
    return add_folder(io, dir, FOLDERS_DEEP, chains, err);
}

bool chains_read(const struct io *io, const struct tree *tree, struct chains *ret_chains, struct err *err)
{
    struct chains chains = {0};

    if (!chains_add(io, tree, &chains, err)) {
        chains_done(&chains);
        return false;
    }
    *ret_chains = chains;
    return true;
}

/* The seam follows links; where there is no such file on the host it is a test's. Most layers lie in the same folder. */
struct host {
    char *vm_dir;            /* owned, as the host knows it; NULL: not known */
    char *dir;               /* owned: the folder looked at last */
    bool dir_is_inside;
};

static void host_done(struct host *host)
{
    free(host->vm_dir);
    free(host->dir);
}

static bool dir_is_inside(struct host *host, const char *path)
{
    AUTO_FREE char *dir = path_dir(path);

    if (!dir || !host->vm_dir || (host->dir && strcmp(host->dir, dir) == 0))
        return host->dir_is_inside;
    AUTO_FREE char *real = realpath(dir, NULL);
    host->dir_is_inside = !real || strcmp(real, host->vm_dir) == 0 || path_is_inside(real, host->vm_dir);
    free(host->dir);
    host->dir = TAKE(dir);
    return host->dir_is_inside;
}

static bool is_elsewhere(struct host *host, const char *path)
{
    struct stat stat;

    return lstat(path, &stat) == 0 && (S_ISLNK(stat.st_mode) || !dir_is_inside(host, path));
}

void store_layers_free(struct plan_layer *layers, size_t count)
{
    for (size_t i = 0; layers && i < count; i++) {
        free((char *)layers[i].path);
        free((char *)layers[i].parent);
    }
    free(layers);
}

bool store_layers(struct store *store, struct plan_layer **ret_layers, size_t *ret_count, struct err *err)
{
    return store_tree_layers(store->io, store->tree, ret_layers, ret_count, err);
}

/* A plan knows images by their names: of one that has two it would change or remove what the other name needs. */
static bool check_alias(const struct chains *chains, struct err *err)
{
    return !chains->alias || err_set(err, ERR_STATE, "%s: is the same file as %s, and both names stand in settings", chains->alias,
                                     chains->files[chains->alias_of].path);
}

/* Ends chains. */
static bool layers_from(const char *vm_dir, struct chains *chains, struct plan_layer **ret_layers, size_t *ret_count,
                        struct err *err)
{
    struct plan_layer *layers = calloc(chains->count + 1, sizeof *layers);
    AUTO(host_done) struct host host = {.vm_dir = realpath(vm_dir, NULL), .dir_is_inside = true};

    if (!layers || !check_alias(chains, err)) {
        bool is_oom = !layers;
        free(layers);
        chains_done(chains);
        return is_oom && err_oom(err);
    }
    for (size_t i = 0; i < chains->count; i++) {
        struct chain_file *file = &chains->files[i];
        bool is_over = file->parent != NULL;
        layers[i] = (struct plan_layer){.path = TAKE(file->path),
                                        .parent = TAKE(file->parent),
                                        .size_bytes = file->size_bytes,
                                        .allocated_bytes = file->allocated_bytes,
                                        .is_linked = file->is_linked,
                                        .may_be_empty = file->may_be_empty || (is_over && i >= chains->named_count)};
        layers[i].is_elsewhere = is_elsewhere(&host, layers[i].path);
        memcpy(layers[i].id, file->id, sizeof layers[i].id);
    }
    *ret_layers = layers;
    *ret_count = chains->count;
    chains_done(chains);
    return true;
}

bool store_tree_layers(const struct io *io, const struct tree *tree, struct plan_layer **ret_layers,
                       size_t *ret_count, struct err *err)
{
    struct chains chains;

    return chains_read(io, tree, &chains, err) && layers_from(tree->vm_dir, &chains, ret_layers, ret_count, err);
}

bool store_chains_check(const struct io *io, const struct config *config, struct err *err)
{
    AUTO(chains_done) struct chains chains = {0};
    bool ok = add_named(io, config, &chains, err);

    for (size_t i = 0, named = chains.count; ok && i < named; i++)
        ok = follow(io, &chains, i, err);
    return ok;
}

/* By the name that the settings know it by; the VM's own disks are no snapshot's (tree_check_disks()). */
static bool snapshot_names(const struct tree *tree, const char *path)
{
    for (size_t i = 0; i < tree->vm->disk_count; i++)
        if (!tree->vm->disks[i].is_cdrom && strcmp(tree->vm->disks[i].path, path) == 0)
            return false;
    return tree_names_disk(tree, path);
}

/* One step down from each of the VM's tops. *ret_enough: what is there is a snapshot's, or there is nothing. */
static bool follow_tops(const struct store *store, struct chains *chains, bool *ret_enough, struct err *err)
{
    bool enough = true;

    if (!add_named(store->io, store->tree->vm, chains, err))
        return false;
    for (size_t i = 0, tops = chains->count; enough && i < tops; i++) {
        AUTO_VHD struct vhd *top = NULL;
        AUTO_VHD struct vhd *parent = NULL;
        size_t ignored;
        if (!vhd_open(store->io, chains->files[i].path, IO_READ_ONLY, &top, err) ||
            !follow_one(chains, i, top, &parent, &ignored, err))
            return false;
        enough = !chains->files[i].parent || snapshot_names(store->tree, chains->files[i].parent);
    }
    *ret_enough = enough;
    return true;
}

bool store_present_layers(struct store *store, struct plan_layer **ret_layers, size_t *ret_count, struct err *err)
{
    struct chains chains = {0};
    bool enough;

    if (!follow_tops(store, &chains, &enough, err)) {
        chains_done(&chains);
        return false;
    }
    if (enough)
        return layers_from(store->vm_dir, &chains, ret_layers, ret_count, err);
    chains_done(&chains);
    return store_layers(store, ret_layers, ret_count, err);
}
