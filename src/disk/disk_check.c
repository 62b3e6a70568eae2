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

/* A part of the metadata. */
struct extent {
    uint64_t start, end;
    bool locator;
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

#define MAX_OWN (3 + VHD_LOCATORS)
/* A damaged table can have millions of entries that share one place. */
#define MAX_TOLD 100

static size_t own_extents(const struct vhd *vhd, struct extent extents[static MAX_OWN])
{
    uint64_t table = vhd->header.table_offset;
    size_t count = 0;

    extents[count++] = (struct extent){.start = 0, .end = VHD_FOOTER_BYTES};
    extents[count++] =
        (struct extent){.start = vhd->footer.data_offset, .end = vhd->footer.data_offset + VHD_HEADER_BYTES};
    extents[count++] =
        (struct extent){.start = table, .end = table + (uint64_t)vhd->header.table_entries * 4};
    for (unsigned i = 0; i < VHD_LOCATORS; i++) {
        const struct vhd_locator *locator = &vhd->header.locators[i];
        uint64_t end;
        if (locator->platform != VHD_PLATFORM_NONE && locator->length_bytes > 0 &&
            add_u64(locator->offset, locator->length_bytes, &end) && end <= vhd->file_bytes)
            extents[count++] = (struct extent){.start = locator->offset, .end = end, .locator = true};
    }
    return count;
}

static uint64_t place_end(const struct vhd *vhd, const struct vhd_block *place)
{
    return vhd_data_offset(vhd, place->entry) + vhd->block_bytes;
}

/* Of the blocks that lie over it, the first in the file is told. */
static void tell_over(const struct checking *c, const struct extent *own, const struct vhd_blocks *places)
{
    size_t low = 0, high = places->count; /* the first that ends behind the extent's start */

    while (low < high) {
        size_t middle = (low + high) / 2;
        if (place_end(c->vhd, &places->items[middle]) > own->start)
            high = middle;
        else
            low = middle + 1;
    }
    if (low < places->count && vhd_bitmap_offset(places->items[low].entry) < own->end)
        tell(c, DISK_FAULT_OVERLAP, false, "block %u lies over the image's own structures at %llu",
             places->items[low].block, (unsigned long long)own->start);
}

static void check_structures(const struct checking *c, const struct vhd_blocks *places)
{
    struct extent own[MAX_OWN];
    size_t count = own_extents(c->vhd, own);

    for (size_t i = 0; i < count; i++) {
        tell_over(c, &own[i], places);
        /* Two locators may well say the same. */
        for (size_t k = 0; k < i; k++)
            if (own[i].start < own[k].end && own[k].start < own[i].end && !own[k].locator)
                tell(c, DISK_FAULT_OVERLAP, false, "two of the image's own structures share space at %llu",
                     (unsigned long long)max_u64(own[i].start, own[k].start));
    }
}

static int by_place(const void *a, const void *b)
{
    const struct vhd_block *x = a, *y = b;

    if (x->entry != y->entry)
        return x->entry < y->entry ? -1 : 1;
    return x->block < y->block ? -1 : x->block > y->block;
}

static bool collect_all(const struct checking *c, struct vhd_blocks *places, struct err *err)
{
    if (!vhd_bat_collect(c->vhd, UINT32_MAX, places, err)) {
        if (err->code != ERR_CORRUPT && err->code != ERR_UNSUPPORTED)
            return false;
        /* The text begins with the path, which the fault has already. */
        const char *text = strncmp(err->text, c->vhd->path, strlen(c->vhd->path)) == 0
                               ? err->text + strlen(c->vhd->path) + 2
                               : err->text;
        tell(c, DISK_FAULT_OUTSIDE, false, "%.180s", text);
        *err = ERR_INIT;
    }
    if (places->count > 0)
        qsort(places->items, places->count, sizeof *places->items, by_place);
    return true;
}

/* In the order of the file. What lies over a block that was looked at is told, not looked at: no part of the
 * file is read twice. */
static bool check_places(const struct checking *c, const struct vhd_blocks *places, uint8_t *bits,
                         struct err *err)
{
    uint64_t looked_at = 0;
    size_t shared = 0;

    for (size_t i = 0; i < places->count; i++) {
        const struct vhd_block *place = &places->items[i];
        uint64_t start = vhd_bitmap_offset(place->entry);
        if (i > 0 && start < place_end(c->vhd, place - 1) && shared++ < MAX_TOLD)
            tell(c, DISK_FAULT_OVERLAP, false, "blocks %u and %u share space in the file at %llu",
                 place[-1].block, place->block, (unsigned long long)start);
        if (c->structures_only || start < looked_at)
            continue;
        looked_at = place_end(c->vhd, place);
        progress_report(c->progress, "check", i, places->count);
        if (!check_block(c, place->block, place->entry, bits, err))
            return false;
    }
    if (shared > MAX_TOLD)
        tell(c, DISK_FAULT_OVERLAP, false, "%zu more blocks share space in the file", shared - MAX_TOLD);
    return true;
}

static bool check_blocks(const struct checking *c, struct err *err)
{
    AUTO_VHD_BLOCKS struct vhd_blocks places = {0};

    if (c->vhd->type == VHD_FIXED)
        return true;
    AUTO_FREE uint8_t *bits = malloc(c->vhd->bitmap_bytes);
    if (!bits)
        return err_oom(err);
    if (!collect_all(c, &places, err))
        return false;
    check_structures(c, &places);
    return check_places(c, &places, bits, err);
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
