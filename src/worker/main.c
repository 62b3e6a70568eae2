/* bough-worker: the process that owns a VM while it runs: its lock, QEMU, the engines of its disks, its control socket. It is
 * started by a `bough` command that needs a machine, with that command as its first client, and ends with the machine. */
#include "auto.h"
#include "file.h"
#include "log.h"
#include "runtime.h"
#include "server.h"
#include "vm.h"
#include "wire.h"

#include <getopt.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct arguments {
    const char *vm_dir;
    int client_fd;
};

static bool arguments_read(int argc, char **argv, struct arguments *ret_arguments)
{
    static const struct option OPTIONS[] = {
        {"vm", required_argument, NULL, 'v'},
        {"client", required_argument, NULL, 'c'},
        {"version", no_argument, NULL, 'V'},
        {NULL, 0, NULL, 0},
    };
    struct arguments arguments = {.client_fd = -1};

    for (int option; (option = getopt_long(argc, argv, "", OPTIONS, NULL)) != -1;) {
        if (option == 'v')
            arguments.vm_dir = optarg;
        else if (option == 'c')
            arguments.client_fd = atoi(optarg);
        else if (option == 'V')
            exit(puts("bough-worker " BOUGH_VERSION) < 0);
        else
            return false;
    }
    *ret_arguments = arguments;
    return arguments.vm_dir != NULL;
}

/* At the end of a login or of the host everybody gets a signal. QEMU ends by it in order, and must find its disks served until then;
 * the worker ends when QEMU has. A file that may not grow any more (SIGXFSZ) is an error like a full disk. */
static void signals_ignore(void)
{
    static const int IGNORED[] = {SIGPIPE, SIGTERM, SIGINT, SIGHUP, SIGQUIT, SIGXFSZ};

    for (size_t i = 0; i < ARRAY_SIZE(IGNORED); i++)
        signal(IGNORED[i], SIG_IGN);
}

/* NULL if it cannot be had. */
static json_t *status_get(struct vm *vm)
{
    json_t *status;
    struct err err;

    if (vm_run(vm, "status", NULL, NULL, &status, &err))
        return status;
    log_debug("status: %s", err.text);
    return NULL;
}

static void status_refresh(struct server *server, struct vm *vm)
{
    json_t *status = status_get(vm);

    if (status)
        server_set_status(server, status);
}

static void events_take(struct server *server, struct vm *vm)
{
    while (vm_handle_events(vm))
        status_refresh(server, vm);
}

static void request_run(struct server *server, struct vm *vm, struct server_request *request)
{
    struct progress progress = server_request_progress(request);
    json_t *value = NULL;
    struct err err = ERR_INIT;

    log_info("%s", server_request_operation(request));
    bool done = vm_run(vm, server_request_operation(request), server_request_arguments(request), &progress,
                       &value, &err);
    if (!done)
        log_info("%s failed: %s", server_request_operation(request), err.text);
    vm_handle_events(vm);
    status_refresh(server, vm);
    events_take(server, vm);
    server_answer(request, done ? value : NULL, &err);
}

#define SHOW_MERGING_MS 500

/* Operations go first: a merge is begun, and ended, when nobody wants one. */
static void merge_on(struct server *server, struct vm *vm)
{
    bool cancelled = server_background_cancelled(server) && vm_merge_cancel(vm);

    if (vm_merge_on(vm) || vm_is_merging(vm) || cancelled)
        status_refresh(server, vm);
    server_set_background(server, vm_is_merging(vm) ? "merge" : NULL);
}

static int wait_ms(const struct vm *vm)
{
    int ms = vm_wait_ms(vm), merge_ms = vm_is_merging(vm) ? SHOW_MERGING_MS : vm_merge_wait_ms(vm);

    return merge_ms >= 0 && (ms < 0 || ms > merge_ms) ? merge_ms : ms;
}

/* Until the machine is gone and nobody wants anything any more. */
static void serve(struct server *server, struct vm *vm, bool first_pending)
{
    for (;;) {
        events_take(server, vm);
        if (!vm_is_alive(vm) && !first_pending)
            return;
        struct pollfd fds[] = {{.fd = server_fd(server), .events = POLLIN},
                               {.fd = vm_machine_fd(vm), .events = POLLIN},
                               {.fd = vm_monitor_fd(vm), .events = POLLIN},
                               {.fd = vm_merger_fd(vm), .events = POLLIN}};
        /* The first client has connected before the worker was there: if it is silent it has died. */
        int ready = poll(fds, ARRAY_SIZE(fds), first_pending ? 10000 : wait_ms(vm));
        if (ready == 0 && first_pending && !vm_is_alive(vm))
            return;
        if (ready == 0)
            first_pending = false; /* a machine that was adopted is served all the same */
        if (vm_tend(vm))
            status_refresh(server, vm);
        for (struct server_request *request; (request = server_next(server)) != NULL; first_pending = false)
            request_run(server, vm, request);
        if (!first_pending)
            merge_on(server, vm);
    }
}

/* The first client's connection is left to the caller where this fails, who tells why. */
static bool worker_run(struct arguments *arguments, struct err *err)
{
    AUTO_FREE char *dir = NULL;
    AUTO_FREE char *socket_path = NULL;
    struct server *server = NULL;
    struct vm *vm;

    if (!vm_open_or_adopt(arguments->vm_dir, &vm, err))
        return false;
    bool ready = runtime_dir(arguments->vm_dir, &dir, err) &&
                 ((socket_path = path_join(dir, RUNTIME_CONTROL_SOCKET)) || err_oom(err)) &&
                 server_start(socket_path, dup(arguments->client_fd), status_get(vm), &server, err);
    if (ready) {
        close(TAKE_FD(arguments->client_fd));
        serve(server, vm, /* first_pending= */ true);
        server_stop(server);
    }
    vm_close(vm);
    return ready;
}

int main(int argc, char **argv)
{
    struct arguments arguments = {.client_fd = -1};
    struct err err;

    if (!arguments_read(argc, argv, &arguments)) {
        fprintf(stderr, "usage: bough-worker --vm FOLDER [--client FD] (started by bough)\n");
        return err_exit_status(ERR_USAGE);
    }
    signals_ignore();
    open_files_raise();
    log_set_level(LOG_INFO);
    log_set_timestamps(true);
    if (worker_run(&arguments, &err))
        return EXIT_SUCCESS;
    log_error("%s", err.text);
    if (arguments.client_fd >= 0) {
        struct err ignored;
        json_t *message = wire_error(&err);
        if (message)
            (void)!wire_send(arguments.client_fd, message, 1000, &ignored);
        json_decref(message);
    }
    return err_exit_status(err.code);
}
