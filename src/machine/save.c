/* Saving a VM that goes on: QEMU's pre-copy migration into a pipe.
 *
 *   monitor                          guest
 *   capabilities, limits, getfd      runs
 *   migrate                          runs; memory is copied, changed pages again (MIGRATION_PASS)
 *   <- STOP, pre-switchover          stands; its requests are complete, the disks flushed: THE INSTANT
 *   migrate-continue                 stands; the rest of memory and the device state are copied
 *   <- completed                     stands ("postmigrate")
 *   cont, <- RESUME                  runs
 *
 * With TCG that would lose writes of the guest. A processor that takes a page for changed, and is interrupted
 * before it makes the page writable for its fast path, leaves it writable although QEMU has read the bitmap
 * of changed pages, cleared it, and made every page read-only in between: what is written there afterwards is
 * never copied. So there the bitmap is read only while the guest stands, in two pauses:
 *
 *   capabilities, limit 0, getfd     runs
 *   stop, migrate                    stands; the first reading, of the set-up
 *   <- MIGRATION_PASS, active
 *   cont                             runs; each page is copied once. With a limit of 0 there is no reading
 *                                    before nothing is left, and then QEMU stops the guest first
 *   <- STOP, pre-switchover          stands: THE INSTANT, and on as above; the second reading is behind it
 *
 * MIGRATION_PASS follows each reading, by the same lock as STOP and RESUME: one that comes while the guest
 * runs tells that this QEMU does otherwise. Then all is done again, with the guest standing from end to end.
 *
 * What fails before the end is cancelled; QEMU then leaves the guest running or standing by its version and
 * the moment, so that the state is looked at and set right. Behind "postmigrate" QEMU takes no second save: a
 * VM that stood still must be started anew from the files before it can be saved again. */
#include "machine_private.h"

#include "auto.h"
#include "clock.h"
#include "log.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <time.h>

#define SAVE_FD_NAME    "bough-save"
#define PIPE_BYTES      (1 << 20)
#define BANDWIDTH_MAX   ((json_int_t)1 << 50) /* bytes a second: no limit */
#define LOOK_MS         20                    /* between looks at failed() and cancelled() */
/* Looks, not time: QEMU may have answered none of them for a minute, and all of the rest in a moment. */
#define END_LOOKS       60000 /* a millisecond each, for QEMU to end what was cancelled */
#define FINISH_LOOKS    50000 /* a tenth of that each, from "completed" until QEMU takes `cont` */

/* How long the last copy, of a guest that stands still, may take by QEMU's estimate. The first value makes
 * the pause of an ordinary guest a few milliseconds. A guest that writes faster than it is copied gets a
 * longer one after each further pass, and in the end is copied standing, however long that takes. */
static const struct {
    uint64_t after_pass, after_ms;
    unsigned limit_ms;
} limits[] = {
    {0, 0, 3}, {5, 4000, 10}, {7, 8000, 40}, {9, 12000, 160}, {11, 16000, 640}, {13, 20000, 2000000},
};

enum phase { PHASE_COPY, PHASE_INSTANT, PHASE_DONE };

struct saving {
    struct machine *machine;
    const struct machine_save *save;
    struct err *err;
    bool was_running;
    bool guest_stopped; /* by itself: I/O error, panic, watchdog */
    int stream_fd;      /* until QEMU has it */
    bool two_pauses;    /* TCG, and the guest ran */
    bool held;          /* stopped by the save itself, and not yet set running */
    bool stands;        /* by the last STOP or RESUME, or was_running */
    bool rolled_back;   /* what failed left no trace */
    bool read_running;  /* the bitmap of changed pages was, while the guest ran */
    enum phase phase;
    bool active, pre_switchover, completed, failed; /* what QEMU has said */
    int64_t stop_us;                                /* of the last STOP; 0: none */
    int64_t asked_stop_us;                          /* the last STOP whose reason was looked at */
    int64_t begin_ms, second_pass_ms;
    uint64_t passes;
    size_t limit;    /* index in limits */
    json_t *foreign; /* events that are not ours: given back in the end */
    size_t earlier;  /* the first of them are from before the save */
};

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
        json_array_append(saving->foreign, event);
    }
    json_decref(event);
}

/* Waits for one event at most so long, and hears all that came. */
static bool listen_once(struct saving *saving, int wait_ms)
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

static bool set_limit(struct saving *saving)
{
    json_t *arguments = json_pack("{s:I, s:I}", "max-bandwidth", BANDWIDTH_MAX, "downtime-limit",
                                  (json_int_t)(saving->two_pauses ? 0 : limits[saving->limit].limit_ms));
    return machine_execute(saving->machine, "migrate-set-parameters", arguments, -1, NULL, saving->err);
}

