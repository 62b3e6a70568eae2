#include "room.h"

#include "auto.h"
#include "bytes.h"
#include "extents.h"
#include "file.h"
#include "vhd.h"

#define SETTINGS_BYTES      8192U /* of a file of settings, without: */
#define LISTED_BYTES        200U
#define LAYER_BYTES         8192U /* of an empty layer, without its table */
#define MARGIN_BYTES        65536U
#define MARGIN_DIVISOR      64U

static uint64_t layer_bytes(const char *parent)
{
    AUTO_VHD struct vhd *image = NULL;
    struct err ignored;

    if (!vhd_open(&io_real, parent, IO_READ_ONLY, &image, &ignored))
        return LAYER_BYTES; /* over a layer that the plan makes itself */
    return LAYER_BYTES + image->size_bytes / VHD_DEFAULT_BLOCK_BYTES * 4;
}

static uint64_t file_bytes(const char *path)
{
    struct io_stat stat;

    return io_real.ops->stat(&io_real, path, &stat) == 0 ? stat.allocated_bytes : 0;
}

/* On a file system that shares extents it takes what has changed since, and nobody knows what that is. */
static void memory_look(const struct vm *vm, const struct plan *plan, size_t index, struct room *room)
{
    const struct config *naming = plan_memory_config(plan, index);
    AUTO_FREE char *parent = naming ? vm_parent_bin(vm, naming) : NULL;
    uint64_t about = vm_config(vm)->memory_bytes, at_least = 0;

    if (vm->present)
        (void)room_memory(machine_pid(vm->present->machine), vm_config(vm)->memory_bytes, &about, &at_least);
    if (parent && extents_can_be_shared(parent, vm->dir))
        at_least = 0;
    room->needs_bytes += about;
    room->at_least_bytes += at_least;
}

/* Only where it is the same file system: what is told is what is free there. Returns what the merge takes. */
static uint64_t merge_bytes(const struct vm *vm, const struct step *step)
{
    const struct room_merge_request request = {.child = step->path, .parent = step->from, .direction = step->direction};
    const char *grows = step->direction == MERGE_UP ? step->path : step->from;
    struct room_merge room;
    struct io_stat there, here;

    if (io_real.ops->stat(&io_real, grows, &there) != 0 || io_real.ops->stat(&io_real, vm->dir, &here) != 0 ||
        there.device != here.device)
        return 0;
    room_merge_look(&request, &room);
    return room.needs_bytes;
}

static void both_add(struct room *room, uint64_t bytes)
{
    room->needs_bytes += bytes;
    room->at_least_bytes += bytes;
}

/* True if the step makes something that stays. looks: at the guest's memory; else all of it is taken to be kept. */
static bool step_add(const struct vm *vm, const struct plan *plan, size_t index, bool looks, struct room *room)
{
    const struct step *step = &plan->steps[index];

    switch (step->kind) {
    case STEP_CREATE_LAYER:
        both_add(room, layer_bytes(step->from));
        return true;
    case STEP_COPY_FILE:
        both_add(room, file_bytes(step->from));
        return true;
    case STEP_SAVE_MEMORY:
        if (looks)
            memory_look(vm, plan, index, room);
        else
            both_add(room, vm_config(vm)->memory_bytes);
        return true;
    case STEP_WRITE_CONFIG:
    case STEP_COMMIT:
        both_add(room, SETTINGS_BYTES + step->config->listed_count * LISTED_BYTES);
        return false;
    default:
        return false;
    }
}

static bool look(const struct vm *vm, const struct plan *plan, bool looks, struct room *ret_room, bool *ret_makes, struct err *err)
{
    struct room room = {0};

    *ret_makes = false;
    for (size_t i = 0; i < plan->step_count; i++)
        *ret_makes |= step_add(vm, plan, i, looks, &room);
    if (!room_fs_look(vm->dir, &room.fs, err))
        return false;
    *ret_room = room;
    return true;
}

/* What a file that nothing else names gives back. */
static uint64_t removed_bytes(const struct step *step)
{
    struct io_stat stat;

    return io_real.ops->stat(&io_real, step->path, &stat) == 0 && stat.links == 1 ? stat.allocated_bytes : 0;
}

/* Merges come one after the other, and each gives back what its file took before the next: what counts is the most at one time. */
static uint64_t most_of_merges(const struct vm *vm, const struct plan *plan)
{
    uint64_t taken = 0, given = 0, most = 0;

    for (size_t i = 0; i < plan->step_count; i++) {
        const struct step *step = &plan->steps[i];
        if (step->kind == STEP_MERGE_DATA)
            taken += merge_bytes(vm, step);
        else if (step->kind == STEP_REMOVE_FILE)
            given += removed_bytes(step);
        most = max_u64(most, taken - min_u64(taken, given));
    }
    return most;
}

bool room_look(const struct vm *vm, const struct plan *plan, struct room *ret_room, struct err *err)
{
    bool ignored;

    if (!look(vm, plan, /* looks= */ true, ret_room, &ignored, err))
        return false;
    ret_room->needs_bytes += most_of_merges(vm, plan);
    return true;
}

static bool merges_check(const struct plan *plan, struct err *err)
{
    for (size_t i = 0; i < plan->step_count; i++) {
        const struct step *step = &plan->steps[i];
        const struct room_merge_request request = {
            .child = step->path, .parent = step->from, .direction = step->direction, .is_asked_for = true};
        if (step->kind == STEP_MERGE_DATA && !room_merge_check(&request, err))
            return false;
    }
    return true;
}

static bool fits(const struct room *room)
{
    return room->at_least_bytes + MARGIN_BYTES + room->at_least_bytes / MARGIN_DIVISOR <= room->fs.usable_bytes;
}

bool room_check(const struct vm *vm, const struct plan *plan, struct err *err)
{
    struct room room;
    bool makes;

    /* A look at memory takes thousands of calls. Where there is room for all of it there need be none. */
    if (!look(vm, plan, /* looks= */ false, &room, &makes, err))
        return false;
    if (makes && !fits(&room) && !look(vm, plan, /* looks= */ true, &room, &makes, err))
        return false;
    if (!makes || fits(&room))
        return merges_check(plan, err);
    char needs[16], has[16];
    return err_set(err, ERR_NO_SPACE, "%s: needs about %s, and %s are free in %s", plan->summary,
                   size_format(room.needs_bytes, needs), size_format(room.fs.free_bytes, has), vm->dir);
}
