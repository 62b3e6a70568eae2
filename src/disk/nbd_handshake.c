#include "nbd_handshake.h"

#include "bytes.h"

#include <stdlib.h>
#include <string.h>

/* An option as it came: the data are not to be trusted. */
struct option {
    struct nbd_handshake *handshake;
    uint32_t number;
    const uint8_t *data;
    size_t length;
    struct buf *out;
};

static bool reply(const struct option *option, uint32_t type, const void *data, size_t length)
{
    uint8_t header[NBD_OPTION_REPLY_BYTES];
    size_t header_length = nbd_option_reply_encode(header, option->number, type, (uint32_t)length);

    return buf_append(option->out, header, header_length) &&
           (length == 0 || buf_append(option->out, data, length));
}

static enum nbd_step more_if(bool ok)
{
    return ok ? NBD_MORE : NBD_CLOSE;
}

static enum nbd_step reply_error(const struct option *option, uint32_t error)
{
    return more_if(reply(option, error, NULL, 0));
}

/* The empty name is the default export's, which ours is. */
static bool name_is_ours(const struct nbd_export *export, const uint8_t *name, size_t length)
{
    if (length == 0 || export->name[0] == '\0')
        return true;
    return length == strlen(export->name) && memcmp(name, export->name, length) == 0;
}

/* Was base:allocation asked for under the very name that is opened now? */
static bool context_is_agreed(const struct nbd_handshake *handshake, const uint8_t *name, size_t length)
{
    const char *asked = handshake->context_export;

    return handshake->structured && asked && strlen(asked) == length && memcmp(asked, name, length) == 0;
}

static enum nbd_step option_export_name(const struct option *option)
{
    struct nbd_handshake *handshake = option->handshake;
    const struct nbd_export *export = handshake->export;
    uint8_t answer[10 + 124] = {0};

    if (option->length > NBD_MAX_NAME || !name_is_ours(export, option->data, option->length))
        return NBD_CLOSE; /* this option has no error reply */
    put_be64(answer, export->size_bytes);
    put_be16(answer + 8, nbd_transmission_flags(export->read_only, handshake->structured));
    if (!buf_append(option->out, answer, handshake->no_zeroes ? 10 : sizeof answer))
        return NBD_CLOSE;
    handshake->allocation_context = context_is_agreed(handshake, option->data, option->length);
    return NBD_TRANSMIT;
}

static enum nbd_step option_list(const struct option *option)
{
    const char *name = option->handshake->export->name;
    AUTO_BUF struct buf data = BUF_INIT;
    uint8_t length[4];

    if (option->length != 0)
        return reply_error(option, NBD_REP_ERR_INVALID);
    put_be32(length, (uint32_t)strlen(name));
    bool ok = buf_append(&data, length, sizeof length) && buf_append(&data, name, strlen(name));
    ok = ok && reply(option, NBD_REP_SERVER, data.data, data.length);
    return more_if(ok && reply(option, NBD_REP_ACK, NULL, 0));
}

static bool reply_info_export(const struct option *option)
{
    const struct nbd_export *export = option->handshake->export;
    uint8_t info[12];

    put_be16(info, NBD_INFO_EXPORT);
    put_be64(info + 2, export->size_bytes);
    put_be16(info + 10, nbd_transmission_flags(export->read_only, option->handshake->structured));
    return reply(option, NBD_REP_INFO, info, sizeof info);
}

static bool reply_info_block_size(const struct option *option)
{
    uint8_t info[14];

    put_be16(info, NBD_INFO_BLOCK_SIZE);
    put_be32(info + 2, NBD_MIN_BLOCK);
    put_be32(info + 6, NBD_PREFERRED_BLOCK);
    put_be32(info + 10, NBD_MAX_REQUEST_BYTES);
    return reply(option, NBD_REP_INFO, info, sizeof info);
}

static bool reply_info_name(const struct option *option)
{
    const char *name = option->handshake->export->name;
    AUTO_BUF struct buf info = BUF_INIT;
    uint8_t kind[2];

    put_be16(kind, NBD_INFO_NAME);
    return buf_append(&info, kind, sizeof kind) && buf_append(&info, name, strlen(name)) &&
           reply(option, NBD_REP_INFO, info.data, info.length);
}

/* INFO and GO: u32 name length, name, u16 count, count times u16 kind. The block size is told always: QEMU
 * asks, and others may learn it. A kind is answered once, however often it is asked for. */
static enum nbd_step option_info(const struct option *option)
{
    struct nbd_handshake *handshake = option->handshake;
    const uint8_t *name;
    uint32_t name_length;
    size_t position = 0;
    bool wants_name = false;

    if (!nbd_string_decode(option->data, option->length, &position, &name, &name_length) ||
        name_length > NBD_MAX_NAME || option->length - position < 2)
        return reply_error(option, NBD_REP_ERR_INVALID);
    size_t count = get_be16(option->data + position);
    position += 2;
    if (option->length - position != count * 2)
        return reply_error(option, NBD_REP_ERR_INVALID);
    if (!name_is_ours(handshake->export, name, name_length))
        return reply_error(option, NBD_REP_ERR_UNKNOWN);
    for (size_t i = 0; i < count; i++)
        wants_name |= get_be16(option->data + position + i * 2) == NBD_INFO_NAME;
    bool ok = reply_info_export(option) && reply_info_block_size(option);
    ok = ok && (!wants_name || reply_info_name(option));
    ok = ok && reply(option, NBD_REP_ACK, NULL, 0);
    if (!ok || option->number == NBD_OPT_INFO)
        return more_if(ok);
    handshake->allocation_context = context_is_agreed(handshake, name, name_length);
    return NBD_TRANSMIT;
}

