/* VHD image files, one at a time: create, open, and the metadata that a disk keeps in memory.
 *
 * Format: "Virtual Hard Disk Image Format Specification" 1.0 (2006); docs/vhd.md has the byte tables and what
 * other writers do. All sizes and offsets are bytes unless a name says sector (512 bytes) or block.
 * Not thread-safe: one thread owns an image. Never prints, logs above debug, or exits. */
#pragma once

#include "err.h"
#include "io.h"
#include "vhd_footer.h"
#include "vhd_header.h"

#include <stdint.h>

#define VHD_SECTOR              512U
#define VHD_ID_SIZE             16
#define VHD_MAX_SIZE_BYTES      (2040ULL << 30) /* the BAT counts sectors in 32 bits */
#define VHD_DEFAULT_BLOCK_BYTES (2U << 20)
#define VHD_BAT_UNALLOCATED     0xFFFFFFFFU
/* A BAT of more is refused: 32 GiB in blocks of 512 bytes would need it, and nobody writes such images. */
#define VHD_MAX_TABLE_ENTRIES (64U << 20)
/* Of the data of new blocks in the file, for disks with such sectors. */
#define VHD_DATA_ALIGNMENT 4096U

enum vhd_type { VHD_FIXED = 2, VHD_DYNAMIC = 3, VHD_DIFFERENCING = 4 };

/* --- create --- */
struct vhd_create_options {
    enum vhd_type type;
    uint64_t size_bytes;  /* multiple of 512; for a differencing image 0 means the parent's */
    uint32_t block_bytes; /* power of two from 512 to 2 GiB (some programs read 2 MiB only); 0: 2 MiB; not for
                             fixed */
    const char *parent_path; /* differencing only: how we reach the parent now */
};

/* Creates path (must not exist; mode 0600) complete and durable: data, directory entry's file sync included,
 * the directory itself not (the caller syncs it once for many). On failure nothing is left behind.
 * Errors: ERR_INVALID (size, block size, a size that such blocks cannot hold), ERR_EXISTS, ERR_NO_SPACE, ERR_IO, and those of opening the parent.
 */
bool vhd_create(const struct io *io, const char *path, const struct vhd_create_options *options,
                struct err *err) MUST_CHECK;

/* Makes parent_path the parent of the differencing image at path: its id and its place, as they are now.
 * Nothing is written over but, at last, the footers: a new header with new locators goes behind all else, so
 * that at every instant the image has either its old parent or the new one, whole. The caller answers for the
 * content. Durable on return. Errors: ERR_INVALID (no differencing image, the image itself), and those of
 * opening either. */
bool vhd_reparent(const struct io *io, const char *path, const char *parent_path, struct err *err) MUST_CHECK;

/* Takes all that a differencing image has itself out of it, for one that reads the same without: its parent has every sector of it,
 * durable. The caller answers for that. Whatever ends it, the image is whole and reads the same. Durable on return. Nobody may
 * write to it; who has it open for reading reads what he read. The file keeps its size. */
bool vhd_empty(const struct io *io, const char *path, struct err *err) MUST_CHECK;
/* ERR_STATE if the differencing image has sectors of its own, zeros among them. */
bool vhd_check_empty(const struct io *io, const char *path, struct err *err) MUST_CHECK;

/* Makes an image larger; what is new reads as zeros. At every instant it has the old size or the new one, and
 * whoever is cut off begins again: the new size, once there, stays. Nobody may have it open. Durable on
 * return. Errors: ERR_INVALID (smaller than it is, no multiple of 512, past 2040 GiB), ERR_STATE (the image of
 * a machine in a saved state), ERR_NO_SPACE (a fixed image takes its space at once), ERR_CORRUPT, ERR_IO. */
bool vhd_resize(const struct io *io, const char *path, uint64_t size_bytes, struct err *err) MUST_CHECK;

/* --- open --- */
/* An open image. To be read, not changed, outside src/vhd. */
struct vhd {
    struct io_file *file; /* owned */
    char *path;           /* absolute and clean; owned */
    struct vhd_footer footer;
    uint8_t footer_bytes[VHD_FOOTER_BYTES]; /* as found; what is written when the file has grown */
    enum vhd_type type;
    uint64_t size_bytes; /* as a guest sees it: vhd_footer_size_bytes() */
    uint64_t file_bytes; /* when it was opened, as are: */
    uint64_t device, inode;
    int64_t mtime_seconds;
    unsigned trailer_bytes; /* of the footer at the end: 512, 511, or 0 if it is missing or damaged */
    bool needs_repair; /* the footer at the end is missing, damaged, or another image's: the copy served */
    /* Zero for a fixed image: */
    struct vhd_header header;
    uint32_t block_bytes, block_shift; /* block_bytes == 1 << block_shift */
    uint32_t bitmap_bytes;
    uint32_t block_count; /* blocks of the virtual size; the BAT has at least as many entries */
};

