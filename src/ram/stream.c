#include "stream.h"

#include "bytes.h"

#include <ctype.h>
#include <inttypes.h>

#define MAGIC       0x5145564dU /* "QEVM" */
#define VERSION     3U
#define RAM_VERSION 4U
#define PAGE_BITS   12U
#define FLAGS_MASK  ((uint64_t)STREAM_PAGE_BYTES - 1)
#define NO_BLOCK    UINT32_MAX

enum state { HEADER, CONFIG, CONFIG_PARTS, ELEMENT, MEM_SIZE, TABLE, RECORD, FOOTER, DEVICES };

struct stream {
    struct stream_events events;
    enum state state;
    uint64_t offset; /* in the stream, of the token that is looked at */
    char machine[STREAM_MACHINE_MAX + 1];
    struct stream_block blocks[STREAM_BLOCKS_MAX];
    unsigned block_count;
    uint64_t table_left; /* bytes of memory that the table has still to name */
    uint32_t ram_section;
    unsigned last_block;         /* what CONTINUE means, also across sections */
    enum stream_element section; /* START, PART or END while inside one */
    bool has_ram, ram_ended, switchover;
};

/* A token is read by a cursor over the bytes at hand. Running out of them is no error: `short_of_bytes` is
 * set, the token is given up without a trace and comes again with more bytes. */
struct cursor {
    const uint8_t *bytes;
    size_t length, position;
    bool short_of_bytes;
};

static const uint8_t *take(struct cursor *in, size_t length)
{
    if (in->length - in->position < length) {
        in->short_of_bytes = true;
        return NULL;
    }
    const uint8_t *p = in->bytes + in->position;
    in->position += length;
    return p;
}

/* A str8 into a NUL-terminated text; an empty one or one with a NUL inside is refused. */
static bool take_name(const struct stream *stream, struct cursor *in, char name[static STREAM_NAME_MAX + 1],
                      const char *what, struct err *err)
{
    const uint8_t *length = take(in, 1);
    const uint8_t *text = length ? take(in, *length) : NULL;
    if (!text)
        return true;
    if (*length == 0 || memchr(text, '\0', *length))
        return err_set(err, ERR_CORRUPT,
                       "byte %" PRIu64 " of the stream: the name of a %s is empty or holds a NUL",
                       stream->offset, what);
    memcpy(name, text, *length);
    name[*length] = '\0';
    return true;
}

