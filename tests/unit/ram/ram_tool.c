/* The folder's functions as a command, for scripts that drive a real QEMU:
 *   ram_tool save FD BIN VSV MEMORY_BYTES    ram_tool load FD VSV
 *   ram_tool hurry FD BIN VSV MEMORY_BYTES   the same as save, taken into memory first from the start
 *   ram_tool check VSV BIN                   ram_tool verify VSV BIN */
#include "ram.h"

#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

static int fail(const struct err *err)
{
    fprintf(stderr, "%s: %s\n", err_name(err->code), err->text);
    return 1;
}

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static int save_with(char **arguments, bool in_hurry)
{
    struct err err = ERR_INIT;
    struct ram_save *save = NULL;
    struct ram_save_result result;
    struct ram_save_options options = {
        .stream_fd = atoi(arguments[0]),
        .bin_path = arguments[1],
        .vsv_path = arguments[2],
        .info = {.id = guid_new(), .memory_bytes = strtoull(arguments[3], NULL, 10), .qemu_version = "test"}};
    if (!ram_save_start(&options, &save, &err))
        return fail(&err);
    if (in_hurry)
        ram_save_hurry(save);
    if (!ram_save_finish(save, &result, &err))
        return fail(&err);
    printf("{\"stream_bytes\": %" PRIu64 ", \"pages\": %" PRIu64 ", \"zero_pages\": %" PRIu64
           ", \"resent_pages\": %" PRIu64 ", \"state_bytes\": %" PRIu64 "}\n",
           result.stream_bytes, result.pages, result.zero_pages, result.resent_pages, result.state_bytes);
    return 0;
}

static int save(char **arguments)
{
    return save_with(arguments, false);
}

static int hurry(char **arguments)
{
    return save_with(arguments, true);
}

static int load(char **arguments)
{
    struct err err = ERR_INIT;
    struct ram_load *load = NULL;
    if (!ram_load_start(arguments[1], atoi(arguments[0]), &load, &err) || !ram_load_finish(load, &err))
        return fail(&err);
    return 0;
}

static int check(char **arguments)
{
    struct err err = ERR_INIT;
    struct vsv_info info;
    if (!ram_check(arguments[0], arguments[1], &info, &err))
        return fail(&err);
    printf("{\"machine\": \"%s\", \"memory_bytes\": %" PRIu64 "}\n", info.machine, info.memory_bytes);
    return 0;
}

static int verify(char **arguments)
{
    struct err err = ERR_INIT;
    double start = now_s();
    if (!ram_verify(arguments[0], arguments[1], NULL, &err))
        return fail(&err);
    printf("{\"seconds\": %.3f}\n", now_s() - start);
    return 0;
}

int main(int count, char **arguments)
{
    static const struct {
        const char *name;
        int count;
        int (*run)(char **arguments);
    } verbs[] = {{"save", 4, save},
                 {"hurry", 4, hurry},
                 {"load", 2, load},
                 {"check", 2, check},
                 {"verify", 2, verify}};
    for (size_t i = 0; count >= 2 && i < sizeof(verbs) / sizeof(verbs[0]); i++) {
        if (strcmp(arguments[1], verbs[i].name) == 0 && count == verbs[i].count + 2)
            return verbs[i].run(arguments + 2);
    }
    fprintf(stderr, "usage: ram_tool save|load|check|verify ...\n");
    return 2;
}
