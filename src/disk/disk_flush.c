/* A flush in stages. The states of a bit that says "this sector is here":
 *
 *   set in memory           the sector was written, perhaps not durable
 *   copied by flush_begin   `sync_first` makes the sector durable before the copy is written
 *   in the file             `sync_last` makes the bit durable; now the flush may be answered
 *
 * A bit that is set after flush_begin is not in the copy. BAT entries go the same way: before one is written,
 * the size of the file and the zeros of the new block are durable. Bitmaps, BAT sectors and the footer at the
 * end are written between the two syncs in any order: each is one sector or more of 512 bytes that say
 * nothing false alone. A BAT entry without its bitmap is a block of bits 0; the footer has never moved from
 * where the file's size puts it. */
#include "disk_private.h"

#include "bytes.h"

#include <stdlib.h>
#include <string.h>

void flushing_done(struct flushing *flushing)
{
    free(flushing->flush.sync_first);
    free(flushing->flush.sync_last);
    free(flushing->flush.writes);
    free(flushing->items);
    free(flushing->copies);
    *flushing = (struct flushing){0};
}

/* The layers to flush: the unclean sealed ones, then the top. */
static struct layer *first_layer(const struct disk *disk)
{
    return disk->unclean ? disk->unclean : disk_top(disk);
}

static struct layer *next_layer(const struct disk *disk, const struct layer *layer)
{
    if (layer == disk_top(disk))
        return NULL;
    return layer->next_unclean ? layer->next_unclean : disk_top(disk);
}

/* Room for need elements, what was in them kept or not. */
#define GROW(array, capacity, need, err)                                                                     \
    ({                                                                                                       \
        bool ok_ = (need) <= (capacity);                                                                     \
        __typeof__(array) bigger_ = ok_ ? NULL : realloc((array), (need) * sizeof *(array));                 \
        if (bigger_) {                                                                                       \
            (array) = bigger_;                                                                               \
            (capacity) = (need);                                                                             \
        }                                                                                                    \
        ok_ || bigger_ || err_oom(err);                                                                      \
    })

/* Room for all that the flush may need, so that it fails here or not at all. */
static bool reserve(struct disk *disk, struct err *err)
{
    struct flushing *flushing = &disk->flushing;
    size_t files = 0, writes = 0, bytes = 0;

    for (const struct layer *layer = first_layer(disk); layer; layer = next_layer(disk, layer)) {
        const struct writing *writing = layer->writing;
        if (!writing)
            continue;
        files++;
        writes += writing->dirty_count + writing->bat_dirty_count + 1;
        bytes += (size_t)writing->dirty_count * layer->vhd->bitmap_bytes +
                 (size_t)writing->bat_dirty_count * VHD_SECTOR + VHD_FOOTER_BYTES;
    }
    return GROW(flushing->flush.sync_first, flushing->first_capacity, files, err) &&
           GROW(flushing->flush.sync_last, flushing->last_capacity, files, err) &&
           GROW(flushing->items, flushing->item_capacity, writes, err) &&
           GROW(flushing->flush.writes, flushing->write_capacity, writes, err) &&
           GROW(flushing->copies, flushing->copy_capacity, bytes, err);
}

static void add_write(struct flushing *flushing, struct flush_item item, uint64_t file_offset,
                      const void *bytes, size_t length)
{
    struct disk_flush *flush = &flushing->flush;

    flushing->items[flush->write_count] = item;
    flush->writes[flush->write_count++] = (struct disk_flush_write){
        .file = item.layer->vhd->file, .file_offset = file_offset, .bytes = bytes, .length = length};
}

static const void *copy(struct flushing *flushing, const void *bytes, size_t length)
{
    void *place = flushing->copies + flushing->copy_bytes;

    memcpy(place, bytes, length);
    flushing->copy_bytes += length;
    return place;
}

static void take_bitmaps(struct flushing *flushing, struct layer *layer)
{
    uint32_t length = layer->vhd->bitmap_bytes;
    uint32_t block;

    while (layer_take_dirty(layer, &block))
        add_write(flushing, (struct flush_item){.layer = layer, .kind = FLUSH_BITMAP, .first = block},
                  vhd_bitmap_offset(layer_entry(layer, block)),
                  copy(flushing, layer_bitmap_in_memory(layer, block), length), length);
}

static bool bat_bit(const struct writing *writing, uint32_t sector)
{
    return writing->bat_dirty[sector / 64] >> sector % 64 & 1;
}

/* Neighbouring sectors in one write. */
static void take_bat(struct flushing *flushing, struct layer *layer)
{
    struct writing *writing = layer->writing;
    uint32_t sectors = (uint32_t)(writing->bat_bytes / VHD_SECTOR);

    for (uint32_t s = 0; s < sectors && writing->bat_dirty_count > 0; s++) {
        if (writing->bat_dirty[s / 64] == 0) {
            s |= 63;
            continue;
        }
        uint32_t first = s;
        for (; s < sectors && bat_bit(writing, s); s++) {
            writing->bat_dirty[s / 64] &= ~(1ULL << s % 64);
            writing->bat_dirty_count--;
        }
        size_t offset = (size_t)first * VHD_SECTOR, length = (size_t)(s - first) * VHD_SECTOR;
        if (length > 0)
            add_write(flushing,
                      (struct flush_item){.layer = layer, .kind = FLUSH_BAT, .first = first, .sectors = s - first},
                      layer->vhd->header.table_offset + offset, copy(flushing, writing->bat + offset, length),
                      length);
    }
}

