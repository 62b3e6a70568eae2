/* A QEMU whose starter has died, at any moment of a save: it is taken over, and stands or runs as a new command says. */
#include "auto.h"
#include "file.h"
#include "machine_private.h"
#include "real_machine.h"

#include <sys/wait.h>

static struct machine *adopt(pid_t pid)
{
    struct machine *machine = NULL;
    const struct machine_adoption adoption = {
        .pid = pid, .pidfd = pidfd_open(pid, 0), .dir = launch.dir, .accel = ACCEL_TCG};

    if (!machine_adopt(&adoption, &machine, &err))
        fail_msg("%s", err.text);
    return machine;
}

static const char *run_state(struct machine *machine)
{
    static char state[32];

    if (!machine_run_state(machine, state, &err))
        fail_msg("%s", err.text);
    return state;
}

static void a_machine_is_taken_over_and_obeys(void **state)
{
    (void)state;
    struct machine *machine = start_running();
    pid_t pid = machine_pid(machine);
    machine_release(machine);
    machine = adopt(pid);
    assert_true(machine_end_save(machine, &err)); /* there is none */
    assert_string_equal(run_state(machine), "running");
    assert_true(machine_stop(machine, &err));
    assert_string_equal(run_state(machine), "paused");
    machine_kill(machine);
}

static void no_instant(void *context)
{
    (void)context;
}

/* In a process that will be killed. Nobody reads. */
_Noreturn static void save_and_wait(pid_t pid)
{
    struct machine *machine = adopt(pid);
    struct machine_save_result result;
    int ends[2];

    if (pipe2(ends, O_CLOEXEC) != 0)
        _exit(1);
    struct machine_save save = {.stream_fd = ends[1], .at_instant = no_instant};
    (void)!machine_save(machine, &save, &result, &err);
    for (;;)
        pause();
}

/* Under TCG such a save stops the guest twice before anybody reads: the kill comes in each of its states. */
static void a_save_whose_process_is_killed_is_ended_and_the_guest_can_go_on(void **state)
{
    (void)state;
    struct machine *machine = start_running();
    pid_t pid = machine_pid(machine);
    machine_release(machine);
    for (unsigned i = 0; i < 12; i++) {
        pid_t saver = fork();
        if (saver == 0)
            save_and_wait(pid);
        nanosleep(&(struct timespec){.tv_nsec = i * 4000000L}, NULL);
        kill(saver, SIGKILL);
        assert_int_equal(waitpid(saver, NULL, 0), saver);
        machine = adopt(pid);
        assert_true(machine_end_save(machine, &err));
        if (strcmp(run_state(machine), "running") != 0)
            assert_true(machine_continue(machine, &err));
        assert_string_equal(run_state(machine), "running");
        assert_true(machine_can_save(machine, &err));
        machine_release(machine);
    }
    machine_kill(adopt(pid));
}

static unsigned byte_ask(struct machine *machine, const char *line)
{
    char answer[MACHINE_ANSWER_BYTES];

    if (!machine_ask(machine, line, answer, &err))
        fail_msg("%s", err.text);
    const char *value = strstr(answer, "= 0x");
    return value ? (unsigned)strtoul(value + 2, NULL, 16) : 0;
}

static void a_bit_that_was_turned_and_not_turned_back_is(void **state)
{
    (void)state;
    struct machine *machine = start();
    pid_t pid = machine_pid(machine);
    byte_ask(machine, "o /w 0xcf8 0x80000058"); /* PAM1 is at 5Ah */
    unsigned before = byte_ask(machine, "i /xb 0xcfe");
    char line[40];
    snprintf(line, sizeof line, "o /b 0xcfe 0x%x", before ^ 1);
    byte_ask(machine, line);
    assert_int_equal(byte_ask(machine, "i /xb 0xcfe"), before ^ 1);
    AUTO_FREE char *path = path_join(launch.dir, "bridge");
    FILE *note = fopen(path, "we");
    assert_non_null(note);
    fprintf(note, "%08x %02x %02x\n", 0x80001234U & ~3U, 0x5a, before);
    fclose(note);
    machine_release(machine);
    machine = adopt(pid);
    assert_true(machine_end_save(machine, &err));
    assert_true((byte_ask(machine, "i /xw 0xcf8")) == (0x80001234U & ~3U));
    byte_ask(machine, "o /w 0xcf8 0x80000058");
    assert_int_equal(byte_ask(machine, "i /xb 0xcfe"), before);
    assert_int_equal(access(path, F_OK), -1);
    machine_kill(machine);
}

static void how_it_ended_is_told_without_being_its_parent(void **state)
{
    (void)state;
    struct machine *machine = start();
    pid_t pid = machine_pid(machine);
    char words[480];
    machine_release(machine); /* one monitor has one client */
    pid_t other = fork();
    if (other == 0) { /* not its parent */
        struct machine *mine = adopt(pid);
        machine_kill_start(mine);
        bool in_order = machine_ended_in_order(mine);
        machine_last_words(mine, words, sizeof words);
        _exit(!in_order && strstr(words, "killed or crashed") ? 0 : 1);
    }
    int status;
    assert_int_equal(waitpid(other, &status, 0), other);
    assert_true(WIFEXITED(status) && WEXITSTATUS(status) == 0);
    assert_false(machine_dir_ended_in_order(launch.dir));

    machine = start();
    pid = machine_pid(machine);
    machine_release(machine);
    machine = adopt(pid);
    (void)!machine_execute(machine, "quit", NULL, -1, NULL, &err);
    assert_true(machine_ended_in_order(machine));
    machine_release(machine);
    assert_true(machine_dir_ended_in_order(launch.dir));
}

#define test_of(test) cmocka_unit_test_setup_teardown(test, settings_make, processes_end)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test_of(a_machine_is_taken_over_and_obeys),
        test_of(a_save_whose_process_is_killed_is_ended_and_the_guest_can_go_on),
        test_of(a_bit_that_was_turned_and_not_turned_back_is),
        test_of(how_it_ended_is_told_without_being_its_parent),
    };
    if (!qemu_find(&qemu, &err)) {
        print_message("skipped: %s\n", err.text);
        return 77;
    }
    return cmocka_run_group_tests(tests, find_qemu, scratch_remove);
}
