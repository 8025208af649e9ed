/*
 * Latency at a given rate. Each record has a time at which it is due; its latency runs from then, not
 * from when the producer came to it, so that a stall counts for every record that it delayed.
 */
#include "barelog.h"
#include "harness.h"

#include <eagre/consumer.h>
#include <eagre/producer.h>

#define VALUE_MAX 4096

struct flow {
    bool bus;
    eagre_wait_t wait;
    uint64_t size, count;
    double gap_ns;
    struct eb_bare log;
    const char *socket;
    char topic[64];
};

static inline int64_t due(const struct flow *f, int64_t start, uint64_t i) {
    return start + (int64_t)((double)i * f->gap_ns);
}

static int produce(struct eb_worker *w) {
    const struct flow *f = w->arg;
    static uint8_t value[VALUE_MAX];
    struct eb_bare log = f->log;
    eagre_t *e;
    eagre_producer_t *p;
    int r = f->bus ? eagre_open(f->socket, &e) : EAGRE_OK;
    if (r == EAGRE_OK && f->bus)
        r = eagre_producer_open(e, f->topic, NULL, &p);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "opening the producer", r);
    eagre_message_t m = EAGRE_MESSAGE_INIT;
    m.value = value;
    m.value_len = f->size;
    m.partition = 0;
    eb_barrier(w->area, 2);
    int64_t start = eb_now_ns() + 1000000;
    for (uint64_t i = 0; i < f->count; i++) {
        int64_t at = due(f, start, i);
        while (eb_now_ns() < at)
            eb_cpu_pause();
        memcpy(value, &at, sizeof at);
        if (!f->bus) {
            eb_bare_put(&log, value, (uint32_t)f->size);
        } else if ((r = eagre_produce(p, &m, NULL, NULL)) != EAGRE_OK) {
            return eb_fail_status(w, "eagre_produce", r);
        }
    }
    if (f->bus) {
        eagre_producer_close(p);
        eagre_close(e);
    }
    return 0;
}

static inline void note(struct eb_worker *w, const void *value) {
    int64_t at;
    memcpy(&at, value, sizeof at);
    int64_t latency = eb_now_ns() - at;
    eb_hist_add(&w->hist, latency > 0 ? (uint64_t)latency : 0);
}

static int consume_bare(struct eb_worker *w, const struct flow *f) {
    struct eb_bare log = f->log;
    eb_barrier(w->area, 2);
    for (uint64_t i = 0; i < f->count;) {
        uint32_t n;
        const void *value = eb_bare_get(&log, &n);
        if (value) {
            note(w, value);
            i++;
        }
    }
    return 0;
}

static int consume(struct eb_worker *w) {
    const struct flow *f = w->arg;
    if (!f->bus)
        return consume_bare(w, f);
    static eagre_record_t rec[64];
    eagre_t *e;
    eagre_consumer_t *c;
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    o.auto_offset_reset = EAGRE_RESET_EARLIEST;
    o.wait = f->wait;
    int r = eagre_open(f->socket, &e);
    if (r == EAGRE_OK)
        r = eagre_consumer_open(e, &o, &c);
    if (r == EAGRE_OK)
        r = eagre_consumer_assign(c, f->topic, 0);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "opening the consumer", r);
    eb_barrier(w->area, 2);
    for (uint64_t i = 0; i < f->count;) {
        size_t n;
        r = eagre_consumer_poll(c, rec, 64, 1000, &n);
        if (r != EAGRE_OK)
            return eb_fail_status(w, "eagre_consumer_poll", r);
        for (size_t k = 0; k < n; k++, i++) {
            if ((uint64_t)rec[k].offset != i)
                return eb_fail(w, "record %llu is missing", (unsigned long long)i);
            note(w, rec[k].value);
        }
    }
    eagre_consumer_close(c);
    eagre_close(e);
    return 0;
}

static double rate_of(const struct eb_bench *b) { return b->opt.rate > 0 ? b->opt.rate : 100000; }

static int run(struct eb_bench *b, const void *arg, double *out) {
    struct flow f = *(const struct flow *)arg;
    struct eb_area *area = eb_area_create(2);
    struct eb_ring ring = b->opt.ring.segments ? b->opt.ring : (struct eb_ring){16u << 20, 4};
    int r = -1;
    double rate = rate_of(b);
    f.gap_ns = 1e9 / rate;
    f.count = (uint64_t)(b->opt.seconds * rate);
    /* The bare ring holds all of them: nothing needs to be paced. */
    if (area && !f.bus && eb_bare_open(&f.log, (f.count + 1) * eb_bare_frame(f.size)) == 0) {
        memset(f.log.ring, 0, f.log.size);
        r = eb_pair_run(area, produce, consume, &f, b->opt.cpu, 60000);
        eb_bare_close(&f.log);
    } else if (area && f.bus && eb_topic_create(b, &ring, NULL, f.topic) == 0) {
        f.socket = b->bus->socket;
        eb_bus_settle(b);
        r = eb_pair_run(area, produce, consume, &f, b->opt.cpu, 60000);
        eb_topic_delete(b, f.topic);
        eb_bus_settle(b);
    }
    if (r == 0) {
        const double q[] = {0.5, 0.99, 0.999};
        for (int i = 0; i < 3; i++)
            out[i] = eb_hist_quantile(&area->worker[1].hist, q[i]);
        out[3] = (double)area->worker[1].hist.max;
    }
    eb_area_free(area);
    return r;
}

int eb_openloop(struct eb_bench *b) {
    uint64_t size = b->opt.size < 8 ? 64 : b->opt.size > VALUE_MAX ? VALUE_MAX : b->opt.size;
    char text[160];
    snprintf(text, sizeof text,
             "one way at %.0f records/s of %llu bytes, from when each was due (open loop)",
             rate_of(b), (unsigned long long)size);
    struct eb_comparison c = {
        "openloop",
        text,
        {{"p50", "ns", 0}, {"p99", "ns", 0}, {"p99.9", "ns", 0}, {"max", "ns", 0}},
        {{"bare log, spin", run, &(const struct flow){.size = size}, -1, {{0}}},
         {"bus, EAGRE_WAIT_SPIN",
          run,
          &(const struct flow){.bus = true, .wait = EAGRE_WAIT_SPIN, .size = size},
          0,
          {{0}}},
         {"bus, EAGRE_WAIT_SLEEP",
          run,
          &(const struct flow){.bus = true, .wait = EAGRE_WAIT_SLEEP, .size = size},
          0,
          {{0}}}},
        0};
    return eb_compare(b, &c);
}
