/* Writing: room in the top first, then the data, then the bits. */
#include "disk_private.h"

#include "bytes.h"

/* A stretch of the range inside one block of the top. */
struct stretch {
    uint32_t block;
    uint32_t first, end; /* sectors in the block */
    uint64_t length;     /* bytes */
};

static struct stretch first_stretch(const struct vhd *vhd, uint64_t offset, uint64_t length)
{
    uint64_t within = offset & (vhd->block_bytes - 1);
    uint64_t part = min_u64(length, vhd->block_bytes - within);

    return (struct stretch){.block = (uint32_t)(offset >> vhd->block_shift),
                            .first = (uint32_t)(within / VHD_SECTOR),
                            .end = (uint32_t)((within + part) / VHD_SECTOR),
                            .length = part};
}

static bool check_write(const struct disk *disk, uint64_t offset, uint64_t length, struct err *err)
{
    if (!disk->writable)
        return err_set(err, ERR_INVALID, "%s: open for reading only", disk_top(disk)->vhd->path);
    return disk_range_check(disk, offset, length, err);
}

bool disk_block_ensure(struct disk *disk, uint32_t block, bool reserve, bool *ret_new, struct err *err)
{
    struct layer *top = disk_top(disk);
    const uint8_t *bits;

    *ret_new = layer_entry(top, block) == VHD_BAT_UNALLOCATED;
    if (!*ret_new)
        return layer_bitmap(top, block, &bits, err);
    if (!index_reserve(&disk->index, top->vhd->block_shift, 1, err) || !layer_allocate(top, block, reserve, err))
        return false;
    index_add(&disk->index, top->number, top->vhd->block_shift, block, layer_entry(top, block));
    return true;
}

bool disk_write_begin(struct disk *disk, uint64_t offset, uint64_t length, struct disk_piece *pieces,
                      size_t max, size_t *ret_count, struct err *err)
{
    struct layer *top = disk_top(disk);
    size_t count = 0;
    bool is_new;

    if (!check_write(disk, offset, length, err))
        return false;
    if (top->vhd->type == VHD_FIXED && length > 0 && max > 0) {
        pieces[count++] =
            (struct disk_piece){.file = top->vhd->file, .file_offset = offset, .length = length};
        length = 0;
    }
    while (length > 0 && count < max) {
        struct stretch stretch = first_stretch(top->vhd, offset, length);
        if (!disk_block_ensure(disk, stretch.block, /* reserve= */ true, &is_new, err))
            return false;
        uint64_t data = vhd_data_offset(top->vhd, layer_entry(top, stretch.block));
        pieces[count++] = (struct disk_piece){.file = top->vhd->file,
                                              .file_offset = data + (uint64_t)stretch.first * VHD_SECTOR,
                                              .length = stretch.length};
        offset += stretch.length;
        length -= stretch.length;
    }
    *ret_count = count;
    return true;
}

void disk_write_end(struct disk *disk, uint64_t offset, uint64_t length)
{
    struct layer *top = disk_top(disk);

    if (length > 0)
        top->writing->data_dirty = true;
    if (top->vhd->type == VHD_FIXED)
        return;
    while (length > 0) {
        struct stretch stretch = first_stretch(top->vhd, offset, length);
        layer_mark(top, stretch.block, stretch.first, stretch.end);
        offset += stretch.length;
        length -= stretch.length;
    }
}

#define PIECES 16

bool disk_write(struct disk *disk, uint64_t offset, const void *bytes, size_t length, struct err *err)
{
    const uint8_t *in = bytes;
    struct disk_piece pieces[PIECES];
    size_t count;

    do {
        uint64_t done = 0;
        if (!disk_write_begin(disk, offset, length, pieces, PIECES, &count, err))
            return false;
        for (size_t i = 0; i < count; i++) {
            if (!io_write(pieces[i].file, pieces[i].file_offset, in + done, (size_t)pieces[i].length, err))
                return false;
            done += pieces[i].length;
        }
        disk_write_end(disk, offset, done);
        in += done;
        offset += done;
        length -= (size_t)done;
    } while (length > 0);
    return true;
}

/* Does any of it come from a file, so that zeros must be written to hide it? */
static bool has_data(struct disk *disk, uint64_t offset, uint64_t length, bool *ret_data, struct err *err)
{
    enum disk_status_kind kind;
    uint64_t same;

    if (!disk_status(disk, offset, length, &kind, &same, err))
        return false;
    *ret_data = kind == DISK_DATA || same < length;
    return true;
}

static bool zero_stretch(struct disk *disk, uint64_t offset, const struct stretch *stretch,
                         struct disk_zero_piece *piece, size_t *count, struct err *err)
{
    struct layer *top = disk_top(disk);
    /* A block that is zeros as a whole needs no space for its data. */
    bool whole = stretch->length == top->vhd->block_bytes;
    bool is_new;

    if (!disk_block_ensure(disk, stretch->block, /* reserve= */ !whole, &is_new, err))
        return false;
    if (is_new) { /* it has zeros already */
        disk_write_end(disk, offset, stretch->length);
        return true;
    }
    uint64_t data = vhd_data_offset(top->vhd, layer_entry(top, stretch->block));
    *piece = (struct disk_zero_piece){.file = top->vhd->file,
                                      .file_offset = data + (uint64_t)stretch->first * VHD_SECTOR,
                                      .offset = offset,
                                      .length = stretch->length};
    ++*count;
    return true;
}

/* Looks at so many blocks in one call. */
#define ZERO_STEPS 64U

bool disk_zero_begin(struct disk *disk, uint64_t offset, uint64_t length, struct disk_zero_piece *pieces, size_t max,
                     size_t *ret_count, uint64_t *ret_covered, struct err *err)
{
    const struct vhd *vhd = disk_top(disk)->vhd;
    uint64_t covered = 0;
    size_t count = 0;

    if (!check_write(disk, offset, length, err))
        return false;
    if (vhd->type == VHD_FIXED && length > 0) {
        pieces[count++] = (struct disk_zero_piece){
            .file = vhd->file, .file_offset = offset, .offset = offset, .length = length};
        covered = length;
    }
    for (unsigned step = 0; covered < length && count < max && step < ZERO_STEPS; step++) {
        struct stretch stretch = first_stretch(vhd, offset + covered, length - covered);
        bool data;
        if (!has_data(disk, offset + covered, stretch.length, &data, err) ||
            (data && !zero_stretch(disk, offset + covered, &stretch, &pieces[count], &count, err)))
            return false;
        covered += stretch.length;
    }
    *ret_count = count;
    *ret_covered = covered;
    return true;
}

bool disk_zero(struct disk *disk, uint64_t offset, uint64_t length, struct err *err)
{
    struct disk_zero_piece pieces[PIECES];
    uint64_t covered;
    size_t count;

    do {
        if (!disk_zero_begin(disk, offset, length, pieces, PIECES, &count, &covered, err))
            return false;
        for (size_t i = 0; i < count; i++) {
            if (!io_zero(pieces[i].file, pieces[i].file_offset, pieces[i].length, err))
                return false;
            disk_write_end(disk, pieces[i].offset, pieces[i].length);
        }
        offset += covered;
        length -= covered;
    } while (length > 0);
    return true;
}
