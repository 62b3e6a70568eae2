/* Do a .vsv and its .bin belong together, and are they what was saved? */
#include "auto.h"
#include "binfile.h"
#include "bytes.h"
#include "ram.h"
#include "rawfile.h"
#include "vsv.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <stdio.h>
#include <sys/stat.h>

#define XXH_INLINE_ALL
#include <xxhash.h>

#define PIECE_BYTES (1U << 20)

static bool check_stream(int fd, const struct vsv_header *header, struct err *err)
{
    AUTO_FREE uint8_t *piece = malloc(PIECE_BYTES);
    AUTO_FREE XXH3_state_t *sum = aligned_alloc(_Alignof(XXH3_state_t), sizeof(*sum));
    if (!piece || !sum)
        return err_oom(err);
    XXH3_64bits_reset(sum);
    uint64_t start = vsv_stream_offset(header->info.memory_bytes);
    for (uint64_t done = 0; done < header->stream_bytes;) {
        size_t length = (size_t)min_u64(PIECE_BYTES, header->stream_bytes - done);
        if (!raw_read(fd, start + done, piece, length, err))
            return false;
        XXH3_64bits_update(sum, piece, length);
        done += length;
    }
    if (XXH3_64bits_digest(sum) != header->stream_sum)
        return err_set(err, ERR_CORRUPT, "the checksum of the state is wrong");
    return true;
}

/* The sums of .bin's chunks, owned by the caller. */
static bool read_table(int fd, const struct vsv_header *header, uint8_t **ret_table, struct err *err)
{
    uint64_t length = vsv_table_bytes(header->info.memory_bytes);
    uint64_t with_padding = vsv_stream_offset(header->info.memory_bytes) - VSV_HEADER_BYTES;
    AUTO_FREE uint8_t *table = malloc(with_padding);
    if (!table)
        return err_oom(err);
    if (!raw_read(fd, VSV_HEADER_BYTES, table, with_padding, err))
        return false;
    if (!bytes_are_zero(table + length, with_padding - length))
        return err_set(err, ERR_CORRUPT, "the bytes behind the chunk table are not zero");
    if (XXH3_64bits(table, length) != header->table_sum)
        return err_set(err, ERR_CORRUPT, "the checksum of the chunk table is wrong");
    *ret_table = TAKE(table);
    return true;
}

static bool open_bin(const char *path, uint64_t memory_bytes, int *ret_fd, struct err *err)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    struct stat stat;
    if (fd < 0 || fstat(fd, &stat) < 0)
        return err_sys(err, errno, "%s", path);
    if (!S_ISREG(stat.st_mode) || (uint64_t)stat.st_size != memory_bytes)
        return err_set(err, ERR_MISMATCH, "%s: the file has %" PRIu64 " bytes, the memory %" PRIu64, path,
                       (uint64_t)stat.st_size, memory_bytes);
    *ret_fd = TAKE_FD(fd);
    return true;
}

/* Everything but .bin's contents. */
static bool check_both(const char *vsv_path, const char *bin_path, struct vsv_header *ret_header,
                       uint8_t **ret_table, int *ret_bin_fd, struct err *err)
{
    AUTO_FD int vsv_fd = -1;
    AUTO_FREE uint8_t *table = NULL;
    struct vsv_header header;
    if (!vsv_open(vsv_path, &vsv_fd, &header, err))
        return false;
    if (!read_table(vsv_fd, &header, &table, err) || !check_stream(vsv_fd, &header, err))
        return err_prefix(err, "%s", vsv_path);
    if (!open_bin(bin_path, header.info.memory_bytes, ret_bin_fd, err))
        return false;
    *ret_header = header;
    *ret_table = TAKE(table);
    return true;
}

bool ram_check(const char *vsv_path, const char *bin_path, struct vsv_info *ret_info, struct err *err)
{
    AUTO_FD int bin_fd = -1;
    AUTO_FREE uint8_t *table = NULL;
    struct vsv_header header;
    if (!check_both(vsv_path, bin_path, &header, &table, &bin_fd, err))
        return false;
    *ret_info = header.info;
    return true;
}

