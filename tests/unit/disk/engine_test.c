/* The engine as its callers see it: start, stop, messages from any thread. */
#include "engine.h"

#include "disk_private.h"
#include "io_failing.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>

#include <cmocka.h>

struct place {
    char directory[64];
    bool no_io_uring;
};

static int setup(void **state, bool no_io_uring)
{
    static struct place place;

    place = (struct place){.directory = "/tmp/bough-engine-XXXXXX", .no_io_uring = no_io_uring};
    assert_non_null(mkdtemp(place.directory));
    *state = &place;
    return 0;
}

static int setup_io_uring(void **state)
{
    return setup(state, false);
}

static int setup_plain(void **state)
{
    return setup(state, true);
}

static int teardown(void **state)
{
    const struct place *place = *state;
    char command[96];

    snprintf(command, sizeof command, "rm -r %s", place->directory);
    return system(command);
}

static const char *path_of(const struct place *place, const char *name)
{
    static char paths[4][128];
    static unsigned turn;
    char *path = paths[turn++ % 4];

    snprintf(path, sizeof paths[0], "%s/%s", place->directory, name);
    return path;
}

static void must(bool ok, const struct err *err)
{
    if (!ok)
        fail_msg("%s", err->text);
}

static void base_create(const struct place *place)
{
    struct vhd_create_options options = {.type = VHD_DYNAMIC, .size_bytes = 16 << 20};
    struct err err;

    must(vhd_create(&io_real, path_of(place, "base.vhd"), &options, &err), &err);
}

static void child_create(const struct place *place, const char *name, const char *parent)
{
    struct vhd_create_options options = {.type = VHD_DIFFERENCING, .parent_path = path_of(place, parent)};
    struct err err;

    must(vhd_create(&io_real, path_of(place, name), &options, &err), &err);
}

static struct disk *disk_of(const struct place *place, const struct io *io)
{
    struct disk_options options = {.io = io, .writable = true};
    struct disk *disk;
    struct err err;

    must(disk_open(path_of(place, "base.vhd"), &options, &disk, &err), &err);
    if (io != &io_real)
        disk_top(disk)->vhd->file->fd = -1; /* the engine asks the seam, not the kernel */
    return disk;
}

static bool start(const struct place *place, const struct io *io, const char *socket_path,
                  struct engine **ret_engine, struct err *err)
{
    struct engine_options options = {
        .socket_path = socket_path, .export_name = "", .no_io_uring = place->no_io_uring};

    return engine_start(disk_of(place, io), &options, ret_engine, err);
}

static struct engine *started(const struct place *place, const struct io *io)
{
    struct engine *engine;
    struct err err;

    base_create(place);
    must(start(place, io, path_of(place, "socket"), &engine, &err), &err);
    return engine;
}

static void stop(struct engine *engine)
{
    struct err err;

    must(engine_stop(engine, &err), &err);
}

static void socket_is_there_while_the_engine_runs(void **state)
{
    const struct place *place = *state;
    struct engine *engine = started(place, &io_real);
    struct stat st;

    assert_int_equal(lstat(path_of(place, "socket"), &st), 0);
    assert_true(S_ISSOCK(st.st_mode));
    assert_int_equal(st.st_mode & 07777, 0600);
    stop(engine);
    assert_int_equal(lstat(path_of(place, "socket"), &st), -1);
}

static void socket_path_of_108_bytes_is_refused_clearly(void **state)
{
    const struct place *place = *state;
    struct engine *engine = NULL;
    struct err err;
    char path[109] = "";

    base_create(place);
    memset(path, 'a', 108);
    memcpy(path, path_of(place, ""), strlen(place->directory) + 1);
    assert_false(start(place, &io_real, path, &engine, &err));
    assert_int_equal(err.code, ERR_INVALID);
    assert_non_null(strstr(err.text, "107"));
    assert_non_null(strstr(err.text, path));
    path[107] = '\0';
    must(start(place, &io_real, path, &engine, &err), &err);
    stop(engine);
}

static void old_socket_is_replaced_but_no_other_file(void **state)
{
    const struct place *place = *state;
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    struct engine *engine = NULL;
    struct err err;

    base_create(place);
    strcpy(address.sun_path, path_of(place, "socket"));
    AUTO_FD int old = socket(AF_UNIX, SOCK_STREAM, 0);
    assert_int_equal(bind(old, (const struct sockaddr *)&address, sizeof address), 0);
    must(start(place, &io_real, path_of(place, "socket"), &engine, &err), &err);
    stop(engine);
    AUTO_FD int file = open(path_of(place, "socket"), O_CREAT | O_WRONLY, 0600);
    assert_true(file >= 0);
    assert_false(start(place, &io_real, path_of(place, "socket"), &engine, &err));
    assert_int_equal(err.code, ERR_EXISTS);
    assert_int_equal(access(path_of(place, "socket"), F_OK), 0);
}

