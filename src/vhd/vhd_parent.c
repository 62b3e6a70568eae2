/* From a differencing image to its parent. */
#include "vhd.h"

#include "file.h"
#include "vhd_paths.h"

#include <stdlib.h>
#include <string.h>

#define MAX_LOCATOR_BYTES 65536U
#define MAX_CANDIDATES    (2 * VHD_LOCATORS + 1)

/* Where the parent may be, in the order in which to try. */
struct candidates {
    char *paths[MAX_CANDIDATES]; /* owned */
    size_t count;
};

static void candidates_done(struct candidates *candidates)
{
    for (size_t i = 0; i < candidates->count; i++)
        free(candidates->paths[i]);
}

/* Takes path, which may be NULL. */
static void add(struct candidates *candidates, char *path)
{
    if (!path)
        return;
    for (size_t i = 0; i < candidates->count; i++) {
        if (strcmp(candidates->paths[i], path) == 0) {
            free(path);
            return;
        }
    }
    candidates->paths[candidates->count++] = path;
}

typedef bool path_decoder(uint32_t platform, const uint8_t *data, size_t length, const char *dir,
                          char **ret_path, struct err *err);

static bool add_locators(const struct vhd *child, uint32_t platform, path_decoder *decode, const char *dir,
                         struct candidates *candidates, struct err *err)
{
    for (unsigned i = 0; i < VHD_LOCATORS; i++) {
        const struct vhd_locator *locator = &child->header.locators[i];
        if (locator->platform != platform || locator->length_bytes > MAX_LOCATOR_BYTES)
            continue;
        AUTO_FREE uint8_t *data = malloc((size_t)locator->length_bytes + 1);
        size_t got;
        char *path;
        if (!data)
            return err_oom(err);
        if (locator->offset > child->file_bytes)
            continue;
        if (!io_read_some(child->file, locator->offset, data, locator->length_bytes, &got, err) ||
            !decode(platform, data, got, dir, &path, err))
            return false;
        add(candidates, path);
    }
    return true;
}

static bool find_candidates(const struct vhd *child, struct candidates *candidates, struct err *err)
{
    static const uint32_t ORDER[] = {VHD_PLATFORM_W2RU, VHD_PLATFORM_WI2R, VHD_PLATFORM_W2KU,
                                     VHD_PLATFORM_WI2K, VHD_PLATFORM_MACX};
    AUTO_FREE char *dir = path_dir(child->path);
    char *path;

    if (!dir)
        return err_oom(err);
    for (size_t i = 0; i < ARRAY_SIZE(ORDER); i++)
        if (!add_locators(child, ORDER[i], vhd_path_decode, dir, candidates, err))
            return false;
    if (!vhd_path_beside(VHD_PLATFORM_NONE, child->header.parent_name, VHD_NAME_BYTES, dir, &path, err))
        return false;
    add(candidates, path);
    for (size_t i = 0; i < ARRAY_SIZE(ORDER); i++)
        if (!add_locators(child, ORDER[i], vhd_path_beside, dir, candidates, err))
            return false;
    return true;
}

static bool mismatch(const struct vhd *child, const struct vhd *found, struct err *err)
{
    char want[2 * VHD_ID_SIZE + 1], have[2 * VHD_ID_SIZE + 1];

    return err_set(err, ERR_MISMATCH, "%s: wants a parent with the unique id %s, but %s has %s", child->path,
                   vhd_id_format(child->header.parent_id, want), found->path,
                   vhd_id_format(found->footer.id, have));
}

/* True with *ret_parent set if it is the parent. False with the best of the reasons in err: what is there
 * says more than what is missing, and the first place more than the others. */
static bool try_candidate(const struct vhd *child, const char *path, struct vhd **ret_parent, struct err *err)
{
    AUTO_VHD struct vhd *found = NULL;
    struct err reason = ERR_INIT;

    if (!vhd_open(child->file->io, path, IO_READ_ONLY, &found, &reason))
        err_prefix_text(&reason, "parent of %s", child->path);
    else if (memcmp(found->footer.id, child->header.parent_id, VHD_ID_SIZE) != 0)
        (void)mismatch(child, found, &reason);
    else {
        *ret_parent = TAKE(found);
        return true;
    }
    if (err->code == ERR_NONE || (err->code == ERR_NOT_FOUND && reason.code != ERR_NOT_FOUND))
        *err = reason;
    return false;
}

bool vhd_open_parent(const struct vhd *child, struct vhd **ret_parent, struct err *err)
{
    AUTO(candidates_done) struct candidates candidates = {0};

    if (!find_candidates(child, &candidates, err))
        return false;
    if (candidates.count == 0)
        return err_set(err, ERR_NOT_FOUND, "%s: names no parent that can be reached here", child->path);
    *err = ERR_INIT;
    for (size_t i = 0; i < candidates.count; i++)
        if (try_candidate(child, candidates.paths[i], ret_parent, err))
            return true;
    return false;
}
