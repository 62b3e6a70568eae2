/* What a merge takes of the file system, before it is begun. It makes one file larger, and what the other took comes back at the end only:
 * what cannot fit is not begun. */
#pragma once

#include "err.h"
#include "plan.h"

struct room_fs {
    uint64_t total_bytes;
    uint64_t free_bytes;   /* to anybody */
    uint64_t usable_bytes; /* to who asks: root may use what is kept back for it */
};
/* The file system that path is on. */
bool room_fs_look(const char *path, struct room_fs *ret_fs, struct err *err) MUST_CHECK;

struct room_merge {
    uint64_t needs_bytes;   /* about; 0 where the images cannot be looked at: the merge itself tells why */
    uint64_t reserve_bytes; /* what is left to a guest beside it; 0: there is none */
    struct room_fs fs;      /* of the file that becomes larger */
};
struct room_merge_request {
    const char *child, *parent; /* parent NULL: the one that child names */
    enum merge_direction direction;
    uint64_t at_most_bytes; /* what the file takes that is copied from: where that fits, no image is opened; 0: not known */
    bool beside_guest; /* what that writes goes first */
    bool is_asked_for; /* where it would not fit by a sample of blocks, all are looked at */
};
struct room_merge_request room_merge_of(const struct plan_merging *merging);
void room_merge_look(const struct room_merge_request *request, struct room_merge *ret_room);
bool room_merge_fits(const struct room_merge *room);
/* "needs about 3.0 GiB, ..." */
void room_merge_text(const struct room_merge *room, char *text, size_t size);
/* The two: ERR_NO_SPACE with both figures. */
bool room_merge_check(const struct room_merge_request *request, struct err *err) MUST_CHECK;
/* Of a file system's space a merge beside a guest leaves so much. */
uint64_t room_reserve_bytes(const struct room_fs *fs);
