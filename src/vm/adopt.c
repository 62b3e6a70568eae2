/* A machine that is alive without its worker gets another one (*The life of processes*).
 *
 * Two QEMUs can be there: a going back was interrupted, or a guest that stood was about to go on in a fresh process. Whose guest it is
 * says the VM's file: going back draws a new generation id, which the commit brings into the file, and each process has the one that
 * it was started from in its record. Where the file says that the VM is Saved it is nobody's: its memory is in files, and what runs
 * has either not been told to go on yet, or not yet been ended. A process without a record was not ready when its worker died: it has
 * not run an instruction that counts. */
#include "vm_priv.h"

#include "auto.h"
#include "buf.h"
#include "claim.h"
#include "file.h"
#include "guest_record.h"
#include "log.h"
#include "processes.h"
#include "runtime.h"

#include <errno.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define CHILD_TIMEOUT_MS 10000 /* until a child of the dead worker has become QEMU */
#define LOOK_EVERY_MS    20
#define ATTEMPTS         3 /* QEMU may end while it is adopted */

static bool all_are_qemu(const struct vm_processes *processes)
{
    for (size_t i = 0; i < processes->count; i++)
        if (!processes->items[i].dir)
            return false;
    return processes->count > 0;
}

static bool processes_wait(const struct vm *vm, struct vm_processes *ret_processes, struct err *err)
{
    for (unsigned waited_ms = 0;; waited_ms += LOOK_EVERY_MS) {
        enum store_lock_state state;
        struct store_owner owner;
        if (!vm_processes_find(vm->dir, vm->runtime_dir, ret_processes, err) ||
            !store_probe(vm->dir, &state, &owner, err))
            return false;
        if (all_are_qemu(ret_processes) || !owner.machine_is_alive)
            return true;
        vm_processes_done(ret_processes);
        if (waited_ms >= CHILD_TIMEOUT_MS)
            return err_set(err, ERR_STATE,
                           "its guest is alive, but not as a process of this user, host and runtime folder (%s)",
                           vm->runtime_dir);
        nanosleep(&(struct timespec){.tv_nsec = LOOK_EVERY_MS * 1000000L}, NULL);
    }
}

/* *ret_fits: it is the VM's machine. One that is ready has a record; that it cannot be read is no reason to end a guest. */
static bool is_the_vms(const struct vm *vm, const struct vm_process *process, struct guest_record *ret_record, bool *ret_fits,
                       struct err *err)
{
    const struct config *config = vm_config(vm);
    struct guest_record record;

    *ret_fits = false;
    if (guid_is_set(&config->saved) || !process->dir)
        return true;
    if (!guest_record_read(process->dir, &record, err)) {
        if (err->code != ERR_NOT_FOUND)
            return false;
        log_info("QEMU %ld was not ready: %s", (long)process->pid, err->text);
        return true;
    }
    *ret_fits = record.pid == process->pid && record.started == process->started &&
                strcmp(record.generation_id.text, config->generation_id.text) == 0;
    if (*ret_fits)
        *ret_record = record;
    else
        guest_record_done(&record);
    return true;
}

/* Of two that are, the one that was started later has loaded what the other was saved to. *ret_chosen: the count if there is none. */
static bool choose(const struct vm *vm, const struct vm_processes *processes, struct guest_record *ret_record, size_t *ret_chosen,
                   struct err *err)
{
    size_t chosen = processes->count;

    for (size_t i = 0; i < processes->count; i++) {
        struct guest_record record;
        bool fits;
        if (!is_the_vms(vm, &processes->items[i], &record, &fits, err))
            return false;
        if (!fits)
            continue;
        if (chosen < processes->count && processes->items[chosen].started > processes->items[i].started) {
            guest_record_done(&record);
            continue;
        }
        guest_record_done(ret_record);
        *ret_record = record;
        chosen = i;
    }
    *ret_chosen = chosen;
    return true;
}

static bool others_end(const struct vm_processes *processes, size_t chosen, struct err *err)
{
    for (size_t i = 0; i < processes->count; i++) {
        const struct vm_process *process = &processes->items[i];
        if (i == chosen)
            continue;
        log_info("QEMU %ld is not the VM's any more, or not yet: ending it", (long)process->pid);
        if (!vm_process_end(process))
            return err_set(err, ERR_STATE, "QEMU's process %ld cannot be ended", (long)process->pid);
        if (process->dir)
            runtime_remove(process->dir);
    }
    return true;
}

/* Nobody else has what it uses: byte 0 is ours, and who holds byte 1 is our machine alone. Nothing of it is worth a guest that runs. */
static void present_recover(struct vm *vm)
{
    const char *const kept[] = {vm->present->process_dir, vm->present->disks_dir};
    struct err err;

    runtime_sweep(vm->runtime_dir, kept, ARRAY_SIZE(kept));
    if (!store_alive_share(vm->store, &err))
        log_error("%s", err.text);
    if (!claim_take(&vm_config(vm)->guid, vm->dir, &vm->claim, &err))
        log_error("%s", err.text);
    if (!vm_recover(vm, &err))
        log_error("what nothing needs stays: %s", err.text);
    if (!guest_take_resources(vm->present, &err))
        log_error("%s", err.text);
}

/* True without a present: it was nobody's, or has ended meanwhile. */
static bool adopt(struct vm *vm, struct err *err)
{
    AUTO(vm_processes_done) struct vm_processes processes = {0};
    AUTO(guest_record_done) struct guest_record record = {0};

    if (!processes_wait(vm, &processes, err))
        return false;
    size_t chosen;
    if (!choose(vm, &processes, &record, &chosen, err) || !others_end(&processes, chosen, err))
        return false;
    if (chosen == processes.count)
        return true;
    const struct vm_process *process = &processes.items[chosen];
    int pidfd = dup(process->pidfd);
    if (pidfd < 0)
        return err_oom(err);
    if (!guest_adopt(vm_config(vm), process->dir, &record, pidfd, &vm->present, err))
        return false;
    present_recover(vm);
    return true;
}

static bool tell_way_out(const struct vm *vm, struct err *err)
{
    const char *name = vm_config(vm)->name;
    struct err why = *err;

    err_set_text(err, why.code, why.sys,
                 "%s: its worker has ended, and its guest could not be given another one: %.300s; `bough stop --force "
                 "%s` ends the guest, the disks keep what was written",
                 name, why.text, name);
    return false;
}

bool vm_open_or_adopt(const char *vm_dir, struct vm **ret_vm, struct err *err)
{
    for (unsigned attempt = 0; attempt < ATTEMPTS; attempt++) {
        struct vm *vm;
        bool alive;
        if (!vm_open_locked(vm_dir, "worker", &vm, &alive, err))
            return false;
        bool opened = alive ? adopt(vm, err) || tell_way_out(vm, err) : vm_recover_dead(vm, err);
        if (opened && (!alive || vm->present)) {
            vm_follow_name(vm);
            *ret_vm = vm;
            return true;
        }
        vm_close(vm);
        if (!opened && err->sys != EPIPE) /* else QEMU has ended meanwhile */
            return false;
    }
    return err_set(err, ERR_STATE, "%s: its machine is alive, and ends again and again", path_base(vm_dir));
}
