#include "stream.h"

#include <eagre/consumer.h>
#include <eagre/producer.h>

#include <stdlib.h>

#define FRAME_HEADER 32
#define ALIGNMENT 64
#define POLL_RECORDS 512

uint64_t eb_stream_frame(uint64_t size) {
    return (size + FRAME_HEADER + ALIGNMENT - 1) & ~(uint64_t)(ALIGNMENT - 1);
}

uint64_t eb_stream_window(const struct eb_bench *b, const struct eb_ring *ring) {
    /* While segments go by fast, half of the slots are READY ahead and one is active. Readers have the
     * others, less what the ends of segments waste. */
    unsigned readable = ring->segments - ring->segments / 2 - 1;
    return b->opt.window ? b->opt.window : ring->segment_bytes * readable - ring->segment_bytes / 4;
}

int eb_stream_prepare(struct eb_bench *b, struct eb_stream *s) {
    uint64_t ring = s->ring.segment_bytes * s->ring.segments;
    uint64_t warm = b->opt.warm_bytes > 2 * ring ? b->opt.warm_bytes : 2 * ring;
    uint64_t window = eb_stream_window(b, &s->ring);
    s->frame = eb_stream_frame(s->size);
    s->wait = s->spins ? EAGRE_WAIT_SPIN : b->opt.wait;
    s->lap = ring / s->frame;
    s->window = window / s->frame;
    if (s->window < EB_BATCH_RECORDS && s->way == EB_BATCH)
        s->window = EB_BATCH_RECORDS;
    if (s->window < 1)
        s->window = 1;
    if (s->total == 0)
        s->total =
            (s->lap + warm / s->frame + EB_BATCH_RECORDS - 1) / EB_BATCH_RECORDS * EB_BATCH_RECORDS;
    if (s->way == EB_BARE)
        return eb_bare_open(&s->log, ring);
    eagre_setting_t single[] = {{"writers", s->single ? "single" : "multi"}, {NULL, NULL}};
    if (eb_topic_create(b, &s->ring, single, s->topic) != 0)
        return -1;
    s->socket = b->bus->socket;
    eb_bus_settle(b);
    return 0;
}

void eb_stream_end(struct eb_bench *b, struct eb_stream *s) {
    if (s->way == EB_BARE) {
        eb_bare_close(&s->log);
        return;
    }
    eb_topic_delete(b, s->topic);
    eb_bus_settle(b);
}

int eb_stream_run(struct eb_bench *b, const struct eb_stream *settings, double out[EB_VALUES]) {
    struct eb_stream s = *settings;
    struct eb_area *a = eb_area_create(2);
    int r = -1;
    if (a && eb_stream_prepare(b, &s) == 0) {
        r = eb_pair_run(a, eb_stream_produce, eb_stream_consume, &s, b->opt.cpu, 60000);
        memcpy(out, a->worker[1].value, EB_VALUES * sizeof *out);
        eb_stream_end(b, &s);
    }
    eb_area_free(a);
    return r;
}

/* ---- producer ------------------------------------------------------------------------------------------- */

/*
 * Values to be copied in. Each carries its number in its first 8 bytes, written long before it is
 * copied, so that the copy does not wait for that store.
 */
struct source {
    uint8_t *values;
    uint64_t size, stride, count; /* count: a power of two, EB_BATCH_RECORDS at least */
};

static int source_make(struct source *src, uint64_t size) {
    src->size = size;
    src->stride = (size + 63) & ~63ull;
    src->count = EB_BATCH_RECORDS;
    while (src->count < 256 && src->count * 2 * src->stride <= 16384)
        src->count *= 2;
    src->values = aligned_alloc(64, src->count * src->stride + 64);
    if (!src->values)
        return -1;
    memset(src->values, 0x55, src->count * src->stride + 64);
    for (uint64_t i = 0; i < src->count && size >= 8; i++)
        memcpy(src->values + i * src->stride, &i, 8);
    return 0;
}

static inline void *source_value(const struct source *src, uint64_t n) {
    return src->values + (n & (src->count - 1)) * src->stride;
}

/* Value n was copied: its place is for n + count. */
static inline void source_renew(const struct source *src, uint64_t n) {
    uint64_t next = n + src->count;
    if (src->size >= 8)
        memcpy(source_value(src, n), &next, 8);
}

/* Wait until at least `step` records may be sent; how many may have been sent then, at most total. */
static inline uint64_t pace(struct eb_area *a, const struct eb_stream *s, uint64_t sent,
                            uint64_t step) {
    static int64_t start;
    for (;;) {
        uint64_t until = atomic_load_explicit(&a->cell[0].v, memory_order_acquire) + s->window;
        if (s->rate > 0) {
            int64_t now = eb_now_ns();
            start = start ? start : now;
            uint64_t due = (uint64_t)((double)(now - start) * s->rate / 1e9) + step;
            until = due < until ? due : until;
        }
        if (until >= sent + step)
            return until < s->total ? until : s->total;
        eb_cpu_pause();
    }
}

