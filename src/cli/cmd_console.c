/* The serial console of a VM: a unix socket that QEMU listens on, and this terminal, bytes each way.
 *
 * Going back replaces the machine, so the socket ends while the VM runs on: then we connect again. We leave
 * when the VM runs no more, or by Ctrl-]. Input that ends (a pipe) does not end the output. */
#include "cli_call.h"
#include "cli_commands.h"
#include "cli_output.h"
#include "client.h"
#include "unix_socket.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <termios.h>
#include <time.h>

#define LEAVE_KEY         0x1d /* Ctrl-] */
#define RETRY_MS          100
#define RETRIES_WHILE_OFF 10 /* while it is being replaced, a machine may seem off for a moment */

enum end { END_LEAVE, END_SOCKET, END_OUTPUT };

struct console {
    const char *vm_name;
    bool raw; /* the terminal's settings are to be put back */
    bool input_ended;
    struct termios old_settings;
};

static volatile sig_atomic_t ended_by_signal;

static void on_signal(int signal_number)
{
    ended_by_signal = signal_number;
}

static void terminal_make_raw(struct console *console)
{
    struct termios settings;

    if (!isatty(STDIN_FILENO) || tcgetattr(STDIN_FILENO, &console->old_settings) != 0)
        return;
    settings = console->old_settings;
    cfmakeraw(&settings);
    console->raw = tcsetattr(STDIN_FILENO, TCSADRAIN, &settings) == 0;
}

static void terminal_restore(struct console *console)
{
    if (console->raw)
        (void)tcsetattr(STDIN_FILENO, TCSADRAIN, &console->old_settings);
    console->raw = false;
}

/* News about the connection, not from the guest. A raw terminal needs the carriage return. */
static void tell(const struct console *console, const char *text)
{
    if (isatty(STDERR_FILENO))
        fprintf(stderr, "%s[%s: %s]%s", console->raw ? "\r\n" : "", console->vm_name, text,
                console->raw ? "\r\n" : "\n");
}

static bool write_all(int fd, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t written = write(fd, bytes, length);
        if (written < 0 && errno == EAGAIN) {
            struct pollfd wait = {.fd = fd, .events = POLLOUT};
            (void)poll(&wait, 1, -1);
        } else if (written < 0 && errno != EINTR) {
            return false;
        } else if (written > 0) {
            bytes += written;
            length -= (size_t)written;
        }
        if (ended_by_signal)
            return false;
    }
    return true;
}

static bool console_connect(const struct console *console, int *ret_fd, struct err *err)
{
    json_auto_t *value = NULL;

    return client_call(console->vm_name, "console", NULL, NULL, &value, err) &&
           unix_connect(json_text(value, "socket"), 0, ret_fd, err);
}

/* From the keyboard to the guest. False: leave (or the socket is gone, which the other direction will find).
 */
static bool input_pass(struct console *console, int socket_fd)
{
    char bytes[4096];
    ssize_t length = read(STDIN_FILENO, bytes, sizeof bytes);

    if (length < 0)
        return errno == EINTR || errno == EAGAIN;
    if (length == 0) {
        console->input_ended = true;
        return true;
    }
    char *leave = console->raw ? memchr(bytes, LEAVE_KEY, (size_t)length) : NULL;
    (void)!write_all(socket_fd, bytes, leave ? (size_t)(leave - bytes) : (size_t)length);
    return leave == NULL;
}

/* Until the socket ends or the user leaves. */
static enum end console_pass(struct console *console, int socket_fd)
{
    char bytes[16384];

    while (!ended_by_signal) {
        struct pollfd fds[] = {
            {.fd = socket_fd, .events = POLLIN},
            {.fd = console->input_ended ? -1 : STDIN_FILENO, .events = POLLIN},
        };
        if (poll(fds, ARRAY_SIZE(fds), -1) < 0)
            continue; /* a signal */
        if (fds[0].revents != 0) {
            ssize_t length = read(socket_fd, bytes, sizeof bytes);
            if (length == 0 || (length < 0 && errno != EINTR))
                return END_SOCKET;
            if (length > 0 && !write_all(STDOUT_FILENO, bytes, (size_t)length))
                return END_OUTPUT;
        }
        if (fds[1].revents != 0 && !input_pass(console, socket_fd))
            return END_LEAVE;
    }
    return END_LEAVE;
}

static bool is_alive(const char *vm_name)
{
    json_auto_t *status = NULL;
    struct err err = ERR_INIT;

    if (!client_status(vm_name, &status, &err))
        return false;
    const char *state = json_text(status, "state");
    return strcmp(state, "running") == 0 || strcmp(state, "paused") == 0;
}

/* After the socket ended: connected again, or the VM runs no more (false). */
static bool console_reconnect(const struct console *console, int *ret_fd)
{
    const struct timespec delay = {.tv_nsec = RETRY_MS * 1000000L};
    struct err err = ERR_INIT;
    int while_off = 0;

    while (while_off < RETRIES_WHILE_OFF && !ended_by_signal) {
        nanosleep(&delay, NULL);
        if (!is_alive(console->vm_name)) {
            while_off++;
            continue;
        }
        while_off = 0;
        if (console_connect(console, ret_fd, &err))
            return true;
    }
    return false;
}

/* A first failure is the user's; later ones are the end of the VM. */
static int console_run(struct console *console)
{
    AUTO_FD int socket_fd = -1;
    struct err err = ERR_INIT;

    if (!console_connect(console, &socket_fd, &err))
        return cli_fail(console->vm_name, &err);
    tell(console, "connected; Ctrl-] leaves");
    terminal_make_raw(console);
    enum end end;
    while ((end = console_pass(console, socket_fd)) == END_SOCKET) {
        close(TAKE_FD(socket_fd));
        if (!console_reconnect(console, &socket_fd))
            break;
        tell(console, "connected again");
    }
    terminal_restore(console);
    tell(console, end == END_SOCKET ? "runs no more" : "left");
    return 0;
}

struct args {
    bool json;
};

static const struct cli_option OPTIONS[] = {
    {"json", CLI_FLAG, offsetof(struct args, json), NULL, "do not connect: print the socket's path as JSON"},
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

int cmd_console(int argc, char **argv)
{
    const struct sigaction action = {.sa_handler = on_signal}; /* no SA_RESTART: poll() must return */
    struct args args = {0};
    struct cli_operands operands;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    if (args.json)
        return vm_call(operands.items[0], "console", /* json= */ true, NULL);
    ended_by_signal = 0;
    sigaction(SIGTERM, &action, NULL);
    sigaction(SIGHUP, &action, NULL);
    sigaction(SIGINT, &action, NULL);
    struct console console = {.vm_name = operands.items[0]};
    status = console_run(&console);
    return ended_by_signal ? 128 + ended_by_signal : status;
}
