/* The parser on synthetic streams: every kind of record, cut and damaged at every byte. */
#include "auto.h"
#include "bytes.h"
#include "stream.h"
#include "stream_writer.h"

#include <setjmp.h>
#include <stdarg.h>
#include <string.h>

#include <cmocka.h>

#define RAM_PAGES 8U
#define ROM_PAGES 2U

static const struct w_block two_blocks[] = {{"pc.ram", RAM_PAGES * 4096}, {"pc.bios", ROM_PAGES * 4096}};

/* What a stream told, as memory. */
struct told {
    struct stream *stream;
    struct buf head, state;
    uint8_t memory[2][RAM_PAGES * 4096];
    unsigned pages, zeros, blocks;
};

static bool on_head(void *context, const uint8_t *bytes, size_t length, struct err *err)
{
    return buf_append(&((struct told *)context)->head, bytes, length) || err_oom(err);
}

static bool on_state(void *context, const uint8_t *bytes, size_t length, struct err *err)
{
    return buf_append(&((struct told *)context)->state, bytes, length) || err_oom(err);
}

static bool on_blocks(void *context, struct err *err)
{
    struct told *told = context;
    (void)err;
    assert_int_equal(told->blocks, 0);
    stream_blocks(told->stream, &told->blocks);
    return true;
}

static bool on_page(void *context, unsigned block, uint64_t offset, const uint8_t *bytes, struct err *err)
{
    struct told *told = context;
    (void)err;
    unsigned count = 0;
    assert_true(offset + 4096 <= stream_blocks(told->stream, &count)[block].used_bytes);
    assert_true(block < count && offset % 4096 == 0);
    if (block < 2 && offset < sizeof(told->memory[0])) {
        static const uint8_t zeros[4096];
        memcpy(told->memory[block] + offset, bytes ? bytes : zeros, 4096);
    }
    *(bytes ? &told->pages : &told->zeros) += 1;
    return true;
}

static void told_init(struct told *told)
{
    memset(told, 0, sizeof(*told));
    memset(told->memory, 0xee, sizeof(told->memory));
    told->stream = stream_new(&(struct stream_events){
        .context = told, .head = on_head, .blocks = on_blocks, .page = on_page, .state = on_state});
    assert_non_null(told->stream);
}

static void told_done(struct told *told)
{
    stream_free(told->stream);
    buf_done(&told->head);
    buf_done(&told->state);
}

/* Parses bytes that come in two pieces, cut at `cut`; what is held back of the first is given again. */
static bool parse(struct told *told, const struct buf *in, size_t cut, struct err *err)
{
    size_t first = 0, second = 0;
    if (!stream_parse(told->stream, in->data, cut, &first, err))
        return false;
    assert_true(cut - first < STREAM_TOKEN_MAX);
    /* A copy of its own, so that a sanitizer sees a byte read too many. */
    size_t length = in->length - first;
    uint8_t *exact = malloc(length ? length : 1);
    assert_non_null(exact);
    memcpy(exact, in->data + first, length);
    bool ok = stream_parse(told->stream, exact, length, &second, err) &&
              stream_end(told->stream, length - second, err);
    free(exact);
    return ok;
}

static void expect_failure(const struct buf *in, enum err_code code, const char *text)
{
    struct told told;
    struct err err = ERR_INIT;
    told_init(&told);
    assert_false(parse(&told, in, in->length, &err));
    if (err.code != code || !strstr(err.text, text))
        fail_msg("%s: %s, but expected: %s", err_name(err.code), err.text, text);
    told_done(&told);
}

