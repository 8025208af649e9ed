/* From segment to segment: every step may be left to others, and all helpers agree. */
#include "log/rotate.h"
#include "unit/log/fake_bus.h"

static const char *const steps[] = {"eos.set", "next.seen", "base.set", "slot.opened", "active.moved"};
#define STEPS (sizeof(steps) / sizeof(*steps))

/* Read everything from `offset` on: numbered records and gaps. Returns the end. */
static int64_t read_all(struct fake_bus *bus, int64_t offset, int64_t *records) {
    struct fake_reader r;
    fake_reader_open(bus, &r, offset);
    *records = 0;
    for (;;) {
        eagre_record_t rec[7];
        size_t n;
        assert_ok(eg_reader_poll(&r.r, rec, 7, &n));
        for (size_t i = 0; i < n; i++) {
            assert_true(rec[i].offset >= offset && fake_is_numbered(&rec[i]));
            offset = rec[i].offset + 1;
            ++*records;
        }
        if (n == 0)
            break;
    }
    offset = r.r.offset;
    eg_store_relaxed(r.r.pin, EG_PIN_NONE);
    fake_reader_close(&r);
    return offset;
}

static void many_segments_of_random_records(void **state) {
    (void)state;
    for (uint64_t seed = 1; seed <= 40; seed++) {
        uint64_t rand = seed;
        uint32_t align = 8u << seed % 4, slots = 3 + (uint32_t)(seed % 5);
        struct fake_bus *bus = fake_bus_open(FAKE_SEGMENT << seed % 2, slots, align, (int64_t)seed * 1000);
        struct fake_writer w;
        fake_writer_open(bus, &w, 1);
        uint32_t largest = (uint32_t)eg_record_bytes_max(bus->capacity) - EG_FRAME_HEADER;
        int64_t offset = (int64_t)seed * 1000, start = offset, records;
        for (int i = 0; i < 400; i++, offset++) {
            uint64_t kind = eg_rand_next(&rand) % 8;
            assert_ok(fake_put_numbered(&w.w, offset, kind == 0 ? largest : (uint32_t)(eg_rand_next(&rand) % (kind < 3 ? 300 : largest))));
            fake_daemon_work(bus, 1 + seed % (slots - 1), false);
        }
        assert_true(bus->first > 10);
        struct eg_check_report report;
        assert_log_is_good(bus, &report);
        int64_t begin = (int64_t)eg_load_acquire(&bus->status->log_start);
        assert_true(begin > start);
        assert_true(read_all(bus, begin, &records) == offset);
        assert_int_equal(records, offset - begin);
        assert_int_equal(report.records, records);
        fake_writer_close(&w);
        fake_bus_close(bus);
    }
}

/* Frames that fill the segment to its last byte: no end-of-segment word has a place, none is needed. */
static void exact_fit_has_no_end_word(void **state) {
    (void)state;
    for (uint32_t align = 8; align <= 64; align *= 2) {
        struct fake_bus *bus = fake_bus_open(FAKE_SEGMENT, 3, align, 0);
        struct fake_writer w;
        fake_writer_open(bus, &w, 1);
        struct fake_reader r;
        fake_reader_open(bus, &r, 0);
        const uint32_t each = 4096; /* 15 of them */
        int64_t offset = 0;
        for (; offset < 15; offset++)
            assert_ok(fake_put_numbered(&w.w, offset, each - EG_FRAME_HEADER));
        assert_int_equal(eg_load_relaxed(&bus->ring->active), 0);
        assert_true(eg_hint_pos(eg_load_relaxed(&fake_header(bus, 0)->hint)) == FAKE_SEGMENT);
        int64_t end;
        assert_ok(eg_log_end(&r.map, fake_cell(bus), false, &end));
        assert_int_equal(end, 15);
        eagre_record_t rec[64];
        size_t n;
        assert_ok(eg_reader_poll(&r.r, rec, 64, &n));
        assert_int_equal(n, 15);
        assert_ok(eg_reader_poll(&r.r, rec, 64, &n));
        assert_int_equal(n, 0);
        assert_false(eg_reader_has_news(&r.r));
        struct eg_check_report report;
        assert_log_is_good(bus, &report);
        assert_ok(fake_put_numbered(&w.w, offset++, 100));
        assert_int_equal(eg_load_relaxed(&bus->ring->active), 1);
        assert_true(eg_reader_has_news(&r.r));
        assert_ok(eg_reader_poll(&r.r, rec, 64, &n));
        assert_int_equal(n, 1);
        assert_int_equal(rec[0].offset, 15);
        assert_log_is_good(bus, NULL);
        fake_reader_close(&r);
        fake_writer_close(&w);
        fake_bus_close(bus);
    }
}

