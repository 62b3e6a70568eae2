#include "guest_private.h"

#include "auto.h"
#include "buf.h"
#include "clock.h"
#include "file.h"
#include "guest_record.h"
#include "last_end.h"
#include "log.h"
#include "memory.h"
#include "processes.h"
#include "runtime.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define BUSY_LOOK_MS 10

static void guest_free(struct guest *guest)
{
    config_free(guest->config);
    config_free(guest->next);
    for (size_t i = 0; i < guest->disk_count && guest->sockets; i++)
        free(guest->sockets[i]);
    free(guest->sockets);
    free(guest->engines);
    free(guest->errors);
    free(guest->process_dir);
    free(guest->disks_dir);
    free(guest->restored_from);
    free(guest->memory);
    if (guest->memory_fd > 0)
        close(guest->memory_fd);
    free(guest);
}

static bool is_dropped(const struct guest *guest, size_t disk, const struct guest_dropped *dropped)
{
    for (size_t i = 0; dropped && i < dropped->count; i++)
        if (strcmp(dropped->paths[i], guest->config->disks[disk].path) == 0)
            return true;
    return false;
}

/* Every engine is closed, also after a failure; the first one is told. */
static bool engines_stop(struct guest *guest, const struct guest_dropped *dropped, struct err *err)
{
    bool all = true;

    for (size_t i = 0; i < guest->disk_count && guest->engines; i++) {
        struct engine *engine = TAKE(guest->engines[i]);
        struct err one = ERR_INIT;
        if (!engine)
            continue;
        if (is_dropped(guest, i, dropped))
            engine_abandon(engine);
        else if (!engine_stop(engine, &one) && all) {
            *err = one;
            all = false;
        }
    }
    return all;
}

static void guest_forget_dirs(const struct guest *guest)
{
    if (guest->process_dir)
        runtime_remove(guest->process_dir);
    if (guest->disks_dir)
        runtime_remove(guest->disks_dir);
}

bool guest_end(struct guest *guest, const struct guest_dropped *dropped, struct err *err)
{
    if (!guest)
        return true;
    machine_kill(TAKE(guest->machine));
    bool closed = engines_stop(guest, dropped, err);
    guest_forget_dirs(guest);
    guest_free(guest);
    return closed;
}

void guest_end_start(struct guest *guest)
{
    if (guest)
        machine_kill_start(guest->machine);
}

void guest_release(struct guest *guest)
{
    struct err err;

    machine_release(TAKE(guest->machine));
    if (!engines_stop(guest, /* dropped= */ NULL, &err))
        log_error("%s", err.text);
    guest_free(guest);
}

/* An image that a killed process had open may be the kernel's for a moment longer, which ends what that had asked for. */
static bool disk_open_patiently(const char *path, unsigned busy_ms, struct disk **ret_disk, struct err *err)
{
    AUTO_FREE char *log_dir = NULL;
    int64_t end_ms = clock_ms() + busy_ms;

    if (!runtime_dirty_dir(&log_dir, err))
        return false;
    struct disk_options options = {.io = &io_real, .writable = true, .log_dir = log_dir};
    while (!disk_open(path, &options, ret_disk, err)) {
        if (err->code != ERR_BUSY || clock_ms() >= end_ms)
            return false;
        nanosleep(&(struct timespec){.tv_nsec = BUSY_LOOK_MS * 1000000L}, NULL);
    }
    return true;
}

static bool engine_start_for(struct guest *guest, size_t index, unsigned busy_ms, struct err *err)
{
    struct engine_options options = {.export_name = ""};
    struct disk *opened;

    if (!guest->sockets[index] &&
        !(guest->sockets[index] = string_printf("%s/disk%zu.sock", guest->disks_dir, index)))
        return err_oom(err);
    options.socket_path = guest->sockets[index];
    return disk_open_patiently(guest->config->disks[index].path, busy_ms, &opened, err) &&
           engine_start(opened, &options, &guest->engines[index], err);
}

