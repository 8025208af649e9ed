/* Clocks, hash, random numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <string.h>

#include "sys/clock.h"
#include "sys/hash.h"
#include "sys/rand.h"

static void clocks_agree(void **state) {
    (void)state;
    /* The coarse clock is the exact one as of the last tick. (Room for somebody who sets it.) */
    const int64_t before = eg_now_ns();
    const int64_t coarse = eg_now_coarse_ns();
    const int64_t after = eg_now_ns();
    assert_true(before > INT64_C(1600000000) * EG_NS_PER_S);
    assert_true(coarse >= before - EG_NS_PER_S);
    assert_true(coarse <= after + EG_NS_PER_S);
    int64_t last = eg_mono_ns();
    for (int i = 0; i < 1000; i++) {
        const int64_t next = eg_mono_ns();
        assert_true(next >= last);
        last = next;
    }
}

/* The values that Kafka's own test of its murmur2 expects, and some more that it computes. */
static void murmur2_is_kafkas(void **state) {
    (void)state;
    static const struct {
        const char *key;
        int32_t hash;
    } cases[] = {
        {"21", -973932308},
        {"foobar", -790332482},
        {"a-little-bit-long-string", -985981536},
        {"a-little-bit-longer-string", -1486304829},
        {"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
        {"abc", 479470107},
        {"1", -1993445489},
        {"12", 126087238},
        {"123", -267702483},
        {"1234", -1614185708},
    };
    for (size_t i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        const char *key = cases[i].key;
        assert_int_equal((int32_t)eg_murmur2(key, strlen(key)), cases[i].hash);
        const uint32_t positive = (uint32_t)cases[i].hash & 0x7fffffffu;
        assert_int_equal(eg_partition_of_key(key, strlen(key), 12), positive % 12);
        assert_int_equal(eg_partition_of_key(key, strlen(key), 1), 0);
    }
    assert_int_equal((int32_t)eg_murmur2("", 0), 275646681);      /* the empty key is a key */
    assert_int_equal(eg_murmur2("\xff\x80\xfe", 3), 0x390b8dddu); /* bytes have no sign */
}

static void splitmix64_is_itself(void **state) {
    (void)state;
    uint64_t s = 1234567; /* the published test values of splitmix64 */
    assert_true(eg_rand_next(&s) == UINT64_C(6457827717110365317));
    assert_true(eg_rand_next(&s) == UINT64_C(3203168211198807973));
    assert_true(eg_rand_next(&s) == UINT64_C(9817491932198370423));
}

static void random_bytes_fill_all(void **state) {
    (void)state;
    unsigned char a[4096] = {0}, b[4096] = {0};
    assert_int_equal(eg_random_bytes(a, sizeof a), 0);
    assert_int_equal(eg_random_bytes(b, sizeof b), 0);
    assert_memory_not_equal(a, b, sizeof a);
    assert_memory_not_equal(a + sizeof a - 16, (unsigned char[16]){0}, 16);
    assert_int_equal(eg_random_bytes(a, 0), 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(clocks_agree),
        cmocka_unit_test(murmur2_is_kafkas),
        cmocka_unit_test(splitmix64_is_itself),
        cmocka_unit_test(random_bytes_fill_all),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
