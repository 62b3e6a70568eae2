/* Lists of names, and those of a real folder. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "name_list.h"

#include <fcntl.h>
#include <stdio.h>
#include <sys/stat.h>

static void what_is_in_a_folder_is_listed_hidden_names_and_folders_too(void **state)
{
    static const char *const FILES[] = {"b", "a.xml", ".hidden"};
    AUTO_NAME_LIST struct name_list list = {0};
    char dir[] = "/tmp/bough-names-XXXXXX";
    struct err err;

    (void)state;
    assert_non_null(mkdtemp(dir));
    AUTO_FD int dir_fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    assert_int_equal(mkdirat(dir_fd, "folder", 0700), 0);
    for (size_t i = 0; i < ARRAY_SIZE(FILES); i++) {
        AUTO_FD int fd = openat(dir_fd, FILES[i], O_WRONLY | O_CREAT | O_CLOEXEC, 0600);
        assert_true(fd >= 0);
    }
    assert_true(name_list_read(&io_real, dir, &list, &err));
    name_list_sort(&list);
    for (size_t i = 0; i < ARRAY_SIZE(FILES); i++)
        unlinkat(dir_fd, FILES[i], 0);
    unlinkat(dir_fd, "folder", AT_REMOVEDIR);
    assert_int_equal(rmdir(dir), 0);
    assert_int_equal(list.count, 4);
    assert_string_equal(list.items[0], ".hidden");
    assert_string_equal(list.items[1], "a.xml");
    assert_string_equal(list.items[2], "b");
    assert_string_equal(list.items[3], "folder");
}

static void a_list_grows_by_name_and_by_folder(void **state)
{
    AUTO_NAME_LIST struct name_list list = {0};
    struct err err;

    (void)state;
    name_list_sort(&list); /* nothing is in order */
    assert_true(name_list_add(&list, "/z/later", &err));
    assert_true(name_list_add(&list, "", &err));
    /* A folder that cannot be read takes nothing away. */
    assert_false(name_list_read(&io_real, "/nonexistent-folder", &list, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    assert_int_equal(list.count, 2);
    name_list_sort(&list);
    assert_string_equal(list.items[0], "");
    assert_string_equal(list.items[1], "/z/later");
    name_list_done(&list);
    assert_int_equal(list.count, 0);
    assert_null(list.items);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_in_a_folder_is_listed_hidden_names_and_folders_too),
        cmocka_unit_test(a_list_grows_by_name_and_by_folder),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
