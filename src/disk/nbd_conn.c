#include "nbd_conn.h"

#include <stdlib.h>
#include <string.h>

/* A payload with at least this much to come is received where it belongs; less comes through the input
 * buffer, together with the requests behind it. */
#define DIRECT_BYTES (32U << 10)

_Static_assert(CONN_INPUT_BYTES >= NBD_OPTION_BYTES + NBD_MAX_OPTION_DATA, "an option fits into the input");

bool conn_open(struct nbd_server *server, int fd, struct nbd_conn **ret_conn, struct err *err)
{
    struct nbd_conn *conn = calloc(1, sizeof *conn);

    if (conn)
        conn->input = malloc(CONN_INPUT_BYTES);
    if (!conn || !conn->input || !nbd_handshake_init(&conn->handshake, server->export, &conn->greeting)) {
        if (conn)
            free(conn->input);
        free(conn);
        close(fd);
        return err_oom(err);
    }
    conn->server = server;
    conn->fd = fd;
    for (size_t i = CONN_SLOTS; i-- > 0;) {
        conn->slots[i].next = conn->free_slots;
        conn->free_slots = &conn->slots[i];
    }
    conn_touch(conn);
    *ret_conn = conn;
    return true;
}

void conn_free(struct nbd_conn *conn)
{
    nbd_handshake_done(&conn->handshake);
    buf_done(&conn->greeting);
    free(conn->input);
    close(conn->fd);
    free(conn);
}

void conn_touch(struct nbd_conn *conn)
{
    if (conn->touched)
        return;
    conn->touched = true;
    conn->touched_next = conn->server->touched;
    conn->server->touched = conn;
}

void conn_shut(struct nbd_conn *conn)
{
    if (conn->closing)
        return;
    conn->closing = true;
    shutdown(conn->fd, SHUT_RDWR); /* ends what is in flight on it */
    conn_touch(conn);
}

static void received(struct ring_op *op, int64_t result)
{
    struct nbd_conn *conn = (struct nbd_conn *)(void *)((char *)op - offsetof(struct nbd_conn, receive));

    conn->receiving = false;
    conn_touch(conn);
    if (result <= 0) {
        conn_shut(conn);
        return;
    }
    if (!conn->receiving_payload) {
        conn->input_end += (size_t)result;
        return;
    }
    conn->payload_got += (size_t)result;
    if (!conn->closing && conn->payload_got == conn->payload_slot->wire.length)
        transmission_payload_came(conn);
}

static void receive_start(struct nbd_conn *conn)
{
    struct nbd_slot *slot = conn->payload_slot;
    struct ring *ring = conn->server->core->ring;

    conn->receiving = true;
    conn->receive.done = received;
    conn->receiving_payload = slot && slot->wire.length - conn->payload_got >= DIRECT_BYTES;
    if (conn->receiving_payload) {
        ring_recv(ring, &conn->receive, conn->fd, slot->bytes + conn->payload_got,
                  slot->wire.length - conn->payload_got);
        return;
    }
    size_t left = conn->input_end - conn->input_start;
    memmove(conn->input, conn->input + conn->input_start, left);
    conn->input_start = 0;
    conn->input_end = left;
    ring_recv(ring, &conn->receive, conn->fd, conn->input + left, CONN_INPUT_BYTES - left);
}

static void transmission_begin(struct nbd_conn *conn)
{
    const struct nbd_export *export = conn->server->export;

    conn->transmitting = true;
    conn->terms = (struct nbd_terms){
        .size_bytes = export->size_bytes,
        .read_only = export->read_only,
        .structured = conn->handshake.structured,
        .allocation_context = conn->handshake.allocation_context,
    };
}

/* One option at a time, the next when its answer has been sent: a client that only asks gets no memory of
 * ours. */
static enum parse_result handshake_parse(struct nbd_conn *conn)
{
    size_t used;

    if (conn->greeting.length > 0 || conn->sending)
        return PARSE_NEEDS_ROOM;
    enum nbd_step step = nbd_handshake_feed(&conn->handshake, conn->input + conn->input_start,
                                            conn->input_end - conn->input_start, &used, &conn->greeting);
    conn->input_start += used;
    if (step == NBD_CLOSE) {
        conn->draining = true;
        return PARSE_NEEDS_ROOM;
    }
    if (step == NBD_TRANSMIT)
        transmission_begin(conn);
    return used > 0 ? PARSE_AGAIN : PARSE_NEEDS_INPUT;
}

static void input_turn(struct nbd_conn *conn)
{
    enum parse_result result = PARSE_AGAIN;

    if (conn->receiving)
        return;
    while (result == PARSE_AGAIN && !conn->closing && !conn->draining)
        result = conn->transmitting ? transmission_parse(conn) : handshake_parse(conn);
    if (result == PARSE_NEEDS_INPUT && !conn->closing && !conn->draining)
        receive_start(conn);
}

static void slots_release(struct slot_list *list)
{
    while (list->first) {
        struct nbd_slot *slot = list->first;
        list->first = slot->next;
        slot_release(slot);
    }
    list->last = NULL;
}

static void sent(struct ring_op *op, int64_t result)
{
    struct nbd_conn *conn = (struct nbd_conn *)(void *)((char *)op - offsetof(struct nbd_conn, send));

    conn->sending = false;
    if (!conn->sent.first)
        conn->greeting.length = 0; /* it was sent alone */
    slots_release(&conn->sent);
    if (result < 0)
        conn_shut(conn);
    conn_touch(conn);
}

/* The handshake's output goes out alone: what follows it in transmission waits for the next send. */
static size_t vector_fill(struct nbd_conn *conn)
{
    size_t count = 0;

    if (conn->greeting.length > 0) {
        conn->vector[0] = (struct iovec){conn->greeting.data, conn->greeting.length};
        return 1;
    }
    while (conn->ready.first && count + 2 <= CONN_VECTOR) {
        struct nbd_slot *slot = conn->ready.first;
        conn->ready.first = slot->next;
        if (!conn->ready.first)
            conn->ready.last = NULL;
        conn->vector[count++] = (struct iovec){slot->header, slot->header_length};
        if (slot->data_length > 0)
            conn->vector[count++] = (struct iovec){slot->bytes, slot->data_length};
        slot_list_append(&conn->sent, slot);
    }
    return count;
}

static void output_turn(struct nbd_conn *conn)
{
    if (conn->sending || conn->closing)
        return;
    size_t count = vector_fill(conn);
    if (count == 0) {
        if (conn->draining && conn->slots_used == 0)
            conn_shut(conn);
        return;
    }
    conn->sending = true;
    conn->send.done = sent;
    ring_send(conn->server->core->ring, &conn->send, conn->fd, conn->vector, count);
}

bool conn_turn(struct nbd_conn *conn)
{
    input_turn(conn);
    output_turn(conn);
    if (!conn->closing)
        return false;
    slots_release(&conn->ready);
    if (conn->refused_slot)
        slot_release(TAKE(conn->refused_slot));
    if (conn->payload_slot && !conn->receiving)
        slot_release(TAKE(conn->payload_slot));
    return !conn->receiving && !conn->sending && conn->slots_used == 0;
}
