/* A VM under its lock, with its machine if it runs, and the operations on it. Operations take and give JSON
 * (docs/operations.md), so that a command's own process and a worker do the same. */
#pragma once

#include "err.h"
#include "progress.h"

#include <jansson.h>

struct vm;

/* Makes a VM in the home. arguments: {"name", "memory": bytes, "cpus", "generation": 1|2, "disks": [{"size": bytes} or
 * {"path": file, "bus"?, "size"?}], "cdrom"?: path, "kernel"?, "initrd"?, "append"?, "nics": [{"kind", "target"?, "forwards"?:
 * ["tcp:2222:22"]}], "display", "accel", "clock"?, "notes"?, "dry_run"?}; all but name optional. *ret_value: {"guid", "path"}; of a dry run a plan. */
bool vm_create(const json_t *arguments, json_t **ret_value, struct err *err) MUST_CHECK;

/* Looks for damage in every file of the VM in that folder, also one that vm_open() refuses, and changes nothing. The VM may run: what
 * somebody writes meanwhile is only opened. *ret_value: docs/operations.md, `check`. ERR_CANCELLED, ERR_NO_MEMORY; ERR_BUSY if faults were
 * found and the VM was changed meanwhile; faults are no failure. */
bool vm_check(const char *vm_dir, const struct progress *progress, json_t **ret_value, struct err *err) MUST_CHECK;

/* check --repair: puts right what provably can be, of a VM that nobody has (ERR_BUSY), then checks it. *ret_value: that of vm_check(), with
 * what was done and, where the VM's file is lost and its place in the tree is not clear, what there is to choose from. */
struct vm_repair_options {
    const char *from; /* the snapshot that the VM descends from, where its own file is lost; NULL: it must be clear */
    bool dry_run;     /* tell, and change nothing */
};
bool vm_repair(const char *vm_dir, const struct vm_repair_options *options, const struct progress *progress, json_t **ret_value,
               struct err *err) MUST_CHECK;

/* A VM as a folder elsewhere. arguments: {"dir": absolute, "snapshot"?: selector, "name"?, "disks_only"?, "dry_run"?}. With a snapshot the
 * VM may run, and that snapshot alone becomes a VM; without, the VM's lock is taken. *ret_value: {"path", "outside": [path...]}, the media
 * and kernels that were left where they are. */
bool vm_export(const char *vm_dir, const json_t *arguments, const struct progress *progress, json_t **ret_value,
               struct err *err) MUST_CHECK;
/* A VM of this home from a folder. arguments: {"dir", "name"?, "copy"?: another identity, "trust"?: files outside of the folder may be
 * named, "dry_run"?}. Nothing in the folder is believed, and nothing is changed in it, unless it lies in the home and gets another name.
 * *ret_value: {"name", "guid", "path"}. */
bool vm_import(const json_t *arguments, const struct progress *progress, json_t **ret_value, struct err *err) MUST_CHECK;

/* Takes the VM's lock (ERR_BUSY names the owner) and recovers. A machine that is alive without a manager is ERR_BUSY too: it wants a
 * worker. what: for the lock file. */
bool vm_open(const char *vm_dir, const char *what, struct vm **ret_vm, struct err *err) MUST_CHECK;
/* For a worker. A machine that is alive without a manager is adopted: its disks are served again, a save or going back that was in
 * progress is brought to the state of before or behind it as the VM's file says, and the guest goes on as its user wants it. Where that
 * cannot be, *err tells it, and the machine is as it was. */
bool vm_open_or_adopt(const char *vm_dir, struct vm **ret_vm, struct err *err) MUST_CHECK;
void vm_close(struct vm *vm); /* ends the engines; a machine that runs goes on without a manager. Accepts NULL */

/* Does the operation need, or may it end with, a machine? Then a worker must do it. From the VM as it is now. */
bool vm_needs_worker(struct vm *vm, const char *operation, const json_t *arguments);
/* arguments is borrowed. ERR_USAGE for an unknown operation or argument. *ret_value is the caller's reference. */
bool vm_run(struct vm *vm, const char *operation, const json_t *arguments, const struct progress *progress,
            json_t **ret_value, struct err *err) MUST_CHECK;
/* Is there a machine? When there is none any more, the worker ends. */
bool vm_is_alive(const struct vm *vm);
/* For poll(): readable when QEMU has ended, or has something to say. -1 when there is no machine. */
int vm_machine_fd(const struct vm *vm);
int vm_monitor_fd(const struct vm *vm);
/* Takes QEMU's events, and its end: then the VM is Off and its disks are closed. True if there was anything. To be called
 * until there is not before each wait for vm_monitor_fd(): any command to QEMU may have read events already. */
bool vm_handle_events(struct vm *vm);
/* A guest that QEMU stopped for want of space is set going again by vm_tend(), and what a restored one touched first is noted; it
 * wants to be called after so many milliseconds; -1: there is nothing to do. */
int vm_wait_ms(const struct vm *vm);
bool vm_tend(struct vm *vm); /* true if it was set going */

/* --- merging behind the back of a machine that runs, for its worker --- */
int vm_merger_fd(const struct vm *vm); /* for poll(): readable when vm_merge_on() has something to do */
bool vm_is_merging(const struct vm *vm);
/* Begins the next merge, or brings one to its end; to be called when nobody wants an operation. True if there was anything. */
bool vm_merge_on(struct vm *vm);
/* There is no room for one: vm_merge_on() wants to be called after so many milliseconds; -1: that is not so. */
int vm_merge_wait_ms(const struct vm *vm);
/* It stays pending until the next start, delete or merge. True if there was one. */
bool vm_merge_cancel(struct vm *vm);

/* Ends a machine whose worker is gone (`stop --force` of an unmanaged VM). The VM is Off behind it, and recovered when it is opened
 * next. ERR_STATE if it lives on: not on this host, or another user's. */
bool vm_end_unmanaged(const char *vm_dir, struct err *err) MUST_CHECK;
