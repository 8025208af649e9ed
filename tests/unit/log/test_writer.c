/* Append to one partition: what is claimed, published, given up; memory, room, batches; the single writer. */
#include "unit/log/fake_bus.h"

static struct fake_bus *bus;
static struct fake_writer w;
static struct fake_reader r;

static void open_all(uint64_t capacity, uint32_t align, uint32_t flags) {
    bus = fake_bus_open(capacity, 3, align, 0);
    eg_store_relaxed(&bus->topic->flags, flags);
    fake_writer_open(bus, &w, 9);
    fake_reader_open(bus, &r, 0);
}

static void close_all(void) {
    fake_reader_close(&r);
    fake_writer_close(&w);
    assert_true(fake_nothing_is_pinned(bus));
    fake_bus_close(bus);
}

/* The next record, which must be there. */
static eagre_record_t next(void) {
    eagre_record_t rec = {0};
    size_t n = 0;
    assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
    assert_int_equal(n, 1);
    return rec;
}

static size_t left(void) {
    eagre_record_t rec[64];
    size_t n, sum = 0;
    do {
        assert_ok(eg_reader_poll(&r.r, rec, 64, &n));
        sum += n;
    } while (n > 0);
    return sum;
}

static void a_record_is_what_was_put(void **state) {
    (void)state;
    open_all(FAKE_SEGMENT, 64, 0);
    const uint8_t headers[] = {1, 0, 0, 0, 1, 0, 0, 0, 'n', 'v'};
    const struct fake_record records[] = {
        {.value = "v", .value_length = 1, .timestamp_ns = 5},
        {0},                                  /* no key, null value */
        {.value = "", .value_length = 0},     /* empty is not null */
        {.key = "", .key_length = 0},
        {.key = "key", .key_length = 3, .value = "value", .value_length = 5, .headers = headers, .headers_length = 10, .timestamp_ns = -1},
        {.headers = headers, .headers_length = 0},
    };
    const size_t count = sizeof(records) / sizeof(*records);
    for (size_t i = 0; i < count; i++) {
        int64_t offset = -1;
        assert_ok(fake_put(&w.w, &records[i], &offset));
        assert_int_equal(offset, i);
        assert_true(eg_load_relaxed(w.w.pin) == EG_PIN_NONE);
    }
    for (size_t i = 0; i < count; i++) {
        eagre_record_t rec = next();
        assert_int_equal(rec.offset, i);
        assert_int_equal(rec.partition, 0);
        assert_string_equal(rec.topic, "topic");
        assert_int_equal(rec.timestamp_ns, records[i].timestamp_ns);
        assert_int_equal(rec.key == NULL, records[i].key == NULL);
        assert_int_equal(rec.value == NULL, records[i].value == NULL);
        assert_int_equal(rec.headers == NULL, records[i].headers == NULL);
        assert_int_equal(rec.key_len, records[i].key_length);
        assert_int_equal(rec.value_len, records[i].value_length);
        assert_int_equal(rec.headers_len, records[i].headers_length);
        if (rec.key != NULL)
            assert_memory_equal(rec.key, records[i].key, rec.key_len);
        if (rec.value != NULL)
            assert_memory_equal(rec.value, records[i].value, rec.value_len);
        if (rec.headers != NULL)
            assert_memory_equal(rec.headers, records[i].headers, rec.headers_len);
    }
    assert_int_equal(left(), 0);
    assert_log_is_good(bus, NULL);
    close_all();
}

static void every_length_at_every_alignment(void **state) {
    (void)state;
    for (uint32_t align = 8; align <= 64; align *= 2) {
        open_all(FAKE_SEGMENT * 4, align, 0);
        for (uint32_t length = 0; length <= 300; length++)
            assert_ok(fake_put_numbered(&w.w, length, length));
        for (uint32_t length = 0; length <= 300; length++) {
            eagre_record_t rec = next();
            assert_int_equal(rec.value_len, length);
            assert_true(fake_is_numbered(&rec));
            assert_int_equal(((uintptr_t)rec.value - EG_FRAME_HEADER) % align, 0);
        }
        assert_log_is_good(bus, NULL);
        close_all();
    }
}

