#include "nbd.h"

#include "bytes.h"

#include <errno.h>

uint32_t nbd_error_of_errno(int errnum)
{
    switch (errnum) {
    case 0:
        return NBD_OK;
    case EPERM:
    case EROFS:
        return NBD_EPERM;
    case ENOMEM:
        return NBD_ENOMEM;
    case EINVAL:
        return NBD_EINVAL;
    case ENOSPC:
    case EDQUOT:
    case EFBIG:
        return NBD_ENOSPC;
    default:
        return NBD_EIO;
    }
}

bool nbd_request_decode(const uint8_t bytes[static NBD_REQUEST_BYTES], struct nbd_request *ret_request)
{
    if (get_be32(bytes) != NBD_REQUEST_MAGIC)
        return false;
    *ret_request = (struct nbd_request){
        .flags = get_be16(bytes + 4),
        .type = get_be16(bytes + 6),
        .cookie = get_be64(bytes + 8),
        .offset = get_be64(bytes + 16),
        .length = get_be32(bytes + 24),
    };
    return true;
}

/* The flags that a command may carry; -1 for a command that is not known. */
static int flags_of_command(const struct nbd_request *request, const struct nbd_terms *terms)
{
    switch (request->type) {
    case NBD_CMD_READ:
        return terms->structured ? NBD_FLAG_DF | NBD_FLAG_FUA : NBD_FLAG_FUA;
    case NBD_CMD_WRITE:
    case NBD_CMD_TRIM:
        return NBD_FLAG_FUA;
    case NBD_CMD_WRITE_ZEROES:
        return NBD_FLAG_FUA | NBD_FLAG_NO_HOLE;
    case NBD_CMD_FLUSH:
        return NBD_FLAG_FUA;
    case NBD_CMD_BLOCK_STATUS:
        return terms->allocation_context ? NBD_FLAG_REQ_ONE : -1;
    default:
        return -1;
    }
}

static bool command_writes(uint16_t type)
{
    return type == NBD_CMD_WRITE || type == NBD_CMD_TRIM || type == NBD_CMD_WRITE_ZEROES;
}

static uint32_t range_check(const struct nbd_request *request, const struct nbd_terms *terms)
{
    bool moves_data = request->type == NBD_CMD_READ || request->type == NBD_CMD_WRITE;

    if (request->length == 0 || (moves_data && request->length > NBD_MAX_REQUEST_BYTES))
        return NBD_EINVAL;
    if (request->offset % NBD_MIN_BLOCK != 0 || request->length % NBD_MIN_BLOCK != 0)
        return NBD_EINVAL;
    if (request->offset > terms->size_bytes || request->length > terms->size_bytes - request->offset)
        return command_writes(request->type) ? NBD_ENOSPC : NBD_EINVAL;
    return NBD_OK;
}

uint32_t nbd_request_check(const struct nbd_request *request, const struct nbd_terms *terms)
{
    int allowed_flags = flags_of_command(request, terms);

    if (allowed_flags < 0 || (request->flags & ~allowed_flags) != 0)
        return NBD_EINVAL;
    if (command_writes(request->type) && terms->read_only)
        return NBD_EPERM;
    if (request->type == NBD_CMD_FLUSH)
        return request->offset == 0 && request->length == 0 ? NBD_OK : NBD_EINVAL;
    return range_check(request, terms);
}

uint16_t nbd_transmission_flags(bool read_only, bool structured)
{
    unsigned flags = NBD_HAS_FLAGS | NBD_SEND_FLUSH | NBD_SEND_FUA | NBD_CAN_MULTI_CONN;

    flags |= read_only ? NBD_READ_ONLY : NBD_SEND_TRIM | NBD_SEND_WRITE_ZEROES;
    if (structured)
        flags |= NBD_SEND_DF;
    return (uint16_t)flags;
}

