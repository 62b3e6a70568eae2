/* What bench/merge lets work:
 *
 *   merge_work make DIRECTORY MIB STEP_BYTES WRITE_BYTES
 *       base.vhd, parent.avhd over it and child.avhd over that, each of the two with writes of WRITE_BYTES every STEP_BYTES: the
 *       parent's in the first MIB, the child's between them, or behind them where there is no place; top.avhd, empty
 *   merge_work merge (down|up) CHILD
 *       disk_merge(); prints the bytes copied and the seconds until they are durable
 *   merge_work serve TOP SOCKET
 *       an engine; each line `merge (down|up) CHILD PARENT (yields|hurries)` on standard input is a merge as a worker does it beside
 *       a machine: prints the bytes and the seconds */
#include "buf.h"
#include "disk_tools.h"
#include "engine.h"
#include "merge_job.h"
#include "random.h"

#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/eventfd.h>
#include <time.h>
#include <unistd.h>

#define DISK_BYTES (64ULL << 30)

static int fail(const struct err *err)
{
    fprintf(stderr, "merge_work: %s\n", err->text);
    return 1;
}

static double now_s(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

struct shape {
    uint64_t first, bytes, step, write;
};

static bool fill(const char *path, const struct shape *shape, uint64_t seed, struct err *err)
{
    struct disk_options options = {.io = &io_real, .writable = true};
    AUTO_FREE uint8_t *bytes = malloc(shape->write);
    struct random random = {.state = seed};
    struct disk *disk;

    if (!bytes || !disk_open(path, &options, &disk, err))
        return bytes || err_oom(err);
    bool ok = true;
    for (uint64_t offset = 0; ok && offset + shape->step <= shape->bytes; offset += shape->step) {
        random_fill(&random, bytes, shape->write);
        ok = disk_write(disk, shape->first + offset, bytes, shape->write, err);
    }
    struct err ignored;
    return disk_close(disk, ok ? err : &ignored) && ok;
}

static bool make(const char *dir, struct shape *shape, struct err *err)
{
    static const char *const NAMES[] = {"base.vhd", "parent.avhd", "child.avhd", "top.avhd"};
    AUTO_FREE char *below = NULL;

    for (size_t i = 0; i < 4; i++) {
        AUTO_FREE char *path = string_printf("%s/%s", dir, NAMES[i]);
        struct vhd_create_options options = {.type = below ? VHD_DIFFERENCING : VHD_DYNAMIC,
                                             .size_bytes = below ? 0 : DISK_BYTES,
                                             .parent_path = below};
        if (!path)
            return err_oom(err);
        if (!vhd_create(&io_real, path, &options, err) ||
            ((i == 1 || i == 2) && !fill(path, shape, i, err)))
            return false;
        if (i == 1)
            shape->first = shape->step > shape->write ? shape->step / 2 : shape->bytes;
        free(below);
        below = TAKE(path);
    }
    return true;
}

static int merge(const char *direction, const char *child)
{
    struct disk_merge_options options = {.direction = strcmp(direction, "up") == 0 ? DISK_MERGE_UP : DISK_MERGE_DOWN};
    struct disk_merge_result result;
    double start = now_s();
    struct err err;

    if (!disk_merge(&io_real, child, &options, NULL, &result, &err))
        return fail(&err);
    printf("%llu %.4f\n", (unsigned long long)result.copied_bytes, now_s() - start);
    free(result.parent_path);
    return 0;
}

static bool beside(struct engine *engine, char *words, struct err *err)
{
    const char *direction = strtok(words, " "), *child = strtok(NULL, " "), *parent = strtok(NULL, " ");
    const char *how = strtok(NULL, " \n");
    if (!how)
        return err_set(err, ERR_USAGE, "merge what?");
    struct plan_merging merging = {.parent = parent,
                                   .child = child,
                                   .direction = strcmp(direction, "up") == 0 ? MERGE_UP : MERGE_DOWN};
    AUTO_FD int over = eventfd(0, EFD_CLOEXEC);
    struct merge_job_options options = {.merging = &merging,
                                        .engine = engine,
                                        .engines = &engine,
                                        .engine_count = 1,
                                        .hurries = strcmp(how, "hurries") == 0,
                                        .over_fd = over};
    double start = now_s();
    AUTO(auto_merge_job_free) struct merge_job *job = NULL;
    uint64_t done, total;

    if (!merge_job_start(&options, &job, err))
        return false;
    struct pollfd fd = {.fd = over, .events = POLLIN};
    while (poll(&fd, 1, -1) <= 0)
        continue;
    merge_job_progress(job, &done, &total);
    if (!merge_job_join(job, err))
        return false;
    printf("%llu %.4f\n", (unsigned long long)done, now_s() - start);
    return true;
}

static int serve(const char *top, const char *socket)
{
    struct engine_options options = {.socket_path = socket, .export_name = ""};
    struct disk_options disk_options = {.io = &io_real, .writable = true};
    struct engine *engine;
    struct disk *disk;
    char line[4096];
    struct err err;

    if (!disk_open(top, &disk_options, &disk, &err) || !engine_start(disk, &options, &engine, &err))
        return fail(&err);
    puts("ok");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin)) {
        if (strncmp(line, "merge ", 6) == 0 && !beside(engine, line + 6, &err))
            printf("error %s\n", err.text);
        fflush(stdout);
    }
    return engine_stop(engine, &err) ? 0 : fail(&err);
}

int main(int argc, char **argv)
{
    struct err err;

    if (argc == 6 && strcmp(argv[1], "make") == 0) {
        struct shape shape = {.bytes = strtoull(argv[3], NULL, 10) << 20,
                              .step = strtoull(argv[4], NULL, 10),
                              .write = strtoull(argv[5], NULL, 10)};
        return make(argv[2], &shape, &err) ? 0 : fail(&err);
    }
    if (argc == 4 && strcmp(argv[1], "merge") == 0)
        return merge(argv[2], argv[3]);
    if (argc == 4 && strcmp(argv[1], "serve") == 0)
        return serve(argv[2], argv[3]);
    fputs("usage: see merge_work.c\n", stderr);
    return 2;
}
