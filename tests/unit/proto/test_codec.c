#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "proto/codec.h"
#include "sys/errbuf.h"
#include "sys/rand.h"

static size_t sample(uint8_t *buf, size_t cap) {
    struct eg_enc e;
    eg_enc_begin(&e, buf, cap, EG_MSG_OPEN | EG_MSG_REPLY, 77, EAGRE_E_BUSY);
    eg_enc_u8(&e, 0xab);
    eg_enc_u16(&e, 0xbeef);
    eg_enc_u32(&e, 0xdeadbeef);
    eg_enc_u64(&e, UINT64_MAX - 1);
    eg_enc_i64(&e, -5);
    eg_enc_str(&e, "orders");
    eg_enc_str(&e, "");
    return e.overflow ? 0 : e.used;
}

/* Reads what sample() wrote; true if all of it was there. */
static bool read_sample(const uint8_t *buf, size_t n, bool compare) {
    struct eg_dec d;
    struct eg_msg_header h;
    if (eg_dec_begin(&d, buf, n, &h) != EAGRE_OK)
        return false;
    uint8_t a = eg_dec_u8(&d);
    uint16_t b = eg_dec_u16(&d);
    uint32_t c = eg_dec_u32(&d);
    uint64_t u = eg_dec_u64(&d);
    int64_t i = eg_dec_i64(&d);
    char s[16], t[1];
    eg_dec_str(&d, s, sizeof(s));
    eg_dec_str(&d, t, sizeof(t));
    assert_true(memchr(s, 0, sizeof(s)) != NULL);
    assert_int_equal(t[0], 0);
    if (compare) {
        assert_int_equal(h.type, EG_MSG_OPEN | EG_MSG_REPLY);
        assert_int_equal(h.id, 77);
        assert_int_equal(h.status, EAGRE_E_BUSY);
        assert_int_equal(a, 0xab);
        assert_int_equal(b, 0xbeef);
        assert_int_equal(c, 0xdeadbeef);
        assert_true(u == UINT64_MAX - 1);
        assert_true(i == -5);
        assert_string_equal(s, "orders");
    }
    return eg_dec_end(&d);
}

static void round_trip(void **state) {
    (void)state;
    uint8_t buf[128];
    size_t n = sample(buf, sizeof(buf));
    assert_int_equal(n, 16 + 1 + 2 + 4 + 8 + 8 + 8 + 2);
    /* The bytes are fixed for ever: little-endian, packed. */
    assert_memory_equal(buf, "EGR1\x01\x00\x03\x80\x4d\x00\x00\x00\xed\xff\xff\xff\xab\xef\xbe",
                        19);
    assert_true(read_sample(buf, n, true));
}

static void every_truncation_is_noticed(void **state) {
    (void)state;
    uint8_t buf[128];
    size_t n = sample(buf, sizeof(buf));
    for (size_t i = 0; i < n; i++) {
        uint8_t *copy = malloc(i ? i : 1); /* exact, so that ASan sees one byte too many */
        memcpy(copy, buf, i);
        assert_false(read_sample(copy, i, false));
        free(copy);
    }
    buf[n] = 0;
    assert_false(read_sample(buf, n + 1, true)); /* one byte left over */
}

static void every_short_buffer_is_noticed(void **state) {
    (void)state;
    uint8_t whole[128];
    size_t n = sample(whole, sizeof(whole));
    for (size_t cap = 0; cap < n; cap++) {
        uint8_t *buf = malloc(cap ? cap : 1);
        assert_int_equal(sample(buf, cap), 0);
        free(buf);
    }
    assert_int_equal(sample(whole, n), n);
}

static void overflow_sticks(void **state) {
    (void)state;
    uint8_t buf[18];
    struct eg_enc e;
    eg_enc_begin(&e, buf, sizeof(buf), EG_MSG_HELLO, 1, 0);
    eg_enc_u32(&e, 1);
    assert_true(e.overflow);
    eg_enc_u8(&e, 1); /* would fit, but the message is broken already */
    assert_true(e.overflow);
    assert_int_equal(e.used, 16);
}

