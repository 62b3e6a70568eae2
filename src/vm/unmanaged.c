/* A machine that is alive without its worker: how to end it. How it gets another one: adopt.c. */
#include "vm.h"

#include "auto.h"
#include "processes.h"
#include "runtime.h"
#include "store.h"

#include <time.h>

#define END_TIMEOUT_MS 10000
#define LOOK_EVERY_MS  20

static bool processes_end(const char *vm_dir, const char *dir, unsigned *ended, struct err *err)
{
    AUTO(vm_processes_done) struct vm_processes found = {0};

    if (!vm_processes_find(vm_dir, dir, &found, err))
        return false;
    for (size_t i = 0; i < found.count; i++) {
        if (!found.items[i].dir || !vm_process_end(&found.items[i]))
            continue;
        runtime_remove(found.items[i].dir); /* its user has ended it: there is nothing to be told of it */
        (*ended)++;
    }
    return true;
}

bool vm_end_unmanaged(const char *vm_dir, struct err *err)
{
    AUTO_FREE char *dir = NULL;
    enum store_lock_state state;
    struct store_owner owner;
    unsigned ended = 0;

    if (!runtime_dir(vm_dir, &dir, err))
        return false;
    /* Again and again: a worker that died while it started QEMU leaves a child that becomes QEMU only now. */
    for (unsigned waited_ms = 0; waited_ms < END_TIMEOUT_MS; waited_ms += LOOK_EVERY_MS) {
        if (!processes_end(vm_dir, dir, &ended, err) || !store_probe(vm_dir, &state, &owner, err))
            return false;
        if (state != STORE_UNMANAGED)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = LOOK_EVERY_MS * 1000000L}, NULL);
    }
    return err_set(err, ERR_STATE, "%s: its guest is alive, but %s of its processes could be ended from this host",
                   vm_dir, ended ? "not all" : "none");
}
