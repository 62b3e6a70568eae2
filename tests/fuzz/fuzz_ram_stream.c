/* The parser of migration streams: no input makes it read beyond its bytes, name a page outside its block, or
 * take a stream differently when it comes in pieces. The first byte says how large those are. */
#include "bytes.h"
#include "description.h"
#include "stream.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct told {
    struct stream *stream;
    uint64_t hash, state_bytes;
};

static void check(bool claim)
{
    if (!claim)
        abort();
}

static void mix(struct told *told, const uint8_t *bytes, size_t length)
{
    for (size_t i = 0; i < length; i++)
        told->hash = (told->hash ^ bytes[i]) * 0x100000001b3U;
}

static bool on_head(void *context, const uint8_t *bytes, size_t length, struct err *err)
{
    (void)err;
    mix(context, bytes, length);
    return true;
}

static bool on_state(void *context, const uint8_t *bytes, size_t length, struct err *err)
{
    struct told *told = context;
    (void)err;
    told->state_bytes += length;
    mix(told, bytes, length);
    return true;
}

static bool on_blocks(void *context, struct err *err)
{
    struct told *told = context;
    unsigned count = 0;
    (void)err;
    const struct stream_block *blocks = stream_blocks(told->stream, &count);
    check(count > 0 && count <= STREAM_BLOCKS_MAX);
    for (unsigned i = 0; i < count; i++)
        check(blocks[i].used_bytes > 0 && blocks[i].used_bytes % STREAM_PAGE_BYTES == 0 && blocks[i].name[0]);
    return true;
}

static bool on_page(void *context, unsigned block, uint64_t offset, const uint8_t *bytes, struct err *err)
{
    struct told *told = context;
    unsigned count = 0;
    uint8_t where[12];
    (void)err;
    const struct stream_block *blocks = stream_blocks(told->stream, &count);
    check(block < count && offset % STREAM_PAGE_BYTES == 0 && offset < blocks[block].used_bytes);
    put_be32(where, block);
    put_be64(where + 4, offset);
    mix(told, where, sizeof(where));
    if (bytes)
        mix(told, bytes, STREAM_PAGE_BYTES);
    return true;
}

/* Pieces of step bytes, each in memory of its own size, so that the sanitizer sees one byte too many. */
static bool parse(const uint8_t *data, size_t size, size_t step, struct told *told, struct err *err)
{
    size_t start = 0;
    for (size_t end = 0; end < size;) {
        end = size - end < step ? size : end + step;
        size_t consumed = 0;
        uint8_t *piece = malloc(end - start);
        check(piece != NULL);
        memcpy(piece, data + start, end - start);
        bool ok = stream_parse(told->stream, piece, end - start, &consumed, err);
        free(piece);
        if (!ok)
            return false;
        check(consumed <= end - start && end - start - consumed < STREAM_TOKEN_MAX);
        start += consumed;
    }
    return stream_end(told->stream, size - start, err);
}

static bool run(const uint8_t *data, size_t size, size_t step, struct told *told, struct err *err)
{
    *told = (struct told){0};
    const struct stream_events events = {
        .context = told, .head = on_head, .blocks = on_blocks, .page = on_page, .state = on_state};
    told->stream = stream_new(&events);
    check(told->stream != NULL);
    bool ok = parse(data, size, step, told, err);
    check(ok || err->code == ERR_CORRUPT || err->code == ERR_UNSUPPORTED);
    stream_free(told->stream);
    return ok;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct told whole, pieces;
    struct err err = ERR_INIT, err_pieces = ERR_INIT;
    size_t description = 0;
    if (size < 2)
        return 0;
    bool ok = run(data + 1, size - 1, size, &whole, &err);
    bool ok_pieces = run(data + 1, size - 1, (size_t)data[0] * 16 + 1, &pieces, &err_pieces);
    check(ok == ok_pieces && err.code == err_pieces.code && strcmp(err.text, err_pieces.text) == 0);
    check(!ok || whole.hash == pieces.hash);
    if (ok && stream_check_state(data + size - whole.state_bytes, whole.state_bytes, &description, &err)) {
        check(description < whole.state_bytes);
        check(description_check(data + size - whole.state_bytes, whole.state_bytes, description, &err) ||
              err.code == ERR_CORRUPT);
    }
    return 0;
}