bool guest_engines_start(struct guest *guest, unsigned busy_ms, struct err *err)
{
    for (size_t i = 0; i < guest->disk_count; i++)
        if (!guest->config->disks[i].is_cdrom && !engine_start_for(guest, i, busy_ms, err))
            return false;
    return true;
}

bool guest_make_room(struct guest *guest, const struct config *config, struct err *err)
{
    size_t count = config->disk_count;

    guest->config = config_copy(config);
    guest->engines = calloc(count + 1, sizeof *guest->engines);
    guest->sockets = calloc(count + 1, sizeof *guest->sockets);
    guest->errors = calloc(count + 1, sizeof *guest->errors);
    if (!guest->config || !guest->engines || !guest->sockets || !guest->errors)
        return err_oom(err);
    guest->disk_count = count;
    return true;
}

bool guest_remember(const struct guest *guest, struct err *err)
{
    pid_t pid = machine_pid(guest->machine);
    AUTO_FREE struct guest_record_export *exports = calloc(guest->disk_count + 1, sizeof *exports);
    struct guest_record record = {
        .pid = pid,
        .started = vm_process_started(pid),
        .generation_id = guest->config->generation_id,
        .accel = guest->accel,
        .is_to_run = guest->is_to_run,
        .resources_held = guest->resources_held,
        .disks_dir = guest->disks_dir,
        .memory = guest->memory,
        .exports = exports,
    };

    if (!exports)
        return err_oom(err);
    for (size_t i = 0; i < guest->disk_count; i++) {
        if (!guest->sockets[i])
            continue;
        machine_disk_id(&guest->config->disks[i], exports[record.export_count].disk);
        exports[record.export_count++].socket = guest->sockets[i];
    }
    return guest_record_write(guest->process_dir, &record, err);
}

static bool state_load(struct machine *machine, const char *state_path, struct err *err)
{
    AUTO_FREE char *vsv = string_printf("%s.vsv", state_path);
    int ends[2];
    struct ram_load *load;

    if (!vsv)
        return err_oom(err);
    if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, ends) != 0)
        return err_sys(err, errno, "make a socket pair");
    AUTO_FD int qemu_end = ends[1];
    if (!ram_load_start(vsv, ends[0], &load, err))
        return false;
    if (!machine_load(machine, TAKE_FD(qemu_end), err)) {
        ram_load_abandon(load);
        return err_prefix(err, "load %s", vsv);
    }
    return ram_load_finish(load, err);
}

/* The process of a guest whose engines serve: started, memory loaded, recorded. */
static bool process_start(const struct guest *guest, const struct guest_options *options, char **ret_dir,
                          struct machine **ret_machine, struct err *err)
{
    AUTO_FREE char *dir = NULL;
    AUTO_FREE char *bin = NULL;
    struct qemu qemu;
    struct machine *machine = NULL;

    if (!qemu_find(&qemu, err) || !qemu_check_machine(&qemu, guest->config->machine, err))
        return false;
    if (options->state_path && !(bin = string_printf("%s.bin", options->state_path)))
        return err_oom(err);
    if (!runtime_process_dir(options->runtime_dir, &dir, err))
        return false;
    struct machine_launch launch = {
        .qemu = &qemu,
        .config = guest->config,
        .accel = guest->accel,
        .dir = dir,
        .disk_sockets = (const char *const *)guest->sockets,
        .memory_file = bin,
        .incoming = options->state_path != NULL,
        .alive_fd = options->alive_fd,
        .hold_host_resources = options->hold_host_resources,
        .nvram = options->nvram,
    };
    if (bin)
        ram_touched_prefetch(bin);
    bool started = machine_start(&launch, &machine, err) &&
                   (!options->state_path || state_load(machine, options->state_path, err));
    if (!started) {
        machine_kill(machine);
        runtime_remove(dir);
        return false;
    }
    *ret_dir = TAKE(dir);
    *ret_machine = machine;
    return true;
}

