/* Device state against its description: no input makes the walk leave the state, and what agrees is read to its end. The
 * first two bytes say how long the state is; the rest is the description, put behind it with a length that fits. */
#include "buf.h"
#include "bytes.h"
#include "description.h"
#include "stream.h"

#include <stdlib.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

/* The whole in memory of its own size, so that the sanitizer sees one byte too many. */
static uint8_t *compose(const uint8_t *data, size_t state_bytes, size_t json_bytes, size_t *ret_length)
{
    size_t length = state_bytes + 6 + json_bytes;
    uint8_t *whole = malloc(length);
    if (!whole)
        abort();
    memcpy(whole, data, state_bytes);
    whole[state_bytes] = STREAM_EOF;
    whole[state_bytes + 1] = STREAM_DESCRIPTION;
    put_be32(whole + state_bytes + 2, (uint32_t)json_bytes);
    memcpy(whole + state_bytes + 6, data + state_bytes, json_bytes);
    *ret_length = length;
    return whole;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    struct err err = ERR_INIT;
    size_t length, state_bytes = size >= 2 ? get_be16(data) : SIZE_MAX;
    if (state_bytes > size - 2 || state_bytes == size - 2)
        return 0;
    uint8_t *whole = compose(data + 2, state_bytes, size - 2 - state_bytes, &length);
    if (!description_check(whole, length, state_bytes + 6, &err) && err.code != ERR_CORRUPT)
        abort();
    free(whole);
    return 0;
}
