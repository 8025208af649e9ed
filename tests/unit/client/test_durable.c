/* acks=disk, durable offsets and flush: against a daemon that writes nothing to disk but says so when the test wants it. */
#include "fake_daemon.h"

#include <errno.h>
#include <limits.h>

#include "client/producer.h"
#include "sys/clock.h"
#include "sys/futex.h"

static struct fake fake;
static eagre_t *e;
static eagre_producer_t *p;

/* Two partitions that can be written to, one segment each. */
static void open_rings(void) {
    size_t stride = eg_ring_stride(FAKE_SLOTS, FAKE_SEGMENT);
    uint8_t *rings = fake_map(fake.ring, 2 * stride);
    eg_store_relaxed(&fake.status_map->max_message_bytes, 1000);
    for (uint32_t k = 0; k < 2; k++) {
        struct eg_ring *r = (struct eg_ring *)(void *)(rings + k * stride);
        struct eg_segment_header *h = fake_map(fake.buffers[k], FAKE_SEGMENT);
        eg_segment_init(h, fake.status_map, k, 500 + k, 0, 1);
        eg_store_release(&h->base, 0);
        eg_store_release(&h->allocated, FAKE_SEGMENT);
        eg_unmap(h, FAKE_SEGMENT);
        eg_store_release(&eg_status_of(fake.status_map, k)->state, EG_PARTITION_ACTIVE);
        eg_store_release(&r->slot[0].word, eg_slot_make(0, k, EG_SLOT_OPEN));
    }
    eg_unmap(rings, 2 * stride);
}

static struct eg_partition_status *status_of(uint32_t k) { return eg_status_of(fake.status_map, k); }

static struct eg_ring *ring_of(uint32_t k) { return p->writers[k]->map->ring; }

static void tell(struct eg_partition_status *s) {
    atomic_fetch_add_explicit(&s->durable, 1, memory_order_release);
    eg_futex_wake(&s->durable, INT_MAX);
}

static void open_producer(eagre_acks_t acks, int32_t max_block_ms, eagre_wait_t wait) {
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    struct eg_partition_map *m;
    o.acks = acks;
    o.max_block_ms = max_block_ms;
    o.wait = wait;
    assert_int_equal(eagre_producer_open(e, "t", &o, &p), EAGRE_OK);
    p->until.ns = INT64_MAX; /* what a first record needs, now: later there may be no time */
    assert_int_equal(eg_topic_partition(p->topic, 0, &m), EAGRE_OK);
    assert_int_equal(eg_topic_partition(p->topic, 1, &m), EAGRE_OK);
    p->until.ns = 0;
}

static int setup(void **state) {
    (void)state;
    p = NULL;
    fake_begin(&fake);
    open_rings();
    return eagre_open(fake.path, &e);
}

static int teardown(void **state) {
    (void)state;
    eagre_producer_close(p);
    assert_int_equal(eagre_close(e), EAGRE_OK);
    fake_end(&fake);
    return 0;
}

static int produce(int32_t partition, int64_t *offset) {
    eagre_message_t m = {.value = "x", .value_len = 1, .partition = partition};
    return eagre_produce(p, &m, NULL, offset);
}

static void assert_says(const char *what) {
    if (strstr(eagre_error_detail(), what) == NULL)
        fail_msg("'%s' does not say '%s'", eagre_error_detail(), what);
}

/* ---- the archiver ------------------------------------------------------------------------------------- */

/* What it does when the bell rings and somebody waits: `times` times, then it ends. */
struct archiver {
    pthread_t thread;
    int times;
    void (*act)(void);
};

static void *archive(void *arg) {
    struct archiver *a = arg;
    struct pollfd bell = {.fd = fake.event, .events = POLLIN};
    for (int i = 0; i < a->times; i++) {
        uint64_t n;
        do
            poll(&bell, 1, -1);
        while (read(fake.event, &n, sizeof(n)) != sizeof(n));
        assert_int_equal(eg_load_acquire(&ring_of(0)->watched), 1);
        a->act();
    }
    return NULL;
}

static void begin_archive(struct archiver *a, int times, void (*act)(void)) {
    *a = (struct archiver){.times = times, .act = act};
    assert_int_equal(pthread_create(&a->thread, NULL, archive, a), 0);
}

static void all_is_durable(void) {
    eg_store_release(&status_of(0)->durable_end, (uint64_t)eg_exchange_acq_rel(&ring_of(0)->durable_wanted, 0));
    tell(status_of(0));
}