static void the_largest_record(void **state) {
    (void)state;
    for (uint32_t align = 8; align <= 64; align *= 2) {
        open_all(FAKE_SEGMENT, align, 0);
        uint32_t largest = (uint32_t)eg_record_bytes_max(FAKE_SEGMENT) - EG_FRAME_HEADER;
        for (int64_t i = 0; i < 30; i++) {
            assert_ok(fake_put_numbered(&w.w, i, largest));
            fake_daemon_work(bus, 1, false);
            eagre_record_t rec = next();
            assert_true(rec.value_len == largest && fake_is_numbered(&rec));
            eg_reader_unpin(&r.r);
        }
        assert_log_is_good(bus, NULL);
        close_all();
    }
}

/* Three records in one claim. */
static int claim_batch(struct eg_claim *c) { return eg_writer_claim(&w.w, 3 * 64, 3, c); }

static uint64_t write_batch(const struct eg_claim *c) {
    uint64_t first = 0;
    for (uint32_t i = 0; i < 3; i++) {
        struct eg_frame *f = eg_frame_at(w.w.base, c->pos + i * 64);
        struct fake_record rec = {.value = &"abc"[i], .value_length = 1};
        uint64_t word = fake_frame_write(&w.w, f, c->pos + i * 64, 64, c->index + i, &rec);
        if (i == 0)
            first = word;
        else
            eg_store_relaxed(&f->word, word);
        assert_int_equal(left(), 0); /* nothing is visible before the publish */
    }
    return first;
}

static void a_batch_is_seen_whole_or_not_at_all(void **state) {
    (void)state;
    open_all(FAKE_SEGMENT, 64, 0);
    struct eg_claim c;
    assert_ok(claim_batch(&c));
    assert_int_equal(left(), 0);
    uint64_t word = write_batch(&c);
    assert_int_equal(left(), 0);
    eg_writer_publish(&w.w, &c, word);
    for (uint32_t i = 0; i < 3; i++) {
        eagre_record_t rec = next();
        assert_int_equal(rec.offset, c.offset + i);
        assert_memory_equal(rec.value, &"abc"[i], 1);
    }
    /* Given up, complete as it is: one pad of three offsets. */
    assert_ok(claim_batch(&c));
    (void)write_batch(&c);
    eg_writer_abort(&w.w, &c);
    assert_int_equal(left(), 0);
    assert_ok(fake_put_numbered(&w.w, 6, 10));
    assert_int_equal(next().offset, 6);
    struct eg_check_report report;
    assert_log_is_good(bus, &report);
    assert_int_equal(report.pads, 1);
    assert_int_equal(report.records, 4);
    close_all();
}

static void an_open_claim_holds_readers_not_writers(void **state) {
    (void)state;
    open_all(FAKE_SEGMENT, 64, 0);
    struct fake_writer other;
    fake_writer_open(bus, &other, 10);
    struct eg_claim c;
    assert_ok(eg_writer_claim(&w.w, 128, 1, &c));
    assert_true(eg_load_relaxed(w.w.pin) == eg_pin_make(true, FAKE_INDEX, 0)); /* pinned until published */
    assert_ok(fake_put_numbered(&other.w, 1, 20));
    assert_true(eg_load_relaxed(other.w.pin) == EG_PIN_NONE);
    assert_int_equal(left(), 0);
    struct eg_check_report report;
    assert_log_is_good(bus, &report);
    assert_int_equal(report.claimed, 1);
    /* A shortened value: the frame stays as long as it was claimed. */
    struct fake_record rec = {.value = "short", .value_length = 5};
    eg_writer_publish(&w.w, &c, fake_frame_write(&w.w, c.frame, c.pos, c.length, c.index, &rec));
    assert_true(eg_load_relaxed(w.w.pin) == EG_PIN_NONE);
    eagre_record_t got = next();
    assert_int_equal(got.value_len, 5);
    assert_memory_equal(got.value, "short", 5);
    assert_int_equal(next().offset, 1);
    /* Given up: its offset is skipped. */
    assert_ok(eg_writer_claim(&w.w, 128, 1, &c));
    assert_ok(fake_put_numbered(&other.w, 3, 20));
    eg_writer_abort(&w.w, &c);
    assert_int_equal(next().offset, 3);
    assert_log_is_good(bus, NULL);
    fake_writer_close(&other);
    close_all();
}

