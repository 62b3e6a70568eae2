#include "hardware.h"

#include "args.h"
#include "auto.h"
#include "bytes.h"
#include "disk.h"
#include "file.h"
#include "machine.h"
#include "store.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

bool hardware_disk_from_json(const json_t *json, struct hardware_disk *ret_disk, struct err *err)
{
    static const char *const KNOWN[] = {"size", "path", "bus", NULL};
    struct hardware_disk disk = {0};
    const char *bus = NULL;

    if (!args_known(json, KNOWN, err) || !args_uint(json, "size", VHD_MAX_SIZE_BYTES, &disk.size_bytes, err) ||
        !args_string(json, "path", &disk.path, err) || !args_string(json, "bus", &bus, err))
        return err_prefix(err, "disk");
    if (bus && !config_bus_parse(bus, &disk.bus))
        return err_set(err, ERR_INVALID, "disk: unknown bus '%.40s' (ide, scsi, virtio)", bus);
    if (!disk.path == !disk.size_bytes)
        return err_set(err, ERR_INVALID, "disk: either a size or an image");
    disk.has_bus = bus != NULL;
    *ret_disk = disk;
    return true;
}

bool hardware_disk_from_text(const char *text, struct hardware_disk *ret_disk, char **ret_path, struct err *err)
{
    static const char OPTION[] = ",bus=";
    const char *option = strstr(text, OPTION);
    struct hardware_disk disk = {0};

    if (option && !config_bus_parse(option + strlen(OPTION), &disk.bus))
        return err_set(err, ERR_INVALID, "disk: unknown bus '%.40s' (ide, scsi, virtio)", option + strlen(OPTION));
    disk.has_bus = option != NULL;
    AUTO_FREE char *what = option ? strndup(text, (size_t)(option - text)) : strdup(text);
    if (!what)
        return err_oom(err);
    char *path = NULL;
    if (!size_parse(what, &disk.size_bytes)) {
        disk.size_bytes = 0;
        if (*what == '\0' || !(path = path_absolute(what)))
            return err_set(err, ERR_INVALID, "disk: '%.200s' is neither a size nor a file", text);
    }
    disk.path = path;
    *ret_disk = disk;
    *ret_path = path;
    return true;
}

static bool slot_find(const struct config *config, enum config_bus bus, unsigned *ret_slot, struct err *err)
{
    for (unsigned slot = 0; slot < config_bus_slots(bus); slot++) {
        bool taken = false;
        for (size_t i = 0; i < config->disk_count; i++)
            taken |= config->disks[i].bus == bus && config->disks[i].slot == slot;
        if (!taken) {
            *ret_slot = slot;
            return true;
        }
    }
    return err_set(err, ERR_INVALID, "disk: all %u places on the bus %s are taken", config_bus_slots(bus),
                   config_bus_name(bus));
}

static bool is_image(const char *path, const struct io_stat *image)
{
    struct io_stat other;
    struct err ignored;

    return path && io_stat_path(&io_real, path, &other, &ignored) && other.device == image->device &&
           other.inode == image->inode;
}

/* Is the image part of any chain of the VM and its snapshots? */
static bool tree_has_image(const struct tree *tree, const struct io_stat *image, bool *ret_has, struct err *err)
{
    struct plan_layer *layers;
    size_t count;

    if (!store_tree_layers(&io_real, tree, &layers, &count, err))
        return false;
    *ret_has = false;
    for (size_t i = 0; i < count; i++)
        *ret_has |= is_image(layers[i].path, image);
    store_layers_free(layers, count);
    return true;
}

/* A VM that cannot be read may use any image. */
static bool vm_leaves_image(const char *name, const char *path, const struct io_stat *image, struct err *err)
{
    AUTO_FREE char *dir = NULL;
    AUTO_TREE struct tree *tree = NULL;
    bool has;

    if (!store_find(&io_real, name, &dir, err) || !store_read(&io_real, dir, &tree, err) ||
        !tree_has_image(tree, image, &has, err))
        return err_prefix(err, "disk: %s: it is not known whether the VM '%s' uses it", path, name);
    return !has || err_set(err, ERR_BUSY, "disk: %s: belongs to the VM '%s'", path, name);
}

/* Invariant 3: every working disk belongs to exactly one VM; and no snapshot's is written. */
static bool image_is_free(const char *path, const struct config *for_vm, struct err *err)
{
    struct io_stat image;
    char **names;
    bool is_free = true;

    if (!io_stat_path(&io_real, path, &image, err))
        return false;
    for (size_t i = 0; i < for_vm->disk_count; i++)
        if (!for_vm->disks[i].is_cdrom && is_image(for_vm->disks[i].path, &image))
            return err_set(err, ERR_EXISTS, "disk: %s: is a disk of this VM already", path);
    if (!store_list(&io_real, &names, err))
        return false;
    for (size_t i = 0; names[i] && is_free; i++)
        is_free = vm_leaves_image(names[i], path, &image, err);
    store_list_free(names);
    return is_free;
}

