/*
 * acks=disk: how many records a second are on disk, and how long each producer waits for its own, against a loop that
 * writes as many bytes as all the waiting producers together and flushes them.
 */
#include "barefile.h"
#include "stream.h"

#include <eagre/producer.h>

#include <unistd.h>

#define VALUE_MAX 65536
#define WARM_NS 3000000000ll /* at most */

struct wait {
    bool bus;
    unsigned producers;
    unsigned records; /* that each sends before it waits for them */
    uint64_t size;
    double seconds;
    int64_t lap; /* records */
    const char *socket;
    pid_t daemon;
    char topic[64];
};

/* ---- producers, each a process ------------------------------------------------------------------------- */

static int produce(struct eb_worker *w) {
    const struct wait *s = w->arg;
    static uint8_t value[VALUE_MAX];
    eagre_t *e;
    eagre_producer_t *p;
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    o.acks = s->records > 1 ? EAGRE_ACKS_MEMORY : EAGRE_ACKS_DISK;
    int r = eagre_open(s->socket, &e);
    if (r == EAGRE_OK)
        r = eagre_producer_open(e, s->topic, &o, &p);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "opening the producer", r);
    eagre_message_t m = EAGRE_MESSAGE_INIT;
    m.value = value;
    m.value_len = s->size;
    m.partition = 0;
    eb_barrier(w->area, s->producers);
    /* The first lap: every process has the whole ring mapped after it. */
    int64_t warm_end = eb_now_ns() + WARM_NS;
    for (int64_t offset = 0; offset < s->lap && eb_now_ns() < warm_end;)
        if ((r = eagre_produce(p, &m, NULL, &offset)) != EAGRE_OK)
            return eb_fail_status(w, "eagre_produce", r);
    int64_t began = eb_now_ns(), before = began, end = began + (int64_t)(s->seconds * 1e9);
    uint64_t count = 0;
    double cpu = (double)eb_cpu_time_ns(getpid()), daemon = (double)eb_cpu_time_ns(s->daemon);
    while (before < end) {
        for (unsigned i = 0; i < s->records; i++)
            if ((r = eagre_produce(p, &m, NULL, NULL)) != EAGRE_OK)
                return eb_fail_status(w, "eagre_produce", r);
        if (s->records > 1 && (r = eagre_producer_flush(p, -1)) != EAGRE_OK)
            return eb_fail_status(w, "eagre_producer_flush", r);
        int64_t now = eb_now_ns();
        eb_hist_add(&w->hist, (uint64_t)(now - before));
        before = now;
        count += s->records;
    }
    w->value[0] = (double)count / (double)(before - began);
    w->value[1] = (double)eb_cpu_time_ns(getpid()) - cpu;
    w->value[2] = (double)count;
    w->value[3] = (double)eb_cpu_time_ns(s->daemon) - daemon;
    eagre_producer_close(p);
    eagre_close(e);
    return 0;
}

static int run_bus(struct eb_bench *b, struct wait *s, struct eb_area *a, struct eb_hist *h,
                   double *rate, double *cpu) {
    static const eagre_setting_t disk[] = {{"storage", "disk"}, {NULL, NULL}};
    struct eb_ring ring = b->opt.ring.segments ? b->opt.ring : (struct eb_ring){16u << 20, 3};
    int r = 0;
    s->lap = (int64_t)(ring.segments * ring.segment_bytes / eb_stream_frame(s->size));
    if (eb_topic_create(b, &ring, disk, s->topic) != 0)
        return -1;
    s->socket = b->bus->socket;
    s->daemon = b->bus->pid;
    eb_bus_settle(b);
    double used = 0, count = 0;
    for (unsigned i = 0; i < s->producers && r == 0; i++)
        r = eb_worker_start(a, i, produce, s, -1);
    if (r == 0)
        r = eb_workers_wait(a, 60000);
    for (unsigned i = 0; i < s->producers && r == 0; i++) {
        *rate += a->worker[i].value[0];
        used += a->worker[i].value[1] + (i == 0 ? a->worker[i].value[3] : 0);
        count += a->worker[i].value[2];
        eb_hist_merge(h, &a->worker[i].hist);
    }
    *cpu = used / count;
    eb_topic_delete(b, s->topic);
    eb_bus_settle(b);
    return r;
}

static int run_bare(struct eb_bench *b, const struct wait *s, struct eb_area *a, struct eb_hist *h,
                    double *rate, double *cpu) {
    uint64_t bytes = s->producers * s->records * eb_stream_frame(s->size);
    struct eb_barefile f = {
        .file = 64u << 20, .chunk = bytes, .flush = bytes, .seconds = s->seconds};
    eb_barefile_init(b, &f);
    if (eb_worker_start(a, 0, eb_barefile_worker, &f, -1) != 0 || eb_workers_wait(a, 60000) != 0)
        return -1;
    double *v = a->worker[0].value;
    *rate = v[EB_FILE_BYTES] / (double)eb_stream_frame(s->size) / v[EB_FILE_NS];
    *h = a->worker[0].hist;
    *cpu = v[EB_FILE_CPU_NS] / v[EB_FILE_BYTES] * (double)eb_stream_frame(s->size);
    return 0;
}

static int run(struct eb_bench *b, const void *arg, double *out) {
    static struct eb_hist h;
    struct wait s = *(const struct wait *)arg;
    struct eb_area *a = eb_bus(b) ? eb_area_create(s.bus ? s.producers : 1) : NULL;
    double rate = 0, cpu = 0;
    s.seconds = b->opt.seconds;
    eb_hist_reset(&h);
    int r = !a      ? -1
            : s.bus ? run_bus(b, &s, a, &h, &rate, &cpu)
                    : run_bare(b, &s, a, &h, &rate, &cpu);
    out[0] = rate * 1e9;
    out[1] = eb_hist_quantile(&h, 0.5) / 1e3;
    out[3] = cpu / 1e3;
    out[2] = eb_hist_quantile(&h, 0.99) / 1e3;
    eb_area_free(a);
    return r;
}

int eb_durable(struct eb_bench *b) {
    uint64_t size = b->opt.size == 0 ? 1024 : b->opt.size > VALUE_MAX ? VALUE_MAX : b->opt.size;
    char text[160];
    snprintf(text, sizeof text,
             "%llu-byte values, acks=disk; bare: as many bytes, one write and one fdatasync",
             (unsigned long long)size);
#define W(...)                                                                                     \
    &(const struct wait) { .size = size, .records = 1, __VA_ARGS__ }
#define W16(...)                                                                                   \
    &(const struct wait) { .size = size, .records = 16, __VA_ARGS__ }
    struct eb_comparison c = {
        "durable",
        text,
        {{"acked", "rec/s", 0}, {"p50", "us", 1}, {"p99", "us", 1}, {"CPU", "us/rec", 1}},
        {{"bare, 1 record a flush", run, W(.producers = 1), -1, {{0}}},
         {"1 producer", run, W(.bus = true, .producers = 1), 0, {{0}}},
         {"bare, 8 records a flush", run, W(.producers = 8), -1, {{0}}},
         {"8 producers", run, W(.bus = true, .producers = 8), 2, {{0}}},
         {"bare, 64 records a flush", run, W(.producers = 64), -1, {{0}}},
         {"64 producers", run, W(.bus = true, .producers = 64), 4, {{'>', false, 0, 0.9}}},
         {"bare, 1024 records a flush", run, W16(.producers = 64), -1, {{0}}},
         {"64 producers, 16 each a wait", run, W16(.bus = true, .producers = 64), 6, {{0}}}},
        0};
    return eb_compare(b, &c);
}
