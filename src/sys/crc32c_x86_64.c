/*
 * crc32c_x86_64.c - CRC-32C by SSE4.2's crc32, by three streams of it, and by folding with 512-bit
 * carry-less multiplication. See crc32c_impl.h for the arithmetic.
 *
 * crc32 takes 8 bytes each 3 cycles if every step waits for the last, but could start one each
 * cycle. So from some 70 bytes on the message is cut in three parts, whose CRCs are computed side by
 * side and joined by one multiplication each; from some 250 bytes on vectors are faster still.
 */
#if defined(__x86_64__)

#include <immintrin.h>

#include "sys/crc32c_impl.h"

#define INLINE static inline __attribute__((always_inline))
#define TARGET_SSE42 __attribute__((target("sse4.2")))
#define TARGET_CLMUL __attribute__((target("sse4.2,pclmul")))
#define TARGET_AVX512                                                                              \
    __attribute__((target("sse4.2,pclmul,avx512f,avx512bw,avx512vl,avx512vbmi,vpclmulqdq")))

/* ---- crc32, one step after the other ------------------------------------------------------- */

TARGET_SSE42 INLINE uint32_t update_sse42(uint32_t s, unsigned char *dst, const unsigned char *src,
                                          size_t n) {
    uint64_t wide = s;
    for (; n >= 8; n -= 8) {
        wide = _mm_crc32_u64(wide, eg_crc32c_take8(&dst, &src));
    }
    s = (uint32_t)wide;
    if ((n & 4) != 0) {
        s = _mm_crc32_u32(s, eg_crc32c_take4(&dst, &src));
    }
    if ((n & 2) != 0) {
        s = _mm_crc32_u16(s, eg_crc32c_take2(&dst, &src));
    }
    if ((n & 1) != 0) {
        s = _mm_crc32_u8(s, eg_crc32c_take1(&dst, &src));
    }
    return s;
}
EG_CRC32C_ENTRIES(sse42, TARGET_SSE42)

/* ---- three streams ------------------------------------------------------------------------- */

#define STREAM_MIN 3  /* 8-byte words of a stream: below, joining costs more than it saves */
#define STREAM_MAX 64 /* above, the message is done in several blocks */

/*
 * joins[k]: for streams A, B, C of k words each. The state after all of them is
 *     a * x^(128k) + b * x^(64k) + c.
 * pclmulqdq of two 64-bit registers gives their product times x (reflected operands have their
 * lowest power at the top, so the product is one bit short). A 32-bit value in the low half of such
 * a register stands for itself times x^32. So a * join, both 32 bits wide, is in the low word of the
 * result a * join * x (as a 64-bit polynomial), and xoring that into the last word of C, which is
 * still to be multiplied by x^32, adds a * join * x^33. Hence join = x^(128k - 33) for A and
 * x^(64k - 33) for B.
 */
static struct join { uint64_t a, b; } joins[STREAM_MAX + 1];

TARGET_CLMUL INLINE uint64_t join(uint64_t s, uint64_t by) {
    const __m128i product =
        _mm_clmulepi64_si128(_mm_cvtsi64_si128((long long)s), _mm_cvtsi64_si128((long long)by), 0);
    return (uint64_t)_mm_cvtsi128_si64(product);
}

/* One block of 3k words. */
TARGET_CLMUL INLINE uint32_t three_streams(uint32_t s, unsigned char *dst, const unsigned char *src,
                                           size_t k) {
    const unsigned char *src_b = src + 8 * k, *src_c = src + 16 * k;
    unsigned char *dst_b = NULL, *dst_c = NULL;
    if (dst != NULL) {
        dst_b = dst + 8 * k;
        dst_c = dst + 16 * k;
    }
    uint64_t a = s, b = 0, c = 0;
    for (size_t i = 1; i < k; i++) {
        a = _mm_crc32_u64(a, eg_crc32c_take8(&dst, &src));
        b = _mm_crc32_u64(b, eg_crc32c_take8(&dst_b, &src_b));
        c = _mm_crc32_u64(c, eg_crc32c_take8(&dst_c, &src_c));
    }
    a = _mm_crc32_u64(a, eg_crc32c_take8(&dst, &src));
    b = _mm_crc32_u64(b, eg_crc32c_take8(&dst_b, &src_b));
    const uint64_t last = eg_crc32c_take8(&dst_c, &src_c);
    return (uint32_t)_mm_crc32_u64(c, last ^ join(a, joins[k].a) ^ join(b, joins[k].b));
}

