/* The header of a .vsv: what is accepted is exactly what would be written, and the sizes that follow from it
 * do not overflow. The checksum is put right first, or nothing would get past it. */
#include "bytes.h"
#include "vsv.h"

#include <stdlib.h>
#include <xxhash.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t bytes[VSV_HEADER_BYTES] = {0}, again[VSV_HEADER_BYTES];
    struct vsv_header header;
    struct err err = ERR_INIT;
    memcpy(bytes, data, size < sizeof(bytes) ? size : sizeof(bytes));
    put_be64(bytes + VSV_HEADER_BYTES - 8, XXH3_64bits(bytes, VSV_HEADER_BYTES - 8));
    if (!vsv_decode(bytes, &header, &err))
        return err.code == ERR_CORRUPT || err.code == ERR_UNSUPPORTED ? 0 : (abort(), 0);
    vsv_encode(&header, again);
    if (memcmp(bytes, again, sizeof(bytes)) != 0 || vsv_file_bytes(&header) < header.stream_bytes)
        abort();
    return 0;
}
