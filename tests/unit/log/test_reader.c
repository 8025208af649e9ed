/* Reading in place: order, positions, pins, seeks, the edge, and damage. */
#include "unit/log/fake_bus.h"

static struct fake_bus *bus;
static struct fake_writer w;
static struct fake_reader r;
static int64_t end; /* offset of the next record */

static void open_all(uint64_t capacity, uint32_t slots, uint32_t align) {
    bus = fake_bus_open(capacity, slots, align, 0);
    fake_writer_open(bus, &w, 9);
    fake_reader_open(bus, &r, 0);
    end = 0;
}

static void close_all(void) {
    fake_reader_close(&r);
    fake_writer_close(&w);
    fake_bus_close(bus);
}

static void put(uint32_t length) {
    assert_ok(fake_put_numbered(&w.w, end, length));
    end++;
}

static bool is_pinned(const struct fake_reader *x) { return eg_load_relaxed(x->r.pin) != EG_PIN_NONE; }

/* count records in one claim, of which the first `publish` steps are done: a batch stays unpublished. */
static struct eg_claim open_batch(uint32_t count, uint64_t *first_word) {
    static uint8_t value[8];
    struct eg_claim c;
    uint64_t each = eg_frame_length(8, bus->align);
    assert_ok(eg_writer_claim(&w.w, count * each, count, &c));
    assert_int_equal(c.offset, end);
    for (uint32_t i = 0; i < count; i++) {
        struct eg_frame *f = eg_frame_at(w.w.base, c.pos + i * each);
        fake_bytes(end, value, 8);
        uint64_t word = fake_frame_write(&w.w, f, c.pos + i * each, each, c.index + i,
                                         &(struct fake_record){.value = value, .value_length = 8, .timestamp_ns = end});
        end++;
        if (i == 0)
            *first_word = word;
        else
            eg_store_relaxed(&f->word, word);
    }
    return c;
}

static void put_batch(uint32_t count) {
    uint64_t word;
    struct eg_claim c = open_batch(count, &word);
    eg_writer_publish(&w.w, &c, word);
}

static void put_pad(uint32_t count) {
    struct eg_claim c;
    assert_ok(eg_writer_claim(&w.w, count * 64, count, &c));
    eg_writer_abort(&w.w, &c);
    end += count;
}

static void in_order_with_any_max(void **state) {
    (void)state;
    for (size_t max = 1; max <= 40; max++) {
        open_all(FAKE_SEGMENT, 8, 64);
        uint64_t rand = max;
        while (eg_load_relaxed(&bus->ring->active) < 6)
            put((uint32_t)(eg_rand_next(&rand) % 3000));
        int64_t offset = 0;
        eagre_record_t rec[41];
        size_t n;
        do {
            memset(rec, 0, sizeof(rec));
            assert_ok(eg_reader_poll(&r.r, rec, max, &n));
            assert_true(n <= max && rec[max].topic == NULL);
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(rec[i].offset, offset++);
                assert_true(fake_is_numbered(&rec[i]));
                /* All of one segment: all lie in one mapping. */
                assert_true((uintptr_t)rec[i].value - (uintptr_t)r.r.base < FAKE_SEGMENT);
            }
            assert_true(is_pinned(&r) == (n > 0));
            assert_int_equal(r.r.offset, offset);
        } while (n > 0);
        assert_int_equal(offset, end);
        close_all();
    }
}

static void a_poll_keeps_its_pin_until_the_next(void **state) {
    (void)state;
    open_all(FAKE_SEGMENT, 3, 64);
    put(10);
    eagre_record_t rec;
    size_t n;
    assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
    assert_true(n == 1 && eg_load_relaxed(r.r.pin) == eg_pin_make(false, FAKE_INDEX, 0));
    /* A question of its own needs another cell and does not touch this one. */
    int64_t offset;
    _Atomic uint64_t *cell = fake_cell(bus);
    assert_ok(eg_log_end(&r.map, cell, false, &offset));
    assert_int_equal(offset, 1);
    assert_true(eg_load_relaxed(cell) == EG_PIN_NONE && is_pinned(&r));
    assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
    assert_true(n == 0 && !is_pinned(&r));
    r.r.keep_pin = true;
    assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
    assert_true(n == 0 && is_pinned(&r));
    eg_reader_unpin(&r.r);
    assert_false(is_pinned(&r));
    put(10);
    assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
    assert_true(n == 1 && is_pinned(&r));
    eg_reader_seek(&r.r, 0);
    assert_false(is_pinned(&r));
    close_all();
}