TARGET_CLMUL INLINE uint32_t update_streams(uint32_t s, unsigned char *dst,
                                            const unsigned char *src, size_t n) {
    while (n >= 24 * STREAM_MIN) {
        const size_t k = n / 24 < STREAM_MAX ? n / 24 : STREAM_MAX;
        s = three_streams(s, dst, src, k);
        src += 24 * k;
        if (dst != NULL) {
            dst += 24 * k;
        }
        n -= 24 * k;
    }
    return update_sse42(s, dst, src, n);
}
EG_CRC32C_ENTRIES(streams, TARGET_CLMUL)

/* ---- folding ------------------------------------------------------------------------------- */

#define FOLD_MIN 256

/*
 * A vector V of 128 bits that lies d bits before the end of the message counts as V * x^d. Its two
 * halves (low: the higher powers) are multiplied by x^(d+64) and x^d, again less the x that
 * pclmulqdq adds. The remainders stand in the upper half of their 64 bits, where bit 63 is x^0.
 */
struct fold {
    uint64_t low, high;
};

static struct fold fold_by(unsigned d) {
    return (struct fold){(uint64_t)eg_crc32c_power(d + 64 - 1) << 32,
                         (uint64_t)eg_crc32c_power(d - 1) << 32};
}

static struct {
    struct fold v4, v3, v2, v1; /* by 4, 3, 2, 1 vectors of 512 bits */
    struct fold lanes[4];       /* the quarters of one vector onto its last; that one: nothing */
} folds __attribute__((aligned(64)));

/* v moved on by the distance of f, plus next. */
TARGET_AVX512 INLINE __m512i fold(__m512i v, __m512i f, __m512i next) {
    return _mm512_ternarylogic_epi64(_mm512_clmulepi64_epi128(v, f, 0x00),
                                     _mm512_clmulepi64_epi128(v, f, 0x11), next, 0x96);
}

TARGET_AVX512 INLINE __m512i fold_constant(const struct fold *f) {
    return _mm512_broadcast_i32x4(_mm_load_si128((const __m128i *)(const void *)f));
}

TARGET_AVX512 INLINE __m512i take64(unsigned char **dst, const unsigned char **src) {
    __m512i v = _mm512_loadu_si512(*src);
    *src += 64;
    if (*dst != NULL) {
        __asm__("" : "+v"(v)); /* see EG_CRC32C_TAKE */
        _mm512_storeu_si512(*dst, v);
        *dst += 64;
    }
    return v;
}

/*
 * The first 1 to 64 bytes, so many that whole vectors remain: moved to the end of a vector, since
 * zeros before a message change nothing, with the state added to the first four of them. *carry
 * gets what of the state belongs to the bytes that follow.
 */
TARGET_AVX512 INLINE __m512i take_head(uint32_t s, unsigned char **dst, const unsigned char **src,
                                       size_t head, uint32_t *carry) {
    static const unsigned char iota[64] __attribute__((aligned(64))) = {
        0,  1,  2,  3,  4,  5,  6,  7,  8,  9,  10, 11, 12, 13, 14, 15, 16, 17, 18, 19, 20, 21,
        22, 23, 24, 25, 26, 27, 28, 29, 30, 31, 32, 33, 34, 35, 36, 37, 38, 39, 40, 41, 42, 43,
        44, 45, 46, 47, 48, 49, 50, 51, 52, 53, 54, 55, 56, 57, 58, 59, 60, 61, 62, 63};
    __m512i v = _mm512_loadu_si512(*src); /* n >= FOLD_MIN: there are 64 bytes */
    *src += head;
    if (*dst != NULL) {
        __asm__("" : "+v"(v));
        _mm512_mask_storeu_epi8(*dst, ~UINT64_C(0) >> (64 - head), v);
        *dst += head;
    }
    v = _mm512_xor_si512(v, _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)s)));
    *carry = head < 4 ? s >> (8 * head) : 0;
    const __m512i from = _mm512_add_epi8(_mm512_load_si512(iota), _mm512_set1_epi8((char)head));
    return _mm512_maskz_permutexvar_epi8(~UINT64_C(0) << (64 - head), from, v);
}

/* 512 bits to 32. */
TARGET_AVX512 INLINE uint32_t reduce(__m512i v) {
    const __m512i lanes = _mm512_load_si512(folds.lanes);
    const __m512i last = _mm512_maskz_mov_epi64(0xc0, v);
    v = fold(v, lanes, last);
    const __m256i half =
        _mm256_xor_si256(_mm512_castsi512_si256(v), _mm512_extracti64x4_epi64(v, 1));
    const __m128i q =
        _mm_xor_si128(_mm256_castsi256_si128(half), _mm256_extracti128_si256(half, 1));
    return (uint32_t)_mm_crc32_u64(_mm_crc32_u64(0, (uint64_t)_mm_cvtsi128_si64(q)),
                                   (uint64_t)_mm_extract_epi64(q, 1));
}

