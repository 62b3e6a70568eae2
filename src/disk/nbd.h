/* The NBD protocol: numbers and byte layouts, as pure functions. Source: "The NBD protocol",
 * doc/proto.md of the reference implementation. All integers are big-endian.
 *
 *   greeting   server  0 NBDMAGIC  8 IHAVEOPT  16 u16 handshake flags
 *              client  0 u32 client flags
 *   option     client  0 IHAVEOPT  8 u32 option  12 u32 length  16 data
 *   reply      server  0 OPTION_REPLY_MAGIC  8 u32 option  12 u32 type  16 u32 length  20 data
 *   request    client  0 u32 magic  4 u16 flags  6 u16 type  8 u64 cookie  16 u64 offset  24 u32 length  28
 * data simple     server  0 u32 magic  4 u32 error  8 u64 cookie  16 data chunk      server  0 u32 magic  4
 * u16 flags  6 u16 type  8 u64 cookie  16 u32 length  20 payload */
#pragma once

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

#define NBD_MAGIC              0x4e42444d41474943ULL /* "NBDMAGIC" */
#define NBD_OPTION_MAGIC       0x49484156454f5054ULL /* "IHAVEOPT" */
#define NBD_OPTION_REPLY_MAGIC 0x0003e889045565a9ULL
#define NBD_REQUEST_MAGIC      0x25609513U
#define NBD_SIMPLE_MAGIC       0x67446698U
#define NBD_CHUNK_MAGIC        0x668e33efU

#define NBD_MAX_REQUEST_BYTES (32U << 20)
#define NBD_MIN_BLOCK         512U
#define NBD_PREFERRED_BLOCK   4096U
#define NBD_MAX_NAME          4096U

enum nbd_handshake_flag { NBD_FIXED_NEWSTYLE = 1, NBD_NO_ZEROES = 2 };

enum nbd_option {
    NBD_OPT_EXPORT_NAME = 1,
    NBD_OPT_ABORT = 2,
    NBD_OPT_LIST = 3,
    NBD_OPT_INFO = 6,
    NBD_OPT_GO = 7,
    NBD_OPT_STRUCTURED_REPLY = 8,
    NBD_OPT_LIST_META_CONTEXT = 9,
    NBD_OPT_SET_META_CONTEXT = 10,
};

enum nbd_option_reply {
    NBD_REP_ACK = 1,
    NBD_REP_SERVER = 2,
    NBD_REP_INFO = 3,
    NBD_REP_META_CONTEXT = 4,
};
#define NBD_REP_ERR_UNSUP   0x80000001U
#define NBD_REP_ERR_INVALID 0x80000003U
#define NBD_REP_ERR_UNKNOWN 0x80000006U
#define NBD_REP_ERR_TOO_BIG 0x80000009U

enum nbd_info { NBD_INFO_EXPORT = 0, NBD_INFO_NAME = 1, NBD_INFO_BLOCK_SIZE = 3 };

enum nbd_transmission_flag {
    NBD_HAS_FLAGS = 1 << 0,
    NBD_READ_ONLY = 1 << 1,
    NBD_SEND_FLUSH = 1 << 2,
    NBD_SEND_FUA = 1 << 3,
    NBD_SEND_TRIM = 1 << 5,
    NBD_SEND_WRITE_ZEROES = 1 << 6,
    NBD_SEND_DF = 1 << 7,
    NBD_CAN_MULTI_CONN = 1 << 8,
};

enum nbd_command {
    NBD_CMD_READ = 0,
    NBD_CMD_WRITE = 1,
    NBD_CMD_DISC = 2,
    NBD_CMD_FLUSH = 3,
    NBD_CMD_TRIM = 4,
    NBD_CMD_WRITE_ZEROES = 6,
    NBD_CMD_BLOCK_STATUS = 7,
};

enum nbd_command_flag { NBD_FLAG_FUA = 1, NBD_FLAG_NO_HOLE = 2, NBD_FLAG_DF = 4, NBD_FLAG_REQ_ONE = 8 };

enum nbd_chunk_type {
    NBD_CHUNK_NONE = 0,
    NBD_CHUNK_OFFSET_DATA = 1,
    NBD_CHUNK_OFFSET_HOLE = 2,
    NBD_CHUNK_BLOCK_STATUS = 5,
    NBD_CHUNK_ERROR = 32769,
};
#define NBD_CHUNK_DONE 1U /* the flag of a reply's last chunk */

enum nbd_state_flag { NBD_STATE_HOLE = 1, NBD_STATE_ZERO = 2 };

#define NBD_CONTEXT_NAME "base:allocation"
#define NBD_CONTEXT_ID   1U

enum nbd_error {
    NBD_OK = 0,
    NBD_EPERM = 1,
    NBD_EIO = 5,
    NBD_ENOMEM = 12,
    NBD_EINVAL = 22,
    NBD_ENOSPC = 28,
    NBD_ENOTSUP = 95,
};

/* What the protocol can say of an errno. Never ESHUTDOWN, which QEMU passes to its guest as an I/O error. */
uint32_t nbd_error_of_errno(int errnum);

#define NBD_REQUEST_BYTES 28U
struct nbd_request {
    uint16_t flags, type;
    uint64_t cookie, offset;
    uint32_t length;
};
/* False: the magic is wrong, and with it everything that follows. */
bool nbd_request_decode(const uint8_t bytes[static NBD_REQUEST_BYTES], struct nbd_request *ret_request);

/* What the export is and what was agreed on, as far as it matters for judging a request. */
struct nbd_terms {
    uint64_t size_bytes;
    bool read_only, structured, allocation_context;
};
/* May the request be carried out? If not, the error to answer. */
uint32_t nbd_request_check(const struct nbd_request *request, const struct nbd_terms *terms);
uint16_t nbd_transmission_flags(bool read_only, bool structured);

/* Encoders return the number of bytes written. */
#define NBD_SIMPLE_BYTES 16U
#define NBD_CHUNK_BYTES  20U
size_t nbd_simple_encode(uint8_t *bytes, uint64_t cookie, uint32_t error);
size_t nbd_chunk_encode(uint8_t *bytes, enum nbd_chunk_type type, uint64_t cookie, uint32_t payload_length);
/* Header and offset; the data follow. */
size_t nbd_data_chunk_encode(uint8_t *bytes, uint64_t cookie, uint64_t offset, uint32_t data_length);
size_t nbd_hole_chunk_encode(uint8_t *bytes, uint64_t cookie, uint64_t offset, uint32_t hole_length);
size_t nbd_error_chunk_encode(uint8_t *bytes, uint64_t cookie, uint32_t error);

struct nbd_extent {
    uint32_t length, flags;
};
#define NBD_EXTENT_BYTES 8U
/* Header and context id; extent_count extents follow. */
size_t nbd_status_chunk_encode(uint8_t *bytes, uint64_t cookie, size_t extent_count);
size_t nbd_extent_encode(uint8_t *bytes, const struct nbd_extent *extent);

#define NBD_OPTION_BYTES 16U
struct nbd_option_header {
    uint32_t option, length;
};
bool nbd_option_decode(const uint8_t bytes[static NBD_OPTION_BYTES], struct nbd_option_header *ret_header);
#define NBD_OPTION_REPLY_BYTES 20U
size_t nbd_option_reply_encode(uint8_t *bytes, uint32_t option, uint32_t type, uint32_t length);

/* A counted string inside option data: u32 length, bytes. Moves *position behind it; false if it does not
 * fit. */
bool nbd_string_decode(const uint8_t *data, size_t length, size_t *position, const uint8_t **ret_string,
                       uint32_t *ret_length);
