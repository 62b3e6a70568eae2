/* The thread that owns a disk, and the messages to it. */
#include "engine_private.h"

#include "engine_core.h"
#include "unix_socket.h"
#include "nbd_server.h"

#include <errno.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/eventfd.h>

/* A flush makes all sealed layers clean; writes on the way to them may ask for another. */
#define FLUSH_ROUNDS 8

enum message_kind {
    MESSAGE_PREPARE,
    MESSAGE_SWITCH,
    MESSAGE_FLUSH,
    MESSAGE_STATUS,
    MESSAGE_CALL,
    MESSAGE_STOP,
    MESSAGE_ABANDON
};

/* On the stack of the thread that waits for the answer. */
struct message {
    enum message_kind kind;
    const char *path;                 /* PREPARE */
    struct engine_status *ret_status; /* STATUS */
    engine_call_fn *call;             /* CALL; SWITCH: NULL, or instead of one */
    void *context;                    /* of the call */
    struct err *err;
    bool ok, answered;
    struct engine *engine;
    struct request flush;
    unsigned flush_rounds;
    struct message *next;
};

struct message_list {
    struct message *first, *last;
};

struct engine {
    struct disk *disk;
    struct unix_listener socket;
    char *export_name;
    struct nbd_export export;
    bool no_io_uring;

    pthread_t thread;
    pthread_mutex_t lock; /* over the next four */
    pthread_cond_t answered;
    struct message_list inbox;
    bool started, start_failed;
    struct err start_err;

    int wake_fd; /* an eventfd: there is something in the inbox */

    /* Of the thread alone. */
    struct ring *ring;
    struct core core;
    struct nbd_server *server;
    struct ring_op wake;
    bool waking, stopping;
    struct message_list switches; /* wait for their turn; the first one is at work */
};

static void message_append(struct message_list *list, struct message *message)
{
    message->next = NULL;
    if (list->last)
        list->last->next = message;
    else
        list->first = message;
    list->last = message;
}

static struct message *message_take(struct message_list *list)
{
    struct message *message = list->first;

    if (!message)
        return NULL;
    list->first = message->next;
    if (!list->first)
        list->last = NULL;
    return message;
}

static void message_answer(struct message *message, bool ok)
{
    struct engine *engine = message->engine;

    pthread_mutex_lock(&engine->lock);
    message->ok = ok;
    message->answered = true;
    pthread_cond_broadcast(&engine->answered);
    pthread_mutex_unlock(&engine->lock);
}

/* --- on the thread --- */

static void prepare_do(struct message *message)
{
    struct engine *engine = message->engine;
    struct disk_next_top *next = NULL;

    disk_next_top_abandon(TAKE(engine->core.next_top));
    bool ok = !message->path || disk_next_top_open(engine->disk, message->path, &next, message->err);
    engine->core.next_top = next;
    message_answer(message, ok);
}

static void call_do(struct message *message)
{
    message_answer(message, message->call(&message->engine->core, message->context, message->err));
}

static void switches_go_on(struct engine *engine);

/* At an instant with no request at work. */
static void switched(void *context)
{
    struct engine *engine = context;
    struct message *message = message_take(&engine->switches);

    if (message && message->call)
        call_do(message);
    else if (message)
        message_answer(message, true);
    switches_go_on(engine);
}

static void switches_go_on(struct engine *engine)
{
    const struct message *next = engine->switches.first;

    if (next && next->call)
        core_at_instant(&engine->core, switched, engine);
    else if (next)
        core_switch_top(&engine->core, switched, engine);
}

static void switch_do(struct message *message)
{
    struct engine *engine = message->engine;

    message_append(&engine->switches, message);
    if (engine->switches.first == message)
        switches_go_on(engine);
}

static void flush_done(struct request *request, int errnum)
{
    struct message *message = (struct message *)(void *)((char *)request - offsetof(struct message, flush));
    struct engine *engine = message->engine;

    if (errnum != 0) {
        struct disk_layer top;
        disk_layer_get(engine->disk, 0, &top);
        message_answer(message, err_sys(message->err, errnum, "%s: flush", top.path));
    } else if (disk_sealed_layers_are_clean(engine->disk)) {
        message_answer(message, true);
    } else if (++message->flush_rounds < FLUSH_ROUNDS) {
        core_submit(&engine->core, request);
    } else {
        message_answer(message, err_set(message->err, ERR_INTERNAL,
                                        "a sealed layer stays unsaved after %d flushes", FLUSH_ROUNDS));
    }
}

