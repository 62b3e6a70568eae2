/* The runtime directory: ours alone, found again from the VM's folder, and emptied. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auto.h"
#include "file.h"
#include "runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char dir[64], base[96], vm_dir[96];

static int dirs_make(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/bough-rt-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(base, sizeof base, "%s/run", dir);
    snprintf(vm_dir, sizeof vm_dir, "%s/vm", dir);
    setenv("BOUGH_RUNTIME", base, 1);
    return mkdir(vm_dir, 0700);
}

static int dirs_remove(void **state)
{
    AUTO_FREE char *path = NULL;
    struct err err;

    (void)state;
    if (!runtime_dir(vm_dir, &path, &err))
        return -1;
    runtime_remove(path);
    return rmdir(base) == 0 && rmdir(vm_dir) == 0 && rmdir(dir) == 0 ? 0 : -1;
}

static void the_same_folder_has_the_same_runtime_folder_also_under_another_name(void **state)
{
    AUTO_FREE char *first = NULL;
    AUTO_FREE char *second = NULL;
    char moved[128];
    struct err err;
    struct stat st;

    (void)state;
    assert_true(runtime_dir(vm_dir, &first, &err));
    assert_int_equal(stat(first, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0700);
    snprintf(moved, sizeof moved, "%s.moved", vm_dir);
    assert_int_equal(rename(vm_dir, moved), 0);
    bool found = runtime_dir(moved, &second, &err);
    assert_int_equal(rename(moved, vm_dir), 0);
    assert_true(found);
    assert_string_equal(first, second);
}

static void a_runtime_folder_that_others_can_enter_is_refused(void **state)
{
    AUTO_FREE char *path = NULL;
    struct err err;

    (void)state;
    assert_int_equal(chmod(base, 0755), 0);
    bool opened = runtime_dir(vm_dir, &path, &err);
    assert_int_equal(chmod(base, 0700), 0);
    assert_false(opened);
    assert_int_equal(err.code, ERR_INVALID);
    assert_non_null(strstr(err.text, base));
}

static void a_runtime_folder_too_deep_for_sockets_is_refused(void **state)
{
    AUTO_FREE char *path = NULL;
    struct err err;
    char deep[200];

    (void)state;
    memset(deep, 'x', sizeof deep);
    deep[0] = '/';
    deep[sizeof deep - 1] = '\0';
    setenv("BOUGH_RUNTIME", deep, 1);
    bool opened = runtime_dir(vm_dir, &path, &err);
    setenv("BOUGH_RUNTIME", base, 1);
    assert_false(opened);
    assert_int_equal(err.code, ERR_INVALID);
}

static void process_folders_are_fresh_and_swept(void **state)
{
    AUTO_FREE char *path = NULL;
    AUTO_FREE char *first = NULL;
    AUTO_FREE char *second = NULL;
    struct err err;
    bool renamed;

    (void)state;
    assert_true(runtime_dir(vm_dir, &path, &err));
    assert_true(runtime_process_dir(path, &first, &err) && runtime_process_dir(path, &second, &err));
    assert_string_not_equal(first, second);
    AUTO_FREE char *log = path_join(first, "qemu.log");
    AUTO_FREE char *other = path_join(path, RUNTIME_WORKER_LOG);
    assert_true(file_replace(&io_real, log, "x", 1, &renamed, &err));
    assert_true(file_replace(&io_real, other, "x", 1, &renamed, &err));
    runtime_sweep(path, (const char *const[]){second}, 1);
    assert_int_equal(access(first, F_OK), -1);
    assert_int_equal(access(second, F_OK), 0);
    runtime_sweep(path, NULL, 0);
    assert_int_equal(access(second, F_OK), -1);
    assert_int_equal(access(other, F_OK), 0);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_folder_has_the_same_runtime_folder_also_under_another_name),
        cmocka_unit_test(a_runtime_folder_that_others_can_enter_is_refused),
        cmocka_unit_test(a_runtime_folder_too_deep_for_sockets_is_refused),
        cmocka_unit_test(process_folders_are_fresh_and_swept),
    };

    return cmocka_run_group_tests(tests, dirs_make, dirs_remove);
}
