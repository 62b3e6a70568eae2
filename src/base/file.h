/* Whole files and paths, on top of the I/O seam. */
#pragma once

#include "buf.h"
#include "io.h"

/* Reads a whole file; more than limit bytes is ERR_CORRUPT. buf must be empty and is the caller's to free. */
bool file_read_all(const struct io *io, const char *path, size_t limit, struct buf *ret_buf,
                   struct err *err) MUST_CHECK;
/* Writes path as a whole: beside it under a name of its own, made durable, renamed over it, the directory
 * synced. At every instant path is the old file or the new one. A failure of the directory sync after the
 * rename is told by *ret_renamed = true with a false return: the outcome on the disk is then unknown. */
bool file_replace(const struct io *io, const char *path, const void *bytes, size_t length,
                  bool *ret_renamed, struct err *err) MUST_CHECK;
/* The suffix of the files that file_replace() works in; one that a crash left is garbage. */
#define FILE_TEMPORARY_SUFFIX ".tmp~"

/* Owned strings, NULL when out of memory. */
char *path_join(const char *dir, const char *name);
char *path_dir(const char *path);        /* "." if path has no slash */
const char *path_base(const char *path); /* inside path */
/* The path as absolute, without `.`, `..` and doubled slashes, by text alone. NULL also if there is no
 * working directory. */
char *path_absolute(const char *path);
/* The path as absolute and otherwise as it is: a `..` behind a symbolic link keeps its meaning. */
char *path_rooted(const char *path);
/* How to reach the absolute path `to` from the absolute directory `dir`: always relative. */
char *path_relative(const char *dir, const char *to);
/* Does the absolute, clean path lie in the absolute, clean directory? */
bool path_is_inside(const char *path, const char *dir);
/* As many open files as the system allows: a chain has one for each of its layers. */
void open_files_raise(void);
/* mkdir with all that lead to it, 0700, for our own homes, durable. What exists is left as it is. */
bool dir_make_all(const struct io *io, const char *path, struct err *err) MUST_CHECK;
/* A new folder that nobody else can enter, in $TMPDIR if a socket's name fits in there, else in /tmp. Owned. */
bool dir_make_private(char **ret_dir, struct err *err) MUST_CHECK;
