#include "config.h"

#include "auto.h"
#include "file.h"

#include <stdlib.h>
#include <string.h>

static const char *const BUS_NAMES[] = {[BUS_IDE] = "ide", [BUS_SCSI] = "scsi", [BUS_VIRTIO] = "virtio"};
static const char *const ACCEL_NAMES[] = {[ACCEL_AUTO] = "auto", [ACCEL_KVM] = "kvm", [ACCEL_TCG] = "tcg"};
static const char *const CLOCK_NAMES[] = {[CLOCK_VM] = "vm", [CLOCK_HOST] = "host"};
static const char *const DISPLAY_NAMES[] = {[DISPLAY_NONE] = "none", [DISPLAY_VNC] = "vnc"};
static const char *const STATE_NAMES[] = {
    [STATE_OFF] = "off", [STATE_RUNNING] = "running", [STATE_PAUSED] = "paused"};
static const char *const NIC_NAMES[] = {[NIC_USER] = "user", [NIC_BRIDGE] = "bridge", [NIC_TAP] = "tap"};

/* The two directions of one table of names. */
#define DEFINE_NAMES(noun, NAMES)                                                                            \
    const char *config_##noun##_name(NAMED_TYPE value)                                                       \
    {                                                                                                        \
        return (unsigned)value < ARRAY_SIZE(NAMES) ? NAMES[value] : "?";                                     \
    }                                                                                                        \
    bool config_##noun##_parse(const char *text, NAMED_TYPE *ret_value)                                      \
    {                                                                                                        \
        for (unsigned i = 0; i < ARRAY_SIZE(NAMES); i++) {                                                   \
            if (strcmp(NAMES[i], text) == 0) {                                                               \
                *ret_value = (NAMED_TYPE)i;                                                                  \
                return true;                                                                                 \
            }                                                                                                \
        }                                                                                                    \
        return false;                                                                                        \
    }

#define NAMED_TYPE enum config_bus
DEFINE_NAMES(bus, BUS_NAMES)
#undef NAMED_TYPE
#define NAMED_TYPE enum config_accel
DEFINE_NAMES(accel, ACCEL_NAMES)
#undef NAMED_TYPE
#define NAMED_TYPE enum config_clock
DEFINE_NAMES(clock, CLOCK_NAMES)
#undef NAMED_TYPE
#define NAMED_TYPE enum config_display
DEFINE_NAMES(display, DISPLAY_NAMES)
#undef NAMED_TYPE
#define NAMED_TYPE enum config_state
DEFINE_NAMES(state, STATE_NAMES)
#undef NAMED_TYPE
#define NAMED_TYPE enum config_nic_kind
DEFINE_NAMES(nic, NIC_NAMES)
#undef NAMED_TYPE

unsigned config_bus_slots(enum config_bus bus)
{
    static const unsigned SLOTS[] = {[BUS_IDE] = 4, [BUS_SCSI] = 64, [BUS_VIRTIO] = 16};

    return (unsigned)bus < ARRAY_SIZE(SLOTS) ? SLOTS[bus] : 0;
}

struct config *config_new(void)
{
    struct config *config = calloc(1, sizeof *config);

    if (!config)
        return NULL;
    config->notes = strdup("");
    if (!config->notes) {
        free(config);
        return NULL;
    }
    return config;
}

static void nic_done(struct config_nic *nic)
{
    for (size_t i = 0; i < nic->forward_count; i++)
        free(nic->forwards[i]);
    free(nic->forwards);
    free(nic->target);
}

void config_free(struct config *config)
{
    if (!config)
        return;
    free(config->name);
    free(config->notes);
    free(config->machine);
    free(config->cpu_model);
    free(config->kernel);
    free(config->initrd);
    free(config->append);
    for (size_t i = 0; i < config->disk_count; i++)
        free(config->disks[i].path);
    free(config->disks);
    config_remove_nics(config);
    free(config->listed);
    config_bases_clear(config);
    free(config->qemu_version);
    free(config);
}

bool config_set_string(char **field, const char *text, struct err *err)
{
    char *copy = NULL;

    if (text) {
        copy = strdup(text);
        if (!copy)
            return err_oom(err);
    }
    free(*field);
    *field = copy;
    return true;
}

bool config_add_disk(struct config *config, const struct config_disk *disk, struct err *err)
{
    AUTO_FREE char *path = NULL;

    if (!config_set_string(&path, disk->path, err))
        return false;
    struct config_disk *disks = reallocarray(config->disks, config->disk_count + 1, sizeof *config->disks);
    if (!disks)
        return err_oom(err);
    config->disks = disks;
    size_t at = config->disk_count++;
    for (; at > 0 && (disks[at - 1].bus > disk->bus ||
                      (disks[at - 1].bus == disk->bus && disks[at - 1].slot > disk->slot));
         at--)
        disks[at] = disks[at - 1];
    disks[at] = *disk;
    disks[at].path = TAKE(path);
    return true;
}

