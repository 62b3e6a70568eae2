#include "save_fixture.h"

#include "stream_writer.h"

#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

int fixture_setup(void **state)
{
    struct save_fixture *fixture = calloc(1, sizeof(*fixture));
    assert_non_null(fixture);
    strcpy(fixture->folder, "/tmp/bough-ram-XXXXXX");
    assert_non_null(mkdtemp(fixture->folder));
    snprintf(fixture->bin, sizeof(fixture->bin), "%s/m.bin", fixture->folder);
    snprintf(fixture->vsv, sizeof(fixture->vsv), "%s/m.vsv", fixture->folder);
    signal(SIGPIPE, SIG_IGN); /* of this program's own writer; the library must not need it */
    *state = fixture;
    return 0;
}

int fixture_teardown(void **state)
{
    struct save_fixture *fixture = *state;
    unlink(fixture->bin);
    unlink(fixture->vsv);
    int left = rmdir(fixture->folder);
    free(fixture);
    return left;
}

struct feed {
    const struct buf *stream;
    int fd;
};

static void *feed_run(void *context)
{
    struct feed *feed = context;
    size_t done = 0;
    while (done < feed->stream->length) {
        ssize_t put = write(feed->fd, feed->stream->data + done, feed->stream->length - done);
        if (put < 0)
            break;
        done += (size_t)put;
    }
    close(feed->fd);
    return NULL;
}

struct ram_save_options fixture_options(const struct save_fixture *fixture, int stream_fd,
                                        uint64_t memory_bytes)
{
    struct ram_save_options options = {.stream_fd = stream_fd,
                                       .bin_path = fixture->bin,
                                       .vsv_path = fixture->vsv,
                                       .info = {.id = guid_new(), .memory_bytes = memory_bytes}};
    strcpy(options.info.qemu_version, "7.2.22");
    return options;
}

bool fixture_save(const struct save_fixture *fixture, const struct buf *stream, uint64_t memory_bytes,
                  struct ram_save_result *ret_result, struct err *err)
{
    int ends[2];
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    struct feed feed = {.stream = stream, .fd = ends[1]};
    struct ram_save_options options = fixture_options(fixture, ends[0], memory_bytes);
    struct ram_save *save = NULL;
    if (!ram_save_start(&options, &save, err)) {
        close(ends[1]);
        return false;
    }
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, feed_run, &feed), 0);
    if (stream->length % 2 == 0) /* of some streams the whole, a part or nothing comes in a hurry */
        ram_save_hurry(save);
    bool ok = ram_save_finish(save, ret_result, err);
    pthread_join(thread, NULL);
    return ok;
}

void fixture_read(const char *path, struct buf *ret_bytes)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    struct stat stat;
    assert_true(fd >= 0 && fstat(fd, &stat) == 0);
    uint8_t *to = buf_reserve(ret_bytes, (size_t)stat.st_size);
    assert_non_null(to);
    assert_int_equal(read(fd, to, (size_t)stat.st_size), stat.st_size);
    ret_bytes->length = (size_t)stat.st_size;
    close(fd);
}

void fixture_patch(const char *path, uint64_t offset, const void *bytes, size_t length)
{
    int fd = open(path, O_WRONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    assert_int_equal(pwrite(fd, bytes, length, (off_t)offset), length);
    close(fd);
}

bool fixture_exists(const char *path)
{
    return access(path, F_OK) == 0;
}

void fixture_stream(struct buf *out)
{
    static const struct w_block blocks[] = {{"pc.ram", F_MEMORY_BYTES}, {"pc.bios", 3 * 4096}};
    w_open(out, blocks, 2);
    w_part(out);
    w_page(out, "pc.ram", 0, 1);
    w_page(out, NULL, 4096, 2);
    for (uint64_t page = 2; page < F_MEMORY_BYTES / 4096 - 1; page++)
        w_zero(out, NULL, page * 4096);
    w_page(out, NULL, F_MEMORY_BYTES - 4096, 3);
    w_page(out, "pc.bios", 0, 10);
    w_zero(out, NULL, 4096);
    w_eos(out);
    w_part(out);
    w_page(out, "pc.bios", 0, 11);
    w_eos(out);
    w_end(out);
    w_eos(out);
    w_state(out);
}