static int missed;
static void third(void) {
    if (++missed == 3)
        all_is_durable();
}

static void goes_bad(void) {
    eg_store_release(&status_of(0)->disk, EG_DISK_ERROR);
    tell(status_of(0));
}

static void is_deleted(void) { eg_store_release(&fake.status_map->state, EG_TOPIC_DELETED); }

static void is_replaced(void) {
    fake_stop(&fake);
    fake_drop_memory(&fake);
    fake_new_memory(&fake, 2222);
    open_rings();
    fake_start(&fake);
}

/* ---- tests -------------------------------------------------------------------------------------------- */

static void each_way_returns_when_it_is_on_disk(void **state) {
    (void)state;
    for (eagre_wait_t wait = EAGRE_WAIT_SLEEP; wait <= EAGRE_WAIT_SPIN; wait++) {
        struct archiver a;
        eagre_message_t three[3] = {{.value = "a", .value_len = 1}, {.value = "b", .value_len = 1}, {.value = NULL}};
        eagre_claim_t claim;
        int64_t offset = -1, durable = -1;
        open_producer(EAGRE_ACKS_DISK, -1, wait);
        /* So that ring_of() works: its first record opens the writer. */
        p->options.acks = EAGRE_ACKS_MEMORY;
        assert_int_equal(produce(0, NULL), EAGRE_OK);
        p->options.acks = EAGRE_ACKS_DISK;

        begin_archive(&a, 3, all_is_durable);
        assert_int_equal(produce(0, &offset), EAGRE_OK);
        assert_int_equal(eagre_producer_durable_offset(p, 0, &durable), EAGRE_OK);
        assert_int_equal(durable, offset + 1);
        assert_int_equal(eagre_produce_batch(p, 0, three, 3, &offset), EAGRE_OK);
        assert_int_equal(eagre_producer_durable_offset(p, 0, &durable), EAGRE_OK);
        assert_int_equal(durable, offset + 3);
        assert_int_equal(eagre_producer_claim(p, 0, SIZE_MAX, 4, &claim), EAGRE_OK);
        memcpy(claim.value, "four", 4);
        assert_int_equal(eagre_producer_commit(p, &claim), EAGRE_OK);
        assert_int_equal(eagre_producer_durable_offset(p, 0, &durable), EAGRE_OK);
        assert_int_equal(durable, claim.offset + 1);
        pthread_join(a.thread, NULL);
        eagre_producer_close(p);
        p = NULL;
    }
}

static void a_timeout_says_what_is_known(void **state) {
    (void)state;
    int64_t offset = -1;
    open_producer(EAGRE_ACKS_DISK, 1, EAGRE_WAIT_SLEEP);
    assert_int_equal(produce(0, &offset), EAGRE_E_TIMED_OUT);
    assert_int_equal(offset, 0); /* it is there */
    assert_says("published up to offset 0, but not known to be on disk");
    eg_store_release(&status_of(0)->disk, EG_DISK_FULL);
    assert_int_equal(produce(0, &offset), EAGRE_E_TIMED_OUT);
    assert_int_equal(offset, 1);
    assert_says("is full (disk.min.free.bytes)");
    eg_store_release(&status_of(0)->disk, EG_DISK_OK);
    p->options.max_block_ms = 0; /* not even then WOULD_BLOCK, which would say that nothing was appended */
    assert_int_equal(produce(0, &offset), EAGRE_E_TIMED_OUT);
    assert_int_equal(offset, 2);

    p->options.max_block_ms = 50;
    fake_stop(&fake);
    assert_int_equal(produce(0, &offset), EAGRE_E_TIMED_OUT);
    assert_says("no daemon answers");
    fake_start(&fake);
}

