#include "nbd_handshake.h"

#include "bytes.h"

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

static const struct nbd_export EXPORT = {.name = "disk0", .size_bytes = 1 << 20};

struct session {
    struct nbd_handshake handshake;
    struct buf out;
    size_t seen; /* of out */
};

static void session_begin(struct session *session, const struct nbd_export *export, uint32_t client_flags)
{
    uint8_t flags[4];
    size_t used;

    *session = (struct session){0};
    assert_true(nbd_handshake_init(&session->handshake, export, &session->out));
    assert_int_equal(session->out.length, 18);
    session->seen = 18;
    put_be32(flags, client_flags);
    assert_int_equal(nbd_handshake_feed(&session->handshake, flags, 4, &used, &session->out), NBD_MORE);
    assert_int_equal(used, 4);
}

static void session_done(struct session *session)
{
    nbd_handshake_done(&session->handshake);
    buf_done(&session->out);
}
#define AUTO_SESSION __attribute__((cleanup(session_done)))

static enum nbd_step option_send(struct session *session, uint32_t option, const void *data, uint32_t length)
{
    AUTO_BUF struct buf message = BUF_INIT;
    uint8_t header[16];
    size_t used;

    put_be64(header, NBD_OPTION_MAGIC);
    put_be32(header + 8, option);
    put_be32(header + 12, length);
    assert_true(buf_append(&message, header, sizeof header));
    assert_true(length == 0 || buf_append(&message, data, length));
    enum nbd_step step =
        nbd_handshake_feed(&session->handshake, message.data, message.length, &used, &session->out);
    assert_int_equal(used, message.length);
    return step;
}

/* The next reply: its type and data. */
static uint32_t reply_next(struct session *session, uint32_t option, const uint8_t **ret_data,
                           uint32_t *ret_length)
{
    const uint8_t *bytes = session->out.data + session->seen;

    assert_true(session->out.length - session->seen >= 20);
    assert_true(get_be64(bytes) == NBD_OPTION_REPLY_MAGIC);
    assert_int_equal(get_be32(bytes + 8), option);
    uint32_t length = get_be32(bytes + 16);
    assert_true(session->out.length - session->seen - 20 >= length);
    session->seen += 20 + length;
    if (ret_data)
        *ret_data = bytes + 20;
    if (ret_length)
        *ret_length = length;
    return get_be32(bytes + 12);
}

static uint32_t reply_type(struct session *session, uint32_t option)
{
    return reply_next(session, option, NULL, NULL);
}

static void assert_all_seen(const struct session *session)
{
    assert_int_equal(session->seen, session->out.length);
}

#define SEND(session, option, text) option_send(session, option, text, sizeof(text) - 1)
#define GO_DISK0                    "\0\0\0\5disk0\0\0"
#define CONTEXT_DISK0               "\0\0\0\5disk0\0\0\0\1\0\0\0\17base:allocation"

static void go_tells_size_flags_and_block_sizes(void **state)
{
    AUTO_SESSION struct session session;
    const uint8_t *data;
    uint32_t length;

    (void)state;
    session_begin(&session, &EXPORT, 3);
    assert_int_equal(SEND(&session, NBD_OPT_GO, GO_DISK0), NBD_TRANSMIT);
    assert_int_equal(reply_next(&session, NBD_OPT_GO, &data, &length), NBD_REP_INFO);
    assert_int_equal(length, 12);
    assert_int_equal(get_be16(data), NBD_INFO_EXPORT);
    assert_int_equal(get_be64(data + 2), 1 << 20);
    assert_int_equal(get_be16(data + 10), 1 | 4 | 8 | 32 | 64 | 256);
    assert_int_equal(reply_next(&session, NBD_OPT_GO, &data, &length), NBD_REP_INFO);
    assert_int_equal(length, 14);
    assert_int_equal(get_be16(data), NBD_INFO_BLOCK_SIZE);
    assert_int_equal(get_be32(data + 2), 512);
    assert_int_equal(get_be32(data + 6), 4096);
    assert_int_equal(get_be32(data + 10), 32 << 20);
    assert_int_equal(reply_type(&session, NBD_OPT_GO), NBD_REP_ACK);
    assert_all_seen(&session);
    assert_false(session.handshake.allocation_context);
}

