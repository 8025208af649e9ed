/* Topics as they are mapped: the objects' checks, buffers, growth, reopening in another instance. */
#include "fake_daemon.h"

#include "client/topic.h"
#include "sys/futex.h"

static struct fake fake;
static eagre_t *e;
static int fds_before;

static int setup(void **state) {
    (void)state;
    fake_begin(&fake);
    fds_before = fake_open_fds();
    return eagre_open(fake.path, &e);
}

static int teardown(void **state) {
    (void)state;
    assert_int_equal(eagre_close(e), EAGRE_OK);
    fake_stop(&fake);
    fake_start(&fake);
    assert_int_equal(fake_open_fds(), fds_before);
    fake_end(&fake);
    return 0;
}

static struct eg_topic *open_ok(int role) {
    struct eg_topic *t = NULL;
    assert_int_equal(eg_topic_open(e, role, "t", NULL, &t), EAGRE_OK);
    return t;
}

static struct eg_partition_map *map_ok(struct eg_topic *t, uint32_t partition) {
    struct eg_partition_map *m = NULL;
    assert_int_equal(eg_topic_partition(t, partition, &m), EAGRE_OK);
    return m;
}

static int check(void) {
    int rc = EAGRE_E_NO_DAEMON;
    for (int i = 0; rc == EAGRE_E_NO_DAEMON && i < 1000; i++) {
        e->retry_ns = 0; /* as if time had passed */
        rc = eg_session_check(e, INT64_MAX);
    }
    return rc;
}

/* Is [p, p + n) mapped writable? As the kernel tells. */
static bool is_writable(const void *p) {
    char line[512];
    bool found = false;
    FILE *f = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof(line), f) != NULL) {
        unsigned long from, to;
        char mode[5];
        if (sscanf(line, "%lx-%lx %4s", &from, &to, mode) == 3 && (unsigned long)p >= from &&
            (unsigned long)p < to)
            found = mode[1] == 'w';
    }
    fclose(f);
    return found;
}

static void test_producer(void **state) {
    (void)state;
    struct eg_topic *t = open_ok(EG_ROLE_PRODUCER);
    assert_int_equal(t->uid, FAKE_TOPIC_UID);
    assert_int_equal(eg_topic_partitions(t), 2);
    struct eg_partition_map *m = map_ok(t, 1);
    assert_ptr_equal(map_ok(t, 1), m);
    assert_int_equal(fake.seen[EG_MSG_BUFFERS], 1);
    assert_int_equal(m->uid, 501);
    assert_int_equal(m->index, 21);
    assert_int_equal(m->number, 1);
    assert_int_equal(m->capacity, FAKE_SEGMENT);
    assert_int_equal(m->slots, FAKE_SLOTS);
    assert_true(m->writable && is_writable(m->ring) && is_writable(m->waiters) &&
                is_writable(m->bells));
    assert_false(is_writable(m->status) || is_writable(m->topic));
    for (uint32_t i = 0; i < FAKE_SLOTS; i++)
        assert_true(m->bufs[i].base != NULL && is_writable(m->bufs[i].base) && m->bufs[i].fd >= 0);
    assert_true(m->bufs[FAKE_SLOTS].base == NULL && m->bufs[FAKE_SLOTS].fd < 0);
    eg_topic_close(t);
    assert_int_equal(fake.seen[EG_MSG_RELEASE], 1);
}

static void test_consumer_can_write_nothing_but_waiters(void **state) {
    (void)state;
    struct eg_topic *t = open_ok(EG_ROLE_CONSUMER);
    struct eg_partition_map *m = map_ok(t, 0);
    assert_false(m->writable || is_writable(m->ring) || is_writable(m->bells) ||
                 is_writable(m->status));
    assert_true(is_writable(m->waiters));
    for (uint32_t i = 0; i < FAKE_SLOTS; i++)
        assert_true(m->bufs[i].base != NULL && !is_writable(m->bufs[i].base) && m->bufs[i].fd < 0);
    assert_true(e->bells_rw == NULL && t->event_fd < 0);
    eg_topic_close(t);
}