static int produce_bare(struct eb_worker *w, const struct eb_stream *s, const struct source *src) {
    struct eb_bare log = s->log;
    eb_barrier(w->area, 2);
    for (uint64_t n = 0; n < s->total;)
        for (uint64_t until = pace(w->area, s, n, 1); n < until; n++) {
            eb_bare_put(&log, source_value(src, n), (uint32_t)src->size);
            source_renew(src, n);
        }
    return 0;
}

static int produce_one(struct eb_worker *w, const struct eb_stream *s, const struct source *src,
                       eagre_producer_t *p) {
    eagre_message_t m = EAGRE_MESSAGE_INIT;
    m.value_len = src->size;
    m.partition = 0;
    eb_barrier(w->area, 2);
    for (uint64_t n = 0; n < s->total;)
        for (uint64_t until = pace(w->area, s, n, 1); n < until; n++) {
            m.value = source_value(src, n);
            int r = eagre_produce(p, &m, NULL, NULL);
            if (__builtin_expect(r != EAGRE_OK, 0))
                return eb_fail_status(w, "eagre_produce", r);
            source_renew(src, n);
        }
    return 0;
}

static int produce_batch(struct eb_worker *w, const struct eb_stream *s, const struct source *src,
                         eagre_producer_t *p) {
    eagre_message_t m[EB_BATCH_RECORDS];
    for (int i = 0; i < EB_BATCH_RECORDS; i++) {
        m[i] = (eagre_message_t)EAGRE_MESSAGE_INIT;
        m[i].value_len = src->size;
    }
    eb_barrier(w->area, 2);
    for (uint64_t n = 0; n < s->total;)
        for (uint64_t until = pace(w->area, s, n, EB_BATCH_RECORDS); until - n >= EB_BATCH_RECORDS;
             n += EB_BATCH_RECORDS) {
            for (int i = 0; i < EB_BATCH_RECORDS; i++)
                m[i].value = source_value(src, n + (uint64_t)i);
            int r = eagre_produce_batch(p, 0, m, EB_BATCH_RECORDS, NULL);
            if (__builtin_expect(r != EAGRE_OK, 0))
                return eb_fail_status(w, "eagre_produce_batch", r);
            for (int i = 0; i < EB_BATCH_RECORDS; i++)
                source_renew(src, n + (uint64_t)i);
        }
    return 0;
}

static int produce_claim(struct eb_worker *w, const struct eb_stream *s, const struct source *src,
                         eagre_producer_t *p) {
    eb_barrier(w->area, 2);
    for (uint64_t n = 0; n < s->total;)
        for (uint64_t until = pace(w->area, s, n, 1); n < until; n++) {
            eagre_claim_t c;
            int r = eagre_producer_claim(p, 0, SIZE_MAX, src->size, &c);
            if (__builtin_expect(r != EAGRE_OK, 0))
                return eb_fail_status(w, "eagre_producer_claim", r);
            memcpy(c.value, source_value(src, n), src->size);
            r = eagre_producer_commit(p, &c);
            if (__builtin_expect(r != EAGRE_OK, 0))
                return eb_fail_status(w, "eagre_producer_commit", r);
            source_renew(src, n);
        }
    return 0;
}

int eb_stream_produce(struct eb_worker *w) {
    const struct eb_stream *s = w->arg;
    struct source src;
    if (source_make(&src, s->size) != 0)
        return eb_fail(w, "no memory");
    if (s->way == EB_BARE)
        return produce_bare(w, s, &src);

    eagre_t *e;
    eagre_producer_t *p;
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    o.wait = EAGRE_WAIT_SPIN;
    int r = eagre_open(s->socket, &e);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "eagre_open", r);
    r = eagre_producer_open(e, s->topic, &o, &p);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "eagre_producer_open", r);
    r = s->way == EB_ONE     ? produce_one(w, s, &src, p)
        : s->way == EB_BATCH ? produce_batch(w, s, &src, p)
                             : produce_claim(w, s, &src, p);
    eagre_producer_close(p);
    eagre_close(e);
    free(src.values);
    return r;
}

/* ---- consumer ------------------------------------------------------------------------------------------- */

struct sink {
    struct eb_worker *w;
    const struct eb_stream *s;
    uint64_t next;     /* number of the next record */
    uint64_t received; /* of all */
    uint64_t lost;
    uint64_t sum;
    int64_t began, first_lap;
    uint64_t first_lap_records;
};

