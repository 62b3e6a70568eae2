#include "merger.h"

#include "auto.h"
#include "bases.h"
#include "log.h"
#include "merge_job.h"
#include "room_merge.h"
#include "text_json.h"
#include "vm_priv.h"

#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

struct merger {
    struct merge_job *job; /* NULL: nothing is copied */
    int over_fd;           /* an eventfd: the job is over */
    bool wanted;           /* there may be something pending */
    bool seals;            /* a top may be sealed for it, once: a snapshot was deleted */
    bool held;             /* cancelled by the user, until something asks for it again */
    bool broken_off;       /* while it was asked for */
    int64_t look_us;       /* there was no room: when to look again; 0: that is not waited for */
    uint64_t had_bytes;    /* so much was free then */
    struct disk_merge_mark mark; /* how far the last one came. No file has it: another worker begins at the beginning */
};

#define ROOM_LOOK_US 60000000

bool merger_new(struct merger **ret_merger, struct err *err)
{
    struct merger *merger = calloc(1, sizeof *merger);

    if (!merger)
        return err_oom(err);
    merger->over_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (merger->over_fd < 0) {
        free(merger);
        return err_set(err, ERR_NO_MEMORY, "an event for merging");
    }
    merger->wanted = true;
    *ret_merger = merger;
    return true;
}

void merger_free(struct merger *merger)
{
    if (!merger)
        return;
    close(merger->over_fd);
    free(merger);
}

/* --- room --- */

static uint64_t free_bytes(struct vm *vm)
{
    AUTO_FREE char *dir = tree_layers_dir(store_tree(vm->store));
    struct room_fs fs = {0};
    struct err ignored;

    return dir && room_fs_look(dir, &fs, &ignored) ? fs.free_bytes : 0;
}

static void wait_for_room(struct vm *vm)
{
    vm->merger->had_bytes = free_bytes(vm);
    vm->merger->look_us = vm_now_us() + ROOM_LOOK_US;
}

/* Somebody may have made room. */
static void look_for_room(struct vm *vm)
{
    struct merger *merger = vm->merger;

    if (merger->look_us == 0 || vm_now_us() < merger->look_us)
        return;
    merger->wanted = merger->wanted || free_bytes(vm) > merger->had_bytes;
    wait_for_room(vm);
}

/* The first that there is room for. *ret_no_room tells of one that there is none for. */
static const struct plan_merging *find_next(const struct store_merges *merges, bool hurries, struct err *ret_no_room)
{
    struct err err;

    for (size_t i = 0; i < merges->count; i++) {
        const struct plan_merging *merging = &merges->mergings[i];
        struct room_merge_request request = room_merge_of(merging);
        request.beside_guest = true;
        request.is_asked_for = hurries;
        if (merging->kept != MERGE_NOT_KEPT)
            continue;
        if (merging->child_is_empty || room_merge_check(&request, &err))
            return merging;
        *ret_no_room = err;
    }
    return NULL;
}

/* --- the next one --- */

static bool job_start(struct vm *vm, const struct plan_merging *merging, bool hurries, struct err *err)
{
    struct guest *guest = vm->present;
    const struct merge_job_options options = {
        .merging = merging,
        .engine = guest_engine_of(guest, merging->child) ?: guest_engine_of(guest, merging->parent),
        .engines = guest->engines,
        .engine_count = guest->disk_count,
        .hurries = hurries,
        .over_fd = vm->merger->over_fd,
        .mark = &vm->merger->mark,
    };

    log_info("merging %s and %s", merging->parent, merging->child);
    return merge_job_start(&options, &vm->merger->job, err);
}

static bool merges_read(struct vm *vm, struct store_merges *ret_merges, struct err *err)
{
    return store_merges_read(&io_real, store_tree(vm->store), MACHINE_RUNNING, /* into_base= */ false, ret_merges, err);
}