static void patches(void **state) {
    (void)state;
    uint8_t buf[32];
    struct eg_enc e;
    eg_enc_begin(&e, buf, sizeof(buf), EG_MSG_TOPIC_LIST, 1, 0);
    size_t more = e.used;
    eg_enc_u8(&e, 0);
    size_t count = e.used;
    eg_enc_u16(&e, 0);
    eg_enc_patch_u8(&e, more, 1);
    eg_enc_patch_u16(&e, count, 0x1234);
    struct eg_dec d;
    struct eg_msg_header h;
    assert_int_equal(eg_dec_begin(&d, buf, e.used, &h), 0);
    assert_int_equal(eg_dec_u8(&d), 1);
    assert_int_equal(eg_dec_u16(&d), 0x1234);
    assert_true(eg_dec_end(&d));
    eg_enc_patch_u16(&e, e.used - 1, 1); /* half of it would lie outside */
    assert_true(e.overflow);
}

static void bad_strings(void **state) {
    (void)state;
    static const struct {
        const char *body;
        size_t n;
    } cases[] = {
        {"\x04\x00"
         "abcd",
         6}, /* no room for the NUL in 4 bytes */
        {"\x03\x00"
         "a\0b",
         5}, /* a NUL inside would cut it */
        {"\xff\xff"
         "abc",
         5},         /* longer than the message */
        {"\x01", 1}, /* half a length */
    };
    for (size_t i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
        struct eg_dec d = {.data = (const uint8_t *)cases[i].body, .left = cases[i].n};
        char s[4] = "xyz";
        eg_dec_str(&d, s, sizeof(s));
        assert_true(d.bad);
        assert_string_equal(s, "");
        assert_false(eg_dec_end(&d));
    }
    struct eg_dec d = {.data = (const uint8_t *)"\x03\x00"
                                                "abc",
                       .left = 5};
    char s[4];
    eg_dec_str(&d, s, sizeof(s));
    assert_string_equal(s, "abc");
    assert_true(eg_dec_end(&d));
}

static void long_string_is_cut(void **state) {
    (void)state;
    char *s = malloc(70001);
    memset(s, 'x', 70000);
    s[70000] = '\0';
    uint8_t *buf = malloc(80000);
    struct eg_enc e;
    eg_enc_begin(&e, buf, 80000, EG_MSG_STATUS, 1, 0);
    eg_enc_str(&e, s);
    assert_false(e.overflow);
    assert_int_equal(e.used, 16 + 2 + 65535);
    free(buf);
    free(s);
}

static void bad_headers(void **state) {
    (void)state;
    uint8_t buf[128];
    struct eg_dec d;
    struct eg_msg_header h;
    size_t n = sample(buf, sizeof(buf));
    buf[0] ^= 1;
    assert_int_equal(eg_dec_begin(&d, buf, n, &h), EAGRE_E_PROTOCOL);
    buf[0] ^= 1;
    buf[4] = 99;
    assert_int_equal(eg_dec_begin(&d, buf, n, &h), EAGRE_E_VERSION);
    assert_non_null(strstr(eg_error_text(), "99"));
    uint8_t *big = calloc(1, EG_MSG_MAX + 1);
    assert_int_equal(eg_dec_begin(&d, big, EG_MSG_MAX + 1, &h), EAGRE_E_PROTOCOL);
    free(big);
}

static void random_bytes_never_hurt(void **state) {
    (void)state;
    uint64_t seed = 42;
    for (int round = 0; round < 20000; round++) {
        size_t n = eg_rand_next(&seed) % 96;
        uint8_t *buf = malloc(n ? n : 1);
        for (size_t i = 0; i < n; i++)
            buf[i] = (uint8_t)eg_rand_next(&seed);
        if (n >= 6 && round % 2) /* past the header, to the fields */
            memcpy(buf, "EGR1\x01\x00", 6);
        (void)read_sample(buf, n, false);
        free(buf);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(round_trip),
        cmocka_unit_test(every_truncation_is_noticed),
        cmocka_unit_test(every_short_buffer_is_noticed),
        cmocka_unit_test(overflow_sticks),
        cmocka_unit_test(patches),
        cmocka_unit_test(bad_strings),
        cmocka_unit_test(long_string_is_cut),
        cmocka_unit_test(bad_headers),
        cmocka_unit_test(random_bytes_never_hurt),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