/* Everything that a pre-copy with two passes brings. */
static void write_whole(struct buf *out)
{
    w_header(out);
    w_config(out, "pc-test");
    w_config_part(out, "configuration/uuid");
    w_bytes(out, "0123456789abcdef", 16);
    w_start(out, two_blocks, 2);
    w_part(out);
    w_page(out, "pc.ram", 0, 1);
    for (unsigned i = 1; i < RAM_PAGES; i++) {
        if (i % 3 == 0)
            w_zero(out, NULL, i * 4096);
        else
            w_page(out, NULL, i * 4096, i + 1);
    }
    w_eos(out);
    w_part(out);
    w_page(out, NULL, 4096, 100); /* CONTINUE across sections */
    w_zero(out, "pc.bios", 0);
    w_page(out, NULL, 4096, 200);
    w_zero(out, "pc.ram", 2 * 4096); /* zeros over content */
    w_eos(out);
    w_bytes(out, "\x08\0\x0b\0\0", 5); /* SWITCHOVER_START */
    w_end(out);
    w_page(out, "pc.ram", 3 * 4096, 300); /* content over zeros */
    w_eos(out);
    w_state(out);
}

static void expect_page(const uint8_t *memory, unsigned page, unsigned seed)
{
    uint8_t expected[4096] = {0};
    if (seed > 0)
        w_page_bytes(expected, seed);
    assert_memory_equal(memory + page * 4096, expected, 4096);
}

static void expect_whole(const struct told *told)
{
    static const unsigned ram[RAM_PAGES] = {1, 100, 0, 300, 5, 6, 0, 8};
    for (unsigned i = 0; i < RAM_PAGES; i++)
        expect_page(told->memory[0], i, ram[i]);
    expect_page(told->memory[1], 0, 0);
    expect_page(told->memory[1], 1, 200);
    assert_int_equal(told->blocks, 2);
    assert_int_equal(told->pages, 9);
    assert_int_equal(told->zeros, 4);
    assert_string_equal(stream_machine(told->stream), "pc-test");
    assert_int_equal(stream_ram_section(told->stream), W_SECTION);
    assert_true(stream_has_switchover(told->stream));
}

static void a_whole_stream_is_the_same_however_it_is_cut(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    AUTO_BUF struct buf blob = BUF_INIT;
    write_whole(&in);
    w_state(&blob);
    for (size_t cut = 0; cut <= in.length; cut++) {
        struct told told;
        struct err err = ERR_INIT;
        size_t description = 0;
        told_init(&told);
        if (!parse(&told, &in, cut, &err))
            fail_msg("cut at %zu: %s", cut, err.text);
        expect_whole(&told);
        assert_int_equal(told.state.length, blob.length);
        assert_memory_equal(told.state.data, blob.data, blob.length);
        assert_true(stream_check_state(told.state.data, told.state.length, &description, &err));
        assert_int_equal(told.state.data[description], '{');
        assert_memory_equal(told.head.data, in.data, told.head.length);
        told_done(&told);
    }
}

static void byte_by_byte_is_the_same_too(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    struct told told;
    struct err err = ERR_INIT;
    write_whole(&in);
    told_init(&told);
    size_t start = 0;
    for (size_t end = 1; end <= in.length; end++) {
        size_t consumed = 0;
        assert_true(stream_parse(told.stream, in.data + start, end - start, &consumed, &err));
        start += consumed;
    }
    assert_true(stream_end(told.stream, in.length - start, &err));
    expect_whole(&told);
    told_done(&told);
}

static void the_head_is_verbatim_up_to_the_first_part(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    AUTO_BUF struct buf head = BUF_INIT;
    struct told told;
    struct err err = ERR_INIT;
    w_open(&head, two_blocks, 2);
    w_open(&in, two_blocks, 2);
    w_part(&in);
    w_zero(&in, "pc.ram", 0);
    w_eos(&in);
    w_end(&in);
    w_eos(&in);
    w_state(&in);
    told_init(&told);
    assert_true(parse(&told, &in, in.length, &err));
    assert_int_equal(told.head.length, head.length);
    assert_memory_equal(told.head.data, head.data, head.length);
    told_done(&told);
}

static void a_stream_cut_off_anywhere_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    write_whole(&in);
    for (size_t length = 0; length < in.length; length++) {
        struct told told;
        struct err err = ERR_INIT;
        size_t description = 0;
        struct buf early = {.data = in.data, .length = length};
        told_init(&told);
        assert_false(parse(&told, &early, length / 2, &err) &&
                     stream_check_state(told.state.data, told.state.length, &description, &err));
        assert_int_equal(err.code, ERR_CORRUPT);
        told_done(&told);
    }
}

