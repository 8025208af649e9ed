/* The packed words: every field keeps its bits to itself, and nothing hostile passes as a frame word. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "layout/layout.h"
#include "sys/rand.h"

static void frame_word_keeps_fields_apart(void **state) {
    (void)state;
    const uint64_t lengths[] = {0, 8, 64, (uint64_t)EG_LENGTH_UNITS_MAX << 3};
    const uint32_t counts[] = {0, 1, 65535, EG_COUNT_MAX};
    const uint32_t owners[] = {0, 1, EG_CLIENTS_MAX, EG_OWNER_MAX};
    for (uint32_t i = 0; i < 3 * 3 * 2 * 4 * 4 * 4; i++) {
        uint32_t s = i % 3, k = i / 3 % 3, h = i / 9 % 2, l = i / 18 % 4, c = i / 72 % 4, o = i / 288;
        uint64_t w = eg_word_make((enum eg_frame_state)s, (enum eg_frame_kind)k, h != 0, lengths[l], counts[c], owners[o]);
        assert_int_equal(eg_word_state(w), s);
        assert_int_equal(eg_word_kind(w), k);
        assert_int_equal(eg_word_headers(w), h);
        assert_true(eg_word_length(w) == lengths[l]);
        assert_int_equal(eg_word_count(w), counts[c]);
        assert_int_equal(eg_word_owner(w), owners[o]);
    }
    /* As drawn in word.h: old logs are read by the same bits. */
    assert_true(eg_word_make(EG_PUBLISHED, EG_KIND_PAD, true, 64, 3, 5) ==
                (2 | 1u << 2 | 1u << 4 | 8u << 6 | 3ull << 32 | 5ull << 50));
    assert_true(EG_CLIENTS_MAX <= EG_OWNER_MAX);
    assert_true((EG_SEGMENT_BYTES_MAX - EG_SEGMENT_DATA) / 8 <= EG_LENGTH_UNITS_MAX); /* an EOS from the start */
}

static void sane_words_lead_forward_inside(void **state) {
    (void)state;
    const uint64_t cap = 65536;
    const uint64_t good = eg_word_make(EG_PUBLISHED, EG_KIND_DATA, false, 128, 1, 1);
    assert_true(eg_word_is_sane(good, cap - 128, cap, 64));
    assert_false(eg_word_is_sane(good, cap - 64, cap, 64)); /* leads outside */
    assert_false(eg_word_is_sane(0, 4096, cap, 8));
    assert_false(eg_word_is_sane(eg_word_make(EG_PUBLISHED, EG_KIND_DATA, false, 0, 1, 1), 4096, cap, 8));
    assert_false(eg_word_is_sane(eg_word_make(EG_PUBLISHED, EG_KIND_DATA, false, 72, 1, 1), 4096, cap, 64));
    assert_false(eg_word_is_sane(eg_word_make(EG_PUBLISHED, EG_KIND_DATA, false, 32, 1, 1), 4096, cap, 64));
    assert_false(eg_word_is_sane(eg_word_make(EG_FREE, EG_KIND_DATA, false, 128, 1, 1), 4096, cap, 64));
    assert_false(eg_word_is_sane(good | 3, 4096, cap, 64));       /* state 3 */
    assert_false(eg_word_is_sane(good | 3u << 2, 4096, cap, 64)); /* kind 3 */
    assert_false(eg_word_is_sane(good | 0x20, 4096, cap, 64));    /* the unused bit */
    assert_false(eg_word_is_sane(good, cap, cap, 64));

    /* Whatever the word: a walk by sane words ends at the capacity at the latest. */
    uint64_t rand = 1;
    for (uint32_t i = 0; i < 200000; i++) {
        uint32_t align = 8u << eg_rand_next(&rand) % 4;
        uint64_t pos = eg_rand_next(&rand) % (cap / align + 1) * align;
        uint64_t w = eg_rand_next(&rand) & ~(eg_rand_next(&rand) & 0xffffffc0u); /* short lengths, too */
        if (!eg_word_is_sane(w, pos, cap, align))
            continue;
        uint64_t next = pos + eg_word_length(w);
        assert_true(next > pos && next <= cap && next % align == 0);
    }
}

static void slot_word_keeps_fields_apart(void **state) {
    (void)state;
    const uint64_t seqs[] = {0, 1, 12345, EG_SEQ_MAX};
    for (uint32_t i = 0; i < 4 * 3 * 4; i++) {
        uint32_t buffers[] = {0, 127, 0xffff};
        uint64_t w = eg_slot_make(seqs[i % 4], buffers[i / 4 % 3], (enum eg_slot_state)(i / 12));
        assert_true(eg_slot_seq(w) == seqs[i % 4]);
        assert_int_equal(eg_slot_buffer(w), buffers[i / 4 % 3]);
        assert_int_equal(eg_slot_state(w), i / 12);
    }
}

static void hint_and_pin_keep_fields_apart(void **state) {
    (void)state;
    uint64_t h = eg_hint_make(EG_SEGMENT_BYTES_MAX, 0xffffffff);
    assert_true(eg_hint_pos(h) == EG_SEGMENT_BYTES_MAX && eg_hint_index(h) == 0xffffffff);
    const uint32_t indexes[] = {0, 1, EG_PARTITIONS_MAX - 2, EG_PARTITIONS_MAX - 1};
    for (uint32_t i = 0; i < 4; i++) {
        for (uint32_t producer = 0; producer < 2; producer++) {
            uint64_t p = eg_pin_make(producer != 0, indexes[i], EG_SEQ_MAX);
            assert_true(p != EG_PIN_NONE && eg_pin_seq(p) == EG_SEQ_MAX);
            assert_int_equal(eg_pin_is_producer(p), producer);
            for (uint32_t k = 0; k < 4; k++)
                assert_int_equal(eg_pin_is_on(p, indexes[k]), k == i);
        }
    }
    assert_true(eg_pin_make(false, 0, 0) != EG_PIN_NONE);
    assert_false(eg_pin_is_on(EG_PIN_NONE, 0));
}

static void index_entry_is_of_its_segment_only(void **state) {
    (void)state;
    uint64_t e = eg_index_make(7, 5 * EG_INDEX_BLOCK + 65528, 0x7ffffff);
    assert_true(eg_index_is_of(e, 7) && eg_index_is_of(e, 7 + (1 << 24)));
    assert_false(eg_index_is_of(e, 8));
    assert_false(eg_index_is_of(0, 0)); /* an empty entry is of none */
    assert_true(eg_index_pos(e, 5) == 5 * EG_INDEX_BLOCK + 65528);
    assert_true(eg_index_record(e) == 0x7ffffff);
    /* The first entry of segment 0 at a block's very start still is one. */
    assert_true(eg_index_is_of(eg_index_make(0, EG_INDEX_BLOCK, 1), 0));
    /* No segment has more records than an entry can say. */
    assert_true(EG_SEGMENT_BYTES_MAX / EG_FRAME_HEADER <= 0x7ffffff);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(frame_word_keeps_fields_apart),
        cmocka_unit_test(sane_words_lead_forward_inside),
        cmocka_unit_test(slot_word_keeps_fields_apart),
        cmocka_unit_test(hint_and_pin_keep_fields_apart),
        cmocka_unit_test(index_entry_is_of_its_segment_only),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
