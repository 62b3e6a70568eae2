/* The dynamic header: what is accepted is written again as it was read, and no locator names more data than
 * it has space. The checksum is put right first where the first byte says so. */
#include "vhd.h"

#include "bytes.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECKSUM 36

static void check(bool claim)
{
    if (!claim)
        abort();
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t bytes[VHD_HEADER_BYTES] = {0}, again[VHD_HEADER_BYTES], third[VHD_HEADER_BYTES];
    struct vhd_header header;
    struct err err = ERR_INIT;

    if (size < 1)
        return 0;
    memcpy(bytes, data + 1, min_u64(size - 1, sizeof bytes));
    if (data[0] & 1)
        put_be32(bytes + CHECKSUM, vhd_checksum(bytes, sizeof bytes, CHECKSUM));
    if (!vhd_header_decode(bytes, &header, &err)) {
        check(err.code == ERR_CORRUPT || err.code == ERR_UNSUPPORTED);
        return 0;
    }
    check(is_power_of_two(header.block_bytes) && header.block_bytes >= VHD_SECTOR);
    for (unsigned i = 0; i < VHD_LOCATORS; i++) {
        const struct vhd_locator *locator = &header.locators[i];
        check(locator->length_bytes <= locator->space_bytes && locator->space_bytes % VHD_SECTOR == 0);
    }
    vhd_header_encode(&header, again);
    check(vhd_header_decode(again, &header, &err));
    vhd_header_encode(&header, third);
    check(memcmp(again, third, sizeof again) == 0);
    return 0;
}