static void pinned_bytes_never_change(void **state) {
    (void)state;
    open_all(FAKE_SEGMENT, 3, 64);
    for (int i = 0; i < 30; i++)
        put(1000);
    eagre_record_t rec[30];
    size_t n;
    assert_ok(eg_reader_poll(&r.r, rec, 30, &n));
    assert_int_equal(n, 30);
    while (bus->first < 12) { /* the ring turns four times */
        put(1000);
        fake_daemon_work(bus, 1, true);
    }
    for (size_t i = 0; i < n; i++)
        assert_true(rec[i].offset == (int64_t)i && fake_is_numbered(&rec[i]));
    /* The rest of that segment still is there for it, then it has fallen behind. */
    int64_t offset = 30;
    int rc;
    while ((rc = eg_reader_poll(&r.r, rec, 30, &n)) == EAGRE_OK && n > 0)
        for (size_t i = 0; i < n; i++)
            assert_true(rec[i].offset == offset++ && fake_is_numbered(&rec[i]));
    assert_int_equal(rc, EAGRE_E_OFFSET_OUT_OF_RANGE);
    assert_int_equal(n, 0);
    assert_false(is_pinned(&r));
    assert_true(eg_reader_beginning(&r.r) > offset);
    /* Unpinned, the buffer's memory goes. */
    fake_free_detached(bus);
    eg_reader_seek(&r.r, eg_reader_beginning(&r.r));
    offset = eg_reader_beginning(&r.r);
    while ((rc = eg_reader_poll(&r.r, rec, 30, &n)) == EAGRE_OK && n > 0)
        for (size_t i = 0; i < n; i++)
            assert_true(rec[i].offset == offset++ && fake_is_numbered(&rec[i]));
    assert_int_equal(rc, EAGRE_OK);
    assert_int_equal(offset, end);
    close_all();
}

/* Unpinned at the edge, and the ring turned: out of range; or, if it is still there, it goes on. */
static void at_the_edge_while_the_ring_turns(void **state) {
    (void)state;
    for (int segments = 0; segments < 8; segments++) {
        open_all(FAKE_SEGMENT, 4, 64);
        put(1000);
        eagre_record_t rec;
        size_t n;
        assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
        assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
        assert_int_equal(n, 0);
        while (eg_load_relaxed(&bus->ring->active) < (uint64_t)segments) {
            put(1000);
            fake_daemon_work(bus, 1, true);
        }
        int rc = eg_reader_poll(&r.r, &rec, 1, &n);
        if (end > 1 && eg_reader_beginning(&r.r) > 1) {
            assert_int_equal(rc, EAGRE_E_OFFSET_OUT_OF_RANGE);
        } else {
            assert_ok(rc);
            assert_true(n == (end > 1) && (n == 0 || (rec.offset == 1 && fake_is_numbered(&rec))));
        }
        close_all();
    }
}

/* ---- seek ---------------------------------------------------------------------------------------------- */

/* What a seek to `offset` must give first: that record or, within a pad, the one behind it. */
static void seek_finds(int64_t offset, bool may_skip) {
    eagre_record_t rec;
    size_t n;
    eg_reader_seek(&r.r, offset);
    assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
    if (offset >= end) {
        assert_int_equal(n, 0);
        return;
    }
    assert_int_equal(n, 1);
    assert_true(rec.offset == offset || (may_skip && rec.offset > offset));
    assert_true(fake_is_numbered(&rec));
}

