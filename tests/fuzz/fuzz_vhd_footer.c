/* The footer: what is accepted is written again as it was read, and its size is one that the format has. The
 * first byte says whether the checksum is put right, without which nothing gets past it, and whether the
 * footer is the one of 511 bytes. */
#include "vhd.h"

#include "bytes.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define CHECKSUM 64

static void check(bool claim)
{
    if (!claim)
        abort();
}

static void check_size(const struct vhd_footer *footer)
{
    uint64_t bytes = vhd_footer_size_bytes(footer);

    check(bytes > 0 && bytes % VHD_SECTOR == 0 && bytes <= footer->current_bytes);
    struct vhd_geometry geometry = vhd_geometry_of(bytes);
    check(vhd_geometry_bytes(&geometry) <= bytes);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    uint8_t bytes[VHD_FOOTER_BYTES] = {0}, again[VHD_FOOTER_BYTES];
    struct vhd_footer footer, footer_again;
    struct err err = ERR_INIT;

    if (size < 1)
        return 0;
    size_t length = data[0] & 2 ? VHD_FOOTER_BYTES - 1 : VHD_FOOTER_BYTES;
    memcpy(bytes, data + 1, min_u64(size - 1, length));
    if (data[0] & 1)
        put_be32(bytes + CHECKSUM, vhd_checksum(bytes, length, CHECKSUM));
    /* Of its own size, so that one byte too many is found. */
    uint8_t *exact = malloc(length);
    check(exact != NULL);
    memcpy(exact, bytes, length);
    bool ok = vhd_footer_decode(exact, length, &footer, &err);
    free(exact);
    check(ok || err.code == ERR_CORRUPT || err.code == ERR_UNSUPPORTED);
    if (!ok)
        return 0;
    check_size(&footer);
    vhd_footer_encode(&footer, again);
    check(vhd_footer_decode(again, sizeof again, &footer_again, &err));
    footer.features |= 2;
    footer_again.features |= 2;
    vhd_footer_encode(&footer_again, bytes);
    check(memcmp(bytes, again, sizeof again) == 0);
    return 0;
}