/* Gives the pipe to QEMU and closes it here. */
static bool give_pipe(struct saving *saving)
{
    AUTO_FD int fd = TAKE_FD(saving->stream_fd);
    /* Fewer changes between QEMU and the reader; a refusal is harmless. */
    fcntl(fd, F_SETPIPE_SZ, PIPE_BYTES);
    return machine_give_fd(saving->machine, fd, SAVE_FD_NAME, saving->err);
}

static bool check_state(struct saving *saving)
{
    char state[32];
    if (!machine_run_state(saving->machine, state, saving->err))
        return false;
    if (strcmp(state, "postmigrate") == 0 || strcmp(state, "finish-migrate") == 0 ||
        strcmp(state, "inmigrate") == 0)
        return err_set(saving->err, ERR_STATE, "QEMU cannot save in the state %s", state);
    if (strcmp(state, "suspended") == 0 &&
        qmp_version_major(saving->machine->qmp) < 9) /* it would come back awake */
        return err_set(saving->err, ERR_STATE, "QEMU %s cannot save a guest that sleeps",
                       qmp_version(saving->machine->qmp));
    saving->was_running = strcmp(state, "running") == 0;
    saving->stands = !saving->was_running;
    saving->two_pauses = saving->was_running && saving->machine->accel == ACCEL_TCG;
    return true;
}

/* Nothing that an earlier save left in the queue may be taken for news of this one. */
static bool forget_earlier(struct saving *saving)
{
    if (!listen_once(saving, 0))
        return false;
    saving->failed = saving->completed = saving->pre_switchover = saving->active = false;
    saving->guest_stopped = saving->read_running = false;
    saving->passes = 0;
    saving->stop_us = 0;
    saving->earlier = json_array_size(saving->foreign);
    return true;
}

/* The first pause. A guest that has just stopped by itself is in a state of another name. */
static bool hold(struct saving *saving)
{
    char state[32];
    saving->held = true;
    if (!machine_stop(saving->machine, saving->err) || !listen_once(saving, 0) ||
        !machine_run_state(saving->machine, state, saving->err))
        return false;
    saving->guest_stopped |= strcmp(state, "paused") != 0;
    saving->asked_stop_us = saving->stop_us;
    return true;
}

static bool begin(struct saving *saving)
{
    static const char *const on[] = {"events", "pause-before-switchover", NULL};
    struct err ignored = ERR_INIT;
    bool ready = forget_earlier(saving) && check_state(saving) &&
                 machine_set_capabilities(saving->machine, on, saving->err) && set_limit(saving);
    if (!ready) {
        close(TAKE_FD(saving->stream_fd));
        return false;
    }
    if (!give_pipe(saving))
        return false;
    saving->begin_ms = clock_ms();
    if ((!saving->two_pauses || hold(saving)) &&
        machine_execute(saving->machine, "migrate", json_pack("{s:s}", "uri", "fd:" SAVE_FD_NAME), -1, NULL,
                        saving->err))
        return true;
    /* Refused: the reader must see the end all the same. Where QEMU has used the descriptor up there is none
     * to close. */
    json_t *name = json_pack("{s:s}", "fdname", SAVE_FD_NAME);
    if (!qmp_execute(saving->machine->qmp, "closefd", name, -1, NULL, &ignored))
        log_debug("%s", ignored.text);
    return false;
}

/* --- the way through --- */

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
static bool check_others(struct saving *saving)
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

/* A longer pause is allowed when the copying goes on for too long. */
static bool check_convergence(struct saving *saving)
{
    if (saving->two_pauses || saving->limit + 1 == ARRAY_SIZE(limits) || saving->passes < 2 ||
        saving->pre_switchover)
        return true;
    uint64_t elapsed_ms = (uint64_t)(clock_ms() - saving->second_pass_ms);
    if (saving->passes < limits[saving->limit + 1].after_pass &&
        elapsed_ms < limits[saving->limit + 1].after_ms)
        return true;
    saving->limit++;
    return set_limit(saving);
}

/* A STOP that the instant does not follow at once is the guest's own: it is then in a state of its own name.
 */
static bool check_own_stop(struct saving *saving)
{
    char state[32];
    saving->asked_stop_us = saving->stop_us;
    if (!machine_run_state(saving->machine, state, saving->err))
        return false;
    if (strcmp(state, "running") != 0 && strcmp(state, "finish-migrate") != 0 &&
        strcmp(state, "postmigrate") != 0)
        saving->guest_stopped = true;
    return true;
}

