/* One connection of the NBD server. Private to nbd_server.c, nbd_conn.c and nbd_transmission.c.
 *
 * Events (bytes came, bytes were sent, a request has finished) only note what happened and put the connection
 * on the server's list; conn_turn() then does what has become possible. Input is read while there is room for
 * what it asks: a free slot, and buffers within the connection's share; else it waits in the socket. */
#pragma once

#include "engine_pool.h"
#include "nbd_server.h"

#define CONN_SLOTS       64U
#define CONN_INPUT_BYTES (128U << 10)
/* Buffers of one connection; one request always has its turn. */
#define CONN_BUFFER_BYTES (64U << 20)
#define CONN_VECTOR       128U
#define SLOT_HEADER_BYTES 40U

struct nbd_conn;

/* A request in flight, and then its reply. */
struct nbd_slot {
    struct request request; /* first: found by it */
    struct nbd_conn *conn;
    struct nbd_request wire;
    uint8_t header[SLOT_HEADER_BYTES];
    size_t header_length;
    uint8_t *bytes; /* from the pool, for bytes_length */
    size_t bytes_length;
    size_t data_length; /* of bytes, behind the header in the reply */
    struct nbd_slot *next;
};

struct slot_list {
    struct nbd_slot *first, *last;
};

struct nbd_conn {
    struct nbd_server *server;
    int fd;
    struct nbd_conn *previous, *next; /* all of the server's */
    struct nbd_conn *touched_next;
    bool touched;

    bool transmitting; /* the handshake is over */
    bool closing;      /* the socket is shut; freed when nothing is in flight */
    bool draining;     /* the client said goodbye: closed when all is answered */
    struct nbd_handshake handshake;
    struct buf greeting; /* the handshake's output that is to be sent */
    struct nbd_terms terms;

    struct ring_op receive;
    bool receiving, receiving_payload;
    uint8_t *input;
    size_t input_start, input_end;
    uint64_t skip;                 /* bytes of a refused payload to throw away */
    struct nbd_slot *refused_slot; /* whose answer comes behind that */
    struct nbd_slot *payload_slot; /* a write whose payload is coming */
    size_t payload_got;

    struct ring_op send;
    bool sending;
    struct iovec vector[CONN_VECTOR];
    struct slot_list ready; /* answered, to be sent */
    struct slot_list sent;  /* being sent */

    size_t slots_used, buffer_bytes;
    struct nbd_slot *free_slots;
    struct nbd_slot slots[CONN_SLOTS];
};

struct nbd_server {
    struct core *core;
    const struct nbd_export *export;
    struct pool pool;
    int listen_fd;
    struct ring_op accept;
    bool accepting, stopping;
    bool resting;          /* an accept has failed, or polls without end */
    unsigned failed_polls; /* in a row */
    struct nbd_conn *conns;
    struct nbd_conn *touched; /* have something to do */
    uint64_t clients;
};

/* --- nbd_conn.c --- */
bool conn_open(struct nbd_server *server, int fd, struct nbd_conn **ret_conn, struct err *err) MUST_CHECK;
void conn_touch(struct nbd_conn *conn);
void conn_shut(struct nbd_conn *conn);
/* True: it is over, to be freed by conn_free(). */
bool conn_turn(struct nbd_conn *conn);
void conn_free(struct nbd_conn *conn);

/* --- nbd_transmission.c --- */
enum parse_result { PARSE_AGAIN, PARSE_NEEDS_INPUT, PARSE_NEEDS_ROOM };

/* One step on the input in transmission: a request, or a part of a payload. */
enum parse_result transmission_parse(struct nbd_conn *conn);
/* A write's payload has come whole. */
void transmission_payload_came(struct nbd_conn *conn);
void slot_release(struct nbd_slot *slot);
void slot_list_append(struct slot_list *list, struct nbd_slot *slot);