/* A tail hint that is old, or from nowhere, costs walking and nothing else. */
static void a_stale_hint_is_harmless(void **state) {
    (void)state;
    open_all(FAKE_SEGMENT, 64, 0);
    assert_ok(fake_put_numbered(&w.w, 0, 10));
    uint64_t old = eg_load_relaxed(&fake_header(bus, 0)->hint);
    for (int64_t i = 1; i < 50; i++)
        assert_ok(fake_put_numbered(&w.w, i, 10));
    const uint64_t hints[] = {old, 0, eg_hint_make(EG_SEGMENT_DATA, 0), eg_hint_make(FAKE_SEGMENT + 64, 9),
                              eg_hint_make(EG_SEGMENT_DATA + 8, 3), UINT64_MAX};
    for (size_t i = 0; i < sizeof(hints) / sizeof(*hints); i++) {
        eg_store_relaxed(&fake_header(bus, 0)->hint, hints[i]);
        assert_ok(fake_put_numbered(&w.w, 50 + (int64_t)i, 10));
    }
    assert_int_equal(left(), 56);
    assert_log_is_good(bus, NULL);
    close_all();
}

static void memory_is_asked_for_before_it_is_used(void **state) {
    (void)state;
    open_all(4u << 20, 64, 0);
    struct eg_segment_header *h = fake_header(bus, 0);
    assert_true(eg_load_relaxed(&h->allocated) == EG_PAGE);
    assert_ok(fake_put_numbered(&w.w, 0, 100));
    assert_true(eg_load_relaxed(&h->allocated) == 2u << 20);
    int64_t offset = 1;
    while (eg_hint_pos(eg_load_relaxed(&h->hint)) + 1088 + EG_LINE <= 2u << 20)
        assert_ok(fake_put_numbered(&w.w, offset++, 1024));
    assert_int_equal(bus->allocations, 1);
    /* The next one and the word behind it would pass the mark. */
    eg_store_relaxed(&bus->refuse_memory, true);
    assert_int_equal(fake_put_numbered(&w.w, offset, 1024), EAGRE_E_NO_MEMORY);
    assert_true(fake_nothing_is_pinned(bus));
    assert_true(eg_load_relaxed(&h->allocated) == 2u << 20);
    /* Readers see all that is there and do not go beyond the mark themselves. */
    assert_int_equal(left(), offset);
    assert_true(fake_buffer_memory(bus, 0) <= 2u << 20);
    eg_store_relaxed(&bus->refuse_memory, false);
    assert_ok(fake_put_numbered(&w.w, offset, 1024));
    assert_true(eg_load_relaxed(&h->allocated) == 4u << 20);
    assert_int_equal(left(), 1);
    assert_log_is_good(bus, NULL);
    close_all();
}

