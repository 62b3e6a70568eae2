/* The image formats that a disk's content can be converted from and to, and how a file tells its own. */
#pragma once

#include "io.h"

enum image_format {
    IMAGE_UNKNOWN,
    IMAGE_VHD,     /* as a source: any VHD, with the chain below it */
    IMAGE_DYNAMIC, /* as targets: a VHD without a parent */
    IMAGE_FIXED,
    IMAGE_RAW,
    /* Those of others, by way of qemu-img: */
    IMAGE_QCOW2,
    IMAGE_VMDK,
    IMAGE_VDI,
    IMAGE_VHDX,
};

const char *image_format_name(enum image_format format); /* also QEMU's name, for those of others */
bool image_format_is_foreign(enum image_format format);

/* By name, as users give it; IMAGE_UNKNOWN if it is none that can be converted from, or to. */
enum image_format image_source_by_name(const char *name);
enum image_format image_target_by_name(const char *name);
/* "vhd, raw, ...": literals. */
const char *image_source_names(void);
const char *image_target_names(void);

/* What the file name's end promises; IMAGE_UNKNOWN if nothing. */
enum image_format image_source_of_path(const char *path);
enum image_format image_target_of_path(const char *path);

/* What the file is by its content. What is no known format is what its name promises (and opening it tells
 * what is wrong with it), else raw. ERR_UNSUPPORTED for known formats that are not converted; ERR_INVALID if
 * it is no regular file, or is two things at once and its name tells neither. */
bool image_format_detect(const struct io *io, const char *path, enum image_format *ret_format,
                         struct err *err) MUST_CHECK;
