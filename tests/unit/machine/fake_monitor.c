#include "fake_monitor.h"

#include <poll.h>
#include <pthread.h>
#include <semaphore.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

struct fake {
    pthread_t thread;
    sem_t go;
    int listener, peer, received_fd;
    const struct fake_step *steps;
    size_t count;
    char id[32];
    char received[65536];
    size_t received_length;
};

static bool send_all(struct fake *fake, const char *bytes, size_t length)
{
    while (length > 0) {
        ssize_t count = send(fake->peer, bytes, length, MSG_NOSIGNAL);
        if (count <= 0)
            return false;
        bytes += count;
        length -= (size_t)count;
    }
    return true;
}

static bool send_text(struct fake *fake, const char *text, bool drip)
{
    char expanded[4096];
    size_t length = 0;
    for (const char *at = text; *at && length < sizeof(expanded) - sizeof(fake->id); at++)
        length +=
            *at == '$' ? (size_t)sprintf(expanded + length, "%s", fake->id) : (expanded[length] = *at, 1U);
    for (size_t i = 0; drip && i < length; i++)
        if (!send_all(fake, expanded + i, 1))
            return false;
    return drip || send_all(fake, expanded, length);
}

/* One byte, and the descriptor that may come with it. */
static bool receive_byte(struct fake *fake, char *byte)
{
    union {
        struct cmsghdr header;
        char bytes[CMSG_SPACE(sizeof(int))];
    } control;
    struct iovec vector = {.iov_base = byte, .iov_len = 1};
    struct msghdr message = {.msg_iov = &vector,
                             .msg_iovlen = 1,
                             .msg_control = control.bytes,
                             .msg_controllen = sizeof(control.bytes)};
    if (recvmsg(fake->peer, &message, MSG_CMSG_CLOEXEC) != 1)
        return false;
    const struct cmsghdr *header = CMSG_FIRSTHDR(&message);
    if (header && header->cmsg_type == SCM_RIGHTS)
        memcpy(&fake->received_fd, CMSG_DATA(header), sizeof(int));
    return true;
}

static bool read_line(struct fake *fake)
{
    size_t start = fake->received_length;
    for (char byte = 0; byte != '\n';) {
        if (fake->received_length == sizeof(fake->received) - 1 || !receive_byte(fake, &byte))
            return false;
        fake->received[fake->received_length++] = byte;
    }
    const char *id = strstr(fake->received + start, "\"id\":");
    if (id)
        sscanf(id + 5, "%31[0-9]", fake->id);
    return true;
}

static void sleep_ms(size_t milliseconds)
{
    struct timespec time = {.tv_sec = (time_t)(milliseconds / 1000),
                            .tv_nsec = (long)(milliseconds % 1000) * 1000000};
    nanosleep(&time, NULL);
}

static bool fill(struct fake *fake, size_t bytes)
{
    char block[65536];
    memset(block, 'x', sizeof(block));
    for (size_t sent = 0; sent < bytes; sent += sizeof(block))
        if (!send_all(fake, block, sizeof(block)))
            return false;
    return true;
}

static bool flood(struct fake *fake, size_t milliseconds)
{
    for (size_t i = 0; i < milliseconds; i++) {
        for (int j = 0; j < 10; j++)
            if (!send_text(
                    fake,
                    "{\"event\": \"RTC_CHANGE\", \"timestamp\": {\"seconds\": 1, \"microseconds\": 2}}\r\n",
                    false))
                return false;
        sleep_ms(1);
    }
    return true;
}

static bool step(struct fake *fake, const struct fake_step *step)
{
    switch (step->kind) {
    case FAKE_SEND:
        return send_text(fake, step->text, false);
    case FAKE_DRIP:
        return send_text(fake, step->text, true);
    case FAKE_READ:
        return read_line(fake);
    case FAKE_SLEEP:
        sleep_ms(step->number);
        return true;
    case FAKE_WAIT:
        return sem_wait(&fake->go) == 0;
    case FAKE_HOLD:
        return poll(&(struct pollfd){.fd = fake->peer, .events = POLLRDHUP}, 1, 30000) > 0;
    case FAKE_FILL:
        return fill(fake, step->number);
    case FAKE_FLOOD:
        return flood(fake, step->number);
    case FAKE_CLOSE:
        break;
    }
    return false;
}

void fake_go(struct fake *fake)
{
    sem_post(&fake->go);
}

static void *run(void *context)
{
    struct fake *fake = context;
    fake->peer = accept(fake->listener, NULL, NULL);
    for (size_t i = 0; i < fake->count && step(fake, &fake->steps[i]); i++)
        ;
    close(fake->peer);
    return NULL;
}

struct fake *fake_start(const char *socket_path, const struct fake_step *steps, size_t count)
{
    struct fake *fake = calloc(1, sizeof(*fake));
    struct sockaddr_un address = {.sun_family = AF_UNIX};
    if (!fake)
        abort();
    strncpy(address.sun_path, socket_path, sizeof(address.sun_path) - 1);
    unlink(socket_path);
    fake->steps = steps;
    fake->count = count;
    fake->received_fd = -1;
    sem_init(&fake->go, 0, 0);
    fake->listener = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (bind(fake->listener, (struct sockaddr *)&address, sizeof(address)) != 0 ||
        listen(fake->listener, 4) != 0 || pthread_create(&fake->thread, NULL, run, fake) != 0)
        abort();
    return fake;
}

void fake_finish(struct fake *fake, char **received, int *fd)
{
    pthread_join(fake->thread, NULL);
    close(fake->listener);
    if (received)
        *received = strdup(fake->received);
    if (fd)
        *fd = fake->received_fd;
    else if (fake->received_fd >= 0)
        close(fake->received_fd);
    free(fake);
}
