#include "disk_tools.h"

#include "bytes.h"
#include "disk_check.h"
#include "disk_private.h"
#include "vhd_bitmap.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct checking {
    const struct vhd *vhd;
    bool structures_only; /* bitmaps and data are not read */
    disk_fault_fn *report;
    void *context;
    const struct progress *progress;
};

struct extent {
    uint64_t start, end;
    uint32_t block; /* UINT32_MAX: no block, but a part of the metadata */
};

static void tell(const struct checking *c, enum disk_fault_kind kind, bool harmless, const char *format, ...)
    __attribute__((format(printf, 4, 5)));
static void tell(const struct checking *c, enum disk_fault_kind kind, bool harmless, const char *format, ...)
{
    char text[200];
    va_list args;

    va_start(args, format);
    vsnprintf(text, sizeof text, format, args);
    va_end(args);
    c->report(c->context,
              &(struct disk_fault){.kind = kind, .harmless = harmless, .path = c->vhd->path, .text = text});
}

static bool check_footers(const struct checking *c, struct err *err)
{
    uint8_t copy[VHD_FOOTER_BYTES];

    if (c->vhd->needs_repair)
        tell(c, DISK_FAULT_FOOTER, true, "the footer at the end is missing or damaged; its copy is whole");
    if (c->vhd->type == VHD_FIXED || c->vhd->needs_repair)
        return true;
    if (!io_read(c->vhd->file, 0, copy, sizeof copy, err))
        return false;
    if (memcmp(copy, c->vhd->footer_bytes, c->vhd->trailer_bytes) != 0)
        tell(c, DISK_FAULT_COPY, true,
             "the copy of the footer at the start differs from the footer at the end");
    return true;
}

static int by_start(const void *a, const void *b)
{
    const struct extent *x = a, *y = b;

    return x->start < y->start ? -1 : x->start > y->start;
}

static void tell_overlaps(const struct checking *c, struct extent *extents, size_t count)
{
    qsort(extents, count, sizeof *extents, by_start);
    for (size_t i = 1; i < count; i++) {
        const struct extent *a = &extents[i - 1], *b = &extents[i];
        if (b->start >= a->end)
            continue;
        if (a->block != UINT32_MAX && b->block != UINT32_MAX)
            tell(c, DISK_FAULT_OVERLAP, false, "blocks %u and %u share space in the file at %llu", a->block,
                 b->block, (unsigned long long)b->start);
        else
            tell(c, DISK_FAULT_OVERLAP, false, "block %u lies over the image's own structures at %llu",
                 (uint32_t)min_u64(a->block, b->block), (unsigned long long)b->start);
    }
}

#define CHUNK_SECTORS 128U

/* The first sector of the run that is not zeros; its end if all are. */
static bool find_data(const struct vhd *vhd, uint32_t entry, uint32_t first, uint32_t end,
                      uint32_t *ret_sector, struct err *err)
{
    uint8_t chunk[CHUNK_SECTORS * VHD_SECTOR];

    for (; first < end; first += CHUNK_SECTORS) {
        uint32_t count = (uint32_t)min_u64(CHUNK_SECTORS, end - first);
        if (!io_read(vhd->file, vhd_data_offset(vhd, entry) + (uint64_t)first * VHD_SECTOR, chunk,
                     (size_t)count * VHD_SECTOR, err))
            return false;
        for (uint32_t s = 0; s < count; s++) {
            if (!bytes_are_zero(chunk + (size_t)s * VHD_SECTOR, VHD_SECTOR)) {
                *ret_sector = first + s;
                return true;
            }
        }
    }
    *ret_sector = end;
    return true;
}

/* A dynamic image's sectors are read whatever their bit says; one that was never written must hold zeros. */
static bool check_strays(const struct checking *c, uint32_t block, uint32_t entry, const uint8_t *bits,
                         struct err *err)
{
    uint32_t sectors = c->vhd->block_bytes / VHD_SECTOR;

    for (uint32_t s = 0; s < sectors;) {
        uint32_t end = s + vhd_bits_run(bits, s, sectors);
        uint32_t data = end;
        if (!vhd_bit_get(bits, s) && !find_data(c->vhd, entry, s, end, &data, err))
            return false;
        if (data < end) {
            tell(c, DISK_FAULT_STRAY, true, "block %u: sector %u holds data that its bitmap does not know of",
                 block, data);
            return true;
        }
        s = end;
    }
    return true;
}

static bool check_block(const struct checking *c, uint32_t block, uint32_t entry, uint8_t *bits,
                        struct err *err)
{
    struct err why;

    if (progress_cancelled(c->progress))
        return err_set(err, ERR_CANCELLED, "%s: the check was cancelled", c->vhd->path);
    if (!vhd_bitmap_read(c->vhd, entry, bits, &why)) {
        tell(c, DISK_FAULT_BITMAP, false, "block %u: %.120s", block, why.text);
        return true;
    }
    return c->vhd->type != VHD_DYNAMIC || check_strays(c, block, entry, bits, err);
}