static void info_leaves_the_handshake_going(void **state)
{
    AUTO_SESSION struct session session;

    (void)state;
    session_begin(&session, &EXPORT, 3);
    assert_int_equal(SEND(&session, NBD_OPT_INFO, GO_DISK0), NBD_MORE);
    assert_int_equal(SEND(&session, NBD_OPT_GO, GO_DISK0), NBD_TRANSMIT);
}

static void name_is_told_when_asked_for(void **state)
{
    AUTO_SESSION struct session session;
    const uint8_t *data;
    uint32_t length;

    (void)state;
    session_begin(&session, &EXPORT, 3);
    assert_int_equal(SEND(&session, NBD_OPT_INFO, "\0\0\0\0\0\2\0\1\0\1"), NBD_MORE);
    reply_type(&session, NBD_OPT_INFO);
    reply_type(&session, NBD_OPT_INFO);
    assert_int_equal(reply_next(&session, NBD_OPT_INFO, &data, &length), NBD_REP_INFO);
    assert_int_equal(length, 7);
    assert_memory_equal(data, "\0\1disk0", 7);
    assert_int_equal(reply_type(&session, NBD_OPT_INFO), NBD_REP_ACK);
    assert_all_seen(&session);
}

static void unknown_name_is_told_so_and_the_handshake_goes_on(void **state)
{
    AUTO_SESSION struct session session;

    (void)state;
    session_begin(&session, &EXPORT, 3);
    assert_int_equal(SEND(&session, NBD_OPT_GO, "\0\0\0\5disk1\0\0"), NBD_MORE);
    assert_int_equal(reply_type(&session, NBD_OPT_GO), NBD_REP_ERR_UNKNOWN);
    assert_int_equal(SEND(&session, NBD_OPT_GO, "\0\0\0\6disk00\0\0"), NBD_MORE);
    assert_int_equal(reply_type(&session, NBD_OPT_GO), NBD_REP_ERR_UNKNOWN);
    assert_int_equal(SEND(&session, NBD_OPT_GO, GO_DISK0), NBD_TRANSMIT);
}

static void export_without_a_name_serves_any(void **state)
{
    static const struct nbd_export ANY = {.name = "", .size_bytes = 512};
    AUTO_SESSION struct session session;

    (void)state;
    session_begin(&session, &ANY, 3);
    assert_int_equal(SEND(&session, NBD_OPT_GO, "\0\0\0\5disk1\0\0"), NBD_TRANSMIT);
}

static void export_name_option_answers_without_a_header(void **state)
{
    AUTO_SESSION struct session with_zeroes, without;

    (void)state;
    session_begin(&with_zeroes, &EXPORT, 1);
    assert_int_equal(SEND(&with_zeroes, NBD_OPT_EXPORT_NAME, "disk0"), NBD_TRANSMIT);
    assert_int_equal(with_zeroes.out.length - with_zeroes.seen, 134);
    session_begin(&without, &EXPORT, 3);
    assert_int_equal(SEND(&without, NBD_OPT_EXPORT_NAME, "disk0"), NBD_TRANSMIT);
    assert_int_equal(without.out.length - without.seen, 10);
    assert_int_equal(get_be64(without.out.data + without.seen), 1 << 20);
}

static void export_name_option_with_an_unknown_name_closes(void **state)
{
    AUTO_SESSION struct session session;

    (void)state;
    session_begin(&session, &EXPORT, 3);
    assert_int_equal(SEND(&session, NBD_OPT_EXPORT_NAME, "disk1"), NBD_CLOSE);
    assert_all_seen(&session);
}

