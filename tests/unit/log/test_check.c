/* The checker finds nothing in good logs, and each of many damages. */
#include "unit/log/fake_bus.h"

static struct fake_bus *bus;
static struct fake_writer w;
static int64_t end;

/* Segments 1 and 2 full, 3 half full; the first one has gone. */
static void make(uint64_t seed, uint32_t align) {
    uint64_t rand = seed;
    bus = fake_bus_open(FAKE_SEGMENT * 2, 4, align, 50);
    fake_writer_open(bus, &w, 9);
    end = 50;
    while (eg_load_relaxed(&bus->ring->active) < 4 || eg_rand_next(&rand) % 32 != 0) {
        if (eg_rand_next(&rand) % 16 == 0) {
            struct eg_claim c;
            assert_ok(eg_writer_claim(&w.w, 192, 3, &c));
            eg_writer_abort(&w.w, &c);
            end += 3;
        } else {
            assert_ok(fake_put_numbered(&w.w, end++, 64 + (uint32_t)(eg_rand_next(&rand) % 3000)));
        }
        fake_daemon_work(bus, 1, false);
    }
}

static void drop(void) {
    fake_writer_close(&w);
    fake_bus_close(bus);
}

/* Some frame of a segment; not an end. */
static struct eg_frame *some_frame(uint64_t seq, uint64_t *rand, uint64_t *pos_out) {
    uint8_t *base = fake_segment(bus, seq);
    uint64_t pos = EG_SEGMENT_DATA, skip = eg_rand_next(rand) % 8;
    for (;;) {
        struct eg_frame *f = eg_frame_at(base, pos);
        uint64_t word = eg_load_relaxed(&f->word);
        if (eg_word_kind(word) == EG_KIND_DATA && skip-- == 0) {
            *pos_out = pos;
            return f;
        }
        pos += eg_word_length(word);
    }
}

static void finds_every_damage(void **state) {
    (void)state;
    enum { KINDS = 29 };
    for (uint64_t seed = 1; seed <= 4 * KINDS; seed++) {
        uint64_t rand = seed * 77, pos;
        make(seed % 5, 8u << seed % 4);
        uint64_t active = eg_load_relaxed(&bus->ring->active), sealed = active - 1;
        struct eg_frame *f = some_frame(sealed, &rand, &pos);
        uint64_t word = eg_load_relaxed(&f->word);
        struct eg_segment_header *h = (struct eg_segment_header *)(void *)fake_segment(bus, sealed);
        struct eg_slot *slot = fake_slot(bus, sealed);
        uint64_t slot_word = eg_load_relaxed(&slot->word);
        uint32_t n = eg_slot_buffer(slot_word);
        _Atomic uint64_t *index = eg_ring_index(bus->ring, bus->slots, (uint32_t)(sealed % bus->slots), bus->capacity);
        assert_log_is_good(bus, NULL);
        int kind = (int)(seed % KINDS);
        switch (kind) {
        case 0: eg_store_relaxed(&f->word, 0); break; /* the chain ends early */
        case 1: eg_store_relaxed(&f->word, word ^ 1); break;
        case 2: eg_store_relaxed(&f->word, word + ((uint64_t)bus->align / 8 << 6)); break; /* longer */
        case 3: eg_store_relaxed(&f->word, eg_word_make(EG_PUBLISHED, EG_KIND_DATA, false, bus->capacity, 1, 1)); break;
        case 4: eg_store_relaxed(&f->word, word + (1ull << 32)); break; /* count */
        case 5: eg_store_relaxed(&f->word, word ^ 1u << 4); break;      /* headers flag */
        case 6: eg_store_relaxed(&f->word, word | 0x20); break;
        case 7: eg_store_relaxed(&f->word, word | 3u << 2); break;
        case 8: eg_store_relaxed(&f->word, eg_word_make(EG_PUBLISHED, EG_KIND_PAD, false, eg_word_length(word), 2, 1)); break;
        case 9: eg_store_relaxed(&f->word, eg_word_make(EG_PUBLISHED, EG_KIND_EOS, false, eg_word_length(word), 0, 1)); break;
        case 10: f->index ^= 1; break;
        case 11: f->timestamp_ns ^= 1ll << eg_rand_next(&rand) % 62; break;
        case 12: f->key_length ^= 1u << eg_rand_next(&rand) % 32; break;
        case 13: f->value_length ^= 1u << eg_rand_next(&rand) % 32; break;
        case 14: f->payload[eg_rand_next(&rand) % 64] ^= (uint8_t)(1u << eg_rand_next(&rand) % 8); break;
        case 15: f->crc ^= 1u << eg_rand_next(&rand) % 32; break;
        case 16: eg_store_relaxed(&h->hint, eg_hint_make(pos + 8, 1)); break; /* inside a frame */
        case 17: eg_store_relaxed(&h->hint, eg_hint_make(pos, f->index + 1)); break;
        case 18: eg_store_relaxed(&h->hint, eg_hint_make(0, 0)); break;
        case 19: eg_store_relaxed(&index[1], eg_load_relaxed(&index[1]) + 1); break;         /* another place */
        case 20: eg_store_relaxed(&index[1], eg_load_relaxed(&index[1]) + (1 << 13)); break; /* another record */
        case 21: eg_store_relaxed(&h->base, eg_load_relaxed(&h->base) + 1); break;
        case 22: eg_store_relaxed(&h->base, EG_BASE_UNSET); break;
        case 23: eg_store_relaxed(&h->allocated, pos); break;
        case 24: eg_store_relaxed(&h->allocated, bus->capacity + 1); break;
        case 25: h->created_ns++; break; /* its CRC */
        case 26: eg_store_relaxed(&slot->word, eg_slot_make(sealed, n, EG_SLOT_READY)); break;
        case 27: eg_store_relaxed(&slot->word, eg_slot_make(sealed, fake_buffer_of(bus, active), EG_SLOT_OPEN)); break;
        default: eg_store_relaxed(&slot->word, eg_slot_make(sealed + 1, n, EG_SLOT_OPEN)); break;
        }
        if (fake_problems(bus, NULL) == 0)
            fail_msg("damage %d was not found (seed %llu)", kind, (unsigned long long)seed);
        drop();
    }
}

