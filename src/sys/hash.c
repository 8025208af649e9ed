/*
 * hash.c - see hash.h.
 */
#include "sys/hash.h"

#include <string.h>

uint32_t eg_murmur2(const void *data, size_t n) {
    const uint32_t m = 0x5bd1e995u;
    const unsigned char *p = data;
    uint32_t h = 0x9747b28cu ^ (uint32_t)n;

    for (; n >= 4; p += 4, n -= 4) {
        uint32_t k;
        memcpy(&k, p, sizeof k);
        k *= m;
        k ^= k >> 24;
        h = h * m ^ k * m;
    }
    if (n > 0) {
        uint32_t tail = 0;
        while (n > 0) {
            tail = tail << 8 | p[--n];
        }
        h = (h ^ tail) * m;
    }
    h ^= h >> 13;
    h *= m;
    return h ^ h >> 15;
}
