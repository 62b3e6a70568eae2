#include "vsv.h"

#include "auto.h"
#include "bytes.h"
#include "rawfile.h"

#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <sys/stat.h>

#include "binfile.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define MAGIC   "BOUGHVSV"
#define VERSION 1U

enum {
    AT_MAGIC = 0,
    AT_VERSION = 8,
    AT_HEADER_BYTES = 12,
    AT_MEMORY_BYTES = 16,
    AT_PAGE_BYTES = 24,
    AT_CHUNK_BYTES = 28,
    AT_TABLE_OFFSET = 32,
    AT_TABLE_BYTES = 40,
    AT_STREAM_OFFSET = 48,
    AT_STREAM_BYTES = 56,
    AT_STREAM_SUM = 64,
    AT_TABLE_SUM = 72,
    AT_ID = 80,
    AT_QEMU_VERSION = 120,
    AT_MACHINE = 152,
    AT_RESERVED = 216,
    AT_SUM = 4088,
};

uint64_t vsv_table_bytes(uint64_t memory_bytes)
{
    return bin_chunk_count(memory_bytes) * 8;
}

uint64_t vsv_stream_offset(uint64_t memory_bytes)
{
    return VSV_HEADER_BYTES + round_up(vsv_table_bytes(memory_bytes), 4096);
}

uint64_t vsv_file_bytes(const struct vsv_header *header)
{
    return vsv_stream_offset(header->info.memory_bytes) + header->stream_bytes;
}

void vsv_encode(const struct vsv_header *header, uint8_t bytes[static VSV_HEADER_BYTES])
{
    const struct vsv_info *info = &header->info;
    memset(bytes, 0, VSV_HEADER_BYTES);
    memcpy(bytes + AT_MAGIC, MAGIC, 8);
    put_be32(bytes + AT_VERSION, VERSION);
    put_be32(bytes + AT_HEADER_BYTES, VSV_HEADER_BYTES);
    put_be64(bytes + AT_MEMORY_BYTES, info->memory_bytes);
    put_be32(bytes + AT_PAGE_BYTES, BIN_PAGE_BYTES);
    put_be32(bytes + AT_CHUNK_BYTES, BIN_CHUNK_BYTES);
    put_be64(bytes + AT_TABLE_OFFSET, VSV_HEADER_BYTES);
    put_be64(bytes + AT_TABLE_BYTES, vsv_table_bytes(info->memory_bytes));
    put_be64(bytes + AT_STREAM_OFFSET, vsv_stream_offset(info->memory_bytes));
    put_be64(bytes + AT_STREAM_BYTES, header->stream_bytes);
    put_be64(bytes + AT_STREAM_SUM, header->stream_sum);
    put_be64(bytes + AT_TABLE_SUM, header->table_sum);
    memcpy(bytes + AT_ID, info->id.text, strnlen(info->id.text, GUID_LENGTH));
    memcpy(bytes + AT_QEMU_VERSION, info->qemu_version,
           strnlen(info->qemu_version, sizeof(info->qemu_version) - 1));
    memcpy(bytes + AT_MACHINE, info->machine, strnlen(info->machine, sizeof(info->machine) - 1));
    put_be64(bytes + AT_SUM, XXH3_64bits(bytes, AT_SUM));
}

/* Printable text, then only NULs, of which there is at least one. */
static bool get_text(const uint8_t *bytes, size_t size, char *ret_text)
{
    size_t length = strnlen((const char *)bytes, size);
    if (length == size || !bytes_are_zero(bytes + length, size - length))
        return false;
    for (size_t i = 0; i < length; i++) {
        if (bytes[i] < ' ' || bytes[i] > '~')
            return false;
    }
    memcpy(ret_text, bytes, length + 1);
    return true;
}

static bool check_frame(const uint8_t *bytes, struct err *err)
{
    if (memcmp(bytes + AT_MAGIC, MAGIC, 8) != 0)
        return err_set(err, ERR_CORRUPT, "header: no saved state (magic)");
    if (get_be32(bytes + AT_VERSION) > VERSION)
        return err_set(err, ERR_UNSUPPORTED, "header: version %" PRIu32 " is newer than this program",
                       get_be32(bytes + AT_VERSION));
    if (get_be64(bytes + AT_SUM) != XXH3_64bits(bytes, AT_SUM))
        return err_set(err, ERR_CORRUPT, "header: its checksum is wrong");
    if (get_be32(bytes + AT_VERSION) != VERSION)
        return err_set(err, ERR_CORRUPT, "header: version 0");
    if (!bytes_are_zero(bytes + AT_RESERVED, AT_SUM - AT_RESERVED))
        return err_set(err, ERR_CORRUPT, "header: its reserved bytes are not zero");
    return true;
}