static void seek_to_every_offset(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 12; seed++) {
        uint64_t rand = seed;
        open_all(FAKE_SEGMENT * (seed % 4 == 0 ? 1 : 8), 4, 8u << seed % 4);
        uint64_t large = eg_record_bytes_max(bus->capacity) < 60000 ? eg_record_bytes_max(bus->capacity) : 60000;
        bool pads = false;
        while (eg_load_relaxed(&bus->ring->active) < 2 || eg_rand_next(&rand) % 100 != 0) {
            uint64_t kind = eg_rand_next(&rand) % 16;
            if (kind == 0) {
                put_pad(3);
                pads = true;
            } else if (kind == 1) {
                put_batch(50);
            } else {
                put((uint32_t)(eg_rand_next(&rand) % (kind < 6 ? large - EG_FRAME_HEADER : 500)));
            }
            if (bus->first == 0 && eg_load_relaxed(&bus->ring->active) == 3)
                break;
        }
        for (int round = 0; round < 2; round++) {
            for (int64_t offset = 0; offset <= end; offset++)
                seek_finds(offset, pads);
            assert_log_is_good(bus, NULL);
            /* Once more, without any index. */
            for (uint32_t s = 0; s < bus->slots; s++)
                for (size_t i = 0; i < eg_index_blocks(bus->capacity); i++)
                    eg_store_relaxed(&eg_ring_index(bus->ring, bus->slots, s, bus->capacity)[i], 0);
        }
        close_all();
    }
}

/* A seek starts at the last entry at or before the record: what lies before is not even looked at. */
static void seek_starts_at_the_index(void **state) {
    (void)state;
    uint32_t tried = 0;
    for (uint64_t seed = 1; seed <= 20; seed++) {
        uint64_t rand = seed;
        open_all(FAKE_SEGMENT * 32, 3, 64);
        static uint64_t places[40000]; /* of the records */
        while (eg_load_relaxed(&bus->ring->active) == 0) {
            /* Large ones leave blocks without an entry: up to four in a row. */
            struct eg_claim c;
            uint64_t length = eg_rand_next(&rand) % 8 == 0 ? 64 * (1 + eg_rand_next(&rand) % 4096) : 64 * (1 + eg_rand_next(&rand) % 32);
            assert_ok(eg_writer_claim(&w.w, length, 1, &c));
            static uint8_t value[FAKE_SEGMENT * 4];
            struct fake_record rec = {.value = value, .value_length = (uint32_t)length - EG_FRAME_HEADER};
            eg_writer_publish(&w.w, &c, fake_frame_write(&w.w, c.frame, c.pos, length, c.index, &rec));
            places[end++] = c.pos;
            if (length > 65536 * 3 && seed % 2 == 0)
                break; /* the rest of the segment is empty */
        }
        int64_t sealed = eg_load_relaxed(&bus->ring->active) == 0 ? end : end - 1;
        const _Atomic uint64_t *index = eg_ring_index(bus->ring, 3, 0, bus->capacity);
        uint8_t *base = bus->buffers[0].base;
        for (int64_t i = 1; i < sealed; i++) {
            uint64_t known = 0, known_before = 0;
            for (size_t b = 1; b < eg_index_blocks(bus->capacity); b++) {
                uint64_t entry = eg_load_relaxed(&index[b]);
                if (entry != 0 && eg_index_record(entry) <= (uint64_t)i) {
                    known_before = known;
                    known = eg_index_record(entry);
                }
            }
            if (known == 0 || known_before + 1 == known)
                continue;
            /* Damage right before the known place: a walk from anywhere before it would meet it. */
            tried++;
            struct eg_frame *f = eg_frame_at(base, places[known - 1]);
            uint64_t word = eg_load_relaxed(&f->word);
            eg_store_relaxed(&f->word, word | 3);
            eagre_record_t rec;
            size_t n;
            eg_reader_seek(&r.r, i);
            assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
            assert_true(n == 1 && rec.offset == i);
            eg_store_relaxed(&f->word, word);
        }
        assert_log_is_good(bus, NULL);
        close_all();
    }
    assert_true(tried > 200);
}

