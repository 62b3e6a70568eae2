#include "nbd.h"

#include "bytes.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

static const struct nbd_terms TERMS = {.size_bytes = 1 << 20, .structured = true, .allocation_context = true};

static struct nbd_request request_of(uint16_t type, uint16_t flags, uint64_t offset, uint32_t length)
{
    return (struct nbd_request){.type = type, .flags = flags, .offset = offset, .length = length};
}

static uint32_t check(struct nbd_request request)
{
    return nbd_request_check(&request, &TERMS);
}

static void request_is_decoded_field_by_field(void **state)
{
    static const uint8_t BYTES[NBD_REQUEST_BYTES] = {0x25, 0x60, 0x95, 0x13, 0, 1, 0, 6, 1, 2,
                                                     3,    4,    5,    6,    7, 8, 0, 0, 1, 0x10,
                                                     0,    0,    0x20, 0x00, 0, 3, 0, 0};
    struct nbd_request request;

    (void)state;
    assert_true(nbd_request_decode(BYTES, &request));
    assert_int_equal(request.flags, 1);
    assert_int_equal(request.type, 6);
    assert_int_equal(request.cookie, 0x0102030405060708);
    assert_int_equal(request.offset, 0x0000011000002000);
    assert_int_equal(request.length, 0x30000);
}

static void request_with_a_wrong_magic_is_refused(void **state)
{
    uint8_t bytes[NBD_REQUEST_BYTES] = {0x25, 0x60, 0x95, 0x14};
    struct nbd_request request;

    (void)state;
    assert_false(nbd_request_decode(bytes, &request));
}

static void ranges_inside_the_disk_are_allowed(void **state)
{
    (void)state;
    assert_int_equal(check(request_of(NBD_CMD_READ, 0, 0, 1 << 20)), NBD_OK);
    assert_int_equal(check(request_of(NBD_CMD_WRITE, NBD_FLAG_FUA, (1 << 20) - 512, 512)), NBD_OK);
    assert_int_equal(check(request_of(NBD_CMD_TRIM, 0, 512, 1024)), NBD_OK);
    assert_int_equal(check(request_of(NBD_CMD_WRITE_ZEROES, NBD_FLAG_NO_HOLE, 0, 512)), NBD_OK);
    assert_int_equal(check(request_of(NBD_CMD_BLOCK_STATUS, NBD_FLAG_REQ_ONE, 0, 512)), NBD_OK);
    assert_int_equal(check(request_of(NBD_CMD_FLUSH, 0, 0, 0)), NBD_OK);
}

static void ranges_past_the_end_are_refused(void **state)
{
    (void)state;
    assert_int_equal(check(request_of(NBD_CMD_READ, 0, 1 << 20, 512)), NBD_EINVAL);
    assert_int_equal(check(request_of(NBD_CMD_WRITE, 0, (1 << 20) - 512, 1024)), NBD_ENOSPC);
    assert_int_equal(check(request_of(NBD_CMD_TRIM, 0, 0xFFFFFFFFFFFFFE00, 512)), NBD_ENOSPC);
    assert_int_equal(check(request_of(NBD_CMD_READ, 0, 0xFFFFFFFFFFFFFE00, 1024)), NBD_EINVAL);
    assert_int_equal(check(request_of(NBD_CMD_BLOCK_STATUS, 0, 0, 0xFFFFFE00)), NBD_EINVAL);
}

static void odd_empty_and_oversized_ranges_are_refused(void **state)
{
    static const struct nbd_terms BIG = {.size_bytes = 1ULL << 40};

    (void)state;
    assert_int_equal(check(request_of(NBD_CMD_READ, 0, 1, 512)), NBD_EINVAL);
    assert_int_equal(check(request_of(NBD_CMD_READ, 0, 0, 511)), NBD_EINVAL);
    assert_int_equal(check(request_of(NBD_CMD_WRITE, 0, 0, 0)), NBD_EINVAL);
    assert_int_equal(check(request_of(NBD_CMD_FLUSH, 0, 512, 0)), NBD_EINVAL);
    struct nbd_request large = request_of(NBD_CMD_READ, 0, 0, NBD_MAX_REQUEST_BYTES);
    assert_int_equal(nbd_request_check(&large, &BIG), NBD_OK);
    large.length += 512;
    assert_int_equal(nbd_request_check(&large, &BIG), NBD_EINVAL);
    large.type = NBD_CMD_TRIM; /* moves no data: only the disk's end limits it */
    assert_int_equal(nbd_request_check(&large, &BIG), NBD_OK);
}

static void unknown_commands_and_flags_are_refused(void **state)
{
    (void)state;
    assert_int_equal(check(request_of(5, 0, 0, 512)), NBD_EINVAL);
    assert_int_equal(check(request_of(0xFFFF, 0, 0, 512)), NBD_EINVAL);
    assert_int_equal(check(request_of(NBD_CMD_READ, NBD_FLAG_NO_HOLE, 0, 512)), NBD_EINVAL);
    assert_int_equal(check(request_of(NBD_CMD_WRITE_ZEROES, 16, 0, 512)), NBD_EINVAL); /* FAST_ZERO */
}

