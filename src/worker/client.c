#include "client.h"

#include "auto.h"
#include "file.h"
#include "last_end.h"
#include "runtime.h"
#include "spawn.h"
#include "store.h"
#include "store_look.h"
#include "unix_socket.h"
#include "vm.h"
#include "wire.h"
#include "work_mark.h"

#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#define RETRY_EVERY_MS    20
#define RETRY_FOR_MS      5000
#define ADOPT_FOR_MS      180000 /* a worker that adopts a guest, which may be waiting for a disk, does not listen yet */
#define SEND_TIMEOUT_MS   5000
#define STATUS_TIMEOUT_MS 2000
#define CANCEL_CHECK_MS   100

/* One call: which VM, what, and how it is to be reported. */
struct call {
    unsigned retry_ms; /* how long it is worth trying again, from the beginning */
    bool begun; /* the worker has said so: to ask again would do it twice */
    const char *name;
    char *vm_dir;
    const char *operation;
    json_t *arguments; /* NULL for none */
    const struct progress *progress;
};

static void call_done(struct call *call)
{
    json_decref(call->arguments);
    free(call->vm_dir);
}

static bool control_connect(const char *vm_dir, int *ret_fd, struct err *err)
{
    AUTO_FREE char *dir = NULL;

    if (!runtime_dir(vm_dir, &dir, err))
        return false;
    AUTO_FREE char *path = path_join(dir, RUNTIME_CONTROL_SOCKET);
    if (!path)
        return err_oom(err);
    return unix_connect(path, 0, ret_fd, err);
}

static bool request_send(int fd, const char *operation, json_t *arguments, struct err *err)
{
    json_t *message = json_pack("{s:s, s:O*}", "execute", operation, "arguments", arguments);

    if (!message)
        return err_oom(err);
    bool sent = wire_send(fd, message, SEND_TIMEOUT_MS, err);
    json_decref(message);
    return sent;
}

/* On a connection of its own: the call's waits for its answer. */
static void cancel_send(const struct call *call)
{
    int connected;
    struct err ignored;
    json_t *answer = NULL;

    if (!control_connect(call->vm_dir, &connected, &ignored))
        return;
    AUTO_FD int fd = connected;
    struct wire wire = {.fd = fd};
    if (request_send(fd, "cancel", NULL, &ignored))
        (void)!wire_receive(&wire, STATUS_TIMEOUT_MS, &answer, &ignored);
    json_decref(answer);
    wire_done(&wire);
}

static void progress_read(const struct call *call, const json_t *progress)
{
    const char *phase = json_string_value(json_object_get(progress, "phase"));
    json_int_t done = json_integer_value(json_object_get(progress, "done"));
    json_int_t total = json_integer_value(json_object_get(progress, "total"));

    progress_report(call->progress, phase ? phase : "", (uint64_t)done, (uint64_t)total);
}

/* True when the message was the answer, or an error (*ret_value is NULL then). */
static bool is_answer(struct call *call, json_t *message, json_t **ret_value, struct err *err)
{
    json_t *value = json_object_get(message, "return");

    if (json_object_get(message, "begun")) {
        call->begun = true;
        return false;
    }
    if (json_object_get(message, "progress")) {
        progress_read(call, json_object_get(message, "progress"));
        return false;
    }
    *ret_value = value ? json_incref(value) : NULL;
    if (!value)
        wire_error_read(message, err);
    return true;
}

static bool answer_wait(struct call *call, int fd, json_t **ret_value, struct err *err)
{
    struct wire wire = {.fd = fd};
    bool cancel_sent = false;
    bool answered = false;
    json_t *value = NULL;

    while (!answered) {
        json_t *message;
        if (!wire_receive(&wire, CANCEL_CHECK_MS, &message, err)) {
            err_prefix_text(err, "%s: %s: the worker ended before it answered", call->operation, call->name);
            break;
        }
        if (message)
            answered = is_answer(call, message, &value, err);
        json_decref(message);
        if (!answered && !cancel_sent && progress_cancelled(call->progress)) {
            cancel_send(call);
            cancel_sent = true;
        }
    }
    wire_done(&wire);
    if (value)
        *ret_value = value;
    return value != NULL;
}

/* *ret_retry: the connection closed before the operation had begun, because the worker was just ending. */
static bool call_worker(struct call *call, int connected, json_t **ret_value, bool *ret_retry, struct err *err)
{
    AUTO_FD int fd = connected;

    /* A worker that could not begin has told why before it closed. */
    if (!request_send(fd, call->operation, call->arguments, err) && err->sys != EPIPE && err->sys != ECONNRESET)
        return false;
    if (answer_wait(call, fd, ret_value, err))
        return true;
    *ret_retry = !call->begun && (err->sys == EPIPE || err->sys == ECONNRESET);
    return false;
}

