/* The images of a damaged VM: what each is, what it says of its parent, and what of that can be put right. */
#include "repair.h"

#include "auto.h"
#include "bases.h"
#include "disk_check.h"
#include "file.h"
#include "name_list.h"

#include <stdlib.h>
#include <string.h>
#include <strings.h>

#define FOLDERS_DEEP 4

void repair_images_done(struct repair *repair)
{
    for (size_t i = 0; i < repair->image_count; i++)
        free(repair->images[i].path);
    free(repair->images);
    repair->images = NULL;
    repair->image_count = 0;
}

ptrdiff_t repair_image_at(const struct repair *repair, const char *path)
{
    for (size_t i = 0; i < repair->image_count; i++)
        if (strcmp(repair->images[i].path, path) == 0)
            return (ptrdiff_t)i;
    return -1;
}

static ptrdiff_t image_find(const struct repair *repair, uint64_t device, uint64_t inode)
{
    for (size_t i = 0; i < repair->image_count; i++)
        if (repair->images[i].device == device && repair->images[i].inode == inode)
            return (ptrdiff_t)i;
    return -1;
}

/* The only image of that id in the VM's folder. */
static ptrdiff_t image_with_id(const struct repair *repair, const char *id)
{
    ptrdiff_t found = -1;

    for (size_t i = 0; i < repair->image_count; i++) {
        if (!repair->images[i].is_inside || strcmp(repair->images[i].id, id) != 0)
            continue;
        if (found >= 0)
            return -1;
        found = (ptrdiff_t)i;
    }
    return found;
}

/* --- finding them --- */

static bool image_add(struct repair *repair, const struct vhd *vhd, ptrdiff_t *ret_index, struct err *err)
{
    ptrdiff_t known = image_find(repair, vhd->device, vhd->inode);

    *ret_index = known;
    if (known >= 0)
        return true;
    struct repair_image *grown = reallocarray(repair->images, repair->image_count + 1, sizeof *grown);
    if (!grown)
        return err_oom(err);
    repair->images = grown;
    struct repair_image image = {.path = strdup(vhd->path), .device = vhd->device, .inode = vhd->inode, .parent = -1};
    if (!image.path)
        return err_oom(err);
    vhd_id_format(vhd->footer.id, image.id);
    if (vhd->type == VHD_DIFFERENCING)
        vhd_id_format(vhd->header.parent_id, image.parent_id);
    image.is_inside = path_is_inside(image.path, repair->look->vm_dir);
    grown[repair->image_count] = image;
    *ret_index = (ptrdiff_t)repair->image_count++;
    return true;
}

bool repair_image_note(struct repair *repair, const char *path, const char *parent_path, struct err *err)
{
    struct repair_image *grown = reallocarray(repair->images, repair->image_count + 1, sizeof *grown);

    if (!grown)
        return err_oom(err);
    repair->images = grown;
    struct repair_image image = {.path = strdup(path), .is_inside = true, .has_link = true,
                                 .parent = repair_image_at(repair, parent_path)};
    if (!image.path)
        return err_oom(err);
    memcpy(image.parent_id, "new", sizeof "new");
    grown[repair->image_count++] = image;
    return true;
}

/* One that cannot be opened is left to the check. */
static bool image_look(struct repair *repair, const char *path, struct err *err)
{
    AUTO_VHD struct vhd *vhd = NULL;
    ptrdiff_t ignored;

    if (!vhd_open(&io_real, path, IO_READ_ONLY, &vhd, err))
        return repair_may_go_on(err);
    return image_add(repair, vhd, &ignored, err);
}

static bool has_end(const char *name, const char *end)
{
    size_t length = strlen(name), end_length = strlen(end);

    return length > end_length && strcasecmp(name + length - end_length, end) == 0;
}

static bool folder_look(struct repair *repair, const char *dir, unsigned deep, struct err *err);

