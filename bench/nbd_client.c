#include "nbd_client.h"

#include "bytes.h"
#include "unix_socket.h"

#include <errno.h>
#include <string.h>
#include <sys/socket.h>

#define MAX_OPTION_REPLY_BYTES 4096U

static bool send_all(int fd, const void *bytes, size_t length, struct err *err)
{
    for (const uint8_t *at = bytes; length > 0;) {
        ssize_t sent = send(fd, at, length, MSG_NOSIGNAL);
        if (sent < 0 && errno != EINTR)
            return err_sys(err, errno, "send to the NBD server");
        at += sent > 0 ? sent : 0;
        length -= sent > 0 ? (size_t)sent : 0;
    }
    return true;
}

static bool receive_all(int fd, void *bytes, size_t length, struct err *err)
{
    for (uint8_t *at = bytes; length > 0;) {
        ssize_t got = recv(fd, at, length, 0);
        if (got == 0)
            return err_set(err, ERR_PROTOCOL, "the NBD server closed the connection");
        if (got < 0 && errno != EINTR)
            return err_sys(err, errno, "receive from the NBD server");
        at += got > 0 ? got : 0;
        length -= got > 0 ? (size_t)got : 0;
    }
    return true;
}

static bool greet(int fd, struct err *err)
{
    uint8_t greeting[18], flags[4];

    if (!receive_all(fd, greeting, sizeof greeting, err))
        return false;
    if (get_be64(greeting) != NBD_MAGIC || get_be64(greeting + 8) != NBD_OPTION_MAGIC)
        return err_set(err, ERR_PROTOCOL, "no newstyle NBD server");
    put_be32(flags, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    return send_all(fd, flags, sizeof flags, err);
}

static bool option_send(int fd, uint32_t option, const void *data, uint32_t length, struct err *err)
{
    uint8_t header[NBD_OPTION_BYTES];

    put_be64(header, NBD_OPTION_MAGIC);
    put_be32(header + 8, option);
    put_be32(header + 12, length);
    return send_all(fd, header, sizeof header, err) && send_all(fd, data, length, err);
}

struct option_reply {
    uint32_t type, length;
    uint8_t data[MAX_OPTION_REPLY_BYTES];
};

static bool option_reply_receive(int fd, struct option_reply *ret_reply, struct err *err)
{
    uint8_t header[NBD_OPTION_REPLY_BYTES];

    if (!receive_all(fd, header, sizeof header, err))
        return false;
    ret_reply->type = get_be32(header + 12);
    ret_reply->length = get_be32(header + 16);
    if (get_be64(header) != NBD_OPTION_REPLY_MAGIC || ret_reply->length > MAX_OPTION_REPLY_BYTES)
        return err_set(err, ERR_PROTOCOL, "not a reply to an option");
    return receive_all(fd, ret_reply->data, ret_reply->length, err);
}

static bool structured_ask(int fd, struct err *err)
{
    struct option_reply reply;

    if (!option_send(fd, NBD_OPT_STRUCTURED_REPLY, "", 0, err) || !option_reply_receive(fd, &reply, err))
        return false;
    if (reply.type != NBD_REP_ACK)
        return err_set(err, ERR_PROTOCOL, "the NBD server has no structured replies");
    return true;
}

static bool go(int fd, uint64_t *ret_size_bytes, struct err *err)
{
    static const uint8_t NO_NAME_NO_QUESTIONS[6] = {0};
    struct option_reply reply;
    uint64_t size_bytes = 0;

    if (!option_send(fd, NBD_OPT_GO, NO_NAME_NO_QUESTIONS, sizeof NO_NAME_NO_QUESTIONS, err))
        return false;
    do {
        if (!option_reply_receive(fd, &reply, err))
            return false;
        if (reply.type == NBD_REP_INFO && reply.length >= 12 && get_be16(reply.data) == NBD_INFO_EXPORT)
            size_bytes = get_be64(reply.data + 2);
    } while (reply.type == NBD_REP_INFO);
    if (reply.type != NBD_REP_ACK)
        return err_set(err, ERR_PROTOCOL, "the NBD server refuses the export: reply %#x", reply.type);
    *ret_size_bytes = size_bytes;
    return true;
}

bool nbd_client_connect(const char *socket_path, bool structured, struct nbd_client *ret_client,
                        struct err *err)
{
    AUTO_FD int fd = -1;
    uint64_t size_bytes;

    if (!unix_connect(socket_path, 0, &fd, err) || !greet(fd, err) ||
        (structured && !structured_ask(fd, err)) || !go(fd, &size_bytes, err))
        return false;
    ret_client->fd = TAKE_FD(fd);
    ret_client->size_bytes = size_bytes;
    return true;
}

void nbd_request_encode(uint8_t bytes[static NBD_REQUEST_BYTES], const struct nbd_request *request)
{
    put_be32(bytes, NBD_REQUEST_MAGIC);
    put_be16(bytes + 4, request->flags);
    put_be16(bytes + 6, request->type);
    put_be64(bytes + 8, request->cookie);
    put_be64(bytes + 16, request->offset);
    put_be32(bytes + 24, request->length);
}

void nbd_client_close(struct nbd_client *client)
{
    uint8_t bye[NBD_REQUEST_BYTES];

    if (client->fd < 0)
        return;
    nbd_request_encode(bye, &(struct nbd_request){.type = NBD_CMD_DISC});
    (void)!send(client->fd, bye, sizeof bye, MSG_NOSIGNAL | MSG_DONTWAIT);
    close(TAKE_FD(client->fd));
}

static bool request_send(struct nbd_client *client, const struct nbd_request *request, struct err *err)
{
    uint8_t bytes[NBD_REQUEST_BYTES];

    nbd_request_encode(bytes, request);
    return send_all(client->fd, bytes, sizeof bytes, err);
}

static bool reply_receive(struct nbd_client *client, struct err *err)
{
    uint8_t reply[NBD_SIMPLE_BYTES];

    if (!receive_all(client->fd, reply, sizeof reply, err))
        return false;
    if (get_be32(reply) != NBD_SIMPLE_MAGIC)
        return err_set(err, ERR_PROTOCOL, "not a simple reply");
    if (get_be32(reply + 4) != NBD_OK)
        return err_set(err, ERR_IO, "the NBD server answers error %u", get_be32(reply + 4));
    return true;
}

bool nbd_client_read(struct nbd_client *client, uint64_t offset, void *bytes, uint32_t length,
                     struct err *err)
{
    struct nbd_request request = {.type = NBD_CMD_READ, .offset = offset, .length = length};

    return request_send(client, &request, err) && reply_receive(client, err) &&
           receive_all(client->fd, bytes, length, err);
}

bool nbd_client_write(struct nbd_client *client, uint64_t offset, const void *bytes, uint32_t length,
                      struct err *err)
{
    struct nbd_request request = {.type = NBD_CMD_WRITE, .offset = offset, .length = length};

    return request_send(client, &request, err) && send_all(client->fd, bytes, length, err) &&
           reply_receive(client, err);
}

bool nbd_client_flush(struct nbd_client *client, struct err *err)
{
    struct nbd_request request = {.type = NBD_CMD_FLUSH};

    return request_send(client, &request, err) && reply_receive(client, err);
}