static bool image_check(const char *path, const struct config *for_vm, struct err *err)
{
    struct disk_options options = {.io = &io_real, .writable = false};
    AUTO_DISK struct disk *disk = NULL;

    if (!disk_open(path, &options, &disk, err))
        return err_prefix(err, "disk");
    return image_is_free(path, for_vm, err);
}

/* <VM>.vhd for the first, <VM>_<n>.vhd for those behind it. */
static char *new_image_path(const struct config *config, const char *vm_dir)
{
    for (unsigned number = 1; number < 1000; number++) {
        AUTO_FREE char *name = number == 1 ? string_printf("%s.vhd", config->name)
                                           : string_printf("%s_%u.vhd", config->name, number);
        AUTO_FREE char *path = name ? path_join(vm_dir, name) : NULL;
        bool taken = path && io_exists(&io_real, path);
        for (size_t i = 0; path && i < config->disk_count; i++)
            taken |= config->disks[i].path && strcmp(config->disks[i].path, path) == 0;
        if (!taken)
            return TAKE(path);
    }
    return NULL;
}

bool hardware_disk_add(struct config *config, const char *vm_dir, const struct hardware_disk *disk,
                       struct err *err)
{
    AUTO_FREE char *path = disk->path ? path_absolute(disk->path) : new_image_path(config, vm_dir);
    enum config_bus default_bus = config->generation == 1 ? BUS_IDE : BUS_SCSI;
    struct config_disk added = {.bus = disk->has_bus ? disk->bus : default_bus, .path = path};

    if (!path)
        return err_oom(err);
    if (disk->path && !image_check(path, config, err))
        return false;
    if (!disk->path && (disk->size_bytes < 512 || disk->size_bytes % VHD_SECTOR != 0))
        return err_set(err, ERR_INVALID, "disk: %llu bytes: the size must be a multiple of 512",
                       (unsigned long long)disk->size_bytes);
    return slot_find(config, added.bus, &added.slot, err) && config_add_disk(config, &added, err);
}

bool hardware_cdrom_set(struct config *config, const char *path, struct err *err)
{
    AUTO_FREE char *absolute = path && *path != '\0' ? path_absolute(path) : NULL;
    struct config_disk drive = {
        .bus = config->generation == 1 ? BUS_IDE : BUS_SCSI, .is_cdrom = true, .path = absolute};
    struct io_stat stat;

    if (absolute && !io_stat_path(&io_real, absolute, &stat, err))
        return err_prefix(err, "cdrom");
    if (absolute && !stat.is_regular)
        return err_set(err, ERR_INVALID, "cdrom: %s: is no file", absolute);
    for (size_t i = 0; i < config->disk_count; i++)
        if (config->disks[i].is_cdrom)
            return config_set_string(&config->disks[i].path, absolute, err);
    return slot_find(config, drive.bus, &drive.slot, err) && config_add_disk(config, &drive, err);
}

/* QEMU's own prefix, the rest by chance. */
static void mac_new(char mac[static 18])
{
    unsigned char bytes[16];

    guid_new_bytes(bytes);
    snprintf(mac, 18, "52:54:00:%02x:%02x:%02x", bytes[0], bytes[1], bytes[2]);
}

static bool forwards_read(const json_t *list, struct config_nic *nic, struct err *err)
{
    json_t *entry;
    size_t i;

    if (!list)
        return true;
    nic->forwards = calloc(json_array_size(list) + 1, sizeof *nic->forwards);
    if (!nic->forwards)
        return err_oom(err);
    json_array_foreach((json_t *)list, i, entry)
    {
        if (!json_is_string(entry))
            return err_set(err, ERR_USAGE, "nic: a forward must be text such as tcp:2222:22");
        nic->forwards[i] = (char *)json_string_value(entry);
        nic->forward_count++;
    }
    return true;
}

bool hardware_nic_add(struct config *config, const json_t *json, struct err *err)
{
    static const char *const KNOWN[] = {"kind", "target", "forwards", NULL};
    struct config_nic nic = {0};
    const char *kind, *target = NULL;
    const json_t *forwards;

    if (!args_known(json, KNOWN, err) || !args_required(json, "kind", &kind, err) ||
        !args_string(json, "target", &target, err) || !args_array(json, "forwards", &forwards, err))
        return err_prefix(err, "nic");
    if (!config_nic_parse(kind, &nic.kind))
        return err_set(err, ERR_INVALID, "nic: unknown kind '%.40s' (user, bridge, tap)", kind);
    nic.target = (char *)target;
    mac_new(nic.mac);
    bool added = forwards_read(forwards, &nic, err) && config_add_nic(config, &nic, err);
    free(nic.forwards);
    return added;
}

