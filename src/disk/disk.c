/* Open, close, look: see disk.h. */
#include "disk_private.h"

#include "bytes.h"

#include <stdlib.h>
#include <string.h>

bool disk_range_check(const struct disk *disk, uint64_t offset, uint64_t length, struct err *err)
{
    if ((offset | length) % VHD_SECTOR != 0)
        return err_set(err, ERR_INVALID, "%llu bytes at %llu: not whole sectors of 512",
                       (unsigned long long)length, (unsigned long long)offset);
    if (offset > disk->size_bytes || length > disk->size_bytes - offset)
        return err_set(err, ERR_INVALID, "%llu bytes at %llu: the disk ends at %llu",
                       (unsigned long long)length, (unsigned long long)offset,
                       (unsigned long long)disk->size_bytes);
    return true;
}

struct indexing {
    struct disk *disk;
    struct layer *layer;
};

static bool index_block(void *context, uint32_t block, uint32_t entry, struct err *err)
{
    struct indexing *indexing = context;
    struct layer *layer = indexing->layer;

    if (block >= layer->vhd->block_count)
        return true;
    if (!index_reserve(&indexing->disk->index, layer->vhd->block_shift, 1, err))
        return false;
    index_add(&indexing->disk->index, layer->number, layer->vhd->block_shift, block, entry);
    layer->allocated_blocks++;
    return true;
}

static bool index_layers(struct disk *disk, struct err *err)
{
    for (size_t i = 0; i < disk->depth; i++) {
        struct indexing indexing = {.disk = disk, .layer = disk->layers[i]};
        if (disk->layers[i]->vhd->type == VHD_FIXED)
            continue;
        if (!vhd_bat_each(disk->layers[i]->vhd, index_block, &indexing, err))
            return false;
    }
    return true;
}

static bool open_map(struct disk *disk, struct err *err)
{
    disk->capacity = disk->depth;
    disk->size_bytes = disk_top(disk)->vhd->size_bytes;
    if (!map_init(&disk->map, disk->size_bytes, err) || !index_init(&disk->index, disk->map.count, err) ||
        !index_layers(disk, err))
        return false;
    return !disk->writable || layer_start_writing(disk_top(disk), disk->log_dir, err);
}

static bool open_parts(struct disk *disk, const char *top_path, struct err *err)
{
    const struct disk_options options = {
        .io = disk->io, .writable = disk->writable, .max_depth = (unsigned)disk->max_depth, .log_dir = disk->log_dir};

    return chain_open(&options, top_path, &disk->layers, &disk->depth, err) && open_map(disk, err);
}

bool disk_open_alone(const struct io *io, struct vhd *vhd, struct disk **ret_disk, struct err *err)
{
    AUTO_VHD struct vhd *owned = vhd;
    AUTO_DISK struct disk *disk = calloc(1, sizeof *disk);
    AUTO_LAYER struct layer *layer = calloc(1, sizeof *layer);

    if (!disk || !layer || !(disk->layers = calloc(1, sizeof(struct layer *))))
        return err_oom(err);
    layer->visible_bytes = vhd->size_bytes;
    layer->vhd = TAKE(owned);
    disk->layers[disk->depth++] = TAKE(layer);
    disk->io = io;
    disk->writable = true;
    disk->max_depth = 1;
    if (!open_map(disk, err))
        return false;
    *ret_disk = TAKE(disk);
    return true;
}

bool disk_open(const char *top_path, const struct disk_options *options, struct disk **ret_disk,
               struct err *err)
{
    AUTO_DISK struct disk *disk = calloc(1, sizeof *disk);

    if (!disk)
        return err_oom(err);
    disk->io = options->io ? options->io : &io_real;
    disk->writable = options->writable;
    disk->max_depth = options->max_depth ? options->max_depth : DISK_DEFAULT_MAX_DEPTH;
    if (options->log_dir && !(disk->log_dir = strdup(options->log_dir)))
        return err_oom(err);
    if (disk->max_depth > MAP_MAX_LAYERS)
        return err_set(err, ERR_INVALID, "a depth of %zu: at most %u is possible", disk->max_depth,
                       MAP_MAX_LAYERS);
    if (!open_parts(disk, top_path, err))
        return false;
    *ret_disk = TAKE(disk);
    return true;
}

void disk_abandon(struct disk *disk)
{
    if (!disk)
        return;
    flushing_done(&disk->flushing);
    map_done(&disk->map);
    index_done(&disk->index);
    chain_free(disk->layers, disk->depth);
    free(disk->log_dir);
    free(disk);
}

void disk_drop(struct disk *disk)
{
    layer_stop_writing(disk_top(disk));
    disk_abandon(disk);
}

bool disk_close(struct disk *disk, struct err *err)
{
    bool ok = !disk->writable || disk_flush(disk, err);

    /* After a failure the dirty logs stay: what waits there is put in place when the disk is next opened. */
    for (size_t i = 0; ok && i < disk->depth; i++)
        layer_stop_writing(disk->layers[i]);
    disk_abandon(disk);
    return ok;
}

const struct io *disk_io(const struct disk *disk)
{
    return disk->io;
}

uint64_t disk_size_bytes(const struct disk *disk)
{
    return disk->size_bytes;
}

size_t disk_depth(const struct disk *disk)
{
    return disk->depth;
}

uint64_t disk_map_bytes(const struct disk *disk)
{
    return map_bytes(&disk->map) + index_bytes(&disk->index);
}

bool disk_reserve_layer(struct disk *disk, struct err *err)
{
    if (disk->depth < disk->capacity)
        return true;
    size_t capacity = disk->capacity + 16;
    struct layer **layers = realloc(disk->layers, capacity * sizeof(struct layer *));
    if (!layers)
        return err_oom(err);
    disk->layers = layers;
    disk->capacity = capacity;
    return true;
}

void disk_layer_get(const struct disk *disk, size_t index, struct disk_layer *ret_layer)
{
    const struct layer *layer = disk->layers[disk->depth - 1 - index];
    const struct vhd *vhd = layer->vhd;
    struct io_stat stat = {.size_bytes = vhd->file_bytes};
    struct err ignored;

    (void)!io_stat_file(vhd->file, &stat, &ignored);
    *ret_layer = (struct disk_layer){
        .path = vhd->path,
        .type = vhd->type,
        .size_bytes = vhd->size_bytes,
        .block_bytes = vhd->block_bytes,
        .allocated_blocks = layer->allocated_blocks,
        .file_bytes = stat.size_bytes,
        .file_allocated_bytes = stat.allocated_bytes,
        .needs_repair = vhd->needs_repair,
        .parent_time_differs = layer->parent_time_differs,
    };
    memcpy(ret_layer->id, vhd->footer.id, VHD_ID_SIZE);
    memcpy(ret_layer->parent_id, vhd->header.parent_id, VHD_ID_SIZE);
}
