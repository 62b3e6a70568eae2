/* Finding QEMU, asking it once, and its process, with scripts in its place. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "machine_private.h"
#include "scratch.h"

#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/wait.h>

#define SAYS(version) "echo x >> \"$0.asked\"; echo 'QEMU emulator version " version " (Test)'"

static struct err err;
static struct qemu qemu;

static int fresh(void **state)
{
    if (scratch_remove(state) != 0 || scratch_make(state) != 0 || mkdir(scratch_path("run"), 0700) != 0)
        return -1;
    setenv("BOUGH_RUNTIME", scratch_path("run"), 1);
    setenv("BOUGH_QEMU", scratch_path("qemu"), 1);
    err = ERR_INIT;
    qemu = (struct qemu){0};
    return 0;
}

static size_t times_asked(void)
{
    char *text = scratch_read("qemu.asked");
    size_t count = strlen(text) / 2;
    free(text);
    return count;
}

static void a_version_from_7_2_on_is_taken(void **state)
{
    static const struct {
        const char *script;
        bool good;
        const char *version;
    } cases[] = {
        {SAYS("7.2.22"), true, "7.2.22"}, {SAYS("7.2.0"), true, "7.2.0"}, {SAYS("10.0.2"), true, "10.0.2"},
        {SAYS("7.1.99"), false, NULL},    {SAYS("6.2.0"), false, NULL},   {SAYS("2.12.1"), false, NULL},
    };
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        assert_int_equal(fresh(state), 0);
        scratch_script("qemu", cases[i].script);
        if (cases[i].good) {
            assert_true(qemu_find(&qemu, &err));
            assert_string_equal(qemu.version, cases[i].version);
            assert_string_equal(qemu.path, scratch_path("qemu"));
        } else {
            assert_false(qemu_find(&qemu, &err));
            assert_int_equal(err.code, ERR_QEMU);
            assert_non_null(strstr(err.text, "7.2 or later"));
            assert_string_equal(qemu.path, "");
        }
    }
}

static void what_is_no_qemu_is_refused(void **state)
{
    static const char *const scripts[] = {"echo hello",
                                          "exit 0",
                                          "echo 'QEMU emulator version x'",
                                          SAYS("7.2.22") "; exit 3",
                                          "kill -9 $$",
                                          "yes x | head -c 3000000"};
    for (size_t i = 0; i < ARRAY_SIZE(scripts); i++) {
        assert_int_equal(fresh(state), 0);
        scratch_script("qemu", scripts[i]);
        assert_false(qemu_find(&qemu, &err));
        assert_int_equal(err.code, ERR_QEMU);
        assert_non_null(strstr(err.text, scratch_path("qemu")));
    }
}

static void a_missing_qemu_is_named(void **state)
{
    (void)state;
    assert_false(qemu_find(&qemu, &err));
    assert_int_equal(err.code, ERR_QEMU);
    assert_non_null(strstr(err.text, scratch_path("qemu")));
    scratch_write("qemu", "no program", 10);
    assert_false(qemu_find(&qemu, &err));
    assert_int_equal(err.code, ERR_QEMU);
    char *path = strdup(getenv("PATH"));
    unsetenv("BOUGH_QEMU");
    setenv("PATH", scratch, 1);
    assert_false(qemu_find(&qemu, &err));
    assert_non_null(strstr(err.text, "PATH"));
    scratch_script("qemu-system-x86_64", "echo 'QEMU emulator version 9.1.0'");
    assert_true(qemu_find(&qemu, &err));
    assert_string_equal(qemu.version, "9.1.0");
    setenv("PATH", path, 1);
    free(path);
}

static void it_is_asked_once_until_it_changes(void **state)
{
    (void)state;
    scratch_script("qemu", SAYS("7.2.22"));
    for (int i = 0; i < 3; i++)
        assert_true(qemu_find(&qemu, &err));
    assert_int_equal(times_asked(), 1);
    scratch_script("qemu", SAYS("8.2.1"));
    assert_true(qemu_find(&qemu, &err));
    assert_string_equal(qemu.version, "8.2.1");
    assert_int_equal(times_asked(), 2);
}

static void a_cache_that_others_can_reach_is_not_used(void **state)
{
    (void)state;
    scratch_script("qemu", SAYS("7.2.22"));
    assert_int_equal(chmod(scratch_path("run"), 0755), 0);
    for (int i = 0; i < 2; i++)
        assert_true(qemu_find(&qemu, &err));
    assert_int_equal(times_asked(), 2);
}

static void a_machine_type_must_be_in_its_list(void **state)
{
    char *machine = NULL;
    (void)state;
    scratch_script("qemu", "[ \"$1 $2\" = '-machine help' ] && { echo 'Supported machines are:'; echo "
                           "'pc-i440fx-7.2  Standard PC';"
                           " echo 'pc-q35-7.1  Standard'; exit 0; }\n" SAYS("7.2.22"));
    assert_true(qemu_find(&qemu, &err));
    assert_true(qemu_check_machine(&qemu, "pc-i440fx-7.2", &err));
    assert_true(qemu_check_machine(&qemu, "pc-q35-7.1", &err));
    static const char *const wrong[] = {"pc-i440fx-9.0", "pc-i440fx-7.", "", "Standard", "pc"};
    for (size_t i = 0; i < ARRAY_SIZE(wrong); i++) {
        assert_false(qemu_check_machine(&qemu, wrong[i], &err));
        assert_int_equal(err.code, ERR_UNSUPPORTED);
    }
    assert_true(qemu_default_machine(&qemu, 1, &machine, &err));
    assert_string_equal(machine, "pc-i440fx-7.2");
    free(machine);
    machine = NULL;
    assert_false(qemu_default_machine(&qemu, 2, &machine, &err));
    assert_null(machine);
}

/* --- its process --- */

