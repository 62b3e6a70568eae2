/* The NBD server on a real disk in memory, without a thread: what a request may cost, and what becomes of the
 * listener. */
#include "bytes.h"
#include "io_failing.h"
#include "io_memory.h"
#include "nbd.h"
#include "nbd_server.h"
#include "ring_backend.h"

#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>

#include <cmocka.h>

#include "disk_test.h"

#define SIZE_BYTES   (8ULL << 30)
#define BLOCKS       (SIZE_BYTES >> 21)
#define BASE         "/base.vhd"
#define TOP          "/top.avhd"
#define FOUR_GIB     (UINT32_MAX & ~511U)
#define LARGEST_READ (NBD_MAX_REQUEST_BYTES >> 21) /* blocks that the largest read can meet, and one more */
#define TURNS        1000

struct world {
    struct io_memory *memory;
    struct io_failing *counting;
    struct disk *disk;
    struct ring *ring;
    struct core core;
    struct nbd_export export;
    struct nbd_server *server;
    int client;
};

/* Every block of the child is allocated and none of its sectors there: what holds nothing must be looked for
 * in all of its bitmaps. (They are one and the same, to save memory.) */
static void make_chain(const struct io *io)
{
    struct vhd_create_options base = {.type = VHD_DYNAMIC, .size_bytes = SIZE_BYTES};
    struct vhd_create_options child = {.type = VHD_DIFFERENCING, .parent_path = BASE};
    struct disk_options options = {.io = io, .writable = true};
    AUTO_FREE uint8_t *bat = malloc(BLOCKS * 4);
    uint8_t bytes[VHD_SECTOR] = {1};
    AUTO_VHD struct vhd *vhd = NULL;
    struct disk *disk;

    OK(vhd_create(io, BASE, &base, &err) && vhd_create(io, TOP, &child, &err));
    OK(disk_open(TOP, &options, &disk, &err) && disk_write(disk, 0, bytes, sizeof bytes, &err));
    OK(disk_close(disk, &err) && vhd_open(io, TOP, IO_WRITE, &vhd, &err));
    OK(io_read(vhd->file, vhd->header.table_offset, bytes, 4, &err));
    for (size_t i = 0; bat && i < BLOCKS; i++)
        memcpy(bat + i * 4, bytes, 4);
    uint64_t bitmap = vhd_bitmap_offset(get_be32(bytes));
    memset(bytes, 0, sizeof bytes);
    OK(io_write(vhd->file, vhd->header.table_offset, bat, BLOCKS * 4, &err) &&
       io_write(vhd->file, bitmap, bytes, sizeof bytes, &err));
}

static int world_start(void **state)
{
    static struct world world;
    int fds[2];

    world = (struct world){.memory = io_memory_new(IO_MEMORY_PLAIN),
                           .export = {.name = "", .size_bytes = SIZE_BYTES}};
    make_chain(io_memory_io(world.memory));
    world.counting = io_failing_new(io_memory_io(world.memory));
    struct disk_options options = {.io = io_failing_io(world.counting)};
    OK(disk_open(TOP, &options, &world.disk, &err) && ring_new(true, &world.ring, &err));
    core_init(&world.core, world.disk, world.ring);
    OK(nbd_server_new(&world.core, &world.export, -1, &world.server, &err));
    assert_int_equal(socketpair(AF_UNIX, SOCK_STREAM, 0, fds), 0);
    world.client = fds[0];
    OK(nbd_server_adopt(world.server, fds[1], &err));
    *state = &world;
    return 0;
}

static void turn(struct world *world)
{
    nbd_server_turn(world->server);
    OK(ring_wait(world->ring, false, &err));
    core_turn(&world->core);
}

static int world_end(void **state)
{
    struct world *world = *state;

    close(world->client);
    nbd_server_stop(world->server);
    for (unsigned i = 0; i < TURNS && !nbd_server_is_idle(world->server); i++)
        turn(world);
    assert_true(nbd_server_is_idle(world->server));
    nbd_server_free(world->server);
    core_done(&world->core);
    ring_free(world->ring);
    disk_abandon(world->disk);
    io_failing_free(world->counting);
    io_memory_free(world->memory);
    return 0;
}

