/* Other programs as children, with the shell in their place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auto.h"
#include "buf.h"
#include "child.h"
#include "clock.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/pidfd.h>
#include <sys/wait.h>

static struct err err;

static bool take(void *context, const char *bytes, size_t length, struct err *ignored)
{
    (void)ignored;
    return buf_append(context, bytes, length);
}

static bool run_shell(const char *script, const struct progress *progress, int limit_ms, struct buf *output,
                      int *ret_ended)
{
    char *const argv[] = {(char *)"/bin/sh", (char *)"-c", (char *)script, NULL};
    const struct child child = {.argv = argv, .error_fd = -1};

    return child_run(&child, take, output, progress, limit_ms, ret_ended, &err);
}

static void what_it_says_and_how_it_ends_is_known(void **state)
{
    AUTO_BUF struct buf output = BUF_INIT;
    int ended;
    (void)state;
    assert_true(run_shell("echo out; echo err >&2; pwd; exit 7", NULL, -1, &output, &ended));
    assert_int_equal(ended, 7);
    assert_string_equal((char *)output.data, "out\nerr\n/\n");
    assert_true(run_shell("kill -TERM $$", NULL, -1, &output, &ended));
    assert_int_equal(ended, 128 + SIGTERM);
}

static void what_cannot_be_started_is_an_error_and_no_child(void **state)
{
    char *const argv[] = {(char *)"/nonexistent/program", NULL};
    const struct child child = {.argv = argv, .output_fd = 2, .error_fd = 2};
    pid_t pid;
    (void)state;
    assert_false(child_start(&child, &pid, &err));
    assert_int_equal(err.code, ERR_QEMU);
    assert_non_null(strstr(err.text, "/nonexistent/program cannot be started: No such file"));
    assert_int_equal(waitpid(-1, NULL, 0), -1);
    assert_int_equal(errno, ECHILD);
}

static bool cancelled(void *context)
{
    return clock_ms() >= *(const int64_t *)context;
}

static void one_that_is_cancelled_or_too_slow_is_killed(void **state)
{
    AUTO_BUF struct buf output = BUF_INIT;
    int64_t begun_ms = clock_ms(), cancel_ms = begun_ms + 50;
    struct progress progress = {.cancelled = cancelled, .context = &cancel_ms};
    int ended;
    (void)state;
    assert_false(run_shell("exec sleep 60", &progress, -1, &output, &ended));
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_false(run_shell("trap '' TERM; while :; do echo more; done", NULL, 50, &output, &ended));
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_in_range(clock_ms() - begun_ms, 50, 20000);
    assert_int_equal(waitpid(-1, NULL, 0), -1);
}

static void one_that_closes_its_output_and_goes_on_is_killed_too(void **state)
{
    AUTO_BUF struct buf output = BUF_INIT;
    int64_t begun_ms = clock_ms(), cancel_ms = begun_ms + 100;
    struct progress progress = {.cancelled = cancelled, .context = &cancel_ms};
    int ended;
    (void)state;
    assert_false(run_shell("exec sleep 60 >/dev/null 2>&1", NULL, 100, &output, &ended));
    assert_int_equal(err.code, ERR_TIMEOUT);
    assert_false(run_shell("exec sleep 60 >/dev/null 2>&1", &progress, -1, &output, &ended));
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_in_range(clock_ms() - begun_ms, 100, 20000);
    assert_true(run_shell("exec >/dev/null 2>&1; sleep 0.2; exit 3", NULL, 20000, &output, &ended));
    assert_int_equal(ended, 3);
    assert_int_equal(waitpid(-1, NULL, 0), -1);
}

/* A process of ours starts one that shall die with it, and ends without a word. */
static void one_that_dies_with_us_does(void **state)
{
    int ends[2];
    pid_t pid;
    (void)state;
    assert_int_equal(pipe(ends), 0);
    pid_t starter = fork();
    assert_true(starter >= 0);
    if (starter == 0) {
        char *const argv[] = {(char *)"/bin/sleep", (char *)"60", NULL};
        const struct child child = {.argv = argv, .output_fd = 2, .error_fd = 2, .dies_with_us = true};
        bool told = child_start(&child, &pid, &err) && write(ends[1], &pid, sizeof pid) == sizeof pid;
        sleep(told ? 60 : 0);
        _exit(1);
    }
    assert_int_equal(read(ends[0], &pid, sizeof pid), sizeof pid);
    AUTO_FD int pidfd = pidfd_open(pid, 0);
    assert_true(pidfd >= 0);
    kill(starter, SIGKILL);
    assert_int_equal(waitpid(starter, NULL, 0), starter);
    assert_int_equal(poll(&(struct pollfd){.fd = pidfd, .events = POLLIN}, 1, 20000), 1);
    close(ends[0]), close(ends[1]);
}

static void a_program_is_looked_for_in_path(void **state)
{
    char *path = strdup(getenv("PATH"));
    (void)state;
    AUTO_FREE char *shell = child_find_program("sh");
    assert_non_null(shell);
    assert_true(child_is_program(shell));
    setenv("PATH", "relative:/nonexistent:", 1);
    assert_null(child_find_program("sh"));
    setenv("PATH", path, 1);
    free(path);
    assert_false(child_is_program("/tmp"));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_it_says_and_how_it_ends_is_known),
        cmocka_unit_test(what_cannot_be_started_is_an_error_and_no_child),
        cmocka_unit_test(one_that_is_cancelled_or_too_slow_is_killed),
        cmocka_unit_test(one_that_closes_its_output_and_goes_on_is_killed_too),
        cmocka_unit_test(one_that_dies_with_us_does),
        cmocka_unit_test(a_program_is_looked_for_in_path),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
