/* The settings of a VM, now or as a snapshot keeps them: a value, and its XML (docs/files.md has the
 * elements).
 *
 * One type serves both files: `Virtual Machines/<VMGUID>.xml` fills the vm part, `Snapshots/<SNAPGUID>.xml`
 * the snapshot part; the hardware is common to both. Strings are owned and may be NULL where that is said.
 * Paths are absolute in memory; in the XML they are relative to the VM's folder where they lie in it. */
#pragma once

#include "err.h"
#include "guid.h"
#include "io.h"

#include <stddef.h>
#include <stdint.h>

#define CONFIG_VERSION       "1.0"
#define CONFIG_NAME_MAX      100 /* characters of a VM's or snapshot's name */
#define CONFIG_XML_MAX_BYTES (64U << 20)

enum config_bus { BUS_IDE, BUS_SCSI, BUS_VIRTIO };
enum config_accel { ACCEL_AUTO, ACCEL_KVM, ACCEL_TCG };
enum config_clock { CLOCK_VM, CLOCK_HOST };
enum config_display { DISPLAY_NONE, DISPLAY_VNC };
enum config_nic_kind { NIC_USER, NIC_BRIDGE, NIC_TAP };
enum config_state { STATE_OFF, STATE_RUNNING, STATE_PAUSED }; /* of a snapshot when taken; of saved memory */

const char *config_bus_name(enum config_bus bus); /* "ide", "scsi", "virtio"; parse: false if unknown */
bool config_bus_parse(const char *text, enum config_bus *ret_bus);
const char *config_accel_name(enum config_accel accel); /* "auto", "kvm", "tcg" */
bool config_accel_parse(const char *text, enum config_accel *ret_accel);
const char *config_clock_name(enum config_clock clock); /* "vm", "host" */
bool config_clock_parse(const char *text, enum config_clock *ret_clock);
const char *config_display_name(enum config_display display); /* "none", "vnc" */
bool config_display_parse(const char *text, enum config_display *ret_display);
const char *config_state_name(enum config_state state); /* "off", "running", "paused" */
bool config_state_parse(const char *text, enum config_state *ret_state);
const char *config_nic_name(enum config_nic_kind kind); /* "user", "bridge", "tap" */
bool config_nic_parse(const char *text, enum config_nic_kind *ret_kind);
unsigned config_bus_slots(enum config_bus bus); /* how many places the bus has: 4, 64, 16 */

/* A hard disk or an optical drive. Its place (bus, slot) is pinned: IDE 0..3 (bus slot/2, unit slot%2),
 * SCSI 0..63 (lun), virtio 0..15 (each a PCI device of its own). */
struct config_disk {
    enum config_bus bus;
    unsigned slot;
    bool is_cdrom;
    char *path; /* hard disk: the image that takes the writes (VM) or is the point in time (snapshot); optical
                   drive: the ISO, NULL when empty */
    char image_id[33]; /* of a snapshot's hard disk: the image's own unique id when it was taken, 32 hexadecimal digits; "" not
                          known: a file of that name that has another one is not the point in time */
};

struct config_nic {
    enum config_nic_kind kind;
    char mac[18];    /* "52:54:00:xx:xx:xx" */
    char *target;    /* bridge or TAP interface; NULL for user */
    char **forwards; /* user only: "tcp:2222:22", host port first */
    size_t forward_count;
};

/* One line of the VM's list of committed snapshots. The parents stand here, so that the tree changes with the
 * one commit; the copy in each snapshot's own file serves to rebuild a lost VM file. */
struct config_listed {
    struct guid guid, parent; /* parent unset at a root */
};

/* An image under the VM's and its snapshots' disks that Bough has not made as a layer: what it was when it was noted. Nobody may change it;
 * other programs could. One that the VM writes itself, with no snapshot over it, is not noted. */
struct config_base {
    char *path;
    uint64_t size_bytes;   /* of the file */
    int64_t mtime_seconds; /* since 1970 */
    uint32_t mtime_ns;
    uint64_t inode; /* a copy of the VM's folder has another one */
};

struct config {
    struct guid guid;   /* global_id: the VM's, also in a snapshot's file */
    char *name;         /* the VM's name, or the snapshot's */
    char *notes;        /* never NULL, "" if none */
    int64_t created_ms; /* since 1970, UTC: of the VM, or of the snapshot */
    struct guid parent; /* what this snapshot, or the VM (the Now node), descends from; unset at a root */

