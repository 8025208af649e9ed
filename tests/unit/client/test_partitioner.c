/* The same key goes to the same partition as with Kafka's Java client. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "eagre/producer.h"
#include "sys/hash.h"

/* Kafka's own vectors: org.apache.kafka.common.utils.UtilsTest. */
static const struct {
    const char *key;
    int32_t hash;
} vectors[] = {
    {"21", -973932308},
    {"foobar", -790332482},
    {"a-little-bit-long-string", -985981536},
    {"a-little-bit-longer-string", -1486304829},
    {"lkjh234lh9fiuh90y23oiuhsafujhadof229phr9h19h89h8", -58897971},
    {"abc", 479470107},
};
#define VECTORS (sizeof(vectors) / sizeof(*vectors))

static void hashes_are_kafkas(void **state) {
    (void)state;
    for (size_t i = 0; i < VECTORS; i++)
        assert_int_equal((int32_t)eg_murmur2(vectors[i].key, strlen(vectors[i].key)), vectors[i].hash);
}

static void partitions_are_kafkas(void **state) {
    (void)state;
    const int32_t counts[] = {1, 2, 3, 7, 12, 100, 1024};
    for (size_t i = 0; i < VECTORS; i++) {
        for (size_t k = 0; k < sizeof(counts) / sizeof(*counts); k++) {
            /* Utils.toPositive(Utils.murmur2(key)) % numPartitions */
            int32_t expected = (int32_t)(((uint32_t)vectors[i].hash & 0x7fffffff) % (uint32_t)counts[k]);
            assert_int_equal(eagre_partition_for_key(vectors[i].key, strlen(vectors[i].key), counts[k]), expected);
        }
    }
}

static void odd_arguments_stay_in_range(void **state) {
    (void)state;
    assert_int_equal(eagre_partition_for_key(NULL, 0, 5), eagre_partition_for_key("", 0, 5));
    assert_int_equal(eagre_partition_for_key(NULL, 3, 5), 0);
    assert_int_equal(eagre_partition_for_key("a", 1, 0), 0);
    assert_int_equal(eagre_partition_for_key("a", 1, -7), 0);
    /* A key at any alignment is the same key. */
    char buf[64];
    for (size_t i = 0; i < 8; i++) {
        memcpy(buf + i, vectors[2].key, strlen(vectors[2].key));
        assert_int_equal((int32_t)eg_murmur2(buf + i, strlen(vectors[2].key)), vectors[2].hash);
    }
}

/* Keys spread: no partition of 16 gets less than half or more than double its share of 16,000. */
static void keys_spread(void **state) {
    (void)state;
    uint32_t count[16] = {0};
    for (uint32_t i = 0; i < 16000; i++) {
        int32_t p = eagre_partition_for_key(&i, sizeof(i), 16);
        assert_in_range(p, 0, 15);
        count[p]++;
    }
    for (int p = 0; p < 16; p++)
        assert_in_range(count[p], 500, 2000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(hashes_are_kafkas),
        cmocka_unit_test(partitions_are_kafkas),
        cmocka_unit_test(odd_arguments_stay_in_range),
        cmocka_unit_test(keys_spread),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
