/* A machine that is alive without its worker: how to end it. */
#include "vm.h"

#include "auto.h"
#include "log.h"
#include "machine.h"
#include "runtime.h"
#include "store.h"

#include <time.h>

#define END_TIMEOUT_MS 10000

struct end_scan {
    unsigned ended;
};

static bool end_process(void *context, const char *process_dir, pid_t pid, uint64_t start_time, struct err *err)
{
    struct end_scan *scan = context;

    if (!machine_kill_stray(pid, start_time, err))
        return false;
    scan->ended++;
    runtime_remove(process_dir);
    return true;
}

bool vm_end_unmanaged(const char *vm_dir, struct err *err)
{
    AUTO_FREE char *dir = NULL;
    struct end_scan scan = {0};
    enum store_lock_state state;
    struct store_owner owner;

    if (!runtime_dir(vm_dir, &dir, err) || !runtime_each_process(dir, end_process, &scan, err))
        return false;
    /* The kernel lets the lock go when the process has really ended. */
    for (unsigned waited_ms = 0; waited_ms < END_TIMEOUT_MS; waited_ms += 10) {
        if (!store_probe(vm_dir, &state, &owner, err))
            return false;
        if (state != STORE_UNMANAGED)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
    return err_set(err, ERR_STATE, "%s: its guest is alive, but %s of its processes could be found on this host",
                   vm_dir, scan.ended ? "not all" : "none");
}
