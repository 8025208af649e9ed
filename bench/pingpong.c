/* Round trip: a record there, a record back, both sides spinning. Closed loop: one is under way at a time. */
#include "barelog.h"
#include "harness.h"

#include <eagre/consumer.h>
#include <eagre/producer.h>

#include <string.h>

#define TRIPS 200000
#define WARM_UP 20000
#define VALUE_MAX 1024

struct game {
    bool bare;
    uint64_t size; /* of a value; 0: the bare ping-pong of one line */
    struct eb_bare log[2];
    const char *socket;
    char topic[2][64]; /* there, back */
};

struct bus_arg {
    const struct game *game;
    double tick;
};

/* ---- bare: each side has a line of its own to write -------------------------------------------------------- */

static int bare_ping(struct eb_worker *w) {
    _Atomic uint64_t *there = &w->area->cell[0].v, *back = &w->area->cell[1].v;
    double tick = *(const double *)w->arg;
    eb_barrier(w->area, 2);
    uint64_t last = eb_ticks();
    for (uint64_t i = 1; i <= WARM_UP + TRIPS; i++) {
        atomic_store_explicit(there, i, memory_order_release);
        while (atomic_load_explicit(back, memory_order_acquire) != i) {}
        uint64_t now = eb_ticks();
        if (i > WARM_UP)
            eb_hist_add(&w->hist, (uint64_t)((double)(now - last) * tick));
        last = now;
    }
    return 0;
}

static int bare_pong(struct eb_worker *w) {
    _Atomic uint64_t *there = &w->area->cell[0].v, *back = &w->area->cell[1].v;
    eb_barrier(w->area, 2);
    for (uint64_t i = 1; i <= WARM_UP + TRIPS; i++) {
        while (atomic_load_explicit(there, memory_order_acquire) != i) {}
        atomic_store_explicit(back, i, memory_order_release);
    }
    return 0;
}

/* The same with values that are copied into two bare logs. */
static int bare_log_play(struct eb_worker *w, int side) {
    const struct bus_arg *a = w->arg;
    struct eb_bare out = a->game->log[side], in = a->game->log[!side];
    uint8_t value[VALUE_MAX] = {0};
    eb_barrier(w->area, 2);
    uint64_t last = eb_ticks();
    for (uint64_t i = 1; i <= WARM_UP + TRIPS; i++) {
        for (int half = 0; half < 2; half++) {
            if (half == side) {
                memcpy(value, &i, 8);
                eb_bare_put(&out, value, (uint32_t)a->game->size);
                continue;
            }
            const uint8_t *got;
            uint32_t n;
            while (!(got = eb_bare_get(&in, &n))) {}
            uint64_t number, end;
            memcpy(&number, got, 8);
            memcpy(&end, got + n - 8, 8); /* its last line, too */
            if (number != i || n != a->game->size)
                return eb_fail(w, "got number %llu, not %llu", (unsigned long long)number,
                               (unsigned long long)i);
            EB_USE(end);
        }
        uint64_t now = eb_ticks();
        if (i > WARM_UP)
            eb_hist_add(&w->hist, (uint64_t)((double)(now - last) * a->tick));
        last = now;
    }
    return 0;
}

static int bare_log_ping(struct eb_worker *w) { return bare_log_play(w, 0); }
static int bare_log_pong(struct eb_worker *w) { return bare_log_play(w, 1); }

/* ---- the bus: two topics ------------------------------------------------------------------------------------- */

struct player {
    eagre_t *e;
    eagre_producer_t *p;
    eagre_consumer_t *c;
};

static int join(struct eb_worker *w, const struct game *g, int side, struct player *me) {
    eagre_producer_options_t po = EAGRE_PRODUCER_OPTIONS_INIT;
    eagre_consumer_options_t co = EAGRE_CONSUMER_OPTIONS_INIT;
    po.wait = co.wait = EAGRE_WAIT_SPIN;
    co.auto_offset_reset = EAGRE_RESET_EARLIEST;
    int r = eagre_open(g->socket, &me->e);
    if (r == EAGRE_OK)
        r = eagre_producer_open(me->e, g->topic[side], &po, &me->p);
    if (r == EAGRE_OK)
        r = eagre_consumer_open(me->e, &co, &me->c);
    if (r == EAGRE_OK)
        r = eagre_consumer_assign(me->c, g->topic[!side], 0);
    return r == EAGRE_OK ? 0 : eb_fail_status(w, "joining the topics", r);
}

static void leave(struct player *me) {
    eagre_consumer_close(me->c);
    eagre_producer_close(me->p);
    eagre_close(me->e);
}

static inline int throw(struct eb_worker * w, struct player *me, uint64_t size, uint64_t number) {
    static uint8_t value[VALUE_MAX];
    eagre_message_t m = EAGRE_MESSAGE_INIT;
    memcpy(value, &number, 8);
    m.value = value;
    m.value_len = size;
    m.partition = 0;
    int r = eagre_produce(me->p, &m, NULL, NULL);
    return r == EAGRE_OK ? 0 : eb_fail_status(w, "eagre_produce", r);
}

