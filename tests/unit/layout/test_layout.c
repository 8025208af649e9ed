/* Objects of another version, another build, another place or with impossible settings are refused. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#include <cmocka.h>

#include "layout/layout.h"
#include "sys/atomic.h"
#include "sys/errbuf.h"

static union {
    struct eg_topic_status t;
    uint8_t bytes[EG_PAGE + 4 * sizeof(struct eg_partition_status)];
} status;

static void good_status(void) {
    memset(&status, 0, sizeof(status));
    status.t.align = 64;
    status.t.segment_bytes = 1 << 20;
    status.t.ring_segments = 3;
    eg_store_relaxed(&status.t.partitions, 4);
    eg_magic_init(&status.t.magic);
    eg_magic_publish(&status.t.magic, EG_MAGIC_STATUS);
}

static int check_status(void) { return eg_topic_status_check(&status.t, sizeof(status)); }

static void magic_says_which_object_and_which_build(void **state) {
    (void)state;
    struct eg_magic m;
    memset(&m, 0, sizeof(m));
    assert_int_equal(eg_magic_check(&m, EG_MAGIC_BUS, "bus"), EAGRE_E_CORRUPT); /* nothing there */
    eg_magic_init(&m);
    assert_int_equal(eg_magic_check(&m, EG_MAGIC_BUS, "bus"), EAGRE_E_CORRUPT); /* not complete yet */
    eg_magic_publish(&m, EG_MAGIC_BUS);
    assert_int_equal(eg_magic_check(&m, EG_MAGIC_BUS, "bus"), EAGRE_OK);
    assert_memory_equal(&m, "EAGREbus", 8);
    assert_int_equal(eg_magic_check(&m, EG_MAGIC_RING, "ring"), EAGRE_E_CORRUPT);
    assert_non_null(strstr(eg_error_text(), "ring")); /* the text says what it was about */
    m.version++;
    assert_int_equal(eg_magic_check(&m, EG_MAGIC_BUS, "bus"), EAGRE_E_VERSION);
    m.version--;
    m.fingerprint ^= 1;
    assert_int_equal(eg_magic_check(&m, EG_MAGIC_BUS, "bus"), EAGRE_E_VERSION);
    assert_int_equal(eg_layout_fingerprint(), eg_layout_fingerprint());
    assert_int_not_equal(eg_layout_fingerprint(), 0);
}

static void status_settings_must_be_possible(void **state) {
    (void)state;
    good_status();
    assert_int_equal(check_status(), EAGRE_OK);
    assert_int_equal(eg_topic_status_check(&status.t, sizeof(status) - 1), EAGRE_E_CORRUPT); /* 4 partitions do not fit */
    assert_int_equal(eg_topic_status_check(&status.t, EG_PAGE - 1), EAGRE_E_CORRUPT);
    assert_int_equal(eg_topic_status_check(&status.t, 0), EAGRE_E_CORRUPT);

    const uint64_t sizes[] = {0, 65535, EG_SEGMENT_BYTES_MIN - 8, EG_SEGMENT_BYTES_MIN + 64, EG_SEGMENT_BYTES_MAX + EG_INDEX_BLOCK,
                              UINT64_MAX, UINT64_MAX - 65535, 1ull << 32};
    for (size_t i = 0; i < sizeof(sizes) / sizeof(*sizes); i++) {
        good_status();
        status.t.segment_bytes = sizes[i];
        assert_int_equal(check_status(), EAGRE_E_CORRUPT);
    }
    const uint32_t rings[] = {0, 1, EG_RING_SEGMENTS_MIN - 1, EG_RING_SEGMENTS_MAX + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof(rings) / sizeof(*rings); i++) {
        good_status();
        status.t.ring_segments = rings[i];
        assert_int_equal(check_status(), EAGRE_E_CORRUPT);
    }
    for (uint32_t align = 0; align < 300; align++) {
        good_status();
        status.t.align = align;
        bool possible = align == 8 || align == 16 || align == 32 || align == 64;
        assert_int_equal(check_status(), possible ? EAGRE_OK : EAGRE_E_CORRUPT);
    }
    const uint32_t partitions[] = {5, EG_TOPIC_PARTITIONS_MAX + 1, UINT32_MAX};
    for (size_t i = 0; i < sizeof(partitions) / sizeof(*partitions); i++) {
        good_status();
        eg_store_relaxed(&status.t.partitions, partitions[i]);
        assert_int_equal(check_status(), EAGRE_E_CORRUPT);
    }
    good_status();
    status.t.magic.version = 0;
    assert_int_equal(check_status(), EAGRE_E_VERSION);
}

