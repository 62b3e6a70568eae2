/* What one worker leaves to the next: the record of a guest, and why a machine has ended. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auto.h"
#include "file.h"
#include "guest_record.h"
#include "last_end.h"
#include "processes.h"
#include "runtime.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

static char runtime[64], process[96];

static int dirs_make(void **state)
{
    (void)state;
    strcpy(runtime, "/tmp/bough-record-XXXXXX");
    if (!mkdtemp(runtime))
        return -1;
    snprintf(process, sizeof process, "%s/7", runtime);
    return mkdir(process, 0700);
}

static int dirs_remove(void **state)
{
    (void)state;
    runtime_sweep(runtime, NULL, 0);
    last_end_forget(runtime);
    return rmdir(runtime);
}

static void file_make(const char *name, const char *text)
{
    AUTO_FREE char *path = path_join(process, name);
    struct err err;
    bool renamed;

    assert_true(file_replace(&io_real, path, text, strlen(text), &renamed, &err));
}

static void record_make(void)
{
    struct guest_record_export exports[2] = {{.disk = "ide0", .socket = (char[]){"/r/0/disk0.sock"}},
                                             {.disk = "virtio12", .socket = (char[]){"/r/0/disk2.sock"}}};
    struct guest_record record = {
        .pid = 4321,
        .started = 18446744073709ULL,
        .generation_id = {"0123ABCD-0000-4000-8000-000000000001"},
        .accel = ACCEL_TCG,
        .is_to_run = true,
        .disks_dir = (char[]){"/r/0"},
        .memory = (char[]){"/home/v/Snapshots/\xc3\xa4 b/x.bin"},
        .exports = exports,
        .export_count = 2,
    };
    struct err err;

    assert_true(guest_record_write(process, &record, &err));
}

static void a_record_is_read_as_it_was_written(void **state)
{
    AUTO(guest_record_done) struct guest_record record = {0};
    struct err err;

    (void)state;
    record_make();
    assert_true(guest_record_read(process, &record, &err));
    assert_int_equal(record.pid, 4321);
    assert_true(record.started == 18446744073709ULL);
    assert_string_equal(record.generation_id.text, "0123ABCD-0000-4000-8000-000000000001");
    assert_int_equal(record.accel, ACCEL_TCG);
    assert_true(record.is_to_run && !record.resources_held);
    assert_string_equal(record.disks_dir, "/r/0");
    assert_string_equal(record.memory, "/home/v/Snapshots/\xc3\xa4 b/x.bin");
    assert_int_equal(record.export_count, 2);
    assert_string_equal(record.exports[1].disk, "virtio12");
    assert_string_equal(record.exports[1].socket, "/r/0/disk2.sock");
}

static void a_record_can_lack_what_is_a_hint(void **state)
{
    struct guest_record bare = {.pid = 1, .accel = ACCEL_KVM, .disks_dir = (char[]){"/r"}, .memory = (char[]){"\xff"}};
    AUTO(guest_record_done) struct guest_record record = {0};
    struct err err;

    (void)state;
    assert_true(guest_record_write(process, &bare, &err) && guest_record_read(process, &record, &err));
    assert_null(record.memory);
    assert_false(guid_is_set(&record.generation_id));
    assert_int_equal(record.export_count, 0);
}

static void what_is_no_record_is_told_from_none(void **state)
{
    static const char *const BAD[] = {"", "{}", "[1]", "{\"pid\": 3", "{\"pid\": \"x\", \"started\": 1}"};
    struct guest_record record;
    struct err err;

    (void)state;
    assert_false(guest_record_read(process, &record, &err));
    assert_int_equal(err.code, ERR_NOT_FOUND);
    for (size_t i = 0; i < ARRAY_SIZE(BAD); i++) {
        file_make(GUEST_RECORD_FILE, BAD[i]);
        assert_false(guest_record_read(process, &record, &err));
        assert_int_equal(err.code, ERR_CORRUPT);
    }
}

static void a_process_is_known_by_the_time_of_its_start(void **state)
{
    (void)state;
    assert_true(vm_process_started(getpid()) > 0);
    assert_true(vm_process_started(getpid()) == vm_process_started(getpid()));
    assert_true(vm_process_started(getpid()) >= vm_process_started(getppid()));
    assert_true(vm_process_started(1 << 30) == 0);
}

static void expect_end(const char *code, const char *part)
{
    json_auto_t *end = last_end_read(runtime);

    assert_string_equal(json_string_value(json_object_get(end, "code")), code);
    assert_non_null(strstr(json_string_value(json_object_get(end, "message")), part));
}

static void an_end_is_kept_until_it_is_forgotten(void **state)
{
    (void)state;
    json_auto_t *none = last_end_read(runtime);
    assert_true(json_is_null(none) && !last_end_is_fault(none));
    last_end_write(runtime, END_QEMU_FAILED, "QEMU was ended by signal 9 \xff");
    expect_end(END_QEMU_FAILED, "signal 9");
    last_end_write(runtime, END_GUEST_SHUTDOWN, "off");
    expect_end(END_GUEST_SHUTDOWN, "off");
    last_end_forget(runtime);
    json_auto_t *again = last_end_read(runtime);
    assert_true(json_is_null(again));
}

static void an_end_that_nobody_saw_is_told_by_what_is_left(void **state)
{
    (void)state;
    file_make("qemu.log", "qemu-system-x86_64: something is wrong\n");
    json_auto_t *unready = last_end_read(runtime);
    assert_true(json_is_null(unready)); /* it never was the VM's guest */
    record_make();
    file_make("qmp.sock", "");
    expect_end(END_QEMU_FAILED, "killed or crashed: something is wrong");
    last_end_keep(runtime);
    runtime_sweep(runtime, NULL, 0);
    expect_end(END_QEMU_FAILED, "killed or crashed: something is wrong");
    last_end_forget(runtime);
    assert_int_equal(mkdir(process, 0700), 0);
    record_make();
    expect_end(END_QEMU_ENDED, "switched itself off");
}

#define test_of(test) cmocka_unit_test_setup_teardown(test, dirs_make, dirs_remove)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test_of(a_record_is_read_as_it_was_written),
        test_of(a_record_can_lack_what_is_a_hint),
        test_of(what_is_no_record_is_told_from_none),
        test_of(a_process_is_known_by_the_time_of_its_start),
        test_of(an_end_is_kept_until_it_is_forgotten),
        test_of(an_end_that_nobody_saw_is_told_by_what_is_left),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
