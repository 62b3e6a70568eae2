/* What the two ways to save share (save.c, save_background.c): the state of one save, and what QEMU says meanwhile. */
#pragma once

#include "machine_private.h"

#define SAVE_LOOK_MS 20 /* between looks at failed() and cancelled() */
#define SAVE_PACED_PIPE_BYTES (256 << 10) /* so much flows into it at the beginning of a pass */
#define SAVE_FD_NAME "bough-save"
#define SAVE_PACED_LIMIT_MS 1 /* downtime-limit, where the passes are paced */
#define SAVE_PACED_BANDWIDTH ((json_int_t)131072000) /* bytes a second: the limit is 32 pages then */
#define SAVE_BANDWIDTH_MAX ((json_int_t)1 << 50) /* bytes a second: no limit */

enum phase { PHASE_COPY, PHASE_INSTANT, PHASE_DONE };

struct saving {
    struct machine *machine;
    const struct machine_save *save;
    struct err *err;
    bool background; /* the way that was taken in the end */
    bool was_running;
    bool guest_stopped; /* by itself: I/O error, panic, watchdog */
    int stream_fd;      /* until QEMU has it */
    int pipe_fd;        /* of a paced save, else -1: the same end, to see whether QEMU has filled the pipe */
    bool two_pauses;    /* TCG, and the guest ran */
    bool paced;         /* with two pauses and more, as many as there are passes (save_paced.c) */
    bool is_old; /* QEMU of before 9.0: in a paced save it measures its bandwidth, which later ones are told, and its TCG must be
                  * made to forget what it may write to behind each reading of the bitmap (forget_written.c) */
    bool held;          /* stopped by the save itself, and not yet set running */
    bool stands;        /* by the last STOP or RESUME, or was_running */
    bool resumed;       /* by a RESUME */
    bool rolled_back;   /* what failed left no trace */
    bool given_up;      /* but must come to its end; why tells the reason */
    struct err why;
    bool read_running;  /* the bitmap of changed pages was, while the guest ran */
    bool read_running_before; /* at any time of this save */
    enum phase phase;
    bool active, pre_switchover, completed, failed; /* what QEMU has said */
    int64_t stop_us;                                /* of the last STOP; 0: none */
    int64_t asked_stop_us;                          /* the last STOP whose reason was looked at */
    int64_t begin_ms, second_pass_ms;
    uint64_t passes;
    size_t limit;    /* of pre-copy: how long the last copy may take */
    json_t *foreign; /* events that are not ours: given back in the end */
    size_t earlier;  /* the first of them are from before the save */
};

/* The way through: from the first command to "completed"; the guest stands or runs, as the way has it. On failure it is as it
 * was, as far as QEMU allows. */
bool save_precopy(struct saving *saving) MUST_CHECK;
/* A guest that stands is saved by pre-copy: nothing changes it meanwhile. */
bool save_background(struct saving *saving) MUST_CHECK;

/* Is the save that QEMU does now, or did last, one of those that must not be cancelled? */
bool saving_must_come_to_its_end(struct machine *machine, bool *ret_must, struct err *err) MUST_CHECK;

/* --- save.c --- */
/* Under TCG, false with *err: the bitmap was read while the guest ran, and nobody knows now what was not copied. */
bool saving_check_exact(struct saving *saving) MUST_CHECK;
/* Of a STOP whose reason was not looked at. One that the instant does not follow at once is the guest's own: it is then in
 * a state of its own name. */
bool saving_check_own_stop(struct saving *saving) MUST_CHECK;
/* How long the last copy may take; longer when the copying goes on for too long, or if it is known that it will. */
unsigned saving_allowed_ms(struct saving *saving, bool goes_on);

/* --- save_paced.c --- */
/* From "active" on to where only the last pass is left, and the guest stands; or QEMU was faster than that. */
bool saving_copy_paced(struct saving *saving) MUST_CHECK;

/* --- forget_written.c --- */
/* The guest stands. When it goes on, TCG sees the next write to every page that the bitmap of changed pages does not have.
 * On failure that is not so; the guest's hardware is as it was, unless QEMU has ended. */
bool machine_forget_written(struct machine *machine, struct err *err) MUST_CHECK;
/* If another process was killed in the middle of that: what it has not put back is. The guest still stands. */
bool machine_unturn(struct machine *machine, struct err *err) MUST_CHECK;

/* --- save_common.c --- */
/* Waits for one event at most so long, and hears all that came. */
bool saving_listen(struct saving *saving, int wait_ms) MUST_CHECK;
/* Can QEMU save now? And does the guest run, which fills was_running. */
bool saving_check_state(struct saving *saving) MUST_CHECK;
/* Nothing that an earlier save left in the queue may be taken for news of this one. */
bool saving_forget_earlier(struct saving *saving) MUST_CHECK;
/* Gives the pipe to QEMU and closes it here, but for pipe_fd of a paced save. */
bool saving_give_pipe(struct saving *saving) MUST_CHECK;
/* False: no stream comes, the reader must see the end all the same. */
bool saving_take_pipe_back(struct saving *saving);
/* Lets QEMU begin; what is refused has the pipe taken back. */
bool saving_migrate(struct saving *saving) MUST_CHECK;
/* Stops the guest; then: one that had just stopped by itself is guest_stopped. */
bool saving_stop(struct saving *saving) MUST_CHECK;
bool saving_check_stopped(struct saving *saving) MUST_CHECK;
/* False with *err if somebody is against going on: QEMU, the reader, the user. */
bool saving_check_others(struct saving *saving) MUST_CHECK;
/* False. What was begun is cancelled and the run state set right; the first error stays. */
bool saving_roll_back(struct saving *saving);
