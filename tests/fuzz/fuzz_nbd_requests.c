/* Well-formed requests, one after the other, drawn from the bytes: each answer is compared with a flat array,
 * and in the end the disk, closed and opened again. New tops and re-opens come in between, and one I/O call
 * may fail: then what was answered may still be lost, as a failed flush says, but the chain stays sound and
 * nothing hangs.
 *
 *   0 flags: FAULT, NO_SPACE, FILLED; SIMPLE: replies without structure; URING: sockets by io_uring    1 u16
 * which I/O call fails    3
 * ... records of 8: kind, flags, u16 sector, u16 sectors, value, 0 */
#include "nbd_session.h"

#include <errno.h>

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length);

#define SECTORS      (SESSION_SIZE / 512)
#define MAX_SECTORS  300U
#define HEAD_BYTES   3U
#define RECORD_BYTES 8U
#define MAX_RECORDS  48U
#define TURNS        100000U

enum flag { FAULT = 1, NO_SPACE = 2, FILLED = 4, SIMPLE = 8, URING = 16 };
enum kind { WRITE, WRITE_AGAIN, READ, FLUSH, TRIM, ZEROES, STATUS, SEAL, REOPEN, ODD, KINDS };

struct fuzz {
    struct session session;
    bool simple;
    bool closed_with_a_fault; /* it came while the disk was closed */
    uint8_t model[SESSION_SIZE];
};

static const uint8_t GREETING[] = "\0\0\0\3";
static const uint8_t STRUCTURED[] = "IHAVEOPT\0\0\0\10\0\0\0\0"
                                    "IHAVEOPT\0\0\0\12\0\0\0\33\0\0\0\0\0\0\0\1\0\0\0\17base:allocation";
static const uint8_t GO[] = "IHAVEOPT\0\0\0\7\0\0\0\6\0\0\0\0\0\0";

static bool struck(const struct fuzz *fuzz)
{
    return fuzz->closed_with_a_fault || io_failing_struck(fuzz->session.failing);
}

static void say(struct fuzz *fuzz, const void *bytes, size_t length)
{
    const uint8_t *rest = bytes;

    for (unsigned i = 0; length > 0; i++) {
        ssize_t sent = send(fuzz->session.client, rest, length, MSG_NOSIGNAL | MSG_DONTWAIT);
        must(i < TURNS && (sent > 0 || errno == EAGAIN));
        if (sent > 0) {
            rest += sent;
            length -= (size_t)sent;
        }
        session_turn(&fuzz->session);
    }
}

static void hear(struct fuzz *fuzz, void *bytes, size_t length)
{
    uint8_t *rest = bytes;

    for (unsigned i = 0; length > 0; i++) {
        ssize_t got = recv(fuzz->session.client, rest, length, MSG_DONTWAIT);
        must(i < TURNS && got != 0 && (got > 0 || errno == EAGAIN));
        if (got > 0) {
            rest += got;
            length -= (size_t)got;
        } else {
            session_turn(&fuzz->session);
        }
    }
}

static void hear_option(struct fuzz *fuzz)
{
    uint8_t bytes[NBD_OPTION_REPLY_BYTES], more[64];

    do {
        hear(fuzz, bytes, sizeof bytes);
        hear(fuzz, more, get_be32(bytes + 16));
    } while (get_be32(bytes + 12) != NBD_REP_ACK);
}

static void begin(struct fuzz *fuzz)
{
    uint8_t bytes[18];

    session_open(&fuzz->session);
    hear(fuzz, bytes, sizeof bytes);
    say(fuzz, GREETING, sizeof GREETING - 1);
    if (!fuzz->simple) {
        say(fuzz, STRUCTURED, sizeof STRUCTURED - 1);
        hear_option(fuzz);
        hear_option(fuzz);
    }
    say(fuzz, GO, sizeof GO - 1);
    hear_option(fuzz);
}

/* --- answers --- */

/* The extents of a status: zeros are zeros, and together they are no more than was asked for. */
static void check_extents(const struct fuzz *fuzz, uint64_t offset, uint32_t length, const uint8_t *bytes,
                          uint32_t payload)
{
    must(payload >= 12 && payload % 8 == 4 && get_be32(bytes) == NBD_CONTEXT_ID);
    for (uint32_t at = 4; at < payload; at += 8) {
        uint32_t part = get_be32(bytes + at);
        must(part > 0 && part <= length);
        if (get_be32(bytes + at + 4) & NBD_STATE_ZERO)
            must(struck(fuzz) || bytes_are_zero(fuzz->model + offset, part));
        offset += part;
        length -= part;
    }
}

