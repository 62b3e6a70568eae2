/* An engine to be looked at by outside clients: serves a chain and does what it is told on standard input.
 *
 *   nbd_serve create (fixed|dynamic) FILE SIZE_BYTES
 *   nbd_serve create differencing FILE PARENT
 *   nbd_serve serve TOP SOCKET [read-only] [name=NAME]
 *       answers each line with `ok ...` or `error ...`: prepare FILE, switch, flush, status; its end stops
 * the engine.
 *       merge (down|up) UPPER LOWER OTHER: two sealed layers become one and the other file goes; OTHER is what lies above
 * them (down; `top` if it is the top) or below (up)
 */
#include "disk_tools.h"
#include "engine.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

static int fail(const struct err *err)
{
    fprintf(stderr, "nbd_serve: %s\n", err->text);
    return 1;
}

static int create(const char *type, const char *path, const char *last)
{
    struct vhd_create_options options = {.type = VHD_DIFFERENCING};
    struct err err;

    if (strcmp(type, "differencing") == 0)
        options.parent_path = last;
    else
        options = (struct vhd_create_options){
            .type = strcmp(type, "fixed") == 0 ? VHD_FIXED : VHD_DYNAMIC,
            .size_bytes = strtoull(last, NULL, 10),
        };
    return vhd_create(&io_real, path, &options, &err) ? 0 : fail(&err);
}

static void answer(bool ok, const struct err *err)
{
    if (ok)
        puts("ok");
    else
        printf("error %s\n", err->text);
    fflush(stdout);
}

static void status_print(struct engine *engine)
{
    struct engine_status status;

    engine_status_get(engine, &status);
    printf("ok depth=%zu clients=%llu reads=%llu writes=%llu flushes=%llu dirty=%llu io_uring=%d\n",
           status.depth, (unsigned long long)status.clients, (unsigned long long)status.reads,
           (unsigned long long)status.writes, (unsigned long long)status.flushes,
           (unsigned long long)status.dirty_bytes, status.io_uring);
    fflush(stdout);
}

/* The copying, on this thread beside the engine's. */
static bool copy(struct engine *engine, const char *upper, const char *lower, bool up, struct err *err)
{
    const char *const paths[] = {upper, lower};
    const struct disk_merge_options options = {.direction = up ? DISK_MERGE_UP : DISK_MERGE_DOWN,
                                               .into_base = true,
                                               .borrowed = true,
                                               .parent_path = lower};
    AUTO_DISK_MERGING struct disk_merging *merging = NULL;
    bool more = true;

    if (!engine_lend(engine, paths, 2, err))
        return false;
    bool ok = disk_merging_open(&io_real, upper, &options, NULL, &merging, err);
    while (ok && more)
        ok = disk_merging_step(merging, 1 << 20, &more, err);
    ok = ok && disk_merging_finish(merging, err);
    disk_merging_close(TAKE(merging));
    engine_take_back(engine);
    return ok;
}

static bool link_sealed(struct engine *engine, const char *path, const char *parent, struct err *err)
{
    AUTO_VHD struct vhd *image = NULL;

    if (!engine_lend(engine, &path, 1, err))
        return false;
    bool ok = vhd_open(&io_real, path, IO_WRITE | VHD_BORROWED, &image, err) && vhd_reparent_open(image, parent, err);
    vhd_close(TAKE(image));
    engine_take_back(engine);
    return ok;
}

static bool merge(struct engine *engine, char *words, struct err *err)
{
    const char *direction = strtok(words, " "), *upper = strtok(NULL, " "), *lower = strtok(NULL, " ");
    const char *other = strtok(NULL, " ");
    bool up = strcmp(direction, "up") == 0, top = other && strcmp(other, "top") == 0;

    if (!other)
        return err_set(err, ERR_USAGE, "merge what?");
    if (!copy(engine, upper, lower, up, err) || !engine_merged(engine, up ? upper : lower, up ? lower : upper, err))
        return false;
    bool linked = top  ? engine_reparent_top(engine, lower, err)
                  : up ? link_sealed(engine, upper, other, err)
                       : link_sealed(engine, other, lower, err);
    return linked && io_unlink(&io_real, up ? lower : upper, err);
}

static void line_do(struct engine *engine, char *line)
{
    struct err err = ERR_INIT;

    line[strcspn(line, "\n")] = '\0';
    if (strncmp(line, "prepare ", 8) == 0) {
        answer(engine_prepare_top(engine, line + 8, &err), &err);
    } else if (strcmp(line, "switch") == 0) {
        engine_switch_top(engine);
        answer(true, NULL);
    } else if (strcmp(line, "flush") == 0) {
        answer(engine_flush(engine, &err), &err);
    } else if (strncmp(line, "merge ", 6) == 0) {
        answer(merge(engine, line + 6, &err), &err);
    } else if (strcmp(line, "status") == 0) {
        status_print(engine);
    } else {
        puts("error what?");
        fflush(stdout);
    }
}

static int serve(int count, char **arguments)
{
    struct engine_options options = {.socket_path = arguments[1], .export_name = ""};
    struct engine *engine;
    struct disk *disk;
    struct err err;
    char line[4096];

    for (int i = 2; i < count; i++) {
        if (strcmp(arguments[i], "read-only") == 0)
            options.read_only = true;
        else if (strncmp(arguments[i], "name=", 5) == 0)
            options.export_name = arguments[i] + 5;
    }
    signal(SIGXFSZ, SIG_IGN); /* tests limit the size of files, to have ENOSPC */
    struct disk_options disk_options = {.io = &io_real, .writable = !options.read_only};
    if (!disk_open(arguments[0], &disk_options, &disk, &err) || !engine_start(disk, &options, &engine, &err))
        return fail(&err);
    puts("ok");
    fflush(stdout);
    while (fgets(line, sizeof line, stdin))
        line_do(engine, line);
    return engine_stop(engine, &err) ? 0 : fail(&err);
}

int main(int argc, char **argv)
{
    if (argc == 5 && strcmp(argv[1], "create") == 0)
        return create(argv[2], argv[3], argv[4]);
    if (argc >= 4 && strcmp(argv[1], "serve") == 0)
        return serve(argc - 2, argv + 2);
    fputs("usage: see nbd_serve.c\n", stderr);
    return 2;
}
