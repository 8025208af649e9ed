/*
 * The ring of one partition, driven step by step in one process: the real daemon's part against the
 * real writer and reader, with pins set by hand.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <unistd.h>

#include "clients.h"
#include "log/check.h"
#include "log/reader.h"
#include "log/rotate.h"
#include "log/writer.h"
#include "partition.h"
#include "sigbus.h"
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

static int fetch(struct eg_partition_map *m, uint32_t number) {
    if (number >= EG_BUFFERS_MAX || x.p->buffers[number].fd < 0)
        return eg_error_set(EAGRE_E_INVALID, "no buffer %u", number);
    m->bufs[number] =
        (struct eg_buffer_map){.base = x.p->buffers[number].base, .fd = x.p->buffers[number].fd};
    return EAGRE_OK;
}

static int allocate(struct eg_partition_map *m, uint32_t number, uint64_t from, uint64_t to) {
    return eg_shm_allocate(m->bufs[number].fd, from, to - from);
}

static void no_wake(struct eg_partition_map *m) { (void)m; }
static void no_ring(struct eg_partition_map *m, uint32_t word, uint64_t mask) {
    (void)m;
    (void)word;
    (void)mask;
}

static const struct eg_map_ops ops = {fetch, allocate, no_wake, no_ring};

static void attach(struct eg_client *c, uint32_t owner, bool producer) {
    memset(c, 0, sizeof(*c));
    c->entry = &x.d.clients->table->entry[owner];
    c->entry->owner = owner;
    c->entry->pid = 1000 + (int)owner;
    c->page = calloc(1, sizeof(struct eg_client_page));
    assert_non_null(c->page);
    assert_int_equal(eg_client_grant_add(x.t, c, producer), EAGRE_OK);
}

static void make_topic(const struct eg_change *changes, size_t count) {
    struct eg_change all[16] = {{"segment.bytes", "64K"}};
    struct eg_peer peer = {.uid = geteuid(), .sock = -1};
    uint32_t uid;
    for (size_t i = 0; i < count; i++)
        all[i + 1] = changes[i];
    if (eg_topic_create(&x.d, &peer, "t", all, count + 1, &uid) != EAGRE_OK)
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
                                      .capacity = SEGMENT,
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

static int setup(void **state) {
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

static int teardown(void **state) {
    char command[192];
    struct eg_peer peer = {.uid = geteuid(), .sock = -1};
    (void)state;
    if (x.t != NULL) {
        assert_int_equal(eg_topic_delete(&x.d, &peer, "t"), EAGRE_OK);
        assert_int_equal(x.d.figures.memory_allocated, 0);
        assert_int_equal(x.d.figures.memory_pinned, 0);
        assert_int_equal(x.d.figures.memory_committed, 0);
        assert_int_equal(x.d.topics->extra_bytes, 0);
        free(x.producer.page);
        free(x.consumer.page);
    }
    free(x.d.topics->list);
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
static int produce(void) {
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

static void produce_until_blocked(void) {
    int rc;
    while ((rc = produce()) == EAGRE_OK) {}
    if (rc != EAGRE_E_WOULD_BLOCK)
        fail_msg("produce: %s", eg_error_text());
}

/* One call of the daemon's work. */
static int64_t work_once(void) { return eg_slots_work(&x.d, x.p, now); }

/* Until it wants to wait. */
static int64_t work(void) {
    int64_t next = 0;
    for (int i = 0; i < 100000; i++)
        if ((next = work_once()) != 0)
            return next;
    fail_msg("the daemon never comes to rest");
    return next;
}

/* Let it fall asleep: what it would do then is done. */
static int64_t work_and_sleep(void) {
    work();
    now += 200 * EG_NS_PER_MS;
    return work();
}

static void pin(struct eg_client *c, bool producer, uint64_t seq) {
    eg_store_release(&c->page->pin[7].pin, eg_pin_make(producer, x.p->index, seq));
}
static void unpin(struct eg_client *c) { eg_store_release(&c->page->pin[7].pin, EG_PIN_NONE); }

