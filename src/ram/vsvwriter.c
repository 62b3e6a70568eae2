#include "vsvwriter.h"

#include "bytes.h"
#include "rawfile.h"

#define XXH_INLINE_ALL
#include <xxhash.h>

#define OUTPUT_BYTES (256U << 10)

/* Bytes behind each other into the file, gathered and summed. */
struct output {
    int fd;
    uint64_t offset; /* in the file, of the first byte that is gathered */
    uint64_t total;
    size_t length;
    XXH3_state_t sum;
    uint8_t bytes[OUTPUT_BYTES];
};

static bool output_flush(struct output *output, struct err *err)
{
    if (!raw_write(output->fd, output->offset, output->bytes, output->length, err))
        return false;
    output->offset += output->length;
    output->length = 0;
    return true;
}

static bool output_put(void *context, const void *bytes, size_t length, struct err *err)
{
    struct output *output = context;
    output->total += length;
    XXH3_64bits_update(&output->sum, bytes, length);
    while (length > 0) {
        size_t part = length < OUTPUT_BYTES - output->length ? length : OUTPUT_BYTES - output->length;
        memcpy(output->bytes + output->length, bytes, part);
        output->length += part;
        bytes = (const uint8_t *)bytes + part;
        length -= part;
        if (output->length == OUTPUT_BYTES && !output_flush(output, err))
            return false;
    }
    return true;
}

static struct output *output_new(int fd, uint64_t offset)
{
    struct output *output = aligned_alloc(_Alignof(struct output), sizeof(*output));
    if (!output)
        return NULL;
    output->fd = fd;
    output->offset = offset;
    output->total = 0;
    output->length = 0;
    XXH3_64bits_reset(&output->sum);
    return output;
}

static bool put_section(struct output *output, enum stream_element element, uint32_t id, struct err *err)
{
    uint8_t bytes[5] = {(uint8_t)element};
    put_be32(bytes + 1, id);
    return output_put(output, bytes, sizeof(bytes), err);
}

static bool put_eos(struct output *output, uint32_t section, struct err *err)
{
    uint8_t bytes[8];
    put_be64(bytes, STREAM_EOS);
    return output_put(output, bytes, sizeof(bytes), err) && put_section(output, STREAM_FOOTER, section, err);
}

static bool put_switchover(struct output *output, struct err *err)
{
    uint8_t bytes[5] = {STREAM_COMMAND, 0, STREAM_COMMAND_SWITCHOVER, 0, 0};
    return output_put(output, bytes, sizeof(bytes), err);
}

static bool put_stream(struct output *output, const struct vsv_parts *parts, struct err *err)
{
    uint32_t section = stream_ram_section(parts->stream);
    if (!output_put(output, parts->head->data, parts->head->length, err) ||
        !put_section(output, STREAM_PART, section, err) ||
        !smallblocks_write(parts->small, output_put, output, err) || !put_eos(output, section, err))
        return false;
    if (stream_has_switchover(parts->stream) && !put_switchover(output, err))
        return false;
    return put_section(output, STREAM_END, section, err) && put_eos(output, section, err) &&
           output_put(output, parts->state->data, parts->state->length, err) && output_flush(output, err);
}

static bool write_table(int fd, const struct vsv_info *info, const struct binfile *bin, uint64_t *ret_sum,
                        struct err *err)
{
    uint64_t length = vsv_table_bytes(info->memory_bytes);
    AUTO_FREE uint8_t *table = malloc(length);
    if (!table)
        return err_oom(err);
    for (uint64_t chunk = 0; chunk < length / 8; chunk++)
        put_be64(table + chunk * 8, binfile_chunk_sum(bin, chunk));
    *ret_sum = XXH3_64bits(table, length);
    return raw_write(fd, VSV_HEADER_BYTES, table, length, err);
}

bool vsv_write(int fd, const struct vsv_info *info, const struct vsv_parts *parts, struct err *err)
{
    struct vsv_header header = {.info = *info};
    AUTO_FREE struct output *output = output_new(fd, vsv_stream_offset(info->memory_bytes));
    if (!output)
        return err_oom(err);
    if (!put_stream(output, parts, err) || !write_table(fd, info, parts->bin, &header.table_sum, err))
        return false;
    header.stream_bytes = output->total;
    header.stream_sum = XXH3_64bits_digest(&output->sum);
    uint8_t bytes[VSV_HEADER_BYTES];
    vsv_encode(&header, bytes);
    return raw_write(fd, 0, bytes, sizeof(bytes), err);
}