/* *ret_retry: somebody else took the VM before the worker did. */
static bool call_new_worker(struct call *call, json_t **ret_value, bool *ret_retry, struct err *err)
{
    bool ended; /* a worker that ends before it begins would do so again */
    int fd;

    if (worker_spawn(call->vm_dir, &fd, err) && call_worker(call, fd, ret_value, &ended, err))
        return true;
    *ret_retry = err->code == ERR_BUSY && !call->begun;
    return false;
}

/* The VM has no owner: this process does it, or a new worker. *ret_retry: somebody else was quicker. */
static bool call_unowned(struct call *call, json_t **ret_value, bool *ret_retry, struct err *err)
{
    struct vm *vm;

    if (!vm_open(call->vm_dir, call->operation, &vm, err)) {
        *ret_retry = err->code == ERR_BUSY;
        return false;
    }
    bool needs_worker = vm_needs_worker(vm, call->operation, call->arguments);
    struct work_mark mark;
    work_begin(call->vm_dir, call->operation, &mark);
    struct progress progress = work_progress(&mark, call->progress);
    bool done = !needs_worker && vm_run(vm, call->operation, call->arguments, &progress, ret_value, err);
    work_end(&mark);
    vm_close(vm);
    if (!needs_worker)
        return done;
    return call_new_worker(call, ret_value, ret_retry, err);
}

/* Its guest runs: a new worker adopts it, whatever is to be done. Only its end needs none. */
static bool call_unmanaged(struct call *call, json_t **ret_value, bool *ret_retry, struct err *err)
{
    if (strcmp(call->operation, "stop") != 0 || !json_is_true(json_object_get(call->arguments, "force")))
        return call_new_worker(call, ret_value, ret_retry, err);
    if (!vm_end_unmanaged(call->vm_dir, err))
        return false;
    /* What is forced is its end: had it just been saved, that must not be dropped too. */
    json_object_del(call->arguments, "force");
    return call_unowned(call, ret_value, ret_retry, err);
}

/* The owner is a worker, or another command that will be done soon. */
static bool call_managed(struct call *call, const struct store_owner *owner, json_t **ret_value,
                         bool *ret_retry, struct err *err)
{
    struct err connect_err;
    int fd;

    if (control_connect(call->vm_dir, &fd, &connect_err))
        return call_worker(call, fd, ret_value, ret_retry, err);
    bool not_there = connect_err.sys == ECONNREFUSED || connect_err.sys == ENOENT;
    *ret_retry = not_there && !owner->is_elsewhere;
    if (owner->machine_is_alive && connect_err.sys == ECONNREFUSED) /* the socket of the one that died */
        call->retry_ms = ADOPT_FOR_MS;
    if (!not_there) {
        *err = connect_err;
        return false;
    }
    return err_set(err, ERR_BUSY, "%s: %s: in use by %s (process %lld on %s)", call->operation, call->name,
                   owner->what[0] ? owner->what : "another command", (long long)owner->pid,
                   owner->host[0] ? owner->host : "an unknown host");
}

static bool call_once(struct call *call, json_t **ret_value, bool *ret_retry, struct err *err)
{
    enum store_lock_state state;
    struct store_owner owner;

    *ret_retry = false;
    if (!store_probe(call->vm_dir, &state, &owner, err))
        return false;
    if (state == STORE_MANAGED)
        return call_managed(call, &owner, ret_value, ret_retry, err);
    /* A worker whose lock was broken from another host still has the machine. */
    int fd;
    if (state == STORE_FREE && control_connect(call->vm_dir, &fd, err))
        return call_worker(call, fd, ret_value, ret_retry, err);
    if (state == STORE_ELSEWHERE)
        return store_elsewhere(call->vm_dir, &owner, err) || err_prefix(err, "%s: %s", call->operation, call->name);
    if (state == STORE_UNMANAGED)
        return call_unmanaged(call, ret_value, ret_retry, err);
    return call_unowned(call, ret_value, ret_retry, err);
}

bool client_call(const char *vm_name, const char *operation, json_t *arguments, const struct progress *progress,
                 json_t **ret_value, struct err *err)
{
    __attribute__((cleanup(call_done))) struct call call = {
        .name = vm_name, .operation = operation, .arguments = arguments, .progress = progress,
        .retry_ms = RETRY_FOR_MS};
    bool retry;
    char cancelled[32];

    if (!store_find(&io_real, vm_name, &call.vm_dir, err))
        return err_prefix(err, "%s", operation);
    if (strcmp(operation, "cancel") == 0 && works_cancel(call.vm_dir, cancelled, sizeof cancelled))
        return (*ret_value = json_pack("{s:s}", "cancelled", cancelled)) || err_oom(err);
    for (unsigned waited_ms = 0;; waited_ms += RETRY_EVERY_MS) {
        if (call_once(&call, ret_value, &retry, err))
            return true;
        if (!retry || waited_ms >= call.retry_ms || progress_cancelled(progress))
            return false;
        nanosleep(&(struct timespec){.tv_nsec = RETRY_EVERY_MS * 1000000L}, NULL);
    }
}

