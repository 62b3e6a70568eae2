/* QEMU: is it there and what can it do, its command line from a VM's settings, its process, saving and loading. */
#pragma once

#include "config.h"
#include "progress.h"
#include "qmp.h"

#include <sys/types.h>

/* --- what is on this host --- */
/* ACCEL_AUTO: KVM only if it works: /dev/kvm opens and the processor shows vmx or svm. ACCEL_KVM: if /dev/kvm opens, else an
 * error that says so. */
bool accel_resolve(enum config_accel wanted, enum config_accel *ret_accel, struct err *err) MUST_CHECK;

struct qemu {
    char path[512];
    char version[32];    /* "7.2.22" */
    unsigned major, minor;
};
/* $BOUGH_QEMU, else qemu-system-x86_64 in PATH. ERR_QEMU if missing, not runnable, or older than 7.2. The answer of
 * `--version` is cached in runtime files by path, size, mtime: the process start would cost the instant. */
bool qemu_find(struct qemu *ret_qemu, struct err *err) MUST_CHECK;
/* The machine type to pin for a new VM: the newest pc-i440fx-X.Y or pc-q35-X.Y that QEMU's own major.minor names. */
bool qemu_default_machine(const struct qemu *qemu, unsigned generation, char **ret_machine, struct err *err) MUST_CHECK;
/* ERR_UNSUPPORTED if this QEMU does not offer the settings' machine type (asked from `-machine help`, cached likewise). */
bool qemu_check_machine(const struct qemu *qemu, const char *machine, struct err *err) MUST_CHECK;

/* UEFI firmware of this host for generation 2: its code, and the template of a new VM's variables (static strings).
 * ERR_NOT_FOUND if OVMF is not installed. */
bool machine_firmware(const char **ret_code, const char **ret_variables, struct err *err) MUST_CHECK;

/* --- a process --- */
struct machine_launch {
    const struct qemu *qemu;
    const struct config *config;   /* settings alone decide the virtual hardware */
    enum config_accel accel;       /* resolved */
    const char *dir;               /* runtime directory of this process: qmp.sock, console.sock, vnc.sock, qemu.log */
    const char *const *disk_sockets; /* one NBD socket for each of config's hard disks, NULL for optical drives */
    const char *memory_file;       /* .bin mapped privately; NULL: anonymous memory */
    bool incoming;                 /* waits for machine_load() */
    int alive_fd;                  /* inherited; -1 for none */
    bool hold_host_resources;      /* leave out forwarded ports; machine_take_host_resources() adds them later */
    const char *nvram;             /* UEFI variables, read-write; NULL for generation 1 */
};

struct machine;

/* Can this VM be started with hold_host_resources beside its present process? Not with a TAP interface: only one process
 * can have it, so the present one must end first. */
bool machine_can_hold(const struct config *config);

/* The argument vector (owned, NULL at the end), for tests, `settings -v`, and machine_start(). */
bool machine_arguments(const struct machine_launch *launch, char ***ret_argv, struct err *err) MUST_CHECK;
void machine_arguments_free(char **argv);
/* Starts QEMU, stopped (-S), as a process of its own session that survives us: standard error goes to dir/qemu.log, and only
 * alive_fd is inherited. Connects its monitor. If it ends at once the error has its last words. */
bool machine_start(const struct machine_launch *launch, struct machine **ret_machine, struct err *err) MUST_CHECK;
/* A QEMU whose starter has died. Its disks must be served again before: its main loop may be waiting for one. */
struct machine_adoption {
    pid_t pid;
    int pidfd;             /* taken, also on failure */
    const char *dir;       /* as machine_launch's */
    enum config_accel accel;
    bool maps_file;        /* it was started with a memory_file */
    bool has_display;
};
bool machine_adopt(const struct machine_adoption *adoption, struct machine **ret_machine, struct err *err) MUST_CHECK;
/* A save that its worker did not live to see the end of: cancelled, or where that would leave the guest hanging (machine_save()) waited
 * for. Behind it no migration is active; the guest runs or stands as that has left it. */
bool machine_end_save(struct machine *machine, struct err *err) MUST_CHECK;
/* The handle alone: QEMU goes on. Accepts NULL. */
void machine_release(struct machine *machine);
/* SIGKILL to this very process (by pidfd), waits for its end, releases. Accepts NULL. */
void machine_kill(struct machine *machine);
/* The signal alone: the process gives back gigabytes of memory before it has ended. Accepts NULL. */
void machine_kill_start(struct machine *machine);

pid_t machine_pid(const struct machine *machine);
int machine_pidfd(const struct machine *machine); /* readable when it has ended */
struct qmp *machine_qmp(struct machine *machine);
const char *machine_dir(const struct machine *machine);
/* Why it ended: exit status or signal, and the last lines of qemu.log (at most 400 bytes). Waits at most a second. */
void machine_last_words(struct machine *machine, char *text, size_t size);

/* It has ended: with status 0, or, where only its parent could know the status, by its own will. */
bool machine_ended_in_order(struct machine *machine);
/* The same of a QEMU that nobody has watched, and what machine_last_words() says of it, by what is left in its directory. */
bool machine_dir_ended_in_order(const char *dir);
void machine_dir_last_words(const char *dir, char *text, size_t size);