static void image_has_one_writer_at_a_time(void **state)
{
    const struct place *place = *state;
    struct disk_options write = {.io = &io_real, .writable = true}, read = {.io = &io_real};
    struct engine *engine = started(place, &io_real);
    struct disk *disk;
    struct err err;

    assert_false(disk_open(path_of(place, "base.vhd"), &write, &disk, &err));
    assert_int_equal(err.code, ERR_BUSY);
    must(disk_open(path_of(place, "base.vhd"), &read, &disk, &err), &err);
    disk_abandon(disk);
    /* Sealed and durable, it is still nobody's to write to, but a parent for others. */
    child_create(place, "one.avhd", "base.vhd");
    child_create(place, "two.avhd", "base.vhd");
    must(engine_prepare_top(engine, path_of(place, "one.avhd"), &err), &err);
    engine_switch_top(engine);
    must(engine_flush(engine, &err), &err);
    assert_false(disk_open(path_of(place, "base.vhd"), &write, &disk, &err));
    assert_int_equal(err.code, ERR_BUSY);
    must(disk_open(path_of(place, "two.avhd"), &write, &disk, &err), &err);
    must(disk_close(disk, &err), &err);
    stop(engine);
    must(disk_open(path_of(place, "base.vhd"), &write, &disk, &err), &err);
    must(disk_close(disk, &err), &err);
}

static void socket_of_a_successor_is_left_alone(void **state)
{
    const struct place *place = *state;
    struct disk_options write = {.io = &io_real, .writable = true};
    struct vhd_create_options other = {.type = VHD_DYNAMIC, .size_bytes = 1 << 20};
    struct engine_options options = {.export_name = ""};
    struct engine *engine = started(place, &io_real), *successor = NULL;
    struct disk *disk;
    struct err err;

    must(vhd_create(&io_real, path_of(place, "other.vhd"), &other, &err), &err);
    must(disk_open(path_of(place, "other.vhd"), &write, &disk, &err), &err);
    options.socket_path = path_of(place, "socket");
    must(engine_start(disk, &options, &successor, &err), &err);
    stop(engine);
    assert_int_equal(access(path_of(place, "socket"), F_OK), 0);
    stop(successor);
    assert_int_equal(access(path_of(place, "socket"), F_OK), -1);
}

static void switch_takes_the_prepared_top(void **state)
{
    const struct place *place = *state;
    struct engine *engine = started(place, &io_real);
    struct engine_status status;
    struct err err;

    child_create(place, "one.avhd", "base.vhd");
    child_create(place, "two.avhd", "base.vhd");
    must(engine_prepare_top(engine, path_of(place, "one.avhd"), &err), &err);
    must(engine_prepare_top(engine, path_of(place, "two.avhd"), &err), &err);
    engine_switch_top(engine);
    must(engine_flush(engine, &err), &err);
    engine_status_get(engine, &status);
    assert_int_equal(status.depth, 2);
    assert_true(status.map_bytes > 0);
    assert_int_equal(status.io_uring, !place->no_io_uring && !getenv("BOUGH_NO_IO_URING"));
    /* Now the parent of the next one is two.avhd. */
    assert_false(engine_prepare_top(engine, path_of(place, "one.avhd"), &err));
    child_create(place, "three.avhd", "two.avhd");
    must(engine_prepare_top(engine, path_of(place, "three.avhd"), &err), &err);
    must(engine_prepare_top(engine, NULL, &err), &err);
    stop(engine);
}

static void refused_top_leaves_the_disk_as_it_was(void **state)
{
    const struct place *place = *state;
    struct engine *engine = started(place, &io_real);
    struct engine_status status;
    struct err err;

    assert_false(engine_prepare_top(engine, path_of(place, "missing.avhd"), &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    engine_status_get(engine, &status);
    assert_int_equal(status.depth, 1);
    stop(engine);
}

static int connected(const struct place *place)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);

    strcpy(address.sun_path, path_of(place, "socket"));
    assert_int_equal(connect(fd, (const struct sockaddr *)&address, sizeof address), 0);
    return fd;
}

static void receive_whole(int fd, void *bytes, size_t length)
{
    assert_int_equal(recv(fd, bytes, length, MSG_WAITALL), length);
}

/* Writes a sector of 0x5A at the start, by the plainest NBD there is. */
static uint8_t sector_write(int fd)
{
    uint8_t greeting[18 + 10], reply[16];
    uint8_t request[28 + 512] = {0x25, 0x60, 0x95, 0x13, 0, 0, 0, 1, [26] = 2};

    assert_int_equal(send(fd, "\0\0\0\3IHAVEOPT\0\0\0\1\0\0\0", 20, MSG_NOSIGNAL), 20);
    receive_whole(fd, greeting, sizeof greeting);
    memset(request + 28, 0x5A, 512);
    assert_int_equal(send(fd, request, sizeof request, MSG_NOSIGNAL), sizeof request);
    receive_whole(fd, reply, sizeof reply);
    return reply[7];
}