static void seek_outside(void **state) {
    (void)state;
    open_all(FAKE_SEGMENT, 3, 64);
    eagre_record_t rec;
    size_t n = 7;
    eg_reader_seek(&r.r, 1); /* of an empty log */
    assert_int_equal(eg_reader_poll(&r.r, &rec, 1, &n), EAGRE_E_OFFSET_OUT_OF_RANGE);
    assert_int_equal(n, 0);
    while (bus->first < 4) {
        put(1000);
        fake_daemon_work(bus, 1, true);
    }
    int64_t begin = eg_reader_beginning(&r.r);
    const int64_t outside[] = {-1, INT64_MIN, 0, begin - 1, end + 1, end + 1000, INT64_MAX};
    for (size_t i = 0; i < sizeof(outside) / sizeof(*outside); i++) {
        eg_reader_seek(&r.r, outside[i]);
        assert_int_equal(eg_reader_poll(&r.r, &rec, 1, &n), EAGRE_E_OFFSET_OUT_OF_RANGE);
        assert_true(n == 0 && !is_pinned(&r));
        assert_int_equal(r.r.offset, outside[i]);
        assert_true(eg_reader_has_news(&r.r)); /* it has to be dealt with, not slept on */
    }
    seek_finds(begin, false);
    seek_finds(end, false);
    assert_false(eg_reader_has_news(&r.r));
    put(1000);
    assert_true(eg_reader_has_news(&r.r));
    assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
    assert_true(n == 1 && rec.offset == end - 1);
    close_all();
}

static void seek_into_a_batch_that_is_not_published(void **state) {
    (void)state;
    for (int aborted = 0; aborted < 2; aborted++) {
        open_all(FAKE_SEGMENT, 3, 64);
        put(5);
        uint64_t word;
        struct eg_claim c = open_batch(5, &word);
        eagre_record_t rec[9];
        size_t n;
        eg_reader_seek(&r.r, 3); /* its third record */
        assert_ok(eg_reader_poll(&r.r, rec, 9, &n));
        assert_int_equal(n, 0);
        if (aborted)
            eg_writer_abort(&w.w, &c);
        else
            eg_writer_publish(&w.w, &c, word);
        put(5);
        assert_ok(eg_reader_poll(&r.r, rec, 9, &n));
        assert_int_equal(n, aborted ? 1 : 4);
        assert_int_equal(rec[0].offset, aborted ? 6 : 3);
        assert_int_equal(rec[n - 1].offset, 6);
        close_all();
    }
}

/* ---- the edge --------------------------------------------------------------------------------------------- */

static void news_means_that_a_poll_finds_something(void **state) {
    (void)state;
    open_all(4u << 20, 3, 64);
    eagre_record_t rec[16];
    size_t n;
    assert_true(eg_reader_has_news(&r.r)); /* not placed yet */
    assert_ok(eg_reader_poll(&r.r, rec, 1, &n));
    uint64_t rand = 1;
    for (int i = 0; i < 3000; i++) {
        struct eg_claim c;
        uint32_t length = (uint32_t)(eg_rand_next(&rand) % (i % 7 == 0 ? 200000 : 2000)) / 64 * 64 + 64;
        assert_false(eg_reader_has_news(&r.r));
        uint64_t before = eg_load_relaxed(&bus->ring->active);
        assert_ok(eg_writer_claim(&w.w, length, 1, &c));
        fake_daemon_work(bus, 1, true);
        if (before == eg_load_relaxed(&bus->ring->active)) {
            /* A claim is no news (a new allocated mark may be, once). */
            assert_ok(eg_reader_poll(&r.r, rec, 1, &n));
            assert_int_equal(n, 0);
            assert_false(eg_reader_has_news(&r.r));
        }
        struct fake_record record = {.value = "x", .value_length = 1};
        eg_writer_publish(&w.w, &c, fake_frame_write(&w.w, c.frame, c.pos, c.length, c.index, &record));
        assert_true(eg_reader_has_news(&r.r));
        assert_ok(eg_reader_poll(&r.r, rec, 16, &n));
        assert_int_equal(n, 1);
        assert_ok(eg_reader_poll(&r.r, rec, 16, &n));
        assert_int_equal(n, 0);
    }
    assert_true(eg_load_relaxed(&bus->ring->active) > 5);
    close_all();
}

/* Memory is not touched beyond the mark, and what lies behind it is seen when the mark moves. */
static void reads_up_to_the_allocated_mark(void **state) {
    (void)state;
    open_all(4u << 20, 3, 64);
    eagre_record_t rec;
    size_t n;
    assert_ok(eg_reader_poll(&r.r, &rec, 1, &n)); /* only the header page is there */
    assert_int_equal(n, 0);
    assert_false(eg_reader_has_news(&r.r));
    assert_true(fake_buffer_memory(bus, 0) <= EG_PAGE);
    put(10);
    assert_true(eg_reader_has_news(&r.r));
    assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
    assert_true(n == 1 && fake_is_numbered(&rec));
    assert_true(fake_buffer_memory(bus, 0) <= 2u << 20);
    close_all();
}

