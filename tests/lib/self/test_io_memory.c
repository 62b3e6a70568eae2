/* The seams that other tests stand on. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "bytes.h"
#include "file.h"
#include "io_failing.h"
#include "io_memory.h"

#include <errno.h>
#include <string.h>

static struct err err;

static void put(const struct io *io, const char *path, const char *text, bool sync)
{
    AUTO_IO struct io_file *file = NULL;

    assert_true(io_open(io, path, io_exists(io, path) ? IO_WRITE : IO_CREATE, &file, &err));
    assert_true(io_write(file, 0, text, strlen(text), &err));
    if (sync)
        assert_true(io_sync(file, &err));
}

static char *get(const struct io *io, const char *path)
{
    AUTO_BUF struct buf buf = BUF_INIT;

    return file_read_all(io, path, 1 << 20, &buf, &err) ? buf_take_string(&buf) : NULL;
}

static void assert_text(const struct io *io, const char *path, const char *want)
{
    AUTO_FREE char *text = get(io, path);

    if (!want) {
        assert_null(text);
        return;
    }
    assert_non_null(text);
    assert_string_equal(text, want);
}

static void what_is_written_is_read(void **state)
{
    (void)state;
    AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_PLAIN);
    const struct io *io = io_memory_io(memory);
    AUTO_IO struct io_file *file = NULL;
    char bytes[9000], back[9000];

    memset(bytes, 'x', sizeof bytes);
    assert_true(io_open(io, "/f", IO_CREATE, &file, &err));
    assert_true(io_write(file, 5000, bytes, sizeof bytes, &err));
    assert_true(io_read(file, 5000, back, sizeof back, &err));
    assert_memory_equal(bytes, back, sizeof bytes);
    assert_true(io_read(file, 0, back, 5000, &err));
    assert_true(bytes_are_zero(back, 5000));
    assert_true(io_zero(file, 4096, 8192, &err));
    assert_true(io_read(file, 5000, back, sizeof back, &err));
    assert_true(bytes_are_zero(back, 4096 + 8192 - 5000));
    assert_memory_equal(bytes, back + 8000, 1000);
    assert_true(io_truncate(file, 13000, &err) && io_truncate(file, 14000, &err));
    assert_true(io_read(file, 13000, back, 1000, &err));
    assert_true(bytes_are_zero(back, 1000));
    assert_false(io_read(file, 13999, back, 2, &err));
    assert_int_equal(err.code, ERR_CORRUPT);
}

static void the_limit_is_no_space(void **state)
{
    (void)state;
    AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_PLAIN);
    AUTO_IO struct io_file *file = NULL;

    io_memory_limit(memory, 8192);
    assert_true(io_open(io_memory_io(memory), "/f", IO_CREATE, &file, &err));
    assert_true(io_allocate(file, 0, 8192, &err));
    assert_false(io_write(file, 8192, "x", 1, &err));
    assert_int_equal(err.code, ERR_NO_SPACE);
    assert_true(io_zero(file, 0, 4096, &err));
    assert_true(io_write(file, 8192, "x", 1, &err));
    assert_int_equal(io_memory_taken_bytes(memory), 8192);
}

static void synced_data_and_names_outlive_a_crash(void **state)
{
    (void)state;
    for (uint64_t seed = 0; seed < 64; seed++) {
        AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_FORGETS);
        const struct io *io = io_memory_io(memory);
        assert_true(io_make_dir(io, "/d", &err) && io_sync_dir(io, "/", &err));
        put(io, "/d/f", "durable", true);
        assert_true(io_sync_dir(io, "/d", &err));
        io_memory_crash(memory, seed);
        assert_text(io, "/d/f", "durable");
    }
}

static void each_unsynced_outcome_occurs(void **state)
{
    (void)state;
    unsigned kept = 0, dropped = 0, torn = 0, no_name = 0;
    char two_sectors[1025];

    memset(two_sectors, 'n', 1024);
    two_sectors[1024] = '\0';
    for (uint64_t seed = 0; seed < 200; seed++) {
        AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_FORGETS);
        const struct io *io = io_memory_io(memory);
        char old[1025];
        memset(old, 'o', 1024);
        old[1024] = '\0';
        put(io, "/f", old, true);
        assert_true(io_sync_dir(io, "/", &err));
        put(io, "/f", two_sectors, false);
        put(io, "/g", "x", true);
        io_memory_crash(memory, seed);
        AUTO_FREE char *text = get(io, "/f");
        assert_non_null(text);
        kept += text[0] == 'n' && text[1023] == 'n';
        dropped += text[0] == 'o' && text[1023] == 'o';
        torn += text[0] != text[1023];
        no_name += !io_exists(io, "/g");
    }
    assert_int_equal(kept + dropped + torn, 200);
    assert_true(kept > 20 && dropped > 20 && torn > 20 && no_name > 50 && no_name < 150);
}

static void file_replace_is_old_or_new_after_a_crash(void **state)
{
    (void)state;
    unsigned old = 0;

    for (uint64_t seed = 0; seed < 100; seed++) {
        AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_FORGETS);
        AUTO_IO_FAILING struct io_failing *failing = io_failing_new(io_memory_io(memory));
        const struct io *io = io_failing_io(failing);
        bool renamed;
        put(io, "/f", "old", true);
        assert_true(io_sync_dir(io, "/", &err));
        io_failing_set(failing, (struct io_fault){.calls = IO_CALL_SYNC_DIR, .nth = 1, .errnum = EIO});
        assert_false(file_replace(io, "/f", "new", 3, &renamed, &err));
        assert_true(renamed);
        io_memory_crash(memory, seed);
        AUTO_FREE char *text = get(io, "/f");
        assert_non_null(text);
        assert_true(strcmp(text, "old") == 0 || strcmp(text, "new") == 0);
        old += strcmp(text, "old") == 0;
    }
    assert_true(old > 20 && old < 80);
}

static void names_move_with_their_folder(void **state)
{
    (void)state;
    AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_FORGETS);
    const struct io *io = io_memory_io(memory);

    assert_true(io_make_dir(io, "/a", &err));
    put(io, "/a/f", "text", true);
    assert_true(io_sync_dir(io, "/a", &err) && io_sync_dir(io, "/", &err));
    assert_true(io_rename(io, "/a", "/b", &err) && io_sync_dir(io, "/", &err));
    assert_text(io, "/b/f", "text");
    assert_false(io_remove_dir(io, "/b", &err));
    io_memory_crash(memory, 1);
    assert_text(io, "/b/f", "text");
    assert_false(io_exists(io, "/a"));
    assert_true(io_link(io, "/b/f", "/g", &err));
    struct io_stat stat;
    assert_true(io_stat_path(io, "/g", &stat, &err));
    assert_int_equal(stat.links, 2);
    assert_true(io_unlink(io, "/b/f", &err) && io_remove_dir(io, "/b", &err));
    assert_text(io, "/g", "text");
}

static void the_nth_call_fails_once_or_for_good(void **state)
{
    (void)state;
    AUTO_IO_MEMORY struct io_memory *memory = io_memory_new(IO_MEMORY_PLAIN);
    AUTO_IO_FAILING struct io_failing *failing = io_failing_new(io_memory_io(memory));
    AUTO_IO struct io_file *file = NULL;
    struct io_fault fault = {.calls = IO_CALL_WRITE, .nth = 2, .errnum = ENOSPC, .done_anyway = true};

    assert_true(io_open(io_failing_io(failing), "/f", IO_CREATE, &file, &err));
    io_failing_set(failing, fault);
    assert_true(io_write(file, 0, "a", 1, &err));
    assert_false(io_write(file, 1, "b", 1, &err));
    assert_int_equal(err.code, ERR_NO_SPACE);
    assert_true(io_write(file, 2, "c", 1, &err));
    assert_text(io_failing_io(failing), "/f", "abc");
    fault.forever = true;
    fault.done_anyway = false;
    io_failing_set(failing, fault);
    assert_true(io_write(file, 0, "x", 1, &err));
    assert_false(io_write(file, 1, "y", 1, &err));
    assert_false(io_sync(file, &err));
    assert_true(io_failing_struck(failing));
    assert_text(io_memory_io(memory), "/f", "xbc");
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(what_is_written_is_read),
        cmocka_unit_test(the_limit_is_no_space),
        cmocka_unit_test(synced_data_and_names_outlive_a_crash),
        cmocka_unit_test(each_unsynced_outcome_occurs),
        cmocka_unit_test(file_replace_is_old_or_new_after_a_crash),
        cmocka_unit_test(names_move_with_their_folder),
        cmocka_unit_test(the_nth_call_fails_once_or_for_good),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
