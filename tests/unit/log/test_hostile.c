/*
 * Memory that a hostile producer wrote: readers, writers, repair and checker return errors or go on; they
 * do not crash, loop or read outside. (Guard pages lie around each mapping; a hang ends by SIGALRM.)
 */
#include "unit/log/fake_bus.h"

#if defined(__SANITIZE_THREAD__) || defined(__SANITIZE_ADDRESS__)
#define SEEDS 600u
#else
#define SEEDS 3000u
#endif
#define HANG_S 100u

static struct fake_bus *bus;
static struct fake_writer w;
static struct fake_reader r;
static _Atomic uint64_t *look_cell;

static uint64_t pick(uint64_t *rand, uint64_t n) { return eg_rand_next(rand) % n; }

/* A number that is likely to hurt. */
static uint64_t bad_number(uint64_t *rand) {
    static const uint64_t numbers[] = {0, 1, 7, 8, 31, 32, 63, 64, 4095, 4096, 4104, 65472, 65528, 65535, 65536, 1u << 26,
                                       INT32_MAX, 0x80000000u, UINT32_MAX, 1ull << 40, INT64_MAX, 1ull << 62, (1ull << 62) + 1,
                                       1ull << 63, UINT64_MAX - 63, UINT64_MAX};
    uint64_t v = numbers[pick(rand, sizeof(numbers) / sizeof(*numbers))];
    return pick(rand, 4) == 0 ? eg_rand_next(rand) >> pick(rand, 64) : v;
}

/* A frame word that looks like one, or almost. */
static uint64_t bad_word(uint64_t *rand) {
    if (pick(rand, 4) == 0)
        return eg_rand_next(rand);
    uint64_t length = pick(rand, 3) == 0 ? bad_number(rand) & 0x1fffffff : pick(rand, 64) * 8 * (1 + pick(rand, 16));
    uint32_t count = pick(rand, 3) == 0 ? EG_COUNT_MAX : (uint32_t)pick(rand, 4);
    return eg_word_make((enum eg_frame_state)pick(rand, 4), (enum eg_frame_kind)pick(rand, 4), pick(rand, 2), length, count,
                        (uint32_t)pick(rand, 1u << 14)) | (pick(rand, 16) == 0 ? 0x20 : 0);
}

static uint64_t bad_slot(uint64_t *rand) {
    uint64_t active = eg_load_relaxed(&bus->ring->active) & EG_SEQ_MAX;
    uint64_t seq = pick(rand, 4) == 0 ? bad_number(rand) & EG_SEQ_MAX : active + pick(rand, 7) - 3;
    return eg_slot_make(seq & EG_SEQ_MAX, pick(rand, 4) == 0 ? (uint32_t)eg_rand_next(rand) : (uint32_t)pick(rand, 5),
                        (enum eg_slot_state)pick(rand, 6));
}

/* A place where frames begin, most likely. */
static _Atomic uint64_t *some_word(uint8_t *base, uint64_t *rand) {
    uint64_t pos = EG_SEGMENT_DATA;
    for (uint64_t steps = pick(rand, 30); steps > 0; steps--) {
        uint64_t word = eg_load_relaxed(&eg_frame_at(base, pos)->word);
        if (!eg_word_is_sane(word, pos, bus->capacity, bus->align) || pos + eg_word_length(word) >= bus->capacity)
            break;
        pos += eg_word_length(word);
    }
    if (pick(rand, 4) == 0)
        pos = EG_SEGMENT_DATA + pick(rand, (bus->capacity - EG_SEGMENT_DATA) / 8) * 8;
    return &eg_frame_at(base, pos)->word;
}