static size_t own_extents(const struct vhd *vhd, struct extent *extents)
{
    size_t count = 0;

    extents[count++] = (struct extent){0, VHD_FOOTER_BYTES, UINT32_MAX};
    extents[count++] =
        (struct extent){vhd->footer.data_offset, vhd->footer.data_offset + VHD_HEADER_BYTES, UINT32_MAX};
    extents[count++] =
        (struct extent){vhd->header.table_offset,
                        vhd->header.table_offset + (uint64_t)vhd->header.table_entries * 4, UINT32_MAX};
    for (unsigned i = 0; i < VHD_LOCATORS; i++) {
        const struct vhd_locator *locator = &vhd->header.locators[i];
        uint64_t end;
        if (locator->platform != VHD_PLATFORM_NONE && locator->length_bytes > 0 &&
            add_u64(locator->offset, locator->length_bytes, &end) && end <= vhd->file_bytes)
            extents[count++] = (struct extent){locator->offset, end, UINT32_MAX};
    }
    return count;
}

struct collecting {
    const struct checking *checking;
    struct extent *extents;
    size_t count, capacity;
    uint8_t *bits;
};

static bool collect(void *context, uint32_t block, uint32_t entry, struct err *err)
{
    struct collecting *collecting = context;
    const struct checking *c = collecting->checking;
    uint64_t end = vhd_data_offset(c->vhd, entry) + c->vhd->block_bytes;

    if (collecting->count == collecting->capacity) {
        size_t capacity = collecting->capacity * 2 + 64;
        struct extent *extents = realloc(collecting->extents, capacity * sizeof *extents);
        if (!extents)
            return err_oom(err);
        collecting->extents = extents;
        collecting->capacity = capacity;
    }
    collecting->extents[collecting->count++] = (struct extent){vhd_bitmap_offset(entry), end, block};
    progress_report(c->progress, "check", block, c->vhd->block_count);
    return c->structures_only || check_block(c, block, entry, collecting->bits, err);
}

static void collecting_done(struct collecting *collecting)
{
    free(collecting->extents);
    free(collecting->bits);
}

static bool check_blocks(const struct checking *c, struct err *err)
{
    AUTO(collecting_done) struct collecting collecting = {.checking = c, .capacity = 64};

    if (c->vhd->type == VHD_FIXED)
        return true;
    collecting.extents = calloc(collecting.capacity, sizeof *collecting.extents);
    collecting.bits = malloc(c->vhd->bitmap_bytes);
    if (!collecting.extents || !collecting.bits)
        return err_oom(err);
    collecting.count = own_extents(c->vhd, collecting.extents);
    if (!vhd_bat_each(c->vhd, collect, &collecting, err)) {
        if (err->code != ERR_CORRUPT && err->code != ERR_UNSUPPORTED)
            return false;
        /* The text begins with the path, which the fault has already. */
        const char *text = strncmp(err->text, c->vhd->path, strlen(c->vhd->path)) == 0
                               ? err->text + strlen(c->vhd->path) + 2
                               : err->text;
        tell(c, DISK_FAULT_OUTSIDE, false, "%.180s", text);
        *err = ERR_INIT;
    }
    tell_overlaps(c, collecting.extents, collecting.count);
    return true;
}

bool disk_check_image(const struct vhd *vhd, bool structures_only, disk_fault_fn *report, void *context,
                      const struct progress *progress, struct err *err)
{
    struct checking c = {.vhd = vhd,
                         .structures_only = structures_only,
                         .report = report,
                         .context = context,
                         .progress = progress};

    return check_footers(&c, err) && check_blocks(&c, err);
}

struct owned_chain {
    struct layer **layers;
    size_t depth;
};

static void owned_chain_done(struct owned_chain *chain)
{
    chain_free(chain->layers, chain->depth);
}

bool disk_check(const struct io *io, const char *top_path, disk_fault_fn *report, void *context,
                const struct progress *progress, struct err *err)
{
    const struct disk_options options = {.io = io, .max_depth = DISK_DEFAULT_MAX_DEPTH};
    AUTO(owned_chain_done) struct owned_chain chain = {0};

    if (!chain_open(&options, top_path, &chain.layers, &chain.depth, err))
        return false;
    for (size_t i = chain.depth; i-- > 0;) {
        const struct layer *layer = chain.layers[i];
        struct checking c = {.vhd = layer->vhd, .report = report, .context = context};
        if (!disk_check_image(layer->vhd, /* structures_only= */ false, report, context, progress, err))
            return false;
        if (layer->parent_time_differs)
            tell(&c, DISK_FAULT_TIME, true, "the parent's time stamp is not the one in the header");
    }
    return true;
}
