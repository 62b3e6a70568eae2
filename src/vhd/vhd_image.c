/* Opening an image: footer, copy of the footer, dynamic header. */
#include "vhd.h"

#include "bytes.h"
#include "file.h"
#include "vhd_bitmap.h"

#include <stdlib.h>
#include <string.h>

char *vhd_id_format(const unsigned char id[static VHD_ID_SIZE], char text[static 2 * VHD_ID_SIZE + 1])
{
    static const char DIGITS[] = "0123456789abcdef";

    for (size_t i = 0; i < VHD_ID_SIZE; i++) {
        text[2 * i] = DIGITS[id[i] >> 4];
        text[2 * i + 1] = DIGITS[id[i] & 15];
    }
    text[2 * VHD_ID_SIZE] = '\0';
    return text;
}

const char *vhd_type_name(enum vhd_type type)
{
    return type == VHD_FIXED ? "fixed" : type == VHD_DYNAMIC ? "dynamic" : "differencing";
}

/* The footer in the last 512 bytes, or in the last 511. On failure err is about the first. */
static bool read_trailer(struct vhd *vhd, struct err *err)
{
    uint8_t bytes[VHD_FOOTER_BYTES + 1] = {0};
    struct err ignored;

    if (vhd->file_bytes < VHD_FOOTER_BYTES)
        return err_set(err, ERR_CORRUPT, "no VHD: only %llu bytes", (unsigned long long)vhd->file_bytes);
    if (!io_read(vhd->file, vhd->file_bytes - VHD_FOOTER_BYTES, bytes, VHD_FOOTER_BYTES, err))
        return false;
    if (vhd_footer_decode(bytes, VHD_FOOTER_BYTES, &vhd->footer, err)) {
        vhd->trailer_bytes = VHD_FOOTER_BYTES;
        memcpy(vhd->footer_bytes, bytes, VHD_FOOTER_BYTES);
    } else if (vhd_footer_decode(bytes + 1, VHD_FOOTER_BYTES - 1, &vhd->footer, &ignored)) {
        vhd->trailer_bytes = VHD_FOOTER_BYTES - 1;
        memcpy(vhd->footer_bytes, bytes + 1, VHD_FOOTER_BYTES);
    } else {
        return false;
    }
    return true;
}

/* Only dynamic and differencing images have one; at the start of a fixed one is the guest's data. */
static bool read_copy(const struct vhd *vhd, struct vhd_footer *ret_footer,
                      uint8_t bytes[static VHD_FOOTER_BYTES], struct err *err)
{
    struct vhd_footer footer;

    if (!io_read(vhd->file, 0, bytes, VHD_FOOTER_BYTES, err) ||
        !vhd_footer_decode(bytes, VHD_FOOTER_BYTES, &footer, err))
        return false;
    if (footer.type == VHD_FIXED)
        return err_set(err, ERR_CORRUPT, "the footer at the end is missing");
    *ret_footer = footer;
    return true;
}

/* The end of the file holds a guest's data after a crash at a bad moment, and a guest can write there what
 * looks like a footer. The copy at the start is out of its reach: where both are valid but of different
 * images, the copy counts. */
static bool read_footer(struct vhd *vhd, struct err *err)
{
    struct vhd_footer copy;
    uint8_t bytes[VHD_FOOTER_BYTES];
    struct err copy_err;
    bool at_end = read_trailer(vhd, err);

    if (!at_end && err->code != ERR_CORRUPT)
        return false;
    if (at_end && vhd->footer.type == VHD_FIXED)
        return true;
    if (vhd->file_bytes < VHD_FOOTER_BYTES)
        return false;
    if (!read_copy(vhd, &copy, bytes, &copy_err)) {
        if (copy_err.code == ERR_CORRUPT || copy_err.code == ERR_UNSUPPORTED)
            return at_end;
        *err = copy_err;
        return false;
    }
    if (at_end && memcmp(copy.id, vhd->footer.id, sizeof copy.id) == 0)
        return true;
    vhd->footer = copy;
    memcpy(vhd->footer_bytes, bytes, sizeof bytes);
    vhd->trailer_bytes = 0;
    vhd->needs_repair = true;
    return true;
}