static bool entry_look(struct repair *repair, const char *dir, const char *name, unsigned deep, struct err *err)
{
    AUTO_FREE char *path = path_join(dir, name);
    struct io_stat stat;

    if (!path)
        return err_oom(err);
    if (io_real.ops->stat(&io_real, path, &stat) != 0)
        return true;
    if (stat.is_directory)
        return deep == 0 || folder_look(repair, path, deep - 1, err);
    return !stat.is_regular || (!has_end(name, ".vhd") && !has_end(name, ".avhd")) || image_look(repair, path, err);
}

static bool folder_look(struct repair *repair, const char *dir, unsigned deep, struct err *err)
{
    AUTO_NAME_LIST struct name_list names = {0};
    bool ok = name_list_read(&io_real, dir, &names, err) || repair_may_go_on(err);

    for (size_t i = 0; ok && i < names.count; i++)
        ok = entry_look(repair, dir, names.items[i], deep, err);
    return ok;
}

static bool config_look(struct repair *repair, const struct config *config, struct err *err)
{
    for (size_t i = 0; i < config->disk_count; i++)
        if (!config->disks[i].is_cdrom && repair_image_at(repair, config->disks[i].path) < 0 &&
            !image_look(repair, config->disks[i].path, err))
            return false;
    return true;
}

static bool images_find(struct repair *repair, struct err *err)
{
    const struct store_look *look = repair->look;

    if (!folder_look(repair, look->vm_dir, FOLDERS_DEEP, err) || (look->vm && !config_look(repair, look->vm, err)))
        return false;
    for (size_t i = 0; i < look->snapshot_count; i++)
        if (!config_look(repair, look->snapshots[i], err))
            return false;
    return true;
}

/* --- one that was moved away from where a snapshot names it --- */

static bool config_names(const struct config *config, const char *path)
{
    for (size_t i = 0; config && i < config->disk_count; i++)
        if (!config->disks[i].is_cdrom && strcmp(config->disks[i].path, path) == 0)
            return true;
    return false;
}

static bool is_named(const struct repair *repair, const char *path)
{
    for (size_t i = 0; i < repair->look->snapshot_count; i++)
        if (config_names(repair->look->snapshots[i], path))
            return true;
    return config_names(repair->look->vm, path);
}

static bool move_back(struct repair *repair, const struct config_disk *disk, struct err *err)
{
    if (disk->is_cdrom || disk->image_id[0] == '\0' || !path_is_inside(disk->path, repair->look->vm_dir) ||
        io_exists(&io_real, disk->path))
        return true;
    ptrdiff_t index = image_with_id(repair, disk->image_id);
    if (index < 0 || is_named(repair, repair->images[index].path))
        return true;
    struct repair_image *image = &repair->images[index];
    char *path = strdup(disk->path);
    if (!path)
        return err_oom(err);
    if (!repair->options->dry_run && (!io_rename(&io_real, image->path, path, err) || !repair_sync_dir_of(path, err) ||
                                      !repair_sync_dir_of(image->path, err))) {
        free(path);
        return repair_may_go_on(err);
    }
    repair_tell(repair, path, "was moved back from %s: it has the unique id that the snapshot names", image->path);
    free(image->path);
    image->path = path;
    image->is_moved = true;
    return true;
}

static bool images_move_back(struct repair *repair, struct err *err)
{
    for (size_t i = 0; i < repair->look->snapshot_count; i++)
        for (size_t j = 0; j < repair->look->snapshots[i]->disk_count; j++)
            if (!move_back(repair, &repair->look->snapshots[i]->disks[j], err))
                return false;
    return true;
}

/* --- footers --- */

struct footer_search {
    struct repair *repair;
    const char *path;
    bool copy_differs;
};

static void footer_found(void *context, const struct disk_fault *fault)
{
    ((struct footer_search *)context)->copy_differs |= fault->kind == DISK_FAULT_COPY;
}

static void footer_repaired(void *context, const char *text)
{
    const struct footer_search *search = context;

    repair_tell(search->repair, search->path, "%s", text);
}

