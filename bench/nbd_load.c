/* A light NBD client that loads a server and measures it: raw requests over a unix socket, as many sent and
 * as many answers taken by one system call as there are.
 *
 *   nbd_load SOCKET NAME=VALUE...
 *     op=read|write|mixed  mixed: reads and writes by turns of chance, half and half    (read)
 *     order=random|sequential                                                          (random)
 *     block=BYTES          of a request, a multiple of 512                              (4096)
 *     depth=N              requests in flight, up to 256                                (1)
 *     start=BYTES          requests fall behind so many bytes of the disk               (0)
 *     span=BYTES           and into so many from there                                  (all)
 *     write_span=BYTES     writes of op=mixed: into so many                             (span)
 *     flush=0|1            each write is followed by a flush, and both are one request  (0)
 *     seconds=S            how long                                                     (1)
 *     once=0|1             each block of the span is met once; then it ends earlier     (0)
 *     seed=N                                                                            (1)
 *     log=FILE             a record of 24 bytes for each request, in the order of their ends, in the
 * machine's byte order: u64 begun, u64 ended (CLOCK_MONOTONIC ns), u64 0 for a read, 1 for a write
 *
 * Prints one JSON object; `cpu` is the client's own share of a processor. Latency is from when a request is
 * handed to the socket until its answer has been read. */
#include "bytes.h"
#include "nbd_client.h"
#include "random.h"

#include <errno.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <time.h>

#define MAX_DEPTH       256U
#define MAX_BLOCK_BYTES (4U << 20)
#define INPUT_BYTES     (256U << 10)
#define NS_PER_SECOND   1000000000ULL

enum op { OP_READ, OP_WRITE, OP_MIXED };

struct settings {
    enum op op;
    bool sequential, flush, once;
    uint32_t block_bytes, depth;
    uint64_t start_bytes, span_bytes, write_span_bytes, seed;
    double seconds;
    const char *log_path;
};

struct slot {
    uint64_t begun_ns;
    uint16_t type; /* of the request under way */
    bool is_write;
    uint8_t header[NBD_REQUEST_BYTES];
};

struct record {
    uint64_t begun_ns, ended_ns, is_write;
};

struct load {
    struct settings settings;
    int fd;
    struct random random;
    struct slot slots[MAX_DEPTH];
    uint32_t *turns; /* the blocks of the span as their turn comes, if each is met once */
    uint64_t next_block, end_ns;
    uint32_t in_flight;

    struct iovec output[MAX_DEPTH * 2]; /* not yet sent: first_output to output_count */
    size_t first_output, output_count;
    uint8_t *payload; /* of every write */

    uint8_t *input;
    size_t input_begin, input_end;
    uint64_t skip; /* bytes of data yet to come, that nobody looks at */
    uint32_t skip_slot;
    bool skip_done; /* they end their reply */

    struct record *records;
    size_t record_count, record_capacity;
};

static uint64_t now_ns(void)
{
    struct timespec now;

    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * NS_PER_SECOND + (uint64_t)now.tv_nsec;
}

/* --- requests --- */

static void output_add(struct load *load, void *bytes, size_t length)
{
    load->output[load->output_count++] = (struct iovec){.iov_base = bytes, .iov_len = length};
}

static void request_queue(struct load *load, uint32_t index, uint16_t type, uint64_t offset, uint32_t length)
{
    struct slot *slot = &load->slots[index];
    struct nbd_request request = {.type = type, .cookie = index, .offset = offset, .length = length};

    slot->type = type;
    nbd_request_encode(slot->header, &request);
    output_add(load, slot->header, sizeof slot->header);
    if (type == NBD_CMD_WRITE)
        output_add(load, load->payload, length);
}

static bool is_over(const struct load *load, uint64_t now)
{
    const struct settings *settings = &load->settings;

    return now >= load->end_ns ||
           (settings->once && load->next_block >= settings->span_bytes / settings->block_bytes);
}

static uint64_t block_choose(struct load *load, bool is_write)
{
    const struct settings *settings = &load->settings;
    uint64_t span_bytes = is_write ? settings->write_span_bytes : settings->span_bytes;
    uint64_t blocks = span_bytes / settings->block_bytes;

    if (load->turns)
        return load->turns[load->next_block++];
    if (settings->sequential)
        return load->next_block++ % blocks;
    return random_below(&load->random, blocks);
}

static void request_begin(struct load *load, uint32_t index, uint64_t now)
{
    const struct settings *settings = &load->settings;
    struct slot *slot = &load->slots[index];
    bool is_write =
        settings->op == OP_WRITE || (settings->op == OP_MIXED && (random_next(&load->random) >> 63) != 0);
    uint64_t offset = settings->start_bytes + block_choose(load, is_write) * settings->block_bytes;

    slot->begun_ns = now;
    slot->is_write = is_write;
    request_queue(load, index, is_write ? NBD_CMD_WRITE : NBD_CMD_READ, offset, settings->block_bytes);
    load->in_flight++;
}

