/* What needs a terminal or a second process: questions, the progress bar, and the console. The command runs
 * in a child on a pseudo-terminal or on pipes; the client is faked (fake_client.h), the console's socket is
 * ours. */
#include "auto.h"
#include "cli.h"
#include "err.h"
#include "fake_client.h"

#include <errno.h>
#include <poll.h>
#include <pty.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <termios.h>
#include <unistd.h>

#include <cmocka.h>

#define DEADLINE_MS 10000
#define NO_CALL     "(no call)"

/* What the child has called and shall answer. */
struct shared {
    char answer[512];
    char called[512]; /* the arguments of the last call, or NO_CALL */
};

struct fixture {
    struct shared *shared;
    char dir[64], socket_path[96];
    int listener;
    pid_t child;
    int in, out; /* to and from the child; the same file for a pseudo-terminal */
};

/* --- the child --- */

static void child_main(struct fixture *fixture, char **argv)
{
    int argc = 0;

    while (argv[argc])
        argc++;
    fake_reset();
    fake_answer = fixture->shared->answer;
    int status = cli_main(argc, argv);
    fflush(stdout);
    fflush(stderr);
    snprintf(fixture->shared->called, sizeof fixture->shared->called, "%s",
             fake_call.count > 0 ? fake_call.arguments : NO_CALL);
    _exit(status);
}

static void run_on_terminal(struct fixture *fixture, char **argv)
{
    fixture->child = forkpty(&fixture->in, NULL, NULL, NULL);
    assert_true(fixture->child >= 0);
    if (fixture->child == 0)
        child_main(fixture, argv);
    fixture->out = fixture->in;
}

static void run_on_pipes(struct fixture *fixture, char **argv)
{
    int in[2], out[2];

    assert_int_equal(pipe(in), 0);
    assert_int_equal(pipe(out), 0);
    fixture->child = fork();
    assert_true(fixture->child >= 0);
    if (fixture->child == 0) {
        dup2(in[0], STDIN_FILENO);
        dup2(out[1], STDOUT_FILENO);
        close(in[0]);
        close(in[1]);
        close(out[0]);
        close(out[1]);
        child_main(fixture, argv);
    }
    close(in[0]);
    close(out[1]);
    fixture->in = in[1];
    fixture->out = out[0];
}

/* --- looking at it, never longer than DEADLINE_MS --- */

static size_t read_some(int fd, char *bytes, size_t size)
{
    struct pollfd wait = {.fd = fd, .events = POLLIN};

    assert_int_equal(poll(&wait, 1, DEADLINE_MS), 1);
    ssize_t length = read(fd, bytes, size);
    if (length < 0 && errno == EIO) /* a pseudo-terminal whose other end is closed */
        length = 0;
    assert_true(length >= 0);
    return (size_t)length;
}

/* Reads until the text has come (or the end), and returns all that came. */
static char *read_until(int fd, const char *text)
{
    static char all[65536];
    size_t length = 0;

    all[0] = '\0';
    while (!strstr(all, text)) {
        size_t more = read_some(fd, all + length, sizeof all - 1 - length);
        if (more == 0)
            fail_msg("'%s' did not come, but '%s'", text, all);
        length += more;
        all[length] = '\0';
    }
    return all;
}

static void write_text(int fd, const char *text)
{
    assert_int_equal(write(fd, text, strlen(text)), strlen(text));
}

static int exit_status(struct fixture *fixture)
{
    int status;
    char drain[4096];

    /* A full terminal would hold the child up. */
    while (waitpid(fixture->child, &status, WNOHANG) == 0) {
        struct pollfd wait = {.fd = fixture->out, .events = POLLIN};
        if (poll(&wait, 1, 20) > 0 && read(fixture->out, drain, sizeof drain) <= 0)
            usleep(1000);
    }
    fixture->child = 0;
    return WIFEXITED(status) ? WEXITSTATUS(status) : 128 + WTERMSIG(status);
}

