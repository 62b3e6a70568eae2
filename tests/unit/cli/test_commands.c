/* The commands against a client that records: which operation with which arguments becomes of which command
 * line, and what is printed of which answer. */
#include "cli.h"
#include "fake_client.h"

#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include <cmocka.h>

#define ARGS_MAX 24

static char out[65536], err_out[65536];

static int capture_begin(int fd, int *ret_saved)
{
    int file = memfd_create("captured", 0);

    assert_true(file >= 0);
    *ret_saved = dup(fd);
    assert_int_equal(dup2(file, fd), fd);
    return file;
}

static void capture_end(int fd, int file, int saved, char *text, size_t size)
{
    ssize_t length = pread(file, text, size - 1, 0);

    assert_true(length >= 0);
    text[length] = '\0';
    dup2(saved, fd);
    close(saved);
    close(file);
}

/* `bough LINE`: words are parted by single blanks; `_` stands for a blank inside of a word, `%` for an empty
 * word. */
static int run(const char *line)
{
    char words[1024];
    char program[] = "bough";
    char *argv[ARGS_MAX + 2] = {program};
    int argc = 1, saved_out, saved_err;

    snprintf(words, sizeof words, "%s", line);
    char *rest = words;
    for (char *word; *words != '\0' && argc <= ARGS_MAX && (word = strsep(&rest, " "));) {
        for (char *c = word; *c != '\0'; c++)
            *c = *c == '_' ? ' ' : *c;
        argv[argc++] = strcmp(word, "%") == 0 ? word + 1 : word;
    }
    fflush(stdout);
    fflush(stderr);
    int file_out = capture_begin(STDOUT_FILENO, &saved_out);
    int file_err = capture_begin(STDERR_FILENO, &saved_err);
    int status = cli_main(argc, argv);
    fflush(stdout);
    fflush(stderr);
    capture_end(STDERR_FILENO, file_err, saved_err, err_out, sizeof err_out);
    capture_end(STDOUT_FILENO, file_out, saved_out, out, sizeof out);
    return status;
}

static int setup(void **state)
{
    signal(SIGINT, SIG_DFL); /* as each command of a process of its own has it */
    (void)state;
    fake_reset();
    /* A command that has done its work leaves an interrupt ignored: in the program its process ends then. */
    signal(SIGINT, SIG_DFL);
    return 0;
}

static int teardown(void **state)
{
    (void)state;
    fake_reset();
    return 0;
}

