/*
 * Commits a second: asynchronous ones, which are a store, and synchronous ones, which are in the database when they return,
 * of 1, 8 and 64 members at the same time; against a page that is written and flushed.
 */
#include "barefile.h"

#include <eagre/group.h>
#include <eagre/producer.h>

#include <string.h>
#include <unistd.h>

#define RECORDS 64 /* in each partition: so far can be committed */
#define LIMIT_MS 60000
#define PAGE 4096

struct commits {
    bool bare, sync;
    unsigned members;
    /* of a run */
    const char *socket, *topic;
    char group[64];
    double seconds;
};

static int fill(struct eb_worker *w) {
    const struct commits *s = w->arg;
    eagre_message_t m[RECORDS];
    eagre_t *e;
    eagre_producer_t *p;
    for (int i = 0; i < RECORDS; i++)
        m[i] = (eagre_message_t){.value = "x", .value_len = 1};
    int r = eagre_open(s->socket, &e);
    if (r == EAGRE_OK)
        r = eagre_producer_open(e, s->topic, NULL, &p);
    for (unsigned k = 0; r == EAGRE_OK && k < s->members; k++)
        r = eagre_produce_batch(p, (int32_t)k, m, RECORDS, NULL);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "filling the topic", r);
    eagre_producer_close(p);
    eagre_close(e);
    return 0;
}

/* Poll until every member has one partition and has read it. They come and go while members join, and a member that
 * does not poll keeps the others waiting; so all go on until all are there. */
static int read_own(struct eb_worker *w, eagre_consumer_t *c, eagre_topic_partition_t *own) {
    const struct commits *s = w->arg;
    _Atomic uint64_t *ready = &w->area->cell[0].v;
    eagre_record_t records[RECORDS];
    bool mine = false; /* counted in `ready` */
    for (int64_t end = eb_now_ns() + LIMIT_MS * 1000000ll; eb_now_ns() < end;) {
        size_t n, parts;
        int r = eagre_consumer_poll(c, records, RECORDS, 20, &n);
        if (r == EAGRE_OK)
            r = eagre_consumer_assignment(c, own, 1, &parts);
        if (r != EAGRE_OK)
            return eb_fail_status(w, "joining the group", r);
        bool is = parts == 1 && own->offset == RECORDS;
        if (is != mine)
            atomic_fetch_add_explicit(ready, is ? 1 : UINT64_MAX, memory_order_relaxed);
        mine = is;
        if (atomic_load_explicit(ready, memory_order_relaxed) == s->members)
            return 0;
    }
    return eb_fail(w, "a partition a member, read, was not reached in %d s", LIMIT_MS / 1000);
}

static int commit(struct eb_worker *w) {
    const struct commits *s = w->arg;
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    o.group_id = s->group;
    o.auto_offset_reset = EAGRE_RESET_EARLIEST;
    o.enable_auto_commit = 0;
    eagre_t *e;
    eagre_consumer_t *c;
    eagre_topic_partition_t own;
    int r = eagre_open(s->socket, &e);
    if (r == EAGRE_OK)
        r = eagre_consumer_open(e, &o, &c);
    if (r == EAGRE_OK)
        r = eagre_consumer_subscribe(c, &s->topic, 1);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "joining the group", r);
    if (read_own(w, c, &own) != 0)
        return 1;
    char topic[64];
    snprintf(topic, sizeof topic, "%s", own.topic);
    own.topic = topic;
    own.metadata = NULL;
    eb_barrier(w->area, s->members);
    uint64_t count = 0;
    int64_t began = eb_now_ns(), before = began, end = began + (int64_t)(s->seconds * 1e9);
    while (before < end) {
        unsigned batch = s->sync ? 1 : 1000; /* a store is shorter than a look at the clock */
        for (unsigned i = 0; i < batch; i++) {
            own.offset = 1 + (int64_t)(count++ % RECORDS);
            r = s->sync ? eagre_consumer_commit(c, &own, 1, LIMIT_MS)
                        : eagre_consumer_commit_async(c, &own, 1);
            if (r != EAGRE_OK)
                return eb_fail_status(w, "committing", r);
        }
        int64_t now = eb_now_ns();
        eb_hist_add(&w->hist, (uint64_t)(now - before) / batch);
        before = now;
    }
    w->value[0] = (double)count / (double)(before - began) * 1e9;
    eb_barrier(w->area, s->members); /* nobody's leaving is measured */
    eagre_consumer_close(c);
    eagre_close(e);
    return 0;
}

