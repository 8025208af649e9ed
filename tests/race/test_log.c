/*
 * Threads as clients: producers with records, batches and aborted claims, readers, and a miniature daemon that
 * retires, zeroes and swaps, on the smallest segments and ring. Each reader must see each producer's records
 * in order, unchanged, at dense offsets; at the end the checker finds nothing.
 *
 * Readers that fall behind start again at the log's beginning: then a jump is fine, disorder is not.
 */
#include <sched.h>

#include "unit/log/fake_bus.h"

#define PRODUCERS 3u
#define READERS 2u
#define BATCH 5u
#define VALUE_MAX 3000u

#ifdef __SANITIZE_THREAD__
/* ThreadSanitizer cannot see that a membarrier orders what other threads do: fences of their own there. */
#define FENCE true
#define RECORDS 4000u
#else
#define FENCE false
#define RECORDS 40000u
#endif

struct payload {
    uint32_t producer;
    uint32_t length; /* of the value */
    uint64_t number; /* of this producer's records, from 0 */
    uint64_t check;  /* of the rest of the value */
    uint8_t bytes[VALUE_MAX];
};
#define PAYLOAD_MIN ((uint32_t)offsetof(struct payload, bytes))

struct scene {
    struct fake_bus *bus;
    uint64_t seed;
    bool single;
    _Atomic uint32_t producing; /* producers at work */
    _Atomic uint32_t reading;
    _Atomic int64_t log_end;    /* once all have produced; -1 before */
    _Atomic uint64_t seen;      /* records, by all readers */
    _Atomic uint64_t lost;      /* times that a reader fell behind */
    _Atomic int64_t given;      /* offsets that were claimed */
};

struct worker {
    struct scene *s;
    uint32_t number;
    pthread_t thread;
};

static uint64_t check_of(const struct payload *p, uint32_t length) {
    return (uint64_t)eg_crc32c(p->producer, p->bytes, length - PAYLOAD_MIN) << 32 | eg_crc32c(~p->producer, &p->number, 8);
}

static void fill(struct payload *p, uint32_t producer, uint64_t number, uint32_t length) {
    p->producer = producer;
    p->length = length;
    p->number = number;
    fake_bytes((int64_t)(number * PRODUCERS + producer), p->bytes, length - PAYLOAD_MIN);
    p->check = check_of(p, length);
}

/* A claim, waiting for room as long as it takes: the daemon is at work. */
static void claim(struct scene *s, struct eg_writer *w, uint64_t length, uint32_t count, struct eg_claim *c) {
    for (;;) {
        uint32_t room = eg_load_acquire(&s->bus->status->room);
        int rc = eg_writer_claim(w, length, count, c);
        if (rc == EAGRE_OK) {
            atomic_fetch_add(&s->given, count);
            return;
        }
        FAKE_REQUIRE(rc == EAGRE_E_WOULD_BLOCK);
        FAKE_REQUIRE(eg_load_relaxed(w->pin) == EG_PIN_NONE); /* who waits holds nobody up */
        eg_futex_wait(&s->bus->status->room, room, 1000000);
    }
}

static void *produce(void *arg) {
    struct worker *me = arg;
    struct scene *s = me->s;
    struct fake_writer w;
    struct payload p;
    uint64_t rand = s->seed * 100 + me->number, number = 0;
    memset(&p, 0, sizeof(p));
    fake_writer_open(s->bus, &w, me->number + 1);
    w.w.fence = FENCE;
    while (number < RECORDS) {
        struct eg_claim c;
        uint64_t kind = eg_rand_next(&rand) % 32;
        uint32_t length = PAYLOAD_MIN + (uint32_t)(eg_rand_next(&rand) % (kind < 2 ? VALUE_MAX : 200));
        struct fake_record rec = {.value = &p, .value_length = length};
        uint64_t each = eg_frame_length(length, s->bus->align);
        if (kind == 31) { /* given up: offsets that nobody sees */
            claim(s, &w.w, each, 3, &c);
            eg_writer_abort(&w.w, &c);
        } else if (kind >= 28 && each * BATCH <= eg_record_bytes_max(s->bus->capacity)) {
            uint64_t first = 0;
            claim(s, &w.w, each * BATCH, BATCH, &c);
            for (uint32_t i = 0; i < BATCH; i++) {
                struct eg_frame *f = eg_frame_at(w.w.base, c.pos + i * each);
                fill(&p, me->number, number++, length);
                uint64_t word = fake_frame_write(&w.w, f, c.pos + i * each, each, c.index + i, &rec);
                if (i == 0)
                    first = word;
                else
                    eg_store_relaxed(&f->word, word);
            }
            eg_writer_publish(&w.w, &c, first);
        } else {
            claim(s, &w.w, each, 1, &c);
            fill(&p, me->number, number++, length);
            if (kind == 27)
                (void)sched_yield(); /* held open for a while */
            eg_writer_publish(&w.w, &c, fake_frame_write(&w.w, c.frame, c.pos, c.length, c.index, &rec));
        }
    }
    fake_writer_close(&w);
    atomic_fetch_sub(&s->producing, 1);
    return NULL;
}

