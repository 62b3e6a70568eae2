/* `bough disk serve`: a chain for other tools, over NBD, until a signal ends it. */
#include "cli_disk.h"
#include "cli_output.h"
#include "engine.h"
#include "file.h"
#include "nbd_uri.h"

#include <signal.h>
#include <stdio.h>
#include <string.h>

struct args {
    const char *socket, *name;
    bool writable, json;
};

static const struct cli_option OPTIONS[] = {
    {"socket", CLI_TEXT, offsetof(struct args, socket), "PATH",
     "where to listen; without it in a new directory under $TMPDIR"},
    {"name", CLI_TEXT, offsetof(struct args, name), "NAME",
     "the export's name; without it any name is served"},
    {"writable", CLI_FLAG, offsetof(struct args, writable), NULL,
     "let clients write to FILE: nobody else may use it or have it as a parent"},
    CLI_JSON(struct args),
};
static const struct cli_syntax SYNTAX = {OPTIONS, ARRAY_SIZE(OPTIONS), 1, 1};

static void directory_remove(char *directory)
{
    rmdir(directory);
    free(directory);
}
AUTO_DEFINE(auto_directory_remove, char, directory_remove)

/* The socket's path, owned, NULL on failure; *ret_directory is set if one was made for it. */
static char *socket_choose(const struct args *args, char **ret_directory, struct err *err)
{
    if (!args->socket && !dir_make_private(ret_directory, err))
        return NULL;
    char *path = args->socket ? strdup(args->socket) : path_join(*ret_directory, "nbd");
    if (!path)
        (void)err_oom(err);
    return path;
}

static int announce(const struct args *args, const char *socket_path, uint64_t size_bytes)
{
    const char *name = args->name ? args->name : "";
    AUTO_FREE char *uri = nbd_uri(name, socket_path);
    int status = 0;

    if (!uri)
        return 1;
    if (args->json) {
        json_auto_t *value = json_pack("{s:s, s:o, s:o, s:I, s:b}", "uri", uri, "socket",
                                       json_from_text(socket_path), "name", json_from_text(name),
                                       "size_bytes", (json_int_t)size_bytes, "read_only", !args->writable);
        status = output_json(value);
    } else {
        puts(uri);
    }
    return status == 0 ? output_flush() : status;
}

static void ending_signals(sigset_t *set)
{
    sigemptyset(set);
    sigaddset(set, SIGINT);
    sigaddset(set, SIGTERM);
    sigaddset(set, SIGHUP);
}

static int serve(const struct args *args, const char *file, const char *socket_path)
{
    AUTO_FREE char *log_dir = dirty_dir();
    struct disk_options disk_options = {.io = &io_real, .writable = args->writable, .log_dir = log_dir};
    struct engine_options options = {.socket_path = socket_path,
                                     .export_name = args->name ? args->name : "",
                                     .read_only = !args->writable};
    struct err err = ERR_INIT;
    struct engine *engine;
    struct disk *disk;
    sigset_t signals;
    int which;

    if (!disk_open(file, &disk_options, &disk, &err))
        return cli_fail(file, &err);
    uint64_t size_bytes = disk_size_bytes(disk);
    ending_signals(&signals);
    sigprocmask(SIG_BLOCK, &signals,
                NULL); /* before the socket is there: from then on an end is an orderly one */
    if (!engine_start(disk, &options, &engine, &err))
        return cli_fail(file, &err);
    int status = announce(args, socket_path, size_bytes);
    if (status == 0 && sigwait(&signals, &which) == 0 && which == SIGINT && isatty(STDERR_FILENO))
        fputc('\n', stderr); /* the terminal shows ^C */
    return engine_stop(engine, &err) ? status : cli_fail(file, &err);
}

int cmd_disk_serve(int argc, char **argv)
{
    AUTO(auto_directory_remove) char *directory = NULL;
    struct args args = {0};
    struct cli_operands operands;
    struct err err = ERR_INIT;
    int status;

    if (!cli_parse(&SYNTAX, argc, argv, &args, &operands, &status))
        return status;
    AUTO_FREE char *socket_path = socket_choose(&args, &directory, &err);
    if (!socket_path)
        return cli_fail(operands.items[0], &err);
    return serve(&args, operands.items[0], socket_path);
}