size_t nbd_simple_encode(uint8_t *bytes, uint64_t cookie, uint32_t error)
{
    put_be32(bytes, NBD_SIMPLE_MAGIC);
    put_be32(bytes + 4, error);
    put_be64(bytes + 8, cookie);
    return NBD_SIMPLE_BYTES;
}

/* All our replies are of one chunk, so each is the last. */
size_t nbd_chunk_encode(uint8_t *bytes, enum nbd_chunk_type type, uint64_t cookie, uint32_t payload_length)
{
    put_be32(bytes, NBD_CHUNK_MAGIC);
    put_be16(bytes + 4, NBD_CHUNK_DONE);
    put_be16(bytes + 6, (uint16_t)type);
    put_be64(bytes + 8, cookie);
    put_be32(bytes + 16, payload_length);
    return NBD_CHUNK_BYTES;
}

size_t nbd_data_chunk_encode(uint8_t *bytes, uint64_t cookie, uint64_t offset, uint32_t data_length)
{
    nbd_chunk_encode(bytes, NBD_CHUNK_OFFSET_DATA, cookie, 8 + data_length);
    put_be64(bytes + NBD_CHUNK_BYTES, offset);
    return NBD_CHUNK_BYTES + 8;
}

size_t nbd_hole_chunk_encode(uint8_t *bytes, uint64_t cookie, uint64_t offset, uint32_t hole_length)
{
    nbd_chunk_encode(bytes, NBD_CHUNK_OFFSET_HOLE, cookie, 12);
    put_be64(bytes + NBD_CHUNK_BYTES, offset);
    put_be32(bytes + NBD_CHUNK_BYTES + 8, hole_length);
    return NBD_CHUNK_BYTES + 12;
}

size_t nbd_error_chunk_encode(uint8_t *bytes, uint64_t cookie, uint32_t error)
{
    nbd_chunk_encode(bytes, NBD_CHUNK_ERROR, cookie, 6);
    put_be32(bytes + NBD_CHUNK_BYTES, error);
    put_be16(bytes + NBD_CHUNK_BYTES + 4, 0); /* length of a message that we do not send */
    return NBD_CHUNK_BYTES + 6;
}

size_t nbd_status_chunk_encode(uint8_t *bytes, uint64_t cookie, size_t extent_count)
{
    nbd_chunk_encode(bytes, NBD_CHUNK_BLOCK_STATUS, cookie, (uint32_t)(4 + extent_count * NBD_EXTENT_BYTES));
    put_be32(bytes + NBD_CHUNK_BYTES, NBD_CONTEXT_ID);
    return NBD_CHUNK_BYTES + 4;
}

size_t nbd_extent_encode(uint8_t *bytes, const struct nbd_extent *extent)
{
    put_be32(bytes, extent->length);
    put_be32(bytes + 4, extent->flags);
    return NBD_EXTENT_BYTES;
}

bool nbd_option_decode(const uint8_t bytes[static NBD_OPTION_BYTES], struct nbd_option_header *ret_header)
{
    if (get_be64(bytes) != NBD_OPTION_MAGIC)
        return false;
    *ret_header = (struct nbd_option_header){.option = get_be32(bytes + 8), .length = get_be32(bytes + 12)};
    return true;
}

size_t nbd_option_reply_encode(uint8_t *bytes, uint32_t option, uint32_t type, uint32_t length)
{
    put_be64(bytes, NBD_OPTION_REPLY_MAGIC);
    put_be32(bytes + 8, option);
    put_be32(bytes + 12, type);
    put_be32(bytes + 16, length);
    return NBD_OPTION_REPLY_BYTES;
}

bool nbd_string_decode(const uint8_t *data, size_t length, size_t *position, const uint8_t **ret_string,
                       uint32_t *ret_length)
{
    if (length - *position < 4)
        return false;
    uint32_t string_length = get_be32(data + *position);
    if (length - *position - 4 < string_length)
        return false;
    *ret_string = data + *position + 4;
    *ret_length = string_length;
    *position += 4 + (size_t)string_length;
    return true;
}