/* No slot is READY: an error, nothing is pinned, the daemon is told; and it goes on when one is. */
static void without_room_it_would_block(void **state) {
    (void)state;
    open_all(FAKE_SEGMENT, 64, 0);
    int64_t offset = 0;
    int rc;
    while ((rc = fake_put_numbered(&w.w, offset, 4000)) == EAGRE_OK)
        offset++;
    assert_int_equal(rc, EAGRE_E_WOULD_BLOCK);
    assert_int_equal(eg_load_relaxed(&bus->ring->active), 2);
    uint32_t wakes = bus->wakes;
    for (int i = 0; i < 3; i++) {
        assert_int_equal(fake_put_numbered(&w.w, offset, 4000), EAGRE_E_WOULD_BLOCK);
        assert_true(fake_nothing_is_pinned(bus));
    }
    assert_int_equal(bus->wakes, wakes + 3);
    assert_int_equal(eg_load_relaxed(&bus->ring->watched), 1);
    assert_log_is_good(bus, NULL);
    assert_true(fake_retire(bus, false));
    assert_ok(fake_put_numbered(&w.w, offset, 4000));
    assert_int_equal(eg_load_relaxed(&bus->ring->active), 3);
    assert_log_is_good(bus, NULL);

    /* Closed, deleted, in error: said as such. */
    eg_store_relaxed(&bus->topic->state, EG_TOPIC_DELETED);
    eg_store_relaxed(&fake_slot(bus, 3)->word, eg_slot_make(3, 0, EG_SLOT_RETIRING));
    assert_int_equal(fake_put_numbered(&w.w, 0, 10), EAGRE_E_TOPIC_DELETED);
    eg_store_relaxed(&bus->topic->state, EG_TOPIC_ACTIVE);
    eg_store_relaxed(&bus->status->state, EG_PARTITION_ERROR);
    assert_int_equal(fake_put_numbered(&w.w, 0, 10), EAGRE_E_CORRUPT);
    eg_store_relaxed(&bus->status->state, EG_PARTITION_ACTIVE);
    assert_int_equal(fake_put_numbered(&w.w, 0, 10), EAGRE_E_WOULD_BLOCK);
    assert_true(fake_nothing_is_pinned(bus));
    close_all();
}

/* The pin, then the slot's word: whoever is late takes the pin back and starts again. */
static void retired_between_two_claims(void **state) {
    (void)state;
    open_all(FAKE_SEGMENT, 64, 0);
    struct fake_writer other;
    fake_writer_open(bus, &other, 10);
    assert_ok(fake_put_numbered(&w.w, 0, 4000)); /* w knows segment 0 */
    for (int64_t i = 1; i < 200; i++) {
        assert_ok(fake_put_numbered(&other.w, i, 4000));
        fake_daemon_work(bus, 1, false);
    }
    assert_ok(fake_put_numbered(&w.w, 200, 4000));
    assert_log_is_good(bus, NULL);
    fake_writer_close(&other);
    close_all();
}

static void retire_and_go_on(void *ctx) {
    (void)ctx;
    int64_t end = 0;
    struct fake_writer other;
    fake_writer_open(bus, &other, 10);
    assert_ok(eg_log_end(&other.map, fake_cell(bus), false, &end));
    for (int64_t i = 0; i < 100; i++) {
        assert_ok(fake_put_numbered(&other.w, end + i, 4000));
        fake_daemon_work(bus, 1, true);
    }
    fake_writer_close(&other);
}

/* The ring turns twice at each step of a claim; the pin keeps its bytes from reuse, and its record is
 * either in the present log or in a buffer that nobody sees any more: never in a later life. */
static void the_ring_turns_within_a_claim(void **state) {
    (void)state;
    FAKE_NEEDS_FAULTPOINTS();
    const char *steps[] = {"pin.stored", "pin.checked", "claim.done", "hint.stored", "publish.done", "unpinned"};
    for (size_t i = 0; i < 2 * sizeof(steps) / sizeof(*steps); i++) {
        open_all(FAKE_SEGMENT, 64, 0);
        for (int64_t k = 0; k < 5; k++)
            assert_ok(fake_put_numbered(&w.w, k, 4000));
        if (i % 2 == 1)
            eg_writer_forget(&w.w); /* it enters the segment by the slow path */
        struct fake_interpose at = {.name = steps[i / 2], .hit = 1, .act = retire_and_go_on};
        fake_at(&at);
        assert_ok(fake_put(&w.w, &(struct fake_record){.value = "mine", .value_length = 4}, NULL));
        fake_at_none();
        assert_true(at.done && fake_nothing_is_pinned(bus));
        assert_log_is_good(bus, NULL);
        int64_t end;
        assert_ok(eg_log_end(&r.map, fake_cell(bus), false, &end));
        assert_ok(fake_put_numbered(&w.w, end, 10)); /* and it goes on at the end */
        assert_log_is_good(bus, NULL);
        close_all();
    }
}

