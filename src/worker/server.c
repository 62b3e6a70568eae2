#include "server.h"

#include "auto.h"
#include "log.h"
#include "unix_socket.h"
#include "wire.h"

#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/socket.h>
#include <time.h>
#include <unistd.h>

#define MAX_CLIENTS     64
#define SEND_TIMEOUT_MS 1000
#define REPORT_EVERY_MS 100

struct client {
    struct wire wire;
    unsigned references; /* the server's list, and a request that is not answered */
};

struct server_request {
    struct server *server;
    struct client *client;
    char *operation;
    json_t *arguments;
    _Atomic int64_t reported_ms; /* when the client was last told of progress */
    char phase[32];              /* of which; by one thread after the other */
    struct server_request *next;
};

struct server {
    pthread_t thread;
    struct unix_listener listener;
    int stop_fd;     /* readable: the thread ends */
    int request_fd;  /* readable: the queue has grown */
    struct client *clients[MAX_CLIENTS]; /* the thread's alone */
    size_t client_count;

    pthread_mutex_t mutex; /* for all below, and the references of clients */
    struct server_request *queue;
    char active[32];       /* the operation in progress, "" if none */
    char background[32];   /* what goes on beside, "" if nothing does */
    bool background_cancelled;
    json_t *status;
    atomic_bool cancel;
};

static void client_unref(struct server *server, struct client *client)
{
    pthread_mutex_lock(&server->mutex);
    bool last = --client->references == 0;
    pthread_mutex_unlock(&server->mutex);
    if (!last)
        return;
    close(client->wire.fd);
    wire_done(&client->wire);
    free(client);
}

static void request_free(struct server_request *request)
{
    client_unref(request->server, request->client);
    json_decref(request->arguments);
    free(request->operation);
    free(request);
}

static void reply(struct client *client, json_t *message)
{
    struct err err;

    /* A client that hears nothing would wait for ever. */
    if (!message)
        shutdown(client->wire.fd, SHUT_RDWR);
    else if (!wire_send(client->wire.fd, message, SEND_TIMEOUT_MS, &err))
        log_debug("answer a client: %s", err.text);
    json_decref(message);
}

static void reply_error(struct client *client, enum err_code code, const char *text)
{
    struct err err;

    err_set_text(&err, code, 0, "%s", text);
    reply(client, wire_error(&err));
}

static json_t *status_message(struct server *server)
{
    pthread_mutex_lock(&server->mutex);
    json_t *status = server->status ? json_deep_copy(server->status) : json_object();
    const char *operation = server->active[0] != '\0' ? server->active : server->queue ? server->queue->operation : NULL;
    if (operation)
        json_object_set_new(status, "operation", json_string(operation));
    pthread_mutex_unlock(&server->mutex);
    return json_pack("{s:o}", "return", status);
}

static json_t *cancel_message(struct server *server)
{
    pthread_mutex_lock(&server->mutex);
    bool active = server->active[0] != '\0', background = !active && server->background[0] != '\0';
    json_t *name = active || background ? json_string(active ? server->active : server->background) : json_null();
    if (active)
        atomic_store(&server->cancel, true);
    server->background_cancelled |= background;
    pthread_mutex_unlock(&server->mutex);
    if (background)
        eventfd_write(server->request_fd, 1);
    return json_pack("{s:{s:o}}", "return", "cancelled", name);
}

static bool is_one_of(const char *name, const char *const *names)
{
    while (*names && strcmp(*names, name) != 0)
        names++;
    return *names != NULL;
}

/* May the operation wait behind the one that is active? Stopping and going back end a save first, stopping a merge too; looking waits. */
static bool may_queue(struct server *server, const char *operation)
{
    static const char *const SAVES[] = {"snapshot", "save", NULL};
    static const char *const END_A_SAVE[] = {"apply", "revert", NULL};
    static const char *const STOPPABLE[] = {"snapshot", "save", "start", "stop", "merge", NULL};
    static const char *const LOOKS[] = {"console", "display", "screenshot", NULL};

    if (server->active[0] == '\0' && !server->queue)
        return true;
    if (is_one_of(operation, LOOKS))
        return true;
    bool ends_it = (is_one_of(operation, END_A_SAVE) && is_one_of(server->active, SAVES)) ||
                   (strcmp(operation, "stop") == 0 && is_one_of(server->active, STOPPABLE));
    if (server->queue || !ends_it)
        return false;
    atomic_store(&server->cancel, true);
    return true;
}

