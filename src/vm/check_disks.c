/* The images of a VM's chains, each looked at once. */
#include "check.h"

#include "auto.h"
#include "disk_check.h"
#include "disk_id.h"
#include "file.h"
#include "runtime.h"

#include <stdlib.h>
#include <string.h>

static struct check_image *image_find(struct check *check, uint64_t device, uint64_t inode)
{
    for (size_t i = check->image_count; i-- > 0;)
        if (check->images[i].device == device && check->images[i].inode == inode)
            return &check->images[i];
    return NULL;
}

bool check_holds(void *context, uint64_t device, uint64_t inode)
{
    return image_find(context, device, inode) != NULL;
}

/* On a file of its own, so that nobody finds the image locked by us while we read it. */
static bool is_written(const char *path)
{
    struct io_file *file;
    struct err err;

    if (!io_open(&io_real, path, IO_READ_ONLY, &file, &err))
        return false;
    bool busy = !io_lock(file, IO_LOCK_SHARE, &err) && err.code == ERR_BUSY;
    io_close(file);
    return busy;
}

static bool image_add(struct check *check, const struct vhd *vhd, struct err *err)
{
    struct check_image *grown = reallocarray(check->images, check->image_count + 1, sizeof *grown);
    struct io_stat stat;

    if (!grown)
        return err_oom(err);
    check->images = grown;
    char *path = strdup(vhd->path);
    if (!path)
        return err_oom(err);
    uint64_t allocated = io_stat_path(&io_real, path, &stat, err) ? stat.allocated_bytes : 0;
    grown[check->image_count++] = (struct check_image){.path = path, .device = vhd->device, .inode = vhd->inode,
                                                       .allocated_bytes = allocated, .walk = check->walks,
                                                       .is_written = is_written(path)};
    return true;
}

/* The parent of child; *ret_parent NULL: it has none, or it was told that there is no way to it. */
static bool parent_open(struct check *check, const struct vhd *child, struct vhd **ret_parent, struct err *err)
{
    *ret_parent = NULL;
    if (child->type != VHD_DIFFERENCING)
        return true;
    if (!vhd_open_parent(child, ret_parent, err)) {
        *ret_parent = NULL;
        check->chains_are_broken = true;
        return check_tell_err(check, "disk", child->path, err);
    }
    uint32_t stamp = child->header.parent_timestamp;
    if (stamp != 0 && stamp != (uint32_t)((*ret_parent)->mtime_seconds - VHD_EPOCH))
        check_tell(check, "disk", true, child->path, "the parent's time stamp is not the one in the header");
    return true;
}

/* Takes image: a top, or the parent of one that was added. *ret_parent: where to go on; NULL: nowhere. */
static bool follow_one(struct check *check, struct vhd *taken, const char *child_path, struct vhd **ret_parent, struct err *err)
{
    AUTO_VHD struct vhd *image = taken;
    const struct check_image *known = image_find(check, image->device, image->inode);

    *ret_parent = NULL;
    if (known && known->walk == check->walks)
        check_tell(check, "disk", false, child_path, "its parent is itself, or one of its children: the chain is a circle");
    if (known)
        return true;
    return image_add(check, image, err) && parent_open(check, image, ret_parent, err);
}

static bool chain_follow(struct check *check, const char *path, struct err *err)
{
    AUTO_FREE char *child_path = strdup(path);
    struct vhd *image;

    if (!child_path)
        return err_oom(err);
    check->walks++;
    if (!vhd_open(&io_real, path, IO_READ_ONLY, &image, err)) {
        check->chains_are_broken = true;
        return check_tell_err(check, "disk", path, err);
    }
    while (image) {
        struct vhd *parent;
        char *image_path = strdup(image->path);
        bool ok = follow_one(check, image, child_path, &parent, err);
        free(child_path);
        child_path = image_path;
        if (!ok)
            return false;
        image = parent;
    }
    return true;
}

/* What a killed worker had answered, as any other command would before it reads the disk. */
static bool settle(struct check *check, const char *path, struct err *err)
{
    AUTO_FREE char *log_dir = NULL;
    struct err ignored;

    if (!check->look->is_alone || !runtime_dirty_dir(&log_dir, &ignored) || disk_settle(&io_real, log_dir, path, err))
        return true;
    return check_tell_err(check, "disk", path, err);
}

bool check_chains(struct check *check, const struct config *config, struct err *err)
{
    for (size_t i = 0; i < config->disk_count; i++) {
        const struct config_disk *disk = &config->disks[i];
        if (disk->is_cdrom) {
            if (disk->path && !io_exists(&io_real, disk->path))
                check_tell(check, "medium", false, disk->path, "is not there: no VM starts with this drive");
            continue;
        }
        struct err finding;
        if (!disk_id_check(disk, &finding) && finding.code == ERR_MISMATCH)
            check_tell(check, "disk", false, disk->path, finding.text);
        if ((!config->is_snapshot && !settle(check, disk->path, err)) || !chain_follow(check, disk->path, err))
            return false;
    }
    return true;
}

static void remember(void *context, const struct disk_fault *fault)
{
    check_tell(context, "disk", fault->harmless, fault->path, fault->text);
}

bool check_images(struct check *check, struct err *err)
{
    for (size_t i = 0; i < check->image_count; i++) {
        const struct check_image *image = &check->images[i];
        AUTO_VHD struct vhd *vhd = NULL;
        const struct progress progress = check_progress(check);
        check->item_bytes = image->allocated_bytes;
        if (!image->is_written && (!vhd_open(&io_real, image->path, IO_READ_ONLY, &vhd, err) ||
                                   !disk_check_image(vhd, /* structures_only= */ false, remember, check, &progress, err)) &&
            !check_tell_err(check, "disk", image->path, err))
            return false;
        check->done_bytes += image->allocated_bytes;
    }
    return true;
}
