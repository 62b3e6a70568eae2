/* Histories drawn from a seed, on a disk and on a flat array, compared: writes, zeros, flushes, seals while
 * open, merges of two sealed layers meanwhile, step by step; and while closed new children of other sizes and block sizes, going back to a sealed layer, merges of
 * any layer into its parent, larger sizes, repairs that find nothing to do. In the end every sealed layer is
 * compared with what the disk held when it was sealed, and the check of the chain finds no fault.
 *
 *   test_disk_model [HISTORIES [FIRST_SEED [LAYERS [FOLDER]]]]
 *       the default is a smoke test; more than 12 layers make longer histories on smaller disks
 *       FOLDER: the images of the last history are left there, all in one folder because 7-Zip looks for
 *       parents nowhere else; layerN.raw is what layerN must read as, for the top, the base and one layer
 * between
 *
 * Every second seed keeps one size, and every third has requests and sizes of whole 4 KiB only: there are
 * readers that know no others. */
#include "bytes.h"
#include "disk_tools.h"
#include "file.h"
#include "io_memory.h"
#include "random.h"

#include <stdio.h>
#include <string.h>

#define MAX_BYTES      (24U << 20)
#define MAX_LAYERS     64
#define USUAL_LAYERS   12
#define DEEP_MAX_BYTES (3U << 20)
#define OPERATIONS     150
#define DEEP_PER_LAYER 10
#define MAX_REQUEST    (3U << 20)

struct history {
    uint64_t seed;
    struct random random;
    struct io_memory *memory;
    const struct io *io;
    struct disk *disk;
    uint64_t size;
    uint8_t *model; /* MAX_BYTES; zeros from size on */
    uint8_t *bytes; /* MAX_REQUEST */
    unsigned max_layers, layers, next_id, deepest;
    uint32_t unit; /* requests and sizes are multiples of it */
    bool one_size; /* no image is larger or smaller than another */
    uint32_t max_bytes;
    unsigned ids[MAX_LAYERS];    /* what the layers' files are called by */
    uint8_t *sealed[MAX_LAYERS]; /* what each layer held when it was sealed: sealed_size bytes; owned */
    uint64_t sealed_size[MAX_LAYERS];
    uint64_t merges, open_merges;
    struct disk_merging *merging; /* two sealed layers while the disk is open; or NULL */
    struct disk_merge_options merge_options;
    unsigned merging_layer; /* the upper one */
    const char *folder; /* where the images are left in the end, or NULL */
    char step[80];
};

static struct err err;

static void fail(const struct history *h, const char *what)
{
    fprintf(stderr, "seed %llu: %s: %s: %s\n", (unsigned long long)h->seed, h->step, what, err.text);
    exit(1);
}