static void list_names_the_export(void **state)
{
    AUTO_SESSION struct session session;
    const uint8_t *data;
    uint32_t length;

    (void)state;
    session_begin(&session, &EXPORT, 3);
    assert_int_equal(SEND(&session, NBD_OPT_LIST, ""), NBD_MORE);
    assert_int_equal(reply_next(&session, NBD_OPT_LIST, &data, &length), NBD_REP_SERVER);
    assert_int_equal(length, 9);
    assert_memory_equal(data, "\0\0\0\5disk0", 9);
    assert_int_equal(reply_type(&session, NBD_OPT_LIST), NBD_REP_ACK);
    assert_int_equal(SEND(&session, NBD_OPT_LIST, "x"), NBD_MORE);
    assert_int_equal(reply_type(&session, NBD_OPT_LIST), NBD_REP_ERR_INVALID);
}

static void abort_is_acknowledged_and_closes(void **state)
{
    AUTO_SESSION struct session session;

    (void)state;
    session_begin(&session, &EXPORT, 3);
    assert_int_equal(SEND(&session, NBD_OPT_ABORT, ""), NBD_CLOSE);
    assert_int_equal(reply_type(&session, NBD_OPT_ABORT), NBD_REP_ACK);
}

static void other_options_are_unsupported(void **state)
{
    static const uint32_t OTHERS[] = {0, 4, 5, 11, 0xFFFFFFFF};
    AUTO_SESSION struct session session;

    (void)state;
    session_begin(&session, &EXPORT, 3);
    for (size_t i = 0; i < 5; i++) {
        assert_int_equal(SEND(&session, OTHERS[i], "data"), NBD_MORE);
        assert_int_equal(reply_type(&session, OTHERS[i]), NBD_REP_ERR_UNSUP);
    }
}

static void allocation_context_is_agreed_on(void **state)
{
    AUTO_SESSION struct session session;
    const uint8_t *data;
    uint32_t length;

    (void)state;
    session_begin(&session, &EXPORT, 3);
    assert_int_equal(SEND(&session, NBD_OPT_STRUCTURED_REPLY, ""), NBD_MORE);
    assert_int_equal(reply_type(&session, NBD_OPT_STRUCTURED_REPLY), NBD_REP_ACK);
    assert_int_equal(SEND(&session, NBD_OPT_SET_META_CONTEXT, CONTEXT_DISK0), NBD_MORE);
    assert_int_equal(reply_next(&session, NBD_OPT_SET_META_CONTEXT, &data, &length), NBD_REP_META_CONTEXT);
    assert_int_equal(length, 19);
    assert_int_equal(get_be32(data), NBD_CONTEXT_ID);
    assert_memory_equal(data + 4, "base:allocation", 15);
    assert_int_equal(reply_type(&session, NBD_OPT_SET_META_CONTEXT), NBD_REP_ACK);
    assert_int_equal(SEND(&session, NBD_OPT_GO, GO_DISK0), NBD_TRANSMIT);
    assert_true(session.handshake.allocation_context);
    assert_true(session.handshake.structured);
}

static void context_under_another_name_does_not_count(void **state)
{
    AUTO_SESSION struct session session;

    (void)state;
    session_begin(&session, &EXPORT, 3);
    assert_int_equal(SEND(&session, NBD_OPT_STRUCTURED_REPLY, ""), NBD_MORE);
    assert_int_equal(SEND(&session, NBD_OPT_SET_META_CONTEXT, CONTEXT_DISK0), NBD_MORE);
    assert_int_equal(SEND(&session, NBD_OPT_GO, "\0\0\0\0\0\0"), NBD_TRANSMIT);
    assert_false(session.handshake.allocation_context);
}