/* A frame that says it goes beyond the mark is damage, and is not looked into. */
static void a_frame_beyond_the_allocated_mark(void **state) {
    (void)state;
    open_all(4u << 20, 3, 64);
    eagre_record_t rec[64];
    size_t n;
    put(10);
    struct eg_frame *f = eg_frame_at(bus->buffers[0].base, EG_SEGMENT_DATA + 64);
    f->index = 1;
    f->key_length = EG_NULL_LENGTH;
    f->value_length = 3u << 20;
    eg_store_release(&f->word, eg_word_make(EG_PUBLISHED, EG_KIND_DATA, false, (3u << 20) + 64, 1, 9));
    uint64_t before = fake_buffer_memory(bus, 0);
    r.r.check_crcs = false;
    assert_ok(eg_reader_poll(&r.r, rec, 64, &n));
    assert_int_equal(n, 1);
    assert_int_equal(eg_reader_poll(&r.r, rec, 64, &n), EAGRE_E_CORRUPT);
    assert_true(fake_buffer_memory(bus, 0) == before);
    close_all();
}

/* At the end of a segment whose successor is not open yet there is nothing to do, so nothing to be awake for. */
static void no_news_between_two_segments(void **state) {
    (void)state;
    open_all(FAKE_SEGMENT, 3, 64);
    eagre_record_t rec[64];
    size_t n;
    while (fake_put_numbered(&w.w, end, 4000) == EAGRE_OK)
        end++;
    do
        assert_ok(eg_reader_poll(&r.r, rec, 64, &n));
    while (n > 0);
    assert_true(r.r.offset == end);
    assert_false(eg_reader_has_news(&r.r)); /* the next slot is of an old segment */
    assert_true(fake_retire(bus, false));
    assert_false(eg_reader_has_news(&r.r)); /* it is READY */
    assert_ok(eg_reader_poll(&r.r, rec, 64, &n));
    assert_int_equal(n, 0);
    put(4000);
    assert_true(eg_reader_has_news(&r.r));
    assert_ok(eg_reader_poll(&r.r, rec, 64, &n));
    assert_int_equal(n, 1);
    close_all();
}

static void the_end_of_the_log(void **state) {
    (void)state;
    open_all(FAKE_SEGMENT, 3, 64);
    _Atomic uint64_t *cell = fake_cell(bus);
    int64_t offset;
    for (int i = 0; i < 500; i++) {
        assert_ok(eg_log_end(&r.map, cell, false, &offset));
        assert_int_equal(offset, end);
        if (i % 50 == 49) { /* claimed places count */
            uint64_t word;
            struct eg_claim c = open_batch(3, &word);
            assert_ok(eg_log_end(&r.map, cell, false, &offset));
            assert_int_equal(offset, end);
            /* Neither an old hint nor an impossible one misleads. */
            uint64_t active = eg_load_relaxed(&bus->ring->active);
            struct eg_segment_header *h = (struct eg_segment_header *)(void *)fake_segment(bus, active);
            const uint64_t hints[] = {eg_hint_make(EG_SEGMENT_DATA, 0), 0, UINT64_MAX, eg_hint_make(FAKE_SEGMENT + 64, 0)};
            for (int k = 0; k < 4; k++) {
                eg_store_relaxed(&h->hint, hints[k]);
                assert_ok(eg_log_end(&r.map, cell, false, &offset));
                assert_int_equal(offset, end);
            }
            eg_writer_publish(&w.w, &c, word);
        }
        put(1000);
        fake_daemon_work(bus, 1, true);
        assert_true(eg_load_relaxed(cell) == EG_PIN_NONE);
    }
    eg_store_relaxed(&bus->topic->state, EG_TOPIC_DELETED);
    uint64_t active = eg_load_relaxed(&bus->ring->active);
    eg_store_relaxed(&fake_slot(bus, active)->word, eg_slot_make(active, 0, EG_SLOT_RETIRING));
    assert_int_equal(eg_log_end(&r.map, cell, false, &offset), EAGRE_E_TOPIC_DELETED);
    assert_true(eg_load_relaxed(cell) == EG_PIN_NONE);
    close_all();
}

