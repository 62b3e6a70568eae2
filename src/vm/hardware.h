/* A VM's hardware as the user writes it: values of `create` and `set`, checked and put into a config. */
#pragma once

#include "config.h"
#include "qmp.h"

/* A disk to add. `path` NULL: a new dynamic VHD of size_bytes, <VM>.vhd or <VM>_<n>.vhd in the VM's folder. */
struct hardware_disk {
    const char *path;
    uint64_t size_bytes;
    bool has_bus;
    enum config_bus bus;
};

/* {"size"?, "path"?, "bus"?} */
bool hardware_disk_from_json(const json_t *json, struct hardware_disk *ret_disk, struct err *err) MUST_CHECK;
/* "SIZE|FILE.vhd[,bus=ide|scsi|virtio]"; *ret_path is owned and what ret_disk->path points to, NULL for a size. */
bool hardware_disk_from_text(const char *text, struct hardware_disk *ret_disk, char **ret_path,
                             struct err *err) MUST_CHECK;
/* Adds it to the config at the first free place of its bus (generation 1: IDE, generation 2: SCSI by default). The image of a new disk is
 * only named. vm_dir: where it will lie. An existing image must open, and no other VM may write to it. */
bool hardware_disk_add(struct config *config, const char *vm_dir, const struct hardware_disk *disk,
                       struct err *err) MUST_CHECK;
/* path NULL or "": an empty drive. Replaces what the drive held, or adds a drive. */
bool hardware_cdrom_set(struct config *config, const char *path, struct err *err) MUST_CHECK;

/* {"kind", "target"?, "forwards"?} */
bool hardware_nic_add(struct config *config, const json_t *json, struct err *err) MUST_CHECK;

/* "none" takes all NICs away; "user[,forward=tcp:2222:22]...", "bridge=BR", "tap=IF" adds one. */
bool hardware_nics_set(struct config *config, const char *text, struct err *err) MUST_CHECK;

/* One `set` KEY=VALUE for the VM's settings; *ret_live: it is no hardware, so that it may change while the VM runs. ERR_INVALID names
 * the known keys. */
bool hardware_set(struct config *config, const char *key, const char *value, bool *ret_live,
                  struct err *err) MUST_CHECK;