static void take_layer(struct flushing *flushing, struct layer *layer)
{
    struct disk_flush *flush = &flushing->flush;
    struct writing *writing = layer->writing;
    size_t writes_before = flush->write_count;

    if (layer_is_clean(layer))
        return;
    flush->sync_first[flush->sync_first_count++] = layer->vhd->file;
    writing->in_flush = true;
    writing->data_dirty = false;
    take_bitmaps(flushing, layer);
    take_bat(flushing, layer);
    if (writing->footer_dirty) {
        writing->footer_dirty = false;
        add_write(flushing, (struct flush_item){.layer = layer, .kind = FLUSH_FOOTER}, writing->end_bytes,
                  copy(flushing, layer->vhd->footer_bytes, VHD_FOOTER_BYTES), VHD_FOOTER_BYTES);
    }
    if (flush->write_count > writes_before)
        flush->sync_last[flush->sync_last_count++] = layer->vhd->file;
}

bool disk_flush_begin(struct disk *disk, struct disk_flush **ret_flush, struct err *err)
{
    struct flushing *flushing = &disk->flushing;

    if (disk->sync_failure.code != ERR_NONE) {
        *err = disk->sync_failure;
        return err_prefix(err, "not since a sync failed");
    }
    if (flushing->running)
        return err_set(err, ERR_INTERNAL, "a flush is under way");
    if (!reserve(disk, err))
        return false;
    flushing->running = true;
    flushing->copy_bytes = 0;
    flushing->flush.sync_first_count = flushing->flush.sync_last_count = flushing->flush.write_count = 0;
    for (struct layer *layer = first_layer(disk); layer; layer = next_layer(disk, layer))
        if (layer->writing)
            take_layer(flushing, layer);
    *ret_flush = &flushing->flush;
    return true;
}

/* What was taken is to be flushed again. */
static void put_back(struct flushing *flushing)
{
    for (size_t i = 0; i < flushing->flush.write_count; i++) {
        const struct flush_item *item = &flushing->items[i];
        if (item->kind == FLUSH_BITMAP)
            layer_bitmap_dirty(item->layer, item->first);
        else if (item->kind == FLUSH_FOOTER)
            item->layer->writing->footer_dirty = true;
        for (uint32_t s = 0; item->kind == FLUSH_BAT && s < item->sectors; s++)
            layer_bat_dirty(item->layer, item->first + s);
    }
}

static void end_layer(struct layer *layer, bool failed)
{
    struct writing *writing = layer->writing;

    if (!writing || !writing->in_flush)
        return;
    writing->in_flush = false;
    writing->data_dirty = writing->data_dirty || failed;
}

/* The data that the bits speak of may be lost: nobody must put them in place. */
static void forget_logs(struct disk *disk)
{
    for (struct layer *layer = first_layer(disk); layer; layer = next_layer(disk, layer))
        layer_forget_log(layer);
}

void disk_flush_end(struct disk *disk, struct disk_flush *flush, const struct err *failure, bool sync_failed)
{
    struct flushing *flushing = &disk->flushing;

    (void)flush; /* there is only one */
    if (failure)
        put_back(flushing);
    if (failure && sync_failed) {
        disk->sync_failure = *failure;
        forget_logs(disk);
    }
    for (struct layer *layer = first_layer(disk); layer; layer = next_layer(disk, layer)) {
        end_layer(layer, failure != NULL);
        if (layer != disk_top(disk))
            layer_share_if_clean(layer);
    }
    flushing->running = false;
}

static bool sync_files(struct io_file *const *files, size_t count, bool *ret_sync_failed, struct err *err)
{
    for (size_t i = 0; i < count; i++) {
        if (!io_sync(files[i], err)) {
            err->code = ERR_IO; /* also for want of space: what was written is lost, room does not bring it back */
            *ret_sync_failed = true;
            return false;
        }
    }
    return true;
}

static bool run(const struct disk_flush *flush, bool *ret_sync_failed, struct err *err)
{
    if (!sync_files(flush->sync_first, flush->sync_first_count, ret_sync_failed, err))
        return false;
    for (size_t i = 0; i < flush->write_count; i++) {
        const struct disk_flush_write *write = &flush->writes[i];
        if (!io_write(write->file, write->file_offset, write->bytes, write->length, err))
            return false;
    }
    return sync_files(flush->sync_last, flush->sync_last_count, ret_sync_failed, err);
}

bool disk_flush(struct disk *disk, struct err *err)
{
    struct disk_flush *flush;
    bool sync_failed = false;

    if (!disk_flush_begin(disk, &flush, err))
        return false;
    bool ok = run(flush, &sync_failed, err);
    disk_flush_end(disk, flush, ok ? NULL : err, sync_failed);
    return ok;
}
