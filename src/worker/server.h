/* The control socket of a worker: a thread of its own takes requests, one operation at a time, and answers at once what needs no
 * machine: who is busy, `status`, `cancel`. The main thread does the operations. */
#pragma once

#include "err.h"
#include "progress.h"

#include <jansson.h>

struct server;

/* Listens at the path (0600, replaced if it is there). first_client: a connected socket, taken, or -1. status: what `status` answers
 * from the beginning; stolen, NULL for {}. */
bool server_start(const char *socket_path, int first_client, json_t *status, struct server **ret_server,
                  struct err *err) MUST_CHECK;
/* Closes the listener and all clients, ends the thread, frees. Requests that were not begun are closed without an answer. Accepts
 * NULL. */
void server_stop(struct server *server);

/* The main thread's side. */
struct server_request;
int server_fd(const struct server *server); /* readable when there may be a request */
/* The next request, or NULL; its client is told that it has begun. While it is not answered, others are refused by its name. */
struct server_request *server_next(struct server *server);
const char *server_request_operation(const struct server_request *request);
const json_t *server_request_arguments(const struct server_request *request); /* NULL for none */
/* Reports to the client, and hears of `cancel`. Valid until the answer. */
struct progress server_request_progress(struct server_request *request);
/* value (stolen), or NULL and *err. Ends the request. */
void server_answer(struct server_request *request, json_t *value, const struct err *err);
/* Something that `cancel` ends when no operation is in progress: its name; NULL: there is nothing. */
void server_set_background(struct server *server, const char *name);
/* Was it cancelled? Asked once. server_fd() becomes readable by it. */
bool server_background_cancelled(struct server *server);
/* What `status` answers from now on; stolen. */
void server_set_status(struct server *server, json_t *status);