static bool record_add(struct load *load, const struct slot *slot, uint64_t now)
{
    if (load->record_count == load->record_capacity) {
        size_t capacity = load->record_capacity ? load->record_capacity * 2 : 1U << 16;
        struct record *records = realloc(load->records, capacity * sizeof *records);
        if (!records)
            return false;
        load->records = records;
        load->record_capacity = capacity;
    }
    load->records[load->record_count++] =
        (struct record){.begun_ns = slot->begun_ns, .ended_ns = now, .is_write = slot->is_write};
    return true;
}

/* The slot's request has its answer: its flush, or the next one, or none any more. */
static bool answered(struct load *load, uint32_t index, struct err *err)
{
    struct slot *slot = &load->slots[index];
    uint64_t now = now_ns();

    if (load->settings.flush && slot->type == NBD_CMD_WRITE) {
        request_queue(load, index, NBD_CMD_FLUSH, 0, 0);
        return true;
    }
    if (!record_add(load, slot, now))
        return err_oom(err);
    load->in_flight--;
    if (!is_over(load, now))
        request_begin(load, index, now);
    return true;
}

/* --- the socket --- */

/* What could not be sent goes to the front: so there is always room for all that can be in flight. */
static void output_compact(struct load *load)
{
    size_t left = load->output_count - load->first_output;

    memmove(load->output, load->output + load->first_output, left * sizeof *load->output);
    load->first_output = 0;
    load->output_count = left;
}

/* Sends what the socket takes now. */
static bool output_send(struct load *load, struct err *err)
{
    while (load->first_output < load->output_count) {
        struct msghdr message = {.msg_iov = load->output + load->first_output,
                                 .msg_iovlen = load->output_count - load->first_output};
        ssize_t sent = sendmsg(load->fd, &message, MSG_NOSIGNAL | MSG_DONTWAIT);
        if (sent < 0 && errno == EAGAIN)
            break;
        if (sent < 0)
            return err_sys(err, errno, "send to the NBD server");
        for (size_t left = (size_t)sent; left > 0;) {
            struct iovec *first = &load->output[load->first_output];
            size_t part = (size_t)min_u64(left, first->iov_len);
            first->iov_base = (uint8_t *)first->iov_base + part;
            first->iov_len -= part;
            left -= part;
            load->first_output += first->iov_len == 0;
        }
    }
    output_compact(load);
    return true;
}

/* What a reply's header says: how much data follows it, and whether it is the last of its reply. */
struct header {
    uint64_t cookie;
    uint32_t length;
    bool good, last;
};

static struct header chunk_decode(const uint8_t *bytes)
{
    uint16_t flags = get_be16(bytes + 4), type = get_be16(bytes + 6);

    return (struct header){
        .cookie = get_be64(bytes + 8),
        .length = get_be32(bytes + 16),
        .good = type == NBD_CHUNK_NONE || type == NBD_CHUNK_OFFSET_DATA || type == NBD_CHUNK_OFFSET_HOLE,
        .last = (flags & NBD_CHUNK_DONE) != 0,
    };
}

/* Only reads must be answered by chunks. */
static struct header simple_decode(const uint8_t *bytes)
{
    return (struct header){
        .cookie = get_be64(bytes + 8), .good = get_be32(bytes + 4) == NBD_OK, .last = true};
}

/* One header; *ret_used is 0 if it has not come whole. */
static bool header_take(struct load *load, const uint8_t *bytes, size_t length, size_t *ret_used,
                        struct err *err)
{
    struct header header;

    *ret_used = 0;
    if (length < NBD_SIMPLE_BYTES)
        return true;
    uint32_t magic = get_be32(bytes);
    size_t used = magic == NBD_SIMPLE_MAGIC ? NBD_SIMPLE_BYTES : NBD_CHUNK_BYTES;
    if (length < used)
        return true;
    if (magic != NBD_SIMPLE_MAGIC && magic != NBD_CHUNK_MAGIC)
        return err_set(err, ERR_PROTOCOL, "a reply begins with %#x", magic);
    header = magic == NBD_SIMPLE_MAGIC ? simple_decode(bytes) : chunk_decode(bytes);
    if (!header.good || header.cookie >= load->settings.depth || header.length > MAX_BLOCK_BYTES + 8)
        return err_set(err, ERR_PROTOCOL, "an error, or no answer to what was asked, of %u bytes",
                       header.length);
    *ret_used = used;
    load->skip = header.length;
    load->skip_slot = (uint32_t)header.cookie;
    load->skip_done = header.last;
    return true;
}

