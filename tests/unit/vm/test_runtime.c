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

struct seen {
    unsigned count;
    pid_t pid;
    uint64_t start_time;
};

static bool see(void *context, const char *process_dir, pid_t pid, uint64_t start_time, struct err *err)
{
    struct seen *seen = context;

    (void)process_dir;
    seen->count++;
    seen->pid = pid;
    seen->start_time = start_time;
    return pid != 666 || err_set(err, ERR_STATE, "enough");
}

static void recorded_processes_are_found_and_damaged_records_are_not(void **state)
{
    AUTO_FREE char *path = NULL;
    AUTO_FREE char *first = NULL;
    AUTO_FREE char *second = NULL;
    struct seen seen = {0};
    struct err err;
    bool renamed;

    (void)state;
    assert_true(runtime_dir(vm_dir, &path, &err));
    assert_true(runtime_process_dir(path, &first, &err) && runtime_process_dir(path, &second, &err));
    assert_string_not_equal(first, second);
    assert_true(runtime_record_process(first, 4242, 123456789012ULL, &err));
    AUTO_FREE char *record = path_join(second, "process");
    assert_true(file_replace(&io_real, record, "1 1", 3, &renamed, &err)); /* init is nobody's guest */
    assert_true(runtime_each_process(path, see, &seen, &err));
    assert_int_equal(seen.count, 1);
    assert_int_equal(seen.pid, 4242);
    assert_int_equal(seen.start_time, 123456789012ULL);
    assert_true(runtime_record_process(first, 666, 1, &err));
    assert_false(runtime_each_process(path, see, &seen, &err));
    assert_string_equal(err.text, "enough");
    runtime_sweep(path);
    assert_int_equal(access(first, F_OK), -1);
    assert_int_equal(access(second, F_OK), -1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_same_folder_has_the_same_runtime_folder_also_under_another_name),
        cmocka_unit_test(a_runtime_folder_that_others_can_enter_is_refused),
        cmocka_unit_test(a_runtime_folder_too_deep_for_sockets_is_refused),
        cmocka_unit_test(recorded_processes_are_found_and_damaged_records_are_not),
    };

    return cmocka_run_group_tests(tests, dirs_make, dirs_remove);
}
