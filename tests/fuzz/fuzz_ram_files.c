/* A whole save, and what it made: the input is QEMU's stream, through a pipe, for 64 KiB of memory. Either it fails with
 * the files removed, or both files are there, verify, and give a stream that parses and holds no page of RAM_BLOCK. Then one
 * byte of the .vsv is changed, or it is cut off, as the first four bytes say: that is refused. */
#include "auto.h"
#include "bytes.h"
#include "file.h"
#include "ram.h"
#include "stream.h"
#include "vsv.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#define MEMORY_BYTES (64U << 10)
#define PIPE_BYTES   (1 << 20)

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static char bin_path[64], vsv_path[64];

static void check(bool claim)
{
    if (!claim)
        abort();
}

static void remove_folder(void)
{
    unlink(bin_path);
    unlink(vsv_path);
    *strrchr(bin_path, '/') = '\0';
    rmdir(bin_path);
}

static void make_folder(void)
{
    char folder[] = "/dev/shm/bough-fuzz-XXXXXX";
    if (*bin_path)
        return;
    check(mkdtemp(folder) != NULL);
    snprintf(bin_path, sizeof(bin_path), "%s/m.bin", folder);
    snprintf(vsv_path, sizeof(vsv_path), "%s/m.vsv", folder);
    atexit(remove_folder);
}

/* All of the input fits into the pipe: the writer need not be a thread. */
static int stream_of(const uint8_t *data, size_t size)
{
    int ends[2];
    check(pipe2(ends, O_CLOEXEC) == 0 && fcntl(ends[1], F_SETPIPE_SZ, PIPE_BYTES) >= 0);
    check(write(ends[1], data, size) == (ssize_t)size);
    close(ends[1]);
    return ends[0];
}

static bool save(const uint8_t *data, size_t size, bool hurry)
{
    struct ram_save_options options = {.stream_fd = stream_of(data, size),
                                       .bin_path = bin_path,
                                       .vsv_path = vsv_path,
                                       .info = {.id = guid_new(), .memory_bytes = MEMORY_BYTES}};
    struct ram_save *saving = NULL;
    struct ram_save_result result;
    struct err err = ERR_INIT;
    check(ram_save_start(&options, &saving, &err));
    if (hurry)
        ram_save_hurry(saving);
    bool ok = ram_save_finish(saving, &result, &err);
    check(ok || err.code == ERR_CORRUPT || err.code == ERR_UNSUPPORTED);
    return ok;
}

static bool is_ignored(void *context, const uint8_t *bytes, size_t length, struct err *err)
{
    (void)context, (void)bytes, (void)length, (void)err;
    return true;
}

static bool are_ignored(void *context, struct err *err)
{
    (void)context, (void)err;
    return true;
}

static bool is_small(void *context, unsigned block, uint64_t offset, const uint8_t *bytes, struct err *err)
{
    unsigned count;
    (void)offset, (void)bytes, (void)err;
    check(strcmp(stream_blocks(*(struct stream **)context, &count)[block].name, RAM_BLOCK) != 0);
    return true;
}

static void check_stream(const uint8_t *bytes, size_t length)
{
    struct stream *stream = NULL;
    const struct stream_events events = {
        .context = &stream, .head = is_ignored, .blocks = are_ignored, .page = is_small, .state = is_ignored};
    struct err err = ERR_INIT;
    size_t consumed = 0;
    stream = stream_new(&events);
    check(stream && stream_parse(stream, bytes, length, &consumed, &err) &&
          stream_end(stream, length - consumed, &err));
    stream_free(stream);
}

static bool usable(void)
{
    struct vsv_info info;
    struct err err = ERR_INIT;
    bool ok = ram_check(vsv_path, bin_path, &info, &err);
    check(ok || err.code == ERR_CORRUPT || err.code == ERR_UNSUPPORTED || err.code == ERR_IO);
    check(!ok || ram_verify(vsv_path, bin_path, /* progress= */ NULL, &err));
    return ok;
}

static void damage(uint32_t how)
{
    int fd = open(vsv_path, O_RDWR | O_CLOEXEC);
    struct stat status;
    uint8_t byte;
    check(fd >= 0 && fstat(fd, &status) == 0);
    off_t at = (off_t)((how >> 4) % (uint64_t)status.st_size);
    if (how & 1) {
        check(ftruncate(fd, at) == 0);
    } else {
        check(pread(fd, &byte, 1, at) == 1);
        byte ^= (uint8_t)(1U << (how >> 1 & 7));
        check(pwrite(fd, &byte, 1, at) == 1);
    }
    close(fd);
    check(!usable());
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    if (size < 4 || size > PIPE_BYTES)
        return 0;
    make_folder();
    if (!save(data + 4, size - 4, data[0] & 1)) {
        check(access(bin_path, F_OK) != 0 && access(vsv_path, F_OK) != 0);
        return 0;
    }
    check(usable());
    int fd = open(vsv_path, O_RDONLY | O_CLOEXEC);
    struct stat status;
    check(fd >= 0 && fstat(fd, &status) == 0);
    const uint8_t *file = mmap(NULL, (size_t)status.st_size, PROT_READ, MAP_PRIVATE, fd, 0);
    check(file != MAP_FAILED);
    uint64_t start = vsv_stream_offset(MEMORY_BYTES);
    check_stream(file + start, (size_t)((uint64_t)status.st_size - start));
    munmap((void *)(uintptr_t)file, (size_t)status.st_size);
    close(fd);
    damage(get_be32(data));
    unlink(bin_path);
    unlink(vsv_path);
    return 0;
}