/* Works through what has come. */
static bool input_take(struct load *load, struct err *err)
{
    size_t used = 1;

    while (used > 0) {
        size_t length = load->input_end - load->input_begin;
        used = (size_t)min_u64(load->skip, length);
        if (load->skip > 0) {
            load->skip -= used;
        } else if (!header_take(load, load->input + load->input_begin, length, &used, err)) {
            return false;
        }
        load->input_begin += used;
        if (load->skip == 0 && load->skip_done) {
            load->skip_done = false;
            if (!answered(load, load->skip_slot, err))
                return false;
        }
    }
    return true;
}

static bool input_receive(struct load *load, bool *ret_any, struct err *err)
{
    memmove(load->input, load->input + load->input_begin, load->input_end - load->input_begin);
    load->input_end -= load->input_begin;
    load->input_begin = 0;
    ssize_t got = recv(load->fd, load->input + load->input_end, INPUT_BYTES - load->input_end, MSG_DONTWAIT);
    *ret_any = got > 0;
    if (got == 0)
        return err_set(err, ERR_PROTOCOL, "the NBD server closed the connection");
    if (got < 0 && errno != EAGAIN && errno != EINTR)
        return err_sys(err, errno, "receive from the NBD server");
    load->input_end += got > 0 ? (size_t)got : 0;
    return true;
}

static bool run(struct load *load, struct err *err)
{
    uint64_t now = now_ns();
    bool any;

    load->end_ns = now + (uint64_t)(load->settings.seconds * (double)NS_PER_SECOND);
    for (uint32_t i = 0; i < load->settings.depth && !is_over(load, now); i++)
        request_begin(load, i, now);
    while (load->in_flight > 0) {
        if (!output_send(load, err) || !input_receive(load, &any, err))
            return false;
        if (!any) {
            short output = load->output_count > 0 ? POLLOUT : 0;
            struct pollfd wanted = {.fd = load->fd, .events = (short)(POLLIN | output)};
            poll(&wanted, 1, -1);
        } else if (!input_take(load, err)) {
            return false;
        }
    }
    return true;
}

/* --- settings and results --- */

static bool number_read(const char *value, uint64_t least, uint64_t most, uint64_t *ret, struct err *err)
{
    char *end;

    unsigned long long number = strtoull(value, &end, 10);
    if (end == value || *end != '\0' || number < least || number > most)
        return err_set(err, ERR_USAGE, "%s: no number from %llu to %llu", value, (unsigned long long)least,
                       (unsigned long long)most);
    *ret = number;
    return true;
}

static bool is_setting(const char *word, const char *name, const char **ret_value)
{
    size_t length = strlen(name);

    if (strncmp(word, name, length) != 0 || word[length] != '=')
        return false;
    *ret_value = word + length + 1;
    return true;
}

static bool setting_read(const char *word, struct settings *settings, struct err *err)
{
    uint64_t number = 0;
    const char *value;

    if (is_setting(word, "op", &value))
        settings->op = *value == 'r' ? OP_READ : *value == 'w' ? OP_WRITE : OP_MIXED;
    else if (is_setting(word, "order", &value))
        settings->sequential = *value == 's';
    else if (is_setting(word, "log", &value))
        settings->log_path = value;
    else if (is_setting(word, "seconds", &value))
        settings->seconds = strtod(value, NULL);
    else if (is_setting(word, "start", &value))
        return number_read(value, 0, INT64_MAX, &settings->start_bytes, err);
    else if (is_setting(word, "span", &value))
        return number_read(value, 512, INT64_MAX, &settings->span_bytes, err);
    else if (is_setting(word, "write_span", &value))
        return number_read(value, 512, INT64_MAX, &settings->write_span_bytes, err);
    else if (is_setting(word, "seed", &value))
        return number_read(value, 0, UINT64_MAX, &settings->seed, err);
    else if (is_setting(word, "flush", &value) && number_read(value, 0, 1, &number, err))
        settings->flush = number != 0;
    else if (is_setting(word, "once", &value) && number_read(value, 0, 1, &number, err))
        settings->once = number != 0;
    else if (is_setting(word, "block", &value) && number_read(value, 512, MAX_BLOCK_BYTES, &number, err))
        settings->block_bytes = (uint32_t)number;
    else if (is_setting(word, "depth", &value) && number_read(value, 1, MAX_DEPTH, &number, err))
        settings->depth = (uint32_t)number;
    else
        return err_set(err, ERR_USAGE, "%s: no such setting, or no such value", word);
    return true;
}

static bool settings_check(struct settings *settings, uint64_t size_bytes, struct err *err)
{
    uint64_t least = settings->block_bytes, most;

    most = size_bytes - min_u64(settings->start_bytes, size_bytes);
    if (settings->span_bytes == 0)
        settings->span_bytes = most;
    if (settings->write_span_bytes == 0)
        settings->write_span_bytes = settings->span_bytes;
    if (settings->span_bytes > most || settings->write_span_bytes > most || settings->span_bytes < least ||
        settings->write_span_bytes < least || settings->start_bytes % 512 != 0 ||
        settings->block_bytes % 512 != 0 || (settings->once && settings->span_bytes / least > UINT32_MAX))
        return err_set(err, ERR_USAGE, "block and span do not fit the disk of %llu bytes",
                       (unsigned long long)size_bytes);
    return true;
}