static void test_operations(void **state) {
    (void)state;
    struct eg_topic *t = open_ok(EG_ROLE_PRODUCER);
    struct eg_partition_map *m = map_ok(t, 0);

    uint64_t rung = 0;
    m->ops->wake_daemon(m);
    m->ops->wake_daemon(m);
    assert_int_equal(read(fake.event, &rung, sizeof(rung)), sizeof(rung));
    assert_int_equal(rung, 2);

    m->ops->ring_bells(m, 1, 1ull << 63 | 1);
    m->ops->ring_bells(m, EG_BELLS_MAX / 64, 1); /* out of range: nothing */
    assert_int_equal(eg_load_acquire(&fake.bells_map->bell[64].rings), 1);
    assert_int_equal(eg_load_acquire(&fake.bells_map->bell[127].rings), 1);
    assert_int_equal(eg_load_acquire(&fake.bells_map->bell[65].rings), 0);

    assert_int_equal(m->ops->allocate(m, 0, 0, 5000), EAGRE_OK);
    assert_int_equal(m->bufs[0].ready_to, 8192);
    assert_int_equal(m->ops->allocate(m, 0, 8192, FAKE_SEGMENT + 9999),
                     EAGRE_OK); /* what is beyond is not */
    assert_int_equal(m->bufs[0].ready_to, FAKE_SEGMENT);
    assert_int_equal(m->ops->allocate(m, 100, 0, 4096), EAGRE_E_STATE);
    assert_int_equal(m->ops->allocate(m, 4000, 0, 4096), EAGRE_E_STATE);

    memset(m->bufs[2].base, 7, 10);
    assert_int_equal(m->ops->fetch_buffer(m, 2), EAGRE_OK);
    assert_int_equal(m->bufs[2].base[9], 7);
    assert_int_equal(m->ops->fetch_buffer(m, 50), EAGRE_E_INVALID); /* the daemon's refusal */
    assert_int_equal(m->bufs[2].base[9], 7);
    eg_topic_close(t);
}

static void test_many_handles_share_the_bells(void **state) {
    (void)state;
    struct eg_topic *a = open_ok(EG_ROLE_PRODUCER);
    struct eg_bells *bells = e->bells_rw;
    struct eg_topic *b = open_ok(EG_ROLE_PRODUCER);
    assert_ptr_equal(e->bells_rw, bells);
    eg_topic_close(a);
    eg_topic_close(b);
}

static void test_unknown(void **state) {
    (void)state;
    struct eg_topic *t = NULL;
    struct eg_partition_map *m = NULL;
    char name[300];
    memset(name, 'x', sizeof(name));
    name[250] = '\0';
    assert_int_equal(eg_topic_open(e, EG_ROLE_CONSUMER, "u", NULL, &t), EAGRE_E_UNKNOWN_TOPIC);
    assert_int_equal(eg_topic_open(e, EG_ROLE_CONSUMER, "", NULL, &t), EAGRE_E_INVALID);
    assert_int_equal(eg_topic_open(e, EG_ROLE_CONSUMER, name, NULL, &t), EAGRE_E_INVALID);
    assert_null(t);
    t = open_ok(EG_ROLE_CONSUMER);
    assert_int_equal(eg_topic_partition(t, 2, &m), EAGRE_E_UNKNOWN_PARTITION);
    assert_int_equal(eg_topic_partition(t, UINT32_MAX, &m), EAGRE_E_UNKNOWN_PARTITION);
    assert_null(m);
    eg_topic_close(t);
}

static void test_growth(void **state) {
    (void)state;
    struct eg_topic *t = open_ok(EG_ROLE_CONSUMER);
    struct eg_partition_map *m = map_ok(t, 0);
    eg_store_release(&fake.status_map->partitions, 5);
    assert_int_equal(eg_topic_partitions(t), 5);
    assert_int_equal(map_ok(t, 4)->uid, 504);
    assert_ptr_equal(map_ok(t, 0), m);
    eg_store_release(&fake.status_map->partitions,
                     EG_TOPIC_PARTITIONS_MAX + 1); /* impossible: not believed */
    assert_int_equal(eg_topic_partitions(t), 5);
    eg_store_release(&fake.status_map->partitions, 1);
    assert_int_equal(eg_topic_partitions(t), 5);
    eg_topic_close(t);
}

static void expect_open(int rc) {
    struct eg_topic *t = NULL;
    assert_int_equal(eg_topic_open(e, EG_ROLE_PRODUCER, "t", NULL, &t), rc);
    assert_null(t);
}

