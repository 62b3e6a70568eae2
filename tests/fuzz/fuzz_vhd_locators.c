/* What a parent locator and a parent's name say. Any bytes give an absolute, clean path or none; one "beside"
 * the child never leaves the child's folder; and a path that can be encoded reads back as itself. The first
 * byte is the platform. */
#include "vhd_paths.h"

#include "auto.h"
#include "file.h"

#include <stdlib.h>
#include <string.h>

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

static const uint32_t PLATFORMS[] = {VHD_PLATFORM_NONE, VHD_PLATFORM_WI2R, VHD_PLATFORM_WI2K,
                                     VHD_PLATFORM_W2RU, VHD_PLATFORM_W2KU, VHD_PLATFORM_MAC,
                                     VHD_PLATFORM_MACX};

#define DIR "/vm/disks"

static void check(bool claim)
{
    if (!claim)
        abort();
}

static void check_clean(const char *path)
{
    AUTO_FREE char *again = path_absolute(path);

    check(path[0] == '/' && again && strcmp(again, path) == 0);
}

static void check_round_trip(uint32_t platform, const char *path)
{
    struct vhd_path_data encoded = {0};
    struct err err = ERR_INIT;
    AUTO_FREE char *again = NULL;

    if (!vhd_path_encode(platform, path, DIR, &encoded, &err)) {
        check(err.code == ERR_INVALID);
        return;
    }
    check(vhd_path_decode(platform, encoded.bytes, encoded.length, DIR, &again, &err));
    free(encoded.bytes);
    check(again && strcmp(again, path) == 0);
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
    AUTO_FREE char *path = NULL, *beside = NULL;
    struct err err = ERR_INIT;

    if (size < 1)
        return 0;
    uint32_t platform = PLATFORMS[data[0] % ARRAY_SIZE(PLATFORMS)];
    AUTO_FREE uint8_t *exact = malloc(size);
    check(exact != NULL);
    memcpy(exact, data + 1, size - 1);
    check(vhd_path_decode(platform, exact, size - 1, DIR, &path, &err));
    check(vhd_path_beside(platform, exact, size - 1, DIR, &beside, &err));
    if (path) {
        check_clean(path);
        check_round_trip(VHD_PLATFORM_W2KU, path);
        check_round_trip(VHD_PLATFORM_W2RU, path);
    }
    if (beside) {
        check_clean(beside);
        check(strncmp(beside, DIR "/", sizeof DIR) == 0 && !strchr(beside + sizeof DIR, '/'));
    }
    return 0;
}
