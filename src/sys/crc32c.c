/*
 * crc32c.c - the choice of the variant, and the ones that every CPU can run. See crc32c.h.
 */
#include "sys/crc32c.h"

#include <stdbool.h>

#include "sys/crc32c_impl.h"

#define INLINE static inline __attribute__((always_inline))

/* tables[k][b]: the state after byte b and k zero bytes (k = 0: the classic table). */
static uint32_t tables[8][256];

static void make_tables(void) {
    for (uint32_t b = 0; b < 256; b++) {
        uint32_t s = b;
        for (int bit = 0; bit < 8; bit++) {
            s = eg_crc32c_times_x(s);
        }
        tables[0][b] = s;
    }
    for (int k = 1; k < 8; k++) {
        for (uint32_t b = 0; b < 256; b++) {
            const uint32_t s = tables[k - 1][b];
            tables[k][b] = (s >> 8) ^ tables[0][s & 0xff];
        }
    }
}

/* Eight bytes a step ("slicing by 8"): their eight look-ups do not wait for each other. */
INLINE uint32_t update_table(uint32_t s, unsigned char *dst, const unsigned char *src, size_t n) {
    for (; n >= 8; n -= 8) {
        const uint64_t v = eg_crc32c_take8(&dst, &src) ^ s;
        s = 0;
        for (int i = 0; i < 8; i++) {
            s ^= tables[7 - i][(v >> (8 * i)) & 0xff];
        }
    }
    for (; n > 0; n--) {
        s = (s >> 8) ^ tables[0][(s ^ eg_crc32c_take1(&dst, &src)) & 0xff];
    }
    return s;
}
EG_CRC32C_ENTRIES(table, )

static struct eg_crc32c_variant variants[EG_CRC32C_VARIANTS_MAX];
static size_t variants_count;

static void choose(void) {
    if (variants_count > 0) {
        return;
    }
    make_tables();
    variants[0] = (struct eg_crc32c_variant){"table", 1, crc_table, copy_table};
    variants_count = eg_crc32c_add_variants(variants, 1);
    for (size_t i = 0; i < variants_count; i++) {
        if (variants[i].usable) {
            eg_crc32c_best = variants[i].crc;
            eg_crc32c_copy_best = variants[i].copy;
            eg_crc32c_has_instruction = i > 0; /* all but the table are made of it */
        }
    }
}

/* What stands in the pointers at first, for constructors of others that run before ours. */
static uint32_t first_crc(uint32_t crc, const void *data, size_t n) {
    choose();
    return eg_crc32c_best(crc, data, n);
}

static uint32_t first_copy(uint32_t crc, void *dst, const void *src, size_t n) {
    choose();
    return eg_crc32c_copy_best(crc, dst, src, n);
}

bool eg_crc32c_has_instruction;
eg_crc32c_fn *eg_crc32c_best = first_crc;
eg_crc32c_copy_fn *eg_crc32c_copy_best = first_copy;

__attribute__((constructor)) static void choose_at_start(void) { choose(); }

const struct eg_crc32c_variant *eg_crc32c_variants(size_t *count_out) {
    *count_out = variants_count;
    return variants;
}
