/* The sample of a process's memory against a process whose memory is known. */
#include "room.h"

#include "auto.h"
#include "ram.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cmocka.h>

#define MEMORY_BYTES (96ULL << 20) /* of no mapping that a process has anyway */
#define PAGES        (MEMORY_BYTES / RAM_PAGE_BYTES)

/* Of every 100 pages so many hold something, and so many more were written with zeros. */
struct filling {
    unsigned full, zeroed;
    int fd; /* of a file behind it; -1: none */
};

static pid_t child_start(const struct filling *filling)
{
    int ready[2];
    char byte;

    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid == 0) {
        char *memory = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE,
                            MAP_PRIVATE | (filling->fd < 0 ? MAP_ANONYMOUS : 0), filling->fd, 0);
        if (memory == MAP_FAILED || madvise(memory, MEMORY_BYTES, MADV_DONTDUMP) != 0)
            _exit(1);
        madvise(memory, MEMORY_BYTES, MADV_NOHUGEPAGE);
        for (size_t i = 0; i < PAGES; i++)
            if (i % 100 < filling->full + filling->zeroed)
                memory[i * RAM_PAGE_BYTES + 77] = i % 100 < filling->full ? 'x' : 0;
        (void)!write(ready[1], "r", 1);
        pause();
        _exit(0);
    }
    close(ready[1]);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    return pid;
}

static void child_end(pid_t pid)
{
    kill(pid, SIGKILL);
    waitpid(pid, NULL, 0);
}

static void assert_share(const struct filling *filling, double share)
{
    pid_t pid = child_start(filling);
    uint64_t about = 0, at_least = 0;
    bool known = room_memory(pid, MEMORY_BYTES, &about, &at_least);

    child_end(pid);
    if (!known)
        skip(); /* who may not look into processes knows nothing */
    double found = (double)about / (double)MEMORY_BYTES;
    if (found < share - 0.03 || found > share + 0.03)
        fail_msg("%.3f of it holds something, %.3f was found", share, found);
    assert_true((double)at_least <= share * (double)MEMORY_BYTES);
    assert_true(at_least + MEMORY_BYTES / 18 >= about);
}

static void zeros_and_what_was_never_touched_need_nothing(void **state)
{
    (void)state;
    assert_share(&(struct filling){.fd = -1}, 0);
    assert_share(&(struct filling){.zeroed = 60, .fd = -1}, 0);
}

static void what_holds_something_is_found_by_its_share(void **state)
{
    (void)state;
    assert_share(&(struct filling){.full = 3, .zeroed = 20, .fd = -1}, 0.03);
    assert_share(&(struct filling){.full = 25, .zeroed = 25, .fd = -1}, 0.25);
    assert_share(&(struct filling){.full = 100, .fd = -1}, 1);
}

/* As a guest that was restored: what it has not touched is in its file. */
static void what_is_still_in_the_file_counts_as_the_file_has_it(void **state)
{
    char path[64];
    static char block[1 << 20];

    (void)state;
    snprintf(path, sizeof path, "%s/bough-room-XXXXXX", getenv("TMPDIR") && strlen(getenv("TMPDIR")) < 30 ? getenv("TMPDIR") : "/tmp");
    AUTO_FD int fd = mkstemp(path);
    assert_true(fd >= 0);
    assert_int_equal(ftruncate(fd, (off_t)MEMORY_BYTES), 0);
    memset(block, 'f', sizeof block);
    for (off_t at = 0; at < (off_t)MEMORY_BYTES; at += 4 << 20)
        assert_int_equal(pwrite(fd, block, sizeof block, at), sizeof block);
    fsync(fd); /* some file systems tell what a file takes only then */
    pid_t pid = child_start(&(struct filling){.fd = fd});
    uint64_t about = 0, at_least = 0;
    bool known = room_memory(pid, MEMORY_BYTES, &about, &at_least);
    child_end(pid);
    unlink(path);
    if (!known)
        skip();
    assert_true(about > MEMORY_BYTES / 5 && about < MEMORY_BYTES / 10 * 3);
}

static void a_process_without_such_a_mapping_tells_nothing(void **state)
{
    uint64_t about, at_least;

    (void)state;
    assert_false(room_memory(getpid(), 1ULL << 60, &about, &at_least));
    assert_false(room_memory(0, MEMORY_BYTES, &about, &at_least));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(zeros_and_what_was_never_touched_need_nothing),
        cmocka_unit_test(what_holds_something_is_found_by_its_share),
        cmocka_unit_test(what_is_still_in_the_file_counts_as_the_file_has_it),
        cmocka_unit_test(a_process_without_such_a_mapping_tells_nothing),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
