/* Machines of a real QEMU, without disks, for tests that look at one; whatever becomes of a test, none is left. */
#pragma once

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "machine.h"
#include "scratch.h"

#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#define MEMORY_BYTES (32U << 20)

static struct qemu qemu;
static struct config config;
static struct machine_launch launch;
static struct err err;

/* What was started, so that a test that fails leaves no process. */
static int started[16]; /* pidfds of our own */
static size_t started_count;

static inline void process_end(int pidfd)
{
    struct pollfd poll_fd = {.fd = pidfd, .events = POLLIN};
    pidfd_send_signal(pidfd, SIGKILL, NULL, 0);
    assert_int_equal(poll(&poll_fd, 1, 20000), 1);
}

static inline int processes_end(void **state)
{
    (void)state;
    for (; started_count > 0; started_count--) {
        process_end(started[started_count - 1]);
        close(started[started_count - 1]);
    }
    return 0;
}

static inline int settings_make(void **state)
{
    static char *machine_type, dir[128];
    (void)state;
    err = ERR_INIT;
    free(machine_type);
    machine_type = NULL;
    if (!qemu_default_machine(&qemu, 1, &machine_type, &err))
        return -1;
    config = (struct config){.name = (char *)"a, \"b\"",
                             .generation = 1,
                             .memory_bytes = MEMORY_BYTES,
                             .cpus = 2,
                             .machine = machine_type,
                             .cpu_model = (char *)"qemu64"};
    snprintf(dir, sizeof(dir), "%s/run, \"1'", scratch);
    strcpy(config.guid.text, "0F0E0D0C-0B0A-4908-8706-050403020100");
    launch = (struct machine_launch){
        .qemu = &qemu, .config = &config, .accel = ACCEL_TCG, .dir = dir, .alive_fd = -1};
    return 0;
}

static inline struct machine *start(void)
{
    struct machine *machine = NULL;
    mkdir(launch.dir, 0700);
    if (!machine_start(&launch, &machine, &err))
        fail_msg("%s", err.text);
    started[started_count++] = fcntl(machine_pidfd(machine), F_DUPFD_CLOEXEC, 0);
    return machine;
}

static inline struct machine *start_running(void)
{
    struct machine *machine = start();
    assert_true(machine_continue(machine, &err));
    json_t *resume = NULL;
    assert_true(qmp_next_event(machine_qmp(machine), 1000, &resume, &err));
    assert_string_equal(qmp_event_name(resume, NULL), "RESUME");
    json_decref(resume);
    nanosleep(&(struct timespec){.tv_nsec = 100000000}, NULL);
    return machine;
}

static inline int find_qemu(void **state)
{
    if (scratch_make(state) != 0 || mkdir(scratch_path("cache"), 0700) != 0)
        return -1;
    setenv("BOUGH_RUNTIME", scratch_path("cache"), 1);
    return qemu_find(&qemu, &err) ? 0 : -1;
}