/* Before the first byte: the VM's file says no more how a base was that is written to. */
static bool forget_base(struct vm *vm, const struct store_merges *merges, const struct plan_merging *merging, struct err *err)
{
    AUTO_PLAN struct plan *plan = NULL;
    AUTO_PLAN struct plan *first = NULL;
    struct vm_plan_run run = {0};

    return store_merges_plan(merges, store_tree(vm->store), merging, &plan, err) &&
           bases_forget_written(store_tree(vm->store), plan, &first, err) && (!first || vm_run_plan(vm, first, &run, err));
}

/* At most once behind each deletion: what is sealed and merged is then itself under a top that is written to. */
static bool seal(struct vm *vm, const char *top, struct err *err)
{
    AUTO_PLAN struct plan *plan = NULL;
    struct plan_source source = vm_plan_source();
    struct vm_plan_run run = {0};

    if (!plan_seal(store_tree(vm->store), &source, top, &plan, err) || !vm_run_plan(vm, plan, &run, err))
        return false;
    guest_switch_tops(vm->present);
    return guest_flush(vm->present, err);
}

static const struct plan_merging *find_kept(const struct store_merges *merges, enum merge_kept kept)
{
    for (size_t i = 0; i < merges->count; i++)
        if (merges->mergings[i].kept == kept)
            return &merges->mergings[i];
    return NULL;
}

/* Every top that is in the way, each once. */
static bool seal_all(struct vm *vm, const struct store_merges *merges, struct err *err)
{
    for (size_t i = 0; i < merges->count; i++)
        if (merges->mergings[i].kept == MERGE_KEPT_WRITTEN && merges->mergings[i].child_is_top &&
            !seal(vm, merges->mergings[i].child, err))
            return false;
    return true;
}

/* Nothing fits. That is an answer to who has asked; else it is waited for. */
static bool has_no_room(struct vm *vm, bool hurries, const struct err *no_room, struct err *err)
{
    if (hurries) {
        *err = *no_room;
        return false;
    }
    log_info("merging waits: %s", no_room->text);
    wait_for_room(vm);
    return true;
}

/* *ret_started false: nothing is pending, or, if it does not hurry, nothing that there is room for. */
static bool start_next(struct vm *vm, bool hurries, bool *ret_started, struct err *err)
{
    struct store_merges merges;
    struct err no_room = ERR_INIT;

    *ret_started = false;
    vm->merger->look_us = 0;
    if (!merges_read(vm, &merges, err))
        return false;
    bool ok = true;
    if (vm->merger->seals && find_kept(&merges, MERGE_KEPT_WRITTEN)) {
        vm->merger->seals = false;
        ok = seal_all(vm, &merges, err);
        store_merges_done(&merges);
        if (!ok || !merges_read(vm, &merges, err))
            return false;
    }
    vm->merger->seals = false;
    const struct plan_merging *next = find_next(&merges, hurries, &no_room);
    if (next) {
        ok = forget_base(vm, &merges, next, err) && job_start(vm, next, hurries, err);
        *ret_started = ok;
    } else if (no_room.code != ERR_NONE) {
        ok = has_no_room(vm, hurries, &no_room, err);
    }
    store_merges_done(&merges);
    return ok;
}

/* --- behind the copying --- */

/* Also of one that all was copied of: should the rest of it fail, that need not be done twice. */
static bool job_join(struct vm *vm, struct merge_job *job, struct err *err)
{
    bool done = merge_job_join(job, err);

    vm->merger->mark = *merge_job_mark(job);
    return done;
}

static bool is_same(const struct plan_merging *a, const struct plan_merging *b)
{
    return b->child && a->kept == MERGE_NOT_KEPT && b->kept == MERGE_NOT_KEPT && a->direction == b->direction &&
           a->child_is_empty == b->child_is_empty && strcmp(a->parent, b->parent) == 0 && strcmp(a->child, b->child) == 0;
}