static uint32_t uses(enum eg_buffer_use use) {
    uint32_t n = 0;
    for (uint32_t i = 0; i < EG_BUFFERS_MAX; i++)
        n += eg_load_relaxed(&x.p->status->buffer[i].use) == use;
    return n;
}

static uint64_t word_of(uint64_t seq) {
    return eg_load_acquire(&x.p->ring->slot[seq % x.map.slots].word);
}

/* Everything from the log's start on is there, in order, and the mapping is consistent. */
static void check_log(void) {
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

/* ---- tests --------------------------------------------------------------------------------------- */

static void slots_are_reused_with_their_buffers(void **state) {
    (void)state;
    make_topic(NULL, 0);
    assert_int_equal(work_and_sleep(), INT64_MAX);
    uint64_t idle = x.d.figures.memory_allocated;
    assert_int_equal(idle, 3 * EG_PAGE); /* an unused ring costs its header pages */
    for (int lap = 0; lap < 40; lap++) {
        produce_until_blocked();
        work();
        check_log();
        assert_int_equal(x.p->first, x.p->active - 1); /* one slot is READY ahead */
        assert_int_equal(eg_slot_state(word_of(x.p->active + 1)), EG_SLOT_READY);
    }
    assert_int_equal(uses(EG_BUFFER_SLOT), 3);
    assert_int_equal(uses(EG_BUFFER_NONE), EG_BUFFERS_MAX - 3);
    assert_int_equal(x.d.figures.memory_allocated, 3 * SEGMENT);
    assert_true(eg_load_acquire(&x.p->status->log_start) > 0);
    assert_int_equal(eg_partition_end(x.p), x.produced);
    assert_int_equal(work_and_sleep(), INT64_MAX);
}

static void a_reused_slot_is_clean(void **state) {
    (void)state;
    make_topic(NULL, 0);
    produce_until_blocked();
    work();
    uint64_t next = x.p->active + 1;
    uint32_t n = eg_slot_buffer(word_of(next));
    const uint8_t *bytes = x.p->buffers[n].base;
    for (size_t i = EG_SEGMENT_DATA; i < SEGMENT; i++)
        assert_int_equal(bytes[i], 0);
    assert_int_equal(eg_segment_check(eg_buffer_header(x.p, n), x.p->uid, next, SEGMENT), EAGRE_OK);
    assert_int_equal(eg_load_relaxed(&eg_buffer_header(x.p, n)->base), EG_BASE_UNSET);
    assert_int_equal(eg_load_relaxed(&eg_buffer_header(x.p, n)->hint),
                     eg_hint_make(EG_SEGMENT_DATA, 0));
}

static void a_readers_segment_does_not_change_and_nobody_waits(void **state) {
    static uint8_t before[SEGMENT];
    (void)state;
    make_topic(NULL, 0);
    uint32_t n = eg_slot_buffer(word_of(0));
    pin(&x.consumer, false, 0);
    produce_until_blocked(); /* segments 0, 1, 2 */
    memcpy(before, x.p->buffers[n].base, SEGMENT);
    for (int lap = 0; lap < 20; lap++) {
        work();
        assert_int_equal(produce(), EAGRE_OK);
        produce_until_blocked();
        check_log();
    }
    assert_memory_equal(before, x.p->buffers[n].base, SEGMENT);
    assert_int_equal(uses(EG_BUFFER_DETACHED), 1);
    assert_int_equal(uses(EG_BUFFER_SLOT), 3);
    assert_int_equal(x.d.figures.memory_pinned, SEGMENT);
    assert_int_equal(x.t->pinned_bytes, SEGMENT);
    unpin(&x.consumer);
    now += 2 * EG_NS_PER_MS;
    work();
    assert_int_equal(uses(EG_BUFFER_DETACHED), 0);
    assert_int_equal(uses(EG_BUFFER_SPARE), 1);
    for (size_t i = EG_SEGMENT_DATA; i < SEGMENT; i++)
        assert_int_equal(x.p->buffers[n].base[i], 0);
    assert_int_equal(work_and_sleep(), INT64_MAX);
    assert_int_equal(uses(EG_BUFFER_SPARE), 0);
    assert_int_equal(x.p->buffers[n].fd, -1);
    assert_int_equal(x.d.topics->extra_bytes, 0);
    check_log();
}

static void a_spare_buffer_is_used_again(void **state) {
    (void)state;
    make_topic(NULL, 0);
    for (int lap = 0; lap < 10; lap++) {
        produce_until_blocked();
        pin(&x.consumer, false, x.p->first);
        work();
        assert_int_equal(uses(EG_BUFFER_DETACHED), 1);
        unpin(&x.consumer);
        now += 2 * EG_NS_PER_MS;
        work();
        assert_int_equal(uses(EG_BUFFER_SPARE), 1);
        assert_int_equal(uses(EG_BUFFER_SLOT), 3);
        check_log();
    }
}

static void beyond_the_bound_producers_wait_and_the_pinning_pid_is_named(void **state) {
    const struct eg_change none = {"pinned.bytes.max", "0"};
    (void)state;
    make_topic(&none, 1);
    pin(&x.consumer, false, 0);
    produce_until_blocked();
    int64_t next = work();
    assert_true(next > now && next <= now + 10 * EG_NS_PER_MS); /* it looks again soon */
    assert_int_equal(eg_slot_state(word_of(0)), EG_SLOT_RETIRING);
    assert_int_equal(eg_load_relaxed(&x.p->status->blocked_pid[0]), 1002);
    assert_int_equal(eg_load_relaxed(&x.p->status->blocked_pid[1]), 0);
    assert_int_equal(produce(), EAGRE_E_WOULD_BLOCK);
    uint32_t room = eg_load_relaxed(&x.p->status->room);
    unpin(&x.consumer);
    work();
    assert_int_equal(eg_load_relaxed(&x.p->status->blocked_pid[0]), 0);
    assert_true(eg_load_relaxed(&x.p->status->room) > room);
    assert_int_equal(produce(), EAGRE_OK);
    check_log();
}

static void memory_max_bounds_what_pins_hold(void **state) {
    (void)state;
    make_topic(NULL, 0);
    x.d.config.memory_max = x.d.figures.memory_committed + SEGMENT - 1;
    pin(&x.consumer, false, 0);
    produce_until_blocked();
    work();
    assert_int_equal(uses(EG_BUFFER_DETACHED), 0);
    assert_int_equal(eg_load_relaxed(&x.p->status->blocked_pid[0]), 1002);
    x.d.config.memory_max += 1;
    work();
    assert_int_equal(uses(EG_BUFFER_DETACHED), 1);
    assert_int_equal(eg_load_relaxed(&x.p->status->blocked_pid[0]), 0);
    assert_int_equal(produce(), EAGRE_OK);
}

static void pins_add_up_to_the_bound(void **state) {
    (void)state;
    make_topic(NULL, 0); /* pinned.bytes.max: two segments */
    for (uint64_t lap = 0; lap < 2; lap++) {
        eg_store_release(&x.consumer.page->pin[10 + lap].pin,
                         eg_pin_make(false, x.p->index, x.p->first));
        produce_until_blocked();
        work();
        assert_int_equal(uses(EG_BUFFER_DETACHED), lap + 1);
    }
    eg_store_release(&x.consumer.page->pin[12].pin, eg_pin_make(false, x.p->index, x.p->first));
    produce_until_blocked();
    work();
    assert_int_equal(uses(EG_BUFFER_DETACHED), 2);
    assert_int_equal(eg_load_relaxed(&x.p->status->blocked_pid[0]), 1002);
    eg_store_release(&x.consumer.page->pin[10].pin, EG_PIN_NONE);
    now += 2 * EG_NS_PER_MS;
    work();
    assert_int_equal(uses(EG_BUFFER_DETACHED),
                     2); /* the first one was cleaned and took the third's place */
    assert_int_equal(produce(), EAGRE_OK);
    check_log();
}

/* A producer on seq-1 may be about to set the base of seq: it counts. A reader there does not. */
static void a_producer_on_the_segment_before_counts(void **state) {
    const struct eg_change none = {"pinned.bytes.max", "0"};
    (void)state;
    make_topic(&none, 1);
    produce_until_blocked();
    work();
    produce_until_blocked();
    uint64_t oldest = x.p->first;
    assert_true(oldest > 0);
    pin(&x.producer, true, oldest - 1);
    work();
    assert_int_equal(eg_load_relaxed(&x.p->status->blocked_pid[0]), 1001);
    pin(&x.producer, false, oldest - 1);
    work();
    assert_int_equal(eg_load_relaxed(&x.p->status->blocked_pid[0]), 0);
    assert_int_equal(produce(), EAGRE_OK);
    unpin(&x.producer);
}

/* A reader that pinned and looked before the slot was marked, and is seen only by the scan. */
static void pin_when_marked(const char *name, void *arg) {
    (void)arg;
    if (strcmp(name, "retire.marked") == 0)
        pin(&x.consumer, false, x.p->first);
}

static void the_scan_comes_after_the_mark(void **state) {
    (void)state;
#ifndef EG_FAULTPOINTS
    skip();
#endif
    make_topic(NULL, 0);
    produce_until_blocked();
    eg_fault_set_hook(pin_when_marked, NULL);
    work();
    eg_fault_set_hook(NULL, NULL);
    assert_int_equal(uses(EG_BUFFER_DETACHED), 1);
    unpin(&x.consumer);
}

/* Ticks until nothing happens. */
static void tick_until_quiet(void) {
    eg_slots_wake(&x.d, x.p);
    for (int i = 0; x.p->is_awake; i++) {
        assert_true(i < 10000);
        now += EG_NS_PER_S;
        eg_slots_service.tick(&x.d, now);
    }
}

static void open_a_segment(const char *name, void *ctx) {
    int *left = ctx;
    if (strcmp(name, "unwatch.before") != 0 || --*left != 0)
        return;
    uint64_t active = eg_load_relaxed(&x.p->ring->active);
    while (eg_load_relaxed(&x.p->ring->active) == active)
        assert_int_equal(produce(), EAGRE_OK);
}

/* A quiet partition is not looked at: its producers ring. Who just did not, because we still watched, is seen. */
static void who_does_not_watch_looks_once_more(void **state) {
    int left = 1;
    (void)state;
#ifndef EG_FAULTPOINTS
    skip();
#endif
    make_topic(NULL, 0);
    tick_until_quiet();
    assert_int_equal(eg_load_relaxed(&x.p->ring->watched), 0);
    eg_slots_wake(&x.d, x.p);
    assert_int_equal(eg_load_relaxed(&x.p->ring->watched), 1);
    eg_fault_set_hook(open_a_segment, &left);
    while (left > 0) {
        now += EG_NS_PER_S;
        eg_slots_service.tick(&x.d, now);
    }
    eg_fault_set_hook(NULL, NULL);
    assert_true(x.p->is_awake);
    assert_int_equal(eg_load_relaxed(&x.p->ring->watched), 1);
    tick_until_quiet();
    assert_int_equal(x.p->active, 1);

    /* The bell: looked at is whatever a producer says something of. */
    x.t->bell.ready(&x.d, &x.t->bell, EPOLLIN);
    assert_false(x.p->is_awake);
    eg_store_relaxed(&x.p->ring->watched, 1);
    x.t->bell.ready(&x.d, &x.t->bell, EPOLLIN);
    assert_true(x.p->is_awake);
    tick_until_quiet();
}

/* Between two looks: the loop must not sleep over a segment that was opened meanwhile. */
static void the_last_look_before_sleep_sees_a_new_segment(void **state) {
    (void)state;
    make_topic(NULL, 0);
    eg_slots_wake(&x.d, x.p);
    eg_slots_service.tick(&x.d, eg_mono_ns());
    assert_false(eg_slots_moved(&x.d));
    uint64_t active = eg_load_relaxed(&x.p->ring->active);
    while (eg_load_relaxed(&x.p->ring->active) == active)
        assert_int_equal(produce(), EAGRE_OK);
    assert_true(eg_slots_moved(&x.d));
    assert_int_equal(x.p->next_look, 0);
    eg_slots_service.tick(&x.d, eg_mono_ns());
    assert_false(eg_slots_moved(&x.d));
}

/* A producer that is stopped in the middle of its claim, for laps: its bytes stay its own, and nobody waits. */
static void a_stopped_producers_claim_is_swapped_away(void **state) {
    struct eg_writer stopped;
    struct eg_claim c;
    (void)state;
    make_topic(NULL, 0);
    eg_writer_init(&stopped, &x.map, &x.producer.page->pin[1].pin, 1, true);
    assert_int_equal(eg_writer_claim(&stopped, eg_frame_length(PAYLOAD, 64), 1, &c), EAGRE_OK);
    x.produced = 1;
    struct eg_frame *frame = c.frame;
    for (int lap = 0; lap < 10; lap++) {
        produce_until_blocked();
        work();
    }
    assert_int_equal(uses(EG_BUFFER_DETACHED),
                     2); /* and the next segment's, which it might be opening */
    assert_int_equal(eg_word_state(eg_load_acquire(&frame->word)), EG_CLAIMED);
    memset(frame->payload, 0x5a, PAYLOAD);
    uint64_t word = eg_frame_finish(frame, c.pos, c.length, c.index, stopped.seed, 1, 1,
                                    EG_NULL_LENGTH, PAYLOAD, false, PAYLOAD);
    eg_writer_publish(&stopped, &c, word);
    now += 2 * EG_NS_PER_MS;
    work();
    assert_int_equal(uses(EG_BUFFER_DETACHED), 0);
    check_log();
}

static void retention_bytes_lets_segments_go_early(void **state) {
    const struct eg_change changes[] = {{"ring.segments", "8"}, {"retention.bytes", "128K"}};
    (void)state;
    make_topic(changes, 2);
    for (int i = 0; i < 1000; i++) {
        assert_int_equal(produce(), EAGRE_OK);
        work();
    }
    check_log();
    assert_in_range(x.p->active - x.p->first, 1,
                    2); /* two full ones at most stay beside the active one */
    assert_int_equal(uses(EG_BUFFER_SLOT), 8);
}

static void retention_ms_lets_old_segments_go_but_not_the_active_one(void **state) {
    const struct eg_change changes[] = {{"ring.segments", "8"}, {"retention.ms", "3600000"}};
    (void)state;
    make_topic(changes, 2);
    while (x.p->active < 3) {
        assert_int_equal(produce(), EAGRE_OK);
        work();
    }
    work_and_sleep();
    assert_int_equal(x.p->first, 0);
    eg_store_relaxed(&x.p->status->sealed_ns[0], eg_now_ns() - 3601 * EG_NS_PER_S);
    eg_store_relaxed(&x.p->status->sealed_ns[1], eg_now_ns() - 3601 * EG_NS_PER_S);
    work_and_sleep();
    assert_int_equal(x.p->first, 2);
    eg_store_relaxed(&x.p->status->sealed_ns[2], eg_now_ns() - 3601 * EG_NS_PER_S);
    work_and_sleep();
    assert_int_equal(x.p->first, 3); /* = active */
    check_log();
}

/* Where only retention wants a segment gone, a reader keeps it, and no buffer is made for that. */
static void retention_waits_for_readers(void **state) {
    const struct eg_change changes[] = {{"ring.segments", "8"}, {"retention.bytes", "64K"}};
    (void)state;
    make_topic(changes, 2);
    pin(&x.consumer, false, 0);
    while (x.p->active < 4) {
        assert_int_equal(produce(), EAGRE_OK);
        now += EG_NS_PER_MS;
        work();
    }
    assert_int_equal(x.p->first, 0);
    assert_int_equal(eg_slot_state(word_of(0)), EG_SLOT_RETIRING);
    assert_int_equal(uses(EG_BUFFER_SLOT), 8);
    assert_int_equal(uses(EG_BUFFER_NONE), EG_BUFFERS_MAX - 8);
    unpin(&x.consumer);
    work();
    assert_true(x.p->first >= 3);
    check_log();
}

static void offsets_stay_below_the_stored_mark(void **state) {
    struct eg_meta_mark mark;
    (void)state;
    make_topic(NULL, 0);
    for (int lap = 0; lap < 20; lap++) {
        produce_until_blocked();
        work();
        assert_int_equal(eg_meta_mark_get(x.d.meta, x.p->uid, &mark), EAGRE_OK);
        assert_int_equal(mark.clean, 0);
        int64_t bound = x.p->base[x.p->active % 3] + 2 * eg_partition_records_max(x.p);
        assert_true(mark.end >= bound && mark.seq > x.p->active + 1);
    }
    /* When the mark is near, the next slot is not READY before it was moved. */
    x.p->mark.end = x.p->base[x.p->active % 3];
    produce_until_blocked();
    work();
    assert_true(x.p->mark.end > x.p->base[x.p->active % 3] + 2 * eg_partition_records_max(x.p));
}

static void a_clean_stop_knows_the_exact_end(void **state) {
    struct eg_meta_mark mark;
    (void)state;
    make_topic(NULL, 0);
    for (int i = 0; i < 77; i++)
        assert_int_equal(produce(), EAGRE_OK);
    work();
    assert_true(eg_partition_seal(&x.d, x.p, &mark));
    assert_int_equal(mark.end, 77);
    assert_int_equal(mark.clean, 1);
    assert_int_equal(mark.seq, x.p->active + 1);
    assert_int_equal(produce(), EAGRE_E_WOULD_BLOCK); /* nothing can be added behind it */
    for (uint32_t i = 0; i < 3; i++)
        assert_int_equal(eg_slot_state(eg_load_relaxed(&x.p->ring->slot[i].word)),
                         EG_SLOT_RETIRING);
}

/* A claim in flight while the log is closed: it ends before the end, or finds no place. */
static void a_clean_stop_counts_claims_in_flight(void **state) {
    struct eg_meta_mark mark;
    struct eg_claim c;
    (void)state;
    make_topic(NULL, 0);
    assert_int_equal(eg_writer_claim(&x.w, eg_frame_length(PAYLOAD, 64), 1, &c), EAGRE_OK);
    assert_true(eg_partition_seal(&x.d, x.p, &mark));
    assert_int_equal(mark.end, 1);
    eg_writer_abort(&x.w, &c);
}

static void nonsense_in_the_ring_ends_this_partition_only(void **state) {
    (void)state;
    const struct eg_change two = {"partitions", "2"};
    for (int kind = 0; kind < 6; kind++) {
        if (kind > 0) {
            teardown(NULL);
            setup(NULL);
        }
        make_topic(&two, 1);
        eg_log_set_level((enum eg_log_level)(-1)); /* what follows is expected */
        produce_until_blocked();
        struct eg_ring *r = x.p->ring;
        switch (kind) {
        case 0:
            eg_store_release(&r->active, 12345678);
            break;
        case 1:
            work();
            eg_store_release(&r->active, 0);
            break;
        case 2:
            eg_store_release(&r->slot[2].word, UINT64_MAX);
            break;
        case 3:
            eg_store_release(&r->slot[0].word, eg_slot_make(0, 77, EG_SLOT_OPEN));
            break;
        case 4:
            eg_store_release(&eg_buffer_header(x.p, eg_slot_buffer(word_of(1)))->base, 1ll << 60);
            break;
        default:
            eg_store_release(&eg_buffer_header(x.p, eg_slot_buffer(word_of(1)))->base, -5);
            break;
        }
        assert_int_equal(work(), INT64_MAX);
        assert_true(eg_partition_failed(x.p));
        assert_false(eg_partition_failed(x.t->part[1]));
        assert_int_equal(eg_partition_open(&x.d, x.t->part[1]), EAGRE_OK);
        assert_int_equal(eg_partition_open(&x.d, x.p), EAGRE_E_CORRUPT);
        eg_partition_end(x.p); /* does not crash */
        unpin(&x.producer);
    }
}

/* Memory that is gone: whoever may write to a buffer may punch a hole, which may not be filled again. */
static void memory_that_is_gone_ends_this_partition_only(void **state) {
    (void)state;
    make_topic((struct eg_change[]){{"partitions", "2"}}, 1);
    assert_int_equal(eg_partition_open(&x.d, x.t->part[1]), EAGRE_OK);
    assert_int_equal(eg_sigbus_mend(&x.d), EAGRE_OK);
    assert_int_equal(produce(), EAGRE_OK);
    /* As the kernel would show it: behind this mapping is nothing. */
    int fd = memfd_create("eagre:p1.b0", MFD_CLOEXEC);
    void *base = x.p->buffers[eg_slot_buffer(word_of(0))].base;
    assert_true(fd >= 0 && mmap(base, SEGMENT, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0) == base);
    eg_slots_work(&x.d, x.p, now);
    assert_true(eg_partition_failed(x.p));
    assert_false(eg_partition_failed(x.t->part[1]));
    eg_partition_end(x.p); /* zeros */
    assert_int_equal(eg_slots_work(&x.d, x.p, now), INT64_MAX);
    close(fd);
    signal(SIGBUS, SIG_DFL);
}

/* Hints, allocated marks and frame words that lie: nothing outside the segment is touched. */
static void lies_in_a_buffer_do_no_harm(void **state) {
    struct eg_meta_mark mark;
    (void)state;
    make_topic(NULL, 0);
    for (int i = 0; i < 70; i++)
        assert_int_equal(produce(), EAGRE_OK);
    struct eg_segment_header *h = eg_buffer_header(x.p, eg_slot_buffer(word_of(x.w.seq)));
    static const uint64_t lies[] = {
        0, 1, EG_SEGMENT_DATA + 8, SEGMENT - 64, SEGMENT, SEGMENT + 64, 1ull << 34};
    for (size_t i = 0; i < sizeof(lies) / sizeof(lies[0]); i++) {
        eg_store_relaxed(&h->hint, eg_hint_make(lies[i], 0xffffffff));
        eg_store_relaxed(&h->allocated, UINT64_MAX - i);
        work();
        assert_true(eg_partition_end(x.p) >= x.p->base[x.p->active % 3]);
        assert_true(eg_buffer_allocated(x.p, 0) <= SEGMENT);
    }
    eg_store_relaxed(&h->hint, eg_hint_make(EG_SEGMENT_DATA, 0));
    struct eg_frame *f = eg_frame_at((uint8_t *)h, EG_SEGMENT_DATA);
    eg_store_release(&f->word, UINT64_MAX);
    assert_false(eg_partition_seal(&x.d, x.p, &mark)); /* then the stored bound stays */
    eg_partition_end(x.p);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
        T(slots_are_reused_with_their_buffers),
        T(a_reused_slot_is_clean),
        T(a_readers_segment_does_not_change_and_nobody_waits),
        T(a_spare_buffer_is_used_again),
        T(beyond_the_bound_producers_wait_and_the_pinning_pid_is_named),
        T(memory_max_bounds_what_pins_hold),
        T(pins_add_up_to_the_bound),
        T(a_producer_on_the_segment_before_counts),
        T(the_scan_comes_after_the_mark),
        T(who_does_not_watch_looks_once_more),
        T(the_last_look_before_sleep_sees_a_new_segment),
        T(a_stopped_producers_claim_is_swapped_away),
        T(retention_bytes_lets_segments_go_early),
        T(retention_ms_lets_old_segments_go_but_not_the_active_one),
        T(retention_waits_for_readers),
        T(offsets_stay_below_the_stored_mark),
        T(a_clean_stop_knows_the_exact_end),
        T(a_clean_stop_counts_claims_in_flight),
        T(nonsense_in_the_ring_ends_this_partition_only),
        T(memory_that_is_gone_ends_this_partition_only),
        T(lies_in_a_buffer_do_no_harm),
    };
    return cmocka_run_group_tests_name("daemon/slots", tests, NULL, NULL);
}
