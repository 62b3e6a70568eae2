/* Images that begin as a clone of another. The folder is below $BOUGH_CLONE_FOLDER, which then must be on a file system that
 * shares extents, or in /tmp; what is claimed of contents must be true on any. */
#include "auto.h"
#include "bytes.h"
#include "parentbin.h"
#include "save_fixture.h"
#include "stream_writer.h"

#include <fcntl.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

#include <cmocka.h>

#define PAGES        640U
#define MEMORY_BYTES (PAGES * 4096ULL)

struct clones {
    struct save_fixture parent, child;
    char folder[64];
    bool shares;
};

static void name_files(struct save_fixture *fixture, const char *folder, const char *name)
{
    snprintf(fixture->bin, sizeof(fixture->bin), "%s/%s.bin", folder, name);
    snprintf(fixture->vsv, sizeof(fixture->vsv), "%s/%s.vsv", folder, name);
}

static int setup(void **state)
{
    struct clones *clones = calloc(1, sizeof(*clones));
    const char *above = getenv("BOUGH_CLONE_FOLDER");
    assert_non_null(clones);
    clones->shares = above != NULL;
    snprintf(clones->folder, sizeof(clones->folder), "%s/c-XXXXXX", above ? above : "/tmp");
    assert_non_null(mkdtemp(clones->folder));
    name_files(&clones->parent, clones->folder, "p");
    name_files(&clones->child, clones->folder, "c");
    *state = clones;
    return 0;
}

static int teardown(void **state)
{
    struct clones *clones = *state;
    unlink(clones->parent.bin);
    unlink(clones->parent.vsv);
    unlink(clones->child.bin);
    unlink(clones->child.vsv);
    int left = rmdir(clones->folder);
    free(clones);
    return left;
}

/* A page of the stream for each in the model, 0 for zeros; the order is that of memory. */
static void put_model(struct buf *out, const unsigned *model)
{
    for (unsigned page = 0; page < PAGES; page++) {
        if (model[page])
            w_page(out, "pc.ram", page * 4096ULL, model[page]);
        else
            w_zero(out, "pc.ram", page * 4096ULL);
    }
}

static void open_stream(struct buf *out)
{
    static const struct w_block blocks[] = {{"pc.ram", MEMORY_BYTES}};
    w_open(out, blocks, 1);
    w_part(out);
}

static void close_stream(struct buf *out)
{
    w_eos(out);
    w_state(out);
}

