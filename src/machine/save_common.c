/* What every save has in common: what QEMU says meanwhile, the way back, and the end. */
#include "save_private.h"

#include "auto.h"
#include "clock.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define PIPE_BYTES (1 << 20)
/* Looks, not time: QEMU may have answered none of them for a minute, and all of the rest in a moment. */
#define END_LOOKS    60000 /* a millisecond each, for QEMU to end what was cancelled */
#define FINISH_LOOKS 50000 /* a tenth of that each, from "completed" until QEMU takes `cont` */

/* --- listening --- */

/* Does this event say that the guest stops by itself? */
static bool is_own_stop(const char *name, const json_t *event)
{
    const char *action = json_string_value(json_object_get(json_object_get(event, "data"), "action"));
    if (!action)
        return false;
    if (strcmp(name, "BLOCK_IO_ERROR") == 0)
        return strcmp(action, "stop") == 0;
    if (strcmp(name, "GUEST_PANICKED") == 0 || strcmp(name, "WATCHDOG") == 0)
        return strcmp(action, "pause") == 0;
    return false;
}

static void hear_pass(struct saving *saving)
{
    saving->passes++;
    if (saving->passes == 2)
        saving->second_pass_ms = clock_ms();
    saving->read_running |= !saving->stands;
}

static void hear_status(struct saving *saving, const char *status)
{
    if (strcmp(status, "active") == 0)
        saving->active = true;
    else if (strcmp(status, "pre-switchover") == 0)
        saving->pre_switchover = true;
    else if (strcmp(status, "completed") == 0)
        saving->completed = true;
    else if (strcmp(status, "failed") == 0 || strcmp(status, "cancelled") == 0)
        saving->failed = true;
}

/* Steals event. */
static void hear(struct saving *saving, json_t *event)
{
    int64_t at_us;
    const char *name = qmp_event_name(event, &at_us);
    const char *status = json_string_value(json_object_get(json_object_get(event, "data"), "status"));
    if (strcmp(name, "MIGRATION") == 0 && status) {
        hear_status(saving, status);
    } else if (strcmp(name, "MIGRATION_PASS") == 0) {
        hear_pass(saving);
    } else {
        saving->guest_stopped |= is_own_stop(name, event);
        if (strcmp(name, "STOP") == 0)
            saving->stop_us = at_us;
        if (strcmp(name, "STOP") == 0 || strcmp(name, "RESUME") == 0)
            saving->stands = name[0] == 'S';
        saving->resumed |= strcmp(name, "RESUME") == 0;
        json_array_append(saving->foreign, event);
    }
    json_decref(event);
}

/* Waits for one event at most so long, and hears all that came. */
bool saving_listen(struct saving *saving, int wait_ms)
{
    json_t *event = NULL;
    for (;; wait_ms = 0) {
        if (!qmp_next_event(saving->machine->qmp, wait_ms, &event, saving->err))
            return false;
        if (!event)
            return true;
        hear(saving, event);
    }
}

/* --- preparing --- */

bool saving_check_state(struct saving *saving)
{
    char state[32];
    if (!machine_check_saved_state(saving->machine, state, saving->err))
        return false;
    saving->was_running = strcmp(state, "running") == 0;
    saving->stands = !saving->was_running;
    saving->two_pauses = saving->was_running && saving->machine->accel == ACCEL_TCG;
    return true;
}

bool saving_give_pipe(struct saving *saving)
{
    AUTO_FD int fd = TAKE_FD(saving->stream_fd);
    /* Fewer changes between QEMU and the reader; a refusal is harmless. */
    fcntl(fd, F_SETPIPE_SZ, saving->paced ? SAVE_PACED_PIPE_BYTES : PIPE_BYTES);
    if (saving->paced && (saving->pipe_fd = fcntl(fd, F_DUPFD_CLOEXEC, 0)) < 0)
        return err_sys(saving->err, errno, "duplicate a pipe");
    return machine_give_fd(saving->machine, fd, SAVE_FD_NAME, saving->err);
}

/* Where QEMU has used the descriptor up there is none to close. */
bool saving_take_pipe_back(struct saving *saving)
{
    struct err ignored = ERR_INIT;
    json_t *name = json_pack("{s:s}", "fdname", SAVE_FD_NAME);
    if (!qmp_execute(saving->machine->qmp, "closefd", name, -1, NULL, &ignored))
        log_debug("%s", ignored.text);
    return false;
}

bool saving_migrate(struct saving *saving)
{
    json_t *uri = json_pack("{s:s}", "uri", "fd:" SAVE_FD_NAME);
    return machine_execute(saving->machine, "migrate", uri, -1, NULL, saving->err) || saving_take_pipe_back(saving);
}

/* Nothing that an earlier save left in the queue may be taken for news of this one. */
bool saving_forget_earlier(struct saving *saving)
{
    if (!saving_listen(saving, 0))
        return false;
    saving->failed = saving->completed = saving->pre_switchover = saving->active = false;
    saving->guest_stopped = saving->read_running = saving->resumed = false;
    saving->passes = 0;
    saving->stop_us = 0;
    saving->earlier = json_array_size(saving->foreign);
    return true;
}

