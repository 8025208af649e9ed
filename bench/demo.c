#include "demo.h"
#include "demo_input.h"
#include "workers.h"

#include <eagre/consumer.h>
#include <eagre/producer.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>

#define PARTITIONS 4
#define PRODUCERS 2
#define CONSUMERS 2
#define ROUNDS 2 /* the file goes through that often, so that every key has several records */
#define POLL_RECORDS 256
#define SILENCE_MS 10000

struct arrival {
    struct eb_tally tally;
    uint32_t by; /* 1 + the consumer who got the key */
};

struct demo {
    const char *socket, *topic;
    double gap_ns; /* between one producer's records; 0: full speed */
    struct eb_input in;
    struct eb_tally *expected;
    struct arrival *arrived; /* shared: each consumer writes its own keys' */
    uint64_t per_partition[PARTITIONS];
};

/* Header "n" of each record. */
struct stamp {
    uint64_t number; /* in the order in which its producer sends */
    int64_t due_ns;  /* monotonic: when it was to be sent */
};

static unsigned producer_of(const struct demo *d, uint32_t key) {
    return (unsigned)(eb_hash(1, d->in.key[key].name, d->in.key[key].len) % PRODUCERS);
}

static int32_t partition_of(const struct demo *d, uint32_t key) {
    return eagre_partition_for_key(d->in.key[key].name, d->in.key[key].len, PARTITIONS);
}

/* What must arrive, from the file alone. */
static void expect(struct demo *d) {
    for (uint64_t round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < d->in.stanzas; i++) {
            const struct eb_stanza *s = &d->in.stanza[i];
            eb_tally_add(&d->expected[s->key], round * d->in.stanzas + i, s->value, s->value_len);
            d->per_partition[partition_of(d, s->key)]++;
        }
}

/* ---- producers ------------------------------------------------------------------------------------------ */

static void sleep_until(int64_t at) {
    struct timespec t = {at / 1000000000, at % 1000000000};
    while (clock_nanosleep(CLOCK_MONOTONIC, TIMER_ABSTIME, &t, NULL) != 0) {}
}

static int send_all(struct eb_worker *w, const struct demo *d, unsigned me, eagre_producer_t *p) {
    int64_t start = eb_now_ns();
    uint64_t sent = 0;
    for (uint64_t round = 0; round < ROUNDS; round++)
        for (size_t i = 0; i < d->in.stanzas; i++) {
            const struct eb_stanza *s = &d->in.stanza[i];
            if (producer_of(d, s->key) != me)
                continue;
            struct stamp stamp = {round * d->in.stanzas + i, 0};
            if (d->gap_ns > 0) {
                stamp.due_ns = start + (int64_t)((double)sent * d->gap_ns);
                if (stamp.due_ns > eb_now_ns())
                    sleep_until(stamp.due_ns);
            }
            eagre_header_t h = {"n", 1, &stamp, sizeof stamp};
            eagre_message_t m = EAGRE_MESSAGE_INIT;
            m.key = d->in.key[s->key].name;
            m.key_len = d->in.key[s->key].len;
            m.value = s->value;
            m.value_len = s->value_len;
            m.headers = &h;
            m.header_count = 1;
            int r = eagre_produce(p, &m, NULL, NULL);
            if (r != EAGRE_OK)
                return eb_fail(w, "eagre_produce: %s: %s", eagre_status_name(r),
                               eagre_error_detail());
            sent++;
        }
    w->value[0] = (double)sent;
    return 0;
}

static int produce(struct eb_worker *w) {
    const struct demo *d = w->arg;
    unsigned me = (unsigned)(w - w->area->worker);
    eagre_t *e;
    eagre_producer_t *p;
    int r = eagre_open(d->socket, &e);
    if (r == EAGRE_OK)
        r = eagre_producer_open(e, d->topic, NULL, &p);
    if (r != EAGRE_OK)
        return eb_fail(w, "producer %u: %s: %s", me, eagre_status_name(r), eagre_error_detail());
    eb_barrier(w->area, PRODUCERS + CONSUMERS);
    r = send_all(w, d, me, p);
    eagre_producer_close(p);
    eagre_close(e);
    return r;
}

/* ---- consumers ------------------------------------------------------------------------------------------ */

