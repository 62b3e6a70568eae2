#include "disk_id.h"

#include "disk.h"

#include <string.h>

bool disk_id_check(const struct config_disk *disk, struct err *err)
{
    AUTO_VHD struct vhd *image = NULL;
    char found[2 * VHD_ID_SIZE + 1];

    if (disk->is_cdrom || disk->image_id[0] == '\0')
        return true;
    if (!vhd_open(&io_real, disk->path, IO_READ_ONLY, &image, err))
        return false;
    return strcmp(vhd_id_format(image->footer.id, found), disk->image_id) == 0 ||
           err_set(err, ERR_MISMATCH, "%s: has the unique id %s, the snapshot was taken of one with %s", disk->path, found,
                   disk->image_id);
}

bool disk_ids_check(const struct config *config, struct err *err)
{
    for (size_t i = 0; i < config->disk_count; i++)
        if (!disk_id_check(&config->disks[i], err))
            return false;
    return true;
}

bool disk_chains_check(const struct config *config, struct err *err)
{
    struct disk_options options = {.io = &io_real, .writable = false};

    for (size_t i = 0; i < config->disk_count; i++) {
        AUTO_DISK struct disk *disk = NULL;
        if (!config->disks[i].is_cdrom && !disk_open(config->disks[i].path, &options, &disk, err))
            return false;
    }
    return true;
}