static int setup(void **state)
{
    struct fixture *fixture = calloc(1, sizeof *fixture);
    struct sockaddr_un address = {.sun_family = AF_UNIX};

    signal(SIGALRM, SIG_DFL);
    alarm(60); /* nothing here may hang for ever */
    fixture->shared =
        mmap(NULL, sizeof *fixture->shared, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    fixture->in = fixture->out = -1;
    strcpy(fixture->dir, "/tmp/cli-test-XXXXXX");
    if (fixture->shared == MAP_FAILED || !mkdtemp(fixture->dir))
        return -1;
    snprintf(fixture->socket_path, sizeof fixture->socket_path, "%s/console", fixture->dir);
    strcpy(address.sun_path, fixture->socket_path);
    fixture->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fixture->listener, (struct sockaddr *)&address, sizeof address) != 0 ||
        listen(fixture->listener, 4) != 0)
        return -1;
    snprintf(fixture->shared->answer, sizeof fixture->shared->answer,
             "{\"state\":\"running\",\"socket\":\"%s\"}", fixture->socket_path);
    *state = fixture;
    return 0;
}

static int teardown(void **state)
{
    struct fixture *fixture = *state;

    if (fixture->child > 0) {
        kill(fixture->child, SIGKILL);
        waitpid(fixture->child, NULL, 0);
    }
    close(fixture->listener);
    if (fixture->in >= 0)
        close(fixture->in);
    if (fixture->out >= 0 && fixture->out != fixture->in)
        close(fixture->out);
    unlink(fixture->socket_path);
    rmdir(fixture->dir);
    munmap(fixture->shared, sizeof *fixture->shared);
    free(fixture);
    return 0;
}