/* --- a client --- */

static void say(const struct world *world, const void *bytes, size_t length)
{
    assert_int_equal(send(world->client, bytes, length, MSG_NOSIGNAL), length);
}

static void hear(struct world *world, void *bytes, size_t length)
{
    for (unsigned i = 0; i < TURNS; i++) {
        if (recv(world->client, bytes, length, MSG_DONTWAIT | MSG_PEEK) == (ssize_t)length) {
            assert_int_equal(recv(world->client, bytes, length, 0), length);
            return;
        }
        turn(world);
    }
    fail_msg("no answer of %zu bytes", length);
}

static void ask_option(struct world *world, uint32_t option, const void *data, uint32_t length)
{
    uint8_t bytes[64];

    put_be64(bytes, NBD_OPTION_MAGIC);
    put_be32(bytes + 8, option);
    put_be32(bytes + 12, length);
    memcpy(bytes + 16, data, length);
    say(world, bytes, 16 + length);
    do {
        uint8_t more[64];
        hear(world, bytes, NBD_OPTION_REPLY_BYTES);
        if (get_be32(bytes + 16) > 0)
            hear(world, more, get_be32(bytes + 16));
    } while (get_be32(bytes + 12) != NBD_REP_ACK);
}

static void shake_hands(struct world *world)
{
    uint8_t bytes[64];

    hear(world, bytes, 18);
    put_be32(bytes, NBD_FIXED_NEWSTYLE | NBD_NO_ZEROES);
    say(world, bytes, 4);
    ask_option(world, NBD_OPT_STRUCTURED_REPLY, "", 0);
    ask_option(world, NBD_OPT_SET_META_CONTEXT, "\0\0\0\0\0\0\0\1\0\0\0\17" NBD_CONTEXT_NAME, 12 + 15);
    ask_option(world, NBD_OPT_GO, "\0\0\0\0\0\0", 6);
}

static void ask(struct world *world, enum nbd_command command, uint64_t offset, uint32_t length)
{
    uint8_t bytes[NBD_REQUEST_BYTES] = {0};

    put_be32(bytes, NBD_REQUEST_MAGIC);
    put_be16(bytes + 6, (uint16_t)command);
    put_be64(bytes + 16, offset);
    put_be32(bytes + 24, length);
    say(world, bytes, sizeof bytes);
}

/* The one extent that the answer to a block status has. */
static struct nbd_extent hear_extent(struct world *world)
{
    uint8_t bytes[NBD_CHUNK_BYTES + 4 + NBD_EXTENT_BYTES];

    hear(world, bytes, sizeof bytes);
    assert_int_equal(get_be16(bytes + 6), NBD_CHUNK_BLOCK_STATUS);
    assert_int_equal(get_be32(bytes + 16), 4 + NBD_EXTENT_BYTES);
    return (struct nbd_extent){.length = get_be32(bytes + 24), .flags = get_be32(bytes + 28)};
}

static void a_block_status_of_4_gib_looks_at_no_more_than_a_read_does(void **state)
{
    struct world *world = *state;
    uint64_t offset = 0;

    shake_hands(world);
    while (offset < SIZE_BYTES) {
        uint32_t length = (uint32_t)min_u64(FOUR_GIB, SIZE_BYTES - offset);
        io_failing_set(world->counting, (struct io_fault){.calls = IO_CALL_READ});
        ask(world, NBD_CMD_BLOCK_STATUS, offset, length);
        struct nbd_extent extent = hear_extent(world);
        assert_int_equal(extent.flags, NBD_STATE_HOLE | NBD_STATE_ZERO);
        assert_in_range(extent.length, 1, length);
        assert_in_range(io_failing_count(world->counting), 1, LARGEST_READ + 1);
        offset += extent.length;
    }
}

