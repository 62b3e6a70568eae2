/* A configuration out of XML that anybody may have written. Elements that we do not know are ignored:
 * Hyper-V's own files have hundreds. */
#include "config.h"
#include "config_xml.h"
#include "xml_read.h"

#include "auto.h"
#include "file.h"

#include <limits.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#define DRIVES_MAX   64U
#define FORWARDS_MAX 1024U
#define NICS_MAX     1024U
#define LIST_MAX     (1U << 20)
#define BASES_MAX    4096U

/* A string that must be one of a set of names; the value stays as it is where an optional element is missing.
 */
#define READ_NAME(noun, at, path, need, ret_value, err)                                                      \
    ({                                                                                                       \
        AUTO_FREE char *name_ = NULL;                                                                        \
        xml_string((at), (path), (need), &name_, (err)) &&                                                   \
            (!name_ || config_##noun##_parse(name_, (ret_value)) ||                                          \
             xml_bad((at), (path), (err), "unknown value"));                                                 \
    })

/* An absolute, clean path from one that may be relative to the VM's folder; NULL for "". */
static bool read_pathname(struct xml_at at, const char *name, enum xml_need need, const char *vm_dir,
                          char **ret_path, struct err *err)
{
    AUTO_FREE char *text = NULL;

    if (!xml_string(at, name, need, &text, err))
        return false;
    if (!text || *text == '\0')
        return true;
    AUTO_FREE char *joined = *text == '/' ? strdup(text) : path_join(vm_dir, text);
    char *path = joined ? path_absolute(joined) : NULL;
    if (!path)
        return err_oom(err);
    free(*ret_path);
    *ret_path = path;
    return true;
}

static bool digits_at(const char *text, const char *pattern)
{
    for (; *pattern != '\0'; text++, pattern++)
        if (*pattern == '0' ? *text < '0' || *text > '9' : *text != *pattern)
            return false;
    return *text == '\0';
}

static bool read_time(struct xml_at at, const char *name, int64_t *ret_ms, struct err *err)
{
    AUTO_FREE char *text = NULL;
    struct tm tm = {0};
    int ms;

    if (!xml_string(at, name, XML_REQUIRED, &text, err))
        return false;
    if (!digits_at(text, "0000-00-00T00:00:00.000Z"))
        return xml_bad(at, name, err, "is no time like 2008-02-29T12:00:00.000Z");
    if (sscanf(text, "%4d-%2d-%2dT%2d:%2d:%2d.%3dZ", &tm.tm_year, &tm.tm_mon, &tm.tm_mday, &tm.tm_hour,
               &tm.tm_min, &tm.tm_sec, &ms) != 7)
        return xml_bad(at, name, err, "is no time");
    tm.tm_year -= 1900;
    tm.tm_mon -= 1;
    struct tm same = tm;
    time_t seconds = timegm(&same);
    /* timegm() puts a 30th of February right: a date that it changed was none. */
    if (seconds < 0 || same.tm_mon != tm.tm_mon || same.tm_mday != tm.tm_mday || same.tm_hour != tm.tm_hour ||
        same.tm_min != tm.tm_min || same.tm_sec != tm.tm_sec)
        return xml_bad(at, name, err, "is no time since 1970");
    *ret_ms = (int64_t)seconds * 1000 + ms;
    return true;
}

static bool read_version(struct xml_at properties, struct err *err)
{
    AUTO_FREE char *text = NULL;
    unsigned major, minor;
    int end = 0;

    if (!xml_string(properties, "version", XML_REQUIRED, &text, err))
        return false;
    if (strspn(text, "0123456789.") != strlen(text) || strlen(text) > 16 ||
        sscanf(text, "%5u.%5u%n", &major, &minor, &end) != 2 || text[end] != '\0')
        return xml_bad(properties, "version", err, "is no version");
    if (major > 1)
        return err_set(err, ERR_UNSUPPORTED,
                       "%s: was written by a newer Bough: version %s, this one reads " CONFIG_VERSION,
                       properties.file, text);
    return true;
}

static bool read_properties(struct xml_at root, struct config *config, struct err *err)
{
    struct xml_at at;

    if (!xml_find(root, "properties", XML_REQUIRED, &at, err) || !read_version(at, err) ||
        !read_time(at, "creation_time", &config->created_ms, err))
        return false;
    return xml_guid(at, "global_id", XML_REQUIRED, &config->guid, err) &&
           xml_string(at, "name", XML_REQUIRED, &config->name, err) &&
           xml_string(at, "notes", XML_OPTIONAL, &config->notes, err) &&
           xml_guid(at, "parent_snapshot", XML_REQUIRED, &config->parent, err);
}