/* Damage in a page's content or in device state cannot be seen by a parser; all else must be an error or lead
 * to a stream that is read to its end; never to a crash (the sanitizers look). */
static void no_damaged_byte_does_harm(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    static const uint8_t masks[] = {0x01, 0x10, 0x80, 0xff};
    unsigned refused = 0;
    write_whole(&in);
    for (size_t i = 0; i < in.length * ARRAY_SIZE(masks); i++) {
        struct told told;
        struct err err = ERR_INIT;
        told_init(&told);
        in.data[i / 4] ^= masks[i % 4];
        if (!parse(&told, &in, in.length / 3, &err)) {
            refused++;
            assert_true(err.code == ERR_CORRUPT || err.code == ERR_UNSUPPORTED);
            assert_non_null(strstr(err.text, "stream"));
        }
        in.data[i / 4] ^= masks[i % 4];
        told_done(&told);
    }
    assert_true(refused > 500);
}

static void no_magic_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_bytes(&in, "QEVN\0\0\0\3", 8);
    expect_failure(&in, ERR_CORRUPT, "byte 0 of the stream: no migration stream");
}

static void version_2_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_bytes(&in, "QEVM\0\0\0\2", 8);
    expect_failure(&in, ERR_CORRUPT, "version 2");
}

static void a_machine_name_too_long_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_header(&in);
    w_config(&in, "pc-0123456789012345678901234567890123456789012345678901234567890");
    expect_failure(&in, ERR_CORRUPT, "byte 8 of the stream: a machine name of 64 bytes");
}

static void a_machine_name_with_a_control_character_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_header(&in);
    w_config(&in, "pc\n");
    expect_failure(&in, ERR_CORRUPT, "machine name");
}

static void no_configuration_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_header(&in);
    w_start(&in, two_blocks, 2);
    expect_failure(&in, ERR_CORRUPT, "configuration section");
}

static void memory_left_out_is_unsupported(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_header(&in);
    w_config(&in, "pc-test");
    w_config_part(&in, "configuration/capabilities");
    w_u32(&in, 1);
    w_str8(&in, "x-ignore-shared");
    w_start(&in, two_blocks, 2);
    expect_failure(&in, ERR_UNSUPPORTED, "x-ignore-shared");
}

static void an_unknown_subsection_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_header(&in);
    w_config(&in, "pc-test");
    w_config_part(&in, "configuration/other");
    expect_failure(&in, ERR_CORRUPT, "configuration/other");
}

static void pages_of_another_size_are_unsupported(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_header(&in);
    w_config(&in, "pc-test");
    w_config_part(&in, "configuration/target-page-bits");
    w_u32(&in, 16);
    w_u8(&in, 1);
    expect_failure(&in, ERR_UNSUPPORTED, "2^16");
}

static void another_live_section_is_unsupported(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_header(&in);
    w_config(&in, "pc-test");
    w_u8(&in, 1);
    w_u32(&in, 1);
    w_str8(&in, "dirty-bitmap");
    w_u64(&in, 1);
    expect_failure(&in, ERR_UNSUPPORTED, "dirty-bitmap");
}

static void two_blocks_of_one_name_are_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    static const struct w_block twins[] = {{"pc.ram", 4096}, {"pc.ram", 4096}};
    w_open(&in, twins, 2);
    expect_failure(&in, ERR_CORRUPT, "a second block pc.ram");
}

static void a_block_of_part_of_a_page_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    static const struct w_block odd[] = {{"a", 4095}, {"b", 4097}};
    w_open(&in, odd, 2);
    expect_failure(&in, ERR_CORRUPT, "block a of 4095 bytes");
}

static void a_block_larger_than_the_table_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_header(&in);
    w_config(&in, "pc-test");
    w_start_header(&in);
    w_u64(&in, 4096 | 4);
    w_str8(&in, "pc.ram");
    w_u64(&in, 8192);
    expect_failure(&in, ERR_CORRUPT, "with 4096 left");
}