static int forget(struct eb_worker *w) {
    const struct commits *s = w->arg;
    eagre_t *e;
    int r = eagre_open(s->socket, &e);
    if (r == EAGRE_OK)
        r = eagre_group_delete(e, s->group);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "eagre_group_delete", r);
    eagre_close(e);
    return 0;
}

static int work(const struct commits *s, eb_worker_fn *fn) {
    struct eb_area *a = eb_area_create(1);
    int r = a ? eb_worker_start(a, 0, fn, s, -1) : -1;
    if (r == 0)
        r = eb_workers_wait(a, LIMIT_MS);
    eb_area_free(a);
    return r;
}

static int run_members(struct eb_bench *b, struct commits *s, struct eb_area *a, struct eb_hist *h,
                       double *rate) {
    static unsigned groups;
    struct eb_ring ring = b->opt.ring.segments ? b->opt.ring : (struct eb_ring){64u << 10, 3};
    char name[64], count[12];
    snprintf(count, sizeof count, "%u", s->members);
    if (eb_topic_create(b, &ring, (eagre_setting_t[]){{"partitions", count}, {NULL, NULL}}, name) !=
        0)
        return -1;
    s->socket = b->bus->socket;
    s->topic = name;
    snprintf(s->group, sizeof s->group, "bench-commits-%d-%u", (int)getpid(), groups++);
    int r = work(s, fill);
    eb_bus_settle(b);
    for (unsigned i = 0; i < s->members && r == 0; i++)
        r = eb_worker_start(a, i, commit, s, -1);
    if (r == 0)
        r = eb_workers_wait(a, 2 * LIMIT_MS);
    for (unsigned i = 0; i < s->members && r == 0; i++) {
        *rate += a->worker[i].value[0];
        eb_hist_merge(h, &a->worker[i].hist);
    }
    if (r == 0)
        r = work(s, forget);
    eb_topic_delete(b, name);
    return r;
}

static int run_bare(struct eb_bench *b, const struct commits *s, struct eb_area *a,
                    struct eb_hist *h, double *rate) {
    struct eb_barefile f = {.file = 64u << 20, .chunk = PAGE, .flush = PAGE, .seconds = s->seconds};
    eb_barefile_init(b, &f);
    if (eb_worker_start(a, 0, eb_barefile_worker, &f, -1) != 0 || eb_workers_wait(a, LIMIT_MS) != 0)
        return -1;
    *rate = a->worker[0].value[EB_FILE_BYTES] / PAGE / a->worker[0].value[EB_FILE_NS] * 1e9;
    *h = a->worker[0].hist;
    return 0;
}

static int run(struct eb_bench *b, const void *arg, double *out) {
    static struct eb_hist h;
    struct commits s = *(const struct commits *)arg;
    struct eb_area *a = eb_bus(b) ? eb_area_create(s.bare ? 1 : s.members) : NULL;
    double rate = 0;
    s.seconds = b->opt.seconds;
    eb_hist_reset(&h);
    int r = !a ? -1 : s.bare ? run_bare(b, &s, a, &h, &rate) : run_members(b, &s, a, &h, &rate);
    out[0] = rate;
    out[1] = eb_hist_quantile(&h, 0.5) / 1e3;
    out[2] = eb_hist_quantile(&h, 0.99) / 1e3;
    eb_area_free(a);
    return r;
}

int eb_commits(struct eb_bench *b) {
#define C(...)                                                                                     \
    &(const struct commits) { __VA_ARGS__ }
    return eb_compare(
        b,
        &(struct eb_comparison){
            "commits",
            "commits of one partition by each member; bare: a page of 4 KiB, write and fdatasync",
            {{"commits", "/s", 0}, {"p50", "us", 3}, {"p99", "us", 3}},
            {{"async, 1 member", run, C(.members = 1), -1, {{0}}},
             {"bare, a page a flush", run, C(.bare = true), -1, {{0}}},
             {"sync, 1 member", run, C(.sync = true, .members = 1), 1, {{0}}},
             {"sync, 8 members", run, C(.sync = true, .members = 8), 1, {{0}}},
             {"sync, 64 members", run, C(.sync = true, .members = 64), 1, {{0}}}},
            0});
#undef C
}