static void segment_header_is_of_one_segment(void **state) {
    (void)state;
    static union {
        struct eg_segment_header h;
        uint8_t page[EG_PAGE];
    } u;
    struct eg_segment_header *h = &u.h;
    good_status();
    memset(&u, 0, sizeof(u));
    eg_store_relaxed(&h->allocated, 8192);
    assert_int_equal(eg_segment_check(h, 9, 41, 1 << 20), EAGRE_E_CORRUPT);
    eg_segment_init(h, &status.t, 2, 9, 41, 123);
    assert_int_equal(eg_segment_check(h, 9, 41, 1 << 20), EAGRE_OK);
    assert_true(eg_load_relaxed(&h->base) == EG_BASE_UNSET);
    assert_true(eg_load_relaxed(&h->hint) == eg_hint_make(EG_SEGMENT_DATA, 0));
    assert_true(eg_load_relaxed(&h->allocated) == 8192); /* stays: the memory does, too */
    assert_int_equal(eg_segment_check(h, 8, 41, 1 << 20), EAGRE_E_CORRUPT);
    assert_int_equal(eg_segment_check(h, 9, 42, 1 << 20), EAGRE_E_CORRUPT);
    assert_int_equal(eg_segment_check(h, 9, 41, 2 << 20), EAGRE_E_CORRUPT);
    /* Any bit of what the CRC covers, and the CRC itself. */
    for (uint32_t bit = 8 * 8; bit < 60 * 8; bit++) {
        u.page[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_int_not_equal(eg_segment_check(h, 9, 41, 1 << 20), EAGRE_OK);
        u.page[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_int_equal(eg_segment_check(h, 9, 41, 1 << 20), EAGRE_OK);
    /* What producers change is not covered. */
    eg_store_relaxed(&h->base, 77);
    eg_store_relaxed(&h->hint, 77);
    eg_store_relaxed(&h->allocated, 77);
    assert_int_equal(eg_segment_check(h, 9, 41, 1 << 20), EAGRE_OK);
    /* Its next life. */
    eg_segment_init(h, &status.t, 2, 9, 44, 124);
    assert_int_equal(eg_segment_check(h, 9, 44, 1 << 20), EAGRE_OK);
    assert_int_equal(eg_segment_check(h, 9, 41, 1 << 20), EAGRE_E_CORRUPT);
    assert_true(eg_load_relaxed(&h->base) == EG_BASE_UNSET);
}

static void places_do_not_overlap(void **state) {
    (void)state;
    for (uint32_t slots = EG_RING_SEGMENTS_MIN; slots <= EG_RING_SEGMENTS_MAX; slots++) {
        for (uint64_t bytes = EG_SEGMENT_BYTES_MIN; bytes <= EG_SEGMENT_BYTES_MAX; bytes *= 8) {
            size_t stride = eg_ring_stride(slots, bytes);
            struct eg_ring *r = aligned_alloc(EG_PAGE, stride);
            assert_non_null(r);
            uintptr_t last = (uintptr_t)&r->slot[slots];
            assert_true((uintptr_t)eg_ring_index(r, slots, 0, bytes) >= last);
            uintptr_t end = (uintptr_t)(eg_ring_index(r, slots, slots - 1, bytes) + eg_index_blocks(bytes));
            assert_true(end <= (uintptr_t)r + stride);
            assert_true((uintptr_t)eg_ring_index(r, slots, 1, bytes) ==
                        (uintptr_t)(eg_ring_index(r, slots, 0, bytes) + eg_index_blocks(bytes)));
            free(r);
        }
    }
    good_status();
    assert_ptr_equal(eg_status_of(&status.t, 3), status.bytes + EG_PAGE + 3 * EG_PAGE);
    assert_true(eg_status_bytes(4) == sizeof(status));
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(magic_says_which_object_and_which_build),
        cmocka_unit_test(status_settings_must_be_possible),
        cmocka_unit_test(segment_header_is_of_one_segment),
        cmocka_unit_test(places_do_not_overlap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
