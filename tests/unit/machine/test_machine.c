/* The real QEMU, without a guest system: the BIOS finds nothing to boot, which is guest enough. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "clock.h"
#include "machine_private.h"
#include "real_machine.h"
#include "scratch.h"

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/pidfd.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <time.h>

static const char *run_state(struct machine *machine)
{
    static char state[32];
    if (!machine_run_state(machine, state, &err))
        fail_msg("%s", err.text);
    return state;
}

/* --- the other end of a save --- */

struct reader {
    pthread_t thread;
    int fd, file_fd;
    size_t stop_after; /* closes early */
    size_t length;
    long wait_ns; /* before each 64 KiB */
};

static void *reader_run(void *context)
{
    struct reader *reader = context;
    static char bytes[1 << 16];
    ssize_t count;
    while (reader->length < reader->stop_after && (count = read(reader->fd, bytes, sizeof(bytes))) > 0) {
        if (reader->wait_ns)
            nanosleep(&(struct timespec){.tv_nsec = reader->wait_ns}, NULL);
        reader->length += (size_t)count;
        if (write(reader->file_fd, bytes, (size_t)count) != count)
            abort();
    }
    close(reader->fd);
    close(reader->file_fd);
    return NULL;
}

/* The write end to give away; the stream goes to the file of that name. */
static int reader_start(struct reader *reader, const char *name, size_t stop_after, long wait_ns)
{
    int ends[2];
    if (pipe2(ends, O_CLOEXEC) != 0)
        abort();
    *reader = (struct reader){.fd = ends[0], .stop_after = stop_after, .wait_ns = wait_ns};
    reader->file_fd = open(scratch_path(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    pthread_create(&reader->thread, NULL, reader_run, reader);
    return ends[1];
}

/* --- a save under observation --- */

struct watch {
    struct machine *machine;
    unsigned instants;
    char state_at_instant[32];
    bool fail_before, fail_after, kill_at_instant;
    bool cancel;
    unsigned cancel_when_seen; /* running so often; 0: never */
    long wait_ns;              /* of the reader */
    unsigned limit_ms;         /* if not 0: given to QEMU behind the back of the save, once its guest runs */
    unsigned seen_running;     /* how often, in the save */
    struct reader *reader;
    unsigned restarts;
};

static void at_instant(void *context)
{
    struct watch *watch = context;
    struct err ignored = ERR_INIT;
    watch->instants++;
    if (!machine_run_state(watch->machine, watch->state_at_instant, &ignored))
        strcpy(watch->state_at_instant, "?");
    if (watch->kill_at_instant)
        kill(machine_pid(watch->machine), SIGKILL);
}

static bool other_end_failed(void *context, struct err *ret_err)
{
    struct watch *watch = context;
    struct err ignored = ERR_INIT;
    char now[32];
    if (watch->wait_ns && machine_run_state(watch->machine, now, &ignored) && strcmp(now, "running") == 0 &&
        watch->seen_running++ == 0 && watch->limit_ms) {
        json_t *limit = json_pack("{s:i}", "downtime-limit", (int)watch->limit_ms);
        if (!machine_execute(watch->machine, "migrate-set-parameters", limit, -1, NULL, ret_err))
            return true;
    }
    if (!watch->fail_before && !(watch->fail_after && watch->instants > 0))
        return false;
    err_set_text(ret_err, ERR_NO_SPACE, ENOSPC, "the disk is full");
    return true;
}

static bool is_cancelled(void *context)
{
    const struct watch *watch = context;
    return watch->cancel || (watch->cancel_when_seen && watch->seen_running >= watch->cancel_when_seen);
}

/* The stream begins anew; the first one has ended, or this hangs. */
static bool restart(void *context, int *ret_stream_fd, struct err *ret_err)
{
    struct watch *watch = context;
    (void)ret_err;
    watch->restarts++;
    pthread_join(watch->reader->thread, NULL);
    *ret_stream_fd = reader_start(watch->reader, "stream", SIZE_MAX, /* wait_ns= */ 0);
    return true;
}

struct saved {
    bool ok;
    struct machine_save_result result;
    size_t stream_bytes;
};

static struct saved save(struct watch *watch, const char *name, bool stay_stopped, size_t stop_after)
{
    struct reader reader;
    struct saved saved = {.result = {.passes = 77}};
    struct progress progress = {.cancelled = is_cancelled, .context = watch};
    watch->reader = &reader;
    struct machine_save options = {.stream_fd = reader_start(&reader, name, stop_after, watch->wait_ns),
                                   .at_instant = at_instant,
                                   .failed = other_end_failed,
                                   .restart = restart,
                                   .context = watch,
                                   .progress = &progress,
                                   .stay_stopped = stay_stopped};
    err = ERR_INIT;
    saved.ok = machine_save(watch->machine, &options, &saved.result, &err);
    pthread_join(reader.thread, NULL); /* hangs if the write end is still open here or in QEMU */
    saved.stream_bytes = reader.length;
    return saved;
}

/* --- starting and ending --- */

static void a_started_machine_stands_in_a_session_of_its_own(void **state)
{
    (void)state;
    int64_t before_ms = clock_ms();
    struct machine *machine = start();
    print_message("from the start to an answering monitor: %lld ms\n", (long long)(clock_ms() - before_ms));
    assert_string_equal(run_state(machine), "prelaunch");
    assert_int_equal(getsid(machine_pid(machine)), machine_pid(machine));
    assert_string_equal(qmp_version(machine_qmp(machine)), qemu.version);
    assert_string_equal(machine_dir(machine), launch.dir);
    machine_kill(machine);
}

static void run_states_follow_the_commands(void **state)
{
    (void)state;
    struct machine *machine = start();
    assert_true(machine_continue(machine, &err));
    assert_string_equal(run_state(machine), "running");
    assert_true(machine_stop(machine, &err));
    assert_string_equal(run_state(machine), "paused");
    assert_true(machine_power_button(machine, &err));
    machine_kill(machine);
}

static void a_killed_machine_leaves_no_process(void **state)
{
    (void)state;
    struct machine *machine = start();
    pid_t pid = machine_pid(machine);
    machine_kill(machine);
    assert_int_equal(kill(pid, 0), -1);
    assert_int_equal(errno, ESRCH);
    machine_kill(NULL);
    machine_release(NULL);
}

static void a_released_machine_goes_on(void **state)
{
    (void)state;
    struct machine *machine = start();
    pid_t pid = machine_pid(machine);
    machine_release(machine);
    nanosleep(&(struct timespec){.tv_nsec = 50000000}, NULL);
    assert_int_equal(kill(pid, 0), 0);
    assert_int_equal(waitpid(pid, NULL, WNOHANG), 0);
    process_end(started[0]);
}

static void a_machine_that_died_says_how(void **state)
{
    char words[200];
    (void)state;
    struct machine *machine = start();
    kill(machine_pid(machine), SIGBUS);
    assert_false(machine_stop(machine, &err));
    assert_int_equal(err.code, ERR_QEMU);
    assert_non_null(strstr(err.text, "signal 7"));
    machine_last_words(machine, words, sizeof(words));
    assert_non_null(strstr(words, "signal 7"));
    machine_release(machine);
}

static void an_option_that_qemu_refuses_is_in_the_error(void **state)
{
    struct machine *machine = NULL;
    (void)state;
    config.cpu_model = (char *)"nonsense";
    mkdir(launch.dir, 0700);
    assert_false(machine_start(&launch, &machine, &err));
    assert_int_equal(err.code, ERR_QEMU);
    assert_non_null(strstr(err.text, "status 1"));
    assert_non_null(strstr(err.text, "nonsense"));
}

static void the_accelerator_and_uuid_are_those_of_the_settings(void **state)
{
    json_t *value = NULL;
    (void)state;
    struct machine *machine = start();
    assert_true(machine_execute(machine, "query-uuid", NULL, -1, &value, &err));
    assert_string_equal(json_string_value(json_object_get(value, "UUID")),
                        "0f0e0d0c-0b0a-4908-8706-050403020100");
    json_decref(value);
    assert_true(machine_execute(machine, "query-name", NULL, -1, &value, &err));
    assert_string_equal(json_string_value(json_object_get(value, "name")), "a, \"b\"");
    json_decref(value);
    machine_kill(machine);
}

/* --- saving --- */

static void a_running_machine_is_saved_and_goes_on(void **state)
{
    json_t *event = NULL;
    (void)state;
    struct watch watch = {.machine = start_running()};
    for (int i = 0; i < 3; i++) {
        struct saved saved = save(&watch, "stream", false, SIZE_MAX);
        if (!saved.ok)
            fail_msg("%s", err.text);
        assert_int_equal(watch.instants, i + 1);
        assert_string_equal(watch.state_at_instant, "finish-migrate");
        assert_string_equal(run_state(watch.machine), "running");
        assert_in_range(saved.result.pause_us, 1, 1000000);
        assert_in_range(saved.result.passes, 1, 100);
        assert_true(saved.stream_bytes > 10000);
        assert_true(qmp_next_event(machine_qmp(watch.machine), 0, &event, &err));
        assert_null(event); /* the pause was the save's own business */
        print_message("pause %llu us, %llu passes, %llu us in all\n",
                      (unsigned long long)saved.result.pause_us, (unsigned long long)saved.result.passes,
                      (unsigned long long)saved.result.total_us);
    }
    machine_kill(watch.machine);
}

/* Memory that is not zeros: the copying takes time. */
static struct machine *start_running_filled(void)
{
    static char bytes[MEMORY_BYTES];
    for (size_t i = 0; i < sizeof(bytes); i += 8)
        bytes[i] = (char)(i >> 12 | 1);
    int fd = open(scratch_path("filled.bin"), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    assert_int_equal(write(fd, bytes, sizeof(bytes)), sizeof(bytes));
    close(fd);
    launch.memory_file = scratch_path("filled.bin");
    return start_running();
}

static void under_tcg_the_guest_runs_between_two_pauses(void **state)
{
    (void)state;
    struct watch watch = {.machine = start_running_filled(), .wait_ns = 1000000};
    struct saved saved = save(&watch, "stream", false, SIZE_MAX);
    if (!saved.ok)
        fail_msg("%s", err.text);
    print_message("pauses %llu us of %llu us\n", (unsigned long long)saved.result.pause_us,
                  (unsigned long long)saved.result.total_us);
    assert_true(watch.seen_running > 2);
    assert_true(saved.result.pause_us < saved.result.total_us / 2);
    assert_int_equal(saved.result.passes, 2);
    assert_int_equal(watch.restarts, 0);
    machine_kill(watch.machine);
}

static void under_tcg_a_save_is_done_again_if_qemu_reads_while_the_guest_runs(void **state)
{
    (void)state;
    struct watch watch = {.machine = start_running_filled(), .wait_ns = 1000000, .limit_ms = 200};
    struct saved saved = save(&watch, "stream", false, SIZE_MAX);
    if (!saved.ok)
        fail_msg("%s", err.text);
    assert_int_equal(watch.restarts, 1);
    assert_int_equal(watch.instants, 1);
    assert_true(saved.stream_bytes > MEMORY_BYTES / 2); /* of the second stream */
    assert_string_equal(run_state(watch.machine), "running");
    watch.seen_running = 0;
    assert_true(save(&watch, "stream", false, SIZE_MAX).ok); /* it is known now: held from end to end */
    assert_int_equal(watch.seen_running, 0);
    assert_int_equal(watch.restarts, 1);
    assert_string_equal(run_state(watch.machine), "running");
    machine_kill(watch.machine);
}

static void under_tcg_a_cancelled_save_leaves_the_guest_running(void **state)
{
    (void)state;
    struct watch watch = {.machine = start_running_filled(), .wait_ns = 1000000};
    for (unsigned i = 1; i < 10; i++) {
        watch.seen_running = 0;
        watch.cancel_when_seen = i;
        assert_false(save(&watch, "stream", false, SIZE_MAX).ok);
        assert_int_equal(err.code, ERR_CANCELLED);
        assert_string_equal(run_state(watch.machine), "running");
    }
    machine_kill(watch.machine);
}

static void a_paused_machine_is_saved_and_never_runs(void **state)
{
    (void)state;
    struct watch watch = {.machine = start_running()};
    assert_true(machine_stop(watch.machine, &err));
    struct saved saved = save(&watch, "stream", false, SIZE_MAX);
    assert_true(saved.ok);
    assert_int_equal(saved.result.pause_us, 0);
    assert_int_equal(watch.instants, 1);
    assert_string_equal(run_state(watch.machine), "postmigrate");
    /* QEMU does not save twice; that is said, and the pipe is closed (the reader has ended). */
    saved = save(&watch, "stream2", false, SIZE_MAX);
    assert_false(saved.ok);
    assert_int_equal(err.code, ERR_STATE);
    assert_int_equal(saved.stream_bytes, 0);
    assert_int_equal(saved.result.passes, 77); /* untouched */
    assert_int_equal(watch.instants, 1);
    assert_true(machine_continue(watch.machine, &err));
    assert_string_equal(run_state(watch.machine), "running");
    machine_kill(watch.machine);
}

static void a_save_that_shall_stay_stopped_stays(void **state)
{
    (void)state;
    struct watch watch = {.machine = start_running()};
    struct saved saved = save(&watch, "stream", true, SIZE_MAX);
    assert_true(saved.ok);
    assert_string_equal(run_state(watch.machine), "postmigrate");
    machine_kill(watch.machine);
}

static void a_reader_that_is_gone_leaves_the_guest_running(void **state)
{
    int ends[2];
    (void)state;
    struct watch watch = {.machine = start_running()};
    struct machine_save_result result;
    for (int i = 0; i < 6; i++) {
        assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
        close(ends[0]);
        struct machine_save options = {
            .stream_fd = ends[1], .at_instant = at_instant, .context = &watch, .stay_stopped = i % 2};
        assert_false(machine_save(watch.machine, &options, &result, &err));
        assert_int_equal(err.code, ERR_QEMU);
        assert_string_equal(run_state(watch.machine), "running");
    }
    assert_true(save(&watch, "stream", false, SIZE_MAX).ok);
    machine_kill(watch.machine);
}

/* All that is left may be in the pipe when the reader goes: then QEMU cannot know, and the save is good for
 * it. */
static void a_reader_that_goes_early_leaves_the_guest_running(void **state)
{
    static const size_t after[] = {1, 5000, 70000, 200000};
    (void)state;
    struct watch watch = {.machine = start_running()};
    for (size_t i = 0; i < ARRAY_SIZE(after); i++) {
        if (!save(&watch, "stream", false, after[i]).ok)
            assert_int_equal(err.code, ERR_QEMU);
        assert_string_equal(run_state(watch.machine), "running");
    }
    machine_kill(watch.machine);
}

static void a_failure_before_the_instant_leaves_the_guest_running(void **state)
{
    (void)state;
    struct watch watch = {.machine = start_running(), .fail_before = true};
    assert_false(save(&watch, "stream", true, SIZE_MAX).ok);
    assert_int_equal(err.code, ERR_NO_SPACE);
    assert_string_equal(err.text, "the disk is full");
    assert_int_equal(watch.instants, 0);
    assert_string_equal(run_state(watch.machine), "running");
    machine_kill(watch.machine);
}

static void a_failure_behind_the_instant_leaves_the_guest_running(void **state)
{
    (void)state;
    struct watch watch = {.machine = start_running(), .fail_after = true};
    assert_false(save(&watch, "stream", true, SIZE_MAX).ok);
    assert_int_equal(err.code, ERR_NO_SPACE);
    assert_int_equal(watch.instants, 1);
    assert_string_equal(run_state(watch.machine), "running");
    watch.fail_after = false;
    assert_true(save(&watch, "stream", false, SIZE_MAX).ok);
    assert_string_equal(run_state(watch.machine), "running");
    machine_kill(watch.machine);
}

static void a_cancelled_save_leaves_the_guest_running(void **state)
{
    (void)state;
    struct watch watch = {.machine = start_running()};
    for (int i = 0; i < 20;
         i++) { /* at different moments: QEMU is easily caught in the middle of its switchover */
        watch.cancel = true;
        assert_false(save(&watch, "stream", i % 2 == 1, SIZE_MAX).ok);
        assert_int_equal(err.code, ERR_CANCELLED);
        assert_int_equal(watch.instants, 0);
        assert_string_equal(run_state(watch.machine), "running");
    }
    watch.cancel = false;
    assert_true(save(&watch, "stream", false, SIZE_MAX).ok); /* and it can still be saved */
    machine_kill(watch.machine);
}

static void a_cancelled_save_leaves_a_paused_guest_standing(void **state)
{
    (void)state;
    struct watch watch = {.machine = start_running(), .cancel = true};
    assert_true(machine_stop(watch.machine, &err));
    assert_false(save(&watch, "stream", false, SIZE_MAX).ok);
    assert_int_equal(err.code, ERR_CANCELLED);
    assert_int_equal(watch.instants, 0);
    /* QEMU forgets "paused" once it has begun to switch over */
    if (strcmp(run_state(watch.machine), "postmigrate") != 0)
        assert_string_equal(run_state(watch.machine), "paused");
    machine_kill(watch.machine);
}

static void a_machine_that_dies_in_the_save_is_an_error(void **state)
{
    (void)state;
    struct watch watch = {.machine = start_running(), .kill_at_instant = true};
    assert_false(save(&watch, "stream", false, SIZE_MAX).ok);
    assert_int_equal(err.code, ERR_QEMU);
    assert_non_null(strstr(err.text, "signal 9"));
    machine_kill(watch.machine);
}

/* --- loading --- */

static int open_stream(const char *name)
{
    int fd = open(scratch_path(name), O_RDONLY | O_CLOEXEC);
    assert_true(fd >= 0);
    return fd;
}

static void a_saved_machine_loads_standing(void **state)
{
    static const struct {
        bool running;
        const char *loaded;
    } cases[] = {{true, "paused"}, {false, "paused"}};
    (void)state;
    for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
        launch.incoming = false;
        struct watch watch = {.machine = start_running()};
        assert_true(cases[i].running || machine_stop(watch.machine, &err));
        assert_true(save(&watch, "stream", true, SIZE_MAX).ok);
        machine_kill(watch.machine);
        launch.incoming = true;
        watch.machine = start();
        assert_string_equal(run_state(watch.machine), "inmigrate");
        if (!machine_load(watch.machine, open_stream("stream"), &err))
            fail_msg("%s", err.text);
        assert_string_equal(run_state(watch.machine), cases[i].loaded);
        assert_true(save(&watch, "again", false, SIZE_MAX).ok); /* it can be saved as it stands */
        assert_string_equal(run_state(watch.machine), "postmigrate");
        assert_true(machine_continue(watch.machine, &err));
        assert_string_equal(run_state(watch.machine), "running");
        machine_kill(watch.machine);
    }
}

static void a_machine_never_run_loads_as_such(void **state)
{
    (void)state;
    struct watch watch = {.machine = start()};
    assert_true(save(&watch, "stream", false, SIZE_MAX).ok);
    machine_kill(watch.machine);
    launch.incoming = true;
    watch.machine = start();
    assert_true(machine_load(watch.machine, open_stream("stream"), &err));
    assert_string_equal(run_state(watch.machine), "prelaunch");
    assert_true(machine_continue(watch.machine, &err));
    assert_string_equal(run_state(watch.machine), "running");
    machine_kill(watch.machine);
}

static void a_restored_guest_never_writes_its_memory_file(void **state)
{
    (void)state;
    struct watch watch = {.machine = start_running()};
    assert_true(save(&watch, "stream", true, SIZE_MAX).ok);
    machine_kill(watch.machine);
    int fd = open(scratch_path("memory.bin"), O_RDWR | O_CREAT | O_CLOEXEC, 0600);
    assert_int_equal(ftruncate(fd, MEMORY_BYTES), 0);
    uint8_t *bytes = mmap(NULL, MEMORY_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    memset(bytes, 0xa5, MEMORY_BYTES);
    launch.incoming = true;
    launch.memory_file = scratch_path("memory.bin");
    watch.machine = start();
    assert_true(
        machine_load(watch.machine, open_stream("stream"), &err)); /* writes all pages over the 0xa5 */
    assert_true(machine_continue(watch.machine, &err));
    nanosleep(&(struct timespec){.tv_nsec = 200000000}, NULL);
    assert_true(save(&watch, "again", false, SIZE_MAX).ok);
    machine_kill(watch.machine);
    for (size_t i = 0; i < MEMORY_BYTES; i += 512)
        assert_int_equal(bytes[i], 0xa5);
    munmap(bytes, MEMORY_BYTES);
    close(fd);
}

static void a_stream_that_is_none_is_refused_with_the_reason(void **state)
{
    (void)state;
    launch.incoming = true;
    struct machine *machine = start();
    scratch_write("garbage", "this is no migration stream at all", 34);
    assert_false(machine_load(machine, open_stream("garbage"), &err));
    assert_int_equal(err.code, ERR_QEMU);
    assert_non_null(strstr(err.text, "Not a migration stream"));
    machine_kill(machine);
}

static void a_stream_of_another_machine_is_refused(void **state)
{
    (void)state;
    struct watch watch = {.machine = start_running()};
    assert_true(save(&watch, "stream", true, SIZE_MAX).ok);
    machine_kill(watch.machine);
    config.memory_bytes *= 2;
    launch.incoming = true;
    watch.machine = start();
    assert_false(machine_load(watch.machine, open_stream("stream"), &err));
    assert_int_equal(err.code, ERR_QEMU);
    assert_non_null(strstr(err.text, "pc.ram"));
    machine_kill(watch.machine);
}

static void a_stream_cut_off_anywhere_is_refused(void **state)
{
    (void)state;
    struct watch watch = {.machine = start_running()};
    struct saved saved = save(&watch, "stream", true, SIZE_MAX);
    machine_kill(watch.machine);
    launch.incoming = true;
    const size_t cuts[] = {0, 10, saved.stream_bytes / 3, saved.stream_bytes / 2};
    for (size_t i = 0; i < ARRAY_SIZE(cuts); i++) {
        assert_int_equal(truncate(scratch_path("stream"), (off_t)cuts[ARRAY_SIZE(cuts) - 1 - i]), 0);
        watch.machine = start();
        if (machine_load(watch.machine, open_stream("stream"), &err))
            fail_msg("loaded from %zu of %zu bytes", cuts[ARRAY_SIZE(cuts) - 1 - i], saved.stream_bytes);
        assert_int_equal(err.code, ERR_QEMU);
        machine_kill(watch.machine);
    }
}

static void only_a_waiting_machine_loads(void **state)
{
    (void)state;
    struct machine *machine = start();
    scratch_write("stream", "", 0);
    int fd = open_stream("stream");
    assert_false(machine_load(machine, fd, &err));
    assert_int_equal(err.code, ERR_STATE);
    assert_int_equal(fcntl(fd, F_GETFD), -1); /* taken all the same */
    assert_string_equal(run_state(machine), "prelaunch");
    machine_kill(machine);
}

/* --- screen, ports --- */

/* A port nobody has, and whether somebody listens on it. */
static unsigned free_port(void)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
    socklen_t length = sizeof(address);
    assert_int_equal(bind(fd, (struct sockaddr *)&address, length), 0);
    assert_int_equal(getsockname(fd, (struct sockaddr *)&address, &length), 0);
    close(fd);
    return ntohs(address.sin_port);
}

static bool listens(unsigned port)
{
    int fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    struct sockaddr_in address = {
        .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK), .sin_port = htons((uint16_t)port)};
    bool yes = connect(fd, (struct sockaddr *)&address, sizeof(address)) == 0;
    close(fd);
    return yes;
}

static void held_back_ports_are_taken_when_they_are_free(void **state)
{
    char rule[32];
    char *forwards[] = {rule};
    struct config_nic nic = {
        .kind = NIC_USER, .mac = "52:54:00:00:00:01", .forwards = forwards, .forward_count = 1};
    unsigned port = free_port();
    (void)state;
    snprintf(rule, sizeof(rule), "tcp:%u:22", port);
    config.nics = &nic;
    config.nic_count = 1;
    struct machine *present = start();
    assert_true(listens(port));
    launch.hold_host_resources = true;
    launch.dir = scratch_path("run2");
    struct machine *target = start();
    assert_false(machine_take_host_resources(target, &config, &err));
    assert_int_equal(err.code, ERR_QEMU);
    assert_non_null(strstr(err.text, rule));
    machine_kill(present);
    assert_false(listens(port));
    assert_true(machine_take_host_resources(target, &config, &err));
    assert_true(listens(port));
    machine_kill(target);
}

int main(void)
{
#define TEST(name) cmocka_unit_test_setup_teardown(name, settings_make, processes_end)
    static const struct CMUnitTest tests[] = {
        TEST(a_started_machine_stands_in_a_session_of_its_own),
        TEST(run_states_follow_the_commands),
        TEST(a_killed_machine_leaves_no_process),
        TEST(a_released_machine_goes_on),
        TEST(a_machine_that_died_says_how),
        TEST(an_option_that_qemu_refuses_is_in_the_error),
        TEST(the_accelerator_and_uuid_are_those_of_the_settings),
        TEST(a_running_machine_is_saved_and_goes_on),
        TEST(under_tcg_the_guest_runs_between_two_pauses),
        TEST(under_tcg_a_save_is_done_again_if_qemu_reads_while_the_guest_runs),
        TEST(under_tcg_a_cancelled_save_leaves_the_guest_running),
        TEST(a_paused_machine_is_saved_and_never_runs),
        TEST(a_save_that_shall_stay_stopped_stays),
        TEST(a_reader_that_is_gone_leaves_the_guest_running),
        TEST(a_reader_that_goes_early_leaves_the_guest_running),
        TEST(a_failure_before_the_instant_leaves_the_guest_running),
        TEST(a_failure_behind_the_instant_leaves_the_guest_running),
        TEST(a_cancelled_save_leaves_the_guest_running),
        TEST(a_cancelled_save_leaves_a_paused_guest_standing),
        TEST(a_machine_that_dies_in_the_save_is_an_error),
        TEST(a_saved_machine_loads_standing),
        TEST(a_machine_never_run_loads_as_such),
        TEST(a_restored_guest_never_writes_its_memory_file),
        TEST(a_stream_that_is_none_is_refused_with_the_reason),
        TEST(a_stream_of_another_machine_is_refused),
        TEST(a_stream_cut_off_anywhere_is_refused),
        TEST(only_a_waiting_machine_loads),
        TEST(held_back_ports_are_taken_when_they_are_free),
    };
    if (!qemu_find(&qemu, &err)) {
        print_message("skipped: %s\n", err.text);
        return 77;
    }
    return cmocka_run_group_tests_name("machine", tests, find_qemu, scratch_remove);
}