static void finds_impossible_slots(void **state) {
    (void)state;
    for (int kind = 0; kind < 8; kind++) {
        make(1, 64);
        uint64_t active = eg_load_relaxed(&bus->ring->active);
        struct eg_slot *slot = fake_slot(bus, active);
        uint32_t n = fake_buffer_of(bus, active);
        switch (kind) {
        case 0: eg_store_relaxed(&slot->word, 0); break;
        case 1: eg_store_relaxed(&slot->word, eg_slot_make(active, 999, EG_SLOT_OPEN)); break;
        case 2: eg_store_relaxed(&slot->word, eg_slot_make(active, n, (enum eg_slot_state)9)); break;
        case 3: eg_store_relaxed(&slot->word, eg_slot_make(active + 4, n, EG_SLOT_OPEN)); break;
        case 4: eg_store_relaxed(&bus->ring->active, active + 1); break; /* its slot is not OPEN */
        case 6: eg_store_relaxed(&fake_slot(bus, active + 1)->word, eg_slot_make(active + 1, n, EG_SLOT_READY)); break;
        case 5: eg_store_relaxed(&bus->ring->active, active - 1); eg_store_relaxed(&fake_slot(bus, active + 1)->word, eg_slot_make(active + 1, fake_buffer_of(bus, active + 1), EG_SLOT_OPEN)); break;
        default: eg_store_relaxed(&bus->ring->active, UINT64_MAX); break;
        }
        if (fake_problems(bus, NULL) == 0)
            fail_msg("impossible slot %d was not found", kind);
        drop();
    }
}

static void finds_waiters_that_nobody_would_ring(void **state) {
    (void)state;
    struct eg_check_report report = {0};
    struct eg_waiters *waiters = calloc(1, sizeof(*waiters));
    eg_sleep_announce(waiters, 70);
    eg_check_waiters(waiters, &report);
    assert_int_equal(report.problems, 0);
    eg_store_relaxed(&waiters->summary, 1);
    eg_check_waiters(waiters, &report);
    assert_int_equal(report.problems, 1);
    assert_non_null(strstr(report.first, "word 1"));
    free(waiters);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(finds_every_damage),
        cmocka_unit_test(finds_impossible_slots),
        cmocka_unit_test(finds_waiters_that_nobody_would_ring),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