bool saving_stop(struct saving *saving)
{
    saving->held = true;
    return machine_stop(saving->machine, saving->err);
}

/* A guest that has just stopped by itself is in a state of another name. So is one of which QEMU has just copied all: it has stopped it
 * for the instant. */
bool saving_check_stopped(struct saving *saving)
{
    static const char *const OURS[] = {"paused", "finish-migrate", "postmigrate", NULL};
    char state[32];
    if (!saving_listen(saving, 0) || !machine_run_state(saving->machine, state, saving->err))
        return false;
    saving->guest_stopped |= !machine_is_named(OURS, state);
    saving->asked_stop_us = saving->stop_us;
    return true;
}

/* --- on the way --- */

/* QEMU's own reason for a failed migration, where it has one (some have none, 7.2 gives few). */
static bool tell_failure(struct saving *saving)
{
    json_t *value = NULL;
    if (!machine_execute(saving->machine, "query-migrate", NULL, -1, &value, saving->err))
        return false;
    const char *reason = json_string_value(json_object_get(value, "error-desc"));
    err_set_text(saving->err, ERR_QEMU, 0, "QEMU could not save the VM%s%.200s", reason ? ": " : "",
                 reason ? reason : "");
    json_decref(value);
    return false;
}

/* Is somebody against going on? */
bool saving_check_others(struct saving *saving)
{
    const struct machine_save *save = saving->save;
    if (saving->failed)
        return tell_failure(saving);
    if (save->failed && save->failed(save->context, saving->err))
        return false;
    if (saving->phase == PHASE_COPY && progress_cancelled(save->progress))
        return err_set(saving->err, ERR_CANCELLED, "cancelled");
    return true;
}

/* `cont` as soon as QEMU takes it: it says "completed" a moment before its run state is "postmigrate". */
static bool resume(struct machine *machine, struct err *err)
{
    for (unsigned look = 0;; look++) {
        char state[32];
        struct err ignored = ERR_INIT;
        if (machine_continue(machine, err))
            return true;
        if (!machine_run_state(machine, state, &ignored))
            return false;
        if (strcmp(state, "running") == 0) /* QEMU has set it running itself */
            return true;
        if (look == FINISH_LOOKS ||
            (strcmp(state, "finish-migrate") != 0 && strcmp(state, "postmigrate") != 0))
            return false;
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
}

/* --- when it failed --- */

static bool migration_status(struct machine *machine, char status[static 32], struct err *err)
{
    json_t *value = NULL;
    if (!machine_execute(machine, "query-migrate", NULL, -1, &value, err))
        return false;
    const char *text = json_string_value(json_object_get(value, "status"));
    snprintf(status, 32, "%s", text ? text : "none");
    json_decref(value);
    return true;
}

static bool is_over(const char *status)
{
    static const char *const over[] = {"none", "completed", "failed", "cancelled", NULL};
    return machine_is_named(over, status);
}

/* Cancels, and waits until the migration is over, whatever became of it. A cancellation that comes just as
 * the processors have been stopped is overlooked by QEMU's migration thread (seen with 7.2): "cancelling", it
 * waits for migrate-continue for ever. So that is given, which does no harm to one that does not wait. */
static bool cancel(struct machine *machine, struct err *err)
{
    if (!machine_execute(machine, "migrate_cancel", NULL, -1, NULL, err))
        return false;
    for (unsigned look = 0;; look++) {
        char status[32];
        struct err ignored = ERR_INIT;
        if (!migration_status(machine, status, err))
            return false;
        if (is_over(status))
            return true;
        if (strcmp(status, "cancelling") == 0 &&
            !qmp_execute(machine->qmp, "migrate-continue", json_pack("{s:s}", "state", status), -1, NULL,
                         &ignored))
            log_debug("%s", ignored.text); /* it has just ended */
        if (look == END_LOOKS)
            return err_set(err, ERR_TIMEOUT, "QEMU does not end a cancelled save");
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
}

/* Until QEMU has left the state in between that no command is taken in. */
static bool leave_finish(struct machine *machine, struct err *err)
{
    char state[32] = "";
    for (unsigned look = 0; look < FINISH_LOOKS; look++) {
        if (!machine_run_state(machine, state, err))
            return false;
        if (strcmp(state, "finish-migrate") != 0)
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 100000}, NULL);
    }
    return err_set(err, ERR_TIMEOUT, "QEMU does not end a save");
}

static bool wait_for_end(struct machine *machine, struct err *err)
{
    char status[32];
    for (;;) {
        if (!migration_status(machine, status, err))
            return false;
        if (is_over(status))
            return true;
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    }
}

bool machine_end_save(struct machine *machine, struct err *err)
{
    char status[32];
    bool must_end = false;
    /* As in a save: while it flushes the disks QEMU answers nothing. */
    int timeout_ms = qmp_set_timeout(machine->qmp, -1);
    bool ok = machine_unturn(machine, err) && migration_status(machine, status, err) &&
              (is_over(status) || saving_must_come_to_its_end(machine, &must_end, err));
    if (ok && !is_over(status))
        ok = must_end ? wait_for_end(machine, err) : cancel(machine, err);
    ok = ok && leave_finish(machine, err);
    qmp_set_timeout(machine->qmp, timeout_ms);
    return ok;
}