static void the_single_writer(void **state) {
    (void)state;
    open_all(FAKE_SEGMENT, 64, EG_TOPIC_SINGLE_WRITER);
    assert_true(w.map.single_writer);
    struct eg_claim c;
    uint64_t rand = 3;
    int64_t offset = 0, read = 0;
    while (offset < 3000) {
        uint32_t length = (uint32_t)(eg_rand_next(&rand) % 6000);
        if (eg_rand_next(&rand) % 16 == 0) {
            assert_ok(eg_writer_claim(&w.w, 192, 3, &c));
            assert_int_equal(c.offset, offset);
            assert_true(fake_nothing_is_pinned(bus)); /* it needs none: see writer.h */
            eg_writer_abort(&w.w, &c);
            offset += 3;
        } else {
            assert_ok(fake_put_numbered(&w.w, offset++, length));
        }
        fake_daemon_work(bus, 1, false);
        eagre_record_t rec;
        size_t n;
        do {
            assert_ok(eg_reader_poll(&r.r, &rec, 1, &n));
            if (n == 1) {
                assert_true(rec.offset >= read && fake_is_numbered(&rec));
                read = rec.offset + 1;
            }
        } while (n > 0);
    }
    assert_int_equal(read <= offset, 1);
    assert_log_is_good(bus, NULL);
    /* Its successor finds the end by itself. */
    struct fake_writer next_one;
    fake_writer_open(bus, &next_one, 11);
    assert_ok(fake_put_numbered(&next_one.w, offset, 10));
    assert_log_is_good(bus, NULL);
    /* Closed under it: it notices although it does not pin. */
    uint64_t active = eg_load_relaxed(&bus->ring->active);
    eg_store_relaxed(&fake_slot(bus, active)->word, eg_slot_make(active, fake_buffer_of(bus, active), EG_SLOT_RETIRING));
    assert_int_equal(fake_put_numbered(&next_one.w, offset + 1, 10), EAGRE_E_WOULD_BLOCK);
    fake_writer_close(&next_one);
    close_all();
}

/* Its tail is known only once it has claimed: a refused claim leaves none behind. */
static void a_new_single_writer_that_finds_no_room(void **state) {
    (void)state;
    struct fake_bus *b = fake_bus_open(FAKE_SEGMENT, 3, 64, 0);
    struct fake_writer before, after;
    int64_t offset = 0;
    eg_store_relaxed(&b->topic->flags, EG_TOPIC_SINGLE_WRITER);
    fake_writer_open(b, &before, 1);
    while (fake_put_numbered(&before.w, offset, 8000) == EAGRE_OK)
        offset++;
    fake_writer_close(&before);
    fake_writer_open(b, &after, 2);
    for (int i = 0; i < 3; i++)
        assert_int_equal(fake_put_numbered(&after.w, offset, 100), EAGRE_E_WOULD_BLOCK);
    assert_log_is_good(b, NULL);
    assert_true(fake_retire(b, false));
    assert_ok(fake_put_numbered(&after.w, offset, 100));
    assert_log_is_good(b, NULL);
    fake_writer_close(&after);
    fake_bus_close(b);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_record_is_what_was_put),
        cmocka_unit_test(every_length_at_every_alignment),
        cmocka_unit_test(the_largest_record),
        cmocka_unit_test(a_batch_is_seen_whole_or_not_at_all),
        cmocka_unit_test(an_open_claim_holds_readers_not_writers),
        cmocka_unit_test(a_stale_hint_is_harmless),
        cmocka_unit_test(memory_is_asked_for_before_it_is_used),
        cmocka_unit_test(without_room_it_would_block),
        cmocka_unit_test(retired_between_two_claims),
        cmocka_unit_test(the_ring_turns_within_a_claim),
        cmocka_unit_test(the_single_writer),
        cmocka_unit_test(a_new_single_writer_that_finds_no_room),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
