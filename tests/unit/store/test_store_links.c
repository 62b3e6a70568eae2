/* Links in a folder that is removed, or swept: what they lead to is not the VM's. On the real disk. */
#include "auto.h"
#include "buf.h"
#include "file.h"
#include "store_private.h"

#include <errno.h>
#include <ftw.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cmocka.h>

static char dir[128];
static struct err err;

static char *in_dir(const char *name)
{
    char *path = path_join(dir, name);

    assert_non_null(path);
    return path;
}

static void make_file(const char *name)
{
    AUTO_FREE char *path = in_dir(name);
    struct io_file *file;

    assert_true(io_open(&io_real, path, IO_CREATE, &file, &err));
    io_close(file);
}

static void make_folder(const char *name)
{
    AUTO_FREE char *path = in_dir(name);

    assert_true(dir_make_all(&io_real, path, &err));
}

static bool exists(const char *name)
{
    AUTO_FREE char *path = in_dir(name);

    return io_exists(&io_real, path);
}

/* As in a folder that its owner may not write to. */
static int unlink_refused(const struct io *io, const char *path)
{
    if (strcmp(path_base(path), "link") == 0)
        return EACCES;
    return io_real.ops->unlink(io, path);
}

static void what_a_link_leads_to_stays_also_where_the_link_cannot_be_removed(void **state)
{
    struct io_ops ops = *io_real.ops;
    struct io io = {.ops = &ops};
    AUTO_FREE char *gone = in_dir("gone");
    AUTO_FREE char *link = in_dir("gone/folder/link");
    AUTO_FREE char *mine = in_dir("mine");
    (void)state;
    make_folder("mine/deeper");
    make_file("mine/thesis");
    make_file("mine/deeper/thesis");
    make_folder("gone/folder");
    make_file("gone/folder/file");
    assert_int_equal(symlink(mine, link), 0);
    ops.unlink = unlink_refused;
    remove_all(&io, gone);
    assert_true(exists("mine/thesis") && exists("mine/deeper/thesis"));
    assert_false(exists("gone/folder/file"));
    remove_all(&io_real, gone);
    assert_false(exists("gone"));
    assert_true(exists("mine/thesis") && exists("mine/deeper/thesis"));
}

/* Anybody who can read a folder can have its lock. */
static void a_strangers_lock_on_the_folder_does_not_keep_us_for_ever(void **state)
{
    AUTO_FD int stranger = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
    (void)state;
    assert_int_equal(flock(stranger, LOCK_EX), 0);
    alarm(60);
    AUTO_FD int fd = home_lock(&io_real, dir);
    alarm(0);
    assert_true(fd >= 0);
}

static int remove_one(const char *path, const struct stat *stat, int type, struct FTW *walk)
{
    (void)stat;
    (void)walk;
    return type == FTW_DP ? rmdir(path) : unlink(path);
}

static int begin(void **state)
{
    const char *tmp = getenv("TMPDIR");
    (void)state;
    snprintf(dir, sizeof dir, "%s/bough-links-XXXXXX", tmp && strlen(tmp) < 60 ? tmp : "/tmp");
    return mkdtemp(dir) ? 0 : -1;
}

static int end(void **state)
{
    (void)state;
    return nftw(dir, remove_one, 8, FTW_DEPTH | FTW_PHYS);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(what_a_link_leads_to_stays_also_where_the_link_cannot_be_removed, begin, end),
        cmocka_unit_test_setup_teardown(a_strangers_lock_on_the_folder_does_not_keep_us_for_ever, begin, end),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
