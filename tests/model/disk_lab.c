/* For the scripts beside it: chains with a random history, and what Bough reads from any image.
 *
 *   disk_lab history DIR SEED ALIGN   makes DIR/base.vhd and DIR/N.avhd, all in one folder since 7-Zip looks
 * for parents only there; DIR/flat.raw holds what the top must read as, DIR/base.raw the base. Requests are
 * multiples of ALIGN bytes. Prints the top's path. disk_lab read FILE [BYTES]        the content on standard
 * output, or its first bytes disk_lab size FILE                its size in bytes */
#include "bytes.h"
#include "disk.h"
#include "file.h"
#include "random.h"

#include <stdio.h>
#include <string.h>

#define SIZE_BYTES (41U << 20)
#define LAYERS     5
#define CHUNK      (1U << 20)

static struct err err;

static void must(bool ok)
{
    if (ok)
        return;
    fprintf(stderr, "disk_lab: %s\n", err.text);
    exit(1);
}

static void dump(const char *dir, const char *name, const uint8_t *bytes, size_t length)
{
    AUTO_FREE char *path = path_join(dir, name);
    FILE *file = path ? fopen(path, "w") : NULL;

    if (!file || fwrite(bytes, 1, length, file) != length || fclose(file) != 0)
        must(err_set(&err, ERR_IO, "cannot write %s", name));
}

static void change(struct disk *disk, struct random *random, uint8_t *model, uint32_t align)
{
    AUTO_FREE uint8_t *bytes = malloc(64 * 8192);
    uint64_t units = SIZE_BYTES / align;
    uint64_t first = random_below(random, units);
    uint64_t count = min_u64(1 + random_below(random, 64), units - first);
    size_t length = (size_t)count * align;

    if (!bytes)
        abort();
    if (random_below(random, 4) == 0) {
        memset(model + first * align, 0, length);
        must(disk_zero(disk, first * align, length, &err));
        return;
    }
    random_fill(random, bytes, length);
    memcpy(model + first * align, bytes, length);
    must(disk_write(disk, first * align, bytes, length, &err));
}

static void history(const char *dir, uint64_t seed, uint32_t align)
{
    struct random random = {.state = seed};
    uint8_t *model = calloc(1, SIZE_BYTES);
    AUTO_FREE char *parent = NULL;

    if (!model)
        abort();
    for (unsigned layer = 0; layer < LAYERS; layer++) {
        char *path = layer == 0 ? string_printf("%s/base.vhd", dir) : string_printf("%s/%u.avhd", dir, layer);
        struct vhd_create_options create = {.type = layer == 0 ? VHD_DYNAMIC : VHD_DIFFERENCING,
                                            .size_bytes = SIZE_BYTES,
                                            .parent_path = parent};
        struct disk_options open = {.writable = true};
        struct disk *disk = NULL;
        must(vhd_create(&io_real, path, &create, &err) && disk_open(path, &open, &disk, &err));
        for (unsigned i = 0; i < 60; i++)
            change(disk, &random, model, align);
        must(disk_close(disk, &err));
        if (layer == 0)
            dump(dir, "base.raw", model, SIZE_BYTES);
        free(parent);
        parent = path;
    }
    dump(dir, "flat.raw", model, SIZE_BYTES);
    puts(parent);
    free(model);
}

static void print_size(const char *path)
{
    struct disk_options options = {0};
    AUTO_DISK struct disk *disk = NULL;

    must(disk_open(path, &options, &disk, &err));
    printf("%llu\n", (unsigned long long)disk_size_bytes(disk));
}

static void read_all(const char *path, uint64_t limit)
{
    struct disk_options options = {0};
    AUTO_DISK struct disk *disk = NULL;
    static uint8_t chunk[CHUNK];

    must(disk_open(path, &options, &disk, &err));
    limit = min_u64(limit, disk_size_bytes(disk));
    for (uint64_t offset = 0; offset < limit; offset += CHUNK) {
        size_t length = (size_t)min_u64(CHUNK, limit - offset);
        must(disk_read(disk, offset, chunk, length, &err));
        if (fwrite(chunk, 1, length, stdout) != length)
            must(err_set(&err, ERR_IO, "cannot write to standard output"));
    }
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "history") == 0)
        history(argv[2], strtoull(argv[3], NULL, 10), (uint32_t)strtoul(argv[4], NULL, 10));
    else if ((argc == 3 || argc == 4) && strcmp(argv[1], "read") == 0)
        read_all(argv[2], argc == 4 ? strtoull(argv[3], NULL, 10) / 512 * 512 : UINT64_MAX);
    else if (argc == 3 && strcmp(argv[1], "size") == 0)
        print_size(argv[2]);
    else
        return 2;
    return 0;
}
