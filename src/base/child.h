/* Other programs as our children: started without a shell, in a session of their own (a Ctrl-C at the
 * terminal is ours to hear), with nothing inherited but what is given, no signal blocked or ignored, and `/`
 * as their folder. */
#pragma once

#include "err.h"
#include "progress.h"

#include <stddef.h>
#include <sys/types.h>

#define CHILD_FIRST_FD 3

struct child {
    char *const *argv;       /* [0]: the program's absolute path */
    int output_fd, error_fd; /* standard output and standard error */
    const int *fds;          /* fds[i] under the number CHILD_FIRST_FD + i; -1: none */
    size_t fd_count;
    bool kills_group;  /* child_run() ends with it all that it has started and that is still of its session's group */
    bool dies_with_us; /* killed when the thread that starts it ends, however that comes */
};

/* Is there a program of this name in an absolute folder of PATH? Its path, owned; NULL if not. */
char *child_find_program(const char *name);
bool child_is_program(const char *path);

/* ERR_QEMU if it cannot be started: all that is started here is of QEMU. */
bool child_start(const struct child *child, pid_t *ret_pid, struct err *err) MUST_CHECK;

/* Runs it to its end and gives take what it writes to its standard output, as it comes; where error_fd is -1,
 * also what it writes to standard error. child->output_fd does not count. progress may cancel it. If it does
 * not end in limit_ms (-1: no limit), is cancelled, or take fails, it is killed. *ret_ended: its exit status,
 * or 128 + signal. */
typedef bool child_take_fn(void *context, const char *bytes, size_t length, struct err *err);
bool child_run(const struct child *child, child_take_fn *take, void *context, const struct progress *progress,
               int limit_ms, int *ret_ended, struct err *err) MUST_CHECK;