static void failed_set_forgets_the_context(void **state)
{
    AUTO_SESSION struct session session;

    (void)state;
    session_begin(&session, &EXPORT, 3);
    assert_int_equal(SEND(&session, NBD_OPT_STRUCTURED_REPLY, ""), NBD_MORE);
    assert_int_equal(SEND(&session, NBD_OPT_SET_META_CONTEXT, CONTEXT_DISK0), NBD_MORE);
    assert_int_equal(SEND(&session, NBD_OPT_SET_META_CONTEXT, "\0\0\0\5disk0\0\0\0\1"), NBD_MORE);
    assert_int_equal(SEND(&session, NBD_OPT_GO, GO_DISK0), NBD_TRANSMIT);
    assert_false(session.handshake.allocation_context);
}

static void contexts_need_structured_replies(void **state)
{
    AUTO_SESSION struct session session;

    (void)state;
    session_begin(&session, &EXPORT, 3);
    assert_int_equal(SEND(&session, NBD_OPT_SET_META_CONTEXT, CONTEXT_DISK0), NBD_MORE);
    assert_int_equal(reply_type(&session, NBD_OPT_SET_META_CONTEXT), NBD_REP_ERR_INVALID);
}

static void contexts_are_listed(void **state)
{
    static const struct {
        const char *data;
        uint32_t length;
        bool found;
    } QUERIES[] = {
        {"\0\0\0\0\0\0\0\0", 8, true},
        {"\0\0\0\0\0\0\0\1\0\0\0\5base:", 17, true},
        {"\0\0\0\0\0\0\0\1\0\0\0\4qemu", 16, false},
        {"\0\0\0\0\0\0\0\2\0\0\0\4qemu\0\0\0\17base:allocation", 35, true},
    };
    AUTO_SESSION struct session session;

    (void)state;
    session_begin(&session, &EXPORT, 3);
    assert_int_equal(SEND(&session, NBD_OPT_STRUCTURED_REPLY, ""), NBD_MORE);
    reply_type(&session, NBD_OPT_STRUCTURED_REPLY);
    for (size_t i = 0; i < 4; i++) {
        assert_int_equal(option_send(&session, NBD_OPT_LIST_META_CONTEXT, QUERIES[i].data, QUERIES[i].length),
                         NBD_MORE);
        if (QUERIES[i].found)
            assert_int_equal(reply_type(&session, NBD_OPT_LIST_META_CONTEXT), NBD_REP_META_CONTEXT);
        assert_int_equal(reply_type(&session, NBD_OPT_LIST_META_CONTEXT), NBD_REP_ACK);
    }
    assert_all_seen(&session);
}

static void malformed_option_data_are_invalid(void **state)
{
    static const struct {
        uint32_t option;
        const char *data;
        uint32_t length;
    } BAD[] = {
        {NBD_OPT_GO, "", 0},
        {NBD_OPT_GO, "\0\0\0\5dis", 7},
        {NBD_OPT_GO, "\xFF\xFF\xFF\xFF\0\0", 6},
        {NBD_OPT_GO, "\0\0\0\5disk0\0", 10},
        {NBD_OPT_GO, "\0\0\0\5disk0\0\1", 11},
        {NBD_OPT_GO, "\0\0\0\5disk0\0\0\0", 12},
        {NBD_OPT_GO, "\0\0\0\5disk0\xFF\xFF\0\3", 13},
        {NBD_OPT_STRUCTURED_REPLY, "x", 1},
        {NBD_OPT_SET_META_CONTEXT, "\0\0\0\0\xFF\xFF\xFF\xFF", 8},
        {NBD_OPT_LIST_META_CONTEXT, "\0\0\0\0\0\0\0\0x", 9},
        {NBD_OPT_LIST_META_CONTEXT, "\0\0\0\0\0\0\0\1\0\0\0\5bas", 15},
    };
    AUTO_SESSION struct session session;

    (void)state;
    session_begin(&session, &EXPORT, 3);
    assert_int_equal(SEND(&session, NBD_OPT_STRUCTURED_REPLY, ""), NBD_MORE);
    reply_type(&session, NBD_OPT_STRUCTURED_REPLY);
    for (size_t i = 0; i < sizeof BAD / sizeof BAD[0]; i++) {
        assert_int_equal(option_send(&session, BAD[i].option, BAD[i].data, BAD[i].length), NBD_MORE);
        assert_int_equal(reply_type(&session, BAD[i].option), NBD_REP_ERR_INVALID);
    }
    assert_all_seen(&session);
}

