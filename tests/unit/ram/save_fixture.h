/* A folder of its own for each test, and a thread that plays QEMU. */
#pragma once

#include "buf.h"
#include "ram.h"

#include <stdint.h>

struct save_fixture {
    char folder[64], bin[80], vsv[80];
};

int fixture_setup(void **state);
int fixture_teardown(void **state);

/* Feeds a stream to a save from a thread, and finishes it. */
bool fixture_save(const struct save_fixture *fixture, const struct buf *stream, uint64_t memory_bytes,
                  struct ram_save_result *ret_result, struct err *err);
struct ram_save_options fixture_options(const struct save_fixture *fixture, int stream_fd,
                                        uint64_t memory_bytes);
void fixture_read(const char *path, struct buf *ret_bytes);
void fixture_patch(const char *path, uint64_t offset, const void *bytes, size_t length);
bool fixture_exists(const char *path);

/* pc.ram of 2.5 chunks and pc.bios of 3 pages. In RAM: page 0 and 1 and the last one have content, the whole
 * second chunk and more is zeros. */
#define F_MEMORY_BYTES (5ULL << 20)
void fixture_stream(struct buf *out);
