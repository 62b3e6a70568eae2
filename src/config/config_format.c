/* A configuration as XML. The same value always gives the same bytes. */
#include "config.h"
#include "config_xml.h"

#include "auto.h"
#include "file.h"

#include <inttypes.h>
#include <libxml/tree.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

/* failed is sticky: one check at the end sees every allocation that failed. */
struct writer {
    const char *vm_dir;
    bool failed;
};

static xmlNode *put_element(struct writer *writer, xmlNode *parent, const char *name)
{
    xmlNode *node = parent ? xmlNewChild(parent, NULL, BAD_CAST name, NULL) : NULL;

    writer->failed |= !node;
    return node;
}

/* The element at the path below parent; what is missing of it is made. */
static xmlNode *put_path(struct writer *writer, xmlNode *parent, const char *path)
{
    while (parent && *path != '\0') {
        size_t length = strcspn(path, "/");
        AUTO_FREE char *name = strndup(path, length);
        xmlNode *child = parent->children;
        while (name && child && strcmp((const char *)child->name, name) != 0)
            child = child->next;
        parent = child ? child : name ? put_element(writer, parent, name) : NULL;
        path += length + (path[length] == '/');
    }
    writer->failed |= !parent;
    return parent;
}

static void put_typed(struct writer *writer, xmlNode *parent, const char *name, const char *type,
                      const char *text)
{
    xmlNode *node = parent ? xmlNewTextChild(parent, NULL, BAD_CAST name, BAD_CAST text) : NULL;

    if (!node || !xmlNewProp(node, BAD_CAST "type", BAD_CAST type))
        writer->failed = true;
}

static void put_string(struct writer *writer, xmlNode *parent, const char *name, const char *text)
{
    put_typed(writer, parent, name, "string", text);
}

static void put_integer(struct writer *writer, xmlNode *parent, const char *name, uint64_t value)
{
    char text[24];

    snprintf(text, sizeof text, "%" PRIu64, value);
    put_typed(writer, parent, name, "integer", text);
}

static void put_optional(struct writer *writer, xmlNode *parent, const char *name, const char *text)
{
    if (text)
        put_string(writer, parent, name, text);
}

static void put_optional_guid(struct writer *writer, xmlNode *parent, const char *name,
                              const struct guid *guid)
{
    put_optional(writer, parent, name, guid_is_set(guid) ? guid->text : NULL);
}

/* Relative where it lies in the VM's folder, so that the folder can be moved. */
static void put_pathname(struct writer *writer, xmlNode *parent, const char *name, const char *path)
{
    if (!path || !path_is_inside(path, writer->vm_dir)) {
        put_string(writer, parent, name, path ? path : "");
        return;
    }
    AUTO_FREE char *relative = path_relative(writer->vm_dir, path);
    if (relative)
        put_string(writer, parent, name, relative);
    writer->failed |= !relative;
}

static void put_time(struct writer *writer, xmlNode *parent, const char *name, int64_t ms)
{
    time_t seconds = (time_t)(ms / 1000);
    struct tm tm;
    char day[32], text[48];

    if (!gmtime_r(&seconds, &tm) || strftime(day, sizeof day, "%Y-%m-%dT%H:%M:%S", &tm) == 0) {
        writer->failed = true;
        return;
    }
    snprintf(text, sizeof text, "%s.%03dZ", day, (int)(ms % 1000));
    put_string(writer, parent, name, text);
}

static void put_drives(struct writer *writer, xmlNode *bus_node, enum config_bus bus,
                       const struct config *config)
{
    unsigned drives = bus == BUS_IDE ? XML_IDE_DRIVES : config_bus_slots(bus);

    for (unsigned slot = 0; slot < config_bus_slots(bus); slot++) {
        for (size_t i = 0; i < config->disk_count; i++) {
            const struct config_disk *disk = &config->disks[i];
            if (disk->bus != bus || disk->slot != slot)
                continue;
            char place[48];
            snprintf(place, sizeof place, "controller%u/drive%u", slot / drives, slot % drives);
            xmlNode *drive = put_path(writer, bus_node, place);
            put_pathname(writer, drive, "pathname", disk->path);
            put_string(writer, drive, "type", disk->is_cdrom ? XML_TYPE_CDROM : XML_TYPE_DISK);
        }
    }
}