/* Nothing that the objects say is used before it is checked. */
static void test_lying_objects(void **state) {
    (void)state;
    struct eg_topic_status *s = fake.status_map;
    s->segment_bytes = 1ull << 60;
    expect_open(EAGRE_E_CORRUPT);
    s->segment_bytes = FAKE_SEGMENT;
    s->ring_segments = 1u << 30;
    expect_open(EAGRE_E_CORRUPT);
    s->ring_segments = FAKE_SLOTS;
    s->align = 3;
    expect_open(EAGRE_E_CORRUPT);
    s->align = 64;
    s->magic.fingerprint++;
    expect_open(EAGRE_E_VERSION);
    s->magic.fingerprint--;
    s->topic_uid++;
    expect_open(EAGRE_E_PROTOCOL);
    s->topic_uid--;
    eg_store_release(&s->partitions, 1);
    expect_open(EAGRE_E_PROTOCOL); /* OPEN says 2 */
    eg_store_release(&s->partitions, 2);
    s->segment_bytes = FAKE_SEGMENT * 2; /* larger than the buffers are */
    struct eg_topic *t = open_ok(EG_ROLE_PRODUCER);
    struct eg_partition_map *m = NULL;
    assert_int_not_equal(eg_topic_partition(t, 0, &m), EAGRE_OK);
    s->segment_bytes = FAKE_SEGMENT;
    eg_topic_close(t);
    t = open_ok(EG_ROLE_PRODUCER);
    eg_status_of(s, 1)->uid = 9; /* the ring says 501 */
    assert_int_equal(eg_topic_partition(t, 1, &m), EAGRE_E_CORRUPT);
    eg_status_of(s, 1)->uid = 501;
    eg_status_of(s, 1)->index = EG_PARTITIONS_MAX;
    assert_int_equal(eg_topic_partition(t, 1, &m), EAGRE_E_CORRUPT);
    assert_null(m);
    eg_topic_close(t);
}

static void test_malformed_answers(void **state) {
    (void)state;
    static const enum fake_act acts[] = {FAKE_GARBLE_SHORT, FAKE_GARBLE_LONG, FAKE_GARBLE_TYPE,
                                         FAKE_NO_FDS};
    for (size_t i = 0; i < 4; i++) {
        fake.act[EG_MSG_OPEN] = acts[i];
        expect_open(EAGRE_E_PROTOCOL);
        struct eg_topic *t = open_ok(EG_ROLE_CONSUMER);
        struct eg_partition_map *m = NULL;
        fake.act[EG_MSG_BUFFERS] = acts[i];
        assert_int_equal(eg_topic_partition(t, 0, &m), EAGRE_E_PROTOCOL);
        map_ok(t, 0);
        eg_topic_close(t);
    }
    struct eg_topic *t = NULL;
    fake.act[EG_MSG_OPEN] = FAKE_SWAP_FDS; /* the right number, of the wrong objects */
    assert_int_not_equal(eg_topic_open(e, EG_ROLE_CONSUMER, "t", NULL, &t), EAGRE_OK);
    fake.act[EG_MSG_OPEN] = FAKE_SWAP_FDS;
    assert_int_not_equal(eg_topic_open(e, EG_ROLE_PRODUCER, "t", NULL, &t), EAGRE_OK);
    assert_null(t);
}

static void restart(uint64_t instance_id) {
    fake_stop(&fake);
    if (instance_id != 0) {
        fake_drop_memory(&fake);
        fake_new_memory(&fake, instance_id);
    }
    fake_start(&fake);
    assert_int_equal(check(), EAGRE_OK);
}

static void test_successor_needs_no_reopening(void **state) {
    (void)state;
    struct eg_topic *t = open_ok(EG_ROLE_PRODUCER);
    struct eg_partition_map *m = map_ok(t, 0);
    restart(0);
    assert_int_equal(e->generation, t->generation);
    assert_int_equal(m->ops->fetch_buffer(m, 1), EAGRE_OK);
    map_ok(t, 1);
    eg_topic_close(t);
}

