#include "room_merge.h"

#include "auto.h"
#include "bytes.h"
#include "disk_tools.h"
#include "file.h"

#include <errno.h>
#include <stdio.h>
#include <sys/statvfs.h>
#include <unistd.h>

/* Of an image, by which it is estimated. */
#define SAMPLE_BLOCKS     256U
#define RESERVE_DIVISOR   64U
#define RESERVE_MAX_BYTES (1ULL << 30)

bool room_fs_look(const char *path, struct room_fs *ret_fs, struct err *err)
{
    struct statvfs fs;

    if (statvfs(path, &fs) != 0)
        return err_sys(err, errno, "ask for the free space of %s", path);
    *ret_fs = (struct room_fs){.total_bytes = (uint64_t)fs.f_blocks * fs.f_frsize,
                               .free_bytes = (uint64_t)fs.f_bavail * fs.f_frsize};
    ret_fs->usable_bytes = geteuid() == 0 ? (uint64_t)fs.f_bfree * fs.f_frsize : ret_fs->free_bytes;
    return true;
}

uint64_t room_reserve_bytes(const struct room_fs *fs)
{
    return min_u64(fs->total_bytes / RESERVE_DIVISOR, RESERVE_MAX_BYTES);
}

struct room_merge_request room_merge_of(const struct plan_merging *merging)
{
    return (struct room_merge_request){
        .child = merging->child,
        .parent = merging->parent,
        .direction = merging->direction,
        .at_most_bytes = merging->bytes + 1,
    };
}

static bool fs_look(const struct room_merge_request *request, struct room_fs *ret_fs, struct err *err)
{
    AUTO_VHD struct vhd *child = NULL;
    AUTO_VHD struct vhd *parent = NULL;

    if (request->direction == MERGE_UP)
        return room_fs_look(request->child, ret_fs, err);
    if (request->parent)
        return room_fs_look(request->parent, ret_fs, err);
    return vhd_open(&io_real, request->child, IO_READ_ONLY, &child, err) && vhd_open_parent(child, &parent, err) &&
           room_fs_look(parent->path, ret_fs, err);
}

void room_merge_look(const struct room_merge_request *request, struct room_merge *ret_room)
{
    const struct disk_merge_sides sides = {
        .child_path = request->child,
        .parent_path = request->parent,
        .direction = request->direction == MERGE_UP ? DISK_MERGE_UP : DISK_MERGE_DOWN,
    };
    struct room_merge room = {.needs_bytes = request->at_most_bytes};
    struct err ignored;

    *ret_room = (struct room_merge){0};
    if (!fs_look(request, &room.fs, &ignored))
        return;
    if (request->beside_guest)
        room.reserve_bytes = room_reserve_bytes(&room.fs);
    if ((request->at_most_bytes == 0 || !room_merge_fits(&room)) &&
        !disk_merge_new_bytes(&io_real, &sides, SAMPLE_BLOCKS, &room.needs_bytes, &ignored))
        return;
    *ret_room = room;
    if (request->is_asked_for && !room_merge_fits(&room) &&
        disk_merge_new_bytes(&io_real, &sides, /* max_blocks= */ 0, &room.needs_bytes, &ignored))
        *ret_room = room;
}

/* One that takes nothing makes room. What is kept back for root is not for a merge beside a guest. */
bool room_merge_fits(const struct room_merge *room)
{
    uint64_t has = room->reserve_bytes > 0 ? room->fs.free_bytes : room->fs.usable_bytes;

    return room->needs_bytes == 0 || room->needs_bytes + room->reserve_bytes <= has;
}

void room_merge_text(const struct room_merge *room, char *text, size_t size)
{
    char needs[16], has[16], reserve[16], kept[64] = "";

    if (room->reserve_bytes > 0)
        snprintf(kept, sizeof kept, ", and %s are left to the guest", size_format(room->reserve_bytes, reserve));
    snprintf(text, size, "needs about %s more, %s%s are free%s", size_format(room->needs_bytes, needs),
             kept[0] ? "" : "and ", size_format(room->fs.free_bytes, has), kept);
}

bool room_merge_check(const struct room_merge_request *request, struct err *err)
{
    struct room_merge room;
    char text[160];

    room_merge_look(request, &room);
    if (room_merge_fits(&room))
        return true;
    room_merge_text(&room, text, sizeof text);
    return err_set(err, ERR_NO_SPACE, "%s: to merge it %s", request->child, text);
}