static void an_empty_block_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    static const struct w_block empty[] = {{"a", 0}, {"b", 4096}};
    w_open(&in, empty, 2);
    expect_failure(&in, ERR_CORRUPT, "block a of 0 bytes");
}

static void a_block_without_a_name_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    static const struct w_block nameless[] = {{"", 4096}};
    w_open(&in, nameless, 1);
    expect_failure(&in, ERR_CORRUPT, "the name of a block");
}

static void too_many_blocks_are_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_header(&in);
    w_config(&in, "pc-test");
    w_start_header(&in);
    w_u64(&in, 300 * 4096 | 4);
    for (unsigned i = 0; i < 257; i++) {
        char name[] = {(char)('a' + i / 26), (char)('a' + i % 26), '\0'};
        w_str8(&in, name);
        w_u64(&in, 4096);
    }
    expect_failure(&in, ERR_CORRUPT, "more than 256 blocks");
}

static void a_table_of_nothing_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_open(&in, NULL, 0);
    expect_failure(&in, ERR_CORRUPT, "table of blocks");
}

static void a_second_start_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_open(&in, two_blocks, 2);
    w_start(&in, two_blocks, 2);
    expect_failure(&in, ERR_CORRUPT, "a second START");
}

static void a_page_behind_its_block_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_open(&in, two_blocks, 2);
    w_part(&in);
    w_page(&in, "pc.bios", ROM_PAGES * 4096, 1);
    expect_failure(&in, ERR_CORRUPT, "a page at 8192 of block pc.bios");
}

static void a_page_of_an_unknown_block_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_open(&in, two_blocks, 2);
    w_part(&in);
    w_zero(&in, "pc.rom", 0);
    expect_failure(&in, ERR_CORRUPT, "pc.rom");
}

static void a_page_that_continues_nothing_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_open(&in, two_blocks, 2);
    w_part(&in);
    w_zero(&in, NULL, 0);
    expect_failure(&in, ERR_CORRUPT, "continues no block");
}

static void a_page_filled_with_ones_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_open(&in, two_blocks, 2);
    w_part(&in);
    w_zero(&in, "pc.ram", 0);
    in.data[in.length - 1] = 1;
    expect_failure(&in, ERR_CORRUPT, "filled with 01");
}

static void records_of_other_kinds_are_refused(void **state)
{
    (void)state;
    static const struct {
        uint64_t record;
        enum err_code code;
    } records[] = {{0x01, ERR_CORRUPT},     {0x04, ERR_CORRUPT},     {0x0a, ERR_CORRUPT},
                   {0x30, ERR_CORRUPT},     {0x1010, ERR_CORRUPT},   {0x400, ERR_CORRUPT},
                   {0x00, ERR_CORRUPT},     {0x20, ERR_CORRUPT},     {0x40, ERR_UNSUPPORTED},
                   {0x80, ERR_UNSUPPORTED}, {0x60, ERR_UNSUPPORTED}, {0x100, ERR_UNSUPPORTED},
                   {0x200, ERR_UNSUPPORTED}};
    for (size_t i = 0; i < ARRAY_SIZE(records); i++) {
        AUTO_BUF struct buf in = BUF_INIT;
        w_open(&in, two_blocks, 2);
        w_part(&in);
        w_u64(&in, records[i].record);
        expect_failure(&in, records[i].code, "of the stream: ");
    }
}

static void a_page_in_start_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_header(&in);
    w_config(&in, "pc-test");
    w_start_header(&in);
    w_u64(&in, 4096 | 4);
    w_str8(&in, "pc.ram");
    w_u64(&in, 4096);
    w_zero(&in, "pc.ram", 0);
    expect_failure(&in, ERR_CORRUPT, "not allowed here");
}

static void a_wrong_footer_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_open(&in, two_blocks, 2);
    w_part(&in);
    w_u64(&in, 0x10);
    w_footer(&in, 7);
    expect_failure(&in, ERR_CORRUPT, "footer of section 2");
}

static void a_part_of_another_section_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_open(&in, two_blocks, 2);
    w_u8(&in, 2);
    w_u32(&in, 9);
    expect_failure(&in, ERR_CORRUPT, "section 9");
}