/* One stroke. Words are stored as words: half of them could be a race of the test's own. */
static void damage(uint64_t *rand) {
    uint8_t *base = bus->buffers[pick(rand, bus->slots)].base;
    struct eg_segment_header *h = (struct eg_segment_header *)(void *)base;
    switch (pick(rand, 16)) {
    case 0: case 1: case 2: eg_store_relaxed(some_word(base, rand), bad_word(rand)); break;
    case 3: { /* a frame's lengths */
        _Atomic uint64_t *word = some_word(base, rand);
        if ((uint8_t *)word + 32 <= base + bus->capacity)
            eg_store_relaxed(word + 3, (bad_number(rand) & UINT32_MAX) | bad_number(rand) << 32);
        break;
    }
    case 4: { /* anything in a frame */
        _Atomic uint64_t *word = some_word(base, rand);
        uint64_t at = pick(rand, 16);
        if ((uint8_t *)(word + at) < base + bus->capacity)
            eg_store_relaxed(word + at, eg_rand_next(rand));
        break;
    }
    case 5: /* a chain of little lies */
        for (uint64_t pos = EG_SEGMENT_DATA, n = pick(rand, 2000); n > 0 && pos + 8 <= bus->capacity; n--, pos += bus->align)
            eg_store_relaxed(&eg_frame_at(base, pos)->word,
                             eg_word_make(EG_PUBLISHED, (enum eg_frame_kind)pick(rand, 2), false, bus->align, EG_COUNT_MAX, 1));
        break;
    case 6: /* the whole segment */
        for (uint64_t pos = EG_SEGMENT_DATA; pos < bus->capacity; pos += 8)
            eg_store_relaxed(&eg_frame_at(base, pos)->word, eg_rand_next(rand) & eg_rand_next(rand));
        break;
    case 7: eg_store_relaxed(&h->hint, pick(rand, 2) ? bad_number(rand) : eg_hint_make(pick(rand, 9000) * 8, bad_number(rand))); break;
    case 8: eg_store_relaxed(&h->base, (int64_t)bad_number(rand)); break;
    case 9: eg_store_relaxed(&h->allocated, bad_number(rand)); break;
    case 10: eg_store_relaxed(&h->seq, pick(rand, 6)); break;
    case 11: /* its header page: magic, ids, capacity, CRC */
        eg_store_relaxed((_Atomic uint64_t *)(void *)(base + pick(rand, 8) * 8), bad_number(rand));
        break;
    case 12: eg_store_relaxed(&bus->ring->slot[pick(rand, bus->slots)].word, bad_slot(rand)); break;
    case 13: eg_store_relaxed(&bus->ring->active, pick(rand, 3) == 0 ? bad_number(rand) : pick(rand, 8)); break;
    case 14:
        for (uint32_t s = 0; s < bus->slots; s++)
            for (size_t b = 0; b < eg_index_blocks(bus->capacity); b++)
                eg_store_relaxed(&eg_ring_index(bus->ring, bus->slots, s, bus->capacity)[b],
                                 pick(rand, 2) ? eg_rand_next(rand) : eg_index_make(pick(rand, 8), eg_rand_next(rand), pick(rand, 100)));
        break;
    default:
        eg_store_relaxed(&bus->waiters->summary, eg_rand_next(rand));
        eg_store_relaxed(&bus->waiters->bits[pick(rand, 64)], eg_rand_next(rand) & eg_rand_next(rand));
        break;
    }
}

/* Nothing but these: EAGRE_E_INVALID is the fake bus's answer for a buffer that there is not. */
static bool is_expected(int rc) {
    return rc == EAGRE_OK || rc == EAGRE_E_CORRUPT || rc == EAGRE_E_OFFSET_OUT_OF_RANGE || rc == EAGRE_E_WOULD_BLOCK ||
           rc == EAGRE_E_INVALID || rc == EAGRE_E_VERSION;
}

static uint64_t sum_bytes(const void *p, uint32_t n) {
    uint64_t sum = 0;
    for (uint32_t i = 0; i < n; i++)
        sum += ((const uint8_t *)p)[i];
    return sum;
}

