/* Histories drawn from a seed, on a disk and on a flat array, compared: writes, zeros, flushes, seals while
 * open, new children of other sizes and block sizes while closed, re-opens; and in the end every sealed layer
 * against what the disk held when it was sealed.
 *
 *   test_disk_model [HISTORIES [FIRST_SEED]]        the default is a smoke test */
#include "bytes.h"
#include "disk.h"
#include "file.h"
#include "io_memory.h"
#include "random.h"

#include <stdio.h>
#include <string.h>

#define MAX_BYTES   (24U << 20)
#define MAX_LAYERS  12
#define OPERATIONS  150
#define MAX_REQUEST (3U << 20)

struct history {
    uint64_t seed;
    struct random random;
    struct io_memory *memory;
    const struct io *io;
    struct disk *disk;
    uint64_t size;
    uint8_t *model; /* MAX_BYTES; zeros from size on */
    uint8_t *bytes; /* MAX_REQUEST */
    unsigned layers;
    uint8_t *sealed[MAX_LAYERS]; /* what each layer held when it was sealed */
    uint64_t sealed_size[MAX_LAYERS];
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

static char *layer_path(unsigned layer)
{
    char *path =
        string_printf("/vm/%s/layer%u.%s", layer == 0 ? "base" : "snapshots", layer, layer ? "avhd" : "vhd");

    if (!path)
        abort();
    return path;
}

static uint32_t any_block_bytes(struct history *h)
{
    static const uint32_t SIZES[] = {4096, 16384, 65536, 512 << 10, 2 << 20, 2 << 20, 4 << 20, 8 << 20};

    return SIZES[random_below(&h->random, ARRAY_SIZE(SIZES))];
}

static void create(struct history *h, uint64_t size)
{
    AUTO_FREE char *path = layer_path(h->layers);
    AUTO_FREE char *parent = h->layers > 0 ? layer_path(h->layers - 1) : NULL;
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
}

static void open_top(struct history *h)
{
    AUTO_FREE char *path = layer_path(h->layers - 1);
    struct disk_options options = {.io = h->io, .writable = true};

    MUST(h, disk_open(path, &options, &h->disk, &err));
    if (disk_size_bytes(h->disk) != h->size || disk_depth(h->disk) != h->layers)
        fail(h, "size or depth");
}

/* Small ones mostly; on any sector, and at times over many blocks. */
static void any_range(struct history *h, uint64_t *offset, uint64_t *length)
{
    uint64_t sectors = h->size / 512;
    uint64_t most = random_below(&h->random, 8) == 0 ? MAX_REQUEST / 512
                    : random_below(&h->random, 2)    ? 16
                                                     : 300;

    *offset = random_below(&h->random, sectors);
    *length = 1 + random_below(&h->random, min_u64(most, sectors - *offset));
    if (random_below(&h->random, 4) == 0 && *offset % 4096 != 0)
        *offset = *offset / 4096 * 4096;
    *offset *= 512;
    *length *= 512;
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

static void zero_some(struct history *h)
{
    uint64_t offset, length;

    any_range(h, &offset, &length);
    snprintf(h->step, sizeof h->step, "zero %llu at %llu", (unsigned long long)length,
             (unsigned long long)offset);
    memset(h->model + offset, 0, (size_t)length);
    MUST(h, disk_zero(h->disk, offset, length, &err));
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

    h->sealed[top] = malloc(MAX_BYTES);
    if (!h->sealed[top])
        abort();
    memcpy(h->sealed[top], h->model, MAX_BYTES);
    h->sealed_size[top] = h->size;
}

static void seal_open(struct history *h)
{
    struct disk_next_top *next;

    if (h->layers == MAX_LAYERS)
        return;
    snprintf(h->step, sizeof h->step, "seal layer %u", h->layers - 1);
    create(h, 0);
    AUTO_FREE char *path = layer_path(h->layers - 1);
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

static void reopen(struct history *h)
{
    snprintf(h->step, sizeof h->step, "reopen at depth %u", h->layers);
    MUST(h, disk_close(TAKE(h->disk), &err));
    if (h->layers < MAX_LAYERS && random_below(&h->random, 2) == 0) {
        keep_sealed(h);
        uint64_t size = h->size;
        if (random_below(&h->random, 3) == 0) {
            size = (1 + random_below(&h->random, MAX_BYTES / 512)) * 512;
            if (size < h->size)
                memset(h->model + size, 0, (size_t)(h->size - size));
        }
        create(h, size);
        h->size = size;
    }
    open_top(h);
}

static void step(struct history *h)
{
    uint64_t choice = random_below(&h->random, 100);

    if (choice < 40)
        write_some(h, choice < 12);
    else if (choice < 52)
        zero_some(h);
    else if (choice < 82)
        read_some(h);
    else if (choice < 88)
        check_status(h);
    else if (choice < 93)
        MUST(h, disk_flush(h->disk, &err));
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
        AUTO_FREE char *path = layer_path(i);
        AUTO_DISK struct disk *disk = NULL;
        snprintf(h->step, sizeof h->step, "sealed layer %u", i);
        MUST(h, disk_open(path, &options, &disk, &err));
        compare_all(h, disk, h->sealed[i], h->sealed_size[i]);
    }
}

static void run(uint64_t seed)
{
    struct history h = {.seed = seed, .random = {.state = seed}, .memory = io_memory_new(IO_MEMORY_PLAIN)};

    h.io = io_memory_io(h.memory);
    h.model = calloc(1, MAX_BYTES);
    h.bytes = malloc(MAX_REQUEST);
    if (!h.model || !h.bytes)
        abort();
    MUST(&h, io_make_dir(h.io, "/vm", &err) && io_make_dir(h.io, "/vm/base", &err));
    MUST(&h, io_make_dir(h.io, "/vm/snapshots", &err));
    h.size = (1 + random_below(&h.random, MAX_BYTES / 512)) * 512;
    create(&h, h.size);
    open_top(&h);
    for (unsigned i = 0; i < OPERATIONS; i++)
        step(&h);
    snprintf(h.step, sizeof h.step, "the end");
    compare_all(&h, h.disk, h.model, h.size);
    MUST(&h, disk_flush(h.disk, &err));
    if (!disk_sealed_layers_are_clean(h.disk))
        fail(&h, "a sealed layer is not clean behind a flush");
    MUST(&h, disk_close(TAKE(h.disk), &err));
    open_top(&h);
    compare_all(&h, h.disk, h.model, h.size);
    check_sealed(&h);
    disk_abandon(h.disk);
    for (unsigned i = 0; i < h.layers; i++)
        free(h.sealed[i]);
    free(h.model);
    free(h.bytes);
    io_memory_free(h.memory);
}

int main(int argc, char **argv)
{
    uint64_t histories = argc > 1 ? strtoull(argv[1], NULL, 10) : 25;
    uint64_t first = argc > 2 ? strtoull(argv[2], NULL, 10) : 1;

    for (uint64_t i = 0; i < histories; i++)
        run(first + i);
    printf("%llu histories from seed %llu agree with the model\n", (unsigned long long)histories,
           (unsigned long long)first);
    return 0;
}