/* One unit is left: too little for any frame, enough for the end word (alignment 8: in the last 8 bytes). */
static void the_smallest_rest_takes_the_end_word(void **state) {
    (void)state;
    for (uint32_t align = 8; align <= 64; align *= 2) {
        struct fake_bus *bus = fake_bus_open(FAKE_SEGMENT, 3, align, 0);
        struct fake_writer w;
        fake_writer_open(bus, &w, 1);
        int64_t offset = 0, records;
        for (; offset < 14; offset++)
            assert_ok(fake_put_numbered(&w.w, offset, 4096 - EG_FRAME_HEADER));
        assert_ok(fake_put_numbered(&w.w, offset++, 4096 - EG_FRAME_HEADER - align));
        assert_ok(fake_put_numbered(&w.w, offset++, align));
        assert_int_equal(eg_load_relaxed(&bus->ring->active), 1);
        uint64_t word = eg_load_relaxed(&eg_frame_at(bus->buffers[0].base, FAKE_SEGMENT - align)->word);
        assert_int_equal(eg_word_kind(word), EG_KIND_EOS);
        assert_true(eg_word_length(word) == align);
        assert_log_is_good(bus, NULL);
        assert_true(read_all(bus, 0, &records) == 16 && records == 16);
        fake_writer_close(&w);
        fake_bus_close(bus);
    }
}

/* ---- left to others ------------------------------------------------------------------------------------ */

struct scene {
    struct fake_bus *bus;
    struct fake_writer w;
    struct fake_writer other;
    int64_t offset;  /* next one */
    bool turn_twice; /* the helper goes on until the ring has turned */
};

static void scene_open(struct scene *s) {
    s->bus = fake_bus_open(FAKE_SEGMENT, 3, 64, 100);
    s->offset = 100;
    fake_writer_open(s->bus, &s->w, 1);
    fake_writer_open(s->bus, &s->other, 2);
    for (int i = 0; i < 7; i++)
        assert_ok(fake_put_numbered(&s->w.w, s->offset++, 8000));
    /* Two lines are left: too little for what comes. */
    uint64_t rest = FAKE_SEGMENT - eg_hint_pos(eg_load_relaxed(&fake_header(s->bus, 0)->hint));
    assert_ok(fake_put_numbered(&s->w.w, s->offset++, (uint32_t)rest - 2 * 64 - EG_FRAME_HEADER));
}

static void scene_close(struct scene *s) {
    fake_writer_close(&s->w);
    fake_writer_close(&s->other);
    fake_bus_close(s->bus);
}

static void help(void *ctx) {
    struct scene *s = ctx;
    int n = s->turn_twice ? 60 : 3;
    for (int i = 0; i < n; i++) {
        assert_ok(fake_put_numbered(&s->other.w, s->offset++, 8000));
        fake_daemon_work(s->bus, 1, true);
    }
}

/* Another does all of it, and more, while the first one stands at the step; then that one goes on. */
static void overtaken_at(const char *step, bool turn_twice) {
    struct scene s = {.turn_twice = turn_twice};
    scene_open(&s);
    struct fake_interpose at = {.name = step, .hit = 1, .act = help, .ctx = &s};
    fake_at(&at);
    int64_t got = -1;
    assert_ok(fake_put_probe(&s.w.w, &got));
    fake_at_none();
    assert_true(at.done);
    assert_int_equal(got, s.offset); /* behind all that the other put */
    assert_true(fake_nothing_is_pinned(s.bus));
    assert_log_is_good(s.bus, NULL);
    if (!turn_twice) {
        struct fake_reader r;
        fake_reader_open(s.bus, &r, 100);
        int64_t offset = 100;
        eagre_record_t rec;
        size_t n;
        do {
            assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
            assert_true(n == 0 || rec.offset == offset++);
        } while (n > 0);
        assert_int_equal(offset, got + 1);
        fake_reader_close(&r);
    }
    scene_close(&s);
}

