/* How structures of an image that exists are replaced: never in place, but for single sectors.
 *
 *   1  the new structures, behind the footer at the end; sync
 *      (the file ends in no footer now: the copy at the start counts, with the old structures)
 *   2  the new footer behind them; sync
 *      (the footer at the end counts from here on, with the new structures)
 *   3  the copy at the start; sync
 * Where only the footer changes, 1 is left out and 2 writes over the footer at the end. */
#pragma once

#include "vhd.h"

#define VHD_SWITCH_ALIGNMENT 4096U

/* Where new structures may begin. Without a footer at the end, what lies behind all that the image names is a
 * crash's, and is cut off here. */
bool vhd_switch_begin(const struct vhd *vhd, uint64_t *ret_offset, struct err *err) MUST_CHECK;
/* Where the footer at the end belongs if nothing is added; cuts off as vhd_switch_begin(). */
bool vhd_switch_end(const struct vhd *vhd, uint64_t *ret_end, struct err *err) MUST_CHECK;
/* Steps 2 and 3; end is a multiple of 512. */
bool vhd_switch_footers(const struct vhd *vhd, const struct vhd_footer *footer, uint64_t end,
                        struct err *err) MUST_CHECK;
