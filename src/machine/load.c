#include "machine_private.h"

#include "auto.h"
#include "clock.h"
#include "file.h"
#include "log.h"
#include "unix_socket.h"

#include <errno.h>
#include <string.h>
#include <time.h>

#define LOAD_FD_NAME  "bough-load"
#define LOAD_LIMIT_MS 120000
#define LOOK_MS       200

static bool begin(struct machine *machine, int fd, struct err *err)
{
    static const char *const on[] = {"events", NULL};
    char state[32];
    if (!machine_run_state(machine, state, err))
        return false;
    if (strcmp(state, "inmigrate") != 0)
        return err_set(err, ERR_STATE, "QEMU is %s and waits for no saved state", state);
    return machine_set_capabilities(machine, on, err) && machine_give_fd(machine, fd, LOAD_FD_NAME, err);
}

/* What became of the load, from an event: 1 loaded, -1 refused, 0 not yet. */
static int outcome(const json_t *event)
{
    const char *status = json_string_value(json_object_get(json_object_get(event, "data"), "status"));
    if (strcmp(qmp_event_name(event, NULL), "MIGRATION") != 0 || !status)
        return 0;
    return strcmp(status, "completed") == 0 ? 1 : strcmp(status, "failed") == 0 ? -1 : 0;
}

/* Waits for QEMU's verdict. Other events are collected in foreign. */
static bool wait_loaded(struct machine *machine, json_t *foreign, struct err *err)
{
    for (int64_t deadline_ms = clock_ms() + LOAD_LIMIT_MS; clock_ms() < deadline_ms;) {
        json_t *event = NULL;
        if (!qmp_next_event(machine->qmp, LOOK_MS, &event, err))
            return false;
        int became = outcome(event);
        if (event && became == 0 && strcmp(qmp_event_name(event, NULL), "MIGRATION") != 0)
            json_array_append(foreign, event);
        json_decref(event);
        if (became > 0)
            return true;
        if (became < 0) { /* the process ends now: its words say why */
            err_set_text(err, ERR_QEMU, EPIPE, "QEMU refused the saved state");
            return false;
        }
    }
    return err_set(err, ERR_TIMEOUT, "QEMU does not finish loading the saved state");
}

/* The run state follows "completed" by a moment. */
static bool wait_state(struct machine *machine, struct err *err)
{
    char state[32] = "inmigrate";
    for (int64_t deadline_ms = clock_ms() + 5000; clock_ms() < deadline_ms;) {
        if (!machine_run_state(machine, state, err))
            return false;
        if (strcmp(state, "running") == 0)
            return err_set(err, ERR_INTERNAL, "QEMU runs the loaded VM before its time");
        if (strcmp(state, "inmigrate") != 0)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return err_set(err, ERR_TIMEOUT, "QEMU loaded the saved state but stays in %s", state);
}

static bool explain(struct machine *machine, struct err *err)
{
    char words[440];
    if (err->code == ERR_QEMU && err->sys == EPIPE) {
        machine_last_words(machine, words, sizeof(words));
        err_set_text(err, ERR_QEMU, EPIPE, "the saved state was refused: %s", words);
    }
    return false;
}

/* A serial port that was waiting to send at the instant tries again only if somebody is connected to its console when it is
 * loaded (7.2, 10.0: serial_post_load() adds a watch that an unconnected socket drops); else it would stand still for ever. */
static int console_connect(const struct machine *machine)
{
    AUTO_FREE char *path = path_join(machine->dir, "console.sock");
    struct err err = ERR_INIT;
    int fd;

    if (path && unix_connect(path, 0, &fd, &err))
        return fd;
    log_debug("%s", err.text);
    return -1;
}

bool machine_load(struct machine *machine, int fd, struct err *err)
{
    AUTO_FD int console = console_connect(machine);
    (void)console; /* held to the end of the function */
    bool begun = begin(machine, fd, err);
    close(fd);
    if (!begun)
        return false;
    json_t *foreign = json_array();
    json_t *arguments = json_pack("{s:s}", "uri", "fd:" LOAD_FD_NAME);
    bool ok = machine_execute(machine, "migrate-incoming", arguments, -1, NULL, err) &&
              wait_loaded(machine, foreign, err) && wait_state(machine, err);
    qmp_put_back(machine->qmp, foreign);
    return ok || explain(machine, err);
}
