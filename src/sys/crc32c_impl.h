/*
 * crc32c_impl.h - what the variants of crc32c.h share. Included by crc32c*.c only.
 *
 * Arithmetic. A CRC is a polynomial over GF(2) modulo P = x^32 + 0x1EDC6F41, "reflected": the least
 * significant bit holds the highest power, bit i of 32 stands for x^(31-i). Appending a message m of
 * n bits to a state s gives s * x^n + m * x^32 (mod P).
 *
 * The step functions below work on the raw state; inversion is the entry points' business.
 */
#ifndef EG_SYS_CRC32C_IMPL_H
#define EG_SYS_CRC32C_IMPL_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include "sys/crc32c.h"

#define EG_CRC32C_POLY UINT32_C(0x82f63b78) /* P without its x^32, reflected */

/* s * x mod P. */
static inline uint32_t eg_crc32c_times_x(uint32_t s) {
    return (s >> 1) ^ ((s & 1) != 0 ? EG_CRC32C_POLY : 0);
}

/* a * b mod P: one term of a after the other, from x^0 on. */
static inline uint32_t eg_crc32c_times(uint32_t a, uint32_t b) {
    uint32_t product = 0;
    for (; a != 0; a <<= 1, b = eg_crc32c_times_x(b)) {
        product ^= (a >> 31) != 0 ? b : 0;
    }
    return product;
}

/* x^n mod P, by squaring. */
static inline uint32_t eg_crc32c_power(unsigned n) {
    uint32_t result = UINT32_C(1) << 31, square = UINT32_C(1) << 30; /* x^0, x^1 */
    for (; n > 0; n >>= 1, square = eg_crc32c_times(square, square)) {
        result = (n & 1) != 0 ? eg_crc32c_times(result, square) : result;
    }
    return result;
}

/*
 * Load a word of the message and, in the copying form, store it at once. The empty asm makes the
 * value opaque: the compiler cannot load it a second time from memory that may have changed.
 */
#define EG_CRC32C_TAKE(type, name)                                                                 \
    static inline __attribute__((always_inline)) type name(unsigned char **dst,                    \
                                                           const unsigned char **src) {            \
        type v;                                                                                    \
        memcpy(&v, *src, sizeof v);                                                                \
        *src += sizeof v;                                                                          \
        if (*dst != NULL) {                                                                        \
            __asm__("" : "+r"(v));                                                                 \
            memcpy(*dst, &v, sizeof v);                                                            \
            *dst += sizeof v;                                                                      \
        }                                                                                          \
        return v;                                                                                  \
    }
EG_CRC32C_TAKE(uint64_t, eg_crc32c_take8)
EG_CRC32C_TAKE(uint32_t, eg_crc32c_take4)
EG_CRC32C_TAKE(uint16_t, eg_crc32c_take2)
EG_CRC32C_TAKE(uint8_t, eg_crc32c_take1)

/* The two entry points of a variant, from update(state, dst or NULL, src, n). */
#define EG_CRC32C_ENTRIES(suffix, attributes)                                                      \
    attributes static uint32_t crc_##suffix(uint32_t crc, const void *data, size_t n) {            \
        return ~update_##suffix(~crc, NULL, data, n);                                              \
    }                                                                                              \
    attributes static uint32_t copy_##suffix(uint32_t crc, void *dst, const void *src, size_t n) { \
        return ~update_##suffix(~crc, dst, src, n);                                                \
    }

/* In crc32c_<arch>.c: append the variants that this architecture has, best last; returns the new
 * count. Called once, before main(). */
#define EG_CRC32C_VARIANTS_MAX 8
size_t eg_crc32c_add_variants(struct eg_crc32c_variant *variants, size_t count);

#endif