/* Its process has just mapped this memory (NULL: it has memory of its own). */
static void memory_hold(struct guest *guest, const char *state_path)
{
    AUTO_FREE char *bin = state_path ? string_printf("%s.bin", state_path) : NULL;
    int fd = bin ? open(bin, O_RDONLY | O_CLOEXEC) : -1;

    if (guest->memory_fd > 0)
        close(guest->memory_fd);
    guest->memory_fd = fd > 0 ? fd : 0;
    free(guest->memory);
    guest->memory = TAKE(bin);
    guest_note_origin(guest, state_path);
}

static bool guest_fill(struct guest *guest, const struct config *config, const struct guest_options *options,
                       struct err *err)
{
    if (!guest_make_room(guest, config, err))
        return false;
    guest->resources_held = options->hold_host_resources;
    guest->is_to_run = options->is_to_run;
    if (!accel_resolve(config->accel, &guest->accel, err))
        return false;
    /* Before anything is started: QEMU itself would create a missing memory file as zeros. */
    if (options->state_path && !memory_check(options->state_path, config, options->memory_id, err))
        return false;
    if (!runtime_process_dir(options->runtime_dir, &guest->disks_dir, err) ||
        !guest_engines_start(guest, /* busy_ms= */ 0, err) ||
        !process_start(guest, options, &guest->process_dir, &guest->machine, err))
        return false;
    memory_hold(guest, options->state_path);
    if (!guest_remember(guest, err))
        return false;
    last_end_forget(options->runtime_dir);
    return true;
}

bool guest_start(const struct config *config, const struct guest_options *options, struct guest **ret_guest,
                 struct err *err)
{
    struct guest *guest = calloc(1, sizeof *guest);
    struct err ignored;

    if (!guest)
        return err_oom(err);
    if (!guest_fill(guest, config, options, err)) {
        guest_end(guest, /* dropped= */ NULL, &ignored);
        return false;
    }
    *ret_guest = guest;
    return true;
}

bool guest_reload(struct guest *guest, const struct guest_options *options, struct err *err)
{
    char *process_dir;
    struct machine *machine;
    struct err record_err;

    if (!memory_check(options->state_path, guest->config, options->memory_id, err) ||
        !process_start(guest, options, &process_dir, &machine, err))
        return false;
    struct machine *used = guest->machine;
    AUTO_FREE char *used_dir = guest->process_dir;
    guest->machine = machine;
    guest->process_dir = process_dir;
    guest->resources_held = options->hold_host_resources;
    memory_hold(guest, options->state_path);
    /* From here on a worker that comes after us takes the new one, which was started later. */
    if (!guest_remember(guest, &record_err))
        log_warning("%s", record_err.text);
    machine_kill(used);
    runtime_remove(used_dir);
    return true;
}

bool guest_take_resources(struct guest *guest, struct err *err)
{
    if (!guest->resources_held)
        return true;
    guest->resources_held = false;
    return machine_take_host_resources(guest->machine, guest->config, err) && guest_remember(guest, err);
}

void guest_give_up_tops(struct guest *guest)
{
    struct err ignored;

    config_free(TAKE(guest->next));
    for (size_t i = 0; i < guest->disk_count; i++)
        if (guest->engines[i])
            (void)!engine_prepare_top(guest->engines[i], /* path= */ NULL, &ignored);
}