#define corrupt(stream, err, format, ...)                                                                    \
    err_set((err), ERR_CORRUPT, "byte %" PRIu64 " of the stream: " format, (stream)->offset, ##__VA_ARGS__)
#define unsupported(stream, err, format, ...)                                                                \
    err_set((err), ERR_UNSUPPORTED, "byte %" PRIu64 " of the stream: " format, (stream)->offset,             \
            ##__VA_ARGS__)

static bool parse_header(struct stream *stream, struct cursor *in, struct err *err)
{
    const uint8_t *p = take(in, 8);
    if (!p)
        return true;
    if (get_be32(p) != MAGIC)
        return corrupt(stream, err, "no migration stream (magic %08" PRIx32 ")", get_be32(p));
    if (get_be32(p + 4) != VERSION)
        return corrupt(stream, err, "version %" PRIu32 " of the stream is not known", get_be32(p + 4));
    stream->state = CONFIG;
    return true;
}

static bool parse_config(struct stream *stream, struct cursor *in, struct err *err)
{
    const uint8_t *p = take(in, 5);
    if (!p)
        return true;
    if (p[0] != STREAM_CONFIGURATION)
        return corrupt(stream, err, "%02x where the configuration section must be", p[0]);
    uint32_t length = get_be32(p + 1);
    if (length == 0 || length > STREAM_MACHINE_MAX)
        return corrupt(stream, err, "a machine name of %" PRIu32 " bytes", length);
    const uint8_t *name = take(in, length);
    if (!name)
        return true;
    for (uint32_t i = 0; i < length; i++) {
        if (!isgraph(name[i]))
            return corrupt(stream, err, "byte %02x in the machine name", name[i]);
    }
    memcpy(stream->machine, name, length);
    stream->state = CONFIG_PARTS;
    return true;
}

/* Every capability that QEMU lists here changes what the stream holds (x-ignore-shared leaves memory out,
 * mapped-ram lays it out otherwise): with any of them .bin would silently lack pages. */
static bool parse_capabilities(struct stream *stream, struct cursor *in, struct err *err)
{
    const uint8_t *count = take(in, 4);
    if (!count || get_be32(count) == 0)
        return true;
    char name[STREAM_NAME_MAX + 1] = "";
    if (!take_name(stream, in, name, "capability", err) || in->short_of_bytes)
        return in->short_of_bytes;
    return unsupported(stream, err, "saved with the capability %s", name);
}

static bool parse_page_bits(struct stream *stream, struct cursor *in, struct err *err)
{
    const uint8_t *bits = take(in, 4);
    if (bits && get_be32(bits) != PAGE_BITS)
        return unsupported(stream, err, "pages of 2^%" PRIu32 " bytes", get_be32(bits));
    return true;
}

/* The subsections of the configuration, and at the first other byte the elements. */
static bool parse_config_parts(struct stream *stream, struct cursor *in, struct err *err)
{
    const uint8_t *element = take(in, 1);
    if (!element)
        return true;
    if (*element != STREAM_SUBSECTION) {
        in->position--;
        stream->state = ELEMENT;
        return true;
    }
    char name[STREAM_NAME_MAX + 1] = "";
    if (!take_name(stream, in, name, "subsection", err))
        return false;
    const uint8_t *version = in->short_of_bytes ? NULL : take(in, 4);
    if (!version)
        return true;
    if (get_be32(version) != 1)
        return corrupt(stream, err, "version %" PRIu32 " of the subsection %s", get_be32(version), name);
    if (strcmp(name, "configuration/capabilities") == 0)
        return parse_capabilities(stream, in, err);
    if (strcmp(name, "configuration/target-page-bits") == 0)
        return parse_page_bits(stream, in, err);
    if (strcmp(name, "configuration/uuid") != 0)
        return corrupt(stream, err, "a subsection %.64s that is not known", name);
    take(in, 16);
    return true;
}

static bool parse_start(struct stream *stream, struct cursor *in, struct err *err)
{
    const uint8_t *id = take(in, 4);
    char name[STREAM_NAME_MAX + 1] = "";
    if (!id || !take_name(stream, in, name, "section", err))
        return !id;
    const uint8_t *p = in->short_of_bytes ? NULL : take(in, 8);
    if (!p)
        return true;
    if (strcmp(name, "ram") != 0)
        return unsupported(stream, err, "a live section %.64s besides ram", name);
    if (stream->has_ram)
        return corrupt(stream, err, "a second START of the section ram");
    if (get_be32(p) != 0 || get_be32(p + 4) != RAM_VERSION)
        return corrupt(stream, err, "instance %" PRIu32 ", version %" PRIu32 " of the section ram",
                       get_be32(p), get_be32(p + 4));
    stream->has_ram = true;
    stream->ram_section = get_be32(id);
    stream->section = STREAM_START;
    stream->state = MEM_SIZE;
    return true;
}

static bool parse_part(struct stream *stream, struct cursor *in, enum stream_element element, struct err *err)
{
    const uint8_t *id = take(in, 4);
    if (!id)
        return true;
    if (!stream->has_ram || stream->ram_ended || get_be32(id) != stream->ram_section)
        return corrupt(stream, err, "a part of section %" PRIu32 ", which is not open", get_be32(id));
    stream->ram_ended = element == STREAM_END;
    stream->section = element;
    stream->state = RECORD;
    return true;
}

static bool parse_command(struct stream *stream, struct cursor *in, struct err *err)
{
    const uint8_t *p = take(in, 4);
    if (!p)
        return true;
    if (get_be16(p) != STREAM_COMMAND_SWITCHOVER)
        return unsupported(stream, err, "command %u", get_be16(p));
    if (get_be16(p + 2) != 0 || !stream->has_ram)
        return corrupt(stream, err, "command %u with %u bytes", get_be16(p), get_be16(p + 2));
    stream->switchover = true;
    return true;
}

static bool parse_element(struct stream *stream, struct cursor *in, struct err *err)
{
    const uint8_t *element = take(in, 1);
    if (!element)
        return true;
    switch (*element) {
    case STREAM_START:
        return parse_start(stream, in, err);
    case STREAM_PART:
    case STREAM_END:
        return parse_part(stream, in, *element, err);
    case STREAM_COMMAND:
        return parse_command(stream, in, err);
    case STREAM_FULL:
        if (!stream->has_ram)
            return corrupt(stream, err, "device state before the section ram");
        in->position--;
        stream->state = DEVICES;
        return true;
    default:
        return corrupt(stream, err, "an element %02x that is not known or not allowed here", *element);
    }
}

static bool parse_mem_size(struct stream *stream, struct cursor *in, struct err *err)
{
    const uint8_t *p = take(in, 8);
    if (!p)
        return true;
    uint64_t record = get_be64(p);
    if ((record & FLAGS_MASK) != STREAM_MEM_SIZE || record >> PAGE_BITS == 0)
        return corrupt(stream, err, "record %016" PRIx64 " where the table of blocks must be", record);
    stream->table_left = record & ~FLAGS_MASK;
    stream->state = TABLE;
    return true;
}

static unsigned find_block(const struct stream *stream, const char *name)
{
    unsigned i = 0;
    while (i < stream->block_count && strcmp(stream->blocks[i].name, name) != 0)
        i++;
    return i;
}

static bool parse_table_entry(struct stream *stream, struct cursor *in, struct err *err)
{
    char name[STREAM_NAME_MAX + 1] = "";
    if (!take_name(stream, in, name, "block", err))
        return false;
    const uint8_t *p = in->short_of_bytes ? NULL : take(in, 8);
    if (!p)
        return true;
    uint64_t used = get_be64(p);
    if (used == 0 || used % STREAM_PAGE_BYTES != 0 || used > stream->table_left)
        return corrupt(stream, err, "block %.64s of %" PRIu64 " bytes, with %" PRIu64 " left in the table",
                       name, used, stream->table_left);
    if (find_block(stream, name) < stream->block_count)
        return corrupt(stream, err, "a second block %.64s", name);
    if (stream->block_count == STREAM_BLOCKS_MAX)
        return corrupt(stream, err, "more than %u blocks", STREAM_BLOCKS_MAX);
    struct stream_block *block = &stream->blocks[stream->block_count++];
    memcpy(block->name, name, sizeof(name));
    block->used_bytes = used;
    stream->table_left -= used;
    if (stream->table_left > 0)
        return true;
    stream->state = RECORD;
    return stream->events.blocks(stream->events.context, err);
}

static bool take_block(const struct stream *stream, struct cursor *in, uint64_t record, unsigned *ret_block,
                       struct err *err)
{
    if (record & STREAM_CONTINUE) {
        if (stream->last_block == NO_BLOCK)
            return corrupt(stream, err, "a page that continues no block");
        *ret_block = stream->last_block;
        return true;
    }
    char name[STREAM_NAME_MAX + 1] = "";
    if (!take_name(stream, in, name, "block", err))
        return false;
    unsigned block = find_block(stream, name);
    if (!in->short_of_bytes && block == stream->block_count)
        return corrupt(stream, err, "a page of block %.64s, which the table does not have", name);
    *ret_block = block;
    return true;
}

static bool parse_page(struct stream *stream, struct cursor *in, uint64_t record, struct err *err)
{
    unsigned block = 0;
    if (!take_block(stream, in, record, &block, err))
        return false;
    bool is_zero = record & STREAM_ZERO;
    const uint8_t *bytes = in->short_of_bytes ? NULL : take(in, is_zero ? 1 : STREAM_PAGE_BYTES);
    if (!bytes)
        return true;
    uint64_t offset = record & ~FLAGS_MASK;
    if (offset >= stream->blocks[block].used_bytes)
        return corrupt(stream, err, "a page at %" PRIu64 " of block %.64s, which has %" PRIu64 " bytes",
                       offset, stream->blocks[block].name, stream->blocks[block].used_bytes);
    if (is_zero && *bytes != 0)
        return corrupt(stream, err, "a page filled with %02x", *bytes);
    stream->last_block = block;
    return stream->events.page(stream->events.context, block, offset, is_zero ? NULL : bytes, err);
}

static bool parse_record(struct stream *stream, struct cursor *in, struct err *err)
{
    const uint8_t *p = take(in, 8);
    if (!p)
        return true;
    uint64_t record = get_be64(p);
    uint64_t kind = record & FLAGS_MASK & ~(uint64_t)STREAM_CONTINUE;
    if (record == STREAM_EOS) {
        stream->state = FOOTER;
        return true;
    }
    if (stream->section != STREAM_START && (kind == STREAM_PAGE || kind == STREAM_ZERO))
        return parse_page(stream, in, record, err);
    if (kind == STREAM_XBZRLE || kind == STREAM_HOOK || kind == STREAM_COMPRESS ||
        kind == STREAM_MULTIFD_FLUSH)
        return unsupported(stream, err, "memory sent with flags %03" PRIx64, kind);
    return corrupt(stream, err, "a record %016" PRIx64 " that is not known or not allowed here", record);
}

static bool parse_footer(struct stream *stream, struct cursor *in, struct err *err)
{
    const uint8_t *p = take(in, 5);
    if (!p)
        return true;
    if (p[0] != STREAM_FOOTER || get_be32(p + 1) != stream->ram_section)
        return corrupt(stream, err, "no footer of section %" PRIu32, stream->ram_section);
    stream->state = ELEMENT;
    return true;
}

static bool parse_token(struct stream *stream, struct cursor *in, struct err *err)
{
    switch (stream->state) {
    case HEADER:
        return parse_header(stream, in, err);
    case CONFIG:
        return parse_config(stream, in, err);
    case CONFIG_PARTS:
        return parse_config_parts(stream, in, err);
    case ELEMENT:
        return parse_element(stream, in, err);
    case MEM_SIZE:
        return parse_mem_size(stream, in, err);
    case TABLE:
        return parse_table_entry(stream, in, err);
    case RECORD:
        return parse_record(stream, in, err);
    case FOOTER:
        return parse_footer(stream, in, err);
    case DEVICES:
        break;
    }
    const uint8_t *bytes = in->bytes + in->position;
    size_t length = in->length - in->position;
    in->position = in->length;
    return stream->events.state(stream->events.context, bytes, length, err);
}

/* Does what is looked at now belong to the head? A property of the state before its token. */
static bool in_head(const struct stream *stream)
{
    bool in_start = stream->section == STREAM_START && (stream->state == RECORD || stream->state == FOOTER);
    return stream->state < ELEMENT || stream->state == MEM_SIZE || stream->state == TABLE || in_start;
}

static bool tell_head(struct stream *stream, const struct cursor *in, size_t from, bool was_head,
                      struct err *err)
{
    bool is_start_header = stream->state == MEM_SIZE && !was_head;
    if (in->position == from || !(was_head || is_start_header))
        return true;
    return stream->events.head(stream->events.context, in->bytes + from, in->position - from, err);
}

bool stream_parse(struct stream *stream, const uint8_t *bytes, size_t length, size_t *ret_consumed,
                  struct err *err)
{
    struct cursor in = {.bytes = bytes, .length = length};
    while (in.position < length) {
        size_t from = in.position;
        bool was_head = in_head(stream);
        if (!parse_token(stream, &in, err))
            return false;
        if (in.short_of_bytes) {
            in.position = from;
            break;
        }
        stream->offset += in.position - from;
        if (!tell_head(stream, &in, from, was_head, err))
            return false;
    }
    *ret_consumed = in.position;
    return true;
}

bool stream_end(const struct stream *stream, size_t left, struct err *err)
{
    if (stream->state == DEVICES && left == 0)
        return true;
    return err_set(err, ERR_CORRUPT, "the stream ends early, after %" PRIu64 " bytes", stream->offset + left);
}

struct stream *stream_new(const struct stream_events *events)
{
    struct stream *stream = calloc(1, sizeof(*stream));
    if (!stream)
        return NULL;
    stream->events = *events;
    stream->last_block = NO_BLOCK;
    return stream;
}

void stream_free(struct stream *stream)
{
    free(stream);
}

const char *stream_machine(const struct stream *stream)
{
    return stream->machine;
}

const struct stream_block *stream_blocks(const struct stream *stream, unsigned *ret_count)
{
    *ret_count = stream->block_count;
    return stream->blocks;
}

uint32_t stream_ram_section(const struct stream *stream)
{
    return stream->ram_section;
}

bool stream_has_switchover(const struct stream *stream)
{
    return stream->switchover;
}

bool stream_check_state(const uint8_t *state, size_t length, size_t *ret_description, struct err *err)
{
    static const uint8_t mark[] = {STREAM_EOF, STREAM_DESCRIPTION};
    const uint8_t *at = state;
    while (at && length - (size_t)(at - state) >= 8) {
        size_t left = length - (size_t)(at - state);
        at = memmem(at, left, mark, sizeof(mark));
        left = at ? length - (size_t)(at - state) : 0;
        if (left >= 8 && get_be32(at + 2) == left - 6 && at[6] == '{' && state[length - 1] == '}') {
            *ret_description = (size_t)(at - state) + 6;
            return true;
        }
        at = at ? at + 1 : NULL;
    }
    return err_set(err, ERR_CORRUPT, "the stream ends inside the device state");
}