static void each_verb_is_its_operation_with_just_the_arguments_given(void **state)
{
    static const struct {
        const char *line, *operation, *arguments;
    } ROWS[] = {
        {"start web", "start", "{}"},
        {"start --paused web", "start", "{\"paused\":true}"},
        {"stop web", "stop", "{}"},
        {"stop web --force", "stop", "{\"force\":true}"},
        {"stop web --timeout 5", "stop", "{\"timeout_s\":5}"},
        {"pause web", "pause", "null"},
        {"resume web", "resume", "null"},
        {"save web", "save", "{}"},
        {"save web --dry-run", "save", "{\"dry_run\":true}"},
        {"start web --dry-run", "start", "{\"dry_run\":true}"},
        {"stop web --force --dry-run", "stop", "{\"dry_run\":true,\"force\":true}"},
        {"notes web abcd text --dry-run", "notes", "{\"dry_run\":true,\"snapshot\":\"abcd\",\"text\":\"text\"}"},
        {"cancel web", "cancel", "null"},
        {"check web", "check", "null"},
        {"display web", "display", "null"},
        {"console web --json", "console", "null"},
        {"remove web --yes", "remove", "{}"},
        {"rename web web2", "rename", "{\"name\":\"web2\"}"},
        {"export web /a/../b", "export", "{\"dir\":\"/b\"}"},
        {"export web abcd /b --disks-only --name x --dry-run", "export",
         "{\"dir\":\"/b\",\"disks_only\":true,\"dry_run\":true,\"name\":\"x\",\"snapshot\":\"abcd\"}"},
        {"reconnect web --yes", "reconnect", "{}"},
        {"screenshot web /a/../b/x.png", "screenshot", "{\"path\":\"/b/x.png\"}"},
        {"snapshot web", "snapshot", "{}"},
        {"snapshot web --name before_it --notes %", "snapshot", "{\"name\":\"before it\",\"notes\":\"\"}"},
        {"snapshot web --scheduled", "snapshot", "{\"scheduled\":true}"},
        {"snapshot web --dry-run", "snapshot", "{\"dry_run\":true}"},
        {"apply web abcd", "apply", "{\"snapshot\":\"abcd\"}"},
        {"apply --snapshot-first web abcd --no-start", "apply",
         "{\"no_start\":true,\"snapshot\":\"abcd\",\"snapshot_first\":true}"},
        {"apply web abcd --disks-only --verify --yes --dry-run", "apply",
         "{\"disks_only\":true,\"dry_run\":true,\"snapshot\":\"abcd\",\"verify\":true}"},
        {"revert web", "revert", "{}"},
        {"revert web --no-start --dry-run", "revert", "{\"dry_run\":true,\"no_start\":true}"},
        {"delete web abcd", "delete", "{\"snapshot\":\"abcd\"}"},
        {"delete web abcd --subtree --dry-run", "delete",
         "{\"dry_run\":true,\"snapshot\":\"abcd\",\"subtree\":true}"},
        {"rename-snapshot web abcd a_name", "rename-snapshot", "{\"name\":\"a name\",\"snapshot\":\"abcd\"}"},
        {"notes web abcd some_text", "notes", "{\"snapshot\":\"abcd\",\"text\":\"some text\"}"},
        {"notes web abcd %", "notes", "{\"snapshot\":\"abcd\",\"text\":\"\"}"},
        {"notes web -- abcd -text", "notes", "{\"snapshot\":\"abcd\",\"text\":\"-text\"}"},
        {"set web memory=2G cpus=4", "set", "{\"settings\":{\"cpus\":\"4\",\"memory\":\"2G\"}}"},
        {"set web append=a=b cdrom=", "set", "{\"settings\":{\"append\":\"a=b\",\"cdrom\":\"\"}}"},
        {"set web kernel=/x/./k disk=/a//b.vhd,bus=scsi --dry-run", "set",
         "{\"dry_run\":true,\"settings\":{\"disk\":\"/a/b.vhd,bus=scsi\",\"kernel\":\"/x/k\"}}"},
        {"set web disk=20G", "set", "{\"settings\":{\"disk\":\"20G\"}}"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        fake_reset();
        int status = run(ROWS[i].line);
        if (status != 0 || fake_call.count != 1)
            fail_msg("%s: exit %d, %u calls: %s", ROWS[i].line, status, fake_call.count, err_out);
        assert_string_equal(fake_call.vm_name, "web");
        assert_string_equal(fake_call.operation, ROWS[i].operation);
        assert_string_equal(fake_call.arguments, ROWS[i].arguments);
    }
}

#define CREATE_END(nics) "\"generation\":1,\"memory\":1073741824,\"name\":\"web\",\"nics\":[" nics "]}"
#define USER_NIC         "{\"forwards\":[],\"kind\":\"user\"}"

static void create_hands_on_what_the_options_say(void **state)
{
    static const struct {
        const char *line, *arguments;
    } ROWS[] = {
        {"create web", "{\"cpus\":1,\"disks\":[]," CREATE_END(USER_NIC)},
        {"create web --nic none --cpus 3", "{\"cpus\":3,\"disks\":[]," CREATE_END("")},
        {"create web --disk 20G --disk /d/a,b.vhd,bus=virtio --disk 1M,bus=ide",
         "{\"cpus\":1,\"disks\":[{\"size\":21474836480},{\"bus\":\"virtio\",\"path\":\"/d/a,b.vhd\"},"
         "{\"bus\":\"ide\",\"size\":1048576}]," CREATE_END(USER_NIC)},
        {"create web --nic user,forward=tcp:2222:22,forward=udp:53:53 --nic bridge=br0 --nic tap=t0",
         "{\"cpus\":1,\"disks\":[]," CREATE_END(
             "{\"forwards\":[\"tcp:2222:22\",\"udp:53:53\"],\"kind\":\"user\"},"
             "{\"forwards\":[],\"kind\":\"bridge\",\"target\":\"br0\"},"
             "{\"forwards\":[],\"kind\":\"tap\",\"target\":\"t0\"}")},
        {"create web --kernel /k --initrd /i --append a_b --cdrom /c --display vnc --accel tcg --clock vm "
         "--notes n",
         "{\"accel\":\"tcg\",\"append\":\"a b\",\"cdrom\":\"/c\",\"clock\":\"vm\",\"cpus\":1,\"disks\":[],"
         "\"display\":\"vnc\",\"generation\":1,\"initrd\":\"/i\",\"kernel\":\"/k\",\"memory\":1073741824,"
         "\"name\":\"web\",\"nics\":[" USER_NIC "],\"notes\":\"n\"}"},
    };

    (void)state;
    for (size_t i = 0; i < sizeof ROWS / sizeof ROWS[0]; i++) {
        fake_reset();
        fake_answer = "{\"guid\":\"G\",\"path\":\"/p\"}";
        if (run(ROWS[i].line) != 0)
            fail_msg("%s: %s", ROWS[i].line, err_out);
        assert_string_equal(fake_call.operation, "create");
        assert_string_equal(fake_call.arguments, ROWS[i].arguments);
        assert_string_equal(out, "G\n");
    }
}

static void relative_paths_are_meant_from_here(void **state)
{
    char expected[4096 + 64];
    char *here = getcwd(NULL, 0);

    (void)state;
    assert_int_equal(run("screenshot web x.png"), 0);
    snprintf(expected, sizeof expected, "{\"path\":\"%s/x.png\"}", here);
    assert_string_equal(fake_call.arguments, expected);
    free(here);
}

static void wrong_command_lines_exit_2_say_why_and_call_nothing(void **state)
{
    static const char *const LINES[] = {
        "",
        "nonsense",
        "start",
        "start a b",
        "start a --nonsense",
        "start a -x",
        "start a --paused=1",
        "stop a --timeout",
        "stop a --timeout x",
        "stop a --timeout -1",
        "stop a --timeout 99999999999999999999",
        "stop a --timeout 86401",
        "snapshot",
        "snapshot a --name",
        "prune",
        "prune a --keep-last x",
        "apply a",
        "revert a b",
        "delete a",
        "rename-snapshot a b",
        "notes a",
        "notes a b c d",
        "set a",
        "set a memory",
        "set a =1",
        "set a cpus=1 cpus=2",
        "screenshot a",
        "create",
        "create a --memory x",
        "create a --memory -1",
        "create a --disk ,bus=ide",
        "create a --nic wlan",
        "create a --nic none --nic user",
        "create a --nic bridge",
        "create a --nic bridge=",
        "create a --nic user=x",
        "create a --nic user,forward=",
        "create a --nic user,mac=x",
        "create a --nic tap=t,forward=tcp:1:1",
        "create a --cpus 99999999999999999999",
        "list a",
        "show",
        "show a b",
        "tree",
        "settings",
        "settings a b c",
        "console",
        "disk",
        "disk nonsense",
        "help nonsense",
    };

    (void)state;
    for (size_t i = 0; i < sizeof LINES / sizeof LINES[0]; i++) {
        int status = run(LINES[i]);
        if (status != 2 || fake_call.count != 0 || *err_out == '\0' || *out != '\0')
            fail_msg("bough %s: exit %d, %u calls, '%s', '%s'", LINES[i], status, fake_call.count, out,
                     err_out);
        if (strchr(LINES[i], ' ') && strncmp(err_out, "bough: ", 7) != 0)
            fail_msg("bough %s: '%s' does not begin with what failed", LINES[i], err_out);
    }
}

static void error_gives_its_exit_status_and_says_what_which_why(void **state)
{
    (void)state;
    fake_error_code = ERR_AMBIGUOUS;
    fake_error_text = "'a' names two snapshots";
    assert_int_equal(run("apply web a"), err_exit_status(ERR_AMBIGUOUS));
    assert_string_equal(err_out, "bough: apply: web: 'a' names two snapshots\n");
    assert_string_equal(out, "");
}

static void what_the_operation_has_said_is_not_said_twice(void **state)
{
    (void)state;
    fake_error_code = ERR_EXISTS;
    fake_error_text = "create: web: the name is taken";
    assert_int_equal(run("create web"), err_exit_status(ERR_EXISTS));
    assert_string_equal(err_out, "bough: create: web: the name is taken\n");
    fake_error_text = "web: no such VM";
    run("start web");
    assert_string_equal(err_out, "bough: start: web: no such VM\n");
    fake_error_text = "web2: is in the way"; /* begins like the name, but is another */
    run("start web");
    assert_string_equal(err_out, "bough: start: web: web2: is in the way\n");
}

static void control_characters_of_a_message_do_not_reach_the_terminal(void **state)
{
    (void)state;
    fake_error_code = ERR_CORRUPT;
    fake_error_text = "\033[2Jname";
    run("start web");
    assert_string_equal(err_out, "bough: start: web: \\x1b[2Jname\n");
    fake_error_text = "a\nbough: all is well\t.vhd: is damaged";
    run("start web");
    assert_string_equal(err_out, "bough: start: web: a\\x0abough: all is well\\x09.vhd: is damaged\n");
}

static void snapshot_prints_the_guid_alone(void **state)
{
    (void)state;
    fake_answer = "{\"guid\":\"AAAA\",\"name\":\"n\",\"pause_us\":1200,\"mode\":\"pre-copy\"}";
    assert_int_equal(run("snapshot web"), 0);
    assert_string_equal(out, "AAAA\n");
    assert_string_equal(err_out, "");
}

static void json_prints_the_answer_as_it_is(void **state)
{
    (void)state;
    fake_answer = "{\"guid\":\"AAAA\",\"mode\":null,\"pause_us\":1200}";
    assert_int_equal(run("snapshot web --json"), 0);
    json_auto_t *printed = json_loads(out, 0, NULL);
    json_auto_t *expected = json_loads(fake_answer, 0, NULL);
    assert_true(json_equal(printed, expected));
}

static void dry_run_prints_the_plan_as_a_numbered_list(void **state)
{
    (void)state;
    fake_answer = "{\"plan\":{\"summary\":\"snapshot web: take "
                  "'x'\",\"steps\":[{\"step\":\"make-dir\",\"path\":\"/a\"},"
                  "{\"step\":\"share-file\",\"path\":\"/b\",\"from\":\"/c\"},{\"step\":\"flush-sealed\"}]}}";
    assert_int_equal(run("snapshot web --dry-run"), 0);
    assert_string_equal(
        out, "snapshot web: take 'x'\n  1. make-dir /a\n  2. share-file /b from /c\n  3. flush-sealed\n");
}

static void apply_says_the_state_and_the_time(void **state)
{
    (void)state;
    fake_answer =
        "{\"state\":\"running\",\"running_us\":118400,\"first\":{\"guid\":\"G1\",\"name\":\"kept\"}}";
    assert_int_equal(run("apply web x"), 0);
    assert_string_equal(out, "web: running after 0.118 s; the state before is 'kept', G1\n");
    fake_answer = "{\"state\":\"off\",\"running_us\":null,\"first\":null}";
    assert_int_equal(run("revert web"), 0);
    assert_string_equal(out, "web: off\n");
}

static void delete_says_what_went_and_what_stays(void **state)
{
    (void)state;
    fake_answer = "{\"deleted\":[\"G1\",\"G2\"],\"kept_layers\":[\"/x.vhd\"],"
                  "\"merged\":[{\"path\":\"/a/y.avhd\",\"into\":\"/a/x.vhd\",\"bytes\":4096}],"
                  "\"merging\":[{\"path\":\"/z.avhd\",\"into\":null,\"bytes\":0,\"done_bytes\":0,\"state\":\"kept\","
                  "\"reason\":\"z.avhd is needed by 2 others\"}],\"merge_stopped\":null}";
    assert_int_equal(run("delete web x"), 0);
    assert_string_equal(out, "deleted G1\ndeleted G2\nmerged:      y.avhd into x.vhd, 4 KiB\n"
                             "kept:        z.avhd is needed by 2 others\n");
}

static void each_command_explains_itself(void **state)
{
    char commands[sizeof out], line[256], usage[64];
    unsigned count = 0;

    (void)state;
    assert_int_equal(run("help"), 0);
    memcpy(commands, out, sizeof out);
    for (char *rest = commands, *row; (row = strsep(&rest, "\n"));) {
        char verb[32];
        if (strncmp(row, "  ", 2) != 0 || sscanf(row, " %31s", verb) != 1)
            continue;
        count++;
        snprintf(usage, sizeof usage, "usage: bough %s ", verb);
        for (int i = 0; i < 3; i++) {
            snprintf(line, sizeof line, i == 0 ? "help %s" : i == 1 ? "%s --help" : "%s -h", verb);
            assert_int_equal(run(line), 0);
            assert_true(strncmp(out, usage, strlen(usage)) == 0);
        }
    }
    assert_true(count >= 23);
    assert_int_equal(fake_call.count, 0);
}

static bool was_cancelled_before, was_cancelled_after;

static void interrupt(const struct progress *progress)
{
    was_cancelled_before = progress_cancelled(progress);
    raise(SIGINT);
    was_cancelled_after = progress_cancelled(progress);
}

static void first_interrupt_cancels_and_says_so(void **state)
{
    struct sigaction before, after;

    (void)state;
    sigaction(SIGINT, NULL, &before);
    fake_during = interrupt;
    fake_error_code = ERR_CANCELLED;
    fake_error_text = "cancelled";
    assert_int_equal(run("snapshot web"), err_exit_status(ERR_CANCELLED));
    assert_false(was_cancelled_before);
    assert_true(was_cancelled_after);
    assert_non_null(strstr(err_out, "cancelling"));
    sigaction(SIGINT, NULL, &after);
    assert_ptr_equal(before.sa_handler, after.sa_handler);
}

static void an_interrupt_behind_the_work_does_not_belie_it(void **state)
{
    struct sigaction after;

    (void)state;
    assert_int_equal(run("snapshot web"), 0);
    sigaction(SIGINT, NULL, &after);
    assert_ptr_equal(after.sa_handler, SIG_IGN);
}

static void an_interrupt_of_one_call_does_not_cancel_the_next(void **state)
{
    (void)state;
    fake_during = interrupt;
    run("snapshot web");
    was_cancelled_before = true;
    run("snapshot web");
    assert_false(was_cancelled_before);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_verb_is_its_operation_with_just_the_arguments_given, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(create_hands_on_what_the_options_say, setup, teardown),
        cmocka_unit_test_setup_teardown(relative_paths_are_meant_from_here, setup, teardown),
        cmocka_unit_test_setup_teardown(wrong_command_lines_exit_2_say_why_and_call_nothing, setup, teardown),
        cmocka_unit_test_setup_teardown(error_gives_its_exit_status_and_says_what_which_why, setup, teardown),
        cmocka_unit_test_setup_teardown(what_the_operation_has_said_is_not_said_twice, setup, teardown),
        cmocka_unit_test_setup_teardown(control_characters_of_a_message_do_not_reach_the_terminal, setup,
                                        teardown),
        cmocka_unit_test_setup_teardown(snapshot_prints_the_guid_alone, setup, teardown),
        cmocka_unit_test_setup_teardown(json_prints_the_answer_as_it_is, setup, teardown),
        cmocka_unit_test_setup_teardown(dry_run_prints_the_plan_as_a_numbered_list, setup, teardown),
        cmocka_unit_test_setup_teardown(apply_says_the_state_and_the_time, setup, teardown),
        cmocka_unit_test_setup_teardown(delete_says_what_went_and_what_stays, setup, teardown),
        cmocka_unit_test_setup_teardown(each_command_explains_itself, setup, teardown),
        cmocka_unit_test_setup_teardown(first_interrupt_cancels_and_says_so, setup, teardown),
        cmocka_unit_test_setup_teardown(an_interrupt_behind_the_work_does_not_belie_it, setup, teardown),
        cmocka_unit_test_setup_teardown(an_interrupt_of_one_call_does_not_cancel_the_next, setup, teardown),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
