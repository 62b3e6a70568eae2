/* The content of content.h, brought into being and looked at again:
 *
 *   chain_make own DIRECTORY SIZE_BYTES DATA_BYTES LAYERS WRITES SEED
 *       a chain of VHD images, 0.vhd (the base) and 1.avhd, 2.avhd, ...
 *   chain_make raw FILE SIZE_BYTES DATA_BYTES SEED
 *       the base's content as a raw file
 *   chain_make layer SOCKET DATA_BYTES LAYER WRITES SEED CLUSTER_BYTES
 *       over NBD: the writes of one layer into an image without its parents, each as the whole cluster that a
 * write through the chain would have copied up. So a chain of a format that copies up is made in a time
 * linear in its depth chain_make tops DIRECTORY PARENT COUNT empty differencing images, each the child of the
 * one before: DIRECTORY/0.avhd, ... chain_make check SOCKET DATA_BYTES LAYER WRITES SEED SAMPLES over NBD:
 * pages at random, and all that the topmost layers wrote, hold what a chain up to LAYER must
 *
 * DATA_BYTES are the first of the disk's SIZE_BYTES. */
#include "buf.h"
#include "content.h"
#include "disk.h"
#include "file.h"
#include "nbd_client.h"
#include "vhd.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>

#define CHUNK_PAGES 256U

/* Nothing made here has to outlive a crash: one sync at the end serves for all. */
static int sync_later(struct io_file *file)
{
    (void)file;
    return 0;
}

static bool number_parse(const char *text, uint64_t limit, uint64_t *ret, struct err *err)
{
    char *end;

    errno = 0;
    unsigned long long value = strtoull(text, &end, 10);
    if (errno != 0 || end == text || *end != '\0' || value > limit)
        return err_set(err, ERR_USAGE, "%s: no number up to %llu", text, (unsigned long long)limit);
    *ret = value;
    return true;
}

static bool content_parse(const char *data_bytes, const char *writes, const char *seed,
                          struct content *ret_content, struct err *err)
{
    uint64_t data, write_count, seed_number;

    if (!number_parse(data_bytes, 1ULL << 40, &data, err) ||
        !number_parse(writes, 1U << 20, &write_count, err) ||
        !number_parse(seed, UINT32_MAX, &seed_number, err))
        return false;
    if (data == 0 || data % (CHUNK_PAGES * CONTENT_PAGE_BYTES) != 0)
        return err_set(err, ERR_USAGE, "the data region is a multiple of 1 MiB");
    ret_content->seed = seed_number;
    ret_content->pages = (uint32_t)(data / CONTENT_PAGE_BYTES);
    ret_content->writes = (uint32_t)write_count;
    return true;
}

static bool layer_parse(const char *text, uint64_t *ret_layer, struct err *err)
{
    return number_parse(text, CONTENT_MAX_LAYERS - 1, ret_layer, err);
}

/* --- own chains --- */

static bool base_fill(const struct content *content, struct disk *disk, struct err *err)
{
    static uint8_t chunk[CHUNK_PAGES * CONTENT_PAGE_BYTES];

    for (uint32_t page = 0; page < content->pages; page += CHUNK_PAGES) {
        for (uint32_t i = 0; i < CHUNK_PAGES; i++)
            content_page(content, page + i, 0, chunk + i * CONTENT_PAGE_BYTES);
        if (!disk_write(disk, (uint64_t)page * CONTENT_PAGE_BYTES, chunk, sizeof chunk, err))
            return false;
    }
    return true;
}

/* As a snapshot does it: the sealed layer gives back the space that it has not filled. */
static bool layer_push(const struct io *io, struct disk *disk, const char *path, const char *parent_path,
                       struct err *err)
{
    struct vhd_create_options options = {.type = VHD_DIFFERENCING, .parent_path = parent_path};
    struct disk_next_top *next;
    struct disk_gap gap;

    if (!vhd_create(io, path, &options, err) || !disk_next_top_open(disk, path, &next, err))
        return false;
    disk_seal_and_push(disk, next);
    if (!disk_flush(disk, err))
        return false;
    while (disk_release_next(disk, &gap)) {
        if (!io_zero(gap.file, gap.file_offset, gap.length, err))
            return false;
    }
    return true;
}

static bool layer_write(const struct content *content, struct disk *disk, unsigned layer, struct err *err)
{
    struct random pages = content_layer_begin(content, layer);
    uint8_t bytes[CONTENT_PAGE_BYTES];

    for (uint32_t i = 0; i < content->writes; i++) {
        uint32_t page = content_layer_next(content, &pages);
        content_page(content, page, layer, bytes);
        if (!disk_write(disk, (uint64_t)page * CONTENT_PAGE_BYTES, bytes, sizeof bytes, err))
            return false;
    }
    return true;
}