/* Read one word in each cache line of a value, and check its number. Returns 1 if it is another one. */
static inline int take(struct sink *k, const void *value, uint64_t size) {
    uint64_t word = k->next;
    if (size >= 8)
        memcpy(&word, value, 8);
    uint64_t sum = word;
    for (uint64_t at = 64; at + 8 <= size; at += 64) {
        uint64_t v;
        memcpy(&v, (const uint8_t *)value + at, 8);
        sum += v;
    }
    if (size >= 16) { /* the last line that it touches */
        uint64_t v;
        memcpy(&v, (const uint8_t *)value + size - 8, 8);
        sum += v;
    }
    k->sum += sum;
    return word != k->next || size != k->s->size;
}

static int wrong(struct sink *k, const void *value, uint64_t size) {
    uint64_t word = 0;
    if (value && size >= 8)
        memcpy(&word, value, 8);
    return eb_fail(k->w, "record %llu: it has %llu bytes and number %llu; expected %llu bytes",
                   (unsigned long long)k->next, (unsigned long long)size, (unsigned long long)word,
                   (unsigned long long)k->s->size);
}

/* After each handful of records: tell the producer, note when the first lap was over. */
static inline void progress(struct sink *k) {
    atomic_store_explicit(&k->w->area->cell[0].v, k->next, memory_order_release);
    if (__builtin_expect(k->first_lap == 0 && k->next >= k->s->lap, 0)) {
        k->first_lap = eb_now_ns();
        k->first_lap_records = k->received;
    }
}

static int consume_bare(struct sink *k) {
    struct eb_bare log = k->s->log;
    eb_barrier(k->w->area, 2);
    k->began = eb_now_ns();
    while (k->next < k->s->total) {
        uint64_t before = k->next;
        while (k->next - before < POLL_RECORDS) {
            uint32_t size;
            const void *value = eb_bare_get(&log, &size);
            if (!value)
                break;
            if (take(k, value, size))
                return wrong(k, value, size);
            k->next++;
            k->received++;
        }
        if (k->next != before)
            progress(k);
        else
            eb_cpu_pause();
    }
    return 0;
}

static int consume_bus(struct sink *k, eagre_consumer_t *c) {
    static eagre_record_t records[POLL_RECORDS];
    eb_barrier(k->w->area, 2);
    k->began = eb_now_ns();
    while (k->next < k->s->total) {
        size_t n;
        int r = eagre_consumer_poll(c, records, POLL_RECORDS, 1000, &n);
        if (__builtin_expect(r != EAGRE_OK, 0))
            return eb_fail_status(k->w, "eagre_consumer_poll", r);
        for (size_t i = 0; i < n; i++) {
            const eagre_record_t *rec = &records[i];
            if (__builtin_expect((uint64_t)rec->offset != k->next, 0)) {
                if ((uint64_t)rec->offset < k->next)
                    return eb_fail(k->w, "offset %lld came again", (long long)rec->offset);
                k->lost += (uint64_t)rec->offset - k->next;
                k->next = (uint64_t)rec->offset;
            }
            if (take(k, rec->value, rec->value_len))
                return wrong(k, rec->value, rec->value_len);
            k->next++;
        }
        k->received += n;
        progress(k);
    }
    return 0;
}

int eb_stream_consume(struct eb_worker *w) {
    const struct eb_stream *s = w->arg;
    struct sink k = {.w = w, .s = s};
    int r;
    if (s->way == EB_BARE) {
        r = consume_bare(&k);
    } else {
        eagre_t *e;
        eagre_consumer_t *c;
        eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
        o.auto_offset_reset = EAGRE_RESET_EARLIEST;
        o.wait = s->wait;
        o.check_crcs = s->check_crcs;
        r = eagre_open(s->socket, &e);
        if (r != EAGRE_OK)
            return eb_fail_status(w, "eagre_open", r);
        r = eagre_consumer_open(e, &o, &c);
        if (r != EAGRE_OK)
            return eb_fail_status(w, "eagre_consumer_open", r);
        r = eagre_consumer_assign(c, s->topic, 0);
        if (r != EAGRE_OK)
            return eb_fail_status(w, "eagre_consumer_assign", r);
        r = consume_bus(&k, c);
        eagre_consumer_close(c);
        eagre_close(e);
    }
    if (r != 0)
        return r;
    int64_t end = eb_now_ns();
    EB_USE(k.sum);
    w->value[EB_COLD_NS] = (double)(k.first_lap - k.began);
    w->value[EB_COLD_RECORDS] = (double)k.first_lap_records;
    w->value[EB_WARM_NS] = (double)(end - k.first_lap);
    w->value[EB_WARM_RECORDS] = (double)(k.received - k.first_lap_records);
    w->value[EB_RECEIVED] = (double)k.received;
    w->value[EB_LOST] = (double)k.lost;
    return 0;
}
