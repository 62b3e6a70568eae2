/* The host's qemu-img, run as a child: no shell, nothing of ours but what it needs. */
#pragma once

#include "image_format.h"
#include "progress.h"

/* An image as qemu-img is told of it. It guesses no format, and no file name is taken for anything else. */
struct qemu_img_file {
    const char *format; /* QEMU's name */
    /* One of three: */
    int fd;           /* >= 0: this open file alone, whatever its content says of others */
    const char *path; /* a file by its absolute path, and what it names */
    const char *nbd;  /* the URI of a server, which has it open */
};
#define QEMU_IMG_NO_FD (-1)

/* Its path, owned. ERR_QEMU if there is none, with the package that it is in. */
bool qemu_img_find(char **ret_program, struct err *err) MUST_CHECK;

/* What qemu-img says of an image. */
struct qemu_img_info {
    uint64_t size_bytes; /* of the disk in it */
    bool names_others;   /* backing file, data file, extents */
};
bool qemu_img_info(const char *program, const struct qemu_img_file *file, const struct progress *progress,
                   struct qemu_img_info *ret_info, struct err *err) MUST_CHECK;

/* Writes what from holds to to. A file at to is made anew; a server must be empty and as large. Progress is
 * told in parts of total_bytes. ERR_QEMU with what it said if it fails, ERR_NO_SPACE if that is why. */
bool qemu_img_convert(const char *program, const struct qemu_img_file *from, const struct qemu_img_file *to,
                      uint64_t total_bytes, const struct progress *progress, struct err *err) MUST_CHECK;
