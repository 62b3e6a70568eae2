/* The hint of what is touched first: as bytes, and as it is taken from a process and used. */
#include "touched.h"

#include "ahead.h"
#include "auto.h"
#include "bytes.h"
#include "ram.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/xattr.h>
#include <time.h>

#include <cmocka.h>

#define UNITS        4096U
#define MEMORY_BYTES ((uint64_t)UNITS * TOUCHED_UNIT_BYTES)
#define FILE_UNITS   256U
#define FILE_BYTES   ((uint64_t)FILE_UNITS * TOUCHED_UNIT_BYTES)
#define FILE_PAGES   (FILE_UNITS * (TOUCHED_UNIT_BYTES / 4096))

struct seen {
    uint8_t units[UNITS / 8];
    uint64_t end, memory_bytes;
};

static void mark(uint8_t *units, uint64_t unit)
{
    units[unit / 8] = (uint8_t)(units[unit / 8] | 1U << (unit % 8));
}

static bool is_marked(const uint8_t *units, uint64_t unit)
{
    return units[unit / 8] & 1U << (unit % 8);
}

static void note(void *context, uint64_t offset, uint64_t length)
{
    struct seen *seen = context;
    assert_true(offset >= seen->end && offset <= seen->memory_bytes && length <= seen->memory_bytes - offset);
    seen->end = offset + length;
    for (uint64_t unit = offset / TOUCHED_UNIT_BYTES; unit < div_round_up(seen->end, TOUCHED_UNIT_BYTES); unit++)
        mark(seen->units, unit);
}

static uint64_t next_random(uint64_t *random)
{
    *random = *random * 6364136223846793005U + 1442695040888963407U;
    return *random >> 33;
}

static void what_is_kept_is_what_was_touched(void **state)
{
    (void)state;
    for (uint64_t seed = 1; seed <= 60; seed++) {
        uint8_t units[UNITS / 8] = {0}, bytes[TOUCHED_BYTES_MAX];
        struct seen seen = {.memory_bytes = MEMORY_BYTES};
        uint64_t random = seed;
        size_t length;
        for (uint64_t i = 0; i < seed * 5; i++)
            mark(units, next_random(&random) % UNITS);
        touched_encode(units, UNITS, bytes, &length);
        assert_true(length > 2 && length <= TOUCHED_BYTES_MAX);
        touched_decode(bytes, length, MEMORY_BYTES, note, &seen);
        assert_memory_equal(seen.units, units, sizeof(units));
    }
}

static void what_would_not_fit_is_kept_coarser(void **state)
{
    (void)state;
    uint8_t units[UNITS / 8] = {0}, bytes[TOUCHED_BYTES_MAX];
    struct seen seen = {.memory_bytes = MEMORY_BYTES};
    size_t length;
    for (uint64_t unit = 0; unit < UNITS; unit += 2)
        mark(units, unit);
    touched_encode(units, UNITS, bytes, &length);
    assert_true(length > 2 && length <= TOUCHED_BYTES_MAX && bytes[1] > 0);
    touched_decode(bytes, length, MEMORY_BYTES, note, &seen);
    for (uint64_t unit = 0; unit < UNITS; unit += 2)
        assert_true(is_marked(seen.units, unit));
    memset(units, 0, sizeof(units));
    touched_encode(units, UNITS, bytes, &length);
    assert_int_equal(length, 0);
}

static void any_bytes_give_ranges_inside_the_memory(void **state)
{
    (void)state;
    uint64_t random = 7;
    for (unsigned round = 0; round < 20000; round++) {
        uint8_t bytes[64];
        size_t length = next_random(&random) % (sizeof(bytes) + 1);
        struct seen seen = {.memory_bytes = 4096 * (1 + next_random(&random) % (UNITS * 16))};
        for (size_t i = 0; i < length; i++)
            bytes[i] = (uint8_t)(next_random(&random) & (round % 2 ? 0xff : 0x8f));
        if (length > 1 && round % 8) {
            bytes[0] = 1;
            bytes[1] %= 25;
        }
        touched_decode(bytes, length, seen.memory_bytes, note, &seen);
    }
}

/* A byte for each page; its lowest bit: it is in the page cache. */
static void look_at_pages(int fd, uint64_t offset, uint64_t length, uint8_t *ret_pages)
{
    void *mapped = mmap(NULL, length, PROT_READ, MAP_SHARED, fd, (off_t)offset);
    assert_true(mapped != MAP_FAILED);
    assert_int_equal(mincore(mapped, length, ret_pages), 0);
    munmap(mapped, length);
}

static unsigned resident_pages(int fd, uint64_t offset, uint64_t length)
{
    uint8_t pages[FILE_PAGES];
    unsigned count = 0;
    look_at_pages(fd, offset, length, pages);
    for (uint64_t i = 0; i < length / 4096; i++)
        count += pages[i] & 1;
    return count;
}

static void leave_page_cache(int fd)
{
    assert_int_equal(fsync(fd), 0);
    for (unsigned look = 0; look < 100 && resident_pages(fd, 0, FILE_BYTES) > 0; look++) {
        assert_int_equal(posix_fadvise(fd, 0, 0, POSIX_FADV_DONTNEED), 0);
        nanosleep(&(struct timespec){.tv_nsec = 20000000}, NULL);
    }
    assert_int_equal(resident_pages(fd, 0, FILE_BYTES), 0);
}

static void fill_file(int fd)
{
    AUTO_FREE uint8_t *bytes = malloc(TOUCHED_UNIT_BYTES);
    assert_non_null(bytes);
    for (unsigned unit = 0; unit < FILE_UNITS; unit++) {
        memset(bytes, (int)unit + 1, TOUCHED_UNIT_BYTES);
        assert_int_equal(pwrite(fd, bytes, TOUCHED_UNIT_BYTES, (off_t)unit * TOUCHED_UNIT_BYTES), TOUCHED_UNIT_BYTES);
    }
}

