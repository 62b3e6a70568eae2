#include "vhd_switch.h"

#include "bytes.h"

#include <string.h>

bool vhd_switch_end(const struct vhd *vhd, uint64_t *ret_end, struct err *err)
{
    uint64_t end;

    if (!vhd_end_bytes(vhd, &end, err))
        return false;
    if (vhd->trailer_bytes > 0)
        end = vhd->file_bytes - vhd->trailer_bytes;
    else if (!io_truncate(vhd->file, end, err))
        return false;
    *ret_end = end;
    return true;
}

bool vhd_switch_begin(const struct vhd *vhd, uint64_t *ret_offset, struct err *err)
{
    uint64_t end;

    if (!vhd_switch_end(vhd, &end, err))
        return false;
    *ret_offset = round_up(end + VHD_FOOTER_BYTES, VHD_SWITCH_ALIGNMENT);
    return true;
}

bool vhd_switch_footers(const struct vhd *vhd, const struct vhd_footer *footer, uint64_t end, struct err *err)
{
    uint8_t bytes[VHD_FOOTER_BYTES];

    vhd_footer_encode(footer, bytes);
    return io_write(vhd->file, end, bytes, sizeof bytes, err) && io_sync(vhd->file, err) &&
           io_write(vhd->file, 0, bytes, sizeof bytes, err) && io_sync(vhd->file, err);
}

bool vhd_settle(const struct vhd *vhd, bool *ret_changed, struct err *err)
{
    uint8_t copy[VHD_FOOTER_BYTES];

    *ret_changed = false;
    if (vhd->type == VHD_FIXED || vhd->trailer_bytes == 0)
        return true;
    if (!io_read(vhd->file, 0, copy, sizeof copy, err))
        return false;
    if (memcmp(copy, vhd->footer_bytes, vhd->trailer_bytes) == 0)
        return true;
    *ret_changed = true;
    return io_write(vhd->file, 0, vhd->footer_bytes, sizeof copy, err) && io_sync(vhd->file, err);
}
