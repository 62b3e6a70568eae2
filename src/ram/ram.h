/* Guest memory and device state in files: QEMU's migration stream taken apart into `.bin` (a flat, sparse
 * image of RAM) and `.vsv` (everything else, itself a valid stream without RAM pages, behind a header of
 * ours), and given back. docs/ram.md has the bytes. Depends on no QEMU process: a stream comes in by one
 * descriptor and leaves by another. */
#pragma once

#include "err.h"
#include "guid.h"
#include "progress.h"

#include <stdint.h>
#include <sys/types.h>

#define RAM_BLOCK      "pc.ram" /* the memory backend's id; the RAM block's name in the stream */
#define RAM_PAGE_BYTES 4096U

struct vsv_info {
    struct guid id;        /* binds .vsv, .bin, and the snapshot's XML (config.memory) */
    uint64_t memory_bytes; /* exact size of .bin */
    char qemu_version[32];
    char machine[64]; /* from the stream's configuration section */
};

struct ram_save_options {
    int stream_fd;                   /* read end of the pipe that QEMU writes; taken, also on failure */
    const char *bin_path, *vsv_path; /* must not exist; created 0600 */
    const char *parent_bin_path;     /* what most pages are like; may be NULL, and need not exist or fit */
    bool reads_to_the_end;           /* also where it fails, for a writer that must not find a broken pipe */
    int mapped_fd;                   /* the `.bin` that QEMU has mapped (see ahead.h), or 0; stays the caller's */
    struct vsv_info info;            /* machine is filled from the stream */
    const struct progress *progress; /* may be NULL; report(phase "memory", bytes so far, memory_bytes) */
};

struct ram_save_result {
    uint64_t stream_bytes, pages, zero_pages, resent_pages, state_bytes;
    uint64_t shared_pages; /* of pages: not written, because the parent has them and extents can be shared */
};

/* Starts a thread that takes the stream apart. It waits for nothing but the pipe, page-cache writes and, until
 * ram_save_hurry(), reads of the parent's `.bin`. */
struct ram_save;
bool ram_save_start(const struct ram_save_options *options, struct ram_save **ret_save,
                    struct err *err) MUST_CHECK;
/* The guest stands still (at STOP, before migrate-continue): from now on the stream is taken into memory
 * first, up to half a gigabyte of it, and nothing is compared with the parent, so that the pause does not
 * depend on what the file system is busy with.
 * Never waits, cannot fail, may be left out. */
void ram_save_hurry(struct ram_save *save);
/* From now on at most so many more bytes of the stream are read; UINT64_MAX (as in the beginning): all. QEMU then waits. */
void ram_save_pace(struct ram_save *save, uint64_t bytes);
/* How many of them have not been read yet, after waiting at most so long until there are none; 0 if the thread has ended. */
uint64_t ram_save_paced(struct ram_save *save, int wait_ms);
/* Waits for the end of the stream (QEMU closes it), completes both files and makes them durable (files, not
 * their directory). Frees in any case; on failure both files are removed. A stream that ends early, breaks
 * the format, or lacks the block RAM_BLOCK of exactly memory_bytes is ERR_CORRUPT. */
bool ram_save_finish(struct ram_save *save, struct ram_save_result *ret_result, struct err *err) MUST_CHECK;
/* Has the thread failed already (so that the caller can cancel the migration)? Then *err tells why. */
bool ram_save_failed(struct ram_save *save, struct err *err);
/* Gives up: closes the pipe, joins, removes both files. Accepts NULL. */
void ram_save_abandon(struct ram_save *save);

/* Header, checksums of the state, size of .bin (bin_path must have exactly memory_bytes): all that is cheap.
 * ERR_NOT_FOUND, ERR_CORRUPT, ERR_MISMATCH, each naming the file and the field. */
bool ram_check(const char *vsv_path, const char *bin_path, struct vsv_info *ret_info,
               struct err *err) MUST_CHECK;
/* Also .bin's contents against the checksums of its 2 MiB chunks. */
bool ram_verify(const char *vsv_path, const char *bin_path, const struct progress *progress,
                struct err *err) MUST_CHECK;

/* Writes the stream of a checked .vsv into fd (QEMU's incoming end) by a thread of its own; fd is taken, also
 * on failure. ram_load_finish joins it: ERR_QEMU if QEMU closed before all was written. */
struct ram_load;
bool ram_load_start(const char *vsv_path, int fd, struct ram_load **ret_load, struct err *err) MUST_CHECK;
bool ram_load_finish(struct ram_load *load, struct err *err) MUST_CHECK; /* frees in any case */
void ram_load_abandon(struct ram_load *load);                            /* accepts NULL */

/* What a restored guest touches first, so that the next one that is restored from the same `.bin` finds it in the page cache:
 * hints, beside the file's content (touched.h). Record looks at what the process has mapped of bin_path until now. Prefetch
 * returns at once. */
bool ram_touched_record(const char *bin_path, pid_t pid, struct err *err) MUST_CHECK;
bool ram_touched_is_known(const char *bin_path);
void ram_touched_prefetch(const char *bin_path);
