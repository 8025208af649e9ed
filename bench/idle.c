/* What nobody's traffic costs: CPU time of the daemon, its keeper and sleeping clients. */
#include "harness.h"

#include <eagre/consumer.h>

struct crowd {
    const char *socket, *topic;
};

static int sleeper(struct eb_worker *w) {
    const struct crowd *k = w->arg;
    eagre_t *e;
    eagre_consumer_t *c;
    int r = eagre_open(k->socket, &e);
    if (r == EAGRE_OK)
        r = eagre_consumer_open(e, NULL, &c);
    if (r == EAGRE_OK)
        r = eagre_consumer_assign(c, k->topic, 0);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "opening the consumer", r);
    eb_barrier(w->area, w->area->count + 1);
    eagre_record_t rec;
    size_t n;
    r = eagre_consumer_poll(c, &rec, 1, -1, &n); /* the parent ends us */
    return eb_fail(w, "poll of an empty topic: %s, %zu records: %s", eagre_status_name(r), n,
                   eagre_error_detail());
}

static int64_t time_of(const struct eb_area *a) {
    int64_t sum = 0;
    for (unsigned i = 0; i < a->count; i++)
        sum += eb_cpu_time_ns(a->worker[i].pid);
    return sum;
}

static void nap(int64_t ns) {
    nanosleep(&(struct timespec){ns / 1000000000, ns % 1000000000}, NULL);
}

static int run(struct eb_bench *b, const void *arg, double *out) {
    char topic[64];
    (void)arg;
    struct eb_ring ring = {1u << 20, 8};
    struct eb_area *a = eb_area_create(b->opt.clients);
    int r = -1;
    if (a && eb_topic_create(b, &ring, NULL, topic) == 0) {
        struct crowd k = {b->bus->socket, topic};
        r = 0;
        for (unsigned i = 0; i < a->count && r == 0; i++)
            r = eb_worker_start(a, i, sleeper, &k, -1);
        if (r == 0) {
            /* The parent is one of the parties, but a failed client would never come. */
            while (atomic_load_explicit(&a->arrived, memory_order_acquire) < a->count) {
                bool failed = false;
                for (unsigned i = 0; i < a->count; i++)
                    failed = failed || a->worker[i].error[0];
                if (failed)
                    break;
                nap(1000000);
            }
            if (atomic_load_explicit(&a->arrived, memory_order_acquire) >= a->count) {
                eb_barrier(a, a->count + 1);
                nap(500000000); /* the daemon's look-around after the last client */
                double span = b->opt.seconds * 3e9;
                int64_t d0 = eb_cpu_time_ns(b->bus->pid), c0 = time_of(a);
                int64_t k0 = b->bus->keeper > 0 ? eb_cpu_time_ns(b->bus->keeper) : 0;
                int64_t t0 = eb_now_ns();
                nap((int64_t)span);
                double per_cent = 100.0 / (double)(eb_now_ns() - t0);
                out[0] = (double)(eb_cpu_time_ns(b->bus->pid) - d0) * per_cent;
                out[1] = (double)((b->bus->keeper > 0 ? eb_cpu_time_ns(b->bus->keeper) : 0) - k0) *
                         per_cent;
                out[2] = (double)(time_of(a) - c0) * per_cent;
                out[3] = out[0] + out[1] + out[2];
            } else {
                r = eb_workers_wait(a, 1000);
            }
        }
        eb_area_free(a);
        a = NULL;
        eb_topic_delete(b, topic);
    }
    eb_area_free(a);
    return r;
}

int eb_idle(struct eb_bench *b) {
    char text[100];
    snprintf(text, sizeof text,
             "CPU use of a daemon and %u sleeping consumers without traffic, %.0f s",
             b->opt.clients, b->opt.seconds * 3);
    struct eb_comparison c = {
        "idle",
        text,
        {{"daemon", "%", 4}, {"keeper", "%", 4}, {"clients", "%", 4}, {"sum", "%", 4}},
        {{"all asleep", run, NULL, -1, {{'<', true, 3, 0.5}}}},
        1};
    return eb_compare(b, &c);
}
