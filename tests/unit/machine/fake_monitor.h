/* A monitor that follows a script, on a thread of its own: what it sends is up to the test. */
#pragma once

#include <stdbool.h>
#include <stddef.h>

enum fake_kind {
    FAKE_SEND,  /* text; each `$` becomes the id of the command read last */
    FAKE_DRIP,  /* the same, one byte at a time */
    FAKE_READ,  /* one line; gives up when the other end closes */
    FAKE_SLEEP, /* number: milliseconds */
    FAKE_WAIT,  /* for fake_go() */
    FAKE_HOLD,  /* until the other end closes; takes nothing */
    FAKE_FILL,  /* number: bytes 'x' without a line end */
    FAKE_FLOOD, /* number: milliseconds full of events */
    FAKE_CLOSE, /* the end, as after the last step */
};

struct fake_step {
    enum fake_kind kind;
    const char *text;
    size_t number;
};

#define FAKE_GREETING                                                                                        \
    "{\"QMP\": {\"version\": {\"qemu\": {\"micro\": 22, \"minor\": 2, \"major\": 7}, \"package\": \"x\"}, "  \
    "\"capabilities\": [\"oob\"]}}\r\n"
/* The first three steps of nearly every script. */
#define FAKE_WELCOME                                                                                         \
    {FAKE_SEND, FAKE_GREETING, 0}, {FAKE_READ, NULL, 0},                                                     \
    {                                                                                                        \
        FAKE_SEND, "{\"return\": {}, \"id\": $}\r\n", 0                                                      \
    }

struct fake;

struct fake *fake_start(const char *socket_path, const struct fake_step *steps, size_t count);
/* Lets one FAKE_WAIT pass. */
void fake_go(struct fake *fake);
/* Waits for the script's end. received (may be NULL): all lines it has read, owned; fd: the descriptor that
 * came, or -1. */
void fake_finish(struct fake *fake, char **received, int *fd);