#define MUST(h, call)                                                                                        \
    do {                                                                                                     \
        if (!(call))                                                                                         \
            fail(h, #call);                                                                                  \
    } while (0)

static bool deep(const struct history *h)
{
    return h->max_layers > USUAL_LAYERS;
}

static char *layer_path(const struct history *h, unsigned layer)
{
    unsigned id = h->ids[layer];
    char *path = string_printf("/vm/%s/layer%u.%s", id == 0 ? "base" : "snapshots", id, id ? "avhd" : "vhd");

    if (!path)
        abort();
    return path;
}

static uint32_t any_block_bytes(struct history *h)
{
    static const uint32_t SIZES[] = {512,     4096,    16384,   65536,   512 << 10, 1 << 20,
                                     2 << 20, 2 << 20, 2 << 20, 4 << 20, 8 << 20,   64 << 20};

    return SIZES[random_below(&h->random, ARRAY_SIZE(SIZES) - (h->unit > 512)) + (h->unit > 512)];
}

static void create(struct history *h, uint64_t size)
{
    h->ids[h->layers] = h->next_id++;
    AUTO_FREE char *path = layer_path(h, h->layers);
    AUTO_FREE char *parent = h->layers > 0 ? layer_path(h, h->layers - 1) : NULL;
    struct vhd_create_options options = {
        .type = parent                             ? VHD_DIFFERENCING
                : random_below(&h->random, 3) == 0 ? VHD_FIXED
                                                   : VHD_DYNAMIC,
        .size_bytes = size,
        .parent_path = parent,
    };

    if (options.type != VHD_FIXED)
        options.block_bytes = any_block_bytes(h);
    MUST(h, vhd_create(h->io, path, &options, &err));
    h->layers++;
    h->deepest = h->layers > h->deepest ? h->layers : h->deepest;
}

static void open_top(struct history *h)
{
    AUTO_FREE char *path = layer_path(h, h->layers - 1);
    struct disk_options options = {.io = h->io, .writable = true};

    MUST(h, disk_open(path, &options, &h->disk, &err));
    if (disk_size_bytes(h->disk) != h->size || disk_depth(h->disk) != h->layers)
        fail(h, "size or depth");
}

/* Small ones mostly; on any sector, and at times over many blocks. */
static void any_range(struct history *h, uint64_t *offset, uint64_t *length)
{
    uint64_t units = h->size / h->unit;
    uint64_t most = random_below(&h->random, 8) == 0 ? MAX_REQUEST / h->unit
                    : random_below(&h->random, 2)    ? 16
                                                     : 300;

    *offset = random_below(&h->random, units);
    *length = 1 + random_below(&h->random, min_u64(most, units - *offset));
    if (random_below(&h->random, 4) == 0)
        *offset = round_down(*offset, (2U << 20) / h->unit);
    *offset *= h->unit;
    *length *= h->unit;
}

static uint64_t any_size(struct history *h)
{
    return (1 + random_below(&h->random, h->max_bytes / h->unit)) * h->unit;
}

static void write_some(struct history *h, bool in_pieces)
{
    uint64_t offset, length;
    struct disk_piece pieces[3];
    size_t count;

    any_range(h, &offset, &length);
    random_fill(&h->random, h->bytes, (size_t)length);
    memcpy(h->model + offset, h->bytes, (size_t)length);
    snprintf(h->step, sizeof h->step, "write %llu at %llu", (unsigned long long)length,
             (unsigned long long)offset);
    if (!in_pieces) {
        MUST(h, disk_write(h->disk, offset, h->bytes, (size_t)length, &err));
        return;
    }
    for (uint64_t done = 0; done < length;) {
        uint64_t before = done;
        MUST(h, disk_write_begin(h->disk, offset + done, length - done, pieces, 3, &count, &err));
        for (size_t i = 0; i < count; done += pieces[i++].length)
            MUST(h, io_write(pieces[i].file, pieces[i].file_offset, h->bytes + done, (size_t)pieces[i].length,
                             &err));
        disk_write_end(h->disk, offset + before, done - before);
    }
}

static void zero_in_pieces(struct history *h, uint64_t offset, uint64_t length)
{
    struct disk_zero_piece pieces[3];
    uint64_t covered;
    size_t count;

    for (; length > 0; offset += covered, length -= covered) {
        MUST(h, disk_zero_begin(h->disk, offset, length, pieces, 3, &count, &covered, &err));
        for (size_t i = 0; i < count; i++) {
            MUST(h, io_zero(pieces[i].file, pieces[i].file_offset, pieces[i].length, &err));
            disk_write_end(h->disk, pieces[i].offset, pieces[i].length);
        }
    }
}

static void zero_some(struct history *h, bool in_pieces)
{
    uint64_t offset, length;

    any_range(h, &offset, &length);
    snprintf(h->step, sizeof h->step, "zero %llu at %llu", (unsigned long long)length,
             (unsigned long long)offset);
    memset(h->model + offset, 0, (size_t)length);
    if (in_pieces)
        zero_in_pieces(h, offset, length);
    else
        MUST(h, disk_zero(h->disk, offset, length, &err));
}

/* A flush, and now and then the space back that sealed layers do not need. */
static void flush(struct history *h)
{
    struct disk_gap gap;

    snprintf(h->step, sizeof h->step, "flush");
    MUST(h, disk_flush(h->disk, &err));
    if (random_below(&h->random, 3) == 0)
        while (disk_release_next(h->disk, &gap))
            MUST(h, gap.length == 0 || io_zero(gap.file, gap.file_offset, gap.length, &err));
}

static void compare(struct history *h, struct disk *disk, const uint8_t *model, uint64_t offset,
                    uint64_t length)
{
    MUST(h, disk_read(disk, offset, h->bytes, (size_t)length, &err));
    for (uint64_t i = 0; i < length; i += 512) {
        if (memcmp(h->bytes + i, model + offset + i, 512) != 0) {
            snprintf(err.text, sizeof err.text, "sector %llu differs",
                     (unsigned long long)(offset + i) / 512);
            fail(h, "compare");
        }
    }
}

static void read_some(struct history *h)
{
    uint64_t offset, length;

    any_range(h, &offset, &length);
    compare(h, h->disk, h->model, offset, length);
}

static void check_status(struct history *h)
{
    uint64_t offset, length, same;
    enum disk_status_kind kind;

    any_range(h, &offset, &length);
    MUST(h, disk_status(h->disk, offset, length, &kind, &same, &err));
    if (same == 0 || same > length || same % 512 != 0)
        fail(h, "status: length");
    if (kind == DISK_ZERO && !bytes_are_zero(h->model + offset, (size_t)same))
        fail(h, "status: zero where there is data");
}

static void keep_sealed(struct history *h)
{
    unsigned top = h->layers - 1;

    free(h->sealed[top]);
    h->sealed[top] = malloc(h->size);
    if (!h->sealed[top])
        abort();
    memcpy(h->sealed[top], h->model, h->size);
    h->sealed_size[top] = h->size;
}

static void seal_open(struct history *h)
{
    struct disk_next_top *next;

    if (h->layers == h->max_layers)
        return;
    snprintf(h->step, sizeof h->step, "seal layer %u", h->layers - 1);
    create(h, 0);
    AUTO_FREE char *path = layer_path(h, h->layers - 1);
    MUST(h, disk_next_top_open(h->disk, path, &next, &err));
    if (random_below(&h->random, 2) == 0) {
        /* The old top goes on for a while. */
        h->layers--;
        write_some(h, false);
        h->layers++;
    }
    h->layers--;
    keep_sealed(h);
    h->layers++;
    disk_seal_and_push(h->disk, next);
}

/* --- two sealed layers become one while the disk is open --- */

/* The layer was merged into its parent, or took what that had. */
static void forget_layer(struct history *h, unsigned layer, bool up)
{
    AUTO_FREE char *path = layer_path(h, up ? layer - 1 : layer);

    MUST(h, io_unlink(h->io, path, &err));
    if (up)
        h->ids[layer - 1] = h->ids[layer];
    /* One of the two holds now what the layer held; one that is the top again goes on changing. */
    free(h->sealed[layer - 1]);
    h->layers--;
    for (unsigned i = layer; i <= h->layers; i++) {
        h->sealed[i - 1] = h->sealed[i];
        h->sealed_size[i - 1] = h->sealed_size[i];
        if (i < h->layers)
            h->ids[i] = h->ids[i + 1];
    }
    h->sealed[h->layers] = NULL;
}

static void lend(struct history *h, unsigned first, unsigned count)
{
    AUTO_FREE char *lower = layer_path(h, first);
    AUTO_FREE char *upper = layer_path(h, first + count - 1);
    const char *const paths[] = {lower, upper};
    struct disk_gap gap;

    MUST(h, disk_flush(h->disk, &err));
    while (disk_release_next(h->disk, &gap))
        continue;
    MUST(h, disk_lend(h->disk, paths, count, &err));
}

static void merging_start(struct history *h)
{
    if (h->merging || h->layers < 3)
        return;
    unsigned layer = 1 + (unsigned)random_below(&h->random, h->layers - 2);
    AUTO_FREE char *path = layer_path(h, layer);
    bool up = layer > 1 && random_below(&h->random, 2) == 0;

    h->merge_options = (struct disk_merge_options){
        .direction = up ? DISK_MERGE_UP : DISK_MERGE_DOWN, .into_base = true, .borrowed = true};
    h->merging_layer = layer;
    snprintf(h->step, sizeof h->step, "begin to merge layer %u of %u %s", layer, h->layers, up ? "up" : "down");
    lend(h, layer - 1, 2);
    if (disk_merging_open(h->io, path, &h->merge_options, NULL, &h->merging, &err))
        return;
    if (err.code != ERR_UNSUPPORTED || h->sealed_size[layer] == h->sealed_size[layer - 1])
        fail(h, "begin a merge");
    disk_take_back(h->disk);
}

static void merging_end(struct history *h)
{
    MUST(h, disk_merging_finish(h->merging, &err));
    disk_merging_close(TAKE(h->merging));
    disk_take_back(h->disk);
}

/* A merge down that does not come to its end leaves a lower layer with some of the upper one's sectors: nobody looks at it
 * but through the upper one. Here somebody may go back to it. */
static void take_as_it_is(struct history *h)
{
    unsigned layer = h->merging_layer - 1;
    AUTO_FREE char *path = layer_path(h, layer);
    struct disk_options options = {.io = h->io};
    AUTO_DISK struct disk *disk = NULL;

    if (h->merge_options.direction == DISK_MERGE_UP)
        return;
    MUST(h, disk_open(path, &options, &disk, &err));
    MUST(h, disk_read(disk, 0, h->sealed[layer], h->sealed_size[layer], &err));
}

static void repaired(void *context, const char *text)
{
    (void)context;
    (void)text;
}

static void any_fault(void *context, const struct disk_fault *fault)
{
    snprintf(err.text, sizeof err.text, "%s: %s", fault->path, fault->text);
    fail(context, "a fault");
}

/* As by a kill: what was not flushed is lost, and the footer at the end may be. */
static void merging_kill(struct history *h)
{
    bool up = h->merge_options.direction == DISK_MERGE_UP;
    AUTO_FREE char *path = layer_path(h, up ? h->merging_layer : h->merging_layer - 1);

    disk_merging_close(TAKE(h->merging));
    disk_take_back(h->disk);
    MUST(h, disk_close(TAKE(h->disk), &err));
    MUST(h, disk_repair(h->io, path, repaired, any_fault, h, NULL, &err));
    take_as_it_is(h);
}

static void merging_give_up(struct history *h)
{
    if (!h->merging)
        return;
    merging_end(h);
    take_as_it_is(h);
}

/* The parent of an image that the disk has open. */
static void relink_layer(struct history *h, unsigned layer, const char *parent)
{
    AUTO_FREE char *path = layer_path(h, layer);
    AUTO_VHD struct vhd *image = NULL;
    AUTO(vhd_relink_done) struct vhd_relink relink = {0};
    uint8_t footer[VHD_FOOTER_BYTES];
    uint64_t offset;

    if (layer + 1 < h->layers) {
        lend(h, layer, 1);
        MUST(h, vhd_reparent(h->io, path, parent, &err));
        disk_take_back(h->disk);
        return;
    }
    MUST(h, vhd_open(h->io, path, IO_WRITE | VHD_UNLOCKED, &image, &err));
    MUST(h, vhd_relink_make(image, parent, 0, &relink, &err));
    MUST(h, disk_top_append(h->disk, relink.length, &offset, &err));
    vhd_relink_done(&relink);
    MUST(h, vhd_relink_make(image, parent, offset, &relink, &err));
    MUST(h, io_write(image->file, offset, relink.bytes, relink.length, &err));
    disk_top_link(h->disk, &relink);
    if (random_below(&h->random, 2) == 0) /* a new block comes between */
        write_some(h, true);
    MUST(h, disk_flush(h->disk, &err));
    vhd_footer_encode(&relink.footer, footer);
    MUST(h, io_write(image->file, 0, footer, sizeof footer, &err));
}

static void merging_take(struct history *h)
{
    unsigned layer = h->merging_layer;
    bool up = h->merge_options.direction == DISK_MERGE_UP;
    AUTO_FREE char *lower = layer_path(h, layer - 1);
    AUTO_FREE char *upper = layer_path(h, layer);
    struct disk_merged *merged;

    snprintf(h->step, sizeof h->step, "leave out layer %u of %u", up ? layer - 1 : layer, h->layers);
    MUST(h, disk_merged_open(h->io, up ? upper : lower, up ? lower : upper, &merged, &err));
    MUST(h, disk_merged_take(h->disk, merged, &err));
    disk_merged_free(merged);
    if (up) {
        AUTO_FREE char *below = layer_path(h, layer - 2);
        lend(h, layer, 1);
        MUST(h, vhd_reparent(h->io, upper, below, &err));
        disk_take_back(h->disk);
    } else {
        relink_layer(h, layer + 1, lower);
    }
    forget_layer(h, layer, up);
    if (disk_depth(h->disk) != h->layers)
        fail(h, "depth");
    h->open_merges++;
}

static void merging_step(struct history *h)
{
    bool more;

    snprintf(h->step, sizeof h->step, "go on to merge layer %u of %u", h->merging_layer, h->layers);
    MUST(h, disk_merging_step(h->merging, 1 + random_below(&h->random, 1U << 20), &more, &err));
    if (more)
        return;
    merging_end(h);
    merging_take(h);
}

/* --- while the disk is closed --- */

static void new_child(struct history *h)
{
    uint64_t size = h->size;

    if (h->layers == h->max_layers)
        return;
    keep_sealed(h);
    if (!h->one_size && random_below(&h->random, 3) == 0) {
        size = any_size(h);
        if (size < h->size)
            memset(h->model + size, 0, (size_t)(h->size - size));
    }
    create(h, size);
    h->size = size;
}

/* Back to what a sealed layer holds; what was above it is gone. */
static void go_back(struct history *h)
{
    if (h->layers < 2)
        return;
    unsigned to = (unsigned)random_below(&h->random, h->layers - 1);
    if (deep(h) && to + 8 < h->layers)
        to = h->layers - 2;
    snprintf(h->step, sizeof h->step, "back from layer %u to %u", h->layers - 1, to);
    while (h->layers - 1 > to) {
        AUTO_FREE char *path = layer_path(h, --h->layers);
        MUST(h, io_unlink(h->io, path, &err));
        free(TAKE(h->sealed[h->layers]));
    }
    memset(h->model, 0, h->max_bytes);
    memcpy(h->model, h->sealed[to], h->sealed_size[to]);
    h->size = h->sealed_size[to];
    create(h, h->size);
}

static uint64_t size_of_layer(const struct history *h, unsigned layer)
{
    return layer + 1 == h->layers ? h->size : h->sealed_size[layer];
}

static void merge(struct history *h)
{
    struct disk_merge_result result = {0};

    if (h->layers < 2)
        return;
    unsigned layer = 1 + (unsigned)random_below(&h->random, h->layers - 1);
    AUTO_FREE char *path = layer_path(h, layer);
    AUTO_FREE char *child = layer + 1 < h->layers ? layer_path(h, layer + 1) : NULL;
    const char *const children[] = {child};
    bool up = layer > 1 && random_below(&h->random, 2) == 0;
    struct disk_merge_options options = {.direction = up ? DISK_MERGE_UP : DISK_MERGE_DOWN,
                                         .into_base = true,
                                         .children = children,
                                         .child_count = child && !up ? 1 : 0};
    snprintf(h->step, sizeof h->step, "merge layer %u of %u %s", layer, h->layers, up ? "up" : "down");
    if (disk_merge(h->io, path, &options, NULL, &result, &err)) {
        free(result.parent_path);
        forget_layer(h, layer, up);
        h->merges++;
    } else if (err.code != ERR_UNSUPPORTED || size_of_layer(h, layer) == size_of_layer(h, layer - 1)) {
        fail(h, "merge");
    }
}

static void grow(struct history *h)
{
    AUTO_FREE char *path = layer_path(h, h->layers - 1);
    uint64_t size = h->size + random_below(&h->random, (h->max_bytes - h->size) / h->unit + 1) * h->unit;
    bool larger_below = false;

    for (unsigned i = 0; i + 1 < h->layers; i++)
        larger_below = larger_below || h->sealed_size[i] > h->size;
    snprintf(h->step, sizeof h->step, "grow from %llu to %llu", (unsigned long long)h->size,
             (unsigned long long)size);
    if (disk_resize(h->io, path, size, NULL, &err))
        h->size = size;
    else if (err.code != ERR_UNSUPPORTED || !larger_below)
        fail(h, "resize");
}

static void no_repair(void *context, const char *text)
{
    snprintf(err.text, sizeof err.text, "%s", text);
    fail(context, "a repair where nothing is to repair");
}

static void repair(struct history *h)
{
    AUTO_FREE char *path = layer_path(h, (unsigned)random_below(&h->random, h->layers));

    snprintf(h->step, sizeof h->step, "repair %s", path);
    MUST(h, disk_repair(h->io, path, no_repair, any_fault, h, NULL, &err));
}

static void reopen(struct history *h)
{
    uint64_t choice = random_below(&h->random, 12);

    snprintf(h->step, sizeof h->step, "reopen at depth %u", h->layers);
    /* In a dynamic base the data of bits that were lost are a fault, until the merge is done again. */
    if (h->merging && h->merging_layer > 1 && choice % 2 == 0) {
        merging_kill(h);
    } else {
        merging_give_up(h);
        MUST(h, disk_close(TAKE(h->disk), &err));
    }
    if (choice < 6)
        new_child(h);
    else if (choice < 7)
        go_back(h);
    else if (choice < 9)
        merge(h);
    else if (choice < 10 && !h->one_size)
        grow(h);
    else if (choice < 11)
        repair(h);
    open_top(h);
}

static void step(struct history *h)
{
    uint64_t choice = random_below(&h->random, 100);

    if (deep(h) && random_below(&h->random, 8) == 0)
        seal_open(h);
    if (h->merging)
        merging_step(h);
    else if (random_below(&h->random, 10) == 0)
        merging_start(h);
    if (choice < 40)
        write_some(h, choice < 12);
    else if (choice < 52)
        zero_some(h, choice < 46);
    else if (choice < 82)
        read_some(h);
    else if (choice < 88)
        check_status(h);
    else if (choice < 93)
        flush(h);
    else if (choice < 97)
        seal_open(h);
    else
        reopen(h);
}

static void compare_all(struct history *h, struct disk *disk, const uint8_t *model, uint64_t size)
{
    if (disk_size_bytes(disk) != size)
        fail(h, "size");
    for (uint64_t offset = 0; offset < size; offset += MAX_REQUEST)
        compare(h, disk, model, offset, min_u64(MAX_REQUEST, size - offset));
}

static void check_sealed(struct history *h)
{
    struct disk_options options = {.io = h->io};

    for (unsigned i = 0; i + 1 < h->layers; i++) {
        AUTO_FREE char *path = layer_path(h, i);
        AUTO_DISK struct disk *disk = NULL;
        snprintf(h->step, sizeof h->step, "sealed layer %u", i);
        MUST(h, disk_open(path, &options, &disk, &err));
        compare_all(h, disk, h->sealed[i], h->sealed_size[i]);
    }
}

static void check_faults(struct history *h)
{
    AUTO_FREE char *path = layer_path(h, h->layers - 1);

    snprintf(h->step, sizeof h->step, "the check of %u layers", h->layers);
    MUST(h, disk_check(h->io, path, any_fault, h, NULL, &err));
}

/* --- what is left for others to read --- */

static struct io_file *new_file(struct history *h, const char *name)
{
    AUTO_FREE char *path = path_join(h->folder, name);
    struct io_file *file;

    if (!path)
        abort();
    MUST(h, io_open(&io_real, path, IO_CREATE, &file, &err));
    return file;
}

static void write_unless_zeros(struct history *h, struct io_file *file, uint64_t offset, const uint8_t *bytes,
                               size_t length)
{
    if (!bytes_are_zero(bytes, length))
        MUST(h, io_write(file, offset, bytes, length, &err));
}

static void leave_image(struct history *h, unsigned layer)
{
    AUTO_FREE char *path = layer_path(h, layer);
    AUTO_IO struct io_file *from = NULL, *to = new_file(h, path_base(path));
    struct io_stat stat;

    MUST(h, io_open(h->io, path, IO_READ_ONLY, &from, &err) && io_stat_file(from, &stat, &err));
    MUST(h, io_truncate(to, stat.size_bytes, &err));
    for (uint64_t offset = 0; offset < stat.size_bytes; offset += MAX_REQUEST) {
        size_t length = (size_t)min_u64(MAX_REQUEST, stat.size_bytes - offset);
        MUST(h, io_read(from, offset, h->bytes, length, &err));
        write_unless_zeros(h, to, offset, h->bytes, length);
    }
}

static void leave_model(struct history *h, unsigned layer, const uint8_t *model, uint64_t size)
{
    AUTO_FREE char *name = string_printf("layer%u.raw", h->ids[layer]);

    if (!name)
        abort();
    AUTO_IO struct io_file *file = new_file(h, name);
    MUST(h, io_truncate(file, size, &err));
    for (uint64_t offset = 0; offset < size; offset += 65536)
        write_unless_zeros(h, file, offset, model + offset, (size_t)min_u64(65536, size - offset));
}

static void leave_all(struct history *h)
{
    snprintf(h->step, sizeof h->step, "what is left in %.60s", h->folder);
    for (unsigned i = 0; i < h->layers; i++)
        leave_image(h, i);
    leave_model(h, h->layers - 1, h->model, h->size);
    if (h->layers > 1)
        leave_model(h, 0, h->sealed[0], h->sealed_size[0]);
    if (h->layers > 2) {
        unsigned layer = 1 + (unsigned)random_below(&h->random, h->layers - 2);
        leave_model(h, layer, h->sealed[layer], h->sealed_size[layer]);
    }
}

static void history_start(struct history *h)
{
    h->unit = h->seed % 3 == 0 ? 4096 : 512;
    h->one_size = h->seed % 2 == 0;
    h->memory = io_memory_new(IO_MEMORY_PLAIN);
    h->io = io_memory_io(h->memory);
    h->max_bytes = deep(h) ? DEEP_MAX_BYTES : MAX_BYTES;
    h->model = calloc(1, h->max_bytes);
    h->bytes = malloc(MAX_REQUEST);
    if (!h->model || !h->bytes)
        abort();
    MUST(h, io_make_dir(h->io, "/vm", &err) && io_make_dir(h->io, "/vm/base", &err));
    MUST(h, io_make_dir(h->io, "/vm/snapshots", &err));
    h->size = any_size(h);
    create(h, h->size);
    open_top(h);
}

static void history_end(struct history *h)
{
    snprintf(h->step, sizeof h->step, "the end");
    merging_give_up(h);
    compare_all(h, h->disk, h->model, h->size);
    MUST(h, disk_flush(h->disk, &err));
    if (!disk_sealed_layers_are_clean(h->disk))
        fail(h, "a sealed layer is not clean behind a flush");
    MUST(h, disk_close(TAKE(h->disk), &err));
    open_top(h);
    compare_all(h, h->disk, h->model, h->size);
    disk_abandon(h->disk);
    check_sealed(h);
    check_faults(h);
    if (h->folder)
        leave_all(h);
    for (unsigned i = 0; i < MAX_LAYERS; i++)
        free(h->sealed[i]);
    free(h->model);
    free(h->bytes);
    io_memory_free(h->memory);
}

struct sums {
    unsigned deepest;
    uint64_t merges, open_merges;
};

static void run(uint64_t seed, unsigned max_layers, const char *folder, struct sums *sums)
{
    struct history h = {.seed = seed, .random = {.state = seed}, .max_layers = max_layers, .folder = folder};
    unsigned operations = deep(&h) ? DEEP_PER_LAYER * max_layers : OPERATIONS;

    history_start(&h);
    for (unsigned i = 0; i < operations; i++)
        step(&h);
    history_end(&h);
    sums->deepest = h.deepest > sums->deepest ? h.deepest : sums->deepest;
    sums->merges += h.merges;
    sums->open_merges += h.open_merges;
}

int main(int argc, char **argv)
{
    uint64_t histories = argc > 1 ? strtoull(argv[1], NULL, 10) : 25;
    uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;
    unsigned layers = argc > 3 ? (unsigned)strtoul(argv[3], NULL, 10) : USUAL_LAYERS;
    struct sums sums = {0};

    if (layers < 1 || layers > MAX_LAYERS)
        return 2;
    for (uint64_t i = 0; i < histories; i++)
        run(first + i, layers, argc > 4 && i + 1 == histories ? argv[4] : NULL, &sums);
    printf(
        "%llu histories from seed %llu agree with the model; the deepest chain had %u layers; %llu merges, %llu of "
        "layers in use\n",
        (unsigned long long)histories, (unsigned long long)first, sums.deepest,
        (unsigned long long)(sums.merges + sums.open_merges), (unsigned long long)sums.open_merges);
    return 0;
}