static bool read_drive(struct xml_at drive, struct config_disk *disk, const char *vm_dir,
                       struct config *config, struct err *err)
{
    AUTO_FREE char *type = NULL;
    AUTO_FREE char *path = NULL;

    if (!xml_string(drive, "type", XML_REQUIRED, &type, err) ||
        !read_pathname(drive, "pathname", XML_REQUIRED, vm_dir, &path, err))
        return false;
    disk->is_cdrom = strcmp(type, XML_TYPE_CDROM) == 0;
    if (!disk->is_cdrom && strcmp(type, XML_TYPE_DISK) != 0)
        return xml_bad(drive, "type", err, "unknown value");
    disk->path = path;
    return config_add_disk(config, disk, err);
}

static bool read_drives(struct xml_at root, const char *element, enum config_bus bus, const char *vm_dir,
                        struct config *config, struct err *err)
{
    unsigned drives = bus == BUS_IDE ? XML_IDE_DRIVES : config_bus_slots(bus);
    struct xml_at at;

    if (!xml_find(root, element, XML_OPTIONAL, &at, err) || !at.node)
        return !at.node;
    for (const xmlNode *node = at.node->children; node; node = node->next) {
        unsigned controller, unit;
        if (!xml_is_numbered(node, "controller", DRIVES_MAX, &controller))
            continue;
        for (const xmlNode *child = node->children; child; child = child->next) {
            if (!xml_is_numbered(child, "drive", UINT_MAX, &unit))
                continue;
            struct xml_at drive = {.file = root.file, .node = child};
            if (unit >= drives || controller >= config_bus_slots(bus) / drives)
                return xml_bad(drive, "", err, "the bus has no such place");
            if (config->disk_count >= DRIVES_MAX * 2)
                return xml_bad(drive, "", err, "too many drives");
            struct config_disk disk = {.bus = bus, .slot = controller * drives + unit};
            if (!read_drive(drive, &disk, vm_dir, config, err))
                return false;
        }
    }
    return true;
}

static bool read_list(struct xml_at root, struct config *config, struct err *err)
{
    struct xml_at list;
    uint64_t size;

    if (!xml_find(root, "global_settings/snapshots/list", XML_REQUIRED, &list, err) ||
        !xml_integer(list, "size", XML_REQUIRED, LIST_MAX, &size, err))
        return false;
    if (size > 0) {
        config->listed = calloc(size, sizeof *config->listed);
        if (!config->listed)
            return err_oom(err);
    }
    for (const xmlNode *node = list.node->children; node; node = node->next) {
        unsigned number;
        struct xml_at at = {.file = root.file, .node = node};
        if (!xml_is_numbered(node, "node", UINT_MAX, &number))
            continue;
        if (number != config->listed_count || number >= size)
            return xml_bad(at, "", err, "the list's nodes do not agree with its size");
        struct config_listed *listed = &config->listed[config->listed_count++];
        if (!xml_guid(at, "guid", XML_REQUIRED, &listed->guid, err) ||
            !xml_guid(at, "parent", XML_REQUIRED, &listed->parent, err))
            return false;
    }
    return config->listed_count == size ||
           xml_bad(list, "", err, "the list's nodes do not agree with its size");
}

static bool read_base(struct xml_at at, const char *vm_dir, struct config *config, struct err *err)
{
    AUTO_FREE char *path = NULL;
    AUTO_FREE char *modified = NULL;
    struct config_base base = {0};
    long long seconds;
    unsigned ns;
    int end = 0;

    if (!read_pathname(at, "file", XML_REQUIRED, vm_dir, &path, err) ||
        !xml_integer(at, "size", XML_REQUIRED, INT64_MAX, &base.size_bytes, err) ||
        !xml_string(at, "modified", XML_REQUIRED, &modified, err) ||
        !xml_integer(at, "inode", XML_REQUIRED, UINT64_MAX, &base.inode, err))
        return false;
    if (!path)
        return xml_bad(at, "file", err, "is empty");
    if (strlen(modified) > 40 || strspn(modified, "-0123456789.") != strlen(modified) ||
        sscanf(modified, "%19lld.%9u%n", &seconds, &ns, &end) != 2 || modified[end] != '\0')
        return xml_bad(at, "modified", err, "is no time like 1204286400.123456789");
    base.path = path;
    base.mtime_seconds = seconds;
    base.mtime_ns = ns;
    return config_base_set(config, &base, err);
}