static void status_do(struct message *message)
{
    struct engine *engine = message->engine;
    const struct core_counters *counters = &engine->core.counters;

    *message->ret_status = (struct engine_status){
        .depth = disk_depth(engine->disk),
        .clients = nbd_server_clients(engine->server),
        .reads = counters->reads,
        .writes = counters->writes,
        .flushes = counters->flushes,
        .read_bytes = counters->read_bytes,
        .written_bytes = counters->written_bytes,
        .dirty_bytes = engine->core.dirty_bytes,
        .map_bytes = disk_map_bytes(engine->disk),
        .io_uring = ring_is_io_uring(engine->ring),
    };
    message_answer(message, true);
}

static void message_do(struct message *message)
{
    struct engine *engine = message->engine;

    switch (message->kind) {
    case MESSAGE_PREPARE:
        prepare_do(message);
        break;
    case MESSAGE_SWITCH:
        switch_do(message);
        break;
    case MESSAGE_FLUSH:
        message->flush.kind = REQUEST_FLUSH;
        message->flush.done = flush_done;
        core_submit(&engine->core, &message->flush);
        break;
    case MESSAGE_STATUS:
        status_do(message);
        break;
    case MESSAGE_CALL:
        call_do(message);
        break;
    case MESSAGE_STOP:
    case MESSAGE_ABANDON:
        engine->stopping = engine->core.ending = true;
        engine->core.abandoned = message->kind == MESSAGE_ABANDON;
        nbd_server_stop(engine->server);
        message_answer(message, true);
        break;
    }
}

static void wake_watch(struct engine *engine);

static void woken(struct ring_op *op, int64_t result)
{
    struct engine *engine = (struct engine *)(void *)((char *)op - offsetof(struct engine, wake));
    struct message *message;
    uint64_t count;

    (void)result;
    engine->waking = false;
    if (read(engine->wake_fd, &count, sizeof count) < 0 && errno != EAGAIN)
        return;
    pthread_mutex_lock(&engine->lock);
    struct message_list list = engine->inbox;
    engine->inbox = (struct message_list){0};
    pthread_mutex_unlock(&engine->lock);
    while ((message = message_take(&list)))
        message_do(message);
    nbd_server_listen_again(engine->server);
    wake_watch(engine);
}

static void wake_watch(struct engine *engine)
{
    if (engine->stopping)
        return; /* the last message has come */
    engine->waking = true;
    engine->wake.done = woken;
    ring_poll(engine->ring, &engine->wake, engine->wake_fd);
}

static bool is_over(const struct engine *engine)
{
    return engine->stopping && !engine->waking && nbd_server_is_idle(engine->server) &&
           core_is_idle(&engine->core);
}

static bool thread_start(struct engine *engine, struct err *err)
{
    if (!ring_new(engine->no_io_uring, &engine->ring, err))
        return false;
    core_init(&engine->core, engine->disk, engine->ring);
    if (!nbd_server_new(&engine->core, &engine->export, engine->socket.fd, &engine->server, err)) {
        ring_free(engine->ring);
        return false;
    }
    wake_watch(engine);
    return true;
}

static void *thread_main(void *argument)
{
    struct engine *engine = argument;
    struct err err = ERR_INIT;

    bool ok = thread_start(engine, &err);
    pthread_mutex_lock(&engine->lock);
    engine->started = true;
    engine->start_failed = !ok;
    engine->start_err = err;
    pthread_cond_broadcast(&engine->answered);
    pthread_mutex_unlock(&engine->lock);
    if (!ok)
        return NULL;
    while (!is_over(engine)) {
        /* Fails only for want of memory in the kernel or here: there is nothing to do but to go on. */
        if (!ring_wait(engine->ring, !core_is_busy(&engine->core), &err))
            usleep(1000);
        core_turn(&engine->core);
        nbd_server_turn(engine->server);
    }
    nbd_server_free(engine->server);
    core_done(&engine->core);
    ring_free(engine->ring);
    return NULL;
}

/* --- on the callers' threads --- */

static void engine_free(struct engine *engine)
{
    unix_listener_close(&engine->socket);
    if (engine->wake_fd >= 0)
        close(engine->wake_fd);
    pthread_cond_destroy(&engine->answered);
    pthread_mutex_destroy(&engine->lock);
    free(engine->export_name);
    free(engine);
}
AUTO_DEFINE(auto_engine_free, struct engine, engine_free)

static struct engine *engine_new(struct disk *disk, const struct engine_options *options)
{
    struct engine *engine = calloc(1, sizeof *engine);