static char *layer_path(const char *directory, unsigned layer)
{
    return string_printf("%s/%u.%s", directory, layer, layer == 0 ? "vhd" : "avhd");
}

static bool own_layers(const struct io *io, const struct content *content, struct disk *disk,
                       const char *directory, unsigned layers, struct err *err)
{
    for (unsigned layer = 1; layer < layers; layer++) {
        AUTO_FREE char *parent_path = layer_path(directory, layer - 1);
        AUTO_FREE char *path = layer_path(directory, layer);
        if (!parent_path || !path)
            return err_oom(err);
        if (!layer_push(io, disk, path, parent_path, err) || !layer_write(content, disk, layer, err))
            return false;
    }
    return true;
}

static bool own_make(char **arguments, struct err *err)
{
    struct io_ops ops = *io_real.ops;
    struct io io = {.ops = &ops};
    struct disk_options options = {.io = &io, .writable = true};
    struct content content;
    uint64_t size_bytes, layers;
    struct disk *disk;

    ops.sync = sync_later;
    if (!number_parse(arguments[1], VHD_MAX_SIZE_BYTES, &size_bytes, err) ||
        !content_parse(arguments[2], arguments[4], arguments[5], &content, err) ||
        !layer_parse(arguments[3], &layers, err))
        return false;
    open_files_raise();
    AUTO_FREE char *path = layer_path(arguments[0], 0);
    if (!path)
        return err_oom(err);
    struct vhd_create_options base = {.type = VHD_DYNAMIC, .size_bytes = size_bytes};
    if (!vhd_create(&io, path, &base, err) || !disk_open(path, &options, &disk, err))
        return false;
    bool ok = base_fill(&content, disk, err) &&
              own_layers(&io, &content, disk, arguments[0], (unsigned)layers, err);
    if (ok)
        return disk_close(disk, err);
    disk_abandon(disk);
    return false;
}

static bool tops_make(char **arguments, struct err *err)
{
    AUTO_FREE char *parent_path = strdup(arguments[1]);
    struct io_ops ops = *io_real.ops;
    struct io io = {.ops = &ops};
    uint64_t count;

    ops.sync = sync_later;
    if (!parent_path)
        return err_oom(err);
    if (!layer_parse(arguments[2], &count, err))
        return false;
    for (uint64_t i = 0; i < count; i++) {
        struct vhd_create_options options = {.type = VHD_DIFFERENCING, .parent_path = parent_path};
        AUTO_FREE char *path = string_printf("%s/%llu.avhd", arguments[0], (unsigned long long)i);
        if (!path)
            return err_oom(err);
        if (!vhd_create(&io, path, &options, err))
            return false;
        free(parent_path);
        parent_path = TAKE(path);
    }
    return true;
}

/* --- others' images --- */

static bool raw_make(char **arguments, struct err *err)
{
    static uint8_t chunk[CHUNK_PAGES * CONTENT_PAGE_BYTES];
    struct content content;
    uint64_t size_bytes;

    if (!number_parse(arguments[1], INT64_MAX, &size_bytes, err) ||
        !content_parse(arguments[2], "0", arguments[3], &content, err))
        return false;
    AUTO_IO struct io_file *file = NULL;
    if (!io_open(&io_real, arguments[0], IO_CREATE | IO_WRITE, &file, err) ||
        !io_truncate(file, size_bytes, err))
        return false;
    for (uint32_t page = 0; page < content.pages; page += CHUNK_PAGES) {
        for (uint32_t i = 0; i < CHUNK_PAGES; i++)
            content_page(&content, page + i, 0, chunk + i * CONTENT_PAGE_BYTES);
        if (!io_write(file, (uint64_t)page * CONTENT_PAGE_BYTES, chunk, sizeof chunk, err))
            return false;
    }
    return true;
}

static bool cluster_write(const struct content *content, const uint16_t *versions, struct nbd_client *client,
                          uint32_t first_page, uint8_t *cluster, uint32_t cluster_pages, struct err *err)
{
    uint32_t pages = (uint32_t)min_u64(cluster_pages, content->pages - first_page);

    for (uint32_t i = 0; i < pages; i++)
        content_page(content, first_page + i, versions[first_page + i], cluster + i * CONTENT_PAGE_BYTES);
    return nbd_client_write(client, (uint64_t)first_page * CONTENT_PAGE_BYTES, cluster,
                            pages * CONTENT_PAGE_BYTES, err);
}