/* All blocks of the span in an order by chance. NULL when out of memory. */
static uint32_t *turns_draw(struct load *load)
{
    uint32_t blocks = (uint32_t)(load->settings.span_bytes / load->settings.block_bytes);
    uint32_t *turns = calloc(blocks, sizeof *turns);

    for (uint32_t i = 0; turns && i < blocks; i++) {
        uint32_t other = (uint32_t)random_below(&load->random, i + 1);
        turns[i] = turns[other];
        turns[other] = i;
    }
    return turns;
}

static int compare(const void *a, const void *b)
{
    uint64_t left = *(const uint64_t *)a, right = *(const uint64_t *)b;

    return (left > right) - (left < right);
}

static double percentile_us(const uint64_t *sorted, size_t count, double share)
{
    return count == 0 ? 0 : (double)sorted[(size_t)(share * (double)(count - 1))] / 1000;
}

static bool log_write(const struct load *load, struct err *err)
{
    const char *path = load->settings.log_path;

    if (!path)
        return true;
    FILE *file = fopen(path, "we");
    if (!file)
        return err_sys(err, errno, "%s", path);
    bool ok = fwrite(load->records, sizeof *load->records, load->record_count, file) == load->record_count;
    if (fclose(file) != 0 || !ok)
        return err_sys(err, errno, "%s", path);
    return true;
}

static double cpu_seconds(void)
{
    struct rusage usage;

    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) +
           (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec) / 1e6;
}

static bool results_print(const struct load *load, uint64_t elapsed_ns, double cpu, struct err *err)
{
    size_t count = load->record_count;
    AUTO_FREE uint64_t *latency = calloc(count + 1, sizeof *latency);
    double seconds = (double)elapsed_ns / (double)NS_PER_SECOND;

    if (!latency)
        return err_oom(err);
    for (size_t i = 0; i < count; i++)
        latency[i] = load->records[i].ended_ns - load->records[i].begun_ns;
    qsort(latency, count, sizeof *latency, compare);
    printf("{\"requests\": %zu, \"seconds\": %.6f, \"iops\": %.1f, \"mib_per_second\": %.2f, "
           "\"p50_us\": %.2f, \"p99_us\": %.2f, \"p999_us\": %.2f, \"max_us\": %.2f, \"cpu\": %.3f}\n",
           count, seconds, (double)count / seconds,
           (double)count * load->settings.block_bytes / seconds / (1U << 20),
           percentile_us(latency, count, 0.5), percentile_us(latency, count, 0.99),
           percentile_us(latency, count, 0.999), percentile_us(latency, count, 1), cpu / seconds);
    return true;
}

static bool load_do(int argc, char **argv, struct err *err)
{
    static struct load load = {.settings = {.block_bytes = 4096, .depth = 1, .seconds = 1, .seed = 1}};
    AUTO_NBD_CLIENT struct nbd_client client = {.fd = -1};

    for (int i = 2; i < argc; i++) {
        if (!setting_read(argv[i], &load.settings, err))
            return false;
    }
    if (!nbd_client_connect(argv[1], true, &client, err) ||
        !settings_check(&load.settings, client.size_bytes, err))
        return false;
    AUTO_FREE uint8_t *payload = malloc(load.settings.block_bytes);
    AUTO_FREE uint8_t *input = malloc(INPUT_BYTES);
    if (!payload || !input)
        return err_oom(err);
    AUTO_FREE uint32_t *turns = NULL;
    load.fd = client.fd;
    load.payload = payload;
    load.input = input;
    load.random.state = load.settings.seed;
    random_fill(&load.random, payload, load.settings.block_bytes);
    if (load.settings.once && !load.settings.sequential && !(load.turns = turns = turns_draw(&load)))
        return err_oom(err);
    double cpu = cpu_seconds();
    uint64_t begun = now_ns();
    bool ok = run(&load, err);
    uint64_t ended = now_ns();
    cpu = cpu_seconds() - cpu;
    AUTO_FREE struct record *records = load.records;
    (void)records;
    return ok && log_write(&load, err) && results_print(&load, ended - begun, cpu, err);
}

int main(int argc, char **argv)
{
    struct err err = ERR_INIT;

    if (argc < 2) {
        fputs("usage: see nbd_load.c\n", stderr);
        return 2;
    }
    if (load_do(argc, argv, &err))
        return 0;
    fprintf(stderr, "nbd_load: %s\n", err.text);
    return 1;
}