/* All that was returned lies in a buffer of the map and can be read to its last byte. */
static void touch(const eagre_record_t *rec, size_t n) {
    static volatile uint64_t sink;
    (void)sink;
    for (size_t i = 0; i < n; i++) {
        const void *parts[] = {rec[i].key, rec[i].value, rec[i].headers};
        const uint32_t lengths[] = {rec[i].key_len, rec[i].value_len, rec[i].headers_len};
        for (int k = 0; k < 3; k++) {
            if (parts[k] == NULL)
                continue;
            uint64_t at = (uint64_t)((const uint8_t *)parts[k] - r.r.base);
            assert_true(at >= EG_SEGMENT_DATA && at <= bus->capacity && lengths[k] <= bus->capacity - at);
            sink += sum_bytes(parts[k], lengths[k]);
        }
        size_t headers = 0;
        eagre_header_t header;
        while (headers < 100 && eagre_record_header(&rec[i], headers, &header) == EAGRE_OK)
            headers++;
    }
}

static void use(uint64_t *rand) {
    eagre_record_t rec[8];
    for (int i = 0; i < 12; i++) {
        size_t n = 99;
        int rc = eg_reader_poll(&r.r, rec, 1 + pick(rand, 8), &n);
        assert_true(is_expected(rc));
        assert_true(n <= 8 && (rc == EAGRE_OK || n == 0));
        (void)eg_reader_has_news(&r.r);
        int64_t end;
        assert_true(is_expected(eg_log_end(&r.map, look_cell, false, &end)));
        touch(rec, n); /* a question in between does not take them away */
        if (rc != EAGRE_OK || n == 0 || pick(rand, 8) == 0)
            eg_reader_seek(&r.r, pick(rand, 3) ? (int64_t)pick(rand, 300) : (int64_t)bad_number(rand));
        r.r.check_crcs = pick(rand, 2);
    }
    for (int i = 0; i < 12; i++) {
        static const uint8_t value[8000];
        int rc = fake_put(&w.w, &(struct fake_record){.value = value, .value_length = (uint32_t)pick(rand, sizeof(value))}, NULL);
        assert_true(is_expected(rc));
        assert_true(eg_load_relaxed(w.w.pin) == EG_PIN_NONE);
    }
}

static bool is_dead(void *ctx, uint32_t owner) {
    (void)ctx;
    return owner % 3 != 0;
}

static void make(uint64_t *rand) {
    bus = fake_bus_open(FAKE_SEGMENT, 3, 8u << pick(rand, 4), 0);
    fake_writer_open(bus, &w, 9);
    fake_reader_open(bus, &r, 0);
    look_cell = fake_cell(bus);
    int64_t offset = 0;
    for (uint64_t n = pick(rand, 160); n > 0 && fake_put_numbered(&w.w, offset, (uint32_t)pick(rand, 1500)) == EAGRE_OK; n--)
        offset++;
    eagre_record_t rec[8];
    size_t n;
    for (uint64_t polls = pick(rand, 20); polls > 0; polls--)
        assert_ok(eg_reader_poll(&r.r, rec, 8, &n));
}

static void drop(void) {
    fake_reader_close(&r);
    fake_writer_close(&w);
    fake_bus_close(bus);
}

static void strokes_and_uses_in_turns(void **state) {
    (void)state;
    (void)alarm(HANG_S);
    for (uint64_t seed = 1; seed <= SEEDS; seed++) {
        uint64_t rand = seed;
        make(&rand);
        for (int round = 0; round < 3; round++) {
            for (uint64_t n = 1 + pick(&rand, 6); n > 0; n--)
                damage(&rand);
            use(&rand);
        }
        (void)fake_problems(bus, NULL);
        for (uint32_t n = 0; n < bus->slots; n++) {
            uint64_t pads;
            uint64_t allocated = eg_load_relaxed(&fake_header(bus, n)->allocated);
            int rc = eg_repair_segment(bus->buffers[n].base, bus->capacity, allocated, bus->align, is_dead, NULL, &pads);
            assert_true(rc == EAGRE_OK || rc == EAGRE_E_CORRUPT);
        }
        drop();
    }
    (void)alarm(0);
}

/* ---- while it is read ------------------------------------------------------------------------------------ */

static _Atomic bool stop;