static int take(struct eb_worker *w, const struct demo *d, unsigned me, const eagre_record_t *rec,
                uint64_t next[PARTITIONS]) {
    eagre_header_t h;
    struct stamp stamp;
    int r = eagre_record_header(rec, 0, &h);
    if (r != EAGRE_OK || h.value_len != sizeof stamp)
        return eb_fail(w, "partition %d, offset %lld: the header is missing", rec->partition,
                       (long long)rec->offset);
    memcpy(&stamp, h.value, sizeof stamp);
    if ((uint64_t)rec->offset != next[rec->partition])
        return eb_fail(w, "partition %d: offset %lld came, %llu was next", rec->partition,
                       (long long)rec->offset, (unsigned long long)next[rec->partition]);
    next[rec->partition]++;
    uint32_t key = rec->key ? eb_input_find(&d->in, rec->key, rec->key_len) : UINT32_MAX;
    if (key == UINT32_MAX || partition_of(d, key) != rec->partition)
        return eb_fail(w, "partition %d, offset %lld: its key '%.*s' does not belong there",
                       rec->partition, (long long)rec->offset, (int)rec->key_len,
                       rec->key ? (const char *)rec->key : "");
    struct arrival *a = &d->arrived[key];
    if (a->by != 0 && a->by != me + 1)
        return eb_fail(w, "key '%.*s' reached two consumers", (int)rec->key_len,
                       (const char *)rec->key);
    a->by = me + 1;
    eb_tally_add(&a->tally, stamp.number, rec->value, rec->value_len);
    if (d->gap_ns > 0)
        eb_hist_add(&w->hist, (uint64_t)(eb_now_ns() - stamp.due_ns));
    return 0;
}

static int receive_all(struct eb_worker *w, const struct demo *d, unsigned me,
                       eagre_consumer_t *c) {
    static eagre_record_t rec[POLL_RECORDS];
    uint64_t next[PARTITIONS] = {0}, want = 0, got = 0;
    for (int p = (int)me; p < PARTITIONS; p += CONSUMERS)
        want += d->per_partition[p];
    while (got < want) {
        size_t n;
        int r = eagre_consumer_poll(c, rec, POLL_RECORDS, SILENCE_MS, &n);
        if (r != EAGRE_OK)
            return eb_fail(w, "eagre_consumer_poll: %s: %s", eagre_status_name(r),
                           eagre_error_detail());
        if (n == 0)
            return eb_fail(w, "%llu of %llu records came, then nothing for %d s",
                           (unsigned long long)got, (unsigned long long)want, SILENCE_MS / 1000);
        for (size_t i = 0; i < n; i++)
            if (take(w, d, me, &rec[i], next) != 0)
                return 1;
        got += n;
    }
    w->value[1] = (double)eb_now_ns();
    for (int p = (int)me; p < PARTITIONS; p += CONSUMERS) {
        int64_t end;
        int r = eagre_consumer_end_offset(c, d->topic, p, &end);
        if (r != EAGRE_OK || (uint64_t)end != d->per_partition[p])
            return eb_fail(
                w, "partition %d ends at %lld, not at %llu: there are more records than were sent",
                p, (long long)end, (unsigned long long)d->per_partition[p]);
    }
    w->value[0] = (double)got;
    return 0;
}

static int consume(struct eb_worker *w) {
    const struct demo *d = w->arg;
    unsigned me = (unsigned)(w - w->area->worker) - PRODUCERS;
    eagre_t *e;
    eagre_consumer_t *c;
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    o.auto_offset_reset = EAGRE_RESET_EARLIEST;
    int r = eagre_open(d->socket, &e);
    if (r == EAGRE_OK)
        r = eagre_consumer_open(e, &o, &c);
    for (int p = (int)me; p < PARTITIONS && r == EAGRE_OK; p += CONSUMERS)
        r = eagre_consumer_assign(c, d->topic, p);
    if (r != EAGRE_OK)
        return eb_fail(w, "consumer %u: %s: %s", me, eagre_status_name(r), eagre_error_detail());
    eb_barrier(w->area, PRODUCERS + CONSUMERS);
    w->value[2] = (double)eb_now_ns();
    r = receive_all(w, d, me, c);
    eagre_consumer_close(c);
    eagre_close(e);
    return r;
}

