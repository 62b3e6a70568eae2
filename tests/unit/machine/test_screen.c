/* Pictures of the screen of a real QEMU. */
#include "real_machine.h"

static void a_screenshot_is_a_png(void **state)
{
    (void)state;
    struct machine *machine = start();
    assert_false(machine_screenshot(machine, scratch_path("a.png"), &err));
    assert_int_equal(err.code, ERR_STATE);
    machine_kill(machine);
    config.display = DISPLAY_VNC;
    machine = start_running();
    if (!machine_screenshot(machine, scratch_path("a, b.png"), &err))
        fail_msg("%s", err.text);
    char *picture = scratch_read("a, b.png");
    assert_memory_equal(picture, "\x89PNG\r\n\x1a\n", 8);
    free(picture);
    struct stat status;
    char *socket_name = NULL;
    assert_true(asprintf(&socket_name, "%s/vnc.sock", launch.dir) > 0);
    assert_int_equal(stat(socket_name, &status), 0);
    free(socket_name);
    machine_kill(machine);
}

static void a_screen_is_read_without_a_file(void **state)
{
    char picture[16] = "";
    int fd;
    (void)state;
    struct machine *machine = start();
    assert_false(machine_screen_read(machine, &fd, &err));
    assert_int_equal(err.code, ERR_STATE);
    machine_kill(machine);
    config.display = DISPLAY_VNC;
    machine = start_running();
    for (int i = 0; i < 3; i++) { /* nothing is left of one that could be in the way of the next */
        if (!machine_screen_read(machine, &fd, &err))
            fail_msg("%s", err.text);
        assert_int_equal(pread(fd, picture, sizeof picture - 1, 0), sizeof picture - 1);
        unsigned width, height;
        assert_int_equal(sscanf(picture, "P6 %u %u 255", &width, &height), 2);
        assert_in_range(width, 320, 1920);
        assert_in_range(height, 200, 1200);
        assert_in_range(lseek(fd, 0, SEEK_END), 3 * width * height, 3 * width * height + 32);
        close(fd);
    }
    machine_kill(machine);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, settings_make, processes_end)
    static const struct CMUnitTest tests[] = {
        TEST(a_screenshot_is_a_png),
        TEST(a_screen_is_read_without_a_file),
    };
    if (!qemu_find(&qemu, &err)) {
        print_message("skipped: %s\n", err.text);
        return 77;
    }
    return cmocka_run_group_tests_name("screen", tests, find_qemu, scratch_remove);
}