static bool read_bases(struct xml_at root, const char *vm_dir, struct config *config, struct err *err)
{
    struct xml_at list;

    if (!xml_find(root, "global_settings/bases", XML_OPTIONAL, &list, err) || !list.node)
        return !list.node;
    for (const xmlNode *node = list.node->children; node; node = node->next) {
        unsigned number;
        if (xml_is_numbered(node, "base", BASES_MAX, &number) &&
            !read_base((struct xml_at){.file = root.file, .node = node}, vm_dir, config, err))
            return false;
    }
    return true;
}

static bool read_saved(struct xml_at at, struct config *config, struct err *err)
{
    return xml_guid(at, "memory_id", XML_REQUIRED, &config->memory, err) &&
           xml_string(at, "qemu_version", XML_OPTIONAL, &config->qemu_version, err) &&
           READ_NAME(accel, at, "accelerator", XML_REQUIRED, &config->accel_used, err);
}

static bool read_snapshot(struct xml_at root, struct xml_at at, struct config *config, struct err *err)
{
    struct xml_at saved;
    uint64_t scheduled = 0;

    config->is_snapshot = true;
    if (!xml_guid(at, "id", XML_REQUIRED, &config->snapshot, err) ||
        !READ_NAME(state, at, "state_when_taken", XML_REQUIRED, &config->state_when_taken, err) ||
        !xml_integer(at, "pause_us", XML_OPTIONAL, UINT64_MAX, &config->pause_us, err) ||
        !xml_integer(at, "scheduled", XML_OPTIONAL, 1, &scheduled, err))
        return false;
    config->is_scheduled = scheduled == 1;
    if (config->state_when_taken == STATE_OFF)
        return true;
    return xml_find(root, "savedstate", XML_REQUIRED, &saved, err) && read_saved(saved, config, err);
}

static bool read_vm_state(struct xml_at root, struct config *config, struct err *err)
{
    struct xml_at at;

    if (!xml_find(root, "savedstate", XML_OPTIONAL, &at, err) || !at.node)
        return !at.node;
    if (!xml_guid(at, "id", XML_REQUIRED, &config->saved, err))
        return false;
    if (!guid_is_set(&config->saved))
        return xml_bad(at, "id", err, "is empty");
    return READ_NAME(state, at, "state", XML_REQUIRED, &config->saved_state, err) &&
           read_saved(at, config, err);
}

static bool read_nic(struct xml_at at, struct config *config, struct err *err)
{
    AUTO_FREE char *mac = NULL;
    AUTO_FREE char *target = NULL;
    char *forwards[FORWARDS_MAX] = {0};
    struct config_nic nic = {.forwards = forwards};
    unsigned number;

    bool ok = READ_NAME(nic, at, "kind", XML_REQUIRED, &nic.kind, err) &&
              xml_string(at, "mac", XML_REQUIRED, &mac, err) &&
              xml_string(at, "target", XML_OPTIONAL, &target, err);
    for (const xmlNode *node = at.node->children; ok && node; node = node->next) {
        if (!xml_is_numbered(node, "forward", FORWARDS_MAX, &number))
            continue;
        if (number != nic.forward_count)
            ok = xml_bad((struct xml_at){at.file, node}, "", err, "is out of order");
        else
            ok = xml_string(at, (const char *)node->name, XML_REQUIRED, &forwards[nic.forward_count++], err);
    }
    if (ok) {
        nic.target = target;
        snprintf(nic.mac, sizeof nic.mac, "%.17s", strlen(mac) == 17 ? mac : "");
        ok = config_add_nic(config, &nic, err);
    }
    for (size_t i = 0; i < nic.forward_count; i++)
        free(forwards[i]);
    return ok;
}

static bool read_nics(struct xml_at qemu, struct config *config, struct err *err)
{
    for (const xmlNode *node = qemu.node->children; node; node = node->next) {
        unsigned number;
        struct xml_at at = {.file = qemu.file, .node = node};
        if (!xml_is_numbered(node, "nic", NICS_MAX, &number))
            continue;
        if (number != config->nic_count)
            return xml_bad(at, "", err, "is out of order");
        if (!read_nic(at, config, err))
            return false;
    }
    return true;
}

static bool read_boot(struct xml_at qemu, const char *vm_dir, struct config *config, struct err *err)
{
    struct xml_at at;

    if (!xml_find(qemu, "boot", XML_OPTIONAL, &at, err) || !at.node)
        return !at.node;
    return read_pathname(at, "kernel", XML_REQUIRED, vm_dir, &config->kernel, err) &&
           read_pathname(at, "initrd", XML_OPTIONAL, vm_dir, &config->initrd, err) &&
           xml_string(at, "append", XML_OPTIONAL, &config->append, err);
}

