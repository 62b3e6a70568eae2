#include "bytes.h"

#include <ctype.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <strings.h>

bool bytes_are_zero(const void *bytes, size_t length)
{
    const uint8_t *p = bytes;

    /* The first 16 by hand, then the array against itself, which memcmp does at full speed. */
    for (size_t i = 0; i < 16; i++) {
        if (i == length)
            return true;
        if (p[i] != 0)
            return false;
    }
    return memcmp(p, p + 16, length - 16) == 0;
}

static bool unit_parse(const char *unit, unsigned *ret_shift)
{
    static const char LETTERS[] = "KMGTPE";
    const char *rest = unit;
    unsigned shift = 0;

    if (*rest != '\0') {
        const char *letter = strchr(LETTERS, toupper((unsigned char)*rest));
        if (letter) {
            shift = (unsigned)(letter - LETTERS + 1) * 10;
            rest++;
        }
    }
    if (*rest != '\0' && strcasecmp(rest, "B") != 0 && strcasecmp(rest, "iB") != 0)
        return false;
    *ret_shift = shift;
    return true;
}

bool size_parse(const char *text, uint64_t *ret_bytes)
{
    char *end;
    unsigned shift;

    if (!isdigit((unsigned char)text[0]))
        return false;
    errno = 0;
    uint64_t whole = strtoull(text, &end, 10);
    if (errno != 0)
        return false;
    double fraction = 0;
    if (*end == '.') {
        double scale = 0.1;
        for (end++; isdigit((unsigned char)*end); end++, scale /= 10)
            fraction += (*end - '0') * scale;
    }
    if (!unit_parse(end, &shift))
        return false;
    uint64_t bytes;
    if (!mul_u64(whole, (uint64_t)1 << shift, &bytes))
        return false;
    if (!add_u64(bytes, (uint64_t)(fraction * (double)((uint64_t)1 << shift)), &bytes))
        return false;
    *ret_bytes = bytes;
    return true;
}

char *size_format(uint64_t bytes, char text[static 16])
{
    static const char *const UNITS[] = {"B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"};
    unsigned unit = 0;
    double value = (double)bytes;

    while (value >= 1024 && unit + 1 < sizeof UNITS / sizeof UNITS[0]) {
        value /= 1024;
        unit++;
    }
    int decimals = unit > 0 && value < 100 && value != (double)(unsigned)value;
    snprintf(text, 16, "%.*f %s", decimals, value, UNITS[unit]);
    return text;
}
