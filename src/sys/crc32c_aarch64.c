/*
 * crc32c_aarch64.c - CRC-32C by AArch64's crc32c instructions. See crc32c_impl.h.
 */
#if defined(__aarch64__)

#include <sys/auxv.h>

#include "sys/crc32c_impl.h"

#ifndef HWCAP_CRC32
#define HWCAP_CRC32 (1 << 7)
#endif

#define INLINE static inline __attribute__((always_inline))

/* By hand, so that the file needs no -march beyond the base. */
#define STEP(type, name, instruction, operand)                                                     \
    INLINE uint32_t name(uint32_t s, type v) {                                                     \
        __asm__(".arch_extension crc\n\t" instruction " %w0, %w0, %" operand : "+r"(s) : "r"(v));  \
        return s;                                                                                  \
    }
STEP(uint64_t, step8, "crc32cx", "x1")
STEP(uint32_t, step4, "crc32cw", "w1")
STEP(uint16_t, step2, "crc32ch", "w1")
STEP(uint8_t, step1, "crc32cb", "w1")

INLINE uint32_t update_crc32cx(uint32_t s, unsigned char *dst, const unsigned char *src, size_t n) {
    for (; n >= 8; n -= 8) {
        s = step8(s, eg_crc32c_take8(&dst, &src));
    }
    if ((n & 4) != 0) {
        s = step4(s, eg_crc32c_take4(&dst, &src));
    }
    if ((n & 2) != 0) {
        s = step2(s, eg_crc32c_take2(&dst, &src));
    }
    if ((n & 1) != 0) {
        s = step1(s, eg_crc32c_take1(&dst, &src));
    }
    return s;
}
EG_CRC32C_ENTRIES(crc32cx, )

size_t eg_crc32c_add_variants(struct eg_crc32c_variant *variants, size_t count) {
    variants[count++] = (struct eg_crc32c_variant){
        "crc32cx", (getauxval(AT_HWCAP) & HWCAP_CRC32) != 0, crc_crc32cx, copy_crc32cx};
    return count;
}

#else
typedef int eg_crc32c_aarch64_is_empty; /* ISO C wants something in every file */
#endif
