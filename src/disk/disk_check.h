/* One image of a check, for the tools that look at an image before they change it or behind that. */
#pragma once

#include "disk_tools.h"

/* disk_check() of one image, its parents aside. structures_only: neither bitmaps nor data are read. */
bool disk_check_image(const struct vhd *vhd, bool structures_only, disk_fault_fn *report, void *context,
                      const struct progress *progress, struct err *err) MUST_CHECK;