/* libnbd gives up a connection on which an answer comes while it is still sending what the answer is for. */
static void a_refused_write_is_answered_behind_its_payload(void **state)
{
    struct world *world = *state;
    uint8_t payload[4096] = {0}, answer[NBD_CHUNK_BYTES + 6];

    shake_hands(world);
    ask(world, NBD_CMD_WRITE, SIZE_BYTES, sizeof payload);
    for (unsigned part = 0; part < 8; part++) {
        for (unsigned i = 0; i < 20; i++)
            turn(world);
        assert_int_equal(recv(world->client, answer, sizeof answer, MSG_DONTWAIT), -1);
        say(world, payload + (size_t)part * 512, 512);
    }
    hear(world, answer, sizeof answer);
    assert_int_equal(get_be16(answer + 6), NBD_CHUNK_ERROR);
    assert_int_equal(get_be32(answer + 20), NBD_ENOSPC);
    ask(world, NBD_CMD_WRITE, SIZE_BYTES, 0);
    hear(world, answer, sizeof answer);
    assert_int_equal(get_be32(answer + 20), NBD_EINVAL);
    ask(world, NBD_CMD_WRITE, SIZE_BYTES, sizeof payload); /* whose payload never comes */
    say(world, payload, 512);
}

/* --- the listener --- */

/* Polls are handed to the test, which says how they end. */
struct fake_ring {
    struct ring ring;
    struct ring_op *poll;
    unsigned polls;
};

static void fake_submit(struct ring *ring, struct ring_op *op)
{
    struct fake_ring *fake = (struct fake_ring *)ring;

    assert_int_equal(op->kind, RING_POLL);
    assert_null(fake->poll);
    fake->poll = op;
    fake->polls++;
}

static void fake_cancel(struct ring *ring, struct ring_op *op)
{
    (void)ring;
    (void)op;
}

static void poll_ends(struct fake_ring *fake, int64_t result)
{
    assert_non_null(fake->poll);
    ring_step_ended(&fake->ring, TAKE(fake->poll), result);
}

static const struct ring_backend FAKE_BACKEND = {.submit = fake_submit, .cancel = fake_cancel};

static void a_poll_that_fails_is_tried_again_but_not_for_ever(void **state)
{
    struct fake_ring fake = {.ring = {.backend = &FAKE_BACKEND}};
    struct nbd_export export = {.name = "", .size_bytes = SIZE_BYTES};
    struct nbd_server *server;
    struct core core;
    int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);

    (void)state;
    /* An address that the kernel makes up. */
    assert_int_equal(
        bind(fd, (struct sockaddr *)&(struct sockaddr_un){.sun_family = AF_UNIX}, sizeof(sa_family_t)), 0);
    assert_int_equal(listen(fd, 1), 0);
    core_init(&core, NULL, &fake.ring);
    OK(nbd_server_new(&core, &export, fd, &server, &err));
    poll_ends(&fake, -ENOMEM);
    assert_non_null(fake.poll);
    for (unsigned i = 0; i < TURNS && fake.poll; i++)
        poll_ends(&fake, -ENOMEM);
    assert_null(fake.poll); /* it would fail again at once, and all the thread's time go into that */
    nbd_server_listen_again(server);
    poll_ends(&fake, 0);
    for (unsigned i = 0; i < 2; i++) /* a success starts the count anew */
        poll_ends(&fake, -ENOMEM);
    assert_non_null(fake.poll);
    nbd_server_stop(server);
    poll_ends(&fake, -ECANCELED);
    assert_null(fake.poll);
    nbd_server_free(server);
    core_done(&core);
    close(fd);
}

int main(void)
{
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(a_block_status_of_4_gib_looks_at_no_more_than_a_read_does,
                                        world_start, world_end),
        cmocka_unit_test_setup_teardown(a_refused_write_is_answered_behind_its_payload, world_start,
                                        world_end),
        cmocka_unit_test(a_poll_that_fails_is_tried_again_but_not_for_ever),
    };

    return cmocka_run_group_tests(tests, NULL, NULL);
}
