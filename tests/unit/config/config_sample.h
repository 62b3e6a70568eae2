/* A VM's settings for tests: small, and with everything. */
#pragma once

#include "config.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#define SAMPLE_DIR "/home/user/vms/web"
#define SAMPLE_VM  "11111111-1111-4111-8111-111111111111"

static inline void sample_check(bool ok, const struct err *err)
{
    if (ok)
        return;
    fprintf(stderr, "sample: %s\n", err->text);
    abort();
}

static inline struct guid sample_guid(unsigned number)
{
    struct guid guid;

    snprintf(guid.text, sizeof guid.text, "%08X-0000-4000-8000-%012X", number, number);
    return guid;
}

static inline void sample_disk(struct config *config, enum config_bus bus, unsigned slot, bool is_cdrom,
                               const char *path)
{
    struct config_disk disk = {.bus = bus, .slot = slot, .is_cdrom = is_cdrom, .path = (char *)path};
    struct err err;

    sample_check(config_add_disk(config, &disk, &err), &err);
}

/* One IDE disk web.vhd in vm_dir, nothing else. */
static inline struct config *sample_vm(const char *vm_dir)
{
    struct config *config = config_new();
    struct err err;
    char path[512];

    sample_check(config && config_set_string(&config->name, "web", &err) &&
                     config_set_string(&config->machine, "pc-i440fx-7.2", &err) &&
                     config_set_string(&config->cpu_model, "qemu64", &err) &&
                     guid_parse(SAMPLE_VM, &config->guid),
                 &err);
    config->generation = 1;
    config->memory_bytes = 64U << 20;
    config->cpus = 1;
    config->created_ms = 1204286400123;
    snprintf(path, sizeof path, "%s/web.vhd", vm_dir);
    sample_disk(config, BUS_IDE, 0, false, path);
    return config;
}

static inline void sample_nics(struct config *config)
{
    char *forwards[] = {(char *)"tcp:2222:22", (char *)"udp:5353:53"};
    struct config_nic user = {
        .kind = NIC_USER, .mac = "52:54:00:12:34:56", .forwards = forwards, .forward_count = 2};
    struct config_nic bridge = {.kind = NIC_BRIDGE, .mac = "52:54:00:12:34:57", .target = (char *)"br0"};
    struct config_nic tap = {.kind = NIC_TAP, .mac = "52:54:00:12:34:58", .target = (char *)"tap-1.2"};
    struct err err;

    sample_check(config_add_nic(config, &user, &err) && config_add_nic(config, &bridge, &err) &&
                     config_add_nic(config, &tap, &err),
                 &err);
}

/* Generation 1, every field set, characters that XML has to escape. */
static inline struct config *sample_full_vm(void)
{
    struct config *config = sample_vm(SAMPLE_DIR);
    struct err err;

    sample_check(config_set_string(&config->name,
                                   "w\xC3\xA9"
                                   "b <&> \"1\"",
                                   &err) &&
                     config_set_string(&config->notes, "first\r\nsecond\t]]> &amp; \xE2\x82\xAC\n  ", &err) &&
                     config_set_string(&config->kernel, "/boot/vmlinuz-6.1", &err) &&
                     config_set_string(&config->initrd, SAMPLE_DIR "/initrd <new>.img", &err) &&
                     config_set_string(&config->append, "console=ttyS0 root=\"/dev/sda\"", &err) &&
                     config_set_string(&config->qemu_version, "7.2.22", &err),
                 &err);
    config->generation = 1;
    config->memory_bytes = 4ULL << 40;
    config->cpus = 255;
    config->accel = ACCEL_KVM;
    config->clock = CLOCK_HOST;
    config->display = DISPLAY_VNC;
    sample_disk(config, BUS_VIRTIO, 15, false, "/srv/disks/data.vhd");
    sample_disk(config, BUS_SCSI, 63, false, SAMPLE_DIR "/Snapshots/" SAMPLE_VM "/d.avhd");
    sample_disk(config, BUS_IDE, 3, true, NULL);
    sample_disk(config, BUS_SCSI, 7, true, "/srv/iso/a b.iso");
    sample_nics(config);
    config->saved = sample_guid(1);
    config->memory = sample_guid(2);
    config->saved_state = STATE_PAUSED;
    config->accel_used = ACCEL_KVM;
    for (unsigned i = 10; i < 13; i++) {
        struct config_listed listed = {.guid = sample_guid(i)};
        if (i > 10)
            listed.parent = sample_guid(i - 1);
        sample_check(config_add_listed(config, &listed, &err), &err);
    }
    config->parent = sample_guid(12);
    struct config_base brought = {.path = (char *)"/srv/disks/<base>.vhd", .size_bytes = 1536, .mtime_seconds = 1204286400,
                                  .mtime_ns = 7, .inode = UINT64_MAX};
    struct config_base own = {.path = (char *)SAMPLE_DIR "/web.vhd", .mtime_seconds = -1, .mtime_ns = 999999999};
    sample_check(config_base_set(config, &brought, &err) && config_base_set(config, &own, &err), &err);
    return config;
}

/* Generation 2, taken while it ran. */
static inline struct config *sample_snapshot(void)
{
    struct config *config = sample_vm(SAMPLE_DIR);
    struct err err;

    free(config->disks[0].path);
    config->disk_count = 0;
    sample_disk(config, BUS_SCSI, 0, false, SAMPLE_DIR "/web.vhd");
    sample_check(config_set_string(&config->name, "before /etc", &err) &&
                     config_set_string(&config->machine, "pc-q35-7.2", &err) &&
                     config_set_string(&config->qemu_version, "7.2.22", &err),
                 &err);
    config->generation = 2;
    config->nvram = sample_guid(3);
    config->is_snapshot = true;
    config->snapshot = sample_guid(10);
    config->state_when_taken = STATE_RUNNING;
    config->memory = sample_guid(4);
    config->accel_used = ACCEL_TCG;
    config->pause_us = 4711;
    config->is_scheduled = true;
    return config;
}