static void a_part_behind_the_end_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_open(&in, two_blocks, 2);
    w_end(&in);
    w_eos(&in);
    w_part(&in);
    expect_failure(&in, ERR_CORRUPT, "not open");
}

static void state_without_memory_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_header(&in);
    w_config(&in, "pc-test");
    w_state(&in);
    expect_failure(&in, ERR_CORRUPT, "before the section ram");
}

static void an_end_without_state_is_corrupt(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    w_open(&in, two_blocks, 2);
    w_end(&in);
    w_eos(&in);
    w_u8(&in, 0);
    expect_failure(&in, ERR_CORRUPT, "element 00");
}

static void postcopy_commands_are_unsupported(void **state)
{
    (void)state;
    for (unsigned command = 1; command <= 10; command++) {
        AUTO_BUF struct buf in = BUF_INIT;
        w_open(&in, two_blocks, 2);
        w_u8(&in, 8);
        w_u16(&in, command);
        w_u16(&in, 0);
        expect_failure(&in, ERR_UNSUPPORTED, "command");
    }
}

static void a_background_snapshot_has_no_end_section(void **state)
{
    (void)state;
    AUTO_BUF struct buf in = BUF_INIT;
    struct told told;
    struct err err = ERR_INIT;
    w_open(&in, two_blocks, 2);
    w_part(&in);
    w_zero(&in, "pc.ram", 0);
    w_eos(&in);
    w_state(&in);
    told_init(&told);
    assert_true(parse(&told, &in, in.length, &err));
    told_done(&told);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_whole_stream_is_the_same_however_it_is_cut),
        cmocka_unit_test(byte_by_byte_is_the_same_too),
        cmocka_unit_test(the_head_is_verbatim_up_to_the_first_part),
        cmocka_unit_test(a_stream_cut_off_anywhere_is_corrupt),
        cmocka_unit_test(no_damaged_byte_does_harm),
        cmocka_unit_test(no_magic_is_corrupt),
        cmocka_unit_test(version_2_is_corrupt),
        cmocka_unit_test(a_machine_name_too_long_is_corrupt),
        cmocka_unit_test(a_machine_name_with_a_control_character_is_corrupt),
        cmocka_unit_test(no_configuration_is_corrupt),
        cmocka_unit_test(memory_left_out_is_unsupported),
        cmocka_unit_test(an_unknown_subsection_is_corrupt),
        cmocka_unit_test(pages_of_another_size_are_unsupported),
        cmocka_unit_test(another_live_section_is_unsupported),
        cmocka_unit_test(two_blocks_of_one_name_are_corrupt),
        cmocka_unit_test(a_block_of_part_of_a_page_is_corrupt),
        cmocka_unit_test(a_block_larger_than_the_table_is_corrupt),
        cmocka_unit_test(an_empty_block_is_corrupt),
        cmocka_unit_test(a_block_without_a_name_is_corrupt),
        cmocka_unit_test(too_many_blocks_are_corrupt),
        cmocka_unit_test(a_table_of_nothing_is_corrupt),
        cmocka_unit_test(a_second_start_is_corrupt),
        cmocka_unit_test(a_page_behind_its_block_is_corrupt),
        cmocka_unit_test(a_page_of_an_unknown_block_is_corrupt),
        cmocka_unit_test(a_page_that_continues_nothing_is_corrupt),
        cmocka_unit_test(a_page_filled_with_ones_is_corrupt),
        cmocka_unit_test(records_of_other_kinds_are_refused),
        cmocka_unit_test(a_page_in_start_is_corrupt),
        cmocka_unit_test(a_wrong_footer_is_corrupt),
        cmocka_unit_test(a_part_of_another_section_is_corrupt),
        cmocka_unit_test(a_part_behind_the_end_is_corrupt),
        cmocka_unit_test(state_without_memory_is_corrupt),
        cmocka_unit_test(an_end_without_state_is_corrupt),
        cmocka_unit_test(postcopy_commands_are_unsupported),
        cmocka_unit_test(a_background_snapshot_has_no_end_section),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