/* As QEMU does: mapped privately, and one page is read, another written. */
static void touch(int fd, const char *path, const unsigned units[2])
{
    struct err err;
    uint8_t *mapped = mmap(NULL, FILE_BYTES, PROT_READ | PROT_WRITE, MAP_PRIVATE, fd, 0);
    assert_true(mapped != MAP_FAILED);
    assert_int_equal(madvise(mapped, FILE_BYTES, MADV_RANDOM), 0);
    assert_int_equal(*(volatile uint8_t *)(mapped + (uint64_t)units[0] * TOUCHED_UNIT_BYTES + 4096), (units[0] + 1) & 0xff);
    *(volatile uint8_t *)(mapped + (uint64_t)units[1] * TOUCHED_UNIT_BYTES + 8192) = 0;
    if (!ram_touched_record(path, getpid(), &err))
        fail_msg("%s", err.text);
    munmap(mapped, FILE_BYTES);
}

static void what_one_process_touched_is_read_ahead_for_the_next(void **state)
{
    (void)state;
    static const unsigned units[2] = {7, 130};
    char path[] = "/var/tmp/bough-touched-XXXXXX";
    AUTO_FD int fd = mkstemp(path);
    assert_true(fd >= 0);
    if (setxattr(path, "user.bough.try", "x", 1, 0) != 0) {
        unlink(path);
        skip(); /* a file system without attributes: there are no hints */
    }
    fill_file(fd);
    leave_page_cache(fd);
    assert_false(ram_touched_is_known(path));
    touch(fd, path, units);
    assert_true(ram_touched_is_known(path));
    leave_page_cache(fd);
    ram_touched_prefetch(path);
    for (unsigned look = 0; look < 500 && resident_pages(fd, 0, FILE_BYTES) < 32; look++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    for (unsigned i = 0; i < 2; i++)
        assert_int_equal(resident_pages(fd, (uint64_t)units[i] * TOUCHED_UNIT_BYTES, TOUCHED_UNIT_BYTES), 16);
    assert_int_equal(resident_pages(fd, 0, FILE_BYTES), 32);
    unlink(path);
}

static void what_was_not_touched_at_all_gives_no_hint(void **state)
{
    (void)state;
    struct err err;
    char path[] = "/var/tmp/bough-touched-XXXXXX";
    AUTO_FD int fd = mkstemp(path);
    assert_true(fd >= 0);
    fill_file(fd);
    assert_false(ram_touched_record(path, getpid(), &err));
    assert_false(ram_touched_is_known(path));
    assert_false(ram_touched_record("/var/tmp/bough-touched-none", getpid(), &err));
    ram_touched_prefetch(path);
    ram_touched_prefetch("/var/tmp/bough-touched-none");
    unlink(path);
}

/* How many pages of the file have ever been seen in the page cache: the system may take any of them back between two looks. */
static unsigned made_pages(int fd, uint8_t made[static FILE_PAGES])
{
    uint8_t pages[FILE_PAGES];
    unsigned count = 0;
    look_at_pages(fd, 0, FILE_BYTES, pages);
    for (unsigned i = 0; i < FILE_PAGES; i++) {
        made[i] |= pages[i] & 1;
        count += made[i];
    }
    return count;
}

static unsigned settled_pages(int fd, uint8_t made[static FILE_PAGES], unsigned at_least)
{
    for (unsigned look = 0; look < 500 && made_pages(fd, made) < at_least; look++)
        nanosleep(&(struct timespec){.tv_nsec = 10000000}, NULL);
    nanosleep(&(struct timespec){.tv_nsec = 30000000}, NULL);
    return made_pages(fd, made);
}

/* Half of it a hole, from a quarter on. */
static void holes_are_made_ahead_at_a_distance(void **state)
{
    (void)state;
    char path[] = "/var/tmp/bough-ahead-XXXXXX";
    AUTO_FD int fd = mkstemp(path);
    assert_true(fd >= 0);
    fill_file(fd);
    assert_int_equal(fallocate(fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE, FILE_BYTES / 4, FILE_BYTES / 2), 0);
    leave_page_cache(fd);
    uint8_t made[FILE_PAGES] = {0};
    struct ahead *ahead = ahead_start(fd, FILE_BYTES, 4 << 20);
    assert_non_null(ahead);
    assert_int_equal(settled_pages(fd, made, 0), 0); /* nobody has begun */
    ahead_reached(ahead, 4096);
    assert_int_equal(settled_pages(fd, made, 512), 512);
    ahead_reached(ahead, 6 << 20);
    ahead_reached(ahead, 1 << 20);
    assert_int_equal(settled_pages(fd, made, 1536), 1536);
    ahead_stop(ahead);
    ahead_reached(ahead, FILE_BYTES);
    assert_int_equal(settled_pages(fd, made, 1536), 1536);
    ahead_end(ahead);
    ahead = ahead_start(fd, FILE_BYTES, FILE_BYTES);
    ahead_reached(ahead, 4096);
    assert_int_equal(settled_pages(fd, made, FILE_BYTES / 2 / 4096), FILE_BYTES / 2 / 4096);
    ahead_end(ahead);
    ahead_end(NULL);
    unlink(path);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_kept_is_what_was_touched),
        cmocka_unit_test(what_would_not_fit_is_kept_coarser),
        cmocka_unit_test(any_bytes_give_ranges_inside_the_memory),
        cmocka_unit_test(what_one_process_touched_is_read_ahead_for_the_next),
        cmocka_unit_test(what_was_not_touched_at_all_gives_no_hint),
        cmocka_unit_test(holes_are_made_ahead_at_a_distance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