static bool read_settings(struct xml_at root, const char *vm_dir, struct config *config, struct err *err)
{
    struct xml_at at, qemu;
    uint64_t memory_mib, cpus, generation;

    if (!xml_find(root, "settings", XML_REQUIRED, &at, err) ||
        !xml_find(at, "qemu", XML_REQUIRED, &qemu, err) ||
        !xml_integer(at, "memory/bank/size", XML_REQUIRED, UINT64_MAX >> 20, &memory_mib, err) ||
        !xml_integer(at, "processors/count", XML_REQUIRED, UINT_MAX, &cpus, err) ||
        !xml_integer(qemu, "generation", XML_REQUIRED, UINT_MAX, &generation, err))
        return false;
    config->memory_bytes = memory_mib << 20;
    config->cpus = (unsigned)cpus;
    config->generation = (unsigned)generation;
    return xml_string(qemu, "machine", XML_REQUIRED, &config->machine, err) &&
           xml_string(qemu, "cpu_model", XML_REQUIRED, &config->cpu_model, err) &&
           READ_NAME(accel, qemu, "accelerator", XML_REQUIRED, &config->accel, err) &&
           READ_NAME(clock, qemu, "clock", XML_REQUIRED, &config->clock, err) &&
           READ_NAME(display, qemu, "display", XML_REQUIRED, &config->display, err) &&
           xml_guid(qemu, "generation_id", XML_OPTIONAL, &config->generation_id, err) &&
           xml_guid(qemu, "nvram", XML_OPTIONAL, &config->nvram, err) &&
           read_boot(qemu, vm_dir, config, err) && read_nics(qemu, config, err);
}

static bool read_image_id(struct xml_at images, struct config_disk *disk, struct err *err)
{
    AUTO_FREE char *id = NULL;
    char place[32];

    snprintf(place, sizeof place, "%s%u", config_bus_name(disk->bus), disk->slot);
    if (!xml_string(images, place, XML_OPTIONAL, &id, err))
        return false;
    if (!id)
        return true;
    if (strlen(id) != sizeof disk->image_id - 1 || strspn(id, "0123456789abcdef") != strlen(id))
        return xml_bad(images, place, err, "not 32 hexadecimal digits");
    memcpy(disk->image_id, id, sizeof disk->image_id);
    return true;
}

static bool read_images(struct xml_at snapshot, struct config *config, struct err *err)
{
    struct xml_at images;

    if (!xml_find(snapshot, "images", XML_OPTIONAL, &images, err) || !images.node)
        return !images.node;
    for (size_t i = 0; i < config->disk_count; i++)
        if (!read_image_id(images, &config->disks[i], err))
            return false;
    return true;
}

static bool read_configuration(struct xml_at root, const char *vm_dir, struct config *config, struct err *err)
{
    struct xml_at snapshot;

    if (strcmp((const char *)root.node->name, "configuration") != 0)
        return xml_bad(root, "", err, "is not a VM's configuration");
    if (!read_properties(root, config, err) || !xml_find(root, "snapshot", XML_OPTIONAL, &snapshot, err))
        return false;
    if (snapshot.node ? !read_snapshot(root, snapshot, config, err)
                      : !read_list(root, config, err) || !read_bases(root, vm_dir, config, err) ||
                            !read_vm_state(root, config, err))
        return false;
    return read_settings(root, vm_dir, config, err) &&
           read_drives(root, XML_IDE, BUS_IDE, vm_dir, config, err) &&
           read_drives(root, XML_SCSI, BUS_SCSI, vm_dir, config, err) &&
           read_drives(root, XML_VIRTIO, BUS_VIRTIO, vm_dir, config, err) &&
           (!snapshot.node || read_images(snapshot, config, err));
}

bool config_parse(const void *xml, size_t length, const char *file_name, const char *vm_dir,
                  struct config **ret_config, struct err *err)
{
    xmlDoc *doc;
    AUTO_CONFIG struct config *config = config_new();

    if (!config)
        return err_oom(err);
    if (length > CONFIG_XML_MAX_BYTES)
        return err_set(err, ERR_CORRUPT, "%s: larger than %u MiB", file_name, CONFIG_XML_MAX_BYTES >> 20);
    if (!xml_parse(xml, length, file_name, &doc, err))
        return false;
    struct xml_at root = {.file = file_name, .node = xmlDocGetRootElement(doc)};
    bool ok = read_configuration(root, vm_dir, config, err);
    xmlFreeDoc(doc);
    if (!ok)
        return false;
    if (!config_check(config, err)) {
        /* What a caller may not ask for is, in a file, damage. */
        if (err->code == ERR_INVALID)
            err->code = ERR_CORRUPT;
        return err_prefix(err, "%s", file_name);
    }
    *ret_config = TAKE(config);
    return true;
}
