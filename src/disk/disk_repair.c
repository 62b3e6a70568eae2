#include "disk_check.h"

#include <stdio.h>

struct repair {
    disk_repair_fn *done;
    void *context;
};

static bool locked_open(const struct io *io, const char *path, struct vhd **ret_vhd, struct err *err)
{
    AUTO_VHD struct vhd *vhd = NULL;

    if (!vhd_open(io, path, IO_WRITE, &vhd, err))
        return false;
    *ret_vhd = TAKE(vhd);
    return true;
}

/* The copy served: all that the image's structures name stays, and the footer comes behind it. Where a table
 * entry makes no sense the end is not known, and nothing is cut off. */
static bool repair_end(const struct vhd *vhd, const struct repair *repair, struct err *err)
{
    uint64_t end;
    char text[120];

    if (!vhd_end_bytes(vhd, &end, err)) {
        bool damaged = err->code == ERR_CORRUPT || err->code == ERR_UNSUPPORTED;
        return damaged; /* the check will tell of it */
    }
    if (!io_truncate(vhd->file, end, err) ||
        !io_write(vhd->file, end, vhd->footer_bytes, VHD_FOOTER_BYTES, err) || !io_sync(vhd->file, err))
        return false;
    if (vhd->file_bytes > end + VHD_FOOTER_BYTES) {
        snprintf(text, sizeof text, "what a crash left behind the end was cut off: %llu bytes",
                 (unsigned long long)(vhd->file_bytes - end - VHD_FOOTER_BYTES));
        repair->done(repair->context, text);
    }
    repair->done(repair->context, "the footer at the end was written again from its copy at the start");
    return true;
}

static bool repair_footers(const struct vhd *vhd, const struct repair *repair, struct err *err)
{
    bool changed;

    if (vhd->needs_repair)
        return repair_end(vhd, repair, err);
    if (!vhd_settle(vhd, &changed, err))
        return false;
    if (changed)
        repair->done(repair->context, "the copy of the footer at the start was written again from the end's");
    return true;
}

bool disk_repair(const struct io *io, const char *path, disk_repair_fn *done, disk_fault_fn *report,
                 void *context, const struct progress *progress, struct err *err)
{
    struct repair repair = {.done = done, .context = context};
    AUTO_VHD struct vhd *vhd = NULL;

    if (!locked_open(io, path, &vhd, err) || !repair_footers(vhd, &repair, err))
        return false;
    vhd_close(TAKE(vhd));
    return vhd_open(io, path, IO_READ_ONLY, &vhd, err) &&
           disk_check_image(vhd, /* structures_only= */ false, report, context, progress, err);
}