/* The images may have got other children since, but the two still become one. */
static bool plan_rest(struct vm *vm, const struct plan_merging *done, struct plan **ret_plan, struct err *err)
{
    struct store_merges merges;

    if (!merges_read(vm, &merges, err))
        return false;
    const struct plan_merge request = {.machine = merges.machine,
                                       .layers = merges.layers,
                                       .layer_count = merges.layer_count,
                                       .copied = true};
    const struct plan_merging *found = NULL;
    for (size_t i = 0; i < merges.count; i++)
        if (is_same(done, &merges.mergings[i]))
            found = &merges.mergings[i];
    bool ok = found ? plan_merge(store_tree(vm->store), &request, found, ret_plan, err)
                    : err_set(err, ERR_STATE, "%s: is not to be merged any more", done->child);
    store_merges_done(&merges);
    return ok;
}

/* Ends the job, which is over, and does what comes behind it. merged (may be NULL) tells of it. */
static bool job_complete(struct vm *vm, json_t *merged, struct err *err)
{
    AUTO(auto_merge_job_free) struct merge_job *job = TAKE(vm->merger->job);
    const struct plan_merging *merging = merge_job_merging(job);
    AUTO_PLAN struct plan *plan = NULL;
    struct vm_plan_run run = {0};
    uint64_t done, total;

    if (!job_join(vm, job, err) || !plan_rest(vm, merging, &plan, err) || !vm_run_plan(vm, plan, &run, err))
        return false;
    merge_job_progress(job, &done, &total);
    if (merged)
        json_array_append_new(merged, json_pack("{s:o, s:o, s:I}", "path", text_json(merging_gone(merging)), "into",
                                                text_json(merging_stays(merging)), "bytes", (json_int_t)done));
    return true;
}

void merger_end(struct vm *vm)
{
    AUTO(auto_merge_job_free) struct merge_job *job = vm->merger ? TAKE(vm->merger->job) : NULL;
    struct err err;

    if (job && !job_join(vm, job, &err))
        log_info("merging: %s", err.text);
}

/* --- beside operations --- */

static bool is_one_of(const char *operation, const char *const *names)
{
    while (*names && strcmp(*names, operation) != 0)
        names++;
    return *names != NULL;
}

/* These touch no image. */
static bool only_looks(const char *operation)
{
    static const char *const LOOKS[] = {"status", "console", "display", "screenshot", "cancel", NULL};

    return is_one_of(operation, LOOKS);
}

void merger_make_way(struct vm *vm, const char *operation)
{
    /* These touch no image but tops, and none that is there before. */
    static const char *const BESIDE[] = {"snapshot", "pause", "resume", "notes", "rename-snapshot", NULL};

    if (!vm->merger || !vm->merger->job || only_looks(operation))
        return;
    if (is_one_of(operation, BESIDE))
        merge_job_pause(vm->merger->job, true);
    else
        merger_end(vm);
}

void merger_go_on(struct vm *vm, const char *operation, bool done)
{
    static const char *const ASKS[] = {"delete", "merge", "start", NULL};
    struct merger *merger = vm->merger;

    if (!merger || only_looks(operation))
        return;
    if (merger->job)
        merge_job_pause(merger->job, false);
    /* One that was asked for and broken off is not begun again behind the back of whoever did that. */
    if (is_one_of(operation, ASKS))
        merger->held = merger->broken_off;
    merger->broken_off = false;
    merger->seals = merger->seals || (done && strcmp(operation, "delete") == 0);
    merger->wanted = true;
}

/* --- for the worker --- */

int vm_merger_fd(const struct vm *vm)
{
    return vm->merger ? vm->merger->over_fd : -1;
}

bool vm_is_merging(const struct vm *vm)
{
    return vm->merger && vm->merger->job;
}

int vm_merge_wait_ms(const struct vm *vm)
{
    const struct merger *merger = vm->merger;

    if (!merger || merger->look_us == 0 || merger->job)
        return -1;
    int64_t us = merger->look_us - vm_now_us();
    return us > 0 ? (int)(us / 1000) + 1 : 0;
}