/* What ran runs again, unless it stopped by itself; what stood still stands. */
static bool set_run_state_right(struct saving *saving, struct err *err)
{
    char state[32];
    struct machine *machine = saving->machine;
    if (!machine_run_state(machine, state, err))
        return false;
    bool runs = strcmp(state, "running") == 0;
    if (saving->was_running && !saving->guest_stopped && !runs &&
        (strcmp(state, "paused") == 0 || strcmp(state, "postmigrate") == 0 ||
         strcmp(state, "finish-migrate") == 0))
        return resume(machine, err);
    if (!saving->was_running && runs)
        return machine_stop(machine, err);
    return true;
}

/* Keeps the first error; one more on the way back is told behind it. */
bool saving_roll_back(struct saving *saving)
{
    struct err first = *saving->err, second = ERR_INIT, later = ERR_INIT;
    /* QEMU that waits in a write ends only when what it writes is read. */
    if (saving->save->pace)
        saving->save->pace(saving->save->context, UINT64_MAX);
    bool over = cancel(saving->machine, &second);
    /* Also where QEMU does not end it: a guest must not be left standing. */
    bool right = set_run_state_right(saving, over ? &second : &later) && over;
    if (right && !saving_listen(saving, 0)) {
        second = *saving->err;
        right = false;
    }
    *saving->err = first;
    saving->rolled_back = right;
    if (!right)
        err_set_text(saving->err, first.code, first.sys, "%.300s; then: %.150s", first.text, second.text);
    return false;
}

/* --- the end --- */

static void pause_add(struct machine_save_result *result, int64_t stop_us, int64_t resume_us)
{
    uint64_t pause_us = resume_us > stop_us ? (uint64_t)(resume_us - stop_us) : 0;
    result->pauses++;
    result->paused_us += pause_us;
    if (pause_us > result->pause_us)
        result->pause_us = pause_us;
}

/* All pauses by QEMU's own clock, each from a STOP to the RESUME behind it. */
static void pause_measure(struct saving *saving, struct machine_save_result *result)
{
    struct err ignored = ERR_INIT, *told = saving->err;
    int64_t at_us, stop_us = 0;
    saving->err = &ignored; /* the save is good; if the monitor breaks now the next command will tell */
    bool heard = saving_listen(saving, 0);
    saving->err = told;
    if (!heard)
        return;
    for (size_t i = saving->earlier; i < json_array_size(saving->foreign); i++) {
        const char *name = qmp_event_name(json_array_get(saving->foreign, i), &at_us);
        if (strcmp(name, "STOP") == 0)
            stop_us = at_us;
        if (strcmp(name, "RESUME") != 0 || stop_us == 0)
            continue;
        pause_add(result, stop_us, at_us);
        stop_us = 0;
    }
}

static bool run(struct saving *saving, struct machine_save_result *result)
{
    const struct machine_save *save = saving->save;
    if (!(save->point_now ? save_background(saving) : save_precopy(saving)))
        return false;
    bool runs_on = saving->was_running && !save->stay_stopped && (saving->background || !saving->guest_stopped);
    if (runs_on && !saving->background && !resume(saving->machine, saving->err))
        return err_prefix(saving->err, "the VM was saved but cannot go on");
    result->background = saving->background;
    if (runs_on)
        pause_measure(saving, result);
    result->passes = saving->passes;
    result->too_fast = saving->limit > 0;
    result->total_us = (uint64_t)(clock_ms() - saving->begin_ms) * 1000;
    return true;
}

/* Takes the STOP and RESUME of the save itself out of the events that are given back. If the guest has
 * stopped by itself that is told by the last STOP. */
static void forget_own_pause(struct saving *saving)
{
    bool keep = saving->guest_stopped;
    for (size_t i = json_array_size(saving->foreign); i-- > saving->earlier;) {
        const char *name = qmp_event_name(json_array_get(saving->foreign, i), NULL);
        bool is_stop = strcmp(name, "STOP") == 0;
        if ((is_stop && !keep) || strcmp(name, "RESUME") == 0)
            json_array_remove(saving->foreign, i);
        keep = keep && !is_stop;
    }
}

bool machine_save(struct machine *machine, const struct machine_save *save,
                  struct machine_save_result *ret_result, struct err *err)
{
    struct saving saving = {
        .machine = machine, .save = save, .err = err, .foreign = json_array(), .stream_fd = save->stream_fd,
        .pipe_fd = -1};
    struct machine_save_result result = {0};
    /* While it flushes the disks QEMU answers nothing, as long as that may take. Who gives up on an answer then leaves a
     * guest standing that ran: QEMU does the `stop` all the same. */
    int timeout_ms = qmp_set_timeout(machine->qmp, -1);
    bool ok = run(&saving, &result);
    qmp_set_timeout(machine->qmp, timeout_ms);
    forget_own_pause(&saving);
    qmp_put_back(machine->qmp, saving.foreign);
    if (ok)
        *ret_result = result;
    return ok;
}