static enum nbd_step option_structured(const struct option *option)
{
    if (option->length != 0)
        return reply_error(option, NBD_REP_ERR_INVALID);
    option->handshake->structured = true;
    return reply_error(option, NBD_REP_ACK);
}

static bool reply_context(const struct option *option)
{
    uint8_t data[4 + sizeof NBD_CONTEXT_NAME - 1];

    put_be32(data, option->number == NBD_OPT_SET_META_CONTEXT ? NBD_CONTEXT_ID : 0);
    memcpy(data + 4, NBD_CONTEXT_NAME, sizeof NBD_CONTEXT_NAME - 1);
    return reply(option, NBD_REP_META_CONTEXT, data, sizeof data);
}

/* A query names our context; in a list also by its namespace alone. */
static bool query_matches(const struct option *option, const uint8_t *query, size_t length)
{
    if (length == sizeof NBD_CONTEXT_NAME - 1 && memcmp(query, NBD_CONTEXT_NAME, length) == 0)
        return true;
    return option->number == NBD_OPT_LIST_META_CONTEXT && length == 5 && memcmp(query, "base:", 5) == 0;
}

/* The queries behind the export name: u32 count, count times u32 length, text. False: they do not add up. */
static bool queries_decode(const struct option *option, size_t position, bool *ret_wanted)
{
    if (option->length - position < 4)
        return false;
    uint32_t count = get_be32(option->data + position);
    bool wanted = count == 0 && option->number == NBD_OPT_LIST_META_CONTEXT;
    position += 4;
    for (uint32_t i = 0; i < count; i++) {
        const uint8_t *query;
        uint32_t length;
        if (!nbd_string_decode(option->data, option->length, &position, &query, &length))
            return false;
        wanted |= query_matches(option, query, length);
    }
    *ret_wanted = wanted;
    return position == option->length;
}

static enum nbd_step option_meta_context(const struct option *option)
{
    struct nbd_handshake *handshake = option->handshake;
    const uint8_t *name;
    uint32_t name_length;
    size_t position = 0;
    bool wanted;

    /* Also one that fails forgets what an earlier one had set. */
    bool sets = option->number == NBD_OPT_SET_META_CONTEXT;
    if (sets)
        free(TAKE(handshake->context_export));
    if (!handshake->structured ||
        !nbd_string_decode(option->data, option->length, &position, &name, &name_length) ||
        name_length > NBD_MAX_NAME || !queries_decode(option, position, &wanted))
        return reply_error(option, NBD_REP_ERR_INVALID);
    if (!name_is_ours(handshake->export, name, name_length))
        return reply_error(option, NBD_REP_ERR_UNKNOWN);
    if (sets && wanted) {
        handshake->context_export = strndup((const char *)name, name_length);
        if (!handshake->context_export)
            return NBD_CLOSE;
    }
    return more_if((!wanted || reply_context(option)) && reply(option, NBD_REP_ACK, NULL, 0));
}

static enum nbd_step option_do(const struct option *option)
{
    switch (option->number) {
    case NBD_OPT_EXPORT_NAME:
        return option_export_name(option);
    case NBD_OPT_ABORT:
        (void)reply_error(option, NBD_REP_ACK);
        return NBD_CLOSE;
    case NBD_OPT_LIST:
        return option_list(option);
    case NBD_OPT_INFO:
    case NBD_OPT_GO:
        return option_info(option);
    case NBD_OPT_STRUCTURED_REPLY:
        return option_structured(option);
    case NBD_OPT_LIST_META_CONTEXT:
    case NBD_OPT_SET_META_CONTEXT:
        return option_meta_context(option);
    default:
        return reply_error(option, NBD_REP_ERR_UNSUP);
    }
}

static enum nbd_step client_flags(struct nbd_handshake *handshake, const uint8_t *bytes)
{
    uint32_t flags = get_be32(bytes);

    if (flags & ~(uint32_t)(NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES))
        return NBD_CLOSE;
    handshake->no_zeroes = flags & NBD_NO_ZEROES;
    handshake->options = true;
    return NBD_MORE;
}

bool nbd_handshake_init(struct nbd_handshake *handshake, const struct nbd_export *export, struct buf *out)
{
    uint8_t greeting[18];

    *handshake = (struct nbd_handshake){.export = export};
    put_be64(greeting, NBD_MAGIC);
    put_be64(greeting + 8, NBD_OPTION_MAGIC);
    put_be16(greeting + 16, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    return buf_append(out, greeting, sizeof greeting);
}

void nbd_handshake_done(struct nbd_handshake *handshake)
{
    free(TAKE(handshake->context_export));
}

enum nbd_step nbd_handshake_feed(struct nbd_handshake *handshake, const uint8_t *bytes, size_t length,
                                 size_t *ret_used, struct buf *out)
{
    struct nbd_option_header header;

    *ret_used = 0;
    if (!handshake->options) {
        if (length < 4)
            return NBD_MORE;
        *ret_used = 4;
        return client_flags(handshake, bytes);
    }
    if (length < NBD_OPTION_BYTES)
        return NBD_MORE;
    if (!nbd_option_decode(bytes, &header))
        return NBD_CLOSE;
    struct option option = {handshake, header.option, bytes + NBD_OPTION_BYTES, header.length, out};
    if (header.length > NBD_MAX_OPTION_DATA) {
        (void)reply_error(&option, NBD_REP_ERR_TOO_BIG);
        return NBD_CLOSE;
    }
    if (length - NBD_OPTION_BYTES < header.length)
        return NBD_MORE;
    *ret_used = NBD_OPTION_BYTES + header.length;
    return option_do(&option);
}
