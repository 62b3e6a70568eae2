/* New images, laid out as Windows 10 does:
 *
 *   fixed         data, footer
 *   dynamic       copy of the footer, header at 0x200, BAT at 0x600, footer
 *   differencing  copy of the footer, header at 0x200, W2ku at 0x1000 (4 KiB), BAT, W2ru on a multiple of 4
 * KiB (64 KiB), footer Blocks come later: their data on a multiple of 4 KiB, the bitmap right before it. */
#include "vhd.h"

#include "bytes.h"
#include "file.h"
#include "guid.h"
#include "vhd_link.h"

#include <stdlib.h>
#include <string.h>
#include <time.h>

#define HEADER_OFFSET     0x200U
#define DYNAMIC_BAT       0x600U
#define W2KU_OFFSET       0x1000U
#define PAGE              4096U
#define W2RU_SPACE        VHD_LINK_MAX_BYTES
#define CREATOR_WINDOWS10 0x000A0000U
#define SYSTEM_WINDOWS    0x5769326BU /* "Wi2k" */

/* All that is known before a byte is written. */
struct plan {
    struct vhd_footer footer;
    struct vhd_header header;
    struct vhd_link link;
    uint64_t end_bytes; /* where the footer goes */
};

static void plan_done(struct plan *plan)
{
    vhd_link_done(&plan->link);
}

static bool check_options(const struct vhd_create_options *options, struct err *err)
{
    uint64_t size = options->size_bytes;
    uint32_t block = options->block_bytes;

    if (options->type < VHD_FIXED || options->type > VHD_DIFFERENCING)
        return err_set(err, ERR_INVALID, "disk type %d", (int)options->type);
    if ((options->type == VHD_DIFFERENCING) != (options->parent_path != NULL))
        return err_set(err, ERR_INVALID, "a differencing image needs a parent, others have none");
    if ((size == 0 && options->type != VHD_DIFFERENCING) || size % VHD_SECTOR != 0 ||
        size > VHD_MAX_SIZE_BYTES)
        return err_set(err, ERR_INVALID, "a size of %llu bytes: a multiple of 512 up to 2040 GiB is possible",
                       (unsigned long long)size);
    if (block != 0 && (!is_power_of_two(block) || block < VHD_SECTOR))
        return err_set(err, ERR_INVALID,
                       "a block size of %u bytes: a power of two from 512 to 2 GiB is possible", block);
    return true;
}

static struct vhd_footer new_footer(enum vhd_type type, uint64_t size_bytes)
{
    struct vhd_footer footer = {
        .data_offset = type == VHD_FIXED ? VHD_NO_OFFSET : HEADER_OFFSET,
        .timestamp = (uint32_t)(time(NULL) - VHD_EPOCH),
        .creator_app = {'w', 'i', 'n', ' '},
        .creator_version = CREATOR_WINDOWS10,
        .creator_system = SYSTEM_WINDOWS,
        .original_bytes = size_bytes,
        .current_bytes = size_bytes,
        .geometry = vhd_geometry_of(size_bytes),
        .type = type,
    };

    guid_new_bytes(footer.id);
    return footer;
}

static void place(struct plan *plan)
{
    struct vhd_header *header = &plan->header;
    uint64_t bat_bytes = round_up((uint64_t)header->table_entries * 4, VHD_SECTOR);

    if (plan->footer.type == VHD_DYNAMIC) {
        header->table_offset = DYNAMIC_BAT;
        plan->end_bytes = DYNAMIC_BAT + bat_bytes;
        return;
    }
    uint64_t w2ku_space = round_up(max_u64(plan->link.w2ku.length, 1), PAGE);
    header->table_offset = W2KU_OFFSET + w2ku_space;
    uint64_t w2ru = round_up(header->table_offset + bat_bytes, PAGE);
    vhd_link_place(&plan->link, header, W2KU_OFFSET, w2ku_space, w2ru, W2RU_SPACE);
    plan->end_bytes = w2ru + W2RU_SPACE;
}

static bool make_plan(const struct io *io, const char *path, const struct vhd_create_options *options,
                      struct plan *plan, struct err *err)
{
    AUTO_VHD struct vhd *parent = NULL;
    uint64_t size = options->size_bytes;

    if (!check_options(options, err))
        return err_prefix(err, "%s", path);
    if (options->parent_path && !vhd_open(io, options->parent_path, IO_READ_ONLY, &parent, err))
        return err_prefix(err, "parent of %s", path);
    if (parent && size == 0)
        size = parent->size_bytes;
    plan->footer = new_footer(options->type, size);
    plan->end_bytes = size;
    if (options->type == VHD_FIXED)
        return true;
    plan->header.block_bytes = options->block_bytes ? options->block_bytes : VHD_DEFAULT_BLOCK_BYTES;
    if (!vhd_blocks_fit(size, plan->header.block_bytes, err))
        return err_prefix(err, "%s", path);
    plan->header.table_entries = (uint32_t)div_round_up(size, plan->header.block_bytes);
    if (parent && !vhd_link_make(path, parent, &plan->header, &plan->link, err))
        return false;
    place(plan);
    return true;
}

static bool write_bat(struct io_file *file, const struct vhd_header *header, struct err *err)
{
    size_t length = (size_t)round_up((uint64_t)header->table_entries * 4, VHD_SECTOR);
    AUTO_FREE uint8_t *bytes = malloc(length);

    if (!bytes)
        return err_oom(err);
    memset(bytes, 0xFF, length);
    return io_write(file, header->table_offset, bytes, length, err);
}

static bool write_metadata(struct io_file *file, const struct plan *plan, const uint8_t *footer,
                           struct err *err)
{
    uint8_t head[VHD_FOOTER_BYTES + VHD_HEADER_BYTES];

    memcpy(head, footer, VHD_FOOTER_BYTES);
    vhd_header_encode(&plan->header, head + VHD_FOOTER_BYTES);
    if (!io_write(file, 0, head, sizeof head, err) || !write_bat(file, &plan->header, err))
        return false;
    if (plan->footer.type != VHD_DIFFERENCING)
        return true;
    return vhd_link_write(&plan->link, &plan->header, file, err);
}

static bool write_image(struct io_file *file, const struct plan *plan, struct err *err)
{
    uint8_t footer[VHD_FOOTER_BYTES];

    vhd_footer_encode(&plan->footer, footer);
    if (plan->footer.type == VHD_FIXED) {
        if (!io_allocate(file, 0, plan->end_bytes + sizeof footer, err))
            return false;
    } else if (!write_metadata(file, plan, footer, err)) {
        return false;
    }
    return io_write(file, plan->end_bytes, footer, sizeof footer, err) && io_sync(file, err);
}

bool vhd_create(const struct io *io, const char *path, const struct vhd_create_options *options,
                struct err *err)
{
    AUTO(plan_done) struct plan plan = {0};
    AUTO_IO struct io_file *file = NULL;
    struct err ignored;

    if (!make_plan(io, path, options, &plan, err) || !io_open(io, path, IO_CREATE, &file, err))
        return false;
    if (write_image(file, &plan, err))
        return true;
    (void)!io_unlink(io, path, &ignored);
    return false;
}