/* query-status: "running", "paused", "prelaunch", "inmigrate", "postmigrate", "io-error", "guest-panicked", ... */
bool machine_run_state(struct machine *machine, char state[static 32], struct err *err) MUST_CHECK;
bool machine_continue(struct machine *machine, struct err *err) MUST_CHECK;
bool machine_stop(struct machine *machine, struct err *err) MUST_CHECK;
bool machine_power_button(struct machine *machine, struct err *err) MUST_CHECK; /* ACPI: the guest may shut down */
bool machine_screenshot(struct machine *machine, const char *png_path, struct err *err) MUST_CHECK; /* ERR_STATE without display */
/* The screen as QEMU writes it, a PPM (P6), into memory: *ret_fd (owned) is a file without a name of at most
 * MACHINE_SCREEN_MAX_BYTES. Nothing in it is checked. ERR_STATE without display. */
#define MACHINE_SCREEN_MAX_BYTES (64 << 20)
bool machine_screen_read(struct machine *machine, int *ret_fd, struct err *err) MUST_CHECK;
bool machine_take_host_resources(struct machine *machine, const struct config *config, struct err *err) MUST_CHECK;

/* The name of a drive in QEMU, by its place: "virtio0". */
void machine_disk_id(const struct config_disk *disk, char id[static 32]);

/* An I/O error on a drive, told by the event BLOCK_IO_ERROR. */
struct machine_disk_error {
    size_t disk;         /* index in the settings */
    bool stops_guest;    /* QEMU stops the guest (STOP follows) and repeats the request when it goes on; else the guest is told */
    bool no_space;
    const char *operation, *reason; /* "read" or "write"; belong to the event */
};
/* Is the event one, of a drive in these settings? */
bool machine_disk_error_read(const json_t *event, const struct config *config, struct machine_disk_error *ret_error);

/* --- saving and loading --- */
struct machine_save {
    int stream_fd; /* write end of the pipe; taken (closed here, so that the reader sees the end when QEMU is done) */
    /* Called once, while the processors stand still and all guest requests are complete and flushed: the instant. */
    void (*at_instant)(void *context);
    /* Called once with point_now, when the guest runs again and its memory is being copied. NULL: nobody is. */
    void (*went_on)(void *context);
    /* Asked often: true with *err set if the other end has failed: the save is cancelled. NULL: never. */
    bool (*failed)(void *context, struct err *err);
    /* What was written to the stream is worth nothing and the save begins anew: a new stream, taken as the first. Only
     * before the instant, and twice at most. NULL: the save fails instead (ERR_QEMU). */
    bool (*restart)(void *context, int *ret_stream_fd, struct err *err);
    /* NULL (all three), or how the reader is paced: from now on it takes at most so many more bytes (UINT64_MAX: all, as in the
     * beginning); waits at most so long until they are taken, how many are left; the guest is about to be stopped, nothing
     * that the reader or a flush of the disks waits for may make that longer. Not with point_now. */
    void (*pace)(void *context, uint64_t bytes);
    uint64_t (*paced)(void *context, int wait_ms);
    void (*before_stop)(void *context);
    void *context;
    const struct progress *progress; /* may be NULL; its cancelled() is obeyed until the instant */
    bool point_now;    /* the memory of now, by a background snapshot; a VM that stands is saved the ordinary way all the same */
    bool stay_stopped; /* true: the processors stay stopped behind it (save, a Paused VM) */
};
struct machine_save_result {
    uint64_t pause_us;  /* the longest pause, STOP to RESUME by the events' time stamps; 0 if it stays stopped or did not run */
    uint64_t pauses, paused_us; /* how many (under TCG one a pass), and all together */
    uint64_t passes, total_us;
    bool too_fast; /* it changed memory faster than it was copied, so that the last pause was allowed to be longer */
    bool background; /* which way it was: a background snapshot, or pre-copy */
};
/* Can this machine be saved now? ERR_STATE by its run state; ERR_UNSUPPORTED with QEMU's reasons: devices, features of processors, back
 * ends that it knows not to be movable. To be asked before anything is done. */
bool machine_can_save(struct machine *machine, struct err *err) MUST_CHECK;
/* Can the memory of a VM that runs be saved as it is at the request? ERR_STATE or ERR_UNSUPPORTED with the reason. Nothing changes. */
bool machine_can_save_background(struct machine *machine, struct err *err) MUST_CHECK;
/* With point_now (save_background.c): the instant is at the beginning, before anything was copied; cancelled() is obeyed to the end.
 * The reader must read to the end of the stream whatever becomes of it: QEMU before 8.1 leaves the memory protected, and so the guest
 * hanging for ever, when such a migration is cancelled or fails. With those a save that is given up is still waited for.
 *
 * Else pre-copy with pause-before-switchover (docs/ram.md). Every capability and parameter is set explicitly. Bounded: after a
 * number of passes that do not converge the rest is copied stopped. Under TCG QEMU loses writes of the guest if it reads the
 * bitmap of changed pages while the guest runs: there it is paused a first time for the set-up, copied once while it runs,
 * and what it changed meanwhile is copied in the second pause; in several passes, each with a pause
 * at its end, where the reader can be paced. Whatever fails, the run state is set right before it
 * returns: what ran runs, what was paused stands still. A guest that pauses itself (I/O error, panic) meanwhile stays so.
 * Behind the instant of a VM that does not go on, QEMU is "postmigrate": it can continue but not save again (ERR_STATE); so
 * it may be after a save of a paused VM that failed or was cancelled late. failed() must tell of a reader that neither reads
 * nor has closed its end: QEMU cannot be cancelled while it is blocked in the pipe, so such a reader must close. */
bool machine_save(struct machine *machine, const struct machine_save *save, struct machine_save_result *ret_result,
                  struct err *err) MUST_CHECK;
/* Feeds the migration stream from fd (taken) to a machine started with incoming, and waits until it is loaded; it stands
 * still afterwards. A refused stream is ERR_QEMU with QEMU's reason; the process may then be dead. */
bool machine_load(struct machine *machine, int fd, struct err *err) MUST_CHECK;
