#include "machine_private.h"

#include "auto.h"
#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <string.h>
#include <sys/pidfd.h>

#define START_LIMIT_MS 30000
/* QEMU waits up to 16 seconds before it tries a disk again, and its monitor may wait with it. */
#define ADOPT_LIMIT_MS 120000

/* --- starting --- */

AUTO_DEFINE(auto_machine_kill, struct machine, machine_kill)
AUTO_DEFINE(auto_machine_release, struct machine, machine_release)
AUTO_DEFINE(auto_arguments_free, char *, machine_arguments_free)

/* fds of the child: alive_fd, then one TAP for each bridged interface. Those of bridges are to be closed by
 * the caller, also on failure. */
static bool bridges_open(const struct machine_launch *launch, int log_fd, int *fds, size_t *ret_count,
                         struct err *err)
{
    fds[0] = launch->alive_fd;
    *ret_count = 1;
    for (size_t i = 0; i < launch->config->nic_count; i++) {
        const struct config_nic *nic = &launch->config->nics[i];
        if (nic->kind != NIC_BRIDGE)
            continue;
        if (!bridge_open(nic->target, log_fd, &fds[*ret_count], err))
            return false;
        (*ret_count)++;
    }
    return true;
}

static bool log_open(const char *dir, int *ret_fd, struct err *err)
{
    AUTO_FREE char *path = path_join(dir, "qemu.log");
    if (!path)
        return err_oom(err);
    int fd = open(path, O_WRONLY | O_CREAT | O_TRUNC | O_APPEND | O_CLOEXEC | O_NOFOLLOW, 0600);
    if (fd < 0)
        return err_sys(err, errno, "open %s", path);
    *ret_fd = fd;
    return true;
}

static bool launch_process(const struct machine_launch *launch, struct machine *machine, struct err *err)
{
    AUTO(auto_arguments_free) char **argv = NULL;
    AUTO_FD int log_fd = -1;
    int fds[1 + MACHINE_NIC_MAX];
    size_t count = 0;
    if (!machine_arguments(launch, &argv, err) || !log_open(launch->dir, &log_fd, err))
        return false;
    bool ok = bridges_open(launch, log_fd, fds, &count, err);
    const struct child child = {.argv = argv, .output_fd = log_fd, .error_fd = log_fd, .fds = fds, .fd_count = count};
    ok = ok && child_start(&child, &machine->pid, err);
    for (size_t i = 1; i < count; i++)
        close(fds[i]);
    if (!ok)
        return false;
    machine->pidfd = pidfd_open(machine->pid, 0);
    if (machine->pidfd < 0)
        return err_sys(err, errno, "look at QEMU's process");
    return true;
}

/* QEMU's reason in place of the broken connection, if it has ended. */
static bool explain(struct machine *machine, struct err *err)
{
    char words[480];
    if (err->code == ERR_QEMU && err->sys == EPIPE) {
        machine_last_words(machine, words, sizeof(words));
        err_set_text(err, ERR_QEMU, EPIPE, "%s", words);
    }
    return false;
}

bool machine_start(const struct machine_launch *launch, struct machine **ret_machine, struct err *err)
{
    AUTO(auto_machine_kill) struct machine *machine = calloc(1, sizeof(*machine));
    if (!machine)
        return err_oom(err);
    machine->pidfd = -1;
    machine->accel = launch->accel;
    machine->maps_file = launch->memory_file != NULL;
    machine->has_display = launch->config->display != DISPLAY_NONE;
    AUTO_FREE char *socket = path_join(launch->dir, MACHINE_MONITOR_SOCKET);
    if (!socket || !(machine->dir = strdup(launch->dir)))
        return err_oom(err);
    unlink(socket); /* one that a killed process left would be connected to */
    if (!launch_process(launch, machine, err))
        return false;
    if (!qmp_connect(socket, machine->pidfd, START_LIMIT_MS, &machine->qmp, err))
        return explain(machine, err);
    *ret_machine = TAKE(machine);
    return true;
}

bool machine_adopt(const struct machine_adoption *adoption, struct machine **ret_machine, struct err *err)
{
    AUTO_FD int pidfd = adoption->pidfd;
    AUTO(auto_machine_release) struct machine *machine = calloc(1, sizeof(*machine));
    AUTO_FREE char *socket = path_join(adoption->dir, MACHINE_MONITOR_SOCKET);
    if (!machine || !socket)
        return err_oom(err);
    machine->pid = adoption->pid;
    machine->pidfd = TAKE_FD(pidfd);
    machine->accel = adoption->accel;
    machine->maps_file = adoption->maps_file;
    machine->has_display = adoption->has_display;
    if (!(machine->dir = strdup(adoption->dir)))
        return err_oom(err);
    if (!qmp_connect(socket, machine->pidfd, ADOPT_LIMIT_MS, &machine->qmp, err))
        return explain(machine, err);
    *ret_machine = TAKE(machine);
    return true;
}

