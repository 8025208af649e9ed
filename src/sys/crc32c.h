/*
 * crc32c.h - CRC-32C (Castagnoli), the checksum of every frame: on the hot path.
 *
 * Start with 0 and chain: eg_crc32c(eg_crc32c(0, a), b) == eg_crc32c(0, a then b). The inversions
 * before and after are inside. The variant for this CPU is chosen once, when the program is
 * loaded; a call costs one indirect jump.
 */
#ifndef EG_SYS_CRC32C_H
#define EG_SYS_CRC32C_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

typedef uint32_t eg_crc32c_fn(uint32_t crc, const void *data, size_t n);
typedef uint32_t eg_crc32c_copy_fn(uint32_t crc, void *dst, const void *src, size_t n);

/* Set by crc32c.c before main(); never written afterwards. */
extern eg_crc32c_fn *eg_crc32c_best;
extern eg_crc32c_copy_fn *eg_crc32c_copy_best;

static inline uint32_t eg_crc32c(uint32_t crc, const void *data, size_t n) {
    return eg_crc32c_best(crc, data, n);
}

/*
 * Copy n bytes and checksum them in one pass. The CRC is that of the bytes stored at dst, even if
 * another process changes src meanwhile: each byte of src that counts is loaded exactly once.
 * dst and src must not overlap.
 */
static inline uint32_t eg_crc32c_copy(uint32_t crc, void *dst, const void *src, size_t n) {
    return eg_crc32c_copy_best(crc, dst, src, n);
}

/*
 * The same for short input whose length is a multiple of 8, without a call where the CPU has an instruction
 * for it: a frame's CRC is on the way of every record.
 */
extern bool eg_crc32c_has_instruction; /* set as eg_crc32c_best is */

#define EG_CRC32C_SHORT 192u /* from here on, the call's folding wins */

static inline uint32_t eg_crc32c_words(uint32_t crc, const void *data, size_t n) {
#if defined(__x86_64__) || defined(__aarch64__)
    if (__builtin_expect(n <= EG_CRC32C_SHORT && eg_crc32c_has_instruction, 1)) {
        const unsigned char *at = data;
        uint64_t s = ~crc;
        for (const unsigned char *end = at + n; at < end; at += 8) {
            uint64_t v;
            memcpy(&v, at, 8);
#if defined(__x86_64__)
            __asm__("crc32q %1, %0" : "+r"(s) : "rm"(v));
#else
            __asm__(".arch_extension crc\n\tcrc32cx %w0, %w0, %1" : "+r"(s) : "r"(v));
#endif
        }
        return ~(uint32_t)s;
    }
#endif
    return eg_crc32c(crc, data, n);
}

/* The variants that were compiled in, best last; for tests and benchmarks. */
struct eg_crc32c_variant {
    const char *name;
    int usable; /* by this CPU */
    eg_crc32c_fn *crc;
    eg_crc32c_copy_fn *copy;
};
const struct eg_crc32c_variant *eg_crc32c_variants(size_t *count_out);

#endif