static int accept_client(struct fixture *fixture)
{
    struct pollfd wait = {.fd = fixture->listener, .events = POLLIN};

    assert_int_equal(poll(&wait, 1, DEADLINE_MS), 1);
    int fd = accept4(fixture->listener, NULL, NULL, SOCK_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

#define ARGV(...) ((char *[]){"bough", __VA_ARGS__, NULL})

/* --- questions --- */

static void answered(struct fixture *fixture, char **argv, const char *question, const char *answer,
                     int status, const char *called)
{
    run_on_terminal(fixture, argv);
    read_until(fixture->out, question);
    write_text(fixture->in, answer);
    assert_int_equal(exit_status(fixture), status);
    assert_string_equal(fixture->shared->called, called);
    close(fixture->in);
    fixture->in = fixture->out = -1;
}

static void apply_on_a_terminal_offers_to_keep_the_present(void **state)
{
    static const char QUESTION[] = "Take a snapshot of it first? [y/N/cancel] ";
    static const char PLAIN[] = "{\"snapshot\":\"abcd\"}";

    answered(*state, ARGV("apply", "web", "abcd"), QUESTION, "y\n", 0,
             "{\"snapshot\":\"abcd\",\"snapshot_first\":true}");
    answered(*state, ARGV("apply", "web", "abcd"), QUESTION, "n\n", 0, PLAIN);
    answered(*state, ARGV("apply", "web", "abcd"), QUESTION, "\n", 0, PLAIN);
    answered(*state, ARGV("revert", "web"), QUESTION, "cancel\n", 15, NO_CALL);
    answered(*state, ARGV("revert", "web"), QUESTION, "\004", 15, NO_CALL);
    answered(*state, ARGV("revert", "web"), QUESTION, "what\nc\n", 15, NO_CALL);
}

static void remove_and_delete_subtree_want_a_yes(void **state)
{
    answered(*state, ARGV("remove", "web"), "[y/N] ", "\n", 15, NO_CALL);
    answered(*state, ARGV("remove", "web"), "[y/N] ", "\004", 15, NO_CALL);
    answered(*state, ARGV("remove", "web"), "[y/N] ", "yes\n", 0, "{}");
    answered(*state, ARGV("delete", "web", "x", "--subtree"), "[y/N] ", "n\n", 15, NO_CALL);
}

static void yes_and_dry_run_ask_nothing(void **state)
{
    struct fixture *fixture = *state;
    char **const LINES[] = {ARGV("apply", "web", "x", "--yes"), ARGV("revert", "web", "--dry-run"),
                            ARGV("apply", "web", "x", "--snapshot-first"), ARGV("remove", "--yes", "web"),
                            ARGV("delete", "web", "x", "--subtree", "--yes")};

    for (size_t i = 0; i < ARRAY_SIZE(LINES); i++) {
        run_on_terminal(fixture, LINES[i]);
        assert_int_equal(exit_status(fixture), 0);
        assert_string_not_equal(fixture->shared->called, NO_CALL);
        close(fixture->in);
        fixture->in = fixture->out = -1;
    }
}

static void nothing_is_asked_where_the_input_is_no_terminal(void **state)
{
    struct fixture *fixture = *state;

    run_on_pipes(fixture, ARGV("apply", "web", "x"));
    assert_int_equal(exit_status(fixture), 0);
    assert_string_equal(fixture->shared->called, "{\"snapshot\":\"x\"}");
}

static void name_in_a_question_cannot_drive_the_terminal(void **state)
{
    struct fixture *fixture = *state;

    run_on_terminal(fixture, ARGV("remove", "a\033[2Jb"));
    assert_non_null(strstr(read_until(fixture->out, "[y/N] "), "a\\x1b[2Jb"));
}

/* --- the console --- */

static void console_passes_bytes_both_ways(void **state)
{
    struct fixture *fixture = *state;

    run_on_pipes(fixture, ARGV("console", "web"));
    int guest = accept_client(fixture);
    write_text(fixture->in, "ls\n\x1d");
    char got[16];
    assert_int_equal(recv(guest, got, 4, MSG_WAITALL), 4);
    assert_memory_equal(got, "ls\n\x1d", 4); /* Ctrl-] is for people: a pipe is passed on as it is */
    write_text(guest, "file\033[0m\n");
    read_until(fixture->out, "file\033[0m\n");
    close(guest);
}

static void end_of_the_input_does_not_end_the_output(void **state)
{
    struct fixture *fixture = *state;

    run_on_pipes(fixture, ARGV("console", "web"));
    int guest = accept_client(fixture);
    close(TAKE_FD(fixture->in));
    usleep(100000);
    write_text(guest, "still here");
    read_until(fixture->out, "still here");
    close(guest);
}

static void console_connects_again_after_the_machine_was_replaced(void **state)
{
    struct fixture *fixture = *state;

    run_on_pipes(fixture, ARGV("console", "web"));
    close(accept_client(fixture));
    int guest = accept_client(fixture);
    write_text(guest, "as it was");
    read_until(fixture->out, "as it was");
    write_text(fixture->in, "x");
    char got;
    assert_int_equal(recv(guest, &got, 1, 0), 1);
    close(guest);
}

static void console_ends_with_the_vm(void **state)
{
    struct fixture *fixture = *state;

    run_on_pipes(fixture, ARGV("console", "web"));
    int guest = accept_client(fixture);
    strcpy(fixture->shared->answer, "{\"state\":\"off\"}");
    close(guest);
    assert_int_equal(exit_status(fixture), 0);
}

static void console_of_a_vm_without_a_socket_is_an_error(void **state)
{
    struct fixture *fixture = *state;

    snprintf(fixture->shared->answer, sizeof fixture->shared->answer, "{\"socket\":\"%s/none\"}",
             fixture->dir);
    run_on_pipes(fixture, ARGV("console", "web"));
    assert_int_equal(exit_status(fixture), err_exit_status(ERR_NOT_FOUND));
}

static bool terminal_is_raw(int fd)
{
    struct termios settings;

    assert_int_equal(tcgetattr(fd, &settings), 0);
    return (settings.c_lflag & (ICANON | ECHO | ISIG)) == 0;
}

static void ctrl_bracket_leaves_and_the_terminal_is_as_before(void **state)
{
    struct fixture *fixture = *state;
    char got[8];

    run_on_terminal(fixture, ARGV("console", "web"));
    int guest = accept_client(fixture);
    write_text(guest, "login: ");
    read_until(fixture->out, "login: ");
    assert_true(terminal_is_raw(fixture->in));
    write_text(fixture->in, "\003a\x1d");
    assert_int_equal(recv(guest, got, 2, MSG_WAITALL), 2);
    assert_memory_equal(got, "\003a", 2); /* Ctrl-C is the guest's */
    read_until(fixture->out, "left]");
    assert_false(terminal_is_raw(fixture->in));
    assert_int_equal(exit_status(fixture), 0);
    close(guest);
}

static void terminal_is_as_before_after_a_signal(void **state)
{
    struct fixture *fixture = *state;

    run_on_terminal(fixture, ARGV("console", "web"));
    int guest = accept_client(fixture);
    write_text(guest, "login: ");
    read_until(fixture->out, "login: ");
    kill(fixture->child, SIGTERM);
    read_until(fixture->out, "left]");
    assert_false(terminal_is_raw(fixture->in));
    assert_int_equal(exit_status(fixture), 128 + SIGTERM);
    close(guest);
}

/* --- progress --- */

/* A gigabyte in a second and a half, then more of which nobody knows the end. */
static void work_on_bytes(const struct progress *progress)
{
    for (int i = 0; i < 15; i++) {
        progress_report(progress, "memory", (uint64_t)i << 26, 1U << 30);
        usleep(100000);
    }
    for (int i = 0; i < 3; i++) {
        progress_report(progress, "writing to disk", 0, 0);
        usleep(100000);
    }
}

static void work_slowly(const struct progress *progress)
{
    for (int i = 0; i < 15; i++) {
        progress_report(progress, "memory", (uint64_t)i, 14);
        usleep(100000);
    }
}

static char *shown_while(struct fixture *fixture, void (*work)(const struct progress *progress), unsigned short columns)
{
    struct winsize size = {.ws_row = 24, .ws_col = columns};

    fixture->child = forkpty(&fixture->in, NULL, NULL, &size);
    assert_true(fixture->child >= 0);
    fixture->out = fixture->in;
    if (fixture->child == 0) {
        char *argv[] = {"bough", "save", "web", NULL};
        fake_reset();
        fake_answer = "{\"state\":\"saved\"}";
        fake_during = work;
        _exit(cli_main(3, argv));
    }
    return read_until(fixture->out, "web: saved");
}

static void long_work_shows_a_bar_and_takes_it_away(void **state)
{
    char *shown = shown_while(*state, work_slowly, 0);

    assert_non_null(strstr(shown, "save: memory [======"));
    assert_null(strstr(shown, " 0%")); /* the first second is quiet */
    assert_non_null(strstr(shown, "\r\033[Kweb: saved"));
}

static void bar_tells_bytes_rate_and_time_left(void **state)
{
    char *shown = shown_while(*state, work_on_bytes, 200);

    assert_non_null(strstr(shown, " of 1 GiB, "));
    assert_non_null(strstr(shown, " MiB/s, "));
    assert_non_null(strstr(shown, " s left"));
    assert_non_null(strstr(shown, "save: writing to disk ..."));
}

static void bar_is_never_wider_than_the_terminal(void **state)
{
    char *shown = shown_while(*state, work_on_bytes, 70);
    unsigned lines = 0;

    assert_non_null(strstr(shown, " s left"));
    for (char *line = strstr(shown, "save: memory"); line; line = strstr(line + 1, "save: memory"), lines++)
        assert_true(strcspn(line, "\r\n") < 70);
    assert_true(lines > 2);
}

static void narrow_terminal_has_a_bar_alone(void **state)
{
    char *shown = shown_while(*state, work_on_bytes, 40);

    assert_null(strstr(shown, "left"));
    assert_non_null(strstr(shown, "save: memory [==="));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(apply_on_a_terminal_offers_to_keep_the_present, setup, teardown),
        cmocka_unit_test_setup_teardown(remove_and_delete_subtree_want_a_yes, setup, teardown),
        cmocka_unit_test_setup_teardown(yes_and_dry_run_ask_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_asked_where_the_input_is_no_terminal, setup, teardown),
        cmocka_unit_test_setup_teardown(name_in_a_question_cannot_drive_the_terminal, setup, teardown),
        cmocka_unit_test_setup_teardown(console_passes_bytes_both_ways, setup, teardown),
        cmocka_unit_test_setup_teardown(end_of_the_input_does_not_end_the_output, setup, teardown),
        cmocka_unit_test_setup_teardown(console_connects_again_after_the_machine_was_replaced, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(console_ends_with_the_vm, setup, teardown),
        cmocka_unit_test_setup_teardown(console_of_a_vm_without_a_socket_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(ctrl_bracket_leaves_and_the_terminal_is_as_before, setup, teardown),
        cmocka_unit_test_setup_teardown(terminal_is_as_before_after_a_signal, setup, teardown),
        cmocka_unit_test_setup_teardown(bar_tells_bytes_rate_and_time_left, setup, teardown),
        cmocka_unit_test_setup_teardown(bar_is_never_wider_than_the_terminal, setup, teardown),
        cmocka_unit_test_setup_teardown(narrow_terminal_has_a_bar_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(long_work_shows_a_bar_and_takes_it_away, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
