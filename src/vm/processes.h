/* The processes that keep a VM's machine alive: QEMU, also where nobody manages it.
 *
 * What says so is that they have byte 1 of the VM's lock file by a descriptor that they inherited from a worker; no record could be
 * as true. QEMU is told from a child that is still to become it by its command line, which names its monitor's socket in the VM's
 * runtime directory. */
#pragma once

#include "err.h"

#include <stddef.h>
#include <stdint.h>
#include <sys/types.h>

struct vm_process {
    pid_t pid;
    int pidfd;        /* owned */
    uint64_t started; /* clock ticks since the host's start: with the pid it names one process */
    char *dir;        /* its process directory, owned; NULL: it is not QEMU yet, or not of this runtime directory */
};

struct vm_processes {
    struct vm_process *items; /* owned */
    size_t count;
};

/* Those of this user that are alive now. */
bool vm_processes_find(const char *vm_dir, const char *runtime_dir, struct vm_processes *ret_processes,
                       struct err *err) MUST_CHECK;
void vm_processes_done(struct vm_processes *processes);
/* SIGKILL, and its end, for which it waits ten seconds: false if it lives on. */
bool vm_process_end(const struct vm_process *process);
/* 0 if there is no such process. */
uint64_t vm_process_started(pid_t pid);