    if (!engine)
        return NULL;
    engine->disk = disk;
    engine->socket.fd = engine->wake_fd = -1;
    engine->no_io_uring = options->no_io_uring;
    pthread_mutex_init(&engine->lock, NULL);
    pthread_cond_init(&engine->answered, NULL);
    engine->export_name = strdup(options->export_name);
    if (!engine->export_name) {
        engine_free(engine);
        return NULL;
    }
    engine->export = (struct nbd_export){
        .name = engine->export_name,
        .size_bytes = disk_size_bytes(disk),
        .read_only = options->read_only,
    };
    return engine;
}

/* Signals are for the other threads: a handler must not run here. */
static int thread_create(struct engine *engine)
{
    sigset_t all, old;

    sigfillset(&all);
    pthread_sigmask(SIG_SETMASK, &all, &old);
    int errnum = pthread_create(&engine->thread, NULL, thread_main, engine);
    pthread_sigmask(SIG_SETMASK, &old, NULL);
    if (errnum == 0)
        pthread_setname_np(engine->thread, "bough-disk");
    return errnum;
}

static bool engine_launch(struct engine *engine, const char *socket_path, struct err *err)
{
    engine->wake_fd = eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (engine->wake_fd < 0)
        return err_sys(err, errno, "eventfd");
    if (!unix_listen(socket_path, &engine->socket, err))
        return false;
    int errnum = thread_create(engine);
    if (errnum != 0)
        return err_sys(err, errnum, "thread of a disk");
    pthread_mutex_lock(&engine->lock);
    while (!engine->started)
        pthread_cond_wait(&engine->answered, &engine->lock);
    pthread_mutex_unlock(&engine->lock);
    if (!engine->start_failed)
        return true;
    pthread_join(engine->thread, NULL);
    *err = engine->start_err;
    return false;
}

bool engine_start(struct disk *disk, const struct engine_options *options, struct engine **ret_engine,
                  struct err *err)
{
    AUTO_DISK struct disk *owned = disk;
    AUTO(auto_engine_free) struct engine *engine = engine_new(disk, options);

    if (!engine)
        return err_oom(err);
    if (!engine_launch(engine, options->socket_path, err))
        return false;
    owned = NULL;
    *ret_engine = TAKE(engine);
    return true;
}

static bool message_send(struct engine *engine, struct message *message)
{
    uint64_t one = 1;

    message->engine = engine;
    pthread_mutex_lock(&engine->lock);
    message_append(&engine->inbox, message);
    /* Cannot fail short of 2^64 messages that nobody took. */
    while (write(engine->wake_fd, &one, sizeof one) < 0 && errno == EINTR)
        continue;
    while (!message->answered)
        pthread_cond_wait(&engine->answered, &engine->lock);
    pthread_mutex_unlock(&engine->lock);
    return message->ok;
}

static void engine_end(struct engine *engine, enum message_kind kind)
{
    (void)message_send(engine, &(struct message){.kind = kind});
    pthread_join(engine->thread, NULL);
    engine_free(engine);
}

bool engine_stop(struct engine *engine, struct err *err)
{
    struct disk *disk = engine->disk;

    engine_end(engine, MESSAGE_STOP);
    return disk_close(disk, err);
}

void engine_abandon(struct engine *engine)
{
    struct disk *disk = engine->disk;

    engine_end(engine, MESSAGE_ABANDON);
    disk_drop(disk);
}

bool engine_prepare_top(struct engine *engine, const char *path, struct err *err)
{
    return message_send(engine, &(struct message){.kind = MESSAGE_PREPARE, .path = path, .err = err});
}

void engine_switch_top(struct engine *engine)
{
    (void)message_send(engine, &(struct message){.kind = MESSAGE_SWITCH});
}

bool engine_call(struct engine *engine, bool at_instant, engine_call_fn *call, void *context, struct err *err)
{
    return message_send(engine, &(struct message){.kind = at_instant ? MESSAGE_SWITCH : MESSAGE_CALL,
                                                  .call = call,
                                                  .context = context,
                                                  .err = err});
}

bool engine_flush(struct engine *engine, struct err *err)
{
    return message_send(engine, &(struct message){.kind = MESSAGE_FLUSH, .err = err});
}

void engine_status_get(struct engine *engine, struct engine_status *ret_status)
{
    (void)message_send(engine, &(struct message){.kind = MESSAGE_STATUS, .ret_status = ret_status});
}
