/* What a merge asks of an engine. All that takes time is done on the caller's thread. */
#include "engine_private.h"

#include <stdlib.h>
#include <string.h>
#include <unistd.h>

/* Gaps of a layer that was sealed a moment ago are given back meanwhile. */
#define LEND_TRIES   100
#define LEND_WAIT_US 20000

static bool has_do(struct core *core, void *context, struct err *err)
{
    (void)err;
    return disk_has(core->disk, context);
}

bool engine_has(struct engine *engine, const char *path)
{
    struct err ignored;

    return engine_call(engine, /* at_instant= */ false, has_do, (void *)(uintptr_t)path, &ignored);
}

struct lending {
    const char *const *paths;
    size_t count;
};

static bool lend_do(struct core *core, void *context, struct err *err)
{
    const struct lending *lending = context;

    return disk_lend(core->disk, lending->paths, lending->count, err);
}

bool engine_lend(struct engine *engine, const char *const *paths, size_t count, struct err *err)
{
    struct lending lending = {.paths = paths, .count = count};

    for (unsigned i = 0; !engine_call(engine, /* at_instant= */ false, lend_do, &lending, err); i++) {
        if (err->code != ERR_BUSY || i == LEND_TRIES)
            return false;
        /* Not before it is seen to be needed: it would send all to the disk that the machine has written to the top. */
        if (i == 0 && !engine_flush(engine, err))
            return false;
        if (i > 0)
            usleep(LEND_WAIT_US);
    }
    return true;
}

static bool take_back_do(struct core *core, void *context, struct err *err)
{
    (void)context;
    (void)err;
    disk_take_back(core->disk);
    return true;
}

void engine_take_back(struct engine *engine)
{
    struct err ignored;

    (void)!engine_call(engine, /* at_instant= */ false, take_back_do, NULL, &ignored);
}

static bool merged_do(struct core *core, void *context, struct err *err)
{
    return disk_merged_take(core->disk, context, err);
}

struct top {
    struct vhd_relink relink; /* owned */
    const struct io *io;
    char *path; /* owned */
    uint64_t length, offset;
};

static void top_done(struct top *top)
{
    vhd_relink_done(&top->relink);
    free(top->path);
}

static bool io_do(struct core *core, void *context, struct err *err)
{
    struct top *top = context;
    struct disk_layer layer;

    disk_layer_get(core->disk, 0, &layer);
    top->io = disk_io(core->disk);
    top->path = strdup(layer.path);
    return top->path || err_oom(err);
}

bool engine_merged(struct engine *engine, const char *kept_path, const char *gone_path, struct err *err)
{
    AUTO(top_done) struct top top = {0};
    AUTO_DISK_MERGED struct disk_merged *merged = NULL;

    return engine_call(engine, /* at_instant= */ false, io_do, &top, err) &&
           disk_merged_open(top.io, kept_path, gone_path, &merged, err) &&
           engine_call(engine, /* at_instant= */ true, merged_do, merged, err);
}

static bool append_do(struct core *core, void *context, struct err *err)
{
    struct top *top = context;

    return disk_top_append(core->disk, top->length, &top->offset, err);
}

static bool link_do(struct core *core, void *context, struct err *err)
{
    const struct top *top = context;

    (void)err;
    disk_top_link(core->disk, &top->relink);
    return true;
}

/* The image is read here while its writer makes it grow: its footer at the end may be missing, then the copy serves. */
static bool reparent(struct engine *engine, struct top *top, const char *parent_path, struct vhd *image, struct err *err)
{
    struct vhd_relink *relink = &top->relink;
    uint8_t footer[VHD_FOOTER_BYTES];

    if (!vhd_relink_make(image, parent_path, 0, relink, err))
        return false;
    top->length = relink->length;
    vhd_relink_done(relink);
    if (!engine_call(engine, /* at_instant= */ false, append_do, top, err) ||
        !vhd_relink_make(image, parent_path, top->offset, relink, err) ||
        !io_write(image->file, top->offset, relink->bytes, relink->length, err) || !io_sync(image->file, err) ||
        !engine_call(engine, /* at_instant= */ false, link_do, top, err) || !engine_flush(engine, err))
        return false;
    vhd_footer_encode(&relink->footer, footer);
    return io_write(image->file, 0, footer, sizeof footer, err) && io_sync(image->file, err);
}

bool engine_reparent_top(struct engine *engine, const char *parent_path, struct err *err)
{
    AUTO(top_done) struct top top = {0};
    AUTO_VHD struct vhd *image = NULL;

    return engine_call(engine, /* at_instant= */ false, io_do, &top, err) &&
           vhd_open(top.io, top.path, IO_WRITE | VHD_UNLOCKED, &image, err) &&
           reparent(engine, &top, parent_path, image, err);
}