/* Takes arguments. */
static void request_queue(struct server *server, struct client *client, const char *operation,
                          json_t *arguments)
{
    struct server_request *request = calloc(1, sizeof *request);
    char busy[96];

    if (!request) {
        json_decref(arguments);
        return;
    }
    *request = (struct server_request){
        .server = server, .client = client, .operation = strdup(operation), .arguments = arguments};
    pthread_mutex_lock(&server->mutex);
    client->references++;
    bool queued = may_queue(server, operation);
    if (queued) {
        struct server_request **tail = &server->queue;
        while (*tail)
            tail = &(*tail)->next;
        *tail = request;
    } else {
        snprintf(busy, sizeof busy, "%s: the VM is busy: %s is in progress", operation,
                 server->active[0] ? server->active : server->queue->operation);
    }
    pthread_mutex_unlock(&server->mutex);
    if (queued) {
        eventfd_write(server->request_fd, 1);
        return;
    }
    reply_error(client, ERR_BUSY, busy);
    request_free(request);
}

static void message_handle(struct server *server, struct client *client, json_t *message)
{
    const char *operation = json_string_value(json_object_get(message, "execute"));
    json_t *arguments = json_object_get(message, "arguments");

    if (!operation)
        reply_error(client, ERR_PROTOCOL, "a message without 'execute'");
    else if (strcmp(operation, "status") == 0)
        reply(client, status_message(server));
    else if (strcmp(operation, "cancel") == 0)
        reply(client, cancel_message(server));
    else
        request_queue(server, client, operation, json_incref(arguments));
    json_decref(message);
}

/* False: the client is to be dropped. */
static bool client_readable(struct server *server, struct client *client)
{
    struct err err;
    json_t *message;

    for (;;) {
        if (!wire_receive(&client->wire, 0, &message, &err)) {
            if (err.sys != EPIPE)
                reply_error(client, err.code, err.text);
            return false;
        }
        if (!message)
            return true;
        message_handle(server, client, message);
    }
}

static void client_add(struct server *server, int fd)
{
    struct client *client = server->client_count < MAX_CLIENTS ? calloc(1, sizeof *client) : NULL;

    if (!client) {
        close(fd);
        return;
    }
    *client = (struct client){.wire = {.fd = fd}, .references = 1};
    server->clients[server->client_count++] = client;
}

static void client_accept(struct server *server)
{
    struct ucred peer;
    socklen_t length = sizeof peer;
    AUTO_FD int fd = accept4(server->listener.fd, NULL, NULL, SOCK_CLOEXEC);

    if (fd < 0)
        return;
    if (getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &peer, &length) != 0 || (peer.uid != geteuid() && peer.uid != 0))
        return;
    client_add(server, TAKE_FD(fd));
}

static void clients_serve(struct server *server, const struct pollfd *fds)
{
    size_t kept = 0;

    for (size_t i = 0; i < server->client_count; i++) {
        struct client *client = server->clients[i];
        if (fds[i].revents && !client_readable(server, client))
            client_unref(server, client);
        else
            server->clients[kept++] = client;
    }
    server->client_count = kept;
}

static void *server_thread(void *context)
{
    struct server *server = context;

    for (;;) {
        struct pollfd fds[2 + MAX_CLIENTS] = {{.fd = server->stop_fd, .events = POLLIN},
                                              {.fd = server->listener.fd, .events = POLLIN}};
        for (size_t i = 0; i < server->client_count; i++)
            fds[2 + i] = (struct pollfd){.fd = server->clients[i]->wire.fd, .events = POLLIN};
        if (poll(fds, 2 + server->client_count, -1) < 0 && errno != EINTR)
            return NULL;
        clients_serve(server, fds + 2);
        if (fds[0].revents)
            return NULL;
        if (fds[1].revents)
            client_accept(server);
    }
}

static void server_free(struct server *server)
{
    for (size_t i = 0; i < server->client_count; i++)
        client_unref(server, server->clients[i]);
    unix_listener_close(&server->listener);
    close(server->stop_fd);
    close(server->request_fd);
    json_decref(server->status);
    pthread_mutex_destroy(&server->mutex);
    free(server);
}

bool server_start(const char *socket_path, int first_client, json_t *status, struct server **ret_server,
                  struct err *err)
{
    AUTO_FD int first = first_client;
    struct server *server = calloc(1, sizeof *server);