static struct config config = {.name = (char *)"x",
                               .generation = 1,
                               .memory_bytes = 1 << 20,
                               .cpus = 1,
                               .machine = (char *)"pc-i440fx-7.2",
                               .cpu_model = (char *)"max"};

static bool start(struct machine **ret_machine, int alive_fd)
{
    static struct machine_launch launch;
    snprintf(qemu.path, sizeof(qemu.path), "%s", scratch_path("qemu"));
    launch = (struct machine_launch){
        .qemu = &qemu, .config = &config, .accel = ACCEL_TCG, .dir = scratch, .alive_fd = alive_fd};
    return machine_start(&launch, ret_machine, &err);
}

static void a_start_that_fails_gives_the_last_words(void **state)
{
    struct machine *machine = NULL;
    (void)state;
    scratch_script("qemu", "i=0; while [ $i -lt 100 ]; do echo \"line $i of much talk\"; i=$((i + 1)); done; "
                           "echo 'qemu-system-x86_64: no luck' >&2; exit 7");
    assert_false(start(&machine, -1));
    assert_null(machine);
    assert_int_equal(err.code, ERR_QEMU);
    assert_non_null(strstr(err.text, "status 7"));
    assert_non_null(strstr(err.text, "line 99 of much talk no luck"));
    assert_null(strstr(err.text, "line 50"));
    struct stat status;
    assert_int_equal(stat(scratch_path("qemu.log"), &status), 0);
    assert_int_equal(status.st_mode & 0777, 0600);
}

static void a_start_that_is_killed_names_the_signal(void **state)
{
    struct machine *machine = NULL;
    (void)state;
    scratch_script("qemu", "kill -BUS $$");
    assert_false(start(&machine, -1));
    assert_non_null(strstr(err.text, "signal 7"));
}

static void a_start_that_cannot_be_is_an_error(void **state)
{
    struct machine *machine = NULL;
    (void)state;
    assert_false(start(&machine, -1));
    assert_int_equal(err.code, ERR_QEMU);
    assert_non_null(strstr(err.text, "cannot be started"));
}