static void put_nic(struct writer *writer, xmlNode *parent, size_t index, const struct config_nic *nic)
{
    char name[32];

    snprintf(name, sizeof name, "nic%zu", index);
    xmlNode *node = put_element(writer, parent, name);
    put_string(writer, node, "kind", config_nic_name(nic->kind));
    put_string(writer, node, "mac", nic->mac);
    put_optional(writer, node, "target", nic->target);
    for (size_t i = 0; i < nic->forward_count; i++) {
        snprintf(name, sizeof name, "forward%zu", i);
        put_string(writer, node, name, nic->forwards[i]);
    }
}

static void put_properties(struct writer *writer, xmlNode *root, const struct config *config)
{
    xmlNode *node = put_element(writer, root, "properties");

    put_time(writer, node, "creation_time", config->created_ms);
    put_string(writer, node, "global_id", config->guid.text);
    put_string(writer, node, "name", config->name);
    put_string(writer, node, "notes", config->notes);
    put_string(writer, node, "parent_snapshot", config->parent.text);
    put_string(writer, node, "version", CONFIG_VERSION);
}

static void put_list(struct writer *writer, xmlNode *root, const struct config *config)
{
    xmlNode *list = put_path(writer, root, "global_settings/snapshots/list");

    put_integer(writer, list, "size", config->listed_count);
    for (size_t i = 0; i < config->listed_count; i++) {
        char name[32];
        snprintf(name, sizeof name, "node%zu", i);
        xmlNode *node = put_element(writer, list, name);
        put_string(writer, node, "guid", config->listed[i].guid.text);
        put_string(writer, node, "parent", config->listed[i].parent.text);
    }
}

static void put_bases(struct writer *writer, xmlNode *root, const struct config *config)
{
    if (config->base_count == 0)
        return;
    xmlNode *list = put_path(writer, root, "global_settings/bases");
    for (size_t i = 0; i < config->base_count; i++) {
        const struct config_base *base = &config->bases[i];
        char text[48];
        snprintf(text, sizeof text, "base%zu", i);
        xmlNode *node = put_element(writer, list, text);
        put_pathname(writer, node, "file", base->path);
        put_integer(writer, node, "size", base->size_bytes);
        snprintf(text, sizeof text, "%lld.%09u", (long long)base->mtime_seconds, (unsigned)base->mtime_ns);
        put_string(writer, node, "modified", text);
        put_integer(writer, node, "inode", base->inode);
    }
}

static void put_saved(struct writer *writer, xmlNode *node, const struct config *config)
{
    put_string(writer, node, "memory_id", config->memory.text);
    put_optional(writer, node, "qemu_version", config->qemu_version);
    put_string(writer, node, "accelerator", config_accel_name(config->accel_used));
}

/* Not at the drives: those are the VM's, as they were, byte for byte. */
static void put_images(struct writer *writer, xmlNode *snapshot, const struct config *config)
{
    for (size_t i = 0; i < config->disk_count; i++) {
        const struct config_disk *disk = &config->disks[i];
        char place[32];
        snprintf(place, sizeof place, "%s%u", config_bus_name(disk->bus), disk->slot);
        if (disk->image_id[0] != '\0')
            put_string(writer, put_path(writer, snapshot, "images"), place, disk->image_id);
    }
}

static void put_snapshot(struct writer *writer, xmlNode *root, const struct config *config)
{
    xmlNode *node = put_element(writer, root, "snapshot");

    put_string(writer, node, "id", config->snapshot.text);
    put_string(writer, node, "state_when_taken", config_state_name(config->state_when_taken));
    put_integer(writer, node, "pause_us", config->pause_us);
    if (config->is_scheduled)
        put_integer(writer, node, "scheduled", 1);
    put_images(writer, node, config);
    if (config->state_when_taken != STATE_OFF)
        put_saved(writer, put_element(writer, root, "savedstate"), config);
}

