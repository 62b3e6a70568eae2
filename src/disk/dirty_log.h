/* What of a layer that takes writes is in memory and not yet in its file: its block allocation table and the
 * sector bitmaps that were touched.
 *
 * With a directory to keep it in, that memory is a shared mapping of a file there, so that it outlives the
 * process: a write that was answered is found again after a kill -9, at no cost to the write. The directory is
 * on a file system that dies with the host (tmpfs), as it must, because after a power cut only what was flushed
 * counts. Nothing in it is ever taken back: entries are added and bits are set. So what a process that was
 * killed left behind is true at every instant, and put in place by adding it to what the file has
 * (dirty_log_replay), any number of times.
 *
 * The name in the directory is `DEVICE-INODE.dirty`, of the image. Whoever holds the image's lock for writing
 * owns it, and has a lock on it too, which ends with the process at once: the image's may outlive it for as long as
 * the kernel still works on what the process had asked of io_uring. So that no log is ever put into an image that has
 * been written by another since, or is another's at the same place, each writer leaves a mark of its own at the image (an
 * extended attribute, gone when the log goes); where the file system has none, the tables are compared alone. */
#pragma once

#include "vhd.h"

#define DIRTY_LOG_SUFFIX ".dirty"

struct dirty_header;

struct dirty_log {
    char *path; /* NULL: of this process alone */
    int fd;     /* -1: likewise */
    struct dirty_header *header;
    size_t map_bytes; /* of the whole mapping, from header on */
    int image_fd;     /* borrowed, for its mark; -1: none */
    uint8_t *bat;     /* as in the image: big-endian, padded with ones to bat_bytes */
    size_t bat_bytes;
    uint8_t *bits; /* block n's bitmap is at n * bitmap_bytes */
    uint32_t bitmap_bytes;
    uint64_t *has_space; /* a bit for each page of the bitmaps */
};

/* For a dynamic or differencing image that is open for writing; the table is read into it. dir NULL: memory of this
 * process. ERR_BUSY: there is one, which nobody has replayed. ERR_NO_SPACE: there is no room in dir. */
bool dirty_log_new(const char *dir, const struct vhd *vhd, struct dirty_log **ret_log,
                   struct err *err) MUST_CHECK;
/* The file stays, as after a kill. Accepts NULL. */
void dirty_log_free(struct dirty_log *log);
/* Nothing in it counts any more: all is in the image, or will never be read. What is in memory stays. */
void dirty_log_unlink(struct dirty_log *log);

/* To be asked before a block's bitmap is first touched: without room in the file system it would be a signal. */
bool dirty_log_reserve(struct dirty_log *log, uint32_t block, struct err *err) MUST_CHECK;
/* The image's data end there; to be told before a table entry names what lies before it. */
void dirty_log_set_end(struct dirty_log *log, uint64_t end_bytes);
void dirty_log_set_entry(struct dirty_log *log, uint32_t block, uint32_t entry);

/* If the directory has a log of the image at image_path whose process is gone: waits until the kernel has done what
 * that had asked for, puts the log in place, durable, and removes it. One of another boot, of another image that had the
 * same inode, or of an image that somebody else has written since, is removed alone. An image that its living writer has
 * open is left to him; one that others keep from being written now is ERR_BUSY. ERR_MISMATCH: the tables contradict each
 * other; both stay as they are. After a failed sync the log is gone. *ret_changed: the image was changed. */
bool dirty_log_replay(const struct io *io, const char *dir, const char *image_path, bool *ret_changed,
                      struct err *err) MUST_CHECK;
/* dirty_log_replay() for every file in the directory images_dir. One that does not exist is empty. */
bool dirty_log_replay_all(const struct io *io, const char *dir, const char *images_dir,
                          struct err *err) MUST_CHECK;

/* --- between dirty_log.c and dirty_replay.c --- */
#define DIRTY_MAGIC        "boughDL1"
#define DIRTY_HEADER_BYTES 8192U
#define DIRTY_BOOT_ID_SIZE 40U
#define DIRTY_MARK         "user.bough.writer"
#define DIRTY_MARK_SIZE    16U

/* Of the running kernel alone, hence in its own byte order. The magic is written last. */
struct dirty_header {
    char magic[8];
    char boot_id[DIRTY_BOOT_ID_SIZE];
    unsigned char image_id[VHD_ID_SIZE];
    unsigned char mark[DIRTY_MARK_SIZE];
    uint64_t has_mark; /* else the image's file system has none */
    uint64_t bat_bytes, block_count, bitmap_bytes;
    uint64_t end_bytes;
    char unused[DIRTY_HEADER_BYTES - 88 - VHD_ID_SIZE - DIRTY_MARK_SIZE];
};

bool dirty_boot_id(char ret_id[static DIRTY_BOOT_ID_SIZE], struct err *err) MUST_CHECK;
/* Owned; NULL when out of memory. */
char *dirty_log_path(const char *dir, uint64_t device, uint64_t inode);
/* Where in the file the table, and a block's bitmap, are. */
static inline uint64_t dirty_bits_offset(uint64_t bat_bytes)
{
    return DIRTY_HEADER_BYTES + (bat_bytes + 4095) / 4096 * 4096;
}
