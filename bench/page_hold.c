/* Keeps what files hold in the page cache, so that a bench of warm files stays one whatever else the machine
 * does:
 *
 *   page_hold FILE...    maps all that is written in the files (holes and reserved space are not), locked in
 * memory where that is allowed; prints how many bytes of how many files, and ends when its standard
 *                        input does. What is more than a third of the machine's memory, or more mappings than
 * a process may have, is left */
#include "auto.h"

#include <errno.h>
#include <fcntl.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>

/* What lies between two parts that are closer than this is mapped with them: mappings are few. */
#define MERGE_BYTES (128 << 10)

static uint64_t most_bytes(void)
{
    return (uint64_t)sysconf(_SC_PHYS_PAGES) * (uint64_t)sysconf(_SC_PAGESIZE) / 3;
}

static bool part_hold(int fd, off_t start, off_t end, uint64_t *held_bytes)
{
    off_t first = start & ~(off_t)4095;
    size_t length = (size_t)(end - first);

    if (*held_bytes + length > most_bytes()) {
        errno = EFBIG;
        return false;
    }
    /* A mapping that may not be locked still keeps its pages longer than none. */
    void *mapped = mmap(NULL, length, PROT_READ, MAP_SHARED | MAP_POPULATE, fd, first);

    if (mapped == MAP_FAILED)
        return false;
    if (mlock(mapped, length) != 0 && errno != ENOMEM && errno != EPERM && errno != EAGAIN)
        return false;
    *held_bytes += length;
    return true;
}

static bool file_hold(const char *path, uint64_t *held_bytes)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC);
    off_t start = fd < 0 ? -1 : lseek(fd, 0, SEEK_DATA);

    if (fd < 0)
        return false;
    while (start >= 0) {
        off_t end = lseek(fd, start, SEEK_HOLE);
        off_t next = lseek(fd, end, SEEK_DATA);
        while (next >= 0 && next - end < MERGE_BYTES) {
            end = lseek(fd, next, SEEK_HOLE);
            next = lseek(fd, end, SEEK_DATA);
        }
        if (end < 0 || !part_hold(fd, start, end, held_bytes))
            return false;
        start = next;
    }
    return errno == ENXIO; /* no data any more */
}

int main(int argc, char **argv)
{
    uint64_t held_bytes = 0;

    int files = 0;
    while (files < argc - 1 && file_hold(argv[files + 1], &held_bytes))
        files++;
    if (files < argc - 1 && errno != ENOMEM && errno != EFBIG) {
        fprintf(stderr, "page_hold: %s: %s\n", argv[files + 1], strerror(errno));
        return 1;
    }
    printf("%llu %d\n", (unsigned long long)held_bytes, files);
    fflush(stdout);
    while (getchar() != EOF)
        continue;
    return 0;
}