/* The end of the first pause, when the set-up has read the bitmap. If all has been copied meanwhile QEMU is
 * already behind the point where the guest could run on; if it has not read, it would do so while it runs. */
static bool let_run(struct saving *saving)
{
    char state[32];
    if (!saving->held || !saving->active || saving->guest_stopped || saving->machine->reads_running ||
        saving->pre_switchover)
        return true;
    saving->held = false;
    if (saving->passes == 0 || machine_continue(saving->machine, saving->err))
        return true;
    return machine_run_state(saving->machine, state, saving->err) && strcmp(state, "finish-migrate") == 0;
}

/* A read bitmap and a guest that ran: under TCG nobody knows then what was not copied. */
static bool check_exact(struct saving *saving)
{
    if (!saving->two_pauses || !saving->read_running)
        return true;
    saving->machine->reads_running = true;
    return err_set(saving->err, ERR_QEMU, "QEMU read the changes of memory while the guest ran");
}

static bool copy(struct saving *saving)
{
    while (!saving->pre_switchover) {
        bool stopped_before = saving->was_running && saving->stop_us != saving->asked_stop_us;
        if (!listen_once(saving, LOOK_MS) || !check_others(saving) || !check_exact(saving) ||
            !let_run(saving))
            return false;
        if (stopped_before && !saving->pre_switchover && !check_own_stop(saving))
            return false;
        if (!check_convergence(saving))
            return false;
    }
    return check_exact(saving);
}

static bool finish_stream(struct saving *saving)
{
    saving->phase = PHASE_INSTANT;
    saving->save->at_instant(saving->save->context);
    if (!machine_execute(saving->machine, "migrate-continue", json_pack("{s:s}", "state", "pre-switchover"),
                         -1, NULL, saving->err))
        return false;
    while (!saving->completed)
        if (!listen_once(saving, LOOK_MS) || !check_others(saving))
            return false;
    saving->phase = PHASE_DONE;
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
static bool roll_back(struct saving *saving)
{
    struct err first = *saving->err, second = ERR_INIT, later = ERR_INIT;
    bool over = cancel(saving->machine, &second);
    /* Also where QEMU does not end it: a guest must not be left standing. */
    bool right = set_run_state_right(saving, over ? &second : &later) && over;
    if (right && !listen_once(saving, 0)) {
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

/* All pauses by QEMU's own clock, each from a STOP to the RESUME behind it. */
static uint64_t pause_measure(struct saving *saving)
{
    struct err ignored = ERR_INIT, *told = saving->err;
    int64_t at_us, stop_us = 0, sum_us = 0;
    saving->err = &ignored; /* the save is good; if the monitor breaks now the next command will tell */
    bool heard = listen_once(saving, 0);
    saving->err = told;
    if (!heard)
        return 0;
    for (size_t i = saving->earlier; i < json_array_size(saving->foreign); i++) {
        const char *name = qmp_event_name(json_array_get(saving->foreign, i), &at_us);
        if (strcmp(name, "STOP") == 0)
            stop_us = at_us;
        if (strcmp(name, "RESUME") != 0 || stop_us == 0)
            continue;
        sum_us += at_us > stop_us ? at_us - stop_us : 0;
        stop_us = 0;
    }
    return (uint64_t)sum_us;
}

/* Once from the beginning to the end. */
static bool go_through(struct saving *saving)
{
    if (!begin(saving))
        return saving->held ? roll_back(saving) : false;
    return (copy(saving) && finish_stream(saving)) || roll_back(saving);
}

/* Should it show that this QEMU reads the bitmap while the guest runs: all again into a new stream. */
static bool go_through_again(struct saving *saving)
{
    const struct machine_save *save = saving->save;
    bool was_known = saving->machine->reads_running;
    if (go_through(saving))
        return true;
    if (was_known || !saving->machine->reads_running || !saving->rolled_back || !save->restart)
        return false;
    log_debug("%s: once more, standing", saving->err->text);
    size_t earlier = saving->earlier;
    bool ok = save->restart(save->context, &saving->stream_fd, saving->err) && go_through(saving);
    saving->earlier = earlier;
    return ok;
}

static bool run(struct saving *saving, struct machine_save_result *result)
{
    if (!go_through_again(saving))
        return false;
    bool resumes = saving->was_running && !saving->guest_stopped && !saving->save->stay_stopped;
    if (resumes && !resume(saving->machine, saving->err))
        return err_prefix(saving->err, "the VM was saved but cannot go on");
    result->pause_us = resumes ? pause_measure(saving) : 0;
    result->passes = saving->passes;
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
        .machine = machine, .save = save, .err = err, .foreign = json_array(), .stream_fd = save->stream_fd};
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
