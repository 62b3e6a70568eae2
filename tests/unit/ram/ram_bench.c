/* How fast a stream is taken apart: ram_bench [DIRECTORY [MIB [hurry | share EVERY [cold]]]]
 * share: a second image that descends from the first, with one page of EVERY different; cold: when the first has left the
 * page cache.
 * A child process plays QEMU's migration thread: pages that are not zero, written to a pipe by writev() of 32
 * pages with their headers. Times are told for the stream (what the guest would notice) and for the rest. */
#include "bytes.h"
#include "ram.h"
#include "stream_writer.h"

#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <time.h>

#define SOURCE_BYTES (64ULL << 20)
#define BATCH        32U

static double now_s(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (double)now.tv_sec + (double)now.tv_nsec / 1e9;
}

static void put_all(int fd, struct iovec *vector, int count)
{
    while (count > 0) {
        ssize_t put = writev(fd, vector, count);
        if (put < 0)
            _exit(1);
        for (; count > 0 && (size_t)put >= vector->iov_len; vector++, count--)
            put -= (ssize_t)vector->iov_len;
        if (count > 0) {
            vector->iov_base = (uint8_t *)vector->iov_base + put;
            vector->iov_len -= (size_t)put;
        }
    }
}

static void put_buf(int fd, const struct buf *buf)
{
    put_all(fd, &(struct iovec){buf->data, buf->length}, 1);
}

static void put_pages(int fd, uint8_t *source, uint64_t first_page, uint64_t every)
{
    uint8_t heads[BATCH][8];
    struct iovec vector[BATCH * 2];
    for (unsigned i = 0; i < BATCH; i++) {
        uint64_t offset = (first_page + i) * 4096;
        uint64_t moved = every && (first_page + i) % every == 0 ? 4096 : 0;
        put_be64(heads[i], offset | 0x28);
        vector[i * 2] = (struct iovec){heads[i], 8};
        vector[i * 2 + 1] = (struct iovec){source + (offset + moved) % SOURCE_BYTES, 4096};
    }
    put_all(fd, vector, BATCH * 2);
}

/* The child: never returns. */
static void play_qemu(int fd, uint64_t memory_bytes, uint64_t every)
{
    const struct w_block block = {"pc.ram", memory_bytes};
    AUTO_BUF struct buf head = BUF_INIT;
    AUTO_BUF struct buf tail = BUF_INIT;
    uint8_t *source = malloc(SOURCE_BYTES);
    if (!source)
        _exit(1);
    for (unsigned i = 0; i < SOURCE_BYTES / 4096; i++)
        w_page_bytes(source + i * 4096ULL, i);
    w_open(&head, &block, 1);
    w_part(&head);
    w_zero(&head, "pc.ram", 0);
    w_eos(&tail);
    w_state(&tail);
    put_buf(fd, &head);
    for (uint64_t page = 0; page < memory_bytes / 4096; page += BATCH)
        put_pages(fd, source, page, every);
    put_buf(fd, &tail);
    _exit(0);
}

static double cpu_s(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)usage.ru_utime.tv_sec + (double)usage.ru_utime.tv_usec / 1e6 +
           (double)usage.ru_stime.tv_sec + (double)usage.ru_stime.tv_usec / 1e6;
}

struct first_byte {
    double at;
};

static bool note_start(void *context)
{
    struct first_byte *first = context;
    if (first->at <= 0)
        first->at = now_s();
    return false;
}

struct bench {
    const char *folder, *parent;
    uint64_t memory_bytes, every;
    bool in_hurry;
    char bin[512], vsv[512];
};

static int run(const struct bench *bench)
{
    int ends[2], status = 0;
    uint64_t memory_bytes = bench->memory_bytes;
    struct err err = ERR_INIT;
    struct ram_save *save = NULL;
    struct ram_save_result result;
    struct first_byte first = {0};
    struct progress progress = {.cancelled = note_start, .context = &first};
    double cpu_before = cpu_s();
    if (pipe2(ends, O_CLOEXEC) < 0)
        return 1;
    pid_t child = fork();
    if (child == 0)
        play_qemu(ends[1], memory_bytes, bench->every);
    close(ends[1]);
    struct ram_save_options options = {
        .stream_fd = ends[0],
        .bin_path = bench->bin,
        .vsv_path = bench->vsv,
        .parent_bin_path = bench->parent,
        .progress = &progress,
        .info = {.id = guid_new(), .memory_bytes = memory_bytes, .qemu_version = "0"}};
    if (!ram_save_start(&options, &save, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    if (bench->in_hurry)
        ram_save_hurry(save);
    waitpid(child, &status, 0);
    double end = now_s(), cpu = cpu_s() - cpu_before;
    if (!ram_save_finish(save, &result, &err)) {
        fprintf(stderr, "%s\n", err.text);
        return 1;
    }
    double rate = (double)memory_bytes / 1e6 / (end - first.at);
    printf("%s: %llu MiB in %.3f s: %.0f MB/s; processor time of the reader %.3f s: %.0f MB/s; then made "
           "durable in %.3f s; %llu of %llu pages shared\n",
           bench->folder, (unsigned long long)(memory_bytes >> 20), end - first.at, rate, cpu,
           (double)memory_bytes / 1e6 / cpu, now_s() - end,
           (unsigned long long)result.shared_pages, (unsigned long long)result.pages);
    return status != 0;
}

static void names(struct bench *bench, const char *which)
{
    snprintf(bench->bin, sizeof(bench->bin), "%s/bough-ram-bench%s.bin", bench->folder, which);
    snprintf(bench->vsv, sizeof(bench->vsv), "%s/bough-ram-bench%s.vsv", bench->folder, which);
}

static void leave_page_cache(const char *path)
{
    int fd = open(path, O_RDONLY | O_CLOEXEC);
    if (fd < 0 || posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED) != 0)
        fprintf(stderr, "%s is still in the page cache\n", path);
    close(fd);
}

static int run_child(struct bench parent, uint64_t every, bool is_cold)
{
    struct bench child = parent;
    child.parent = parent.bin;
    child.every = every;
    names(&child, "-child");
    if (is_cold)
        leave_page_cache(parent.bin);
    int status = run(&child);
    unlink(child.bin);
    unlink(child.vsv);
    return status;
}

int main(int count, char **arguments)
{
    const char *mode = count > 3 ? arguments[3] : "";
    struct bench bench = {.folder = count > 1 ? arguments[1] : "/tmp",
                          .memory_bytes = (count > 2 ? strtoull(arguments[2], NULL, 10) : 1024) << 20,
                          .in_hurry = strcmp(mode, "hurry") == 0};
    names(&bench, "");
    int status = run(&bench);
    if (status == 0 && strcmp(mode, "share") == 0)
        status = run_child(bench, count > 4 ? strtoull(arguments[4], NULL, 10) : 0, count > 5);
    unlink(bench.bin);
    unlink(bench.vsv);
    return status;
}