static bool copy_forwards(struct config_nic *nic, const struct config_nic *from, struct err *err)
{
    if (from->forward_count == 0)
        return true;
    nic->forwards = calloc(from->forward_count, sizeof *nic->forwards);
    if (!nic->forwards)
        return err_oom(err);
    for (; nic->forward_count < from->forward_count; nic->forward_count++)
        if (!config_set_string(&nic->forwards[nic->forward_count], from->forwards[nic->forward_count], err))
            return false;
    return true;
}

bool config_add_nic(struct config *config, const struct config_nic *nic, struct err *err)
{
    struct config_nic *nics = reallocarray(config->nics, config->nic_count + 1, sizeof *config->nics);

    if (!nics)
        return err_oom(err);
    config->nics = nics;
    struct config_nic *copy = &nics[config->nic_count];
    *copy = (struct config_nic){.kind = nic->kind};
    memcpy(copy->mac, nic->mac, sizeof copy->mac);
    if (!config_set_string(&copy->target, nic->target, err) || !copy_forwards(copy, nic, err)) {
        nic_done(copy);
        return false;
    }
    config->nic_count++;
    return true;
}

void config_remove_nics(struct config *config)
{
    for (size_t i = 0; i < config->nic_count; i++)
        nic_done(&config->nics[i]);
    free(config->nics);
    config->nics = NULL;
    config->nic_count = 0;
}

bool config_add_listed(struct config *config, const struct config_listed *listed, struct err *err)
{
    struct config_listed *list = reallocarray(config->listed, config->listed_count + 1, sizeof *list);

    if (!list)
        return err_oom(err);
    config->listed = list;
    list[config->listed_count++] = *listed;
    return true;
}

void config_clear_saved(struct config *config)
{
    config->saved = config->memory = (struct guid){0};
    config->saved_state = STATE_OFF;
    config->accel_used = ACCEL_AUTO;
    free(config->qemu_version);
    config->qemu_version = NULL;
}

static bool copy_strings(struct config *copy, const struct config *config, struct err *err)
{
    return config_set_string(&copy->name, config->name, err) &&
           config_set_string(&copy->notes, config->notes, err) &&
           config_set_string(&copy->machine, config->machine, err) &&
           config_set_string(&copy->cpu_model, config->cpu_model, err) &&
           config_set_string(&copy->kernel, config->kernel, err) &&
           config_set_string(&copy->initrd, config->initrd, err) &&
           config_set_string(&copy->append, config->append, err) &&
           config_set_string(&copy->qemu_version, config->qemu_version, err);
}

static bool copy_arrays(struct config *copy, const struct config *config, struct err *err)
{
    for (size_t i = 0; i < config->disk_count; i++)
        if (!config_add_disk(copy, &config->disks[i], err))
            return false;
    for (size_t i = 0; i < config->nic_count; i++)
        if (!config_add_nic(copy, &config->nics[i], err))
            return false;
    if (!config_bases_copy(copy, config, err))
        return false;
    if (config->listed_count == 0)
        return true;
    copy->listed = calloc(config->listed_count, sizeof *copy->listed);
    if (!copy->listed)
        return err_oom(err);
    memcpy(copy->listed, config->listed, config->listed_count * sizeof *copy->listed);
    copy->listed_count = config->listed_count;
    return true;
}

struct config *config_copy(const struct config *config)
{
    AUTO_CONFIG struct config *copy = calloc(1, sizeof *copy);
    struct err err;

    if (!copy)
        return NULL;
    *copy = *config;
    copy->name = copy->notes = copy->machine = copy->cpu_model = NULL;
    copy->kernel = copy->initrd = copy->append = copy->qemu_version = NULL;
    copy->disks = NULL;
    copy->nics = NULL;
    copy->listed = NULL;
    copy->bases = NULL;
    copy->base_count = 0;
    copy->disk_count = copy->nic_count = copy->listed_count = 0;
    if (!copy_strings(copy, config, &err) || !copy_arrays(copy, config, &err))
        return NULL;
    return TAKE(copy);
}

bool config_load(const struct io *io, const char *path, const char *vm_dir, struct config **ret_config,
                 struct err *err)
{
    AUTO_BUF struct buf buf = BUF_INIT;

    return file_read_all(io, path, CONFIG_XML_MAX_BYTES, &buf, err) &&
           config_parse(buf.data, buf.length, path, vm_dir, ret_config, err);
}
