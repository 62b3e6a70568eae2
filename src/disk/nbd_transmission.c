/* Requests in, replies out. */
#include "bytes.h"
#include "nbd_conn.h"

#include <errno.h>
#include <string.h>

/* What one block status may look at: no more of the map than the largest read, since each block of it that
 * nobody has looked at yet costs its layers' bitmaps. An answer may be shorter than what was asked. */
#define STATUS_BYTES   NBD_MAX_REQUEST_BYTES
#define STATUS_STEPS   128U
#define STATUS_EXTENTS 64U

void slot_list_append(struct slot_list *list, struct nbd_slot *slot)
{
    slot->next = NULL;
    if (list->last)
        list->last->next = slot;
    else
        list->first = slot;
    list->last = slot;
}

static struct nbd_slot *slot_take(struct nbd_conn *conn, const struct nbd_request *wire)
{
    struct nbd_slot *slot = conn->free_slots;

    conn->free_slots = slot->next;
    conn->slots_used++;
    slot->conn = conn;
    slot->wire = *wire;
    slot->bytes = NULL;
    slot->bytes_length = slot->data_length = 0;
    return slot;
}

static bool slot_buffer(struct nbd_slot *slot, size_t length)
{
    slot->bytes = pool_get(&slot->conn->server->pool, length);
    if (!slot->bytes)
        return false;
    slot->bytes_length = length;
    slot->conn->buffer_bytes += pool_real_bytes(length);
    return true;
}

static void slot_buffer_release(struct nbd_slot *slot)
{
    if (!slot->bytes)
        return;
    slot->conn->buffer_bytes -= pool_real_bytes(slot->bytes_length);
    pool_put(&slot->conn->server->pool, TAKE(slot->bytes), slot->bytes_length);
}

void slot_release(struct nbd_slot *slot)
{
    struct nbd_conn *conn = slot->conn;

    slot_buffer_release(slot);
    slot->next = conn->free_slots;
    conn->free_slots = slot;
    conn->slots_used--;
}

static void reply_ready(struct nbd_slot *slot)
{
    slot_list_append(&slot->conn->ready, slot);
    conn_touch(slot->conn);
}

/* A reply without data. With structured replies, errors are chunks, which READ demands; success may be
 * simple. */
static void reply_make(struct nbd_slot *slot, uint32_t error)
{
    slot_buffer_release(slot);
    slot->data_length = 0;
    slot->header_length = error != NBD_OK && slot->conn->terms.structured
                              ? nbd_error_chunk_encode(slot->header, slot->wire.cookie, error)
                              : nbd_simple_encode(slot->header, slot->wire.cookie, error);
}

static void reply_plain(struct nbd_slot *slot, uint32_t error)
{
    reply_make(slot, error);
    reply_ready(slot);
}

/* A payload that nobody wants is thrown away before the answer: there are clients that hear nothing while they
 * send. */
static void refuse(struct nbd_slot *slot, uint32_t error)
{
    struct nbd_conn *conn = slot->conn;

    if (slot->wire.type != NBD_CMD_WRITE || slot->wire.length == 0) {
        reply_plain(slot, error);
        return;
    }
    reply_make(slot, error);
    conn->skip = slot->wire.length;
    conn->refused_slot = slot;
}

static void reply_read(struct nbd_slot *slot)
{
    const struct nbd_request *wire = &slot->wire;

    if (!slot->conn->terms.structured) {
        slot->header_length = nbd_simple_encode(slot->header, wire->cookie, NBD_OK);
        slot->data_length = wire->length;
    } else if (slot->request.holes_only) {
        slot->header_length = nbd_hole_chunk_encode(slot->header, wire->cookie, wire->offset, wire->length);
        slot_buffer_release(slot);
    } else {
        slot->header_length = nbd_data_chunk_encode(slot->header, wire->cookie, wire->offset, wire->length);
        slot->data_length = wire->length;
    }
    reply_ready(slot);
}

static void slot_done(struct request *request, int errnum)
{
    struct nbd_slot *slot = (struct nbd_slot *)request;

    if (slot->conn->closing) {
        slot_release(slot);
        conn_touch(slot->conn);
    } else if (errnum != 0 || slot->wire.type != NBD_CMD_READ) {
        reply_plain(slot, nbd_error_of_errno(errnum));
    } else {
        reply_read(slot);
    }
}

static void slot_submit(struct nbd_slot *slot, enum request_kind kind)
{
    struct request *request = &slot->request;

    request->kind = kind;
    request->fua = slot->wire.flags & NBD_FLAG_FUA;
    request->offset = slot->wire.offset;
    request->length = slot->wire.length;
    request->bytes = slot->bytes;
    request->done = slot_done;
    core_submit(slot->conn->server->core, request);
}

/* The extents of a prefix of the range; adjacent ones of a kind are joined. 0: error in *err. */
static size_t extents_find(const struct nbd_slot *slot, struct nbd_extent *extents, size_t max,
                           struct err *err)
{
    struct disk *disk = slot->conn->server->core->disk;
    uint64_t offset = slot->wire.offset, end = offset + min_u64(slot->wire.length, STATUS_BYTES);
    size_t count = 0;

