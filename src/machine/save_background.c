/* Saving the memory of one moment while the VM goes on: QEMU's background snapshot into a pipe.
 *
 *   monitor                          guest
 *   capabilities, getfd              runs
 *   stop, <- STOP                    stands; its requests are complete, the disks flushed: THE INSTANT
 *   migrate                          stands; device state is taken, all memory is protected from writing
 *   [cont,] <- RESUME                runs; each page is copied, those first that it wants to write
 *   <- completed                     runs
 *
 * The guest is stopped by us, not by QEMU, so that the disks can be switched while it stands. QEMU 7.2 sets it
 * running itself when memory is protected; later versions restore the state of before, which is "paused": there
 * it is continued as soon as QEMU has counted a page, because the first is copied behind the protection. A `cont`
 * that comes earlier would let the guest run between the instant and the protection.
 *
 * No bitmap of changed pages is read: each page is copied once, before it changes. So TCG, which can lose a write
 * of a guest whose bitmap is read while it runs (save.c), loses none here.
 *
 * QEMU before 8.1 leaves memory protected when such a migration fails or is cancelled: whoever writes to it, processor or
 * device, waits for ever. So there it is never cancelled, and its reader takes all of it; what was not wanted is thrown away.
 *
 * The kernel protects pages by userfaultfd: of anonymous memory, for who may use it. A VM that maps its memory from a
 * snapshot's file cannot be saved so. One that stands still must not: 7.2 would set it running. */
#include "save_private.h"

#include "auto.h"
#include "clock.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GO_ON_LOOK_MS 1 /* between looks whether the guest may go on: part of its pause */
#define CAPABILITY    "background-snapshot"

static const char *const CAPABILITIES[] = {"events", CAPABILITY, NULL};

/* --- can it be done? --- */

static bool capability_ask(struct machine *machine, bool *ret_has, bool *ret_is_on, struct err *err)
{
    json_t *known = NULL, *entry;
    size_t index;
    if (!machine_execute(machine, "query-migrate-capabilities", NULL, -1, &known, err))
        return false;
    *ret_has = *ret_is_on = false;
    json_array_foreach (known, index, entry) {
        const char *name = json_string_value(json_object_get(entry, "capability"));
        if (!name || strcmp(name, CAPABILITY) != 0)
            continue;
        *ret_has = true;
        *ret_is_on = json_is_true(json_object_get(entry, "state"));
    }
    json_decref(known);
    return true;
}

/* By the call, or by the device that QEMU 8.1 and later tries first: QEMU runs as the same user. */
static bool may_use_userfaultfd(unsigned qemu_major)
{
    int fd = (int)syscall(SYS_userfaultfd, O_CLOEXEC | O_NONBLOCK);
    if (fd < 0 && qemu_major >= 8)
        fd = open("/dev/userfaultfd", O_RDWR | O_CLOEXEC);
    if (fd < 0)
        return false;
    close(fd);
    return true;
}

bool machine_can_save_background(struct machine *machine, struct err *err)
{
    struct err refusal;
    bool has, ignored;
    if (machine->maps_file)
        return err_set(err, ERR_STATE,
                       "its memory is a file's since it was loaded, which the kernel cannot protect from writing");
    if (!capability_ask(machine, &has, &ignored, err))
        return false;
    if (!has)
        return err_set(err, ERR_UNSUPPORTED, "QEMU %s has no background snapshots", qmp_version(machine->qmp));
    if (machine_set_capabilities(machine, CAPABILITIES, &refusal))
        return true;
    if (refusal.code != ERR_QEMU || refusal.sys == EPIPE) {
        *err = refusal;
        return false;
    }
    if (!may_use_userfaultfd(qmp_version_major(machine->qmp)))
        return err_set(err, ERR_UNSUPPORTED,
                       "this user may not use userfaultfd (the sysctl vm.unprivileged_userfaultfd is 0)");
    return err_set(err, ERR_UNSUPPORTED, "QEMU: %.200s", refusal.text);
}

/* --- the way through --- */