TARGET_AVX512 INLINE uint32_t update_long(uint32_t s, unsigned char *dst, const unsigned char *src,
                                          size_t n) {
    const size_t head = ((n - 1) & 63) + 1;
    uint32_t carry;
    __m512i v0 = take_head(s, &dst, &src, head, &carry);
    size_t vectors = (n - head) / 64; /* at least 3 */
    __m512i v1 =
        _mm512_xor_si512(take64(&dst, &src), _mm512_zextsi128_si512(_mm_cvtsi32_si128((int)carry)));
    __m512i v2 = take64(&dst, &src);
    __m512i v3 = take64(&dst, &src);
    vectors -= 3;

    /* Four chains, since a multiplication takes about four cycles. */
    const __m512i by4 = fold_constant(&folds.v4);
    for (; vectors >= 4; vectors -= 4) {
        v0 = fold(v0, by4, take64(&dst, &src));
        v1 = fold(v1, by4, take64(&dst, &src));
        v2 = fold(v2, by4, take64(&dst, &src));
        v3 = fold(v3, by4, take64(&dst, &src));
    }
    const __m512i by1 = fold_constant(&folds.v1);
    v3 = fold(v0, fold_constant(&folds.v3), v3);
    v3 = fold(v1, fold_constant(&folds.v2), v3);
    v3 = fold(v2, by1, v3);
    for (; vectors > 0; vectors--) {
        v3 = fold(v3, by1, take64(&dst, &src));
    }
    return reduce(v3);
}

/* Out of line, so that short messages do not pay for its prologue. */
TARGET_AVX512 static __attribute__((noinline)) uint32_t crc_long(uint32_t s, const void *data,
                                                                 size_t n) {
    return ~update_long(s, NULL, data, n);
}
TARGET_AVX512 static __attribute__((noinline)) uint32_t copy_long(uint32_t s, void *dst,
                                                                  const void *src, size_t n) {
    return ~update_long(s, dst, src, n);
}

TARGET_CLMUL static uint32_t crc_avx512(uint32_t crc, const void *data, size_t n) {
    if (n >= FOLD_MIN) {
        return crc_long(~crc, data, n);
    }
    return ~update_streams(~crc, NULL, data, n);
}
TARGET_CLMUL static uint32_t copy_avx512(uint32_t crc, void *dst, const void *src, size_t n) {
    if (n >= FOLD_MIN) {
        return copy_long(~crc, dst, src, n);
    }
    return ~update_streams(~crc, dst, src, n);
}

/* ---- the choice ---------------------------------------------------------------------------- */

static void make_constants(void) {
    const uint32_t x64 = eg_crc32c_power(64);
    uint32_t power = eg_crc32c_power(64 - 33); /* x^(64i - 33) */
    for (unsigned i = 1; i <= 2 * STREAM_MAX; i++, power = eg_crc32c_times(power, x64)) {
        if (i <= STREAM_MAX) {
            joins[i].b = power;
        }
        if (i % 2 == 0) {
            joins[i / 2].a = power;
        }
    }
    folds.v4 = fold_by(4 * 512);
    folds.v3 = fold_by(3 * 512);
    folds.v2 = fold_by(2 * 512);
    folds.v1 = fold_by(512);
    for (unsigned i = 0; i < 3; i++) {
        folds.lanes[i] = fold_by((3 - i) * 128);
    }
}

size_t eg_crc32c_add_variants(struct eg_crc32c_variant *variants, size_t count) {
    __builtin_cpu_init(); /* we may come before libgcc's own constructor */
    const bool sse42 = __builtin_cpu_supports("sse4.2");
    const bool clmul = sse42 && __builtin_cpu_supports("pclmul");
    const bool avx512 = clmul && __builtin_cpu_supports("avx512f") &&
                        __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512vl") &&
                        __builtin_cpu_supports("avx512vbmi") &&
                        __builtin_cpu_supports("vpclmulqdq");
    make_constants();
    variants[count++] = (struct eg_crc32c_variant){"sse42", sse42, crc_sse42, copy_sse42};
    variants[count++] = (struct eg_crc32c_variant){"streams", clmul, crc_streams, copy_streams};
    variants[count++] = (struct eg_crc32c_variant){"avx512", avx512, crc_avx512, copy_avx512};
    return count;
}

#else
typedef int eg_crc32c_x86_64_is_empty; /* ISO C wants something in every file */
#endif