static bool check_fixed(const struct vhd *vhd, struct err *err)
{
    if (vhd->footer.current_bytes + vhd->trailer_bytes > vhd->file_bytes)
        return err_set(err, ERR_CORRUPT, "a fixed image of %llu bytes in a file of only %llu",
                       (unsigned long long)vhd->footer.current_bytes, (unsigned long long)vhd->file_bytes);
    return true;
}

static bool check_table(struct vhd *vhd, struct err *err)
{
    const struct vhd_header *header = &vhd->header;
    uint64_t blocks = div_round_up(vhd->size_bytes, header->block_bytes);
    uint64_t end;

    if (header->table_entries < blocks)
        return err_set(err, ERR_CORRUPT, "dynamic header: a BAT of %u entries for %llu blocks",
                       header->table_entries, (unsigned long long)blocks);
    if (header->table_entries > VHD_MAX_TABLE_ENTRIES)
        return err_set(err, ERR_UNSUPPORTED, "dynamic header: a BAT of %u entries", header->table_entries);
    if (header->table_offset < VHD_FOOTER_BYTES || header->table_offset % VHD_SECTOR != 0 ||
        !add_u64(header->table_offset, (uint64_t)header->table_entries * 4, &end) || end > vhd->file_bytes)
        return err_set(err, ERR_CORRUPT, "dynamic header: a BAT of %u entries at %llu, the file ends at %llu",
                       header->table_entries, (unsigned long long)header->table_offset,
                       (unsigned long long)vhd->file_bytes);
    vhd->block_count = (uint32_t)blocks;
    return true;
}

static bool read_header(struct vhd *vhd, struct err *err)
{
    uint8_t bytes[VHD_HEADER_BYTES];
    uint64_t end;

    if (!add_u64(vhd->footer.data_offset, VHD_HEADER_BYTES, &end) || end > vhd->file_bytes)
        return err_set(err, ERR_CORRUPT, "footer: a dynamic header at %llu, the file ends at %llu",
                       (unsigned long long)vhd->footer.data_offset, (unsigned long long)vhd->file_bytes);
    if (!io_read(vhd->file, vhd->footer.data_offset, bytes, sizeof bytes, err) ||
        !vhd_header_decode(bytes, &vhd->header, err) || !check_table(vhd, err))
        return false;
    vhd->block_bytes = vhd->header.block_bytes;
    vhd->block_shift = (uint32_t)__builtin_ctz(vhd->block_bytes);
    vhd->bitmap_bytes = vhd_bitmap_bytes(vhd->block_bytes);
    return true;
}

static bool read_all(struct vhd *vhd, struct err *err)
{
    struct io_stat stat;

    if (!io_stat_file(vhd->file, &stat, err))
        return false;
    vhd->file_bytes = stat.size_bytes;
    vhd->device = stat.device;
    vhd->inode = stat.inode;
    vhd->mtime_seconds = stat.mtime_seconds;
    if (!read_footer(vhd, err))
        return false;
    vhd->type = (enum vhd_type)vhd->footer.type;
    vhd->size_bytes = vhd_footer_size_bytes(&vhd->footer);
    return vhd->type == VHD_FIXED ? check_fixed(vhd, err) : read_header(vhd, err);
}

bool vhd_open(const struct io *io, const char *path, unsigned flags, struct vhd **ret_vhd, struct err *err)
{
    AUTO_VHD struct vhd *vhd = calloc(1, sizeof *vhd);

    if (!vhd || !(vhd->path = path_absolute(path)))
        return err_oom(err);
    enum io_lock_kind kind = flags & VHD_BORROWED ? IO_LOCK_BORROW : IO_LOCK_WRITE;
    /* Before anything is read: what is read must stay so. */
    if (!io_open(io, vhd->path, flags & ~(VHD_UNLOCKED | VHD_BORROWED), &vhd->file, err) ||
        ((flags & IO_WRITE) && !(flags & VHD_UNLOCKED) && !io_lock(vhd->file, kind, err)))
        return false;
    if (!read_all(vhd, err))
        return err->code == ERR_IO ? false : err_prefix(err, "%s", vhd->path);
    *ret_vhd = TAKE(vhd);
    return true;
}

void vhd_close(struct vhd *vhd)
{
    if (!vhd)
        return;
    io_close(vhd->file);
    free(vhd->path);
    free(vhd);
}