pid_t machine_pid(const struct machine *machine)
{
    return machine->pid;
}

int machine_pidfd(const struct machine *machine)
{
    return machine->pidfd;
}

struct qmp *machine_qmp(struct machine *machine)
{
    return machine->qmp;
}

const char *machine_dir(const struct machine *machine)
{
    return machine->dir;
}

/* --- commands --- */

bool machine_execute(struct machine *machine, const char *command, json_t *arguments, int fd,
                     json_t **ret_value, struct err *err)
{
    return qmp_execute(machine->qmp, command, arguments, fd, ret_value, err) || explain(machine, err);
}

bool machine_run_state(struct machine *machine, char state[static 32], struct err *err)
{
    json_t *value = NULL;
    if (!machine_execute(machine, "query-status", NULL, -1, &value, err))
        return false;
    const char *status = json_string_value(json_object_get(value, "status"));
    bool ok = status && strlen(status) < 32;
    if (ok)
        strcpy(state, status);
    json_decref(value);
    return ok || err_set(err, ERR_PROTOCOL, "QEMU's monitor answered query-status without a status");
}

bool machine_continue(struct machine *machine, struct err *err)
{
    return machine_execute(machine, "cont", NULL, -1, NULL, err);
}

bool machine_stop(struct machine *machine, struct err *err)
{
    return machine_execute(machine, "stop", NULL, -1, NULL, err);
}

bool machine_power_button(struct machine *machine, struct err *err)
{
    return machine_execute(machine, "system_powerdown", NULL, -1, NULL, err);
}

bool machine_ask(struct machine *machine, const char *line, char answer[static MACHINE_ANSWER_BYTES], struct err *err)
{
    json_t *value = NULL;
    if (!machine_execute(machine, "human-monitor-command", json_pack("{s:s}", "command-line", line), -1, &value, err))
        return false;
    const char *text = json_string_value(value);
    snprintf(answer, MACHINE_ANSWER_BYTES, "%s", text ? text : "no answer");
    json_decref(value);
    return true;
}

/* One forwarded port; the command exists only for people: an answer is a complaint. */
static bool forward_add(struct machine *machine, size_t nic, const char *forward, struct err *err)
{
    char rule[64], line[128], complaint[MACHINE_ANSWER_BYTES];
    if (!forward_parse(forward, rule, err))
        return false;
    snprintf(line, sizeof(line), "hostfwd_add net%zu %s", nic, rule);
    if (!machine_ask(machine, line, complaint, err))
        return false;
    return strspn(complaint, " \r\n") == strlen(complaint) ||
           err_set(err, ERR_QEMU, "the forwarded port %s: %.200s", forward, complaint);
}

bool machine_take_host_resources(struct machine *machine, const struct config *config, struct err *err)
{
    for (size_t i = 0; i < config->nic_count; i++)
        for (size_t j = 0; config->nics[i].kind == NIC_USER && j < config->nics[i].forward_count; j++)
            if (!forward_add(machine, i, config->nics[i].forwards[j], err))
                return false;
    return true;
}

bool machine_can_hold(const struct config *config)
{
    for (size_t i = 0; i < config->nic_count; i++)
        if (config->nics[i].kind == NIC_TAP)
            return false;
    return true;
}

/* --- for saving and loading --- */

bool machine_is_named(const char *const *names, const char *name)
{
    for (; *names; names++)
        if (strcmp(*names, name) == 0)
            return true;
    return false;
}

bool machine_set_capabilities(struct machine *machine, const char *const *on, struct err *err)
{
    json_t *known = NULL, *entry;
    size_t index;
    if (!machine_execute(machine, "query-migrate-capabilities", NULL, -1, &known, err))
        return false;
    json_t *wanted = json_array();
    json_array_foreach (known, index, entry) {
        const char *name = json_string_value(json_object_get(entry, "capability"));
        if (name)
            json_array_append_new(
                wanted, json_pack("{s:s, s:b}", "capability", name, "state", machine_is_named(on, name)));
    }
    json_decref(known);
    json_t *arguments = json_pack("{s:o}", "capabilities", wanted);
    return machine_execute(machine, "migrate-set-capabilities", arguments, -1, NULL, err);
}

bool machine_give_fd(struct machine *machine, int fd, const char *name, struct err *err)
{
    return machine_execute(machine, "getfd", json_pack("{s:s}", "fdname", name), fd, NULL, err);
}
