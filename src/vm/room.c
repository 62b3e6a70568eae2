#include "room.h"

#include "auto.h"
#include "bytes.h"
#include "extents.h"
#include "file.h"
#include "vhd.h"

#include <errno.h>
#include <sys/statvfs.h>

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
static void memory_add(const struct vm *vm, const struct plan *plan, size_t index, struct room *room)
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

static void both_add(struct room *room, uint64_t bytes)
{
    room->needs_bytes += bytes;
    room->at_least_bytes += bytes;
}

/* True if the step makes something that stays. */
static bool step_add(const struct vm *vm, const struct plan *plan, size_t index, struct room *room)
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
        memory_add(vm, plan, index, room);
        return true;
    case STEP_WRITE_CONFIG:
    case STEP_COMMIT:
        both_add(room, SETTINGS_BYTES + step->config->listed_count * LISTED_BYTES);
        return false;
    default:
        return false;
    }
}

static bool look(const struct vm *vm, const struct plan *plan, struct room *ret_room, bool *ret_makes, struct err *err)
{
    struct room room = {0};
    struct statvfs fs;

    *ret_makes = false;
    for (size_t i = 0; i < plan->step_count; i++)
        *ret_makes |= step_add(vm, plan, i, &room);
    if (statvfs(vm->dir, &fs) != 0)
        return err_sys(err, errno, "ask for the free space of %s", vm->dir);
    room.free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize;
    room.usable_bytes = geteuid() == 0 ? (uint64_t)fs.f_bfree * fs.f_frsize : room.free_bytes;
    *ret_room = room;
    return true;
}

bool room_look(const struct vm *vm, const struct plan *plan, struct room *ret_room, struct err *err)
{
    bool ignored;

    return look(vm, plan, ret_room, &ignored, err);
}

bool room_check(const struct vm *vm, const struct plan *plan, struct err *err)
{
    struct room room;
    bool makes;

    if (!look(vm, plan, &room, &makes, err))
        return false;
    if (!makes || room.at_least_bytes + MARGIN_BYTES + room.at_least_bytes / MARGIN_DIVISOR <= room.usable_bytes)
        return true;
    char needs[16], has[16];
    return err_set(err, ERR_NO_SPACE, "%s: needs about %s, and %s are free in %s", plan->summary,
                   size_format(room.needs_bytes, needs), size_format(room.free_bytes, has), vm->dir);
}
