/* The control socket: one operation at a time, status and cancel at any time. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "auto.h"
#include "server.h"
#include "wire.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#define WAIT_MS 5000

static char dir[64];
static char path[96];

static int dir_make(void **state)
{
    (void)state;
    strcpy(dir, "/tmp/bough-server-XXXXXX");
    if (!mkdtemp(dir))
        return -1;
    snprintf(path, sizeof path, "%s/control.sock", dir);
    return 0;
}

static int dir_remove(void **state)
{
    (void)state;
    return rmdir(dir);
}

static struct server *start(void)
{
    struct server *server;
    struct err err;

    assert_true(server_start(path, /* first_client= */ -1, NULL, &server, &err));
    return server;
}

static struct wire connect_client(void)
{
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    int fd = socket(AF_UNIX, SOCK_STREAM, 0);

    strcpy(address.sun_path, path);
    assert_int_equal(connect(fd, (struct sockaddr *)&address, sizeof address), 0);
    return (struct wire){.fd = fd};
}

static void client_close(struct wire *wire)
{
    close(wire->fd);
    wire_done(wire);
}

static void ask(struct wire *wire, const char *operation)
{
    json_t *message = json_pack("{s:s}", "execute", operation);
    struct err err;

    assert_true(wire_send(wire->fd, message, WAIT_MS, &err));
    json_decref(message);
}

/* The answer; that it has begun is told before, unless it is refused. */
static json_t *answer(struct wire *wire)
{
    json_t *message;
    struct err err;

    do {
        assert_true(wire_receive(wire, WAIT_MS, &message, &err));
        assert_non_null(message);
    } while (json_object_get(message, "begun") && (json_decref(message), true));
    return message;
}

static struct server_request *next(struct server *server)
{
    struct pollfd readable = {.fd = server_fd(server), .events = POLLIN};

    for (;;) {
        struct server_request *request = server_next(server);
        if (request)
            return request;
        assert_int_equal(poll(&readable, 1, WAIT_MS), 1);
    }
}

static void assert_error(json_t *message, const char *code, const char *part)
{
    const json_t *error = json_object_get(message, "error");

    assert_string_equal(json_string_value(json_object_get(error, "code")), code);
    assert_non_null(strstr(json_string_value(json_object_get(error, "message")), part));
    json_decref(message);
}

static void the_socket_is_for_its_owner_alone(void **state)
{
    struct server *server = start();
    struct stat st;

    (void)state;
    assert_int_equal(stat(path, &st), 0);
    assert_int_equal(st.st_mode & 0777, 0600);
    server_stop(server);
    assert_int_equal(access(path, F_OK), -1);
}

static void a_second_operation_is_refused_with_the_name_of_the_first(void **state)
{
    struct server *server = start();
    struct wire first = connect_client(), second = connect_client();
    struct err err;

    (void)state;
    ask(&first, "snapshot");
    struct server_request *request = next(server);
    ask(&second, "set");
    assert_error(answer(&second), "busy", "snapshot");
    server_answer(request, json_pack("{s:s}", "guid", "x"), &err);
    json_t *done = answer(&first);
    assert_string_equal(json_string_value(json_object_get(json_object_get(done, "return"), "guid")), "x");
    json_decref(done);
    ask(&second, "set");
    server_answer(next(server), json_object(), &err);
    json_decref(answer(&second));
    client_close(&first);
    client_close(&second);
    server_stop(server);
}

static void status_is_answered_while_an_operation_runs_and_names_it(void **state)
{
    struct server *server = start();
    struct wire first = connect_client(), second = connect_client();
    struct err err;

    (void)state;
    server_set_status(server, json_pack("{s:s, s:n}", "state", "running", "operation"));
    ask(&first, "snapshot");
    struct server_request *request = next(server);
    ask(&second, "status");
    json_t *message = answer(&second);
    const json_t *status = json_object_get(message, "return");
    assert_string_equal(json_string_value(json_object_get(status, "operation")), "snapshot");
    assert_string_equal(json_string_value(json_object_get(status, "state")), "running");
    json_decref(message);
    err_set_text(&err, ERR_QEMU, 0, "gone");
    server_answer(request, NULL, &err);
    assert_error(answer(&first), "qemu", "gone");
    client_close(&first);
    client_close(&second);
    server_stop(server);
}

static void cancel_reaches_the_operation_that_runs_and_not_the_next(void **state)
{
    struct server *server = start();
    struct wire first = connect_client(), second = connect_client();
    struct err err;

    (void)state;
    ask(&first, "snapshot");
    struct server_request *request = next(server);
    struct progress progress = server_request_progress(request);
    assert_false(progress_cancelled(&progress));
    ask(&second, "cancel");
    json_decref(answer(&second));
    assert_true(progress_cancelled(&progress));
    server_answer(request, json_object(), &err);
    json_decref(answer(&first));
    ask(&first, "pause");
    request = next(server);
    progress = server_request_progress(request);
    assert_false(progress_cancelled(&progress));
    server_answer(request, json_object(), &err);
    client_close(&first);
    client_close(&second);
    server_stop(server);
}