/* What the script sees of itself: session leader, its descriptors, its signals. */
static void only_the_alive_descriptor_is_inherited(void **state)
{
    struct machine *machine = NULL;
    sigset_t blocked, before;
    int ends[2];
    (void)state;
    scratch_script("qemu", "ls -l /proc/$$/fd >&2; grep -E 'Sig(Blk|Ign)' /proc/self/status >&2; cut -d' ' "
                           "-f1,6 /proc/$$/stat >&2;"
                           "readlink /proc/$$/cwd >&2; exit 1");
    assert_int_equal(pipe(ends), 0); /* inheritable on purpose */
    int alive_fd = open(scratch_path("alive"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    sigfillset(&blocked);
    sigprocmask(SIG_BLOCK, &blocked, &before);
    signal(SIGPIPE, SIG_IGN);
    assert_false(start(&machine, alive_fd));
    signal(SIGPIPE, SIG_DFL);
    sigprocmask(SIG_SETMASK, &before, NULL);
    char *log = scratch_read("qemu.log");
    assert_non_null(strstr(log, " 0 -> /dev/null"));
    assert_non_null(strstr(log, "qemu.log"));
    assert_non_null(strstr(log, " 3 -> "));
    assert_non_null(strstr(log, "/alive\n"));
    assert_null(strstr(log, "pipe:"));
    assert_null(strstr(log, "socket:"));
    const char *mask = strstr(log, "SigBlk:");
    unsigned long blocked_bits = 1, ignored_bits = 1;
    long pid = 0, session = 0;
    char cwd[8];
    assert_non_null(mask);
    assert_int_equal(sscanf(mask, "SigBlk: %lx SigIgn: %lx %ld %ld %7s", &blocked_bits, &ignored_bits, &pid,
                            &session, cwd),
                     5);
    assert_int_equal(blocked_bits, 0);
    assert_int_equal(ignored_bits & ~0x180000000UL, 0); /* but 32 and 33, the C library's own */
    assert_int_equal(pid, session);
    assert_string_equal(cwd, "/");
    free(log);
    close(ends[0]), close(ends[1]), close(alive_fd);
}

static void a_bridge_that_gives_no_interface_is_an_error(void **state)
{
    struct machine *machine = NULL;
    struct config_nic nic = {.kind = NIC_BRIDGE, .mac = "52:54:00:00:00:01", .target = (char *)"br0, x"};
    (void)state;
    scratch_script("helper", "echo \"args: $*\" >&2; exit 1");
    setenv("BOUGH_BRIDGE_HELPER", scratch_path("helper"), 1);
    config.nics = &nic;
    config.nic_count = 1;
    assert_false(start(&machine, -1));
    config.nic_count = 0;
    unsetenv("BOUGH_BRIDGE_HELPER");
    assert_int_equal(err.code, ERR_QEMU);
    assert_non_null(strstr(err.text, "bridge br0, x"));
    char *log = scratch_read("qemu.log");
    assert_non_null(strstr(log, "args: --use-vnet --fd=3 --br=br0, x\n"));
    free(log);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup(name, fresh)
    static const struct CMUnitTest tests[] = {
        TEST(a_version_from_7_2_on_is_taken),
        TEST(what_is_no_qemu_is_refused),
        TEST(a_missing_qemu_is_named),
        TEST(it_is_asked_once_until_it_changes),
        TEST(a_cache_that_others_can_reach_is_not_used),
        TEST(a_machine_type_must_be_in_its_list),
        TEST(a_start_that_fails_gives_the_last_words),
        TEST(a_start_that_is_killed_names_the_signal),
        TEST(a_start_that_cannot_be_is_an_error),
        TEST(only_the_alive_descriptor_is_inherited),
        TEST(a_bridge_that_gives_no_interface_is_an_error),
    };
    return cmocka_run_group_tests_name("qemu", tests, scratch_make, scratch_remove);
}