static void overtaken_at_every_step(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    for (size_t i = 0; i < STEPS; i++) {
        overtaken_at(steps[i], false);
        overtaken_at(steps[i], true);
    }
    overtaken_at("pin.stored", true);
    overtaken_at("pin.checked", true);
}

static bool owner_1_is_dead(void *ctx, uint32_t owner) {
    (void)ctx;
    return owner == 1;
}

/* The first one dies at the step, pinned. Others and the daemon go on. */
static void dead_at_every_step(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    for (size_t i = 0; i < STEPS; i++) {
        struct scene s = {.turn_twice = true};
        scene_open(&s);
        int64_t before = s.offset, records;
        assert_true(fake_put_dies_at(&s.w.w, steps[i], 1));
        assert_false(fake_nothing_is_pinned(s.bus));
        assert_log_is_good(s.bus, NULL); /* a rotation half done is no damage */
        assert_true(read_all(s.bus, 100, &records) == before);
        int64_t end;
        struct fake_reader r;
        fake_reader_open(s.bus, &r, 0);
        assert_ok(eg_log_end(&r.map, fake_cell(s.bus), false, &end));
        assert_true(end == before);
        fake_reader_close(&r);
        help(&s);
        assert_log_is_good(s.bus, NULL);
        int64_t begin = (int64_t)eg_load_acquire(&s.bus->status->log_start);
        assert_true(read_all(s.bus, begin, &records) == s.offset && records == s.offset - begin);
        scene_close(&s);
    }
}

/* Two stand at the same step; the second is stopped at each step as well. */
static struct scene *outer;
static const char *inner_step;

static void second_is_stopped(void *ctx) {
    (void)ctx;
    (void)fake_put_dies_at(&outer->other.w, inner_step, 1);
    eg_pin_clear(outer->other.w.pin); /* repaired: it had no claim */
}

static void two_at_every_pair_of_steps(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    for (size_t i = 0; i < STEPS * STEPS; i++) {
        struct scene s = {0};
        scene_open(&s);
        outer = &s;
        inner_step = steps[i / STEPS];
        struct fake_interpose at = {.name = steps[i % STEPS], .hit = 1, .act = second_is_stopped};
        fake_at(&at);
        int64_t got;
        assert_ok(fake_put_probe(&s.w.w, &got));
        fake_at_none();
        /* The second may have claimed before the first went on, if active was moved already. */
        assert_true(got == s.offset || got == s.offset + 1);
        assert_int_equal(eg_load_relaxed(&s.bus->ring->active), 1);
        uint64_t pads;
        assert_ok(eg_repair_segment(fake_segment(s.bus, 1), FAKE_SEGMENT, FAKE_SEGMENT, 64, owner_1_is_dead, NULL, &pads));
        assert_log_is_good(s.bus, NULL);
        scene_close(&s);
    }
}

/* The end word loses against a smaller record that still finds room: then that one is stepped over. */
static void a_small_record_takes_the_place_of_the_end(void **state) {
    (void)state;
    struct scene s = {0};
    scene_open(&s);
    uint64_t hint = eg_load_relaxed(&fake_header(s.bus, 0)->hint);
    eg_pin_set(s.w.w.pin, s.w.w.pin_value, false);
    assert_ok(fake_put_numbered(&s.other.w, s.offset++, 0));
    assert_int_equal(eg_rotate(&s.w.w, eg_hint_pos(hint), eg_hint_index(hint)), EG_LOG_AGAIN);
    assert_int_equal(eg_load_relaxed(&s.bus->ring->active), 0);
    assert_true(eg_load_relaxed(s.w.w.pin) == s.w.w.pin_value); /* as it was */
    int64_t got;
    assert_ok(fake_put_probe(&s.w.w, &got));
    assert_int_equal(got, s.offset);
    assert_int_equal(eg_load_relaxed(&s.bus->ring->active), 1);
    assert_log_is_good(s.bus, NULL);
    scene_close(&s);
}