static void test_reopen(void **state) {
    (void)state;
    struct eg_topic *t = open_ok(EG_ROLE_PRODUCER);
    struct eg_partition_map *m = map_ok(t, 1);
    struct eg_bells *bells = e->bells_rw;
    m->bufs[0].base[0] = 1;
    restart(2222);
    struct eg_partition_map *other = NULL;
    assert_int_equal(m->ops->fetch_buffer(m, 1), EAGRE_E_NO_DAEMON); /* of dead memory */
    assert_int_equal(eg_topic_partition(t, 0, &other), EAGRE_E_NO_DAEMON);
    fake.act[EG_MSG_BUFFERS] = FAKE_REFUSE; /* a failure leaves it as it is */
    assert_int_equal(eg_topic_reopen(t), EAGRE_E_LIMIT);
    assert_int_equal(m->bufs[0].base[0], 1);
    assert_int_equal(eg_topic_reopen(t), EAGRE_OK);
    assert_int_equal(t->generation, e->generation);
    assert_ptr_equal(map_ok(t, 1), m);
    assert_int_equal(m->bufs[0].base[0], 0);
    assert_int_equal(m->uid, 501);
    assert_ptr_equal(m->ctx, t);
    assert_ptr_equal(m->topic, t->status);
    assert_ptr_equal(e->bells_rw, bells);
    m->ops->ring_bells(m, 0, 1); /* at the same address: the new bells */
    assert_int_equal(eg_load_acquire(&fake.bells_map->bell[0].rings), 1);
    uint64_t rung = 0;
    m->ops->wake_daemon(m);
    assert_int_equal(read(fake.event, &rung, sizeof(rung)), sizeof(rung));
    assert_int_equal(m->ops->fetch_buffer(m, 0), EAGRE_OK);
    eg_topic_close(t);
}

static void test_reopen_finds_it_deleted(void **state) {
    (void)state;
    struct eg_topic *t = open_ok(EG_ROLE_CONSUMER);
    map_ok(t, 0);
    fake.topic_gone = true;
    restart(2222);
    assert_int_equal(eg_topic_reopen(t), EAGRE_E_TOPIC_DELETED);
    fake.topic_gone = false;
    fake.topic_uid++; /* one of the same name */
    restart(3333);
    assert_int_equal(eg_topic_reopen(t), EAGRE_E_TOPIC_DELETED);
    eg_topic_close(t);
}

/* Who takes us up again is told what we hold, whatever it knows of openings and closings. */
static void test_attaching_again_says_what_is_open(void **state) {
    (void)state;
    struct eg_topic *t = open_ok(EG_ROLE_PRODUCER), *other = open_ok(EG_ROLE_PRODUCER);
    struct eg_topic *reader = open_ok(EG_ROLE_CONSUMER), *lost = NULL;
    assert_int_equal(fake.attach_held, -1);
    fake_stop(&fake);
    eg_topic_close(t); /* nobody is there to be told */
    assert_int_equal(fake.seen[EG_MSG_RELEASE], 0);
    fake_start(&fake);
    assert_int_equal(check(), EAGRE_OK);
    assert_int_equal(fake.attach_held, 101);
    fake.act[EG_MSG_RELEASE] = FAKE_CLOSE; /* told, but not answered: not told again */
    eg_topic_close(other);
    assert_int_equal(fake.seen[EG_MSG_RELEASE], 1);
    assert_int_equal(check(), EAGRE_OK);
    assert_int_equal(fake.attach_held, 100);
    fake.act[EG_MSG_OPEN] = FAKE_CLOSE; /* granted, but not answered: asked again, and held once */
    assert_int_equal(eg_topic_open(e, EG_ROLE_PRODUCER, "t", NULL, &lost), EAGRE_OK);
    assert_int_equal(fake.attach_held, 100);
    fake_stop(&fake);
    fake_start(&fake);
    assert_int_equal(check(), EAGRE_OK);
    assert_int_equal(fake.attach_held, 101);
    eg_topic_close(lost);
    eg_topic_close(reader);
    assert_int_equal(e->held_count, 0);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define EACH(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
        EACH(test_producer),
        EACH(test_consumer_can_write_nothing_but_waiters),
        EACH(test_operations),
        EACH(test_many_handles_share_the_bells),
        EACH(test_unknown),
        EACH(test_growth),
        EACH(test_lying_objects),
        EACH(test_malformed_answers),
        EACH(test_successor_needs_no_reopening),
        EACH(test_reopen),
        EACH(test_reopen_finds_it_deleted),
        EACH(test_attaching_again_says_what_is_open),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