/* What follows from memory_bytes must stand there as such: other values have no meaning in this version. */
static bool check_layout(const uint8_t *bytes, struct err *err)
{
    uint64_t memory_bytes = get_be64(bytes + AT_MEMORY_BYTES);
    if (memory_bytes == 0 || memory_bytes % BIN_PAGE_BYTES != 0 || memory_bytes > INT64_MAX)
        return err_set(err, ERR_CORRUPT, "header: memory_bytes is %" PRIu64, memory_bytes);
    const struct {
        const char *name;
        uint64_t value, expected;
    } fields[] = {
        {"header size", get_be32(bytes + AT_HEADER_BYTES), VSV_HEADER_BYTES},
        {"page size", get_be32(bytes + AT_PAGE_BYTES), BIN_PAGE_BYTES},
        {"chunk size", get_be32(bytes + AT_CHUNK_BYTES), BIN_CHUNK_BYTES},
        {"table offset", get_be64(bytes + AT_TABLE_OFFSET), VSV_HEADER_BYTES},
        {"table size", get_be64(bytes + AT_TABLE_BYTES), vsv_table_bytes(memory_bytes)},
        {"stream offset", get_be64(bytes + AT_STREAM_OFFSET), vsv_stream_offset(memory_bytes)},
    };
    for (size_t i = 0; i < ARRAY_SIZE(fields); i++) {
        if (fields[i].value != fields[i].expected)
            return err_set(err, ERR_CORRUPT, "header: %s is %" PRIu64 ", not %" PRIu64, fields[i].name,
                           fields[i].value, fields[i].expected);
    }
    uint64_t stream_bytes = get_be64(bytes + AT_STREAM_BYTES);
    if (stream_bytes == 0 || stream_bytes > VSV_STREAM_MAX)
        return err_set(err, ERR_CORRUPT, "header: a stream of %" PRIu64 " bytes", stream_bytes);
    return true;
}

static bool get_id(const uint8_t *bytes, struct guid *ret_id)
{
    char text[AT_QEMU_VERSION - AT_ID];
    return get_text(bytes, sizeof(text), text) && guid_parse(text, ret_id) && strcmp(text, ret_id->text) == 0;
}

bool vsv_decode(const uint8_t bytes[static VSV_HEADER_BYTES], struct vsv_header *ret_header, struct err *err)
{
    if (!check_frame(bytes, err) || !check_layout(bytes, err))
        return false;
    struct vsv_header header = {
        .info.memory_bytes = get_be64(bytes + AT_MEMORY_BYTES),
        .stream_bytes = get_be64(bytes + AT_STREAM_BYTES),
        .stream_sum = get_be64(bytes + AT_STREAM_SUM),
        .table_sum = get_be64(bytes + AT_TABLE_SUM),
    };
    if (!get_id(bytes + AT_ID, &header.info.id))
        return err_set(err, ERR_CORRUPT, "header: the id is no GUID");
    if (!get_text(bytes + AT_QEMU_VERSION, sizeof(header.info.qemu_version), header.info.qemu_version))
        return err_set(err, ERR_CORRUPT, "header: the version of QEMU is no text");
    if (!get_text(bytes + AT_MACHINE, sizeof(header.info.machine), header.info.machine) ||
        !*header.info.machine)
        return err_set(err, ERR_CORRUPT, "header: the machine is no text");
    *ret_header = header;
    return true;
}

static bool check_size(int fd, const struct vsv_header *header, struct err *err)
{
    struct stat stat;
    if (fstat(fd, &stat) < 0)
        return err_sys(err, errno, "size");
    if ((uint64_t)stat.st_size != vsv_file_bytes(header))
        return err_set(err, ERR_CORRUPT, "the file has %" PRIu64 " bytes, its header says %" PRIu64,
                       (uint64_t)stat.st_size, vsv_file_bytes(header));
    return true;
}

bool vsv_open(const char *path, int *ret_fd, struct vsv_header *ret_header, struct err *err)
{
    AUTO_FD int fd = open(path, O_RDONLY | O_CLOEXEC | O_NOCTTY);
    if (fd < 0)
        return err_sys(err, errno, "%s", path);
    uint8_t bytes[VSV_HEADER_BYTES];
    struct vsv_header header;
    if (!raw_read(fd, 0, bytes, sizeof(bytes), err) || !vsv_decode(bytes, &header, err) ||
        !check_size(fd, &header, err))
        return err_prefix(err, "%s", path);
    *ret_header = header;
    *ret_fd = TAKE_FD(fd);
    return true;
}