    if (!server) {
        json_decref(status);
        return err_oom(err);
    }
    server->status = status;
    server->listener.fd = -1;
    server->stop_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    server->request_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    pthread_mutex_init(&server->mutex, NULL);
    bool ready = server->stop_fd >= 0 && server->request_fd >= 0;
    if (!ready)
        err_set_text(err, ERR_NO_MEMORY, 0, "start the control socket");
    if (!ready || !unix_listen(socket_path, &server->listener, err)) {
        server_free(server);
        return false;
    }
    if (first >= 0)
        client_add(server, TAKE_FD(first));
    int errnum = pthread_create(&server->thread, NULL, server_thread, server);
    if (errnum != 0) {
        server_free(server);
        return err_sys(err, errnum, "start a thread");
    }
    *ret_server = server;
    return true;
}

static struct server_request *queue_take(struct server *server)
{
    pthread_mutex_lock(&server->mutex);
    struct server_request *request = server->queue;
    if (request) {
        server->queue = request->next;
        snprintf(server->active, sizeof server->active, "%s", request->operation);
        atomic_store(&server->cancel, false);
    }
    pthread_mutex_unlock(&server->mutex);
    return request;
}

void server_stop(struct server *server)
{
    if (!server)
        return;
    eventfd_write(server->stop_fd, 1);
    pthread_join(server->thread, NULL);
    /* What was not begun is closed without a word: the client asks again, and finds the VM's next owner. */
    for (struct server_request *request; (request = queue_take(server)) != NULL;)
        request_free(request);
    server_free(server);
}

int server_fd(const struct server *server)
{
    return server->request_fd;
}

struct server_request *server_next(struct server *server)
{
    eventfd_t count;

    /* Read before the look at the queue: what comes in between makes it readable again. */
    eventfd_read(server->request_fd, &count);
    struct server_request *request = queue_take(server);
    if (request) {
        reply(request->client, json_pack("{s:s}", "begun", request->operation));
        eventfd_write(server->request_fd, 1); /* there may be more */
    }
    return request;
}

const char *server_request_operation(const struct server_request *request)
{
    return request->operation;
}

const json_t *server_request_arguments(const struct server_request *request)
{
    return request->arguments;
}

static void report_to_client(void *context, const char *phase, uint64_t done, uint64_t total)
{
    struct server_request *request = context;
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC_COARSE, &now);
    int64_t now_ms = now.tv_sec * 1000LL + now.tv_nsec / 1000000;
    bool is_news = strncmp(request->phase, phase, sizeof request->phase - 1) != 0;
    if (!is_news && now_ms - request->reported_ms < REPORT_EVERY_MS)
        return;
    snprintf(request->phase, sizeof request->phase, "%s", phase);
    request->reported_ms = now_ms;
    json_t *message = json_pack("{s:{s:s, s:I, s:I}}", "progress", "phase", phase, "done", (json_int_t)done,
                                     "total", (json_int_t)total);
    /* From the thread that reads the guest's memory: it waits for nobody. A line as short as this is sent whole or not at all. */
    struct err ignored;
    if (message)
        (void)!wire_send(request->client->wire.fd, message, /* timeout_ms= */ 0, &ignored);
    json_decref(message);
}

static bool client_cancelled(void *context)
{
    struct server_request *request = context;

    return atomic_load(&request->server->cancel);
}

struct progress server_request_progress(struct server_request *request)
{
    return (struct progress){.report = report_to_client, .cancelled = client_cancelled, .context = request};
}

void server_answer(struct server_request *request, json_t *value, const struct err *err)
{
    struct server *server = request->server;

    /* Free for the next before the client hears: it may ask again at once. */
    pthread_mutex_lock(&server->mutex);
    server->active[0] = '\0';
    pthread_mutex_unlock(&server->mutex);
    reply(request->client, value ? json_pack("{s:o}", "return", value) : wire_error(err));
    request_free(request);
}

void server_set_background(struct server *server, const char *name)
{
    pthread_mutex_lock(&server->mutex);
    snprintf(server->background, sizeof server->background, "%s", name ? name : "");
    pthread_mutex_unlock(&server->mutex);
}

bool server_background_cancelled(struct server *server)
{
    pthread_mutex_lock(&server->mutex);
    bool cancelled = server->background_cancelled;
    server->background_cancelled = false;
    pthread_mutex_unlock(&server->mutex);
    return cancelled;
}

void server_set_status(struct server *server, json_t *status)
{
    pthread_mutex_lock(&server->mutex);
    json_t *old = server->status;
    server->status = status;
    pthread_mutex_unlock(&server->mutex);
    json_decref(old);
}
