/* A guest's processors: set going, held, and stopped by what went wrong on its disks. */
#include "guest_private.h"

#include "auto.h"
#include "clock.h"
#include "file.h"
#include "log.h"

#include <limits.h>
#include <stdio.h>
#include <string.h>
#include <sys/statvfs.h>
#include <unistd.h>

#define TOUCHED_AFTER_MS 2000
#define LOOK_MS 1000 /* between looks at a guest that waits for space */
/* A guest that goes on needs new blocks, and should not stop again at the next one. */
#define ROOM_PER_DISK_BYTES (4ULL << 20)
#define ROOM_MARGIN_BYTES   (8ULL << 20)
#define ROOM_RUNTIME_BYTES  (1ULL << 20) /* for what is not flushed (dirty_log.h) */

bool guest_runs(struct guest *guest, char run_state[static 32], bool *ret_runs, struct err *err)
{
    if (!machine_run_state(guest->machine, run_state, err))
        return false;
    *ret_runs = strcmp(run_state, "running") == 0;
    return true;
}

/* The next worker may be wrong about it then: no reason not to do it. */
static void is_to_run_set(struct guest *guest, bool is_to_run)
{
    struct err err;

    if (guest->is_to_run == is_to_run)
        return;
    guest->is_to_run = is_to_run;
    if (!guest_remember(guest, &err))
        log_warning("%s", err.text);
}

bool guest_continue(struct guest *guest, struct err *err)
{
    is_to_run_set(guest, true);
    if (!machine_continue(guest->machine, err))
        return false;
    space_note_continued(&guest->space, clock_ms());
    if (guest->restored_from && !guest->touched_ms)
        guest->touched_ms = clock_ms() + TOUCHED_AFTER_MS;
    return true;
}

bool guest_pause(struct guest *guest, struct err *err)
{
    is_to_run_set(guest, false);
    return machine_stop(guest->machine, err);
}

/* --- errors on disks --- */

/* An error that the guest was told. Guests that go on trying would fill the log. */
static void error_count(struct guest *guest, const struct machine_disk_error *error)
{
    struct guest_disk_errors *errors = &guest->errors[error->disk];

    errors->count++;
    snprintf(errors->operation, sizeof errors->operation, "%s", error->operation);
    snprintf(errors->reason, sizeof errors->reason, "%s", error->reason);
    if ((errors->count & (errors->count - 1)) == 0)
        log_error("%s: the guest was told of an I/O error (%s: %s), %llu until now",
                  guest->config->disks[error->disk].path, errors->operation, errors->reason,
                  (unsigned long long)errors->count);
}

static void no_space_note(struct guest *guest, size_t disk)
{
    bool was_stopped = guest->space.stopped;

    space_note_stop(&guest->space, disk, clock_ms());
    if (!was_stopped && guest->is_to_run && space_is_news(&guest->space))
        log_warning("%s: no space left: the guest stands until there is some", guest_space_path(guest));
}

void guest_hear(struct guest *guest, const json_t *event)
{
    struct machine_disk_error error;

    const char *name = qmp_event_name(event, NULL);
    const json_t *data = json_object_get(event, "data");
    const char *reason = json_string_value(json_object_get(data, "reason"));

    if (strcmp(name, "RESUME") == 0)
        space_note_continued(&guest->space, clock_ms());
    if (strcmp(name, "SHUTDOWN") == 0)
        snprintf(guest->shutdown_reason, sizeof guest->shutdown_reason, "%s", reason ? reason : "");
    if (strcmp(name, "RESET") == 0 && json_is_true(json_object_get(data, "guest"))) {
        guest->resets++;
        log_info("the guest has reset itself (%s): a restart, or a triple fault", reason ? reason : "no reason");
    }
    if (!machine_disk_error_read(event, guest->config, &error))
        return;
    if (!error.stops_guest)
        error_count(guest, &error);
    else if (error.no_space)
        no_space_note(guest, error.disk);
}

/* --- waiting for space --- */

bool guest_waits_for_space(const struct guest *guest)
{
    return guest->is_to_run && guest->space.stopped;
}

static bool has_room_at(const char *path, uint64_t needed_bytes)
{
    struct statvfs seen;

    if (statvfs(path, &seen) != 0 || seen.f_frsize == 0)
        return true; /* nobody knows: a try will tell */
    /* What is kept back for root is ours if we are; what ext4 keeps for itself is in it too, which costs tries in vain. */
    uint64_t blocks = geteuid() == 0 ? seen.f_bfree : seen.f_bavail;
    return blocks >= needed_bytes / seen.f_frsize;
}

const char *guest_space_path(const struct guest *guest)
{
    bool runtime_has_room = has_room_at(guest->disks_dir, ROOM_RUNTIME_BYTES);

    return runtime_has_room ? guest->config->disks[guest->space.disk].path : guest->disks_dir;
}

/* On every file system that its writes need. */
static bool has_room(const struct guest *guest)
{
    uint64_t needed_bytes = ROOM_MARGIN_BYTES + guest->disk_count * ROOM_PER_DISK_BYTES;

    for (size_t i = 0; i < guest->disk_count; i++)
        if (guest->engines[i] && !has_room_at(guest->config->disks[i].path, needed_bytes))
            return false;
    return has_room_at(guest->disks_dir, ROOM_RUNTIME_BYTES);
}

/* --- what it touched first --- */

void guest_note_origin(struct guest *guest, const char *state_path)
{
    AUTO_FREE char *bin = state_path ? string_printf("%s.bin", state_path) : NULL;

    free(TAKE(guest->restored_from));
    guest->touched_ms = 0;
    if (bin && !ram_touched_is_known(bin))
        guest->restored_from = TAKE(bin);
}

static void note_touched(struct guest *guest)
{
    struct err err;

    if (!guest->touched_ms || clock_ms() < guest->touched_ms)
        return;
    if (!ram_touched_record(guest->restored_from, machine_pid(guest->machine), &err))
        log_debug("%s", err.text); /* a hint: without it the next restore is a little slower */
    guest_note_origin(guest, /* state_path= */ NULL);
}

int guest_wait_ms(const struct guest *guest)
{
    int64_t touched_ms = guest->touched_ms ? guest->touched_ms - clock_ms() : INT_MAX;
    int64_t space_ms = guest_waits_for_space(guest) ? LOOK_MS : INT_MAX;
    int64_t wait_ms = touched_ms < space_ms ? touched_ms : space_ms;

    return wait_ms == INT_MAX ? -1 : wait_ms < 0 ? 0 : (int)wait_ms;
}

bool guest_tend(struct guest *guest)
{
    struct err err;

    note_touched(guest);
    if (!guest_waits_for_space(guest) || !space_is_due(&guest->space, has_room(guest), clock_ms()))
        return false;
    if (space_is_news(&guest->space))
        log_info("%s: the guest goes on, to see whether there is space now", guest_space_path(guest));
    if (guest_continue(guest, &err))
        return true;
    log_error("the guest could not be set going: %s", err.text);
    guest->space.stopped_ms = clock_ms(); /* the next try is as far away as after a stop */
    return false;
}
