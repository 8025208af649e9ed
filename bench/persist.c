/*
 * storage=disk, acks=memory: how many bytes a second one producer brings to the disk when it does not wait for it,
 * against a program that writes the same bytes to files of the same size with as many flushes; and how long the producer
 * is kept when the disk is not the limit, against storage=memory.
 */
#include "barefile.h"
#include "stream.h"

#include <eagre/producer.h>

#define FLUSH_BYTES (16u << 20) /* the standard of flush.bytes */
#define CHUNK (1u << 20)
#define VALUE_MAX 65536

struct persist {
    bool bus, disk;
    uint64_t size, count;
    uint64_t lap;  /* records before those that count, so that the ring's memory has been used */
    double gap_ns; /* 0: as fast as it can */
    const char *socket;
    char topic[64];
};

static int produce(struct eb_worker *w) {
    const struct persist *s = w->arg;
    static uint8_t value[VALUE_MAX];
    eagre_t *e;
    eagre_producer_t *p;
    int r = eagre_open(s->socket, &e);
    if (r == EAGRE_OK)
        r = eagre_producer_open(e, s->topic, NULL, &p);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "opening the producer", r);
    eagre_message_t m = EAGRE_MESSAGE_INIT;
    m.value = value;
    m.value_len = s->size;
    m.partition = 0;
    for (uint64_t i = 0; i < s->lap && r == EAGRE_OK; i++)
        r = eagre_produce(p, &m, NULL, NULL);
    if (r == EAGRE_OK && s->disk)
        r = eagre_producer_flush(p, 60000);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "the first lap", r);
    int64_t began = eb_now_ns();
    for (uint64_t i = 0; i < s->count; i++) {
        int64_t due = began + (int64_t)((double)i * s->gap_ns);
        while (s->gap_ns > 0 && eb_now_ns() < due)
            eb_cpu_pause();
        if ((r = eagre_produce(p, &m, NULL, NULL)) != EAGRE_OK)
            return eb_fail_status(w, "eagre_produce", r);
        if (s->gap_ns > 0)
            eb_hist_add(&w->hist, (uint64_t)(eb_now_ns() - due));
    }
    if (s->disk && (r = eagre_producer_flush(p, 60000)) != EAGRE_OK)
        return eb_fail_status(w, "eagre_producer_flush", r);
    w->value[EB_FILE_NS] = (double)(eb_now_ns() - began);
    w->value[EB_FILE_BYTES] = (double)(s->count * eb_stream_frame(s->size));
    eagre_producer_close(p);
    eagre_close(e);
    return 0;
}

static struct eb_ring ring_of(const struct eb_bench *b) {
    return b->opt.ring.segments ? b->opt.ring : (struct eb_ring){64u << 20, 3};
}

static int run_bus(struct eb_bench *b, struct persist *s, struct eb_area *a) {
    static const eagre_setting_t disk[] = {{"storage", "disk"}, {NULL, NULL}};
    struct eb_ring ring = ring_of(b);
    s->lap = ring.segments * ring.segment_bytes / eb_stream_frame(s->size);
    if (eb_topic_create(b, &ring, s->disk ? disk : NULL, s->topic) != 0)
        return -1;
    s->socket = b->bus->socket;
    eb_bus_settle(b);
    int r = eb_worker_start(a, 0, produce, s, b->opt.cpu[0]);
    if (r == 0)
        r = eb_workers_wait(a, 120000);
    eb_topic_delete(b, s->topic);
    eb_bus_settle(b);
    return r;
}

static uint64_t size_of(const struct eb_bench *b) {
    return b->opt.size == 0 ? 1024 : b->opt.size > VALUE_MAX ? VALUE_MAX : b->opt.size;
}

/* ---- as fast as it goes ------------------------------------------------------------------------------------ */

static int run_fast(struct eb_bench *b, const void *arg, double *out) {
    struct persist s = *(const struct persist *)arg;
    struct eb_area *a = eb_bus(b) ? eb_area_create(1) : NULL;
    int r = -1;
    s.count = b->opt.data / eb_stream_frame(s.size);
    if (a && s.bus) {
        r = run_bus(b, &s, a);
    } else if (a) {
        struct eb_barefile f = {
            .file = ring_of(b).segment_bytes,
            .chunk = CHUNK < ring_of(b).segment_bytes ? CHUNK : ring_of(b).segment_bytes,
            .flush = FLUSH_BYTES,
            .total = b->opt.data};
        eb_barefile_init(b, &f);
        r = eb_worker_start(a, 0, eb_barefile_worker, &f, b->opt.cpu[0]);
        if (r == 0)
            r = eb_workers_wait(a, 120000);
    }
    if (r == 0) {
        out[0] = a->worker[0].value[EB_FILE_BYTES] / a->worker[0].value[EB_FILE_NS] * 1e3;
        out[1] = out[0] / (double)eb_stream_frame(s.size);
    }
    eb_area_free(a);
    return r;
}

int eb_persist(struct eb_bench *b) {
    uint64_t size = size_of(b);
    char text[160];
    snprintf(text, sizeof text,
             "%llu-byte values, %llu MiB, until all of it is on disk; flushed every %u MiB",
             (unsigned long long)size, (unsigned long long)(b->opt.data >> 20), FLUSH_BYTES >> 20);
    struct eb_comparison c = {
        "persist",
        text,
        {{"written", "MB/s", 0}, {"records", "M/s", 2}},
        {{"bare writer", run_fast, &(const struct persist){.size = size}, -1, {{0}}},
         {"storage=disk, acks=memory",
          run_fast,
          &(const struct persist){.bus = true, .disk = true, .size = size},
          0,
          {{'>', false, 0, 0.8}}}},
        0};
    return eb_compare(b, &c);
}

/* ---- at a rate ------------------------------------------------------------------------------------------------ */

static double rate_of(const struct eb_bench *b) { return b->opt.rate > 0 ? b->opt.rate : 20000; }

static int run_rate(struct eb_bench *b, const void *arg, double *out) {
    struct persist s = *(const struct persist *)arg;
    struct eb_area *a = eb_bus(b) ? eb_area_create(1) : NULL;
    s.gap_ns = 1e9 / rate_of(b);
    s.count = (uint64_t)(3 * b->opt.seconds * rate_of(b)); /* flush.ms is a second */
    int r = a ? run_bus(b, &s, a) : -1;
    if (r == 0) {
        const double q[] = {0.5, 0.99, 0.999};
        for (int i = 0; i < 3; i++)
            out[i] = eb_hist_quantile(&a->worker[0].hist, q[i]);
        out[3] = (double)a->worker[0].hist.max;
    }
    eb_area_free(a);
    return r;
}

int eb_flush(struct eb_bench *b) {
    uint64_t size = size_of(b);
    char text[160];
    snprintf(text, sizeof text,
             "one producer, %.0f records/s of %llu bytes, from when each was due until it was "
             "published (open loop)",
             rate_of(b), (unsigned long long)size);
    struct eb_comparison c = {
        "flush",
        text,
        {{"p50", "ns", 0}, {"p99", "ns", 0}, {"p99.9", "ns", 0}, {"max", "ns", 0}},
        {{"storage=memory",
          run_rate,
          &(const struct persist){.bus = true, .size = size},
          -1,
          {{0}}},
         {"storage=disk",
          run_rate,
          &(const struct persist){.bus = true, .disk = true, .size = size},
          0,
          {{'<', false, 2, 1.5}}}},
        0};
    return eb_compare(b, &c);
}