    /* hardware */
    unsigned generation;   /* 1: BIOS, pc; 2: UEFI, q35 */
    uint64_t memory_bytes; /* multiple of 1 MiB */
    unsigned cpus;
    char *machine;   /* QEMU's machine type with its version, e.g. "pc-i440fx-7.2" */
    char *cpu_model; /* e.g. "qemu64", "max"; pinned when the VM is made */
    enum config_accel accel;
    enum config_clock clock;
    enum config_display display;
    char *kernel, *initrd, *append; /* direct boot; NULL if not used. Files of the user, used in place */
    struct config_disk *disks;      /* in the order of their places: by bus, then slot */
    size_t disk_count;
    struct config_nic *nics;
    size_t nic_count;
    struct guid generation_id; /* the vmgenid device's: another one after each going back, so that the guest draws new
                                  random numbers; unset: another one at each start */
    struct guid nvram; /* names <GUID>.nvram; unset for generation 1 */

    /* saved memory: a snapshot's, or that of a VM that is Saved */
    struct guid memory; /* the id in .bin and .vsv that binds them to this file; unset if there is none. Files
                           that are shared keep it: it is not their name */
    char *qemu_version; /* NULL if there is none, or not known */
    enum config_accel accel_used; /* the one that really ran; ACCEL_AUTO if there is none, or not known */

    /* the VM's file alone */
    struct guid saved; /* names <GUID>.bin and .vsv in Virtual Machines/VMGUID/; unset: the VM is not Saved */
    enum config_state saved_state; /* what `start` makes of it: STATE_RUNNING or STATE_PAUSED */
    struct config_listed *listed;
    size_t listed_count;
    struct config_base *bases;
    size_t base_count;

    /* a snapshot's file alone */
    bool is_snapshot;
    struct guid snapshot;               /* names the file and the folder beside it */
    enum config_state state_when_taken; /* not off: <SNAPGUID>.bin and .vsv are in the snapshot's folder */
    uint64_t pause_us;                  /* STOP to RESUME, for people; 0 if taken off */
    bool is_scheduled;                  /* taken by a timer: `prune` may delete it, and no other */
};

struct config *config_new(void);         /* all empty, notes "" ; NULL when out of memory */
void config_free(struct config *config); /* accepts NULL */
AUTO_DEFINE(auto_config_free, struct config, config_free)
#define AUTO_CONFIG AUTO(auto_config_free)
struct config *config_copy(const struct config *config); /* deep; NULL when out of memory */
/* Replaces an owned string; text may be NULL. */
bool config_set_string(char **field, const char *text, struct err *err) MUST_CHECK;
/* Copies, to its place in the order; pointers to other disks become invalid. */
bool config_add_disk(struct config *config, const struct config_disk *disk, struct err *err) MUST_CHECK;
bool config_add_nic(struct config *config, const struct config_nic *nic,
                    struct err *err) MUST_CHECK; /* copies */
void config_remove_nics(struct config *config);
bool config_add_listed(struct config *config, const struct config_listed *listed, struct err *err) MUST_CHECK;
const struct config_base *config_base_find(const struct config *config, const char *path); /* NULL: not noted */
/* Copies, in the place of an older note. */
bool config_base_set(struct config *config, const struct config_base *base, struct err *err) MUST_CHECK;
bool config_base_forget(struct config *config, const char *path); /* false: it was not noted */
void config_bases_clear(struct config *config);
bool config_bases_copy(struct config *to, const struct config *from, struct err *err) MUST_CHECK;
/* Forgets saved memory: saved, memory, qemu_version, accel_used. */
void config_clear_saved(struct config *config);

/* Is it a name for a VM (no '/', not "." or "..", no control characters, no leading '-' or '.', trimmed not
 * blank, 1 to 100 characters of valid UTF-8), or for a snapshot (the same, but '/' and leading '.' are
 * allowed)? */
bool config_check_vm_name(const char *name, struct err *err) MUST_CHECK;
bool config_check_snapshot_name(const char *name, struct err *err) MUST_CHECK;
/* Ranges and contradictions: memory 16 MiB..4 TiB, cpus 1..255, slots free and in range, generation 2 without
 * IDE hard disks, forwards well-formed, ... Called by config_parse() and before each write. */
bool config_check(const struct config *config, struct err *err) MUST_CHECK;

/* vm_dir: absolute, clean; what relative paths are relative to. file_name for messages only. Hostile input:
 * bounded, no network, no entities. Errors: ERR_CORRUPT naming file and element; ERR_UNSUPPORTED for a newer
 * major version. */
bool config_parse(const void *xml, size_t length, const char *file_name, const char *vm_dir,
                  struct config **ret_config, struct err *err) MUST_CHECK;
/* UTF-8 XML in *ret_xml (owned, malloc) */
bool config_format(const struct config *config, const char *vm_dir, char **ret_xml, size_t *ret_length,
                   struct err *err) MUST_CHECK;
bool config_load(const struct io *io, const char *path, const char *vm_dir, struct config **ret_config,
                 struct err *err) MUST_CHECK;