/* ---- between pin and look ------------------------------------------------------------------------------------ */

static void the_ring_turns(void *ctx) {
    (void)ctx;
    uint64_t until = bus->first + 5;
    while (bus->first < until) {
        put(1000);
        fake_daemon_work(bus, 1, true);
    }
}

static void a_pin_that_came_too_late_is_taken_back(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    for (int placed = 0; placed < 2; placed++) {
        for (int checked = 0; checked < 2; checked++) {
            open_all(FAKE_SEGMENT, 3, 64);
            eagre_record_t rec;
            size_t n;
            put(1000);
            if (placed) { /* it stands at the edge, unpinned */
                assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
                assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
                assert_int_equal(n, 0);
            }
            put(1000);
            struct fake_interpose at = {.name = checked ? "pin.checked" : "pin.stored", .hit = 1, .act = the_ring_turns};
            /* The writer shares the names: the hook is off while it acts. */
            fake_at(&at);
            int rc = eg_reader_poll(&r.r, &rec, 1, &n);
            fake_at_none();
            assert_true(at.done);
            if (checked) { /* the pin was seen: the bytes are still its own */
                assert_ok(rc);
                assert_true(n == 1 && rec.offset == placed && fake_is_numbered(&rec));
                assert_int_equal(eg_slot_buffer(r.r.slot_word), 0);
            } else { /* the daemon may have changed them: nothing of them is returned */
                assert_int_equal(rc, EAGRE_E_OFFSET_OUT_OF_RANGE);
                assert_false(is_pinned(&r));
            }
            close_all();
        }
    }
}

/* ---- damage ----------------------------------------------------------------------------------------------------- */

static void damage_is_reported_behind_what_is_good(void **state) {
    (void)state;
    for (int kind = 0; kind < 9; kind++) {
        open_all(FAKE_SEGMENT, 3, 64);
        for (int i = 0; i < 10; i++)
            put(100);
        uint64_t length = eg_frame_length(100, 64);
        struct eg_frame *f = eg_frame_at(bus->buffers[0].base, EG_SEGMENT_DATA + 6 * length);
        uint64_t word = eg_load_relaxed(&f->word);
        bool crc_only = false;
        switch (kind) {
        case 0: eg_store_relaxed(&f->word, word | 3); break;
        case 1: eg_store_relaxed(&f->word, eg_word_make(EG_PUBLISHED, EG_KIND_DATA, false, FAKE_SEGMENT, 1, 1)); break;
        case 2: eg_store_relaxed(&f->word, eg_word_make(EG_PUBLISHED, EG_KIND_DATA, false, 8, 1, 1)); break;
        case 3: eg_store_relaxed(&f->word, eg_word_make(EG_PUBLISHED, EG_KIND_DATA, false, length, 2, 1)); break;
        case 4: f->value_length = 5000; break;
        case 5: f->index++; break;
        case 6: f->payload[50] ^= 4; crc_only = true; break;
        case 7: f->crc ^= 1; crc_only = true; break;
        default: eg_store_relaxed(&f->word, word | 0x20); break;
        }
        eagre_record_t rec[10];
        size_t n;
        assert_ok(eg_reader_poll(&r.r, rec, 10, &n));
        assert_int_equal(n, 6);
        for (int again = 0; again < 2; again++) {
            assert_int_equal(eg_reader_poll(&r.r, rec, 10, &n), EAGRE_E_CORRUPT);
            assert_true(n == 0 && !is_pinned(&r) && r.r.offset == 6);
        }
        assert_true(fake_problems(bus, NULL) > 0);
        r.r.check_crcs = false;
        if (crc_only) {
            assert_ok(eg_reader_poll(&r.r, rec, 10, &n));
            assert_int_equal(n, 4);
        } else {
            assert_int_equal(eg_reader_poll(&r.r, rec, 10, &n), EAGRE_E_CORRUPT);
        }
        close_all();
    }
}