static void block_status_needs_its_context(void **state)
{
    struct nbd_terms terms = TERMS;
    struct nbd_request request = request_of(NBD_CMD_BLOCK_STATUS, 0, 0, 512);

    (void)state;
    terms.allocation_context = false;
    assert_int_equal(nbd_request_check(&request, &terms), NBD_EINVAL);
}

static void read_only_exports_refuse_what_writes(void **state)
{
    struct nbd_terms terms = TERMS;

    (void)state;
    terms.read_only = true;
    static const uint16_t WRITING[] = {NBD_CMD_WRITE, NBD_CMD_TRIM, NBD_CMD_WRITE_ZEROES};
    for (unsigned i = 0; i < 3; i++) {
        struct nbd_request request = request_of(WRITING[i], 0, 0, 512);
        assert_int_equal(nbd_request_check(&request, &terms), NBD_EPERM);
    }
    struct nbd_request reading = request_of(NBD_CMD_READ, 0, 0, 512);
    assert_int_equal(nbd_request_check(&reading, &terms), NBD_OK);
    struct nbd_request flushing = request_of(NBD_CMD_FLUSH, 0, 0, 0);
    assert_int_equal(nbd_request_check(&flushing, &terms), NBD_OK);
}

static void errno_keeps_its_meaning_and_never_says_shutdown(void **state)
{
    (void)state;
    assert_int_equal(nbd_error_of_errno(0), NBD_OK);
    assert_int_equal(nbd_error_of_errno(ENOSPC), NBD_ENOSPC);
    assert_int_equal(nbd_error_of_errno(EDQUOT), NBD_ENOSPC);
    assert_int_equal(nbd_error_of_errno(EIO), NBD_EIO);
    assert_int_equal(nbd_error_of_errno(ESHUTDOWN), NBD_EIO);
    assert_int_equal(nbd_error_of_errno(ECANCELED), NBD_EIO);
}

static void chunks_have_the_layout_of_the_protocol(void **state)
{
    uint8_t bytes[64];

    (void)state;
    assert_int_equal(nbd_data_chunk_encode(bytes, 0x1122334455667788, 0x10000, 4096), 28);
    assert_int_equal(get_be32(bytes), 0x668e33ef);
    assert_int_equal(get_be16(bytes + 4), 1);
    assert_int_equal(get_be16(bytes + 6), 1);
    assert_int_equal(get_be64(bytes + 8), 0x1122334455667788);
    assert_int_equal(get_be32(bytes + 16), 4104);
    assert_int_equal(get_be64(bytes + 20), 0x10000);
    assert_int_equal(nbd_hole_chunk_encode(bytes, 1, 512, 1024), 32);
    assert_int_equal(get_be16(bytes + 6), 2);
    assert_int_equal(get_be32(bytes + 16), 12);
    assert_int_equal(get_be32(bytes + 28), 1024);
    assert_int_equal(nbd_error_chunk_encode(bytes, 1, NBD_EIO), 26);
    assert_int_equal(get_be16(bytes + 6), 32769);
    assert_int_equal(get_be32(bytes + 16), 6);
    assert_int_equal(get_be32(bytes + 20), 5);
    assert_int_equal(nbd_status_chunk_encode(bytes, 1, 3), 24);
    assert_int_equal(get_be32(bytes + 16), 28);
    assert_int_equal(get_be32(bytes + 20), NBD_CONTEXT_ID);
}

static void counted_string_must_fit(void **state)
{
    static const uint8_t DATA[] = {0, 0, 0, 2, 'a', 'b', 0xFF, 0xFF, 0xFF, 0xFF};
    const uint8_t *string = NULL;
    uint32_t length = 0;
    size_t position = 0;

    (void)state;
    assert_true(nbd_string_decode(DATA, sizeof DATA, &position, &string, &length));
    assert_int_equal(length, 2);
    assert_ptr_equal(string, DATA + 4);
    assert_int_equal(position, 6);
    assert_false(nbd_string_decode(DATA, sizeof DATA, &position, &string, &length));
    assert_int_equal(position, 6);
    position = 8;
    assert_false(nbd_string_decode(DATA, sizeof DATA, &position, &string, &length));
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(request_is_decoded_field_by_field),
        cmocka_unit_test(request_with_a_wrong_magic_is_refused),
        cmocka_unit_test(ranges_inside_the_disk_are_allowed),
        cmocka_unit_test(ranges_past_the_end_are_refused),
        cmocka_unit_test(odd_empty_and_oversized_ranges_are_refused),
        cmocka_unit_test(unknown_commands_and_flags_are_refused),
        cmocka_unit_test(block_status_needs_its_context),
        cmocka_unit_test(read_only_exports_refuse_what_writes),
        cmocka_unit_test(errno_keeps_its_meaning_and_never_says_shutdown),
        cmocka_unit_test(chunks_have_the_layout_of_the_protocol),
        cmocka_unit_test(counted_string_must_fit),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
