/*
 * one_partition.h - a topic of one partition, driven step by step in one process: the real daemon's part against
 * the real writer and reader, with pins set by hand.
 */
#ifndef EG_TESTS_ONE_PARTITION_H
#define EG_TESTS_ONE_PARTITION_H

#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "clients.h"
#include "graves.h"
#include "log/check.h"
#include "log/reader.h"
#include "log/rotate.h"
#include "log/writer.h"
#include "partition.h"
#include "slots.h"
#include "sys/clock.h"
#include "sys/errbuf.h"
#include "sys/shm.h"

#define SEGMENT (64u << 10)
#define PAYLOAD 1000u /* so that a segment takes 58 records */

static struct {
    char dir[128];
    struct eg_daemon d;
    struct eg_topic *t;
    struct eg_partition *p;
    struct eg_client producer, consumer;
    struct eg_partition_map map;
    struct eg_writer w;
    int64_t produced;
} x;

static int64_t now; /* the daemon's clock: moved by the tests alone */

/* ---- the world of the writer and the reader ------------------------------------------------------ */

static inline int fetch(struct eg_partition_map *m, uint32_t number) {
    if (number >= EG_BUFFERS_MAX || x.p->buffers[number].fd < 0)
        return eg_error_set(EAGRE_E_INVALID, "no buffer %u", number);
    m->bufs[number] =
        (struct eg_buffer_map){.base = x.p->buffers[number].base, .fd = x.p->buffers[number].fd};
    return EAGRE_OK;
}

static inline int allocate(struct eg_partition_map *m, uint32_t number, uint64_t from, uint64_t to) {
    return eg_shm_allocate(m->bufs[number].fd, from, to - from);
}

static inline void no_wake(struct eg_partition_map *m) { (void)m; }
static inline void no_ring(struct eg_partition_map *m, uint32_t word, uint64_t mask) {
    (void)m;
    (void)word;
    (void)mask;
}

static const struct eg_map_ops ops = {fetch, allocate, no_wake, no_ring, NULL, NULL};

static inline void attach(struct eg_client *c, uint32_t owner, bool producer) {
    memset(c, 0, sizeof(*c));
    c->entry = &x.d.clients->table->entry[owner];
    c->entry->owner = owner;
    c->entry->pid = 1000 + (int)owner;
    c->page = calloc(1, sizeof(struct eg_client_page));
    assert_non_null(c->page);
    eg_store_relaxed(&c->page->cells, EG_CLIENT_PINS);
    assert_int_equal(eg_client_grant_add(x.t, c, producer), EAGRE_OK);
}

static inline void make_topic(const struct eg_change *changes, size_t count) {
    struct eg_change all[16] = {{"segment.bytes", "64K"}, {"storage", "memory"}};
    struct eg_peer peer = {.uid = geteuid(), .sock = -1};
    uint32_t uid;
    for (size_t i = 0; i < count; i++)
        all[i + 2] = changes[i];
    if (eg_topic_create(&x.d, &peer, "t", all, count + 2, &uid) != EAGRE_OK)
        fail_msg("%s", eg_error_text());
    x.t = eg_topic_by_name(&x.d, "t");
    x.p = x.t->part[0];
    assert_null(x.p->buffers); /* nothing yet */
    assert_int_equal(eg_partition_open(&x.d, x.p), EAGRE_OK);
    attach(&x.producer, 1, true);
    attach(&x.consumer, 2, false);
    x.map = (struct eg_partition_map){.ops = &ops,
                                      .bus = x.d.bus,
                                      .topic = x.t->status,
                                      .status = x.p->status,
                                      .ring = x.p->ring,
                                      .waiters = x.p->waiters,
                                      .bells = x.d.bells,
                                      .capacity = eg_partition_capacity(x.p),
                                      .slots = eg_partition_slots(x.p),
                                      .align = 64,
                                      .uid = x.p->uid,
                                      .index = x.p->index,
                                      .number = 0,
                                      .writable = true};
    for (uint32_t n = 0; n < EG_BUFFERS_MAX; n++)
        x.map.bufs[n].fd = -1;
    eg_writer_init(&x.w, &x.map, &x.producer.page->pin[0].pin, 1, true);
    x.produced = x.p->base[x.p->first % x.map.slots];
}

static inline int setup(void **state) {
    bool lost;
    (void)state;
    memset(&x, 0, sizeof(x));
    snprintf(x.dir, sizeof(x.dir), "%s/eg-slots-XXXXXX",
             getenv("TMPDIR") != NULL ? getenv("TMPDIR") : "/tmp");
    assert_non_null(mkdtemp(x.dir));
    eg_log_set_level(EG_LOG_ERROR);
    x.d.config.memory_max = 1 << 30;
    x.d.config.topics_max = 10;
    x.d.config.keeper = EG_KEEPER_NONE;
    strcpy(x.d.config.access_create, "*");
    assert_int_equal(eg_keep_open(&x.d.config, &x.d.keep, &x.d.fresh), EAGRE_OK);
    assert_int_equal(eg_loop_open(&x.d.loop), EAGRE_OK);
    assert_int_equal(eg_meta_open(x.dir, &x.d.meta), EAGRE_OK);
    x.d.bus = calloc(1, sizeof(*x.d.bus));
    x.d.bells = calloc(1, sizeof(*x.d.bells));
    x.d.topics = calloc(1, sizeof(*x.d.topics));
    assert_true(x.d.bus != NULL && x.d.bells != NULL && x.d.topics != NULL);
    assert_int_equal(eg_clients_open(&x.d, &lost), EAGRE_OK);
    now = eg_mono_ns();
    return 0;
}