static void *consume(void *arg) {
    struct worker *me = arg;
    struct scene *s = me->s;
    struct fake_reader r;
    uint64_t next[PRODUCERS] = {0}, rand = s->seed * 1000 + me->number, seen = 0;
    int64_t offset = -1; /* of the last record */
    bool jumped = false;
    fake_reader_open(s->bus, &r, 0);
    r.r.fence = FENCE;
    r.r.keep_pin = s->seed % 2 == 0;
    for (;;) {
        eagre_record_t rec[16];
        size_t n;
        int64_t end = eg_load_acquire(&s->log_end);
        int rc = eg_reader_poll(&r.r, rec, 1 + eg_rand_next(&rand) % 16, &n);
        if (rc == EAGRE_E_OFFSET_OUT_OF_RANGE) {
            int64_t begin = eg_reader_beginning(&r.r);
            FAKE_REQUIRE(begin > offset);
            eg_reader_seek(&r.r, begin);
            eg_fetch_add_relaxed(&s->lost, 1);
            jumped = true;
            continue;
        }
        if (rc == EAGRE_E_WOULD_BLOCK)
            continue;
        FAKE_REQUIRE(rc == EAGRE_OK);
        if (n == 0) {
            if (end >= 0 && r.r.offset == end)
                break;
            (void)sched_yield();
            continue;
        }
        if (eg_rand_next(&rand) % 64 == 0)
            (void)sched_yield(); /* and the ring turns under what was polled */
        for (size_t i = 0; i < n; i++) {
            const struct payload *p = rec[i].value;
            FAKE_REQUIRE(rec[i].offset > offset && p->producer < PRODUCERS && p->length == rec[i].value_len);
            FAKE_REQUIRE(p->check == check_of(p, rec[i].value_len));
            FAKE_REQUIRE(jumped ? p->number >= next[p->producer] : p->number == next[p->producer]);
            next[p->producer] = p->number + 1;
            offset = rec[i].offset;
        }
        seen += n;
    }
    if (!jumped)
        for (uint32_t i = 0; i < (s->single ? 1 : PRODUCERS); i++)
            FAKE_REQUIRE(next[i] >= RECORDS && next[i] < RECORDS + BATCH);
    atomic_fetch_add(&s->seen, seen);
    fake_reader_close(&r);
    atomic_fetch_sub(&s->reading, 1);
    return NULL;
}

static void *serve(void *arg) {
    struct scene *s = ((struct worker *)arg)->s;
    uint64_t rand = s->seed;
    while (atomic_load(&s->reading) > 0) {
        fake_daemon_work(s->bus, 1 + eg_rand_next(&rand) % (s->bus->slots - 1), eg_rand_next(&rand) % 4 != 0);
        (void)sched_yield();
    }
    return NULL;
}

static void start(struct worker *w, struct scene *s, uint32_t number, void *(*run)(void *)) {
    *w = (struct worker){.s = s, .number = number};
    FAKE_REQUIRE(pthread_create(&w->thread, NULL, run, w) == 0);
}

static void run_scene(uint64_t seed, bool single) {
    struct scene s = {.bus = fake_bus_open(FAKE_SEGMENT, 3, 8u << seed % 4, 0), .seed = seed, .single = single};
    uint32_t producers = single ? 1 : PRODUCERS;
    if (single)
        eg_store_relaxed(&s.bus->topic->flags, EG_TOPIC_SINGLE_WRITER);
    s.producing = producers;
    s.reading = READERS;
    s.log_end = -1;
    struct worker daemon, producer[PRODUCERS], reader[READERS];
    for (uint32_t i = 0; i < READERS; i++)
        start(&reader[i], &s, i, consume);
    start(&daemon, &s, 0, serve);
    for (uint32_t i = 0; i < producers; i++)
        start(&producer[i], &s, i, produce);
    for (uint32_t i = 0; i < producers; i++)
        (void)pthread_join(producer[i].thread, NULL);
    struct fake_reader look;
    int64_t end = 0;
    fake_reader_open(s.bus, &look, 0);
    assert_ok(eg_log_end(&look.map, look.r.pin, FENCE, &end));
    fake_reader_close(&look);
    assert_true(end == s.given); /* dense */
    eg_store_release(&s.log_end, end);
    for (uint32_t i = 0; i < READERS; i++)
        (void)pthread_join(reader[i].thread, NULL);
    (void)pthread_join(daemon.thread, NULL);
    assert_true(fake_nothing_is_pinned(s.bus));
    struct eg_check_report report;
    assert_log_is_good(s.bus, &report);
    assert_int_equal(report.claimed, 0);
    assert_true(eg_load_relaxed(&s.bus->ring->active) > 10); /* it did turn */
    print_message("seed %u: %lld offsets, %llu records read, %llu times behind, %u buffers fetched\n", (unsigned)seed,
                  (long long)end, (unsigned long long)s.seen, (unsigned long long)s.lost, s.bus->fetches);
    fake_bus_close(s.bus);
}

static void many_producers(void **state) {
    (void)state;
    if (!FENCE)
        (void)eg_membarrier_register();
    for (uint64_t seed = 1; seed <= 8; seed++)
        run_scene(seed, false);
}

static void a_single_writer(void **state) {
    (void)state;
    if (!FENCE)
        (void)eg_membarrier_register();
    for (uint64_t seed = 1; seed <= 4; seed++)
        run_scene(seed, true);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(many_producers),
        cmocka_unit_test(a_single_writer),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