/* Others may have asked for more, or for less; and somebody who was stopped may have not rung. */
static void who_asks_first_rings_and_who_waits_rings_again(void **state) {
    (void)state;
    struct archiver a;
    uint64_t n;
    open_producer(EAGRE_ACKS_DISK, 0, EAGRE_WAIT_SLEEP);
    assert_int_equal(produce(0, NULL), EAGRE_E_TIMED_OUT);
    assert_int_equal(eg_load_relaxed(&ring_of(0)->durable_wanted), 1);
    assert_int_equal(read(fake.event, &n, sizeof(n)), sizeof(n));
    eg_store_relaxed(&ring_of(0)->durable_wanted, 77);
    assert_int_equal(produce(0, NULL), EAGRE_E_TIMED_OUT);
    assert_int_equal(eg_load_relaxed(&ring_of(0)->durable_wanted), 77);
    assert_int_equal(read(fake.event, &n, sizeof(n)), -1); /* somebody has, and nobody looked since then */
    eg_store_relaxed(&ring_of(0)->durable_wanted, 0);
    assert_int_equal(produce(0, NULL), EAGRE_E_TIMED_OUT);
    assert_int_equal(eg_load_relaxed(&ring_of(0)->durable_wanted), 3);
    assert_int_equal(read(fake.event, &n, sizeof(n)), sizeof(n));
    eg_store_relaxed(&ring_of(0)->durable_wanted, INT64_MIN);
    p->options.max_block_ms = -1;
    /* It misses the first two: 100 ms each. */
    missed = 0;
    begin_archive(&a, 3, third);
    assert_int_equal(produce(0, NULL), EAGRE_OK);
    pthread_join(a.thread, NULL);
}

static void a_failed_write_is_an_error(void **state) {
    (void)state;
    struct archiver a;
    int64_t offset = -1, durable = -1;
    open_producer(EAGRE_ACKS_DISK, 0, EAGRE_WAIT_SLEEP);
    assert_int_equal(produce(0, NULL), EAGRE_E_TIMED_OUT);
    eg_store_release(&status_of(0)->durable_end, 1);
    p->options.max_block_ms = -1;
    assert_true(read(fake.event, &durable, sizeof(durable)) > 0 || errno == EAGAIN);
    begin_archive(&a, 1, goes_bad);
    assert_int_equal(produce(0, &offset), EAGRE_E_IO); /* while it waits */
    pthread_join(a.thread, NULL);
    assert_int_equal(offset, 1);
    assert_says("eagre topic resume");
    assert_int_equal(produce(0, &offset), EAGRE_E_IO); /* and before */
    assert_int_equal(offset, 2);
    assert_int_equal(eagre_producer_durable_offset(p, 0, &durable), EAGRE_E_IO);
    assert_int_equal(durable, 1);
    assert_int_equal(eagre_producer_flush(p, -1), EAGRE_E_IO);
    /* The other partition goes on. */
    eg_store_release(&status_of(1)->durable_end, 100);
    assert_int_equal(produce(1, NULL), EAGRE_OK);
    p->options.acks = EAGRE_ACKS_MEMORY; /* and so does who does not ask */
    assert_int_equal(produce(0, &offset), EAGRE_OK);
}

static void memory_topics_have_none_of_it(void **state) {
    (void)state;
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    int64_t offset;
    fake.status_map->storage = EG_STORAGE_MEMORY;
    o.acks = EAGRE_ACKS_DISK;
    assert_int_equal(eagre_producer_open(e, "t", &o, &p), EAGRE_E_UNSUPPORTED);
    assert_says("storage=memory");
    o.acks = (eagre_acks_t)2;
    assert_int_equal(eagre_producer_open(e, "t", &o, &p), EAGRE_E_INVALID);
    open_producer(EAGRE_ACKS_MEMORY, 0, EAGRE_WAIT_SLEEP);
    assert_int_equal(eagre_producer_durable_offset(p, 0, &offset), EAGRE_E_UNSUPPORTED);
    assert_int_equal(eagre_producer_flush(p, 0), EAGRE_E_UNSUPPORTED);
    assert_int_equal(eagre_producer_flush(NULL, 0), EAGRE_E_INVALID);
}

static void the_topic_is_deleted_meanwhile(void **state) {
    (void)state;
    struct archiver a;
    uint64_t n;
    open_producer(EAGRE_ACKS_DISK, 0, EAGRE_WAIT_SLEEP);
    assert_int_equal(produce(0, NULL), EAGRE_E_TIMED_OUT);
    assert_true(read(fake.event, &n, sizeof(n)) > 0 || errno == EAGAIN);
    p->options.max_block_ms = -1;
    begin_archive(&a, 1, is_deleted);
    assert_int_equal(produce(0, NULL), EAGRE_E_TOPIC_DELETED);
    pthread_join(a.thread, NULL);
}

