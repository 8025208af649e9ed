/*
 * Start of the daemon with many partitions after it and its keeper were killed: all of them have a log file, of which the
 * whole last segment is checked. Not compared with anything: a limit of seconds.
 */
#include "harness.h"

#include <eagre/consumer.h>
#include <eagre/producer.h>

#include <string.h>

#define RECORDS 16 /* in each partition, of 1 KiB */

struct job {
    const char *socket, *topic;
    unsigned partitions;
};

static int fill(struct eb_worker *w) {
    const struct job *j = w->arg;
    static uint8_t value[1024];
    eagre_message_t m[RECORDS];
    eagre_t *e;
    eagre_producer_t *p;
    for (int i = 0; i < RECORDS; i++)
        m[i] = (eagre_message_t){.value = value, .value_len = sizeof value};
    int r = eagre_open(j->socket, &e);
    if (r == EAGRE_OK)
        r = eagre_producer_open(e, j->topic, NULL, &p);
    for (unsigned k = 0; r == EAGRE_OK && k < j->partitions; k++)
        r = eagre_produce_batch(p, (int32_t)k, m, RECORDS, NULL);
    if (r == EAGRE_OK)
        r = eagre_producer_flush(p, 120000);
    if (r != EAGRE_OK)
        return eb_fail_status(w, "filling the topic", r);
    eagre_producer_close(p);
    eagre_close(e);
    return 0;
}

/* What was durable is there. */
static int check(struct eb_worker *w) {
    const struct job *j = w->arg;
    eagre_t *e;
    eagre_consumer_t *c;
    int r = eagre_open(j->socket, &e);
    if (r == EAGRE_OK)
        r = eagre_consumer_open(e, NULL, &c);
    if (r == EAGRE_OK)
        r = eagre_consumer_assign(c, j->topic, EAGRE_PARTITION_ALL);
    for (unsigned k = 0; r == EAGRE_OK && k < j->partitions; k++) {
        int64_t end = 0;
        r = eagre_consumer_end_offset(c, j->topic, (int32_t)k, &end);
        if (r == EAGRE_OK && end < RECORDS)
            return eb_fail(w, "partition %u ends at %lld, expected %d", k, (long long)end, RECORDS);
    }
    if (r != EAGRE_OK)
        return eb_fail_status(w, "looking at the topic", r);
    eagre_consumer_close(c);
    eagre_close(e);
    return 0;
}

static int work(const struct job *j, eb_worker_fn *fn) {
    struct eb_area *a = eb_area_create(1);
    int r = a ? eb_worker_start(a, 0, fn, j, -1) : -1;
    if (r == 0)
        r = eb_workers_wait(a, 180000);
    eb_area_free(a);
    return r;
}

static int run(struct eb_bench *b, const void *arg, double *out) {
    const struct job *j = arg;
    double ns;
    if (work(j, fill) != 0 || eb_bus_cold_start(b, &ns) != 0 || work(j, check) != 0)
        return -1;
    out[0] = ns / 1e9;
    return 0;
}

int eb_coldstart(struct eb_bench *b) {
    struct eb_ring ring = b->opt.ring.segments ? b->opt.ring : (struct eb_ring){1u << 20, 3};
    char partitions[12], name[64], text[160];
    snprintf(partitions, sizeof partitions, "%u", b->opt.partitions);
    const eagre_setting_t settings[] = {
        {"storage", "disk"}, {"partitions", partitions}, {NULL, NULL}};
    if (eb_topic_create(b, &ring, settings, name) != 0)
        return -1;
    struct job j = {b->bus->socket, name, b->opt.partitions};
    snprintf(text, sizeof text,
             "%u partitions, segments of %llu KiB, memory lost, files in the page cache",
             j.partitions, (unsigned long long)(ring.segment_bytes >> 10));
    struct eb_comparison c = {
        "coldstart", text, {{"ready", "s", 2}}, {{"eagred", run, &j, -1, {{'<', true, 0, 5}}}}, 0};
    int r = eb_compare(b, &c);
    eb_topic_delete(b, name);
    return r;
}