/* From active segment seq, which is nearly full, on to the next. */
static void go_on(struct scene *s) {
    uint64_t active = eg_load_relaxed(&s->bus->ring->active);
    while (eg_load_relaxed(&s->bus->ring->active) == active)
        assert_ok(fake_put_numbered(&s->w.w, s->offset++, 8000));
}

/* The daemon is rung by who opens a segment if it does not look by itself, or would look too late. */
static void the_daemon_is_rung_where_it_must_be(void **state) {
    (void)state;
    struct scene s = {0};
    scene_open(&s);
    struct eg_bus *b = s.bus->bus;
    eg_store_relaxed(&s.bus->ring->watched, 0);
    uint32_t wakes = s.bus->wakes;
    go_on(&s);
    assert_int_equal(s.bus->wakes, ++wakes); /* nobody looks */
    assert_int_equal(eg_load_relaxed(&s.bus->ring->watched), 1);
    fake_daemon_work(s.bus, 2, false);
    go_on(&s);
    assert_int_equal(s.bus->wakes, wakes); /* somebody does */
    fake_daemon_work(s.bus, 2, false);
    eg_store_relaxed(&b->asleep, EG_NAPPING);
    go_on(&s);
    assert_int_equal(s.bus->wakes, wakes); /* early enough: the next slot is READY */
    fake_daemon_work(s.bus, 1, false);
    go_on(&s);
    assert_int_equal(s.bus->wakes, ++wakes); /* too late: it is not */
    fake_daemon_work(s.bus, 2, false);
    eg_store_relaxed(&b->asleep, EG_ASLEEP);
    go_on(&s);
    assert_int_equal(s.bus->wakes, ++wakes); /* whoever set `watched` may have died before it rang */
    assert_log_is_good(s.bus, NULL);
    scene_close(&s);
}

/* The buffer of the next slot cannot be had: the error is said, nothing is pinned; later it works. */
static void the_next_buffer_cannot_be_mapped(void **state) {
    (void)state;
    struct scene s = {0};
    scene_open(&s);
    eg_store_relaxed(&s.bus->refuse_fetch, true);
    assert_int_equal(fake_put_numbered(&s.w.w, s.offset, 8000), EAGRE_E_NO_DAEMON);
    assert_true(fake_nothing_is_pinned(s.bus));
    eg_store_relaxed(&s.bus->refuse_fetch, false);
    assert_log_is_good(s.bus, NULL);
    assert_ok(fake_put_numbered(&s.w.w, s.offset, 8000));
    assert_log_is_good(s.bus, NULL);
    scene_close(&s);
}

/* A buffer's number comes back with other memory: the old mapping is not taken for it. */
static void a_number_with_other_memory_is_fetched_anew(void **state) {
    (void)state;
    struct scene s = {0};
    scene_open(&s);
    struct fake_reader r;
    fake_reader_open(s.bus, &r, 100);
    eagre_record_t rec;
    size_t n;
    for (int round = 0; round < 30; round++) {
        /* r holds a segment: its slot gets new memory, and when it lets go the old number is free. */
        assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
        if (n == 1)
            assert_true(fake_is_numbered(&rec));
        for (int i = 0; i < 25; i++) {
            assert_ok(fake_put_numbered(&s.w.w, s.offset++, 8000));
            fake_daemon_work(s.bus, 1, true);
        }
        if (n == 1)
            assert_true(fake_is_numbered(&rec)); /* unchanged all the time */
        eg_reader_seek(&r.r, s.offset - 1);
        assert_log_is_good(s.bus, NULL);
    }
    assert_true(s.bus->fetches > 20);
    fake_reader_close(&r);
    scene_close(&s);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_segments_of_random_records),
        cmocka_unit_test(exact_fit_has_no_end_word),
        cmocka_unit_test(the_smallest_rest_takes_the_end_word),
        cmocka_unit_test(overtaken_at_every_step),
        cmocka_unit_test(dead_at_every_step),
        cmocka_unit_test(two_at_every_pair_of_steps),
        cmocka_unit_test(a_small_record_takes_the_place_of_the_end),
        cmocka_unit_test(the_daemon_is_rung_where_it_must_be),
        cmocka_unit_test(the_next_buffer_cannot_be_mapped),
        cmocka_unit_test(a_number_with_other_memory_is_fetched_anew),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