/* The stream whole, at an own pace: nothing of it comes in a hurry. */
static bool save_child(const struct clones *clones, const struct buf *stream, bool in_hurry,
                       struct ram_save_result *ret_result, struct err *err)
{
    char stream_path[80];
    struct ram_save *save = NULL;
    snprintf(stream_path, sizeof(stream_path), "%s/stream", clones->folder);
    int fd = open(stream_path, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    unlink(stream_path);
    assert_int_equal(write(fd, stream->data, stream->length), stream->length);
    assert_int_equal(lseek(fd, 0, SEEK_SET), 0);
    struct ram_save_options options = fixture_options(&clones->child, fd, MEMORY_BYTES);
    options.parent_bin_path = clones->parent.bin;
    if (!ram_save_start(&options, &save, err))
        return false;
    if (in_hurry)
        ram_save_hurry(save);
    return ram_save_finish(save, ret_result, err);
}

/* The child, which must succeed, of memory as in the model. */
static void save_model(const struct clones *clones, const unsigned *model, struct ram_save_result *ret_result)
{
    AUTO_BUF struct buf in = BUF_INIT;
    struct err err = ERR_INIT;
    open_stream(&in);
    put_model(&in, model);
    close_stream(&in);
    if (!save_child(clones, &in, false, ret_result, &err))
        fail_msg("%s", err.text);
}

static void save_parent(const struct clones *clones, const unsigned *model)
{
    AUTO_BUF struct buf in = BUF_INIT;
    struct ram_save_result result;
    struct err err = ERR_INIT;
    open_stream(&in);
    put_model(&in, model);
    close_stream(&in);
    if (!fixture_save(&clones->parent, &in, MEMORY_BYTES, &result, &err))
        fail_msg("%s", err.text);
    assert_int_equal(result.shared_pages, 0);
}

static void expect_model(const struct save_fixture *fixture, const unsigned *model)
{
    AUTO_BUF struct buf bin = BUF_INIT;
    uint8_t expected[4096];
    struct err err = ERR_INIT;
    fixture_read(fixture->bin, &bin);
    assert_int_equal(bin.length, MEMORY_BYTES);
    for (unsigned page = 0; page < PAGES; page++) {
        memset(expected, 0, sizeof(expected));
        if (model[page])
            w_page_bytes(expected, model[page]);
        if (memcmp(bin.data + page * 4096ULL, expected, sizeof(expected)) != 0)
            fail_msg("%s: page %u is not what was sent last", fixture->bin, page);
    }
    if (!ram_verify(fixture->vsv, fixture->bin, NULL, &err))
        fail_msg("%s", err.text);
}

static void fill_model(unsigned *model, uint64_t seed)
{
    for (unsigned page = 0; page < PAGES; page++) {
        seed = seed * 6364136223846793005U + 1442695040888963407U;
        model[page] = (seed >> 33) % 4 ? (unsigned)(seed >> 40) | 1 : 0;
    }
}

static unsigned with_content(const unsigned *model)
{
    unsigned count = 0;
    for (unsigned page = 0; page < PAGES; page++)
        count += model[page] != 0;
    return count;
}

static uint64_t used_bytes(const char *path)
{
    struct stat seen;
    assert_int_equal(stat(path, &seen), 0);
    return (uint64_t)seen.st_blocks * 512;
}

static void the_same_memory_again_is_not_written(void **state)
{
    struct clones *clones = *state;
    unsigned model[PAGES];
    struct ram_save_result result;
    fill_model(model, 1);
    save_parent(clones, model);
    save_model(clones, model, &result);
    assert_int_equal(result.pages, with_content(model));
    assert_int_equal(result.shared_pages, clones->shares ? with_content(model) : 0);
    expect_model(&clones->child, model);
}

/* Each way from one content to another, in one or two goes: kept, changed, emptied, filled; then all again at random. */
static void a_child_holds_what_was_sent_last_and_its_parent_what_it_held(void **state)
{
    enum { STEPS = 4000 };
    struct clones *clones = *state;
    unsigned parent[PAGES], child[PAGES], other[PAGES];
    for (uint64_t seed = 1; seed <= 12; seed++) {
        AUTO_BUF struct buf in = BUF_INIT;
        struct ram_save_result result;
        struct err err = ERR_INIT;
        uint64_t random = seed;
        fill_model(parent, seed);
        fill_model(other, seed + 100);
        for (unsigned page = 0; page < PAGES; page++)
            child[page] = page / 3 % 2 ? parent[page] : other[page];
        save_parent(clones, parent);
        open_stream(&in);
        put_model(&in, child);
        for (unsigned i = 0; seed % 2 && i < STEPS; i++) {
            random = random * 6364136223846793005U + 1442695040888963407U;
            unsigned page = (unsigned)(random >> 33) % PAGES, choice = (unsigned)(random >> 20) % 4;
            child[page] = choice == 0 ? 0 : choice == 1 ? parent[page] : i + 1;
            if (child[page])
                w_page(&in, "pc.ram", page * 4096ULL, child[page]);
            else
                w_zero(&in, "pc.ram", page * 4096ULL);
        }
        close_stream(&in);
        if (!save_child(clones, &in, seed % 3 == 0, &result, &err))
            fail_msg("%s", err.text);
        expect_model(&clones->child, child);
        expect_model(&clones->parent, parent);
        unlink(clones->child.bin);
        unlink(clones->child.vsv);
        unlink(clones->parent.bin);
        unlink(clones->parent.vsv);
    }
}

static void in_a_hurry_nothing_is_compared(void **state)
{
    struct clones *clones = *state;
    unsigned model[PAGES];
    AUTO_BUF struct buf in = BUF_INIT;
    struct ram_save_result result;
    struct err err = ERR_INIT;
    int ends[2];
    struct ram_save *save = NULL;
    fill_model(model, 1);
    save_parent(clones, model);
    open_stream(&in);
    put_model(&in, model);
    close_stream(&in);
    assert_int_equal(pipe2(ends, O_CLOEXEC), 0);
    struct ram_save_options options = fixture_options(&clones->child, ends[0], MEMORY_BYTES);
    options.parent_bin_path = clones->parent.bin;
    assert_true(ram_save_start(&options, &save, &err));
    ram_save_hurry(save);
    for (size_t done = 0; done < in.length;) {
        ssize_t put = write(ends[1], in.data + done, in.length - done);
        assert_true(put > 0);
        done += (size_t)put;
    }
    close(ends[1]);
    assert_true(ram_save_finish(save, &result, &err));
    assert_int_equal(result.shared_pages, 0);
    expect_model(&clones->child, model);
}

static void pages_that_became_zeros_are_holes(void **state)
{
    struct clones *clones = *state;
    unsigned full[PAGES], empty[PAGES] = {0};
    AUTO_BUF struct buf in = BUF_INIT;
    struct ram_save_result result;
    struct err err = ERR_INIT;
    for (unsigned page = 0; page < PAGES; page++)
        full[page] = page + 1;
    save_parent(clones, full);
    open_stream(&in);
    put_model(&in, full); /* written here, where nothing is shared */
    put_model(&in, empty);
    close_stream(&in);
    if (!save_child(clones, &in, false, &result, &err))
        fail_msg("%s", err.text);
    expect_model(&clones->child, empty);
    expect_model(&clones->parent, full);
    assert_true(used_bytes(clones->child.bin) <= 64 << 10);
}

static void a_page_that_did_not_come_is_never_the_parents(void **state)
{
    struct clones *clones = *state;
    unsigned model[PAGES];
    for (unsigned left_out = 0; left_out < PAGES; left_out += 213) {
        AUTO_BUF struct buf in = BUF_INIT;
        struct ram_save_result result;
        struct err err = ERR_INIT;
        fill_model(model, 7);
        save_parent(clones, model);
        open_stream(&in);
        for (unsigned page = 0; page < PAGES; page++)
            if (page != left_out)
                w_page(&in, "pc.ram", page * 4096ULL, page + 1);
        close_stream(&in);
        assert_false(save_child(clones, &in, false, &result, &err));
        assert_int_equal(err.code, ERR_CORRUPT);
        assert_non_null(strstr(err.text, "is not in the stream"));
        assert_false(fixture_exists(clones->child.bin));
        assert_false(fixture_exists(clones->child.vsv));
        expect_model(&clones->parent, model);
        unlink(clones->parent.bin);
        unlink(clones->parent.vsv);
    }
}

/* By groups of 16: many pieces; one piece, though large; few pieces. */
static void among_many_changed_pages_nothing_is_shared(void **state)
{
    enum { GROUP = 16, SHARED = 8 + 14 };
    struct clones *clones = *state;
    unsigned model[PAGES];
    struct ram_save_result result;
    for (unsigned page = 0; page < PAGES; page++)
        model[page] = page + 1;
    save_parent(clones, model);
    for (unsigned page = 0; page < PAGES; page++) {
        unsigned in_group = page % GROUP, kind = page / GROUP % 3;
        if (kind == 0 ? in_group % 4 == 1 : kind == 1 ? in_group < 8 : in_group == 3 || in_group == 9)
            model[page] += PAGES;
    }
    save_model(clones, model, &result);
    expect_model(&clones->child, model);
    assert_int_equal(result.shared_pages, clones->shares ? PAGES / GROUP / 3 * SHARED : 0);
}

/* Contents are compared with the parent's file itself, so what happened to that file does not matter. */
static void a_damaged_parent_damages_no_child(void **state)
{
    struct clones *clones = *state;
    unsigned model[PAGES];
    struct ram_save_result result;
    for (unsigned page = 0; page < PAGES; page++)
        model[page] = page % 5 ? page + 1 : 0;
    save_parent(clones, model);
    for (unsigned page = 0; page < PAGES; page += page < PAGES / 2 ? 3 : 7)
        fixture_patch(clones->parent.bin, page * 4096ULL + 17, "damage", 6);
    save_model(clones, model, &result);
    expect_model(&clones->child, model);
    assert_true(!clones->shares || (result.shared_pages > 0 && result.shared_pages < with_content(model)));
}

static void a_parent_that_is_missing_or_of_another_size_is_none(void **state)
{
    struct clones *clones = *state;
    unsigned model[PAGES];
    fill_model(model, 5);
    for (int which = 0; which < 3; which++) {
        struct ram_save_result result;
        save_parent(clones, model);
        if (which == 0)
            assert_int_equal(truncate(clones->parent.bin, MEMORY_BYTES - 4096), 0);
        if (which == 1)
            assert_int_equal(truncate(clones->parent.bin, MEMORY_BYTES + 4096), 0);
        if (which == 2)
            unlink(clones->parent.bin);
        save_model(clones, model, &result);
        assert_int_equal(result.shared_pages, 0);
        expect_model(&clones->child, model);
        unlink(clones->child.bin);
        unlink(clones->child.vsv);
        unlink(clones->parent.bin);
        unlink(clones->parent.vsv);
    }
}

/* A file of so many pages, each in a piece of its own. */
static void write_pieces(const char *path, unsigned count)
{
    uint8_t page[4096];
    AUTO_FD int fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    memset(page, 7, sizeof(page));
    for (unsigned i = 0; i < count; i++)
        assert_int_equal(pwrite(fd, page, sizeof(page), i * 2ULL * sizeof(page)), sizeof(page));
    assert_int_equal(ftruncate(fd, count * 2LL * (off_t)sizeof(page)), 0);
    assert_int_equal(fsync(fd), 0);
}

static bool can_be_cloned(const struct clones *clones, unsigned pieces)
{
    write_pieces(clones->parent.bin, pieces);
    AUTO_FD int fd = open(clones->child.bin, O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0600);
    assert_true(fd >= 0);
    struct parentbin *parent = parentbin_clone(clones->parent.bin, fd, pieces * 2ULL * 4096);
    parentbin_close(parent);
    unlink(clones->parent.bin);
    unlink(clones->child.bin);
    return parent != NULL;
}

static void a_parent_in_thousands_of_pieces_is_not_cloned(void **state)
{
    struct clones *clones = *state;
    assert_int_equal(can_be_cloned(clones, 2000), clones->shares);
    assert_false(can_be_cloned(clones, 8000));
}

#define test_of(name) cmocka_unit_test_setup_teardown(name, setup, teardown)

int main(void)
{
    const struct CMUnitTest tests[] = {
        test_of(the_same_memory_again_is_not_written),
        test_of(a_child_holds_what_was_sent_last_and_its_parent_what_it_held),
        test_of(in_a_hurry_nothing_is_compared),
        test_of(pages_that_became_zeros_are_holes),
        test_of(among_many_changed_pages_nothing_is_shared),
        test_of(a_page_that_did_not_come_is_never_the_parents),
        test_of(a_damaged_parent_damages_no_child),
        test_of(a_parent_that_is_missing_or_of_another_size_is_none),
        test_of(a_parent_in_thousands_of_pieces_is_not_cloned),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