static void *strike(void *arg) {
    uint64_t rand = *(uint64_t *)arg;
    while (!eg_load_relaxed(&stop))
        damage(&rand);
    return NULL;
}

static void strokes_while_it_is_used(void **state) {
    (void)state;
#ifdef __SANITIZE_THREAD__
    skip(); /* it is one big data race, on purpose */
#endif
    (void)alarm(HANG_S);
    for (uint64_t seed = 1; seed <= 60; seed++) {
        uint64_t rand = seed, theirs = seed * 1000;
        make(&rand);
        pthread_t thread;
        eg_store_relaxed(&stop, false);
        assert_int_equal(pthread_create(&thread, NULL, strike, &theirs), 0);
        for (int i = 0; i < 20; i++) {
            use(&rand);
            (void)fake_problems(bus, NULL);
            uint64_t pads;
            (void)eg_repair_segment(bus->buffers[0].base, bus->capacity, bus->capacity, bus->align, is_dead, NULL, &pads);
        }
        eg_store_relaxed(&stop, true);
        (void)pthread_join(thread, NULL);
        drop();
    }
    (void)alarm(0);
}

/* ---- single lies, to the point ------------------------------------------------------------------------------- */

/* The next slot names the buffer of the present segment: the writer's mapping stays, the error is said. */
static void the_next_slot_names_the_present_buffer(void **state) {
    (void)state;
    bus = fake_bus_open(FAKE_SEGMENT, 3, 64, 0);
    fake_writer_open(bus, &w, 9);
    fake_reader_open(bus, &r, 0);
    int64_t offset = 0;
    while (eg_hint_pos(eg_load_relaxed(&fake_header(bus, 0)->hint)) + 8192 < FAKE_SEGMENT)
        assert_ok(fake_put_numbered(&w.w, offset++, 8000));
    const uint8_t *base = w.w.base;
    eg_store_relaxed(&fake_slot(bus, 1)->word, eg_slot_make(1, 0, EG_SLOT_READY));
    for (int i = 0; i < 3; i++)
        assert_int_equal(fake_put_numbered(&w.w, offset, 8000), EAGRE_E_CORRUPT);
    assert_true(fake_nothing_is_pinned(bus));
    assert_ptr_equal(w.w.base, base);
    drop();
}

/* Counts that would make offsets wrap, from a base as high as it may be. */
static void offsets_do_not_wrap(void **state) {
    (void)state;
    for (int align = 8; align <= 64; align *= 8) {
        bus = fake_bus_open(FAKE_SEGMENT, 3, (uint32_t)align, EG_OFFSET_MAX);
        fake_writer_open(bus, &w, 9);
        fake_reader_open(bus, &r, EG_OFFSET_MAX);
        for (uint64_t pos = EG_SEGMENT_DATA; pos < FAKE_SEGMENT; pos += (uint64_t)align)
            eg_store_relaxed(&eg_frame_at(bus->buffers[0].base, pos)->word,
                             eg_word_make(EG_PUBLISHED, EG_KIND_PAD, false, (uint64_t)align, EG_COUNT_MAX, 1));
        eagre_record_t rec;
        size_t n;
        int64_t end = 0;
        assert_int_equal(fake_put_probe(&w.w, NULL), EAGRE_E_CORRUPT); /* the next base is beyond the bound */
        eg_store_relaxed(&fake_header(bus, 0)->allocated, FAKE_SEGMENT);
        int rc = eg_reader_poll(&r.r, &rec, 1, &n);
        assert_true(rc == EAGRE_OK || rc == EAGRE_E_CORRUPT);
        rc = eg_log_end(&r.map, fake_cell(bus), false, &end);
        assert_true(rc == EAGRE_E_CORRUPT || end > EG_OFFSET_MAX);
        drop();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(strokes_and_uses_in_turns),
        cmocka_unit_test(strokes_while_it_is_used),
        cmocka_unit_test(the_next_slot_names_the_present_buffer),
        cmocka_unit_test(offsets_do_not_wrap),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