static inline int catch (struct eb_worker *w, struct player *me, uint64_t size, uint64_t number) {
    eagre_record_t rec;
    size_t n;
    do {
        int r = eagre_consumer_poll(me->c, &rec, 1, 1000, &n);
        if (r != EAGRE_OK)
            return eb_fail_status(w, "eagre_consumer_poll", r);
    } while (n == 0);
    uint64_t got;
    memcpy(&got, rec.value, 8);
    if (rec.value_len != size || got != number)
        return eb_fail(w, "got number %llu of %u bytes, not %llu", (unsigned long long)got,
                       rec.value_len, (unsigned long long)number);
    return 0;
}

static int bus_ping(struct eb_worker *w) {
    const struct bus_arg *a = w->arg;
    uint64_t size = a->game->size;
    struct player me;
    if (join(w, a->game, 0, &me) != 0)
        return 1;
    eb_barrier(w->area, 2);
    uint64_t last = eb_ticks();
    for (uint64_t i = 1; i <= WARM_UP + TRIPS; i++) {
        if (throw(w, &me, size, i) != 0 || catch (w, &me, size, i) != 0)
            return 1;
        uint64_t now = eb_ticks();
        if (i > WARM_UP)
            eb_hist_add(&w->hist, (uint64_t)((double)(now - last) * a->tick));
        last = now;
    }
    leave(&me);
    return 0;
}

static int bus_pong(struct eb_worker *w) {
    const struct bus_arg *a = w->arg;
    struct player me;
    if (join(w, a->game, 1, &me) != 0)
        return 1;
    eb_barrier(w->area, 2);
    for (uint64_t i = 1; i <= WARM_UP + TRIPS; i++)
        if (catch (w, &me, a->game->size, i) != 0 || throw(w, &me, a->game->size, i) != 0)
            return 1;
    leave(&me);
    return 0;
}

static int run(struct eb_bench *b, const void *arg, double *out) {
    struct game g = *(const struct game *)arg;
    struct eb_area *area = eb_area_create(2);
    struct eb_ring ring = b->opt.ring.segments ? b->opt.ring : (struct eb_ring){1u << 20, 8};
    double tick = eb_tick_ns();
    struct bus_arg a = {&g, tick};
    int r = -1;
    if (area && g.bare && g.size == 0) {
        r = eb_pair_run(area, bare_ping, bare_pong, &tick, b->opt.cpu, 30000);
    } else if (area && g.bare) {
        if (eb_bare_open(&g.log[0], 1 << 20) == 0 && eb_bare_open(&g.log[1], 1 << 20) == 0)
            r = eb_pair_run(area, bare_log_ping, bare_log_pong, &a, b->opt.cpu, 30000);
        eb_bare_close(&g.log[0]);
        eb_bare_close(&g.log[1]);
    } else if (area && eb_topic_create(b, &ring, NULL, g.topic[0]) == 0 &&
               eb_topic_create(b, &ring, NULL, g.topic[1]) == 0) {
        g.socket = b->bus->socket;
        eb_bus_settle(b);
        r = eb_pair_run(area, bus_ping, bus_pong, &a, b->opt.cpu, 30000);
        eb_topic_delete(b, g.topic[0]);
        eb_topic_delete(b, g.topic[1]);
        eb_bus_settle(b);
    }
    if (r == 0) {
        const double q[] = {0.5, 0.99, 0.999};
        for (int i = 0; i < 3; i++)
            out[i] = eb_hist_quantile(&area->worker[0].hist, q[i]);
    }
    eb_area_free(area);
    return r;
}

int eb_pingpong(struct eb_bench *b) {
    uint64_t size = b->opt.size < 8 ? 64 : b->opt.size > VALUE_MAX ? VALUE_MAX : b->opt.size;
    char bare[40], bus[40];
    snprintf(bare, sizeof bare, "bare log, %llu-byte values", (unsigned long long)size);
    snprintf(bus, sizeof bus, "bus, %llu-byte values", (unsigned long long)size);
#define GOALS                                                                                      \
    {                                                                                              \
        {'<', false, 0, 1.6}, { '<', false, 1, 3 }                                                 \
    }
    struct eb_comparison c = {
        "pingpong",
        "round trip through two topics, both sides spin (closed loop), check.crcs on",
        {{"p50", "ns", 0}, {"p99", "ns", 0}, {"p99.9", "ns", 0}},
        {{"bare, one line each way", run, &(const struct game){.bare = true}, -1, {{0}}},
         {"bus, 8-byte values", run, &(const struct game){.size = 8}, 0, GOALS},
         {bare, run, &(const struct game){.bare = true, .size = size}, -1, {{0}}},
         {bus, run, &(const struct game){.size = size}, 2, GOALS}},
        0};
    return eb_compare(b, &c);
}