bool guest_prepare_tops(struct guest *guest, const struct config *config, struct err *err)
{
    if (config->disk_count != guest->disk_count)
        return err_set(err, ERR_INTERNAL, "the guest has %zu disks, its next tops are %zu", guest->disk_count,
                       config->disk_count);
    AUTO_CONFIG struct config *next = config_copy(config);
    if (!next)
        return err_oom(err);
    for (size_t i = 0; i < guest->disk_count; i++) {
        const char *path = config->disks[i].path;
        if (!guest->engines[i] || strcmp(path, guest->config->disks[i].path) == 0)
            continue; /* it keeps its top */
        if (!engine_prepare_top(guest->engines[i], path, err)) {
            guest_give_up_tops(guest);
            return false;
        }
    }
    config_free(guest->next);
    guest->next = TAKE(next);
    return true;
}

void guest_switch_tops(struct guest *guest)
{
    if (!guest->next)
        return;
    for (size_t i = 0; i < guest->disk_count; i++)
        if (guest->engines[i])
            engine_switch_top(guest->engines[i]);
    for (size_t i = 0; i < guest->disk_count; i++) {
        char *sealed = guest->config->disks[i].path;
        guest->config->disks[i].path = guest->next->disks[i].path;
        guest->next->disks[i].path = sealed;
    }
    config_free(TAKE(guest->next));
}

struct engine *guest_engine_of(struct guest *guest, const char *image)
{
    for (size_t i = 0; i < guest->disk_count; i++)
        if (guest->engines[i] && engine_has(guest->engines[i], image))
            return guest->engines[i];
    return NULL;
}

static bool is_top(const struct guest *guest, const struct engine *engine, const char *image)
{
    for (size_t i = 0; i < guest->disk_count; i++)
        if (guest->engines[i] == engine)
            return strcmp(guest->config->disks[i].path, image) == 0;
    return false;
}

bool guest_reparent(struct guest *guest, const char *image, const char *parent, struct err *err)
{
    struct engine *engine = guest_engine_of(guest, image);
    AUTO_VHD struct vhd *vhd = NULL;

    if (!engine)
        return vhd_reparent(&io_real, image, parent, err);
    if (is_top(guest, engine, image))
        return engine_reparent_top(engine, parent, err);
    if (!engine_lend(engine, &image, 1, err))
        return false;
    bool done = vhd_open(&io_real, image, IO_WRITE | VHD_BORROWED, &vhd, err) && vhd_reparent_open(vhd, parent, err);
    vhd_close(TAKE(vhd));
    engine_take_back(engine);
    return done;
}

bool guest_flush(struct guest *guest, struct err *err)
{
    for (size_t i = 0; i < guest->disk_count; i++)
        if (guest->engines[i] && !engine_flush(guest->engines[i], err))
            return false;
    return true;
}

#define NVRAM_MAX_BYTES (64U << 20)

struct save_context {
    struct guest *guest;
    const struct guest_save *save;
    bool has_told;          /* went_on() */
    struct ram_save *ram;   /* NULL: the second one could not be begun */
    const char *nvram;      /* NULL: none */
    struct buf variables;   /* its content at the instant */
    struct err nvram_err;   /* code ERR_NONE: it was read */
};

static void save_at_instant(void *context)
{
    struct save_context *saving = context;

    guest_switch_tops(saving->guest);
    if (saving->nvram)
        (void)!file_read_all(&io_real, saving->nvram, NVRAM_MAX_BYTES, &saving->variables, &saving->nvram_err);
    if (!saving->save->point_now) /* else the guest runs while the rest comes, and waits only for pages that it writes to */
        ram_save_hurry(saving->ram);
}

static void save_went_on(void *context)
{
    struct save_context *saving = context;

    if (saving->save->went_on && !saving->has_told)
        saving->save->went_on(saving->save->context);
    saving->has_told = true;
}

static bool save_failed(void *context, struct err *err)
{
    return ram_save_failed(((struct save_context *)context)->ram, err);
}

static void save_pace(void *context, uint64_t bytes)
{
    ram_save_pace(((struct save_context *)context)->ram, bytes);
}

static uint64_t save_paced(void *context, int wait_ms)
{
    return ram_save_paced(((struct save_context *)context)->ram, wait_ms);
}

