/* The thread that copies a merge: it stops between two steps, and the next one goes on from there. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "disk.h"
#include "file.h"
#include "merge_job.h"
#include "ok.h"
#include "vhd.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <unistd.h>

#define MIB        (1ULL << 20)
#define DATA_BYTES (64 * MIB)
#define SOME_BYTES (16 * MIB)
#define TRIES      20

static char folder[64], base[96], parent[96], child[96];
static struct err err;

static int folder_make(void **state)
{
    (void)state;
    strcpy(folder, "/tmp/bough-merge-XXXXXX");
    if (!mkdtemp(folder))
        return -1;
    snprintf(base, sizeof base, "%s/base.vhd", folder);
    snprintf(parent, sizeof parent, "%s/parent.avhd", folder);
    snprintf(child, sizeof child, "%s/child.avhd", folder);
    return 0;
}

static void images_remove(void)
{
    unlink(child);
    unlink(parent);
    unlink(base);
}

static int folder_remove(void **state)
{
    (void)state;
    images_remove();
    return rmdir(folder);
}

static void image_make(const char *path, const char *below)
{
    struct vhd_create_options options = {.type = below ? VHD_DIFFERENCING : VHD_DYNAMIC,
                                         .size_bytes = below ? 0 : 2 * DATA_BYTES,
                                         .parent_path = below};

    OK(vhd_create(&io_real, path, &options, &err));
}

/* The child alone has data: of each MiB, its number. */
static void images_make(void)
{
    struct disk_options options = {.io = &io_real, .writable = true};
    static uint8_t bytes[MIB];
    struct disk *disk;

    image_make(base, NULL);
    image_make(parent, base);
    image_make(child, parent);
    OK(disk_open(child, &options, &disk, &err));
    for (uint64_t offset = 0; offset < DATA_BYTES; offset += MIB) {
        memset(bytes, (int)(1 + offset / MIB), MIB);
        OK(disk_write(disk, offset, bytes, MIB, &err));
    }
    OK(disk_close(disk, &err));
}

/* Ends a job when so much is copied, or when all is. True: all was copied. */
static bool copy_until(const struct disk_merge_mark *mark, uint64_t bytes, struct disk_merge_mark *ret_mark, uint64_t *ret_done)
{
    struct plan_merging merging = {.parent = parent, .child = child, .direction = MERGE_DOWN, .bytes = DATA_BYTES};
    int over = eventfd(0, EFD_CLOEXEC);
    struct merge_job_options options = {.merging = &merging, .over_fd = over, .mark = mark};
    struct merge_job *job;
    uint64_t total;

    assert_true(over >= 0);
    OK(merge_job_start(&options, &job, &err));
    do {
        usleep(100);
        merge_job_progress(job, ret_done, &total);
    } while (*ret_done < bytes && !merge_job_is_over(job));
    bool all = merge_job_join(job, &err);
    merge_job_progress(job, ret_done, &total);
    *ret_mark = *merge_job_mark(job);
    merge_job_free(job);
    close(over);
    return all;
}

static void assert_all_is_in_the_parent(void)
{
    struct disk_options options = {.io = &io_real};
    static uint8_t bytes[MIB], expected[MIB];
    struct disk *disk;

    OK(disk_open(parent, &options, &disk, &err));
    for (uint64_t offset = 0; offset < DATA_BYTES; offset += MIB) {
        memset(expected, (int)(1 + offset / MIB), MIB);
        OK(disk_read(disk, offset, bytes, MIB, &err));
        assert_memory_equal(bytes, expected, MIB);
    }
    OK(disk_close(disk, &err));
}

static void one_that_was_broken_off_goes_on_where_it_was(void **state)
{
    struct disk_merge_mark mark;
    bool all = true;
    uint64_t done = DATA_BYTES, again;

    (void)state;
    for (unsigned i = 0; done > DATA_BYTES / 2 && i < TRIES; i++) {
        images_remove();
        images_make();
        all = copy_until(NULL, SOME_BYTES, &mark, &done);
    }
    assert_false(all); /* else it was over, or nearly, each time before it was stopped */
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_in_range(done, SOME_BYTES, DATA_BYTES / 2);
    assert_true(mark.blocks_done > 0);

    assert_false(copy_until(&mark, 0, &mark, &again)); /* it is stopped before it has taken all the steps that are left */
    assert_in_range(again, done, DATA_BYTES - 1);
    assert_true(copy_until(&mark, UINT64_MAX, &mark, &again));
    assert_all_is_in_the_parent();
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(one_that_was_broken_off_goes_on_where_it_was, folder_make, folder_remove),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