static void another_instance_meanwhile(void **state) {
    (void)state;
    struct eg_partition_status *old;
    int64_t offset = -1;
    open_producer(EAGRE_ACKS_DISK, 0, EAGRE_WAIT_SLEEP);
    assert_int_equal(produce(0, NULL), EAGRE_E_TIMED_OUT);
    assert_int_equal(produce(1, NULL), EAGRE_E_TIMED_OUT);
    p->options.max_block_ms = -1;
    is_replaced();
    /* Written to the old one's memory, which nobody looks at any more. */
    assert_int_equal(produce(0, &offset), EAGRE_E_NO_DAEMON);
    assert_int_equal(offset, 1);
    assert_says("may be lost");
    /* That of the other partition is told by the next flush, once. */
    assert_int_equal(eagre_producer_flush(p, -1), EAGRE_E_NO_DAEMON);
    assert_int_equal(eagre_producer_flush(p, -1), EAGRE_OK);
    eg_store_release(&status_of(0)->durable_end, 1);
    assert_int_equal(produce(0, &offset), EAGRE_OK);
    assert_int_equal(offset, 0); /* in the new one's */

    /* What the old one said last counts. */
    p->options.max_block_ms = 0;
    assert_int_equal(produce(0, &offset), EAGRE_E_TIMED_OUT);
    old = fake_map(fake.status, eg_status_bytes(EG_TOPIC_PARTITIONS_MAX));
    is_replaced();
    eg_store_release(&eg_status_of((struct eg_topic_status *)(void *)old, 0)->durable_end, 3);
    p->options.max_block_ms = -1;
    assert_int_equal(produce(0, &offset), EAGRE_OK);
    assert_int_equal(offset, 2);
    eg_unmap(old, eg_status_bytes(EG_TOPIC_PARTITIONS_MAX));
}

/* It is told by the call that finds out, and not again by the next one. */
static void what_a_replaced_instance_lost_is_told_once(void **state) {
    (void)state;
    int64_t offset = -1;
    open_producer(EAGRE_ACKS_DISK, 0, EAGRE_WAIT_SLEEP);
    assert_int_equal(produce(0, NULL), EAGRE_E_TIMED_OUT);
    p->options.max_block_ms = -1;
    is_replaced();
    assert_int_equal(produce(0, &offset), EAGRE_E_NO_DAEMON);
    assert_int_equal(offset, 1);
    assert_says("published up to offset 1");
    assert_int_equal(eagre_producer_flush(p, -1), EAGRE_OK);
    assert_int_equal(p->topic->generation, eg_load_relaxed(&e->generation));
}

/* While its session says hello to the new instance, the old one's archiver says its last. */
static struct eg_partition_status *last_of;
static void *says_its_last(void *arg) {
    (void)arg;
    fake_wait_stalled(&fake);
    eg_store_release(&last_of->durable_end, 100);
    fake_go_on(&fake);
    return NULL;
}

static void replaced_while_it_waits(bool topic_gone, int expected) {
    pthread_t other;
    struct eg_topic_status *old = fake_map(fake.status, eg_status_bytes(EG_TOPIC_PARTITIONS_MAX));
    last_of = eg_status_of(old, 0);
    is_replaced();
    fake.topic_gone = topic_gone;
    fake.act[EG_MSG_HELLO] = FAKE_STALL;
    assert_int_equal(pthread_create(&other, NULL, says_its_last, NULL), 0);
    assert_int_equal(eagre_producer_flush(p, 10000), expected);
    pthread_join(other, NULL);
    eg_unmap(old, eg_status_bytes(EG_TOPIC_PARTITIONS_MAX));
}

static void what_a_replaced_instance_said_last_counts(void **state) {
    (void)state;
    open_producer(EAGRE_ACKS_MEMORY, -1, EAGRE_WAIT_SLEEP);
    assert_int_equal(produce(0, NULL), EAGRE_OK);
    replaced_while_it_waits(false, EAGRE_OK);
}

/* The new instance has no such topic: nothing was lost, so that is what the next call is told. */
static void the_topic_is_not_in_the_new_instance(void **state) {
    (void)state;
    open_producer(EAGRE_ACKS_MEMORY, -1, EAGRE_WAIT_SLEEP);
    assert_int_equal(produce(0, NULL), EAGRE_OK);
    replaced_while_it_waits(true, EAGRE_OK);
    p->options.acks = EAGRE_ACKS_DISK;
    assert_int_equal(produce(0, NULL), EAGRE_E_TOPIC_DELETED);
}

