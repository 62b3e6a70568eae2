/* Small pictures of a screen. */
#pragma once

#include "err.h"

/* Neither side is longer than this; what is smaller stays as it is, what is larger keeps its proportions. */
#define THUMBNAIL_MAX_WIDTH  320
#define THUMBNAIL_MAX_HEIGHT 240

/* From the PPM (P6, 255 values) at the start of ppm_fd, a regular file, to a PNG at png_path, durable and whole or not at all. What is
 * in ppm_fd may be anything: ERR_CORRUPT if it is no such picture, or a screen that no machine has. */
bool thumbnail_write(int ppm_fd, const char *png_path, struct err *err) MUST_CHECK;
