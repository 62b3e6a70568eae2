/* An engine to be looked at by outside clients: serves a chain and does what it is told on standard input.
 *
 *   nbd_serve create (fixed|dynamic) FILE SIZE_BYTES
 *   nbd_serve create differencing FILE PARENT
 *   nbd_serve serve TOP SOCKET [read-only] [name=NAME]
 *       answers each line with `ok ...` or `error ...`: prepare FILE, switch, flush, status; its end stops
 * the engine.
 */
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