static void oversized_option_is_answered_and_closes(void **state)
{
    AUTO_SESSION struct session session;
    uint8_t header[16];
    size_t used;

    (void)state;
    session_begin(&session, &EXPORT, 3);
    put_be64(header, NBD_OPTION_MAGIC);
    put_be32(header + 8, NBD_OPT_GO);
    put_be32(header + 12, NBD_MAX_OPTION_DATA + 1);
    assert_int_equal(nbd_handshake_feed(&session.handshake, header, 16, &used, &session.out), NBD_CLOSE);
    assert_int_equal(reply_type(&session, NBD_OPT_GO), NBD_REP_ERR_TOO_BIG);
}

static void broken_magic_and_unknown_flags_close(void **state)
{
    AUTO_SESSION struct session session;
    struct nbd_handshake other;
    uint8_t bytes[16] = {0};
    size_t used;

    (void)state;
    session_begin(&session, &EXPORT, 3);
    assert_int_equal(nbd_handshake_feed(&session.handshake, bytes, 16, &used, &session.out), NBD_CLOSE);
    assert_true(nbd_handshake_init(&other, &EXPORT, &session.out));
    put_be32(bytes, 7);
    assert_int_equal(nbd_handshake_feed(&other, bytes, 4, &used, &session.out), NBD_CLOSE);
    nbd_handshake_done(&other);
}

static void every_cut_of_a_message_asks_for_more(void **state)
{
    static const uint8_t MESSAGE[] = "IHAVEOPT\0\0\0\7\0\0\0\13" GO_DISK0;
    AUTO_SESSION struct session session;
    size_t used;

    (void)state;
    session_begin(&session, &EXPORT, 3);
    for (size_t length = 0; length < sizeof MESSAGE - 1; length++) {
        assert_int_equal(nbd_handshake_feed(&session.handshake, MESSAGE, length, &used, &session.out),
                         NBD_MORE);
        assert_int_equal(used, 0);
        assert_all_seen(&session);
    }
    assert_int_equal(nbd_handshake_feed(&session.handshake, MESSAGE, sizeof MESSAGE - 1, &used, &session.out),
                     NBD_TRANSMIT);
    assert_int_equal(used, sizeof MESSAGE - 1);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(go_tells_size_flags_and_block_sizes),
        cmocka_unit_test(info_leaves_the_handshake_going),
        cmocka_unit_test(name_is_told_when_asked_for),
        cmocka_unit_test(unknown_name_is_told_so_and_the_handshake_goes_on),
        cmocka_unit_test(export_without_a_name_serves_any),
        cmocka_unit_test(export_name_option_answers_without_a_header),
        cmocka_unit_test(export_name_option_with_an_unknown_name_closes),
        cmocka_unit_test(list_names_the_export),
        cmocka_unit_test(abort_is_acknowledged_and_closes),
        cmocka_unit_test(other_options_are_unsupported),
        cmocka_unit_test(allocation_context_is_agreed_on),
        cmocka_unit_test(context_under_another_name_does_not_count),
        cmocka_unit_test(failed_set_forgets_the_context),
        cmocka_unit_test(contexts_need_structured_replies),
        cmocka_unit_test(contexts_are_listed),
        cmocka_unit_test(malformed_option_data_are_invalid),
        cmocka_unit_test(oversized_option_is_answered_and_closes),
        cmocka_unit_test(broken_magic_and_unknown_flags_close),
        cmocka_unit_test(every_cut_of_a_message_asks_for_more),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