static void flush_waits_for_all_partitions(void **state) {
    (void)state;
    int64_t offset = -1;
    uint64_t n;
    open_producer(EAGRE_ACKS_MEMORY, -1, EAGRE_WAIT_SLEEP);
    assert_int_equal(eagre_producer_flush(p, -1), EAGRE_OK); /* nothing yet */
    for (int i = 0; i < 3; i++)
        assert_int_equal(produce(i % 2, NULL), EAGRE_OK);
    assert_int_equal(eagre_producer_durable_offset(p, 0, &offset), EAGRE_OK);
    assert_int_equal(offset, 0);
    assert_int_equal(eagre_producer_durable_offset(p, 2, &offset), EAGRE_E_UNKNOWN_PARTITION);
    assert_int_equal(eagre_producer_durable_offset(p, -1, &offset), EAGRE_E_UNKNOWN_PARTITION);
    assert_int_equal(read(fake.event, &n, sizeof(n)), -1); /* nobody has asked */
    assert_int_equal(eagre_producer_flush(p, 0), EAGRE_E_WOULD_BLOCK);
    assert_int_equal(read(fake.event, &n, sizeof(n)), sizeof(n));
    assert_int_equal(eg_load_relaxed(&ring_of(0)->durable_wanted), 2);
    assert_int_equal(eg_load_relaxed(&ring_of(1)->durable_wanted), 1);
    eg_store_release(&status_of(0)->durable_end, 2);
    assert_int_equal(eagre_producer_flush(p, 1), EAGRE_E_TIMED_OUT);
    assert_says("partition 1");
    eg_store_release(&status_of(1)->durable_end, 1);
    assert_int_equal(eagre_producer_flush(p, 0), EAGRE_OK);
}

/* No READY slot: because what is in them cannot be written. */
static void no_room_says_that_it_is_the_disk(void **state) {
    (void)state;
    static uint8_t value[1000];
    eagre_message_t m = {.value = value, .value_len = sizeof(value), .partition = 0};
    int rc;
    open_producer(EAGRE_ACKS_MEMORY, 1, EAGRE_WAIT_SLEEP);
    eg_store_release(&status_of(0)->disk, EG_DISK_FULL);
    for (int i = 0; (rc = eagre_produce(p, &m, NULL, NULL)) == EAGRE_OK && i < 100; i++) {}
    assert_int_equal(rc, EAGRE_E_TIMED_OUT);
    assert_says("is full (disk.min.free.bytes)");
    eg_store_release(&status_of(0)->disk, EG_DISK_ERROR);
    assert_int_equal(eagre_produce(p, &m, NULL, NULL), EAGRE_E_TIMED_OUT);
    assert_says("eagre topic resume");
}

/* Whoever waits for an offset of (from, to] has a bit of theirs; few others have. */
static void a_flush_wakes_whom_it_serves(void **state) {
    (void)state;
    for (int64_t from = 0; from < 300; from++)
        for (int64_t to = from + 1; to < 300; to++) {
            uint32_t bits = eg_durable_bits(from, to);
            for (int64_t end = from + 1; end <= to; end++)
                assert_int_not_equal(bits & eg_durable_bits(end - 1, end), 0);
            if (to - from < 64)
                assert_int_equal(bits & eg_durable_bits(to + 8, to + 9), 0);
        }
    assert_int_equal(eg_durable_bits(0, INT64_MAX), UINT32_MAX);
    assert_int_equal(eg_durable_bits(INT64_MAX - 1, INT64_MAX), UINT32_C(1) << 31);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(each_way_returns_when_it_is_on_disk, setup, teardown),
        cmocka_unit_test_setup_teardown(a_timeout_says_what_is_known, setup, teardown),
        cmocka_unit_test(a_flush_wakes_whom_it_serves),
        cmocka_unit_test_setup_teardown(who_asks_first_rings_and_who_waits_rings_again, setup, teardown),
        cmocka_unit_test_setup_teardown(a_failed_write_is_an_error, setup, teardown),
        cmocka_unit_test_setup_teardown(memory_topics_have_none_of_it, setup, teardown),
        cmocka_unit_test_setup_teardown(the_topic_is_deleted_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(another_instance_meanwhile, setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_replaced_instance_lost_is_told_once, setup, teardown),
        cmocka_unit_test_setup_teardown(what_a_replaced_instance_said_last_counts, setup, teardown),
        cmocka_unit_test_setup_teardown(the_topic_is_not_in_the_new_instance, setup, teardown),
        cmocka_unit_test_setup_teardown(flush_waits_for_all_partitions, setup, teardown),
        cmocka_unit_test_setup_teardown(no_room_says_that_it_is_the_disk, setup, teardown),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
