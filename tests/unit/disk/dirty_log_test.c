/* What is done with a dirty log whose process was killed, where image and log no longer fit each other. (That
 * nothing is lost where they do: tests/crash.) */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bytes.h"
#include "dirty_log.h"
#include "disk_test.h"
#include "file.h"

#include <errno.h>
#include <stdio.h>
#include <unistd.h>

#define SIZE (8U << 20)

struct lab {
    char dir[32], logs[48], base[48], other[48], top[48];
};

static struct disk *open_top(const struct lab *lab, const char *log_dir)
{
    struct disk_options options = {.writable = true, .log_dir = log_dir};
    struct disk *disk = NULL;

    OK(disk_open(lab->top, &options, &disk, &err));
    return disk;
}

/* A child of which one block is flushed, and another was written by a process that was killed then. */
static int lab_start(void **state)
{
    static struct lab lab;
    struct vhd_create_options base = {.type = VHD_DYNAMIC, .size_bytes = SIZE};
    struct vhd_create_options top = {.type = VHD_DIFFERENCING, .parent_path = lab.base};

    snprintf(lab.dir, sizeof lab.dir, "/tmp/bough-dirty-XXXXXX");
    assert_non_null(mkdtemp(lab.dir));
    snprintf(lab.logs, sizeof lab.logs, "%s/logs", lab.dir);
    snprintf(lab.base, sizeof lab.base, "%s/base.vhd", lab.dir);
    snprintf(lab.other, sizeof lab.other, "%s/other.vhd", lab.dir);
    snprintf(lab.top, sizeof lab.top, "%s/top.avhd", lab.dir);
    OK(io_make_dir(&io_real, lab.logs, &err) && vhd_create(&io_real, lab.base, &base, &err) &&
       vhd_create(&io_real, lab.other, &base, &err) && vhd_create(&io_real, lab.top, &top, &err));
    struct disk *disk = open_top(&lab, lab.logs);
    write_sector(disk, 0, 1);
    OK(disk_flush(disk, &err));
    write_sector(disk, 2 << 20, 2);
    disk_abandon(disk);
    *state = &lab;
    return 0;
}

static int remove_one(void *context, const char *name)
{
    AUTO_FREE char *path = path_join(context, name);

    return unlink(path) == 0 || errno == EISDIR ? 0 : errno;
}

static int lab_end(void **state)
{
    struct lab *lab = *state;

    OK(io_list(&io_real, lab->logs, remove_one, lab->logs, &err));
    rmdir(lab->logs);
    OK(io_list(&io_real, lab->dir, remove_one, lab->dir, &err));
    assert_int_equal(rmdir(lab->dir), 0);
    return 0;
}

static int count_one(void *context, const char *name)
{
    (void)name;
    ++*(unsigned *)context;
    return 0;
}

static unsigned logs(const struct lab *lab)
{
    unsigned count = 0;

    OK(io_list(&io_real, lab->logs, count_one, &count, &err));
    return count;
}

static void what_was_answered_is_put_in_place_once(void **state)
{
    const struct lab *lab = *state;

    assert_int_equal(logs(lab), 1);
    struct disk *disk = open_top(lab, lab->logs);
    assert_sector(disk, 0, 1);
    assert_sector(disk, 2 << 20, 2);
    OK(disk_close(disk, &err));
    assert_int_equal(logs(lab), 0);
    disk = open_top(lab, NULL);
    assert_sector(disk, 2 << 20, 2);
    OK(disk_close(disk, &err));
}

static void assert_mismatch(const struct lab *lab, uint8_t first)
{
    struct disk_options options = {.writable = true, .log_dir = lab->logs};
    struct disk *disk;

    assert_false(disk_open(lab->top, &options, &disk, &err));
    assert_int_equal(err.code, ERR_MISMATCH);
    assert_non_null(strstr(err.text, lab->logs));
    assert_int_equal(logs(lab), 1);
    disk = open_top(lab, NULL);
    assert_sector(disk, 0, first);
    OK(disk_close(disk, &err));
}

static void an_image_that_was_given_another_parent_meanwhile_is_left_alone(void **state)
{
    const struct lab *lab = *state;

    OK(vhd_reparent(&io_real, lab->top, lab->other, &err));
    assert_mismatch(lab, 1);
}

/* A process that was killed before it needed a new block: the image ends where its log says. */
static void only_bits_wait(const struct lab *lab)
{
    struct disk *disk = open_top(lab, lab->logs);

    OK(disk_flush(disk, &err));
    write_sector(disk, 4096, 4);
    disk_abandon(disk);
    assert_int_equal(logs(lab), 1);
}

static void what_lies_behind_the_end_of_the_log_is_not_cut_off(void **state)
{
    const struct lab *lab = *state;

    only_bits_wait(lab);
    OK(vhd_reparent(&io_real, lab->top, lab->other, &err));
    assert_mismatch(lab, 1);
}

static void bits_alone_are_put_in_place(void **state)
{
    const struct lab *lab = *state;

    only_bits_wait(lab);
    struct disk *disk = open_top(lab, lab->logs);
    assert_sector(disk, 4096, 4);
    assert_sector(disk, 4096 + 512, 0);
    OK(disk_close(disk, &err));
}

static void an_image_that_was_made_larger_meanwhile_is_left_alone(void **state)
{
    const struct lab *lab = *state;

    OK(vhd_resize(&io_real, lab->top, SIZE + (400U << 20), &err));
    assert_mismatch(lab, 1);
}

#define LAB_TEST(name) cmocka_unit_test_setup_teardown(name, lab_start, lab_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(what_was_answered_is_put_in_place_once),
        LAB_TEST(an_image_that_was_given_another_parent_meanwhile_is_left_alone),
        LAB_TEST(what_lies_behind_the_end_of_the_log_is_not_cut_off),
        LAB_TEST(bits_alone_are_put_in_place),
        LAB_TEST(an_image_that_was_made_larger_meanwhile_is_left_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