static bool layer_send(char **arguments, struct err *err)
{
    AUTO_NBD_CLIENT struct nbd_client client = {.fd = -1};
    struct content content;
    uint64_t layer, cluster_bytes;

    if (!content_parse(arguments[1], arguments[3], arguments[4], &content, err) ||
        !layer_parse(arguments[2], &layer, err) || !number_parse(arguments[5], 2U << 20, &cluster_bytes, err))
        return false;
    if (cluster_bytes < CONTENT_PAGE_BYTES || !is_power_of_two(cluster_bytes))
        return err_set(err, ERR_USAGE, "a cluster is a power of two from 4096");
    uint32_t cluster_pages = (uint32_t)(cluster_bytes / CONTENT_PAGE_BYTES);
    AUTO_FREE uint16_t *versions = calloc(content.pages, sizeof *versions);
    AUTO_FREE uint8_t *cluster = malloc(cluster_bytes);
    if (!versions || !cluster)
        return err_oom(err);
    content_versions(&content, (unsigned)layer, versions);
    if (!nbd_client_connect(arguments[0], false, &client, err))
        return false;
    struct random pages = content_layer_begin(&content, (unsigned)layer);
    for (uint32_t i = 0; i < content.writes; i++) {
        uint32_t first_page = content_layer_next(&content, &pages) / cluster_pages * cluster_pages;
        if (!cluster_write(&content, versions, &client, first_page, cluster, cluster_pages, err))
            return false;
    }
    return true;
}

/* --- check --- */

struct check {
    struct content content;
    struct nbd_client client;
    uint16_t *versions;
};

static bool page_check(struct check *check, uint32_t page, struct err *err)
{
    uint8_t expected[CONTENT_PAGE_BYTES], found[CONTENT_PAGE_BYTES];

    content_page(&check->content, page, check->versions[page], expected);
    if (!nbd_client_read(&check->client, (uint64_t)page * CONTENT_PAGE_BYTES, found, sizeof found, err))
        return false;
    if (memcmp(expected, found, sizeof found) != 0)
        return err_set(err, ERR_CORRUPT, "page %u is not what layer %u wrote", page, check->versions[page]);
    return true;
}

static bool pages_check(struct check *check, unsigned top, uint64_t samples, struct err *err)
{
    struct random pages = {.state = check->content.seed + 1};
    uint64_t of_layers = samples / 2;

    for (uint64_t i = 0; i < samples - of_layers; i++) {
        if (!page_check(check, (uint32_t)random_below(&pages, check->content.pages), err))
            return false;
    }
    for (unsigned layer = top; layer > 0 && of_layers > 0; layer--) {
        struct random written = content_layer_begin(&check->content, layer);
        for (uint32_t i = 0; i < check->content.writes && of_layers > 0; i++, of_layers--) {
            if (!page_check(check, content_layer_next(&check->content, &written), err))
                return false;
        }
    }
    return true;
}

static bool check_do(char **arguments, struct err *err)
{
    AUTO_NBD_CLIENT struct nbd_client client = {.fd = -1};
    struct check check;
    uint64_t top, samples;

    if (!content_parse(arguments[1], arguments[3], arguments[4], &check.content, err) ||
        !layer_parse(arguments[2], &top, err) || !number_parse(arguments[5], UINT32_MAX, &samples, err))
        return false;
    AUTO_FREE uint16_t *versions = calloc(check.content.pages, sizeof *versions);
    if (!versions)
        return err_oom(err);
    content_versions(&check.content, (unsigned)top, versions);
    if (!nbd_client_connect(arguments[0], false, &client, err))
        return false;
    check.client = client;
    check.versions = versions;
    return pages_check(&check, (unsigned)top, samples, err);
}

static const struct {
    const char *name;
    int arguments;
    bool (*run)(char **arguments, struct err *err);
} COMMANDS[] = {
    {"own", 6, own_make},   {"raw", 4, raw_make},   {"layer", 6, layer_send},
    {"tops", 3, tops_make}, {"check", 6, check_do},
};

int main(int argc, char **argv)
{
    struct err err = ERR_INIT;

    for (size_t i = 0; i < ARRAY_SIZE(COMMANDS); i++) {
        if (argc < 2 || strcmp(argv[1], COMMANDS[i].name) != 0 || argc != COMMANDS[i].arguments + 2)
            continue;
        if (COMMANDS[i].run(argv + 2, &err))
            return 0;
        fprintf(stderr, "chain_make %s: %s\n", argv[1], err.text);
        return 1;
    }
    fputs("usage: see chain_make.c\n", stderr);
    return 2;
}
