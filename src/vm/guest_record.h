/* What a guest's process directory tells the next worker, if this one dies: what neither the VM's file nor QEMU knows. Which image
 * each disk's writes go to is not in it: that is what the VM's file says, at every instant. */
#pragma once

#include "config.h"

#include <sys/types.h>

#define GUEST_RECORD_FILE "guest.json"

/* A disk's socket, by the place of its drive. */
struct guest_record_export {
    char disk[32]; /* as machine_disk_id() has it */
    char *socket;  /* owned */
};

struct guest_record {
    pid_t pid;
    uint64_t started;          /* vm_process_started(): with the pid it names one process */
    struct guid generation_id; /* of the settings that it was started from: going back draws a new one */
    enum config_accel accel;
    bool is_to_run;            /* so the VM's user wants it */
    bool resources_held;       /* forwarded ports are still to be added */
    char *disks_dir;           /* owned */
    char *memory;              /* the `.bin` that its memory is mapped from; owned, NULL: none */
    struct guest_record_export *exports; /* owned */
    size_t export_count;
};

/* Replaces the one in the directory, whole or not at all. */
bool guest_record_write(const char *process_dir, const struct guest_record *record, struct err *err) MUST_CHECK;
/* ERR_NOT_FOUND: there is none, the guest was not ready yet. ERR_CORRUPT. */
bool guest_record_read(const char *process_dir, struct guest_record *ret_record, struct err *err) MUST_CHECK;
void guest_record_done(struct guest_record *record);