static void put_vm_state(struct writer *writer, xmlNode *root, const struct config *config)
{
    if (!guid_is_set(&config->saved))
        return;
    xmlNode *node = put_element(writer, root, "savedstate");
    put_string(writer, node, "id", config->saved.text);
    put_string(writer, node, "state", config_state_name(config->saved_state));
    put_saved(writer, node, config);
}

static void put_qemu(struct writer *writer, xmlNode *settings, const struct config *config)
{
    xmlNode *node = put_element(writer, settings, "qemu");

    put_integer(writer, node, "generation", config->generation);
    put_string(writer, node, "machine", config->machine);
    put_string(writer, node, "cpu_model", config->cpu_model);
    put_string(writer, node, "accelerator", config_accel_name(config->accel));
    put_string(writer, node, "clock", config_clock_name(config->clock));
    put_string(writer, node, "display", config_display_name(config->display));
    put_optional_guid(writer, node, "generation_id", &config->generation_id);
    put_optional_guid(writer, node, "nvram", &config->nvram);
    if (config->kernel) {
        xmlNode *boot = put_element(writer, node, "boot");
        put_pathname(writer, boot, "kernel", config->kernel);
        if (config->initrd)
            put_pathname(writer, boot, "initrd", config->initrd);
        put_optional(writer, boot, "append", config->append);
    }
    for (size_t i = 0; i < config->nic_count; i++)
        put_nic(writer, node, i, &config->nics[i]);
}

static void put_settings(struct writer *writer, xmlNode *root, const struct config *config)
{
    xmlNode *settings = put_element(writer, root, "settings");

    put_integer(writer, put_path(writer, settings, "memory/bank"), "size", config->memory_bytes >> 20);
    put_integer(writer, put_path(writer, settings, "processors"), "count", config->cpus);
    put_qemu(writer, settings, config);
}

static void put_configuration(struct writer *writer, xmlDoc *doc, const struct config *config)
{
    xmlNode *root = xmlNewDocNode(doc, NULL, BAD_CAST "configuration", NULL);

    if (!root) {
        writer->failed = true;
        return;
    }
    xmlDocSetRootElement(doc, root);
    put_drives(writer, put_element(writer, root, XML_IDE), BUS_IDE, config);
    put_drives(writer, put_element(writer, root, XML_SCSI), BUS_SCSI, config);
    if (!config->is_snapshot) {
        put_list(writer, root, config);
        put_bases(writer, root, config);
    }
    put_properties(writer, root, config);
    if (config->is_snapshot)
        put_snapshot(writer, root, config);
    else
        put_vm_state(writer, root, config);
    put_settings(writer, root, config);
    put_drives(writer, put_path(writer, root, XML_VIRTIO), BUS_VIRTIO, config);
}

static bool dump(xmlDoc *doc, char **ret_xml, size_t *ret_length, struct err *err)
{
    xmlChar *bytes = NULL;
    int length = 0;

    xmlDocDumpFormatMemoryEnc(doc, &bytes, &length, "UTF-8", /* format= */ 1);
    if (!bytes)
        return err_oom(err);
    char *copy = malloc((size_t)length + 1);
    if (copy) {
        memcpy(copy, bytes, (size_t)length);
        copy[length] = '\0';
    }
    xmlFree(bytes);
    if (!copy)
        return err_oom(err);
    *ret_xml = copy;
    *ret_length = (size_t)length;
    return true;
}

bool config_format(const struct config *config, const char *vm_dir, char **ret_xml, size_t *ret_length,
                   struct err *err)
{
    struct writer writer = {.vm_dir = vm_dir};

    if (!config_check(config, err))
        return err_prefix(err, "settings of '%s'", config->name ? config->name : "?");
    xmlDoc *doc = xmlNewDoc(BAD_CAST "1.0");
    if (!doc)
        return err_oom(err);
    put_configuration(&writer, doc, config);
    bool ok = writer.failed ? err_oom(err) : dump(doc, ret_xml, ret_length, err);
    xmlFreeDoc(doc);
    if (ok && *ret_length > CONFIG_XML_MAX_BYTES) {
        free(*ret_xml);
        return err_set(err, ERR_INVALID, "settings of '%s': the XML would be larger than %u MiB",
                       config->name, CONFIG_XML_MAX_BYTES >> 20);
    }
    return ok;
}
