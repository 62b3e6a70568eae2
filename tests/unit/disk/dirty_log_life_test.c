/* Dirty logs between processes: what a killed process left, and what became of its image meanwhile. A killed process is a
 * disk that was abandoned here: its log stays, and nothing has the log's lock any more. */
#include "dirty_log.h"
#include "disk.h"
#include "file.h"
#include "ok.h"

#include <dirent.h>
#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/xattr.h>

#include <cmocka.h>

#define SIZE  (8U << 20)
#define BLOCK (2U << 20)

struct lab {
    char dir[64], logs[80], base[80], top[80], copy[80];
    bool marks; /* the file system has extended attributes */
};

static struct err err;

static int lab_begin(void **state)
{
    struct lab *lab = calloc(1, sizeof *lab);

    strcpy(lab->dir, "/tmp/bough-dirty-XXXXXX");
    assert_non_null(mkdtemp(lab->dir));
    snprintf(lab->logs, sizeof lab->logs, "%s/logs", lab->dir);
    snprintf(lab->base, sizeof lab->base, "%s/base.vhd", lab->dir);
    snprintf(lab->top, sizeof lab->top, "%s/top.avhd", lab->dir);
    snprintf(lab->copy, sizeof lab->copy, "%s/copy", lab->dir);
    assert_int_equal(mkdir(lab->logs, 0700), 0);
    struct vhd_create_options base = {.type = VHD_DYNAMIC, .size_bytes = SIZE};
    struct vhd_create_options top = {.type = VHD_DIFFERENCING, .parent_path = lab->base};
    OK(vhd_create(&io_real, lab->base, &base, &err) && vhd_create(&io_real, lab->top, &top, &err));
    lab->marks = setxattr(lab->base, "user.bough.test", "x", 1, 0) == 0;
    *state = lab;
    return 0;
}

static int lab_end(void **state)
{
    struct lab *lab = *state;
    AUTO_FREE char *command = string_printf("rm -r '%s'", lab->dir);
    int status = system(command);

    free(lab);
    return status;
}

static struct disk *open_disk(const struct lab *lab, const char *path, bool writable, const char *log_dir)
{
    struct disk_options options = {.io = &io_real, .writable = writable, .log_dir = log_dir};
    struct disk *disk = NULL;

    (void)lab;
    OK(disk_open(path, &options, &disk, &err));
    return disk;
}

static enum err_code open_code(const char *path, bool writable, const char *log_dir)
{
    struct disk_options options = {.io = &io_real, .writable = writable, .log_dir = log_dir};
    AUTO_DISK struct disk *disk = NULL;

    err = ERR_INIT;
    return disk_open(path, &options, &disk, &err) ? ERR_NONE : err.code;
}

static void fill(struct disk *disk, uint64_t offset, uint8_t value)
{
    uint8_t bytes[4096];

    memset(bytes, value, sizeof bytes);
    OK(disk_write(disk, offset, bytes, sizeof bytes, &err));
}

static uint8_t byte_at(struct disk *disk, uint64_t offset)
{
    uint8_t bytes[512];

    OK(disk_read(disk, offset, bytes, sizeof bytes, &err));
    return bytes[0];
}

static unsigned logs_left(const struct lab *lab)
{
    AUTO_DIR DIR *dir = opendir(lab->logs);
    unsigned count = 0;

    for (const struct dirent *entry; (entry = readdir(dir));)
        count += entry->d_name[0] != '.';
    return count;
}

/* Writes value to two blocks of the image and is killed. */
static void write_and_die(const struct lab *lab, const char *path, uint8_t value)
{
    struct disk *disk = open_disk(lab, path, true, lab->logs);

    fill(disk, 0, value);
    fill(disk, 3 * BLOCK + 8192, value);
    disk_abandon(disk);
    assert_int_equal(logs_left(lab), 1);
}

static void assert_reads(const struct lab *lab, const char *path, uint8_t value)
{
    struct disk *disk = open_disk(lab, path, false, lab->logs);

    assert_int_equal(byte_at(disk, 0), value);
    assert_int_equal(byte_at(disk, 4096), 0);
    assert_int_equal(byte_at(disk, 3 * BLOCK + 8192), value);
    OK(disk_close(disk, &err));
}

static void what_was_answered_is_found_by_the_next_one_to_open_the_image(void **state)
{
    const struct lab *lab = *state;

    write_and_die(lab, lab->top, 7);
    assert_reads(lab, lab->top, 7);
    assert_int_equal(logs_left(lab), 0);
    if (lab->marks)
        assert_int_equal(getxattr(lab->top, DIRTY_MARK, NULL, 0), -1);
}

static void what_was_answered_in_a_parent_is_found_through_its_child(void **state)
{
    const struct lab *lab = *state;

    write_and_die(lab, lab->base, 7);
    assert_reads(lab, lab->top, 7);
    assert_int_equal(logs_left(lab), 0);
}

static void log_of_a_living_writer_is_left_to_him(void **state)
{
    const struct lab *lab = *state;
    struct disk *disk = open_disk(lab, lab->base, true, lab->logs);
    bool changed = true;

    fill(disk, 0, 5);
    OK(dirty_log_replay(&io_real, lab->logs, lab->base, &changed, &err));
    assert_false(changed);
    assert_int_equal(logs_left(lab), 1);
    assert_int_equal(open_code(lab->base, true, lab->logs), ERR_BUSY);
    OK(disk_close(disk, &err));
    assert_int_equal(logs_left(lab), 0);
}

