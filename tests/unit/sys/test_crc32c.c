/* Every variant of the CRC against one that works bit by bit. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "sys/crc32c.h"
#include "sys/rand.h"

#define LEN_MAX 600
#define LONG_MAX_BYTES 20000

static uint32_t bitwise(uint32_t crc, const unsigned char *p, size_t n) {
    crc = ~crc;
    for (size_t i = 0; i < n; i++) {
        crc ^= p[i];
        for (int bit = 0; bit < 8; bit++) {
            crc = (crc >> 1) ^ ((crc & 1) != 0 ? 0x82f63b78u : 0);
        }
    }
    return ~crc;
}

static void fill(unsigned char *p, size_t n, uint64_t seed) {
    for (size_t i = 0; i < n; i++) {
        p[i] = (unsigned char)eg_rand_next(&seed);
    }
}

/* Calls check for every variant that this CPU can run; table and what the CPU has must be there. */
static void for_each_variant(void (*check)(const struct eg_crc32c_variant *)) {
    size_t count, usable = 0;
    const struct eg_crc32c_variant *v = eg_crc32c_variants(&count);
    for (size_t i = 0; i < count; i++) {
        if (v[i].usable) {
            usable++;
            check(&v[i]);
            assert_true(i + 1 < count || eg_crc32c_best == v[i].crc);
        }
    }
    assert_true(usable >= 1);
}

/* RFC 3720, B.4 */
static void check_vectors(const struct eg_crc32c_variant *v) {
    unsigned char b[32];
    static const unsigned char read_pdu[48] = {
        0x01, 0xc0, 0, 0, 0, 0, 0,    0, 0,    0, 0, 0,    0, 0, 0, 0,
        0x14, 0,    0, 0, 0, 0, 0x04, 0, 0,    0, 0, 0x14, 0, 0, 0, 0x18,
        0x28, 0,    0, 0, 0, 0, 0,    0, 0x02, 0, 0, 0,    0, 0, 0, 0};
    memset(b, 0, sizeof b);
    assert_int_equal(v->crc(0, b, 32), 0x8a9136aau);
    memset(b, 0xff, sizeof b);
    assert_int_equal(v->crc(0, b, 32), 0x62a8ab43u);
    for (int i = 0; i < 32; i++) {
        b[i] = (unsigned char)i;
    }
    assert_int_equal(v->crc(0, b, 32), 0x46dd794eu);
    for (int i = 0; i < 32; i++) {
        b[i] = (unsigned char)(31 - i);
    }
    assert_int_equal(v->crc(0, b, 32), 0x113fdb5cu);
    assert_int_equal(v->crc(0, read_pdu, 48), 0xd9963a56u);
    assert_int_equal(v->crc(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(v->crc(0, b, 0), 0);
}

static void check_lengths(const struct eg_crc32c_variant *v) {
    /* In an allocation of just the size, so that ASan sees a byte too much being read. */
    for (size_t align = 0; align < 16; align++) {
        for (size_t n = 0; n <= LEN_MAX; n++) {
            unsigned char *p = malloc(align + n + 1);
            fill(p, align + n, n * 16 + align);
            uint32_t seed = (uint32_t)(n * 0x9e3779b9u + align);
            assert_int_equal(v->crc(seed, p + align, n), bitwise(seed, p + align, n));
            free(p);
        }
    }
}

static void check_copy(const struct eg_crc32c_variant *v) {
    unsigned char *from = malloc(LONG_MAX_BYTES);
    unsigned char *to = malloc(LONG_MAX_BYTES);
    fill(from, LONG_MAX_BYTES, 7);
    for (size_t align = 0; align < 16; align++) {
        for (size_t n = 0; n <= LEN_MAX; n++) {
            const size_t at = 64 + (align * 7) % 16;
            memset(to, 0xa5, LEN_MAX + 160);
            assert_int_equal(v->copy(0x1234567u, to + at, from + align, n),
                             bitwise(0x1234567u, from + align, n));
            assert_memory_equal(to + at, from + align, n);
            for (size_t i = 0; i < at; i++) {
                assert_int_equal(to[i], 0xa5);
            }
            for (size_t i = at + n; i < LEN_MAX + 160; i++) {
                assert_int_equal(to[i], 0xa5);
            }
        }
    }
    for (size_t n = LEN_MAX; n <= LONG_MAX_BYTES; n = n * 3 / 2 + 1) {
        memset(to, 0, LONG_MAX_BYTES);
        assert_int_equal(v->copy(5, to, from, n), bitwise(5, from, n));
        assert_memory_equal(to, from, n);
    }
    free(from);
    free(to);
}

static void check_long(const struct eg_crc32c_variant *v) {
    unsigned char *p = malloc(LONG_MAX_BYTES);
    uint64_t state = 3;
    fill(p, LONG_MAX_BYTES, 1);
    for (int i = 0; i < 300; i++) {
        const size_t at = eg_rand_next(&state) % 100;
        const size_t n = eg_rand_next(&state) % (LONG_MAX_BYTES - at);
        assert_int_equal(v->crc((uint32_t)i, p + at, n), bitwise((uint32_t)i, p + at, n));
    }
    free(p);
}

static void check_chain(const struct eg_crc32c_variant *v) {
    unsigned char p[LEN_MAX];
    fill(p, sizeof p, 99);
    const uint32_t whole = bitwise(0, p, sizeof p);
    for (size_t cut = 0; cut <= sizeof p; cut++) {
        assert_int_equal(v->crc(v->crc(0, p, cut), p + cut, sizeof p - cut), whole);
    }
}

static void vectors(void **state) {
    (void)state;
    for_each_variant(check_vectors);
}

static void lengths_and_alignments(void **state) {
    (void)state;
    for_each_variant(check_lengths);
}

static void copies(void **state) {
    (void)state;
    for_each_variant(check_copy);
}

static void long_messages(void **state) {
    (void)state;
    for_each_variant(check_long);
}

static void chaining(void **state) {
    (void)state;
    for_each_variant(check_chain);
}

static void the_chosen_variant(void **state) {
    (void)state;
    unsigned char to[9];
    assert_int_equal(eg_crc32c(0, "123456789", 9), 0xe3069283u);
    assert_int_equal(eg_crc32c_copy(0, to, "123456789", 9), 0xe3069283u);
    assert_memory_equal(to, "123456789", 9);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(vectors),  cmocka_unit_test(lengths_and_alignments),
        cmocka_unit_test(copies),   cmocka_unit_test(long_messages),
        cmocka_unit_test(chaining), cmocka_unit_test(the_chosen_variant),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
