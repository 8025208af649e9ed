/*
 * How long a sleeping consumer takes to run with its record: from before eagre_produce to after
 * eagre_consumer_poll, one record each few milliseconds; against a bare futex wake in the same rhythm.
 */
#include "harness.h"

#include <eagre/consumer.h>
#include <eagre/producer.h>

#include <linux/futex.h>
#include <string.h>
#include <sys/syscall.h>
#include <unistd.h>

#define GAP_NS 5000000

struct alarm {
    bool bus;
    uint64_t count;
    const char *socket;
    char topic[64];
};

static void sleep_until(int64_t at) {
    struct timespec t = {at / 1000000000, at % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) != 0) {}
}

/* ---- bare: cell[0] counts (the futex is its low half), cell[1] is when ---------------------------------------- */

static uint32_t *futex_word(struct eb_worker *w) { return (uint32_t *)(void *)&w->area->cell[0].v; }

static int bare_waker(struct eb_worker *w) {
    const struct alarm *a = w->arg;
    eb_barrier(w->area, 2);
    int64_t at = eb_now_ns();
    for (uint64_t i = 1; i <= a->count; i++) {
        sleep_until(at += GAP_NS);
        atomic_store_explicit(&w->area->cell[1].v, (uint64_t)eb_now_ns(), memory_order_relaxed);
        atomic_store_explicit(&w->area->cell[0].v, i, memory_order_release);
        syscall(SYS_futex, futex_word(w), FUTEX_WAKE, 1, NULL, NULL, 0);
    }
    return 0;
}

static int bare_sleeper(struct eb_worker *w) {
    const struct alarm *a = w->arg;
    eb_barrier(w->area, 2);
    for (uint64_t i = 1; i <= a->count; i++) {
        while (atomic_load_explicit(&w->area->cell[0].v, memory_order_acquire) < i)
            syscall(SYS_futex, futex_word(w), FUTEX_WAIT, (uint32_t)(i - 1), NULL, NULL, 0);
        int64_t sent = (int64_t)atomic_load_explicit(&w->area->cell[1].v, memory_order_relaxed);
        eb_hist_add(&w->hist, (uint64_t)(eb_now_ns() - sent));
    }
    return 0;
}

/* ---- the bus --------------------------------------------------------------------------------------------------- */

static int bus_waker(struct eb_worker *w) {
    const struct alarm *a = w->arg;
    eagre_t *e;
    eagre_producer_t *p;
    int r = eagre_open(a->socket, &e);
    if (r == EAGRE_OK)
        r = eagre_producer_open(e, a->topic, NULL, &p);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "opening the producer", r);
    eb_barrier(w->area, 2);
    int64_t at = eb_now_ns();
    for (uint64_t i = 1; i <= a->count; i++) {
        sleep_until(at += GAP_NS);
        int64_t sent = eb_now_ns();
        eagre_message_t m = EAGRE_MESSAGE_INIT;
        m.value = &sent;
        m.value_len = sizeof sent;
        m.partition = 0;
        r = eagre_produce(p, &m, NULL, NULL);
        if (r != EAGRE_OK)
            return eb_fail_status(w, "eagre_produce", r);
    }
    eagre_producer_close(p);
    eagre_close(e);
    return 0;
}

static int bus_sleeper(struct eb_worker *w) {
    const struct alarm *a = w->arg;
    eagre_t *e;
    eagre_consumer_t *c;
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    o.auto_offset_reset = EAGRE_RESET_EARLIEST;
    o.wait = EAGRE_WAIT_SLEEP;
    int r = eagre_open(a->socket, &e);
    if (r == EAGRE_OK)
        r = eagre_consumer_open(e, &o, &c);
    if (r == EAGRE_OK)
        r = eagre_consumer_assign(c, a->topic, 0);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "opening the consumer", r);
    eb_barrier(w->area, 2);
    for (uint64_t i = 0; i < a->count;) {
        eagre_record_t rec;
        size_t n;
        r = eagre_consumer_poll(c, &rec, 1, -1, &n);
        if (r != EAGRE_OK)
            return eb_fail_status(w, "eagre_consumer_poll", r);
        if (n == 0)
            continue;
        int64_t sent;
        memcpy(&sent, rec.value, sizeof sent);
        eb_hist_add(&w->hist, (uint64_t)(eb_now_ns() - sent));
        i++;
    }
    eagre_consumer_close(c);
    eagre_close(e);
    return 0;
}

static int run(struct eb_bench *b, const void *arg, double *out) {
    struct alarm a = *(const struct alarm *)arg;
    struct eb_area *area = eb_area_create(2);
    struct eb_ring ring = b->opt.ring.segments ? b->opt.ring : (struct eb_ring){1u << 20, 8};
    int r = -1;
    a.count = (uint64_t)(b->opt.seconds * 1e9 / GAP_NS);
    if (area && !a.bus) {
        r = eb_pair_run(area, bare_waker, bare_sleeper, &a, b->opt.cpu, 60000);
    } else if (area && eb_topic_create(b, &ring, NULL, a.topic) == 0) {
        a.socket = b->bus->socket;
        eb_bus_settle(b);
        r = eb_pair_run(area, bus_waker, bus_sleeper, &a, b->opt.cpu, 60000);
        eb_topic_delete(b, a.topic);
    }
    if (r == 0) {
        out[0] = eb_hist_quantile(&area->worker[1].hist, 0.5) / 1e3;
        out[1] = eb_hist_quantile(&area->worker[1].hist, 0.99) / 1e3;
        out[2] = (double)area->worker[1].hist.max / 1e3;
    }
    eb_area_free(area);
    return r;
}

int eb_wake(struct eb_bench *b) {
    struct eb_comparison c = {
        "wake",
        "a sleeping consumer is woken by one record each 5 ms",
        {{"p50", "us", 1}, {"p99", "us", 1}, {"max", "us", 1}},
        {{"bare futex wake", run, &(const struct alarm){.bus = false}, -1, {{0}}},
         {"bus, EAGRE_WAIT_SLEEP",
          run,
          &(const struct alarm){.bus = true},
          0,
          {{'<', false, 0, 1.5}}}},
        0};
    return eb_compare(b, &c);
}