bool vm_merge_on(struct vm *vm)
{
    struct merger *merger = vm->merger;
    struct err err = ERR_INIT;
    bool started;
    eventfd_t ignored;

    if (!merger || !vm->present)
        return false;
    (void)eventfd_read(merger->over_fd, &ignored);
    if (merger->job) {
        if (!merge_job_is_over(merger->job))
            return false;
        /* After a failure it waits for the next operation, or for room. */
        merger->wanted = job_complete(vm, /* merged= */ NULL, &err);
        if (!merger->wanted && err.code == ERR_NO_SPACE)
            wait_for_room(vm);
        if (merger->wanted)
            eventfd_write(merger->over_fd, 1);
        else
            log_warning("merging: %s", err.text);
        return true;
    }
    look_for_room(vm);
    if (!merger->wanted || merger->held || store_is_uncertain(vm->store))
        return false;
    merger->wanted = false;
    if (!start_next(vm, /* hurries= */ false, &started, &err))
        log_warning("merging: %s", err.text);
    return true;
}

bool vm_merge_cancel(struct vm *vm)
{
    if (!vm_is_merging(vm))
        return false;
    merger_end(vm);
    vm->merger->held = true;
    return true;
}

/* --- asked for --- */

#define LOOK_MS 50

struct asked {
    const struct progress *progress;
    uint64_t before_bytes; /* by the ones that are done */
};

/* It can take hours. Meanwhile the guest is seen to as at other times: true with vm->merger->job NULL if it has ended, and the merge with it. */
static bool wait_for_job(struct vm *vm, const struct asked *asked, struct err *err)
{
    uint64_t done, total;

    while (vm->merger->job && !merge_job_is_over(vm->merger->job)) {
        struct pollfd fds[] = {{.fd = vm->merger->over_fd, .events = POLLIN},
                               {.fd = vm_machine_fd(vm), .events = POLLIN},
                               {.fd = vm_monitor_fd(vm), .events = POLLIN}};
        merge_job_progress(vm->merger->job, &done, &total);
        progress_report(asked->progress, "merge", asked->before_bytes + done, asked->before_bytes + total);
        if (progress_cancelled(asked->progress)) {
            merger_end(vm);
            vm->merger->broken_off = true;
            return err_set(err, ERR_CANCELLED, "the merge was cancelled; it goes on with the next one");
        }
        (void)!poll(fds, ARRAY_SIZE(fds), LOOK_MS);
        vm_handle_events(vm);
        vm_tend(vm);
    }
    return true;
}

bool merger_run(struct vm *vm, const struct progress *progress, json_t *merged, struct err *err)
{
    struct asked asked = {.progress = progress};
    bool started = true;

    while (started) {
        if (!start_next(vm, /* hurries= */ true, &started, err))
            return false;
        if (!started)
            break;
        if (!wait_for_job(vm, &asked, err))
            return false;
        if (!vm->merger->job)
            return true;
        uint64_t done, total;
        merge_job_progress(vm->merger->job, &done, &total);
        if (!job_complete(vm, merged, err))
            return false;
        asked.before_bytes += done;
    }
    return true;
}

json_t *merger_json(const struct vm *vm)
{
    json_t *list = json_array();
    uint64_t done, total;

    if (!list || !vm_is_merging(vm))
        return list;
    const struct plan_merging *merging = merge_job_merging(vm->merger->job);
    merge_job_progress(vm->merger->job, &done, &total);
    json_array_append_new(list, json_pack("{s:o, s:o, s:I, s:I, s:s, s:n}", "path", text_json(merging_gone(merging)), "into",
                                          text_json(merging_stays(merging)), "bytes", (json_int_t)total, "done_bytes",
                                          (json_int_t)done, "state", "running", "reason"));
    return list;
}