static inline int teardown(void **state) {
    char command[192];
    struct eg_peer peer = {.uid = geteuid(), .sock = -1};
    (void)state;
    if (x.t != NULL) {
        assert_int_equal(eg_topic_delete(&x.d, &peer, "t"), EAGRE_OK);
        assert_int_equal(x.d.figures.memory_allocated, 0);
        assert_int_equal(x.d.figures.memory_pinned, 0);
        assert_int_equal(x.d.figures.memory_committed, 0);
        assert_int_equal(x.d.topics->extra_bytes, 0);
        assert_non_null(x.d.graves); /* the service's tick would give it back */
        free(x.producer.page);
        free(x.consumer.page);
    }
    eg_graves_finish(&x.d, INT64_MAX);
    free(x.d.topics->list);
    free(x.d.topics->by_uid);
    free(x.d.topics);
    eg_clients_service.stop(&x.d, false);
    eg_meta_close(x.d.meta);
    eg_keep_close(x.d.keep, true);
    eg_loop_close(x.d.loop);
    free(x.d.bus);
    free(x.d.bells);
    snprintf(command, sizeof(command), "rm -rf '%s'", x.dir);
    assert_int_equal(system(command), 0);
    return 0;
}

/* ---- verbs --------------------------------------------------------------------------------------- */

/* A record whose bytes tell its offset. EAGRE_E_WOULD_BLOCK: no free segment. */
static inline int produce(void) {
    struct eg_claim c;
    uint64_t length = eg_frame_length(PAYLOAD, 64);
    int rc = eg_writer_claim(&x.w, length, 1, &c);
    if (rc != EAGRE_OK)
        return rc;
    assert_int_equal(c.offset, x.produced);
    memset(c.frame->payload, (int)(c.offset % 251), PAYLOAD);
    uint64_t word = eg_frame_finish(c.frame, c.pos, c.length, c.index, x.w.seed, 1, 1,
                                    EG_NULL_LENGTH, PAYLOAD, false, PAYLOAD);
    eg_writer_publish(&x.w, &c, word);
    x.produced++;
    return EAGRE_OK;
}

static inline void produce_until_blocked(void) {
    int rc;
    while ((rc = produce()) == EAGRE_OK) {}
    if (rc != EAGRE_E_WOULD_BLOCK)
        fail_msg("produce: %s", eg_error_text());
}

/* One call of the daemon's work. */
static inline int64_t work_once(void) { return eg_slots_work(&x.d, x.p, now); }

/* Until it wants to wait. */
static inline int64_t work(void) {
    int64_t next = 0;
    for (int i = 0; i < 100000; i++)
        if ((next = work_once()) != 0)
            return next;
    fail_msg("the daemon never comes to rest");
    return next;
}

/* Let it fall asleep: what it would do then is done. */
static inline int64_t work_and_sleep(void) {
    work();
    now += 200 * EG_NS_PER_MS;
    return work();
}

static inline void pin(struct eg_client *c, bool producer, uint64_t seq) {
    eg_store_release(&c->page->pin[7].pin, eg_pin_make(producer, x.p->index, seq));
}
static inline void unpin(struct eg_client *c) { eg_store_release(&c->page->pin[7].pin, EG_PIN_NONE); }

static inline uint32_t uses(enum eg_buffer_use use) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < EG_BUFFERS_MAX; i++)
        n += eg_load_relaxed(&x.p->status->buffer[i].use) == use;
    return n;
}

static inline uint64_t word_of(uint64_t seq) {
    return eg_load_acquire(&x.p->ring->slot[seq % x.map.slots].word);
}

/* Everything from the log's start on is there, in order, and the mapping is consistent. */
static inline void check_log(void) {
    struct eg_check_report report;
    struct eg_reader r;
    eagre_record_t records[16];
    size_t n;
    int64_t offset = (int64_t)eg_load_acquire(&x.p->status->log_start);
    eg_check_partition(&x.map, &report);
    if (report.problems != 0)
        fail_msg("%s", report.first);
    eg_reader_init(&r, &x.map, &x.consumer.page->pin[0].pin, true, true, "t", offset);
    do {
        if (eg_reader_poll(&r, records, 16, &n) != EAGRE_OK)
            fail_msg("poll at %lld: %s", (long long)offset, eg_error_text());
        for (size_t i = 0; i < n; i++, offset++) {
            assert_int_equal(records[i].offset, offset);
            assert_int_equal(records[i].value_len, PAYLOAD);
            assert_int_equal(((const uint8_t *)records[i].value)[PAYLOAD - 1], offset % 251);
        }
    } while (n > 0);
    eg_reader_unpin(&r);
    assert_int_equal(offset, x.produced);
}

#endif
