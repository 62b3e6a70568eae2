/* Paths, whole files, and the real side of the I/O seam. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "file.h"

#include <errno.h>
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

static char dir[64];

static int dir_make(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/bough-file-XXXXXX");
    return mkdtemp(dir) ? 0 : -1;
}

static int remove_entry(void *context, const char *name)
{
    AUTO_FREE char *path = path_join(context, name);

    return remove(path) == 0 ? 0 : errno;
}

static int dir_remove(void **state)
{
    struct err err;

    (void)state;
    return io_list(&io_real, dir, remove_entry, dir, &err) && rmdir(dir) == 0 ? 0 : -1;
}

static void relative_paths_lead_from_any_folder_to_any_file(void **state)
{
    static const struct {
        const char *dir, *to, *relative;
    } CASES[] = {
        {"/a/b", "/a/b/c", "c"},       {"/a/b", "/a/c", "../c"},     {"/a/b", "/a/bc/d", "../bc/d"},
        {"/", "/a", "a"},              {"/a/b/c", "/x", "../../../x"}, {"/a", "/a", "."},
        {"/a/b", "/a", "../"},         {"/ab/c", "/a/c", "../../a/c"},
    };

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(CASES); i++) {
        AUTO_FREE char *relative = path_relative(CASES[i].dir, CASES[i].to);
        assert_string_equal(relative, CASES[i].relative);
    }
}

static void absolute_paths_are_clean(void **state)
{
    static const struct {
        const char *path, *absolute;
    } CASES[] = {{"/a/./b//c/", "/a/b/c"}, {"/a/../b", "/b"}, {"/../..", "/"}, {"/", "/"}, {"/a/b/..", "/a"}};

    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(CASES); i++) {
        AUTO_FREE char *absolute = path_absolute(CASES[i].path);
        assert_string_equal(absolute, CASES[i].absolute);
    }
    AUTO_FREE char *here = path_absolute("x");
    assert_int_equal(here[0], '/');
    assert_true(path_is_inside("/a/b", "/a") && !path_is_inside("/ab", "/a") && !path_is_inside("/a", "/a"));
}

static void a_replaced_file_is_old_or_new_and_leaves_nothing_beside_it(void **state)
{
    AUTO_FREE char *path = path_join(dir, "file");
    AUTO_BUF struct buf content = BUF_INIT;
    struct err err;
    bool renamed;
    struct stat st;

    (void)state;
    assert_true(file_replace(&io_real, path, "old", 3, &renamed, &err));
    assert_true(file_replace(&io_real, path, "new!", 4, &renamed, &err));
    assert_true(renamed);
    assert_true(file_read_all(&io_real, path, 100, &content, &err));
    assert_string_equal((char *)content.data, "new!");
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    AUTO_FREE char *temporary = path_join(dir, "file" FILE_TEMPORARY_SUFFIX);
    assert_false(io_exists(&io_real, temporary));
}

static void a_file_over_the_limit_is_refused_by_name(void **state)
{
    AUTO_FREE char *path = path_join(dir, "large");
    AUTO_BUF struct buf content = BUF_INIT;
    struct err err;
    bool renamed;

    (void)state;
    assert_true(file_replace(&io_real, path, "0123456789", 10, &renamed, &err));
    assert_false(file_read_all(&io_real, path, 9, &content, &err));
    assert_int_equal(err.code, ERR_CORRUPT);
    assert_non_null(strstr(err.text, path));
}

static void what_is_no_regular_file_is_not_opened(void **state)
{
    AUTO_FREE char *fifo = path_join(dir, "fifo");
    struct io_file *file;
    struct err err;

    (void)state;
    assert_int_equal(mkfifo(fifo, 0600), 0);
    assert_false(io_open(&io_real, fifo, IO_READ_ONLY, &file, &err));
    assert_false(io_open(&io_real, dir, IO_READ_ONLY, &file, &err));
    assert_false(io_open(&io_real, "/dev/null", IO_READ_ONLY, &file, &err));
}

static void reading_past_the_end_is_corrupt_and_names_the_place(void **state)
{
    AUTO_FREE char *path = path_join(dir, "short");
    AUTO_IO struct io_file *file = NULL;
    struct err err;
    char bytes[8];

    (void)state;
    assert_true(io_open(&io_real, path, IO_CREATE, &file, &err));
    assert_true(io_write(file, 0, "12345", 5, &err));
    assert_false(io_read(file, 0, bytes, 8, &err));
    assert_int_equal(err.code, ERR_CORRUPT);
    assert_non_null(strstr(err.text, "short"));
    assert_true(io_zero(file, 1, 3, &err));
    assert_true(io_read(file, 0, bytes, 5, &err));
    assert_memory_equal(bytes, "1\0\0\0005", 5);
    struct io_file *again;
    assert_false(io_open(&io_real, path, IO_CREATE, &again, &err));
    assert_int_equal(err.code, ERR_EXISTS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(relative_paths_lead_from_any_folder_to_any_file),
        cmocka_unit_test(absolute_paths_are_clean),
        cmocka_unit_test(a_replaced_file_is_old_or_new_and_leaves_nothing_beside_it),
        cmocka_unit_test(a_file_over_the_limit_is_refused_by_name),
        cmocka_unit_test(what_is_no_regular_file_is_not_opened),
        cmocka_unit_test(reading_past_the_end_is_corrupt_and_names_the_place),
    };

    return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