static void failed_sync_is_an_error_of_flush_and_of_stop(void **state)
{
    const struct place *place = *state;
    AUTO_IO_FAILING struct io_failing *failing = io_failing_new(&io_real);
    struct engine *engine = started(place, io_failing_io(failing));
    AUTO_FD int client = connected(place);
    struct err err;

    assert_int_equal(sector_write(client), 0);
    io_failing_set(failing, (struct io_fault){.calls = IO_CALL_SYNC, .nth = 1, .errnum = EIO});
    assert_false(engine_flush(engine, &err));
    assert_int_equal(err.code, ERR_IO);
    assert_non_null(strstr(err.text, "base.vhd"));
    assert_false(engine_flush(engine, &err)); /* sticky */
    assert_false(engine_stop(engine, &err));
    assert_int_equal(err.code, ERR_IO);
}

static void full_disk_is_enospc_to_the_client(void **state)
{
    const struct place *place = *state;
    AUTO_IO_FAILING struct io_failing *failing = io_failing_new(&io_real);
    struct engine *engine = started(place, io_failing_io(failing));
    AUTO_FD int client = connected(place);

    io_failing_set(failing, (struct io_fault){.calls = IO_CALL_WRITE | IO_CALL_ALLOCATE | IO_CALL_TRUNCATE,
                                              .nth = 1,
                                              .errnum = ENOSPC});
    assert_int_equal(sector_write(client), ENOSPC);
    stop(engine);
}

static void abandoned_engine_writes_nothing_more(void **state)
{
    const struct place *place = *state;
    AUTO_IO_FAILING struct io_failing *failing = io_failing_new(&io_real);
    struct engine *engine = started(place, io_failing_io(failing));
    AUTO_FD int client = connected(place);

    assert_int_equal(sector_write(client), 0);
    io_failing_set(failing, (struct io_fault){.calls = IO_CALLS_CHANGES});
    engine_abandon(engine);
    assert_int_equal(io_failing_count(failing), 0);
}

static void client_is_cut_off_without_a_word(void **state)
{
    const struct place *place = *state;
    struct engine *engine = started(place, &io_real);
    AUTO_FD int client = connected(place);
    uint8_t byte;

    assert_int_equal(sector_write(client), 0);
    stop(engine);
    assert_int_equal(recv(client, &byte, 1, 0), 0);
}

struct caller {
    pthread_t thread;
    struct engine *engine;
    bool ok;
};

static void *call_often(void *argument)
{
    struct caller *caller = argument;
    struct engine_status status;
    struct err err;

    caller->ok = true;
    for (unsigned i = 0; i < 50; i++) {
        caller->ok &= engine_flush(caller->engine, &err);
        engine_status_get(caller->engine, &status);
        engine_switch_top(caller->engine); /* nothing is prepared: an instant without a change */
        caller->ok &= engine_prepare_top(caller->engine, NULL, &err);
        caller->ok &= status.depth == 1;
    }
    return NULL;
}

static void messages_of_many_threads_are_all_answered(void **state)
{
    const struct place *place = *state;
    struct engine *engine = started(place, &io_real);
    struct caller callers[8];

    for (unsigned i = 0; i < 8; i++) {
        callers[i].engine = engine;
        assert_int_equal(pthread_create(&callers[i].thread, NULL, call_often, &callers[i]), 0);
    }
    for (unsigned i = 0; i < 8; i++) {
        pthread_join(callers[i].thread, NULL);
        assert_true(callers[i].ok);
    }
    stop(engine);
}

#define EACH(test)                                                                                           \
    {#test " [io_uring]", test, setup_io_uring, teardown, NULL},                                             \
    {                                                                                                        \
#test " [plain]", test, setup_plain, teardown, NULL                                                  \
    }

int main(void)
{
    const struct CMUnitTest tests[] = {
        EACH(socket_is_there_while_the_engine_runs),
        EACH(socket_path_of_108_bytes_is_refused_clearly),
        EACH(old_socket_is_replaced_but_no_other_file),
        EACH(image_has_one_writer_at_a_time),
        EACH(socket_of_a_successor_is_left_alone),
        EACH(switch_takes_the_prepared_top),
        EACH(refused_top_leaves_the_disk_as_it_was),
        EACH(failed_sync_is_an_error_of_flush_and_of_stop),
        EACH(full_disk_is_enospc_to_the_client),
        EACH(abandoned_engine_writes_nothing_more),
        EACH(client_is_cut_off_without_a_word),
        EACH(messages_of_many_threads_are_all_answered),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