    for (unsigned step = 0; step < STATUS_STEPS && offset < end; step++) {
        enum disk_status_kind kind;
        uint64_t length;
        if (!disk_status(disk, offset, end - offset, &kind, &length, err))
            return 0;
        uint32_t flags = kind == DISK_ZERO ? NBD_STATE_HOLE | NBD_STATE_ZERO : 0;
        if (count > 0 && extents[count - 1].flags == flags)
            extents[count - 1].length += (uint32_t)length;
        else if (count < max)
            extents[count++] = (struct nbd_extent){.length = (uint32_t)length, .flags = flags};
        else
            break;
        offset += length;
    }
    return count;
}

static void status_reply(struct nbd_slot *slot)
{
    struct nbd_extent extents[STATUS_EXTENTS];
    struct err err;

    size_t count =
        extents_find(slot, extents, slot->wire.flags & NBD_FLAG_REQ_ONE ? 1 : STATUS_EXTENTS, &err);
    if (count == 0 || !slot_buffer(slot, sizeof extents)) {
        reply_plain(slot, count == 0 ? nbd_error_of_errno(err_errno(&err)) : NBD_ENOMEM);
        return;
    }
    slot->header_length = nbd_status_chunk_encode(slot->header, slot->wire.cookie, count);
    for (size_t i = 0; i < count; i++)
        slot->data_length += nbd_extent_encode(slot->bytes + slot->data_length, &extents[i]);
    reply_ready(slot);
}

void transmission_payload_came(struct nbd_conn *conn)
{
    slot_submit(TAKE(conn->payload_slot), REQUEST_WRITE);
}

static void request_do(struct nbd_slot *slot)
{
    struct nbd_conn *conn = slot->conn;
    const struct nbd_request *wire = &slot->wire;
    bool moves_data = wire->type == NBD_CMD_READ || wire->type == NBD_CMD_WRITE;
    uint32_t error = nbd_request_check(wire, &conn->terms);

    if (error == NBD_OK && moves_data && !slot_buffer(slot, wire->length))
        error = NBD_ENOMEM;
    if (error != NBD_OK) {
        refuse(slot, error);
        return;
    }
    switch (wire->type) {
    case NBD_CMD_READ:
        slot_submit(slot, REQUEST_READ);
        break;
    case NBD_CMD_WRITE:
        conn->payload_slot = slot;
        conn->payload_got = 0;
        break;
    case NBD_CMD_FLUSH:
        slot_submit(slot, REQUEST_FLUSH);
        break;
    case NBD_CMD_BLOCK_STATUS:
        status_reply(slot);
        break;
    default: /* TRIM, WRITE_ZEROES: the check lets no others through */
        slot_submit(slot, wire->flags & NBD_FLAG_NO_HOLE ? REQUEST_ZERO_RESERVED : REQUEST_ZERO);
        break;
    }
}

/* Only reads and writes hold buffers that matter; a length past the maximum is refused before it gets one. */
static bool has_room(const struct nbd_conn *conn, const struct nbd_request *wire)
{
    bool moves_data = wire->type == NBD_CMD_READ || wire->type == NBD_CMD_WRITE;

    if (!conn->free_slots)
        return false;
    if (!moves_data || wire->length > NBD_MAX_REQUEST_BYTES || conn->buffer_bytes == 0)
        return true;
    return conn->buffer_bytes + pool_real_bytes(wire->length) <= CONN_BUFFER_BYTES;
}

static size_t min_size(uint64_t a, size_t b)
{
    return a < b ? (size_t)a : b;
}

static enum parse_result request_parse(struct nbd_conn *conn)
{
    struct nbd_request wire;

    if (conn->input_end - conn->input_start < NBD_REQUEST_BYTES)
        return PARSE_NEEDS_INPUT;
    if (!nbd_request_decode(conn->input + conn->input_start, &wire)) {
        conn_shut(conn);
        return PARSE_NEEDS_ROOM;
    }
    if (wire.type == NBD_CMD_DISC) {
        conn->draining = true;
        return PARSE_NEEDS_ROOM;
    }
    if (!has_room(conn, &wire))
        return PARSE_NEEDS_ROOM;
    conn->input_start += NBD_REQUEST_BYTES;
    request_do(slot_take(conn, &wire));
    return PARSE_AGAIN;
}

enum parse_result transmission_parse(struct nbd_conn *conn)
{
    size_t there = conn->input_end - conn->input_start;

    if (conn->skip == 0 && !conn->payload_slot)
        return request_parse(conn);
    if (there == 0)
        return PARSE_NEEDS_INPUT;
    if (conn->skip > 0) {
        size_t used = min_size(conn->skip, there);
        conn->skip -= used;
        conn->input_start += used;
        if (conn->skip == 0)
            reply_ready(TAKE(conn->refused_slot));
        return PARSE_AGAIN;
    }
    struct nbd_slot *slot = conn->payload_slot;
    size_t used = min_size(slot->wire.length - conn->payload_got, there);
    memcpy(slot->bytes + conn->payload_got, conn->input + conn->input_start, used);
    conn->payload_got += used;
    conn->input_start += used;
    if (conn->payload_got == slot->wire.length)
        transmission_payload_came(conn);
    return PARSE_AGAIN;
}