static void assert_stop_cancels(const char *operation)
{
    struct server *server = start();
    struct wire first = connect_client(), second = connect_client();
    struct err err;

    ask(&first, operation);
    struct server_request *request = next(server);
    struct progress progress = server_request_progress(request);
    ask(&second, "stop");
    for (unsigned i = 0; i < WAIT_MS && !progress_cancelled(&progress); i++)
        usleep(1000);
    assert_true(progress_cancelled(&progress));
    err_set_text(&err, ERR_CANCELLED, 0, "cancelled");
    server_answer(request, NULL, &err);
    assert_error(answer(&first), "cancelled", "cancelled");
    request = next(server);
    assert_string_equal(server_request_operation(request), "stop");
    server_answer(request, json_object(), &err);
    json_decref(answer(&second));
    client_close(&first);
    client_close(&second);
    server_stop(server);
}

static void stop_cancels_a_save_and_waits_behind_it(void **state)
{
    (void)state;
    assert_stop_cancels("save");
}

static void stop_cancels_a_merge_that_was_asked_for(void **state)
{
    (void)state;
    assert_stop_cancels("merge");
}

static void a_client_that_dies_does_not_cancel_and_does_no_harm(void **state)
{
    struct server *server = start();
    struct wire first = connect_client(), second;
    struct err err;

    (void)state;
    ask(&first, "snapshot");
    struct server_request *request = next(server);
    struct progress progress = server_request_progress(request);
    client_close(&first);
    second = connect_client();
    ask(&second, "status"); /* the server has seen the end of the first by the time that it answers */
    json_decref(answer(&second));
    assert_false(progress_cancelled(&progress));
    progress_report(&progress, "memory", 1, 2);
    server_answer(request, json_object(), &err);
    client_close(&second);
    server_stop(server);
}

static void nonsense_closes_the_connection_with_a_reason(void **state)
{
    struct server *server = start();
    struct wire client = connect_client();
    json_t *message;
    struct err err;

    (void)state;
    assert_int_equal(write(client.fd, "GET / HTTP/1.0\n", 15), 15);
    assert_error(answer(&client), "protocol", "no JSON");
    assert_false(wire_receive(&client, WAIT_MS, &message, &err));
    client_close(&client);
    server_stop(server);
}

static void a_request_is_told_that_it_has_begun_when_it_does(void **state)
{
    struct server *server = start();
    struct wire client = connect_client();
    json_t *message;
    struct err err;

    (void)state;
    ask(&client, "pause");
    assert_true(wire_receive(&client, 50, &message, &err));
    assert_null(message);
    struct server_request *request = next(server);
    assert_true(wire_receive(&client, WAIT_MS, &message, &err));
    assert_string_equal(json_string_value(json_object_get(message, "begun")), "pause");
    json_decref(message);
    server_answer(request, json_object(), &err);
    client_close(&client);
    server_stop(server);
}

static void requests_left_at_the_end_are_closed_unbegun(void **state)
{
    struct server *server = start();
    struct wire client = connect_client();
    struct pollfd readable = {.fd = server_fd(server), .events = POLLIN};

    (void)state;
    ask(&client, "pause");
    assert_int_equal(poll(&readable, 1, WAIT_MS), 1);
    server_stop(server);
    json_t *message;
    struct err err;
    assert_false(wire_receive(&client, WAIT_MS, &message, &err));
    assert_int_equal(err.sys, EPIPE);
    client_close(&client);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(the_socket_is_for_its_owner_alone),
        cmocka_unit_test(a_second_operation_is_refused_with_the_name_of_the_first),
        cmocka_unit_test(status_is_answered_while_an_operation_runs_and_names_it),
        cmocka_unit_test(cancel_reaches_the_operation_that_runs_and_not_the_next),
        cmocka_unit_test(stop_cancels_a_save_and_waits_behind_it),
        cmocka_unit_test(stop_cancels_a_merge_that_was_asked_for),
        cmocka_unit_test(a_client_that_dies_does_not_cancel_and_does_no_harm),
        cmocka_unit_test(nonsense_closes_the_connection_with_a_reason),
        cmocka_unit_test(a_request_is_told_that_it_has_begun_when_it_does),
        cmocka_unit_test(requests_left_at_the_end_are_closed_unbegun),
    };

    return cmocka_run_group_tests(tests, dir_make, dir_remove);
}
