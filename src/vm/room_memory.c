/* A guest's memory is saved without its zero pages, and only its pages tell which are that. Whoever reads all of them has half saved it:
 * so some of them are looked at. What is not in memory is not fetched for it. */
#include "room.h"

#include "auto.h"
#include "buf.h"
#include "bytes.h"
#include "ram.h"

#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/uio.h>
#include <unistd.h>

#define SAMPLES 4096U
/* Of the share that was seen: 3.4 standard deviations of 4096 samples, at most. */
#define UNSURE_SHARE (3.4 * 0.5 / 64)

/* Bits of /proc/PID/pagemap (admin-guide/mm/pagemap.rst). */
#define PAGE_PRESENT (1ULL << 63)
#define PAGE_SWAPPED (1ULL << 62)

struct mapping {
    uint64_t start, length;
    double file_share; /* of the file behind it that is no hole; 0: there is none */
};

static double file_share(const char *path)
{
    struct stat stat_of;

    if (path[0] != '/' || stat(path, &stat_of) != 0 || !S_ISREG(stat_of.st_mode) || stat_of.st_size == 0)
        return 0;
    double share = (double)stat_of.st_blocks * 512 / (double)stat_of.st_size;
    return share < 1 ? share : 1;
}

/* QEMU maps a guest's memory as one piece of just its size, with flags of its own: the smallest that can hold it is it. */
static bool mapping_find(pid_t pid, uint64_t memory_bytes, struct mapping *ret_mapping)
{
    AUTO_FREE char *path = string_printf("/proc/%ld/maps", (long)pid);
    FILE *maps = path ? fopen(path, "re") : NULL;
    char line[4500];

    *ret_mapping = (struct mapping){0};
    while (maps && fgets(line, sizeof line, maps)) {
        uint64_t start, end;
        int name = 0;
        if (sscanf(line, "%" SCNx64 "-%" SCNx64 " rw%*s %*s %*s %*s %n", &start, &end, &name) != 2 || name == 0 ||
            end - start < memory_bytes || (ret_mapping->length > 0 && end - start >= ret_mapping->length))
            continue;
        line[strcspn(line, "\n")] = '\0';
        *ret_mapping = (struct mapping){.start = start, .length = end - start, .file_share = file_share(line + name)};
    }
    if (maps)
        fclose(maps);
    return ret_mapping->length > 0;
}

/* One page's part of what must be kept: 0, 1, or that of its file; negative: it cannot be read. */
static double page_share(pid_t pid, int pagemap, const struct mapping *mapping, uint64_t address)
{
    uint8_t bytes[RAM_PAGE_BYTES];
    struct iovec local = {.iov_base = bytes, .iov_len = sizeof bytes};
    struct iovec remote = {.iov_base = (void *)(uintptr_t)address, .iov_len = sizeof bytes};
    uint64_t entry;

    if (pread(pagemap, &entry, sizeof entry, (off_t)(address / RAM_PAGE_BYTES * sizeof entry)) != sizeof entry)
        return -1;
    if (entry & PAGE_SWAPPED)
        return 1;
    if (!(entry & PAGE_PRESENT))
        return mapping->file_share;
    if (process_vm_readv(pid, &local, 1, &remote, 1, 0) != sizeof bytes)
        return -1;
    return bytes_are_zero(bytes, sizeof bytes) ? 0 : 1;
}

bool room_memory(pid_t pid, uint64_t memory_bytes, uint64_t *ret_about, uint64_t *ret_at_least)
{
    AUTO_FREE char *path = string_printf("/proc/%ld/pagemap", (long)pid);
    AUTO_FD int pagemap = path ? open(path, O_RDONLY | O_CLOEXEC) : -1;
    struct mapping mapping;
    double sum = 0;

    if (pagemap < 0 || sysconf(_SC_PAGESIZE) != RAM_PAGE_BYTES || !mapping_find(pid, memory_bytes, &mapping))
        return false;
    uint64_t stride = memory_bytes / RAM_PAGE_BYTES / SAMPLES, pages = stride > 0 ? SAMPLES : memory_bytes / RAM_PAGE_BYTES;
    for (uint64_t i = 0; i < pages; i++) {
        uint64_t page = stride > 0 ? i * stride + (i * 2654435761U >> 7) % stride : i; /* not in step with anything */
        double share = page_share(pid, pagemap, &mapping, mapping.start + page * RAM_PAGE_BYTES);
        if (share < 0)
            return false;
        sum += share;
    }
    double about = pages > 0 ? sum / (double)pages : 0;
    double at_least = about - (stride > 0 ? UNSURE_SHARE : 0);
    *ret_about = (uint64_t)(about * (double)memory_bytes);
    *ret_at_least = at_least > 0 ? (uint64_t)(at_least * (double)memory_bytes) : 0;
    return true;
}
