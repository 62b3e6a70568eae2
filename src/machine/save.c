/* Saving a VM that goes on, the ordinary way: QEMU's pre-copy migration into a pipe.
 *
 *   monitor                          guest
 *   capabilities, limits, getfd      runs
 *   migrate                          runs; memory is copied, changed pages again (MIGRATION_PASS)
 *   <- STOP, pre-switchover          stands; its requests are complete, the disks flushed: THE INSTANT
 *   migrate-continue                 stands; the rest of memory and the device state are copied
 *   <- completed                     stands ("postmigrate")
 *   cont, <- RESUME                  runs
 *
 * With TCG that would lose writes of the guest. Its processors remember which pages they may write without telling. QEMU
 * makes them forget when a migration begins, and before 9.0 not when it reads the bitmap of changed pages and clears it:
 * what is written there afterwards is never copied. So there the bitmap is read only while the guest stands, in two
 * pauses:
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
 * As long as that pass takes the guest changes memory that is to be copied in the second pause. So there are more passes of
 * the same kind where the caller can keep the stream from flowing (save_paced.c): each is shorter than the one before, and
 * the last pause is short. Between them QEMU before 9.0 is made to forget by other means (forget_written.c).
 *
 * What fails before the end is cancelled; QEMU then leaves the guest running or standing by its version and
 * the moment, so that the state is looked at and set right. Behind "postmigrate" QEMU takes no second save: a
 * VM that stood still must be started anew from the files before it can be saved again. */
#include "save_private.h"

#include "auto.h"
#include "clock.h"
#include "log.h"

#include <string.h>
#include <unistd.h>

/* How long the last copy, of a guest that stands still, may take by QEMU's estimate. The first value makes
 * the pause of an ordinary guest a few milliseconds. A guest that writes faster than it is copied gets a
 * longer one after each further pass, and in the end is copied standing, however long that takes. */
static const struct {
    uint64_t after_pass, after_ms;
    unsigned limit_ms;
} limits[] = {
    {0, 0, 3}, {5, 4000, 10}, {7, 8000, 40}, {9, 12000, 160}, {11, 16000, 640}, {13, 20000, 2000000},
};

#define READ_EARLY_MAX 3 /* paced saves of a process that had to be done again; then it is not tried any more */

/* --- preparing --- */

static bool set_limit(struct saving *saving)
{
    unsigned limit_ms = saving->two_pauses ? 0 : limits[saving->limit].limit_ms;
    json_t *arguments = json_pack("{s:I, s:I}", "max-bandwidth", SAVE_BANDWIDTH_MAX, "downtime-limit",
                                  (json_int_t)(saving->paced ? SAVE_PACED_LIMIT_MS : limit_ms));
    if (saving->paced && !saving->is_old) /* in place of what it measures */
        json_object_set_new(arguments, "avail-switchover-bandwidth", json_integer(SAVE_PACED_BANDWIDTH));
    return machine_execute(saving->machine, "migrate-set-parameters", arguments, -1, NULL, saving->err);
}

static bool begin(struct saving *saving)
{
    static const char *const on[] = {"events", "pause-before-switchover", NULL};
    bool ready = saving_forget_earlier(saving) && saving_check_state(saving);
    saving->paced = saving->two_pauses && saving->save->pace && saving->machine->read_early < READ_EARLY_MAX &&
                    !saving->read_running_before;
    saving->is_old = qmp_version_major(saving->machine->qmp) < 9; /* it could be told its bandwidth a little earlier */
    ready = ready && machine_set_capabilities(saving->machine, on, saving->err) && set_limit(saving);
    if (!ready) {
        close(TAKE_FD(saving->stream_fd));
        return false;
    }
    if (!saving_give_pipe(saving))
        return false;
    saving->begin_ms = clock_ms();
    if (saving->two_pauses && (!saving_stop(saving) || !saving_check_stopped(saving)))
        return saving_take_pipe_back(saving);
    return saving_migrate(saving);
}

/* --- the way through --- */

static bool is_long(const struct saving *saving)
{
    uint64_t elapsed_ms = (uint64_t)(clock_ms() - saving->second_pass_ms);
    return saving->passes >= 2 && (saving->passes >= limits[saving->limit + 1].after_pass ||
                                   elapsed_ms >= limits[saving->limit + 1].after_ms);
}

unsigned saving_allowed_ms(struct saving *saving, bool goes_on)
{
    if (saving->limit + 1 < ARRAY_SIZE(limits) && (goes_on || is_long(saving)))
        saving->limit++;
    return limits[saving->limit].limit_ms;
}

/* A longer pause is allowed when the copying goes on for too long. */
static bool check_convergence(struct saving *saving)
{
    size_t limit = saving->limit;
    if (saving->two_pauses || saving->pre_switchover)
        return true;
    return (saving_allowed_ms(saving, false), saving->limit == limit) || set_limit(saving);
}

bool saving_check_own_stop(struct saving *saving)
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

bool saving_check_exact(struct saving *saving)
{
    if (!saving->two_pauses || !saving->read_running)
        return true;
    saving->read_running_before = true;
    if (saving->paced)
        saving->machine->read_early++;
    else
        saving->machine->reads_running = true;
    return err_set(saving->err, ERR_QEMU, "QEMU read the changes of memory while the guest ran");
}

static bool copy(struct saving *saving)
{
    while (!saving->pre_switchover) {
        bool stopped_before = saving->was_running && saving->stop_us != saving->asked_stop_us;
        if (!saving_listen(saving, SAVE_LOOK_MS) || !saving_check_others(saving) || !saving_check_exact(saving) ||
            !let_run(saving))
            return false;
        if (stopped_before && !saving->pre_switchover && !saving_check_own_stop(saving))
            return false;
        if (!check_convergence(saving))
            return false;
    }
    return saving_check_exact(saving);
}

static bool finish_stream(struct saving *saving)
{
    saving->phase = PHASE_INSTANT;
    saving->save->at_instant(saving->save->context);
    if (!machine_execute(saving->machine, "migrate-continue", json_pack("{s:s}", "state", "pre-switchover"),
                         -1, NULL, saving->err))
        return false;
    while (!saving->completed)
        if (!saving_listen(saving, SAVE_LOOK_MS) || !saving_check_others(saving))
            return false;
    saving->phase = PHASE_DONE;
    return true;
}

/* Once from the beginning to the end. */
static bool go_through(struct saving *saving)
{
    bool begun = begin(saving);
    bool ok = begun && (!saving->paced || saving_copy_paced(saving));
    if (saving->pipe_fd >= 0)
        close(TAKE_FD(saving->pipe_fd)); /* else the reader would see no end */
    ok = ok && copy(saving) && finish_stream(saving);
    return ok || (begun || saving->held ? saving_roll_back(saving) : false);
}

/* Should QEMU have read the bitmap while the guest ran: all again into a new stream, in one pass, in which that cannot come
 * early; and if it comes there too, with the guest standing. */
bool save_precopy(struct saving *saving)
{
    const struct machine_save *save = saving->save;
    bool ok = go_through(saving);
    size_t earlier = saving->earlier;
    for (unsigned again = 0; !ok && again < 2 && saving->read_running && saving->rolled_back && save->restart; again++) {
        log_debug("%s: once more, %s", saving->err->text, saving->paced ? "in one pass" : "standing");
        saving->rolled_back = saving->read_running = false;
        ok = save->restart(save->context, &saving->stream_fd, saving->err) && go_through(saving);
    }
    saving->earlier = earlier;
    return ok;
}