static void fault_ignored(void *context, const struct disk_fault *fault)
{
    (void)context; /* the check behind the repair tells of all that is left */
    (void)fault;
}

/* What we change ourselves is not to look like somebody else's change. */
static bool is_as_noted(const struct repair *repair, const struct repair_image *image)
{
    const struct config_base *noted = repair->look->vm ? config_base_find(repair->look->vm, image->path) : NULL;
    struct config_base now;
    struct err ignored;

    return noted && base_read(image->path, &now, &ignored) && base_is_as_noted(noted, &now, repair->look->vm_dir);
}

static bool footers_repair(struct repair *repair, struct repair_image *image, struct err *err)
{
    struct footer_search search = {.repair = repair, .path = image->path};
    AUTO_VHD struct vhd *vhd = NULL;

    if (!image->is_inside || (image->is_moved && repair->options->dry_run))
        return true;
    if (!vhd_open(&io_real, image->path, IO_READ_ONLY, &vhd, err) ||
        !disk_check_image(vhd, /* structures_only= */ true, footer_found, &search, NULL, err))
        return repair_may_go_on(err);
    if (!vhd->needs_repair && !search.copy_differs)
        return true;
    if (repair->options->dry_run) {
        repair_tell(repair, image->path, "%s", vhd->needs_repair ? "the footer at the end is written again from its copy at the start"
                                                : "the copy of the footer at the start is written again from the end's");
        return true;
    }
    image->is_renewed = is_as_noted(repair, image);
    return disk_repair(&io_real, image->path, footer_repaired, fault_ignored, &search, repair->progress, err) ||
           repair_may_go_on(err);
}

/* --- parents --- */

static bool link_find(struct repair *repair, size_t index, struct err *err)
{
    AUTO_VHD struct vhd *vhd = NULL;
    AUTO_VHD struct vhd *parent = NULL;
    ptrdiff_t parent_index;

    if (repair->images[index].parent_id[0] == '\0')
        return true;
    if (vhd_open(&io_real, repair->images[index].path, IO_READ_ONLY, &vhd, err) && vhd_open_parent(vhd, &parent, err)) {
        if (!image_add(repair, parent, &parent_index, err))
            return false;
        repair->images[index].parent = parent_index;
        repair->images[index].has_link = true;
        return true;
    }
    if (!repair_may_go_on(err))
        return false;
    repair->images[index].parent = image_with_id(repair, repair->images[index].parent_id);
    return true;
}

/* Its parent first: the chain below must be whole. Nothing is done in a circle. */
static bool reconnect(struct repair *repair, size_t index, struct err *err)
{
    struct repair_image *image = &repair->images[index];

    if (image->is_seen || image->parent < 0)
        return true;
    image->is_seen = true;
    if (!reconnect(repair, (size_t)image->parent, err))
        return false;
    const struct repair_image *parent = &repair->images[image->parent];
    if (image->has_link || !image->is_inside || image->parent == (ptrdiff_t)index || (parent->is_moved && repair->options->dry_run))
        return true;
    image->is_renewed |= !repair->options->dry_run && is_as_noted(repair, image);
    if (!repair->options->dry_run && !disk_reconnect(&io_real, image->path, parent->path, /* force= */ false, err))
        return repair_may_go_on(err);
    repair_tell(repair, image->path, "is told where its parent is now: %s has the unique id that it names", parent->path);
    image->has_link = true;
    return true;
}

bool repair_images(struct repair *repair, struct err *err)
{
    if (!images_find(repair, err) || !images_move_back(repair, err))
        return false;
    for (size_t i = 0; i < repair->image_count; i++)
        if (!footers_repair(repair, &repair->images[i], err))
            return false;
    for (size_t i = 0; i < repair->image_count; i++) /* it grows */
        if (!link_find(repair, i, err))
            return false;
    for (size_t i = 0; i < repair->image_count; i++)
        if (!reconnect(repair, i, err))
            return false;
    return true;
}
