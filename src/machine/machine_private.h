/* A QEMU process as this folder's files share it, and pieces that the tests look at alone. */
#pragma once

#include "child.h"
#include "machine.h"
#include "qmp_private.h"

#include <signal.h>

#define MACHINE_NIC_MAX 8
#define MACHINE_MONITOR_SOCKET "qmp.sock"

struct machine {
    pid_t pid;
    int pidfd;
    struct qmp *qmp; /* NULL until its monitor is connected */
    char *dir;       /* owned */
    bool has_display;
    enum config_accel accel;
    bool maps_file;     /* its memory is a file's, mapped privately */
    bool reads_running; /* this QEMU was seen to read the bitmap of changed pages while its guest ran */
    unsigned read_early; /* how often it did so in a paced save */
    bool reaped; /* how says how it ended */
    siginfo_t how;
};

/* --- accel.c --- */
/* Can KVM run a guest? kvm_path and cpuinfo_path are /dev/kvm and /proc/cpuinfo but in tests. On false
 * *ret_why (a literal) tells why not. */
bool kvm_works(const char *kvm_path, const char *cpuinfo_path, const char **ret_why);

/* --- qemu.c --- */
/* "QEMU emulator version 7.2.22 (Debian ...)". False if it is not that. */
bool qemu_version_parse(const char *text, struct qemu *ret_qemu);

/* --- arguments.c --- */
/* "tcp:2222:22" to what QEMU's hostfwd takes, for the loopback interface alone. */
bool forward_parse(const char *forward, char ret_rule[static 64], struct err *err) MUST_CHECK;

#define MACHINE_DISK_NODE "disk-" /* and the id: the block node of a drive */

/* --- process.c --- */
#define PROCESS_FIRST_BRIDGE_FD (CHILD_FIRST_FD + 1) /* behind alive_fd: TAP descriptors of the bridged interfaces, in order */
/* The output (both) of a short run, at most 1 MiB, within ten seconds; ended is its exit status, or 128 +
 * signal. */
bool process_output(char *const *argv, char **ret_text, int *ret_ended, struct err *err) MUST_CHECK;

/* --- bridge.c --- */
/* A new TAP interface on the bridge. What the helper says goes to log_fd. */
bool bridge_open(const char *bridge, int log_fd, int *ret_fd, struct err *err) MUST_CHECK;

/* --- control.c --- */
/* qmp_execute(); if QEMU has ended, its last words are the error (sys = EPIPE). */
bool machine_execute(struct machine *machine, const char *command, json_t *arguments, int fd,
                     json_t **ret_value, struct err *err) MUST_CHECK;
/* A line of the monitor that is for people, and what it says, or the beginning of that. */
#define MACHINE_ANSWER_BYTES 256
bool machine_ask(struct machine *machine, const char *line, char answer[static MACHINE_ANSWER_BYTES],
                 struct err *err) MUST_CHECK;
/* Sets every capability that this QEMU knows: on for those that are named in on (NULL at the end), off for
 * the rest. */
bool machine_set_capabilities(struct machine *machine, const char *const *on, struct err *err) MUST_CHECK;
bool machine_is_named(const char *const *names, const char *name); /* names: NULL at the end */
/* Gives QEMU a descriptor under a name. fd stays the caller's. */
bool machine_give_fd(struct machine *machine, int fd, const char *name, struct err *err) MUST_CHECK;

/* --- can_save.c --- */
/* ERR_STATE where QEMU saves in no such run state, which state gets. */
bool machine_check_saved_state(struct machine *machine, char state[static 32], struct err *err) MUST_CHECK;
