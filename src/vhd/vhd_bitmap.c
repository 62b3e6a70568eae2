#include "vhd_bitmap.h"

uint32_t vhd_bits_run(const uint8_t *bits, uint32_t first, uint32_t end)
{
    bool set = vhd_bit_get(bits, first);
    uint8_t same = set ? 0xFF : 0x00;
    uint32_t s = first + 1;

    while (s < end) {
        if (s % 8 == 0 && end - s >= 64) {
            uint64_t word = get_be64(bits + s / 8) ^ (set ? UINT64_MAX : 0);
            if (word != 0)
                return s + (uint32_t)__builtin_clzll(word) - first;
            s += 64;
        } else if (s % 8 == 0 && end - s >= 8 && bits[s / 8] == same) {
            s += 8;
        } else if (vhd_bit_get(bits, s) == set) {
            s++;
        } else {
            break;
        }
    }
    return s - first;
}

static bool set_byte(uint8_t *byte, uint8_t mask)
{
    bool changed = (*byte & mask) != mask;

    *byte |= mask;
    return changed;
}

bool vhd_bits_set(uint8_t *bits, uint32_t first, uint32_t end)
{
    bool changed = false;

    while (first < end) {
        uint32_t stop = (uint32_t)min_u64(end, (first | 7) + 1);
        uint8_t mask = (uint8_t)(0xFF >> (first & 7));
        if (stop % 8 != 0)
            mask &= (uint8_t)(0xFF00 >> (stop & 7));
        changed |= set_byte(&bits[first >> 3], mask);
        first = stop;
    }
    return changed;
}