/* flags: IO_READ_ONLY, or IO_WRITE, which excludes all other writers from before anything is read until it is closed; with
 * VHD_UNLOCKED it does not: who opens it has a lock elsewhere; with VHD_BORROWED those are excluded but for who lends it (io_lock).
 * Errors name the file: ERR_CORRUPT, ERR_UNSUPPORTED, ERR_NOT_FOUND, ERR_BUSY, ERR_IO. */
#define VHD_UNLOCKED 0x100U
#define VHD_BORROWED 0x200U
bool vhd_open(const struct io *io, const char *path, unsigned flags, struct vhd **ret_vhd,
              struct err *err) MUST_CHECK;
/* vhd_reparent() of a child that is open for writing. */
bool vhd_reparent_open(struct vhd *child, const char *parent_path, struct err *err) MUST_CHECK;

/* What another parent takes, for an image to which its writer goes on writing. In this order: the bytes lie at the offset that
 * they were made for, in room that the writer found, durable; the writer's next flush ends the file with the footer;
 * the copy at the start is written, durable. The content must be the same under both parents until then. */
struct vhd_relink {
    struct vhd_header header;
    struct vhd_footer footer;
    uint8_t *bytes; /* owned: the header, then what its locators name */
    size_t length;  /* the same for any offset */
};
bool vhd_relink_make(const struct vhd *child, const char *parent_path, uint64_t offset, struct vhd_relink *ret_relink,
                     struct err *err) MUST_CHECK;
void vhd_relink_done(struct vhd_relink *relink);
void vhd_close(struct vhd *vhd); /* accepts NULL */
AUTO_DEFINE(auto_vhd_close, struct vhd, vhd_close)
#define AUTO_VHD AUTO(auto_vhd_close)

/* Where footers were switched (another parent, another size) and the power went before the copy at the start
 * was: brings the copy in line, durable. To be done before the file grows, since then the copy counts for a
 * while. The image is open for writing. *ret_changed: there was something to do. */
bool vhd_settle(const struct vhd *vhd, bool *ret_changed, struct err *err) MUST_CHECK;

/* Opens the parent of a differencing image, read-only. Tries the locators: relative, absolute, URL; then the
 * parent's name beside the child. The first one whose unique id is the one that the child names is it.
 * ERR_NOT_FOUND: none of them exists; ERR_MISMATCH: what is there has another id (both files and values
 * named). */
bool vhd_open_parent(const struct vhd *child, struct vhd **ret_parent, struct err *err) MUST_CHECK;

/* --- the block allocation table --- */
/* Calls each for every allocated entry, in order, having checked that its block lies in the file and behind
 * the metadata at its start: ERR_CORRUPT if not. Entries behind block_count are passed on too. each returns
 * false to end. */
typedef bool vhd_bat_each_fn(void *context, uint32_t block, uint32_t entry, struct err *err);
bool vhd_bat_each(const struct vhd *vhd, vhd_bat_each_fn *each, void *context, struct err *err) MUST_CHECK;

struct vhd_blocks {
    struct vhd_block {
        uint32_t block, entry;
    } *items; /* owned */
    size_t count, capacity;
};
/* Adds the allocated entries of the blocks before end_block, checked in the same way. On failure those stay that were found. */
bool vhd_bat_collect(const struct vhd *vhd, uint32_t end_block, struct vhd_blocks *blocks, struct err *err) MUST_CHECK;
void vhd_blocks_done(struct vhd_blocks *blocks);
#define AUTO_VHD_BLOCKS AUTO(vhd_blocks_done)
/* The table as it is in the file, padded with ones to a sector. *ret_bytes is owned. Nothing in it is
 * checked. */
bool vhd_bat_read(const struct vhd *vhd, uint8_t **ret_bytes, size_t *ret_length, struct err *err) MUST_CHECK;
uint64_t vhd_bat_file_bytes(const struct vhd *vhd); /* padded */
/* The largest disk whose blocks, all of them written, have entries in a BAT and places in the file that those
 * can name. */
uint64_t vhd_largest_bytes(uint32_t block_bytes);
/* ERR_INVALID if size_bytes is more than that. */
bool vhd_blocks_fit(uint64_t size_bytes, uint32_t block_bytes, struct err *err) MUST_CHECK;

/* --- blocks --- */
static inline uint64_t vhd_bitmap_offset(uint32_t entry)
{
    return (uint64_t)entry * VHD_SECTOR;
}
static inline uint64_t vhd_data_offset(const struct vhd *vhd, uint32_t entry)
{
    return (uint64_t)entry * VHD_SECTOR + vhd->bitmap_bytes;
}
/* bits holds vhd->bitmap_bytes. */
bool vhd_bitmap_read(const struct vhd *vhd, uint32_t entry, uint8_t *bits, struct err *err) MUST_CHECK;

/* The end of everything that the image's structures name, the footer at the end aside: where that belongs. */
bool vhd_end_bytes(const struct vhd *vhd, uint64_t *ret_end, struct err *err) MUST_CHECK;

/* `8f1c...`: 32 hexadecimal digits, for messages. */
char *vhd_id_format(const unsigned char id[static VHD_ID_SIZE], char text[static 2 * VHD_ID_SIZE + 1]);
const char *vhd_type_name(enum vhd_type type); /* "fixed", "dynamic", "differencing" */