/* Somebody else keeps the base from being written, so that what waits cannot come to its place: nobody may read past it. */
static void what_cannot_be_put_in_place_is_not_read_past(void **state)
{
    const struct lab *lab = *state;
    struct io_file *other;

    write_and_die(lab, lab->base, 7);
    OK(io_open(&io_real, lab->base, IO_READ_ONLY, &other, &err) && io_lock(other, IO_LOCK_SHARE, &err));
    assert_int_equal(open_code(lab->top, false, lab->logs), ERR_BUSY);
    assert_non_null(strstr(err.text, lab->base));
    io_close(other);
    assert_reads(lab, lab->top, 7);
}

static void copy_file(const char *from, const char *to)
{
    AUTO_FREE char *command = string_printf("cp '%s' '%s'", from, to);

    assert_int_equal(system(command), 0);
}

static void log_is_not_put_into_what_took_the_place_of_its_image(void **state)
{
    const struct lab *lab = *state;

    if (!lab->marks)
        skip();
    copy_file(lab->top, lab->copy);
    write_and_die(lab, lab->top, 7);
    struct stat before, after;
    assert_int_equal(stat(lab->top, &before), 0);
    /* the restored copy gets the very inode: by writing it in place */
    copy_file(lab->copy, lab->top);
    assert_int_equal(removexattr(lab->top, DIRTY_MARK), 0); /* as cp to a new file of the same inode leaves it */
    assert_int_equal(stat(lab->top, &after), 0);
    assert_int_equal(before.st_ino, after.st_ino);
    struct disk *disk = open_disk(lab, lab->top, false, lab->logs);
    assert_int_equal(byte_at(disk, 0), 0);
    OK(disk_close(disk, &err));
    assert_int_equal(logs_left(lab), 0);
}

static void log_is_void_when_another_has_written_without_it(void **state)
{
    const struct lab *lab = *state;

    if (!lab->marks)
        skip();
    write_and_die(lab, lab->top, 7);
    struct disk *disk = open_disk(lab, lab->top, true, NULL);
    fill(disk, 0, 9); /* takes the place that the lost block had */
    OK(disk_close(disk, &err));
    disk = open_disk(lab, lab->top, false, lab->logs);
    assert_int_equal(byte_at(disk, 0), 9);
    assert_int_equal(byte_at(disk, 3 * BLOCK + 8192), 0);
    OK(disk_close(disk, &err));
    assert_int_equal(logs_left(lab), 0);
}

static void log_of_an_image_that_was_moved_goes_with_it(void **state)
{
    const struct lab *lab = *state;

    write_and_die(lab, lab->base, 7);
    assert_int_equal(rename(lab->base, lab->copy), 0);
    OK(dirty_log_replay_all(&io_real, lab->logs, lab->dir, &err));
    assert_int_equal(logs_left(lab), 0);
    assert_reads(lab, lab->copy, 7);
}

static void what_is_no_image_is_no_matter_of_a_log(void **state)
{
    const struct lab *lab = *state;
    struct stat st;
    bool changed;

    AUTO_FD int fd = open(lab->copy, O_CREAT | O_WRONLY, 0600);
    assert_true(fd >= 0 && write(fd, "nothing", 7) == 7 && fstat(fd, &st) == 0);
    AUTO_FREE char *log = string_printf("%s/%llx-%llx.dirty", lab->logs, (unsigned long long)st.st_dev,
                                        (unsigned long long)st.st_ino);
    AUTO_FD int made = open(log, O_CREAT | O_WRONLY, 0600);
    assert_true(made >= 0);
    OK(dirty_log_replay(&io_real, lab->logs, lab->copy, &changed, &err));
    assert_false(changed);
}

static void a_sealed_layer_lets_nobody_in_before_it_is_durable(void **state)
{
    const struct lab *lab = *state;
    struct disk_next_top *next;

    struct disk *disk = open_disk(lab, lab->base, true, lab->logs);
    fill(disk, 0, 7);
    OK(disk_next_top_open(disk, lab->top, &next, &err));
    disk_seal_and_push(disk, next);
    struct vhd_create_options sibling = {.type = VHD_DIFFERENCING, .parent_path = lab->base};
    OK(vhd_create(&io_real, lab->copy, &sibling, &err));
    assert_int_equal(open_code(lab->copy, true, lab->logs), ERR_BUSY);
    OK(disk_flush(disk, &err));
    struct disk *other = open_disk(lab, lab->copy, true, lab->logs);
    assert_int_equal(byte_at(other, 0), 7);
    OK(disk_close(other, &err));
    OK(disk_close(disk, &err));
}

#define LAB_TEST(test) cmocka_unit_test_setup_teardown(test, lab_begin, lab_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        LAB_TEST(what_was_answered_is_found_by_the_next_one_to_open_the_image),
        LAB_TEST(what_was_answered_in_a_parent_is_found_through_its_child),
        LAB_TEST(log_of_a_living_writer_is_left_to_him),
        LAB_TEST(what_cannot_be_put_in_place_is_not_read_past),
        LAB_TEST(log_is_not_put_into_what_took_the_place_of_its_image),
        LAB_TEST(log_is_void_when_another_has_written_without_it),
        LAB_TEST(log_of_an_image_that_was_moved_goes_with_it),
        LAB_TEST(what_is_no_image_is_no_matter_of_a_log),
        LAB_TEST(a_sealed_layer_lets_nobody_in_before_it_is_durable),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
