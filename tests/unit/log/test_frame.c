/* A frame says what was written, and nothing else is taken for one. */
#include "unit/log/fake_bus.h"

#define ROOM 512u

static _Alignas(64) uint8_t bytes[ROOM];

static struct eg_frame *frame(void) { return eg_frame_at(bytes, 0); }

static uint64_t make(bool headers, uint32_t klen, uint32_t vlen, uint32_t hlen) {
    memset(bytes, 0, sizeof(bytes));
    uint64_t payload = (klen != EG_NULL_LENGTH ? klen : 0) + (vlen != EG_NULL_LENGTH ? vlen : 0);
    for (uint64_t i = 0; i < payload; i++)
        frame()->payload[i] = (uint8_t)(i + 1);
    if (headers) {
        memcpy(frame()->payload + payload, &hlen, 4);
        payload += 4 + hlen;
    }
    return eg_frame_finish(frame(), 4096, eg_frame_length(payload, 8), 5, eg_frame_seed(1, 2), 3, 99, klen, vlen, headers, payload);
}

static void says_what_was_written(void **state) {
    (void)state;
    const uint32_t lengths[] = {EG_NULL_LENGTH, 0, 1, 7, 8, 100};
    for (uint32_t i = 0; i < 6 * 6 * 3; i++) {
        uint32_t klen = lengths[i % 6], vlen = lengths[i / 6 % 6], hlen = (i / 36) * 9;
        bool headers = i / 36 > 0;
        struct eg_frame_view v;
        uint64_t word = make(headers, klen, vlen, hlen);
        assert_true(eg_frame_view(frame(), word, &v));
        assert_true(eg_frame_crc_ok(frame(), 4096, word, eg_frame_seed(1, 2), &v));
        assert_int_equal(eg_word_state(word), EG_PUBLISHED);
        assert_int_equal(eg_word_count(word), 1);
        assert_int_equal(eg_word_owner(word), 3);
        assert_int_equal(v.index, 5);
        assert_int_equal(v.timestamp_ns, 99);
        assert_int_equal(v.key == NULL, klen == EG_NULL_LENGTH);
        assert_int_equal(v.value == NULL, vlen == EG_NULL_LENGTH);
        assert_int_equal(v.headers == NULL, !headers);
        const uint8_t *p = frame()->payload;
        if (v.key != NULL) {
            assert_ptr_equal(v.key, p);
            assert_int_equal(v.key_length, klen);
            p += klen;
        }
        if (v.value != NULL) {
            assert_ptr_equal(v.value, p);
            assert_int_equal(v.value_length, vlen);
            p += vlen;
        }
        if (headers) {
            assert_ptr_equal(v.headers, p + 4);
            assert_int_equal(v.headers_length, hlen);
        }
    }
}

/* Every bit that the CRC covers, and every bit of what seeds it. */
static void crc_covers_place_and_content(void **state) {
    (void)state;
    struct eg_frame_view v;
    uint32_t seed = eg_frame_seed(1, 2);
    uint64_t word = make(true, 5, 9, 3);
    assert_true(eg_frame_view(frame(), word, &v));
    uint64_t covered = EG_FRAME_HEADER + eg_align_up(v.payload, 8);
    for (uint64_t bit = 8 * 8; bit < covered * 8; bit++) {
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
        assert_false(eg_frame_view(frame(), word, &v) && eg_frame_crc_ok(frame(), 4096, word, seed, &v));
        bytes[bit / 8] ^= (uint8_t)(1 << bit % 8);
    }
    assert_true(eg_frame_view(frame(), word, &v) && eg_frame_crc_ok(frame(), 4096, word, seed, &v));
    assert_false(eg_frame_crc_ok(frame(), 4104, word, seed, &v));
    assert_false(eg_frame_crc_ok(frame(), 4096, word, eg_frame_seed(1, 3), &v));
    assert_false(eg_frame_crc_ok(frame(), 4096, word, eg_frame_seed(2, 2), &v));
    assert_false(eg_frame_crc_ok(frame(), 4096, word ^ 1u << 4, seed, &v)); /* the headers flag */
    v.index++;
    assert_false(eg_frame_crc_ok(frame(), 4096, word, seed, &v));
}

static void lengths_stay_inside_the_frame(void **state) {
    (void)state;
    struct eg_frame_view v;
    const uint32_t bad[] = {97, 98, 0x7fffffff, 0x80000000, 0xfffffffe, 0xfffffff0};
    for (size_t i = 0; i < sizeof(bad) / sizeof(*bad); i++) {
        uint64_t word = make(false, 48, 48, 0);
        frame()->key_length = bad[i];
        assert_false(eg_frame_view(frame(), word, &v));
        frame()->key_length = 48;
        frame()->value_length = bad[i] - 48 > bad[i] ? bad[i] : bad[i] - 48;
        assert_false(eg_frame_view(frame(), word, &v));
        word = make(true, 20, 20, 52);
        uint32_t hlen = bad[i] - 44 > bad[i] ? bad[i] : bad[i] - 44;
        memcpy(frame()->payload + 40, &hlen, 4);
        assert_false(eg_frame_view(frame(), word, &v));
    }
    /* No room for the headers' own length. */
    for (uint32_t room = 0; room < 4; room++) {
        uint64_t word = make(false, 0, 32, 0) | 1u << 4;
        frame()->value_length = 32 - room;
        assert_false(eg_frame_view(frame(), word, &v));
    }
    /* A frame is one record, and holds at least its header. */
    uint64_t word = make(false, 8, 8, 0);
    assert_false(eg_frame_view(frame(), word + (1ull << 32), &v));
    assert_false(eg_frame_view(frame(), word - (1ull << 32), &v));
    assert_false(eg_frame_view(frame(), eg_word_make(EG_PUBLISHED, EG_KIND_DATA, false, 24, 1, 1), &v));
}

/* Random bytes: whatever is accepted points inside. */
static void anything_accepted_lies_inside(void **state) {
    (void)state;
    uint64_t rand = 7;
    uint32_t accepted = 0;
    for (uint32_t i = 0; i < 200000; i++) {
        uint64_t length = eg_rand_next(&rand) % (ROOM / 8) * 8 + 8;
        uint64_t word = eg_word_make(EG_PUBLISHED, EG_KIND_DATA, eg_rand_next(&rand) & 1, length, 1, 1);
        for (uint32_t k = 0; k < ROOM; k += 8) {
            uint64_t r = eg_rand_next(&rand);
            if (eg_rand_next(&rand) & 1)
                r &= 0x3f0000003full; /* plausible lengths */
            memcpy(bytes + k, &r, 8);
        }
        struct eg_frame_view v;
        if (!eg_frame_view(frame(), word, &v))
            continue;
        accepted++;
        const uint8_t *end = bytes + length;
        assert_true(EG_FRAME_HEADER + eg_align_up(v.payload, 8) <= length);
        assert_true(v.key == NULL || (v.key >= frame()->payload && v.key + v.key_length <= end));
        assert_true(v.value == NULL || (v.value >= frame()->payload && v.value + v.value_length <= end));
        assert_true(v.headers == NULL || (v.headers >= frame()->payload && v.headers + v.headers_length <= end));
        (void)eg_frame_crc_ok(frame(), 4096, word, 1, &v);
    }
    assert_true(accepted > 1000);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(says_what_was_written),
        cmocka_unit_test(crc_covers_place_and_content),
        cmocka_unit_test(lengths_stay_inside_the_frame),
        cmocka_unit_test(anything_accepted_lies_inside),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
