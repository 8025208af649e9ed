/*
 * Records a second that the members of a share group take from one partition, each acknowledged, by 1, 2 and 4 members
 * at the same time; against a plain consumer of the same records.
 */
#include "harness.h"

#include <eagre/consumer.h>
#include <eagre/group.h>
#include <eagre/producer.h>

#include <string.h>
#include <unistd.h>

#define VALUE 64
#define BATCH 64
#define RECORDS 400000
#define LIMIT_MS 60000

struct share {
    bool plain, explicit_ack, no_crcs;
    unsigned members, max; /* of a poll */
    /* of a run */
    const char *socket, *topic;
    char group[64];
};

/* Between the two barriers: nobody takes anything while the log is filled. */
static int fill(struct eb_worker *w) {
    const struct share *s = w->arg;
    static const char value[VALUE];
    eagre_message_t m[BATCH];
    eagre_t *e;
    eagre_producer_t *p;
    for (int i = 0; i < BATCH; i++)
        m[i] = (eagre_message_t){.value = value, .value_len = VALUE};
    int r = eagre_open(s->socket, &e);
    if (r == EAGRE_OK)
        r = eagre_producer_open(e, s->topic, NULL, &p);
    eb_barrier(w->area, s->members + 1);
    for (unsigned k = 0; r == EAGRE_OK && k < RECORDS / BATCH; k++)
        r = eagre_produce_batch(p, 0, m, BATCH, NULL);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "filling the topic", r);
    eb_barrier(w->area, s->members + 1);
    eb_barrier(w->area, s->members + 1);
    eagre_producer_close(p);
    eagre_close(e);
    return 0;
}

static int join(struct eb_worker *w, eagre_t **e, eagre_consumer_t **c) {
    const struct share *s = w->arg;
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    o.auto_offset_reset = EAGRE_RESET_EARLIEST;
    o.check_crcs = !s->no_crcs;
    o.share_explicit_ack = s->explicit_ack;
    if (!s->plain) {
        o.group_id = s->group;
        o.group_type = EAGRE_GROUP_SHARE;
    }
    int r = eagre_open(s->socket, e);
    if (r == EAGRE_OK)
        r = eagre_consumer_open(*e, &o, c);
    if (r == EAGRE_OK)
        r = s->plain ? eagre_consumer_assign(*c, s->topic, 0)
                     : eagre_consumer_subscribe(*c, &s->topic, 1);
    eagre_record_t record;
    size_t n, parts = 0;
    for (int64_t end = eb_now_ns() + LIMIT_MS * 1000000ll;
         r == EAGRE_OK && parts == 0 && eb_now_ns() < end;) {
        r = eagre_consumer_poll(*c, &record, 1, 1, &n);
        if (r == EAGRE_OK)
            r = eagre_consumer_assignment(*c, NULL, 0, &parts);
    }
    return r == EAGRE_OK ? 0 : eb_fail_status(w, "joining the group", r);
}

static int take(struct eb_worker *w) {
    const struct share *s = w->arg;
    _Atomic uint64_t *all = &w->area->cell[0].v;
    eagre_record_t records[512];
    eagre_t *e;
    eagre_consumer_t *c;
    if (join(w, &e, &c) != 0)
        return 1;
    eb_barrier(w->area, s->members + 1);
    eb_barrier(w->area, s->members + 1);
    int64_t began = eb_now_ns(), last = began;
    uint64_t mine = 0;
    while (atomic_load_explicit(all, memory_order_relaxed) < RECORDS) {
        size_t n;
        int r = eagre_consumer_poll(c, records, s->max, 0, &n);
        for (size_t i = 0; r == EAGRE_OK && s->explicit_ack && i < n; i++)
            r = eagre_consumer_acknowledge(c, s->topic, 0, records[i].offset, EAGRE_ACK_ACCEPT);
        if (r != EAGRE_OK)
            return eb_fail_status(w, "taking records", r);
        if (n == 0)
            continue;
        mine += n;
        last = eb_now_ns();
        atomic_fetch_add_explicit(all, n, memory_order_relaxed);
    }
    eb_barrier(w->area, s->members + 1); /* who closes gives back what it took last */
    if (atomic_load_explicit(all, memory_order_relaxed) > RECORDS)
        return eb_fail(w, "records came twice");
    w->value[0] = (double)(last - began);
    w->value[1] = (double)mine;
    eagre_consumer_close(c);
    eagre_close(e);
    return 0;
}

static int run(struct eb_bench *b, const void *arg, double *out) {
    static unsigned groups;
    struct share s = *(const struct share *)arg;
    struct eb_ring ring = b->opt.ring.segments ? b->opt.ring : (struct eb_ring){64u << 20, 3};
    struct eb_area *a = eb_bus(b) ? eb_area_create(s.members + 1) : NULL;
    char name[64];
    if (a == NULL || eb_topic_create(b, &ring, NULL, name) != 0) {
        eb_area_free(a);
        return -1;
    }
    s.socket = b->bus->socket;
    s.topic = name;
    snprintf(s.group, sizeof s.group, "bench-share-%d-%u", (int)getpid(), groups++);
    eb_bus_settle(b);
    int r = eb_worker_start(a, s.members, fill, &s, -1);
    for (unsigned i = 0; i < s.members && r == 0; i++)
        r = eb_worker_start(a, i, take, &s, s.members <= 2 ? b->opt.cpu[i] : -1);
    if (r == 0)
        r = eb_workers_wait(a, LIMIT_MS);
    double ns = 0, least = RECORDS;
    for (unsigned i = 0; i < s.members && r == 0; i++) {
        ns = a->worker[i].value[0] > ns ? a->worker[i].value[0] : ns;
        least = a->worker[i].value[1] < least ? a->worker[i].value[1] : least;
    }
    out[0] = RECORDS / ns * 1e3;
    out[1] = ns / RECORDS;
    out[2] = least / RECORDS * 100;
    eb_area_free(a);
    eb_topic_delete(b, name);
    return r;
}

int eb_share(struct eb_bench *b) {
#define S(...)                                                                                     \
    &(const struct share) { __VA_ARGS__ }
    return eb_compare(
        b,
        &(struct eb_comparison){
            "share",
            "one partition of 64-byte values read by members of a share group, each record taken and acknowledged; "
            "polls of 64",
            {{"records", "M/s", 2}, {"each", "ns", 1}, {"least share", "%", 0}},
            {{"plain consumer", run, S(.plain = true, .members = 1, .max = 64), -1, {{0}}},
             {"1 member", run, S(.members = 1, .max = 64), 0, {{0}}},
             {"2 members", run, S(.members = 2, .max = 64), 0, {{0}}},
             {"4 members", run, S(.members = 4, .max = 64), 0, {{0}}},
             {"1 member, check.crcs off", run, S(.no_crcs = true, .members = 1, .max = 64), 0, {{0}}},
             {"1 member, explicit", run, S(.explicit_ack = true, .members = 1, .max = 64), 0, {{0}}},
             {"1 member, polls of 1", run, S(.members = 1, .max = 1), 0, {{0}}},
             {"2 members, polls of 1", run, S(.members = 2, .max = 1), 0, {{0}}}},
            0});
#undef S
}
