/* What QEMU says of an error on a disk, from the words of a real one. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "machine.h"

#include <string.h>

static struct config_disk disks[] = {
    {.bus = BUS_IDE, .slot = 1, .is_cdrom = true},
    {.bus = BUS_VIRTIO, .slot = 0},
    {.bus = BUS_VIRTIO, .slot = 12},
};
static const struct config config = {.disks = disks, .disk_count = 3};
static struct machine_disk_error error;

static bool read_event(const char *name, const char *data)
{
    json_error_t ignored;
    json_t *event = json_loads(data, 0, &ignored);
    assert_non_null(event);
    event = json_pack("{s:s, s:o, s:{s:i, s:i}}", "event", name, "data", event, "timestamp", "seconds", 1,
                      "microseconds", 2);
    bool is_one = machine_disk_error_read(event, &config, &error);
    bool same = !is_one || (strlen(error.operation) > 0 && strlen(error.reason) > 0);
    assert_true(same);
    error.operation = error.reason = NULL; /* the event's */
    json_decref(event);
    return is_one;
}

static void want_of_space_stops_the_guest(void **state)
{
    (void)state;
    assert_true(read_event("BLOCK_IO_ERROR",
                           "{\"device\": \"\", \"nospace\": true, \"node-name\": \"disk-virtio12\", \"reason\": "
                           "\"No space left on device\", \"operation\": \"write\", \"action\": \"stop\"}"));
    assert_int_equal(error.disk, 2);
    assert_true(error.stops_guest && error.no_space);
}

static void any_other_error_is_the_guests(void **state)
{
    (void)state;
    assert_true(read_event("BLOCK_IO_ERROR",
                           "{\"device\": \"\", \"nospace\": false, \"node-name\": \"disk-virtio0\", \"reason\": "
                           "\"Input/output error\", \"operation\": \"read\", \"action\": \"report\"}"));
    assert_int_equal(error.disk, 1);
    assert_false(error.stops_guest || error.no_space);
}

static void what_is_no_error_of_our_disks_is_left_alone(void **state)
{
    (void)state;
    assert_false(read_event("STOP", "{}"));
    assert_false(read_event("BLOCK_IO_ERROR", "{}"));
    assert_false(read_event("BLOCK_IO_ERROR", "{\"node-name\": \"disk-virtio1\", \"action\": \"stop\"}"));
    assert_false(read_event("BLOCK_IO_ERROR", "{\"node-name\": \"virtio0\", \"action\": \"stop\"}"));
    assert_false(read_event("BLOCK_IO_ERROR", "{\"node-name\": 7, \"action\": [\"stop\"]}"));
}

int main(void)
{
    static const struct CMUnitTest tests[] = {
        cmocka_unit_test(want_of_space_stops_the_guest),
        cmocka_unit_test(any_other_error_is_the_guests),
        cmocka_unit_test(what_is_no_error_of_our_disks_is_left_alone),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