/* "KIND[=TARGET][,forward=RULE]..." as JSON for hardware_nic_add(). NULL when out of memory. */
static json_t *nic_json(const char *text)
{
    static const char FORWARD[] = "forward=";
    AUTO_FREE char *copy = strdup(text);
    json_t *forwards = json_array();
    json_t *nic = json_pack("{s:o}", "forwards", forwards);
    char *save = NULL;

    if (!copy || !nic) {
        json_decref(nic);
        return NULL;
    }
    for (char *part = strtok_r(copy, ",", &save); part; part = strtok_r(NULL, ",", &save)) {
        char *equals = strchr(part, '=');
        if (strncmp(part, FORWARD, strlen(FORWARD)) == 0) {
            json_array_append_new(forwards, json_string(part + strlen(FORWARD)));
            continue;
        }
        if (equals) {
            *equals = '\0';
            json_object_set_new(nic, "target", json_string(equals + 1));
        }
        json_object_set_new(nic, "kind", json_string(part));
    }
    return nic;
}

bool hardware_nics_set(struct config *config, const char *text, struct err *err)
{
    if (strcmp(text, "none") == 0) {
        config_remove_nics(config);
        return true;
    }
    json_t *nic = nic_json(text);
    if (!nic)
        return err_oom(err);
    bool added = hardware_nic_add(config, nic, err);
    json_decref(nic);
    return added;
}

static bool size_set(uint64_t *field, const char *key, const char *value, struct err *err)
{
    uint64_t bytes;

    if (!size_parse(value, &bytes))
        return err_set(err, ERR_INVALID, "%s: '%.40s' is no size (512M, 2G)", key, value);
    *field = bytes;
    return true;
}

static bool cpus_set(struct config *config, const char *value, struct err *err)
{
    char *end;

    errno = 0;
    unsigned long cpus = strtoul(value, &end, 10);
    if (!isdigit((unsigned char)*value) || *end != '\0' || errno != 0 || cpus < 1 || cpus > 255)
        return err_set(err, ERR_INVALID, "cpus: '%.40s' is no number from 1 to 255", value);
    config->cpus = (unsigned)cpus;
    return true;
}

static bool file_set(char **field, const char *key, const char *value, struct err *err)
{
    AUTO_FREE char *path = *value == '\0' ? NULL : path_absolute(value);
    struct io_stat stat;

    if (path && !io_stat_path(&io_real, path, &stat, err))
        return err_prefix(err, "%s", key);
    return config_set_string(field, path, err);
}

/* A version of the generation's board that this host's QEMU offers. */
static bool machine_set(struct config *config, const char *value, struct err *err)
{
    const char *board = config->generation == 2 ? "pc-q35-" : "pc-i440fx-";
    struct qemu qemu;

    if (strncmp(value, board, strlen(board)) != 0)
        return err_set(err, ERR_INVALID, "machine: '%.40s' is no machine of generation %u (%s7.2)", value,
                       config->generation, board);
    return qemu_find(&qemu, err) && qemu_check_machine(&qemu, value, err) &&
           config_set_string(&config->machine, value, err);
}

static bool hardware_set_word(struct config *config, const char *key, const char *value, struct err *err)
{
    if (strcmp(key, "display") == 0 && config_display_parse(value, &config->display))
        return true;
    if (strcmp(key, "accel") == 0 && config_accel_parse(value, &config->accel))
        return true;
    if (strcmp(key, "clock") == 0 && config_clock_parse(value, &config->clock))
        return true;
    return err_set(err, ERR_INVALID, "%s: '%.40s' is none of its values (%s)", key, value,
                   *key == 'd'   ? "none, vnc"
                   : *key == 'a' ? "auto, kvm, tcg"
                                 : "vm, host");
}

bool hardware_set(struct config *config, const char *key, const char *value, bool *ret_live, struct err *err)
{
    *ret_live = strcmp(key, "notes") == 0;
    if (*ret_live)
        return config_set_string(&config->notes, value, err);
    if (strcmp(key, "memory") == 0)
        return size_set(&config->memory_bytes, key, value, err);
    if (strcmp(key, "cpus") == 0)
        return cpus_set(config, value, err);
    if (strcmp(key, "kernel") == 0)
        return file_set(&config->kernel, key, value, err);
    if (strcmp(key, "initrd") == 0)
        return file_set(&config->initrd, key, value, err);
    if (strcmp(key, "append") == 0)
        return config_set_string(&config->append, *value ? value : NULL, err);
    if (strcmp(key, "cdrom") == 0)
        return hardware_cdrom_set(config, value, err);
    if (strcmp(key, "cpu") == 0)
        return config_set_string(&config->cpu_model, value, err);
    if (strcmp(key, "machine") == 0)
        return machine_set(config, value, err);
    if (strcmp(key, "display") == 0 || strcmp(key, "accel") == 0 || strcmp(key, "clock") == 0)
        return hardware_set_word(config, key, value, err);
    return err_set(err, ERR_INVALID,
                   "unknown setting '%.40s' (accel, append, cdrom, clock, cpu, cpus, disk, display, initrd, kernel, "
                   "machine, memory, nic, notes)", key);
}
