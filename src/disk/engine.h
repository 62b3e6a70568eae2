/* A disk on a thread of its own, served over NBD on a unix socket. All calls here are messages to that thread, may
 * come from any thread, and return when it has answered. */
#pragma once

#include "disk.h"

struct engine;

struct engine_options {
    const char *socket_path; /* bound by the engine, mode 0600; an old socket file in its place is replaced */
    const char *export_name; /* "" serves any name */
    bool read_only;
    bool no_io_uring; /* plain poll, pread and pwrite, as where io_uring is refused; also BOUGH_NO_IO_URING=1 */
};

/* Takes the disk, also on failure. Listens before it returns. */
bool engine_start(struct disk *disk, const struct engine_options *options, struct engine **ret_engine,
                  struct err *err) MUST_CHECK;
/* Closes the listener and the clients' sockets (never an error reply: QEMU would pass it to the guest), ends the
 * thread, closes the disk in order, frees all in any case. */
bool engine_stop(struct engine *engine, struct err *err) MUST_CHECK;

/* The same without writing anything more: the disk's writable layer will never be read again. Frees all. */
void engine_abandon(struct engine *engine);

/* disk_next_top_open() there; one prepared top at a time, another call replaces it. NULL path: give it up. */
bool engine_prepare_top(struct engine *engine, const char *path, struct err *err) MUST_CHECK;
/* At one instant between requests the prepared top takes the writes. Requests that come meanwhile wait. Cannot
 * fail; engine_prepare_top() must have succeeded before. */
void engine_switch_top(struct engine *engine);
/* All acknowledged writes, and every sealed layer whole with its end footer, are on stable storage. Requests go on
 * meanwhile. */
bool engine_flush(struct engine *engine, struct err *err) MUST_CHECK;

/* --- two sealed layers become one: disk.h --- */
/* Is the image a layer of it, the top included? */
bool engine_has(struct engine *engine, const char *path);
/* Whole on stable storage, and lent. ERR_BUSY: not yet, or somebody else uses them. */
bool engine_lend(struct engine *engine, const char *const *paths, size_t count, struct err *err) MUST_CHECK;
void engine_take_back(struct engine *engine);
/* The image at kept_path has what both had: from now on no other is read in their place. Requests wait while tables in
 * memory are changed. The other file is closed on return. */
bool engine_merged(struct engine *engine, const char *kept_path, const char *gone_path, struct err *err) MUST_CHECK;
/* The top has the image at parent_path as its parent, durable; the content must be the same under both. Requests go on. */
bool engine_reparent_top(struct engine *engine, const char *parent_path, struct err *err) MUST_CHECK;

struct engine_status {
    size_t depth;
    uint64_t clients;
    uint64_t reads, writes, flushes;     /* requests answered */
    uint64_t read_bytes, written_bytes;
    uint64_t dirty_bytes;                /* written and not yet flushed, roughly */
    uint64_t map_bytes;                  /* memory of the map */
    bool io_uring;
};

void engine_status_get(struct engine *engine, struct engine_status *ret_status);
