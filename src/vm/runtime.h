/* The runtime directory of a VM: the sockets and logs of its processes. It lives on a file system that dies with the host, because what
 * it tells is true no longer than that. */
#pragma once

#include "err.h"

#include <stddef.h>

#define RUNTIME_CONTROL_SOCKET "control.sock"
#define RUNTIME_WORKER_LOG     "worker.log"

/* The directory of the VM in that folder, made (0700) if it is missing: $BOUGH_RUNTIME, else /run/user/UID/bough where it
 * outlives the login, else /dev/shm/bough-UID; in it a short name from the folder's device and inode. ERR_INVALID if what is
 * there is not ours alone. Owned string. */
bool runtime_dir(const char *vm_dir, char **ret_dir, struct err *err) MUST_CHECK;

/* The same without making or checking anything, for those who only look. */
bool runtime_dir_path(const char *vm_dir, char **ret_dir, struct err *err) MUST_CHECK;

/* The directory of the dirty logs of all images that this user's processes write (disk.h, log_dir), made (0700) if it is missing:
 * always in the same place, $BOUGH_RUNTIME or /dev/shm/bough-UID, since whoever opens an image next must find its log. Owned
 * string. */
bool runtime_dirty_dir(char **ret_dir, struct err *err) MUST_CHECK;

/* The directory of the GUIDs that run (claim.h), made (0700) if it is missing. Owned string. */
bool runtime_guids_dir(char **ret_dir, struct err *err) MUST_CHECK;

/* A directory for one QEMU process in it, fresh and empty: a number. Owned string. */
bool runtime_process_dir(const char *dir, char **ret_dir, struct err *err) MUST_CHECK;
/* Removes a process directory and all in it. What is not there is fine. */
void runtime_remove(const char *process_dir);
/* Removes all process directories but those that are kept (their paths): nothing else of the VM is alive. */
void runtime_sweep(const char *dir, const char *const *kept, size_t count);