/* The chunk behind its header, which is in bytes. Returns the error. */
static uint32_t hear_chunk(struct fuzz *fuzz, const uint8_t *header, uint64_t offset, uint32_t length,
                           uint8_t *data)
{
    uint32_t payload = get_be32(header + 16);
    uint8_t bytes[1024];

    must(get_be16(header + 4) == NBD_CHUNK_DONE);
    switch (get_be16(header + 6)) {
    case NBD_CHUNK_ERROR:
        must(payload == 6);
        hear(fuzz, bytes, payload);
        return get_be32(bytes);
    case NBD_CHUNK_OFFSET_DATA:
        must(payload == length + 8);
        hear(fuzz, bytes, 8);
        hear(fuzz, data, length);
        return get_be64(bytes) == offset ? 0 : (abort(), 0);
    case NBD_CHUNK_OFFSET_HOLE:
        must(payload == 12);
        hear(fuzz, bytes, payload);
        must(get_be64(bytes) == offset && get_be32(bytes + 8) == length);
        memset(data, 0, length);
        return 0;
    case NBD_CHUNK_BLOCK_STATUS:
        must(payload <= sizeof bytes);
        hear(fuzz, bytes, payload);
        check_extents(fuzz, offset, length, bytes, payload);
        return 0;
    default:
        abort();
    }
}

static uint32_t hear_answer(struct fuzz *fuzz, bool reads, uint64_t offset, uint32_t length, uint8_t *data)
{
    uint8_t header[NBD_CHUNK_BYTES];

    hear(fuzz, header, NBD_SIMPLE_BYTES);
    if (get_be32(header) == NBD_CHUNK_MAGIC) {
        must(!fuzz->simple);
        hear(fuzz, header + NBD_SIMPLE_BYTES, NBD_CHUNK_BYTES - NBD_SIMPLE_BYTES);
        return hear_chunk(fuzz, header, offset, length, data);
    }
    must(get_be32(header) == NBD_SIMPLE_MAGIC && get_be64(header + 8) == offset);
    if (reads && get_be32(header + 4) == 0) {
        must(fuzz->simple);
        hear(fuzz, data, length);
    }
    return get_be32(header + 4);
}

/* --- requests --- */

static void ask(struct fuzz *fuzz, enum nbd_command command, unsigned flags, uint64_t offset, uint32_t length)
{
    uint8_t bytes[NBD_REQUEST_BYTES];

    put_be32(bytes, NBD_REQUEST_MAGIC);
    put_be16(bytes + 4, (uint16_t)flags);
    put_be16(bytes + 6, (uint16_t)command);
    put_be64(bytes + 8, offset); /* the cookie */
    put_be64(bytes + 16, offset);
    put_be32(bytes + 24, length);
    say(fuzz, bytes, sizeof bytes);
}

/* A change that was refused because of the fault may be there in parts. */
static void change(struct fuzz *fuzz, enum nbd_command command, unsigned flags, uint64_t offset,
                   uint32_t length, uint8_t value)
{
    static uint8_t bytes[MAX_SECTORS * 512];

    ask(fuzz, command, flags, offset, length);
    if (command == NBD_CMD_WRITE) {
        memset(bytes, value, length);
        say(fuzz, bytes, length);
    }
    uint32_t error = hear_answer(fuzz, false, offset, length, bytes);
    must(error == 0 || struck(fuzz));
    memset(fuzz->model + offset, value, length);
}

static void read_back(struct fuzz *fuzz, uint64_t offset, uint32_t length)
{
    static uint8_t bytes[MAX_SECTORS * 512];

    ask(fuzz, NBD_CMD_READ, 0, offset, length);
    uint32_t error = hear_answer(fuzz, true, offset, length, bytes);
    must(struck(fuzz) || (error == 0 && memcmp(bytes, fuzz->model + offset, length) == 0));
}

static void ended(void *context)
{
    ((struct session *)context)->switched = true;
}

static void seal(struct fuzz *fuzz)
{
    fuzz->session.switched = false;
    session_seal(&fuzz->session, ended);
    for (unsigned i = 0; fuzz->session.core.switched; i++) {
        must(i < TURNS);
        session_turn(&fuzz->session);
    }
}

static void reopen(struct fuzz *fuzz)
{
    if (struck(fuzz))
        return;
    must(session_close(&fuzz->session) || struck(fuzz));
    fuzz->closed_with_a_fault = struck(fuzz);
    io_failing_set(fuzz->session.failing, (struct io_fault){0}); /* a fault in opening ends everything */
    begin(fuzz);
}