/* Where data begins at or behind offset; the end of the file if there is none. A file system that knows no
 * holes says that all is data. */
static uint64_t next_data(int fd, uint64_t offset, uint64_t end)
{
    off_t data = lseek(fd, (off_t)offset, SEEK_DATA);
    if (data >= 0)
        return (uint64_t)data;
    return errno == ENXIO ? end : offset;
}

static bool sum_chunk(int fd, uint64_t offset, size_t length, uint8_t *bytes, uint64_t *ret_sum,
                      struct err *err)
{
    uint64_t sums[BIN_CHUNK_PAGES];
    if (!raw_read(fd, offset, bytes, length, err))
        return false;
    for (size_t i = 0; i < length / BIN_PAGE_BYTES; i++)
        sums[i] = bin_page_sum(bytes + i * BIN_PAGE_BYTES);
    *ret_sum = bin_chunk_sum(sums, length / BIN_PAGE_BYTES);
    return true;
}

/* Chunks whose sum is another than that in the table. */
struct wrong_chunks {
    uint64_t count, first_offset;
    size_t first_length;
};

static void wrong_chunk_note(struct wrong_chunks *wrong, uint64_t offset, size_t length)
{
    if (wrong->count++ == 0) {
        wrong->first_offset = offset;
        wrong->first_length = length;
    }
}

static bool wrong_chunks_tell(const struct wrong_chunks *wrong, struct err *err)
{
    char more[64] = "";
    if (wrong->count == 0)
        return true;
    if (wrong->count > 1)
        snprintf(more, sizeof(more), ", and of %" PRIu64 " more such chunks", wrong->count - 1);
    return err_set(err, ERR_CORRUPT, "the checksum of the %zu bytes at %" PRIu64 " is wrong%s", wrong->first_length,
                   wrong->first_offset, more);
}

/* All of them are looked at, so that the error tells how much is lost. */
static bool verify_chunks(int fd, uint64_t memory_bytes, const uint8_t *table,
                          const struct progress *progress, struct err *err)
{
    static const uint64_t zero_sums[BIN_CHUNK_PAGES];
    AUTO_FREE uint8_t *bytes = malloc(BIN_CHUNK_BYTES);
    struct wrong_chunks wrong = {0};
    if (!bytes)
        return err_oom(err);
    uint64_t data = 0;
    for (uint64_t offset = 0; offset < memory_bytes; offset += BIN_CHUNK_BYTES) {
        size_t length = (size_t)min_u64(BIN_CHUNK_BYTES, memory_bytes - offset);
        if (progress_cancelled(progress))
            return err_set(err, ERR_CANCELLED, "the verification was cancelled");
        if (data <= offset)
            data = next_data(fd, offset, memory_bytes);
        uint64_t sum = 0;
        if (data >= offset + length)
            sum = bin_chunk_sum(zero_sums, length / BIN_PAGE_BYTES);
        else if (!sum_chunk(fd, offset, length, bytes, &sum, err))
            return false;
        if (sum != get_be64(table + offset / BIN_CHUNK_BYTES * 8))
            wrong_chunk_note(&wrong, offset, length);
        progress_report(progress, "verify", offset + length, memory_bytes);
    }
    return wrong_chunks_tell(&wrong, err);
}

bool ram_verify(const char *vsv_path, const char *bin_path, const struct progress *progress, struct err *err)
{
    AUTO_FD int bin_fd = -1;
    AUTO_FREE uint8_t *table = NULL;
    struct vsv_header header;
    if (!check_both(vsv_path, bin_path, &header, &table, &bin_fd, err))
        return false;
    if (!verify_chunks(bin_fd, header.info.memory_bytes, table, progress, err))
        return err_prefix(err, "%s", bin_path);
    return true;
}