/* ---- the whole ------------------------------------------------------------------------------------------- */

/* Number of keys whose records did not all arrive once and in order. */
static size_t compare(const struct demo *d) {
    size_t wrong = 0;
    for (size_t k = 0; k < d->in.keys; k++) {
        const struct eb_tally *want = &d->expected[k], *got = &d->arrived[k].tally;
        if (want->count == got->count && want->chain == got->chain)
            continue;
        if (wrong++ < 5)
            fprintf(stderr,
                    "eagre-bench: key '%.*s': %llu records with checksum %016llx arrived, %llu "
                    "with %016llx were sent\n",
                    (int)d->in.key[k].len, d->in.key[k].name, (unsigned long long)got->count,
                    (unsigned long long)got->chain, (unsigned long long)want->count,
                    (unsigned long long)want->chain);
    }
    return wrong;
}

static void report(const struct demo *d, const struct eb_area *a) {
    double records = 0, end = 0, start = a->worker[PRODUCERS].value[2];
    uint64_t bytes = 0;
    static struct eb_hist all;
    for (unsigned i = PRODUCERS; i < a->count; i++) {
        const struct eb_worker *w = &a->worker[i];
        records += w->value[0];
        end = w->value[1] > end ? w->value[1] : end;
        start = w->value[2] < start ? w->value[2] : start;
        eb_hist_merge(&all, &w->hist);
    }
    for (size_t i = 0; i < d->in.stanzas; i++)
        bytes += ROUNDS * (uint64_t)d->in.stanza[i].value_len;
    double seconds = (end - start) / 1e9;
    printf("%.0f records of %zu keys (%.1f MB) in %.3f s: %.0f records/s, %.1f MB/s\n", records,
           d->in.keys, (double)bytes / 1e6, seconds, records / seconds,
           (double)bytes / 1e6 / seconds);
    if (all.count)
        printf("latency from when each was due: p50 %.1f us, p99 %.1f us, p99.9 %.1f us, max %.1f "
               "us\n",
               eb_hist_quantile(&all, 0.5) / 1e3, eb_hist_quantile(&all, 0.99) / 1e3,
               eb_hist_quantile(&all, 0.999) / 1e3, (double)all.max / 1e3);
    uint64_t sum = 0;
    for (size_t k = 0; k < d->in.keys; k++)
        sum ^= eb_hash(d->arrived[k].tally.chain, d->in.key[k].name, d->in.key[k].len);
    printf("every record arrived exactly once and in order within its key; checksum %016llx equals "
           "the input's\n",
           (unsigned long long)sum);
}

int eb_demo_main(int argc, char **argv) {
    static struct demo d;
    if (argc < 4) {
        fprintf(stderr, "usage: eagre-bench demo SOCKET TOPIC FILE [RECORDS-A-SECOND]\n");
        return 2;
    }
    d.socket = argv[1];
    d.topic = argv[2];
    if (argc > 4 && atof(argv[4]) > 0)
        d.gap_ns = 1e9 * PRODUCERS / atof(argv[4]);
    if (eb_input_read(&d.in, argv[3]) != 0)
        return 1;
    d.expected = calloc(d.in.keys, sizeof *d.expected);
    size_t bytes = d.in.keys * sizeof *d.arrived;
    d.arrived = mmap(NULL, bytes, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    struct eb_area *a = eb_area_create(PRODUCERS + CONSUMERS);
    if (!d.expected || d.arrived == MAP_FAILED || !a) {
        fprintf(stderr, "eagre-bench: no memory\n");
        return 1;
    }
    expect(&d);
    int r = 0;
    for (unsigned i = 0; i < a->count && r == 0; i++)
        r = eb_worker_start(a, i, i < PRODUCERS ? produce : consume, &d, -1);
    if (r == 0)
        r = eb_workers_wait(a, 60000);
    size_t wrong = r == 0 ? compare(&d) : 0;
    if (wrong)
        fprintf(stderr, "eagre-bench: %zu of %zu keys are not as they were sent\n", wrong,
                d.in.keys);
    else if (r == 0)
        report(&d, a);
    eb_area_free(a);
    return r == 0 && wrong == 0 ? 0 : 1;
}