/* What no client should ask for; nothing comes of it but an error. */
static void ask_odd(struct fuzz *fuzz, const uint8_t *record)
{
    static uint8_t bytes[MAX_SECTORS * 512];
    uint64_t offset = (uint64_t)get_be16(record + 2) * 64;
    enum nbd_command command = record[1] % 12;
    bool is_odd =
        command == 5 || command > NBD_CMD_BLOCK_STATUS || offset % 512 != 0 || offset >= SESSION_SIZE;

    if (!is_odd || command == NBD_CMD_WRITE || command == NBD_CMD_DISC)
        return;
    ask(fuzz, command, record[6], offset, 512);
    must(hear_answer(fuzz, false, offset, 512, bytes) != 0 || command == NBD_CMD_FLUSH);
}

static void step(struct fuzz *fuzz, const uint8_t *record)
{
    uint64_t sector = get_be16(record + 2) % SECTORS;
    uint32_t count = 1 + (uint32_t)(get_be16(record + 4) % min_u64(MAX_SECTORS, SECTORS - sector));
    unsigned fua = record[1] & NBD_FLAG_FUA;

    switch ((enum kind)(record[0] % KINDS)) {
    case WRITE:
    case WRITE_AGAIN:
        change(fuzz, NBD_CMD_WRITE, fua, sector * 512, count * 512, record[6]);
        break;
    case TRIM:
        change(fuzz, NBD_CMD_TRIM, fua, sector * 512, count * 512, 0);
        break;
    case ZEROES:
        change(fuzz, NBD_CMD_WRITE_ZEROES, record[1] & (NBD_FLAG_FUA | NBD_FLAG_NO_HOLE), sector * 512,
               count * 512, 0);
        break;
    case FLUSH:
        change(fuzz, NBD_CMD_FLUSH, 0, 0, 0, 0);
        break;
    case READ:
        read_back(fuzz, sector * 512, count * 512);
        break;
    case STATUS:
        if (!fuzz->simple) {
            ask(fuzz, NBD_CMD_BLOCK_STATUS, record[1] & NBD_FLAG_REQ_ONE, sector * 512, count * 512);
            must(hear_answer(fuzz, false, sector * 512, count * 512, NULL) == 0 || struck(fuzz));
        }
        break;
    case SEAL:
        seal(fuzz);
        break;
    case REOPEN:
        reopen(fuzz);
        break;
    default:
        ask_odd(fuzz, record);
        break;
    }
}

/* Every third sector of the base holds something. */
static void fill(struct fuzz *fuzz)
{
    struct disk_options options = {.io = io_memory_io(fuzz->session.memory), .writable = true};
    struct disk *disk;
    struct err err;

    must(disk_open("/0.vhd", &options, &disk, &err));
    for (uint64_t at = 0; at < SESSION_SIZE; at += 3 * 512) {
        memset(fuzz->model + at, 0xB5, 512);
        must(disk_write(disk, at, fuzz->model + at, 512, &err));
    }
    must(disk_close(disk, &err));
}

static void compare(const struct fuzz *fuzz)
{
    static uint8_t bytes[SESSION_SIZE];
    struct disk_options options = {.io = io_memory_io(fuzz->session.memory)};
    AUTO_DISK struct disk *disk = NULL;
    struct err err;
    char path[32];

    layer_path(fuzz->session.layers - 1, path);
    must(disk_open(path, &options, &disk, &err) && disk_read(disk, 0, bytes, sizeof bytes, &err));
    must(memcmp(bytes, fuzz->model, sizeof bytes) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *bytes, size_t length)
{
    static struct fuzz fuzz;

    if (length < HEAD_BYTES)
        return 0;
    session_files(&fuzz.session);
    fuzz.simple = bytes[0] & SIMPLE;
    fuzz.session.io_uring = bytes[0] & URING;
    fuzz.closed_with_a_fault = false;
    memset(fuzz.model, 0, sizeof fuzz.model);
    if (bytes[0] & FILLED)
        fill(&fuzz);
    begin(&fuzz);
    if (bytes[0] & FAULT)
        io_failing_set(fuzz.session.failing, (struct io_fault){.calls = IO_CALLS_ALL,
                                                               .nth = 1U + get_be16(bytes + 1) % 1024,
                                                               .errnum = bytes[0] & NO_SPACE ? ENOSPC : EIO});
    for (size_t i = 0; i < MAX_RECORDS && HEAD_BYTES + (i + 1) * RECORD_BYTES <= length; i++)
        step(&fuzz, bytes + HEAD_BYTES + i * RECORD_BYTES);
    bool closed = session_close(&fuzz.session);
    must(closed || struck(&fuzz));
    session_check(&fuzz.session);
    if (!struck(&fuzz))
        compare(&fuzz);
    session_free(&fuzz.session);
    return 0;
}