static bool begin(struct saving *saving)
{
    json_t *bandwidth = json_pack("{s:I}", "max-bandwidth", SAVE_BANDWIDTH_MAX);
    if (!machine_execute(saving->machine, "migrate-set-parameters", bandwidth, -1, NULL, saving->err) ||
        !saving_check_others(saving)) {
        close(TAKE_FD(saving->stream_fd));
        return false;
    }
    if (!saving_give_pipe(saving))
        return false;
    saving->begin_ms = clock_ms();
    if (!saving_stop(saving) || !saving_check_stopped(saving))
        return saving_take_pipe_back(saving);
    if (saving->guest_stopped) {
        err_set_text(saving->err, ERR_STATE, 0, "the guest has just stopped by itself");
        return saving_take_pipe_back(saving);
    }
    saving->save->at_instant(saving->save->context);
    return saving_migrate(saving);
}

static bool must_come_to_its_end(const struct machine *machine)
{
    unsigned major = 0, minor = 0;
    return sscanf(qmp_version(machine->qmp), "%u.%u", &major, &minor) != 2 || major < 8 || (major == 8 && minor < 1);
}

bool saving_must_come_to_its_end(struct machine *machine, bool *ret_must, struct err *err)
{
    bool ignored, is_on;
    if (!capability_ask(machine, &ignored, &is_on, err))
        return false;
    *ret_must = is_on && must_come_to_its_end(machine);
    return true;
}

/* Is somebody against going on, and can that be obeyed now? */
static bool check(struct saving *saving)
{
    if ((saving->given_up && !saving->failed) || saving_check_others(saving))
        return true;
    if (saving->failed || !must_come_to_its_end(saving->machine))
        return false;
    saving->given_up = true;
    saving->why = *saving->err;
    return true;
}

static bool has_copied(struct saving *saving, bool *ret_has)
{
    json_t *value = NULL;
    if (!machine_execute(saving->machine, "query-migrate", NULL, -1, &value, saving->err))
        return false;
    const json_t *ram = json_object_get(value, "ram");
    *ret_has = json_integer_value(json_object_get(ram, "normal")) > 0 ||
               json_integer_value(json_object_get(ram, "duplicate")) > 0;
    json_decref(value);
    return true;
}

/* Until the guest runs again. */
static bool let_go_on(struct saving *saving)
{
    bool copied = false, continued = false;
    while (!saving->resumed) {
        if (!copied && !has_copied(saving, &copied))
            return false;
        if (!saving_listen(saving, copied && !continued ? 0 : GO_ON_LOOK_MS) || !check(saving))
            return false;
        if (!copied || continued || saving->resumed)
            continue;
        /* Once: a guest that has stopped by itself since must not be woken. */
        if (!machine_continue(saving->machine, saving->err))
            return false;
        continued = true;
    }
    saving->held = false;
    /* What is asked there is no flush of disks: QEMU answers soon, or not at all. */
    int timeout_ms = qmp_set_timeout(saving->machine->qmp, QMP_TIMEOUT_MS);
    if (saving->save->went_on)
        saving->save->went_on(saving->save->context);
    qmp_set_timeout(saving->machine->qmp, timeout_ms);
    return true;
}

/* It is set running once, and nobody else gives it commands: a STOP from now on is its own. */
static bool copy(struct saving *saving)
{
    saving->guest_stopped |= saving->stands;
    while (!saving->completed) {
        if (!saving_listen(saving, SAVE_LOOK_MS) || !check(saving))
            return false;
        saving->guest_stopped |= saving->stands;
    }
    saving->phase = PHASE_DONE;
    return true;
}

/* The pipe is still here. */
static bool give_up(struct saving *saving)
{
    close(TAKE_FD(saving->stream_fd));
    return false;
}

bool save_background(struct saving *saving)
{
    if (!saving_forget_earlier(saving) || !saving_check_state(saving))
        return give_up(saving);
    if (!saving->was_running || saving->save->stay_stopped)
        return save_precopy(saving);
    if (!machine_can_save_background(saving->machine, saving->err))
        return give_up(saving);
    saving->background = true;
    if (!begin(saving))
        return saving->held ? saving_roll_back(saving) : false;
    if (!let_go_on(saving) || !copy(saving))
        return saving_roll_back(saving);
    if (saving->given_up)
        *saving->err = saving->why;
    return !saving->given_up;
}
