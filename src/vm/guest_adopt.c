/* A guest whose worker has died gets another one. Its disks come first: QEMU's main loop, and with it its monitor, may be waiting for
 * one. */
#include "guest_private.h"

#include "auto.h"
#include "clock.h"
#include "guest_record.h"
#include "log.h"

#include <fcntl.h>
#include <stdlib.h>
#include <string.h>

#define IMAGE_BUSY_MS 10000

/* Each disk's socket is the one that QEMU tries again and again. */
static bool sockets_take(struct guest *guest, const struct guest_record *record, struct err *err)
{
    for (size_t i = 0; i < guest->disk_count; i++) {
        char id[32];
        machine_disk_id(&guest->config->disks[i], id);
        for (size_t j = 0; j < record->export_count && !guest->sockets[i]; j++)
            if (strcmp(record->exports[j].disk, id) == 0 &&
                !(guest->sockets[i] = strdup(record->exports[j].socket)))
                return err_oom(err);
        if (!guest->config->disks[i].is_cdrom && !guest->sockets[i])
            return err_set(err, ERR_MISMATCH, "the guest that runs has no disk %s", id);
    }
    return true;
}

static bool fill(struct guest *guest, const struct config *config, const char *process_dir,
                 const struct guest_record *record, struct err *err)
{
    if (!guest_make_room(guest, config, err))
        return false;
    guest->accel = record->accel;
    guest->is_to_run = record->is_to_run;
    guest->resources_held = record->resources_held;
    guest->process_dir = strdup(process_dir);
    guest->disks_dir = strdup(record->disks_dir);
    guest->memory = record->memory ? strdup(record->memory) : NULL;
    if (!guest->process_dir || !guest->disks_dir || (record->memory && !guest->memory))
        return err_oom(err);
    int fd = guest->memory ? open(guest->memory, O_RDONLY | O_CLOEXEC) : -1;
    guest->memory_fd = fd > 0 ? fd : 0;
    return sockets_take(guest, record, err);
}

/* "virtio1" or "/machine/peripheral/virtio1/virtio-backend" */
static bool is_device(const char *device, const char *id)
{
    size_t length = strlen(id);

    for (const char *at = strstr(device, id); at; at = strstr(at + 1, id))
        if ((at == device || at[-1] == '/') && (at[length] == '\0' || at[length] == '/'))
            return true;
    return false;
}

/* The disk that a request of failed for want of space, by QEMU's memory of it; the first one where it says nothing. */
static size_t full_disk(struct guest *guest)
{
    json_auto_t *list = NULL;
    struct err ignored;
    size_t at, i;
    json_t *entry;

    if (!qmp_execute(machine_qmp(guest->machine), "query-block", NULL, -1, &list, &ignored))
        return 0;
    json_array_foreach (list, at, entry) {
        const char *status = json_string_value(json_object_get(entry, "io-status"));
        const char *device = json_string_value(json_object_get(entry, "qdev"));
        char id[32];
        for (i = 0; status && device && strcmp(status, "nospace") == 0 && i < guest->disk_count; i++) {
            machine_disk_id(&guest->config->disks[i], id);
            if (is_device(device, id))
                return i;
        }
    }
    return 0;
}

void guest_look_for_space(struct guest *guest)
{
    char run_state[32];
    struct err ignored;
    bool runs;

    if (!guest->space.stopped && guest_runs(guest, run_state, &runs, &ignored) && strcmp(run_state, "io-error") == 0)
        space_note_stop(&guest->space, full_disk(guest), clock_ms());
}

/* Does it stand because a save stopped it, or because its worker died before it set it going? */
static bool was_held(const char *run_state)
{
    static const char *const STATES[] = {"paused", "postmigrate", "prelaunch"};

    for (size_t i = 0; i < ARRAY_SIZE(STATES); i++)
        if (strcmp(run_state, STATES[i]) == 0)
            return true;
    return false;
}

static bool run_state_settle(struct guest *guest, struct err *err)
{
    char run_state[32];
    bool runs;

    if (!machine_end_save(guest->machine, err) || !guest_runs(guest, run_state, &runs, err))
        return false;
    log_info("adopted: QEMU %ld is %s, its user wants it to %s", (long)machine_pid(guest->machine), run_state,
             guest->is_to_run ? "run" : "stand");
    if (runs && !guest->is_to_run)
        return machine_stop(guest->machine, err);
    if (guest->is_to_run && was_held(run_state))
        return guest_continue(guest, err);
    guest_look_for_space(guest);
    return true;
}

bool guest_adopt(const struct config *config, const char *process_dir, const struct guest_record *record, int pidfd,
                 struct guest **ret_guest, struct err *err)
{
    AUTO_FD int fd = pidfd;
    struct guest *guest = calloc(1, sizeof *guest);
    bool adopted = false;

    if (!guest)
        return err_oom(err);
    if (fill(guest, config, process_dir, record, err) && guest_engines_start(guest, IMAGE_BUSY_MS, err)) {
        const struct machine_adoption adoption = {
            .pid = record->pid,
            .pidfd = TAKE_FD(fd),
            .dir = process_dir,
            .accel = record->accel,
            .maps_file = record->memory != NULL,
            .has_display = config->display != DISPLAY_NONE,
        };
        adopted = machine_adopt(&adoption, &guest->machine, err) && run_state_settle(guest, err);
    }
    if (!adopted) {
        guest_release(guest);
        return false;
    }
    *ret_guest = guest;
    return true;
}
