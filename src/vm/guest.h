/* A guest: one QEMU process with the engines of its disks. A VM that runs has one, the present; during an apply there is a
 * second, the target. */
#pragma once

#include "config.h"
#include "engine.h"
#include "machine.h"
#include "progress.h"
#include "ram.h"
#include "space.h"

/* Errors on a disk that the guest was told of. */
struct guest_disk_errors {
    uint64_t count;
    char operation[16], reason[80]; /* the last one's, in QEMU's words */
};

struct guest {
    struct config *config;    /* owned: what this process was started from; the disks' paths follow their tops */
    struct config *next;      /* owned: engine_prepare_top() is done for its disks, engine_switch_top() not yet; else NULL */
    enum config_accel accel;  /* the one it runs under */
    struct machine *machine;
    char *process_dir;        /* QEMU's own directory in the runtime directory */
    char *disks_dir;          /* the directory there with the disks' sockets, which outlive a reload */
    struct engine **engines;  /* one for each of config's disks; NULL for optical drives */
    char **sockets;           /* likewise */
    size_t disk_count;        /* of engines and sockets */
    bool resources_held;      /* forwarded ports are not its own yet */
    bool is_to_run;           /* so the user wants it */
    char *memory;             /* owned: the `.bin` that its memory is mapped from; NULL: none */
    unsigned resets;          /* that the guest has made itself */
    char shutdown_reason[32]; /* QEMU's word for why it is about to end; "": it has told none */
    struct space_wait space;
    char *restored_from;      /* owned: the `.bin` whose first-touched pages nobody has noted yet; else NULL */
    int memory_fd;            /* the `.bin` that its memory is mapped from, also when that has no name any more; 0: none, or not known */
    int64_t touched_ms;       /* when they shall be, by clock_ms(); 0: not yet known */
    struct guest_disk_errors *errors; /* one for each of config's disks */
};

struct guest_options {
    const char *runtime_dir;
    const char *state_path;   /* memory from <state_path>.bin and .vsv; NULL: a cold start */
    const char *nvram;        /* UEFI variables; NULL for generation 1 */
    const struct guid *memory_id; /* the id that .vsv must carry; NULL: any */
    int alive_fd;
    bool hold_host_resources;
    bool is_to_run; /* what becomes of it if this process dies before it has gone on */
};

/* Starts it, standing still (-S), memory loaded. config is copied. Host checks come first: accelerator, QEMU, machine type,
 * memory files. On failure nothing of it is left. */
bool guest_start(const struct config *config, const struct guest_options *options, struct guest **ret_guest,
                 struct err *err) MUST_CHECK;
/* One whose worker has died, as its process directory and the record in it tell: its disks are served again on their sockets, a save
 * that was in progress has failed, and it runs or stands as its user wanted. config: the settings that the VM's file has now. pidfd is
 * taken. On failure QEMU is as it was. */
struct guest_record;
bool guest_adopt(const struct config *config, const char *process_dir, const struct guest_record *record, int pidfd,
                 struct guest **ret_guest, struct err *err) MUST_CHECK;
/* Replaces the process by one that has loaded the memory from state_path, on the same engines: for a guest that stands still and whose
 * process is used up by a completed save. On failure the old process stays. */
bool guest_reload(struct guest *guest, const struct guest_options *options, struct err *err) MUST_CHECK;
/* The process is killed if it lives. Disks are flushed and closed (*err tells a failure of that), but for those whose top is among
 * the dropped paths (may be NULL): they are left as they are, because nobody will read them again. Frees in any case; accepts NULL. */
struct guest_dropped {
    const char *const *paths;
    size_t count;
};
bool guest_end(struct guest *guest, const struct guest_dropped *dropped, struct err *err);
/* Kills the process without waiting for its end: only guest_end() may follow. Accepts NULL. */
void guest_end_start(struct guest *guest);
/* The handle alone; QEMU goes on without disks until a manager serves them again. Engines are closed in order. */
void guest_release(struct guest *guest);

/* The engine that has the image in its chain; NULL: none has. */
struct engine *guest_engine_of(struct guest *guest, const char *image);
/* vhd_reparent(), also of an image that one of its engines has open. */
bool guest_reparent(struct guest *guest, const char *image, const char *parent, struct err *err) MUST_CHECK;

/* Each engine whose disk config gives another top opens that as its next one. All or none. */
bool guest_prepare_tops(struct guest *guest, const struct config *config, struct err *err) MUST_CHECK;
/* Forwarded ports and the like, once the process that had them is gone. */
bool guest_take_resources(struct guest *guest, struct err *err) MUST_CHECK;
/* Prepared tops are given up. */
void guest_give_up_tops(struct guest *guest);
/* At once, in memory; nothing happens if no tops are prepared. */
void guest_switch_tops(struct guest *guest);
bool guest_flush(struct guest *guest, struct err *err) MUST_CHECK;

struct guest_save {
    const char *state_path;  /* <state_path>.bin and .vsv, which must not exist */
    const char *parent_bin;  /* memory that this one is much like; NULL: none is known */
    struct guid memory_id;
    bool stay_stopped;
    bool point_now;          /* as machine_save's */
    const char *nvram;       /* UEFI variables to copy at the instant; NULL: none */
    const char *nvram_copy;  /* where to; must not exist */
    const struct progress *progress;
    /* Called once, as soon as what runs goes on again behind the instant, or QEMU's part is done; the files are not durable yet. NULL:
     * nobody is. */
    void (*went_on)(void *context);
    void *context;
};
struct guest_saved {
    struct machine_save_result machine;
    struct ram_save_result ram;
};
/* Memory and device state to files, durable; prepared tops are switched at the instant. On failure the files are gone and the run
 * state is as it was. */
bool guest_save(struct guest *guest, const struct guest_save *save, struct guest_saved *ret_saved,
                struct err *err) MUST_CHECK;

/* --- its processors (guest_run.c) --- */

/* True if they run. run_state gets QEMU's word for it. */
bool guest_runs(struct guest *guest, char run_state[static 32], bool *ret_runs, struct err *err) MUST_CHECK;
/* As the user wants it from now on. QEMU repeats requests that failed for want of space. */
bool guest_continue(struct guest *guest, struct err *err) MUST_CHECK;
bool guest_pause(struct guest *guest, struct err *err) MUST_CHECK;

/* It has just been restored from <state_path>.bin; NULL: what it has touched says nothing any more. */
void guest_note_origin(struct guest *guest, const char *state_path);

/* Every event of its QEMU goes through here. */
void guest_hear(struct guest *guest, const json_t *event);
/* QEMU stopped it for want of space on the host, and nobody has paused it. */
bool guest_waits_for_space(const struct guest *guest);
/* Asks QEMU whether it stands so, which its event may tell only later: QEMU 10 lets one of a disk through in a second. */
void guest_look_for_space(struct guest *guest);
const char *guest_space_path(const struct guest *guest); /* for one that waits: what cannot grow, an image or the runtime folder */
/* Milliseconds until guest_tend() wants to be called; -1: it does not. */
int guest_wait_ms(const struct guest *guest);
/* Sets one going that waits for space, if there is some or it is time to see: true if it did. Notes what one that was restored touched
 * first. */
bool guest_tend(struct guest *guest);