/* Of a VM that another host has, or may have, nothing but that is known. */
static bool status_elsewhere(const char *vm_name, const char *vm_dir, const struct store_owner *owner, json_t **ret_status,
                             struct err *err)
{
    AUTO_TREE struct tree *tree = NULL;

    if (!store_read(&io_real, vm_dir, &tree, err))
        return false;
    json_t *status = json_pack("{s:s, s:s, s:s, s:s, s:n, s:n, s:n, s:n, s:n, s:n, s:n, s:n, s:i, s:[]}", "name", vm_name,
                               "guid", tree->vm->guid.text, "state", "elsewhere", "host", owner->host, "accelerator",
                               "qemu_pid", "worker_pid", "qemu_version", "operation", "run_state", "paused_for", "ended",
                               "resets", 0, "disk_errors");
    if (!status)
        return err_oom(err);
    *ret_status = status;
    return true;
}

/* Without its worker's word: from the files, and from the locks. operation: of another command's process, or NULL. */
static bool status_from_files(const char *vm_name, const char *vm_dir, bool unmanaged, const char *operation,
                              json_t **ret_status, struct err *err)
{
    AUTO_CONFIG struct config *vm = NULL;
    AUTO_FREE char *dir = NULL;

    if (!store_read_vm(&io_real, vm_dir, &vm, err) || !runtime_dir_path(vm_dir, &dir, err))
        return false;
    const char *state = unmanaged ? "unmanaged" : guid_is_set(&vm->saved) ? "saved" : "off";
    json_t *ended = strcmp(state, "off") == 0 ? last_end_read(dir) : json_null();
    json_t *status = json_pack("{s:s, s:s, s:s, s:n, s:n, s:n, s:n, s:s?, s:n, s:n, s:o, s:i, s:[]}", "name", vm_name,
                               "guid", vm->guid.text, "state", state, "accelerator", "qemu_pid", "worker_pid",
                               "qemu_version", "operation", operation, "run_state", "paused_for", "ended", ended, "resets", 0,
                               "disk_errors");
    if (!status)
        return err_oom(err);
    *ret_status = status;
    return true;
}

static bool status_from_worker(const char *vm_name, char *vm_dir, json_t **ret_status, struct err *err)
{
    struct call call = {.name = vm_name, .vm_dir = vm_dir, .operation = "status"};
    bool retry;
    int fd;

    return control_connect(vm_dir, &fd, err) && call_worker(&call, fd, ret_status, &retry, err);
}

bool client_status(const char *vm_name, json_t **ret_status, struct err *err)
{
    AUTO_FREE char *vm_dir = NULL;
    enum store_lock_state state;
    struct store_owner owner;
    struct err worker_err;

    if (!store_find(&io_real, vm_name, &vm_dir, err) || !store_probe(vm_dir, &state, &owner, err))
        return false;
    if (state == STORE_ELSEWHERE || (state != STORE_FREE && owner.is_elsewhere))
        return status_elsewhere(vm_name, vm_dir, &owner, ret_status, err);
    if (state == STORE_MANAGED && status_from_worker(vm_name, vm_dir, ret_status, &worker_err))
        return true;
    const char *operation = state == STORE_MANAGED && owner.what[0] && strcmp(owner.what, "worker") != 0 ? owner.what : NULL;
    /* A worker that does not answer with a machine that is alive is just adopting it, or has just died. */
    return status_from_files(vm_name, vm_dir, state != STORE_FREE && owner.machine_is_alive, operation,
                             ret_status, err);
}

bool client_check(const char *vm_name, const struct progress *progress, json_t **ret_value, struct err *err)
{
    AUTO_FREE char *vm_dir = NULL;

    if (!store_find_damaged(&io_real, vm_name, &vm_dir, err))
        return false;
    struct work_mark mark;
    work_begin(vm_dir, "check", &mark);
    bool done = vm_check(vm_dir, progress, ret_value, err);
    work_end(&mark);
    return done;
}

bool client_repair(const char *vm_name, const struct vm_repair_options *options, const struct progress *progress, json_t **ret_value,
                   struct err *err)
{
    AUTO_FREE char *vm_dir = NULL;

    return store_find_damaged(&io_real, vm_name, &vm_dir, err) && vm_repair(vm_dir, options, progress, ret_value, err);
}

bool client_unlock(const char *vm_name, const char *host, struct err *err)
{
    AUTO_FREE char *vm_dir = NULL;

    return store_find(&io_real, vm_name, &vm_dir, err) && store_unlock(vm_dir, host, err);
}

bool client_export(const char *vm_name, const json_t *arguments, const struct progress *progress, json_t **ret_value,
                   struct err *err)
{
    AUTO_FREE char *vm_dir = NULL;

    if (!store_find(&io_real, vm_name, &vm_dir, err))
        return false;
    struct work_mark mark;
    work_begin(vm_dir, "export", &mark);
    bool done = vm_export(vm_dir, arguments, progress, ret_value, err);
    work_end(&mark);
    return done;
}