/* What cannot be flushed now will fail again when it matters. */
static void save_before_stop(void *context)
{
    struct save_context *saving = context;
    struct err ignored;

    (void)!guest_flush(saving->guest, &ignored);
    ram_save_hurry(saving->ram);
}

static bool ram_save_open(const struct guest *guest, const struct guest_save *save, struct ram_save **ret_ram,
                          int *ret_qemu_end, struct err *err)
{
    AUTO_FREE char *bin = string_printf("%s.bin", save->state_path);
    AUTO_FREE char *vsv = string_printf("%s.vsv", save->state_path);
    int ends[2];

    if (!bin || !vsv)
        return err_oom(err);
    if (pipe2(ends, O_CLOEXEC) != 0)
        return err_sys(err, errno, "make a pipe");
    AUTO_FD int qemu_end = ends[1];
    struct ram_save_options options = {
        .stream_fd = ends[0],
        .bin_path = bin,
        .vsv_path = vsv,
        .parent_bin_path = save->parent_bin,
        .mapped_fd = guest->memory_fd,
        .reads_to_the_end = save->point_now,
        .info = {.id = save->memory_id, .memory_bytes = guest->config->memory_bytes},
        .progress = save->progress,
    };
    snprintf(options.info.qemu_version, sizeof options.info.qemu_version, "%s",
             qmp_version(machine_qmp(guest->machine)));
    if (!ram_save_start(&options, ret_ram, err))
        return false;
    *ret_qemu_end = TAKE_FD(qemu_end);
    return true;
}

static bool nvram_write(const struct save_context *context, const char *path, struct err *err)
{
    bool renamed;

    if (!context->nvram)
        return true;
    if (context->nvram_err.code != ERR_NONE) {
        *err = context->nvram_err;
        return false;
    }
    return file_replace(&io_real, path, context->variables.data, context->variables.length, &renamed, err);
}

static void save_context_done(struct save_context *context)
{
    buf_done(&context->variables);
}

static bool save_restart(void *context, int *ret_qemu_end, struct err *err)
{
    struct save_context *saving = context;

    ram_save_abandon(TAKE(saving->ram));
    return ram_save_open(saving->guest, saving->save, &saving->ram, ret_qemu_end, err);
}

bool guest_save(struct guest *guest, const struct guest_save *save, struct guest_saved *ret_saved,
                struct err *err)
{
    AUTO(save_context_done) struct save_context context = {.guest = guest, .save = save, .nvram = save->nvram};
    struct guest_saved saved;
    int qemu_end;

    guest_note_origin(guest, /* state_path= */ NULL); /* saving touches everything */
    if (!ram_save_open(guest, save, &context.ram, &qemu_end, err))
        return false;
    struct machine_save machine_options = {
        .stream_fd = qemu_end,
        .at_instant = save_at_instant,
        .went_on = save_went_on,
        .failed = save_failed,
        .restart = save_restart,
        .pace = save_pace,
        .paced = save_paced,
        .before_stop = save_before_stop,
        .context = &context,
        .progress = save->progress,
        .point_now = save->point_now,
        .stay_stopped = save->stay_stopped,
    };
    if (!machine_save(guest->machine, &machine_options, &saved.machine, err)) {
        /* QEMU knows only that its pipe broke; the reader knows why. */
        struct err reason;
        if (err->code == ERR_QEMU && context.ram && ram_save_failed(context.ram, &reason) &&
            reason.code != ERR_CORRUPT)
            *err = reason;
        ram_save_abandon(context.ram);
        return false;
    }
    save_went_on(&context);
    if (!ram_save_finish(context.ram, &saved.ram, err))
        return save->stay_stopped ? err_prefix(err, "the paused VM must be resumed before it can be saved again, "
                                                    "because QEMU had finished")
                                  : false;
    if (!nvram_write(&context, save->nvram_copy, err))
        return false;
    *ret_saved = saved;
    return true;
}