/* Pages taken out of a buffer read as zeros: an edge in the last segment, where there can be one, damage in others. */
static void a_hole_is_no_edge_in_a_closed_segment(void **state) {
    (void)state;
    open_all(FAKE_SEGMENT, 3, 64);
    for (int i = 0; i < 10; i++)
        put(100);
    struct eg_frame *f = eg_frame_at(bus->buffers[0].base, EG_SEGMENT_DATA + 6 * eg_frame_length(100, 64));
    eg_store_relaxed(&f->word, 0);
    eagre_record_t rec[10];
    size_t n;
    assert_ok(eg_reader_poll(&r.r, rec, 10, &n));
    assert_int_equal(n, 6);
    assert_ok(eg_reader_poll(&r.r, rec, 10, &n));
    assert_int_equal(n, 0);
    while (eg_load_relaxed(&bus->ring->active) == 0)
        put(8000);
    for (int again = 0; again < 2; again++) {
        assert_int_equal(eg_reader_poll(&r.r, rec, 10, &n), EAGRE_E_CORRUPT);
        assert_true(n == 0 && !is_pinned(&r) && r.r.offset == 6);
    }
    close_all();
}

static uint32_t late_answers;

static int late_fetch(struct eg_partition_map *m, uint32_t number) {
    if (late_answers == 0)
        return fake_op_fetch(m, number);
    late_answers--; /* what it brings is what the buffer was long ago */
    return EAGRE_OK;
}

static void a_late_answer_about_a_buffer_is_no_damage(void **state) {
    struct eg_map_ops ops = fake_ops;
    eagre_record_t record;
    size_t n;
    (void)state;
    open_all(65536, 3, 64);
    put(100);
    ops.fetch_buffer = late_fetch;
    r.r.map->ops = &ops;
    late_answers = 1;
    assert_int_equal(eg_reader_poll(&r.r, &record, 1, &n), EAGRE_OK);
    assert_int_equal(n, 1);
    assert_int_equal(late_answers, 0);
    r.r.map->ops = &fake_ops;
    close_all();
}

static void bases_must_continue(void **state) {
    (void)state;
    const int64_t bases[] = {EG_BASE_UNSET, INT64_MIN, INT64_MAX, EG_OFFSET_MAX + 1, 99, 97, 0};
    for (size_t i = 0; i < sizeof(bases) / sizeof(*bases); i++) {
        open_all(FAKE_SEGMENT, 3, 64);
        eagre_record_t rec[100];
        size_t n;
        while (eg_load_relaxed(&bus->ring->active) < 1)
            put(564); /* 640 bytes: 96 of them */
        assert_ok(eg_reader_poll(&r.r, rec, 1, &n)); /* it stands in the first segment */
        eg_store_relaxed(&fake_header(bus, 1)->base, bases[i]);
        assert_ok(eg_reader_poll(&r.r, rec, 100, &n));
        assert_true((int64_t)n == end - 2);
        int rc = eg_reader_poll(&r.r, rec, 100, &n);
        assert_int_equal(rc, EAGRE_E_CORRUPT);
        assert_true(n == 0 && !is_pinned(&r));
        assert_true(fake_problems(bus, NULL) > 0);
        close_all();
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(in_order_with_any_max),
        cmocka_unit_test(a_poll_keeps_its_pin_until_the_next),
        cmocka_unit_test(pinned_bytes_never_change),
        cmocka_unit_test(at_the_edge_while_the_ring_turns),
        cmocka_unit_test(seek_to_every_offset),
        cmocka_unit_test(seek_starts_at_the_index),
        cmocka_unit_test(seek_outside),
        cmocka_unit_test(seek_into_a_batch_that_is_not_published),
        cmocka_unit_test(news_means_that_a_poll_finds_something),
        cmocka_unit_test(reads_up_to_the_allocated_mark),
        cmocka_unit_test(a_frame_beyond_the_allocated_mark),
        cmocka_unit_test(no_news_between_two_segments),
        cmocka_unit_test(the_end_of_the_log),
        cmocka_unit_test(a_pin_that_came_too_late_is_taken_back),
        cmocka_unit_test(damage_is_reported_behind_what_is_good),
        cmocka_unit_test(a_hole_is_no_edge_in_a_closed_segment),
        cmocka_unit_test(a_late_answer_about_a_buffer_is_no_damage),
        cmocka_unit_test(bases_must_continue),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
