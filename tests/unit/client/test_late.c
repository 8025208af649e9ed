/* Answers that come late, or never: what a caller with little time gets, and what becomes of the answer. */
#include "fake_daemon.h"

#include "client/exchange.h"
#include "client/topic.h"
#include "eagre/admin.h"
#include "eagre/consumer.h"
#include "sys/clock.h"

#define SHORT_NS (20 * EG_NS_PER_MS)

static struct fake fake;
static eagre_t *e;
static int fds_before;
static const struct eg_until at_once;

static int setup(void **state) {
    (void)state;
    fake_begin(&fake);
    fds_before = fake_open_fds();
    return eagre_open(fake.path, &e);
}

static int teardown(void **state) {
    (void)state;
    eg_request_limit_ns = 10 * EG_NS_PER_S;
    assert_int_equal(eagre_close(e), EAGRE_OK);
    fake_stop(&fake);
    fake_start(&fake);
    assert_int_equal(fake_open_fds(), fds_before);
    fake_end(&fake);
    return 0;
}

static struct eg_topic *open_ok(int role, const struct eg_until *until) {
    struct eg_topic *t = NULL;
    assert_int_equal(eg_topic_open(e, role, "t", until, &t), EAGRE_OK);
    return t;
}

/* Again and again, as callers do: at last it comes. */
#define UNTIL_DONE(rc, call)                                                                       \
    do {                                                                                           \
        for (int i_ = 0; i_ < 10000 && ((rc) = (call)) == EAGRE_E_WOULD_BLOCK; i_++)               \
            poll(NULL, 0, 1);                                                                      \
    } while (0)

static int list(void) {
    eagre_topic_entry_t *topics = NULL;
    size_t n = 0;
    int rc = eagre_topic_list(e, &topics, &n);
    if (rc == EAGRE_OK)
        free(topics);
    return rc;
}

static void assert_says_stopped(void) {
    char pid[32];
    snprintf(pid, sizeof(pid), "(pid %d)", (int)getpid()); /* who listens is this process */
    assert_non_null(strstr(eagre_error_detail(), pid));
    assert_non_null(strstr(eagre_error_detail(), "is it stopped?"));
}

static void test_the_limit_of_a_request(void **state) {
    (void)state;
    eg_request_limit_ns = SHORT_NS;
    fake.act[EG_MSG_TOPIC_LIST] = FAKE_STALL;
    assert_int_equal(list(), EAGRE_E_TIMED_OUT);
    assert_says_stopped();
    assert_int_equal(eagre_topic_create(e, "a", NULL, 0), EAGRE_E_TIMED_OUT);
    assert_says_stopped();
    fake_go_on(&fake);
    eg_request_limit_ns = 10 * EG_NS_PER_S;
    assert_int_equal(list(), EAGRE_OK); /* its own answer, not those two */
    assert_int_equal(fake.seen[EG_MSG_HELLO], 1);
    assert_null(e->late);
}

/* What nobody took goes back: else the daemon counts a handle that is not there. */
static void test_a_late_grant_is_given_back(void **state) {
    (void)state;
    struct eg_topic *t = NULL;
    assert_int_equal(eg_client_attach(e), EAGRE_OK);
    fake.act[EG_MSG_OPEN] = FAKE_STALL;
    eg_request_limit_ns = SHORT_NS;
    assert_int_equal(eg_topic_open(e, EG_ROLE_PRODUCER, "t", NULL, &t), EAGRE_E_TIMED_OUT);
    assert_says_stopped();
    fake_go_on(&fake);
    eg_request_limit_ns = 10 * EG_NS_PER_S;
    assert_int_equal(list(), EAGRE_OK);
    assert_int_equal(list(), EAGRE_OK); /* it was sent before this one */
    assert_int_equal(fake.seen[EG_MSG_RELEASE], 1);
    assert_int_equal(e->held_count, 0);
}

static void test_a_late_bell(void **state) {
    (void)state;
    struct eg_late *late = NULL;
    uint32_t bell = 0;
    int rc;
    assert_int_equal(eg_client_attach(e), EAGRE_OK);
    fake.act[EG_MSG_BELL] = FAKE_STALL;
    assert_int_equal(eg_bell_get_late(e, &late, 0, &bell, NULL), EAGRE_E_WOULD_BLOCK);
    fake_wait_stalled(&fake);
    assert_int_equal(eg_bell_get_late(e, &late, 0, &bell, NULL), EAGRE_E_WOULD_BLOCK);
    fake_go_on(&fake);
    UNTIL_DONE(rc, eg_bell_get_late(e, &late, 0, &bell, NULL));
    assert_true(rc == EAGRE_OK && bell == 9 && late == NULL);
    assert_int_equal(fake.seen[EG_MSG_BELL], 1);

    fake.act[EG_MSG_BELL] = FAKE_STALL;
    assert_int_equal(eg_bell_get_late(e, &late, 0, &bell, NULL), EAGRE_E_WOULD_BLOCK);
    eg_session_give_up(e, &late);
    assert_null(late);
    fake_go_on(&fake);
    assert_int_equal(list(), EAGRE_OK);
    assert_int_equal(list(), EAGRE_OK);
    assert_int_equal(fake.seen[EG_MSG_BELL_FREE], 1);
}

/* A connection whose ATTACH was answered is a client's for good: who has not got the answer needs another one. */
static void test_a_lost_attach(void **state) {
    (void)state;
    fake.act[EG_MSG_ATTACH] = FAKE_STALL;
    eg_request_limit_ns = SHORT_NS;
    assert_int_equal(eg_client_attach(e), EAGRE_E_TIMED_OUT);
    assert_says_stopped();
    fake_go_on(&fake);
    eg_request_limit_ns = 10 * EG_NS_PER_S;
    fake.act[EG_MSG_ATTACH] = FAKE_NO_FDS; /* as for who may have no more of them */
    assert_int_equal(eg_client_attach(e), EAGRE_E_PROTOCOL);
    assert_int_equal(eg_client_attach(e), EAGRE_OK);
    assert_int_equal(fake.seen[EG_MSG_ATTACH], 3);
    assert_int_equal(fake.seen[EG_MSG_HELLO], 3);
}

static void test_a_late_buffer(void **state) {
    (void)state;
    struct eg_until until = {.ns = INT64_MAX};
    struct eg_topic *t = open_ok(EG_ROLE_PRODUCER, &until);
    struct eg_partition_map *m = NULL;
    int rc;
    until.ns = 0;
    fake.act[EG_MSG_BUFFERS] = FAKE_STALL;
    assert_int_equal(eg_topic_partition(t, 1, &m), EAGRE_E_WOULD_BLOCK);
    assert_int_equal(eg_topic_partition(t, 1, &m), EAGRE_E_WOULD_BLOCK);
    assert_null(m);
    fake_go_on(&fake);
    UNTIL_DONE(rc, eg_topic_partition(t, 1, &m));
    assert_int_equal(rc, EAGRE_OK);
    assert_int_equal(fake.seen[EG_MSG_BUFFERS], 1);

    fake.act[EG_MSG_BUFFERS] = FAKE_STALL;
    assert_int_equal(m->ops->fetch_buffer(m, 1), EAGRE_E_WOULD_BLOCK);
    assert_says_stopped();
    assert_true(eg_topic_waits(m));
    assert_int_equal(m->ops->fetch_buffer(m, 2), EAGRE_E_WOULD_BLOCK); /* another one is wanted now */
    fake_go_on(&fake);
    UNTIL_DONE(rc, m->ops->fetch_buffer(m, 2));
    assert_int_equal(rc, EAGRE_OK);
    assert_false(eg_topic_waits(m));
    assert_int_equal(fake.seen[EG_MSG_BUFFERS], 3);
    eg_topic_close(t);
}

/* The one that was asked dies: the next one is asked again. */
static void test_a_daemon_that_dies_with_it(void **state) {
    (void)state;
    struct eg_until until = {.ns = INT64_MAX};
    struct eg_topic *t = open_ok(EG_ROLE_CONSUMER, &until);
    struct eg_partition_map *m = NULL;
    int rc;
    until.ns = 0;
    fake.act[EG_MSG_BUFFERS] = FAKE_DIE_LATE;
    assert_int_equal(eg_topic_partition(t, 0, &m), EAGRE_E_WOULD_BLOCK);
    fake_go_on(&fake);
    UNTIL_DONE(rc, eg_topic_partition(t, 0, &m));
    assert_int_equal(rc, EAGRE_OK);
    assert_int_equal(fake.seen[EG_MSG_BUFFERS], 2);
    assert_int_equal(fake.seen[EG_MSG_HELLO], 2);
    assert_int_equal(fake.attach_held, 100);
    eg_topic_close(t);
}

/* Connecting takes up where it was, at each of its steps. */
static void test_a_successor_that_hangs(void **state) {
    static const uint16_t steps[] = {EG_MSG_HELLO, EG_MSG_ATTACH};
    (void)state;
    assert_int_equal(eg_client_attach(e), EAGRE_OK);
    for (size_t i = 0; i < 2; i++) {
        int hellos = fake.seen[EG_MSG_HELLO], rc = EAGRE_E_NO_DAEMON;
        fake_stop(&fake);
        fake_start(&fake);
        fake.act[steps[i]] = FAKE_STALL;
        for (int k = 0; sem_trywait(&fake.stalled) != 0; k++) { /* until it is there */
            assert_true(k < 10000);
            assert_int_equal(eg_session_check(e, 0), EAGRE_E_NO_DAEMON);
            poll(NULL, 0, 1);
        }
        assert_int_equal(eg_session_check(e, 0), EAGRE_E_NO_DAEMON);
        eg_request_limit_ns = SHORT_NS;
        assert_int_equal(list(), EAGRE_E_TIMED_OUT);
        assert_says_stopped();
        eg_request_limit_ns = 10 * EG_NS_PER_S;
        fake_go_on(&fake);
        for (int k = 0; k < 10000 && rc != EAGRE_OK; k++, poll(NULL, 0, 1))
            rc = eg_session_check(e, 0);
        assert_int_equal(rc, EAGRE_OK);
        assert_int_equal(fake.seen[EG_MSG_HELLO], hellos + 1);
        assert_int_equal(list(), EAGRE_OK);
    }
}

/* So does changing over to another instance. */
static void test_another_instance_that_hangs(void **state) {
    static const uint16_t steps[] = {EG_MSG_OPEN, EG_MSG_BUFFERS};
    (void)state;
    struct eg_until until = {.ns = INT64_MAX};
    struct eg_topic *t = open_ok(EG_ROLE_PRODUCER, &until);
    struct eg_partition_map *m = NULL, *same = NULL;
    assert_int_equal(eg_topic_partition(t, 0, &m), EAGRE_OK);
    for (size_t i = 0; i < 2; i++) {
        int rc;
        m->bufs[0].base[0] = 1;
        fake_stop(&fake);
        fake_drop_memory(&fake);
        fake_new_memory(&fake, 2222 + i);
        fake_start(&fake);
        until.ns = INT64_MAX;
        for (int k = 0; k < 1000 && t->generation == e->generation; k++) {
            e->retry_ns = 0;
            eg_session_check(e, INT64_MAX);
        }
        until = at_once;
        int opened = fake.seen[EG_MSG_OPEN];
        fake.act[steps[i]] = FAKE_STALL;
        for (int k = 0; sem_trywait(&fake.stalled) != 0; k++) {
            assert_true(k < 10000);
            assert_int_equal(eg_topic_reopen(t), EAGRE_E_WOULD_BLOCK);
            poll(NULL, 0, 1);
        }
        assert_int_equal(m->bufs[0].base[0], 1); /* the old state stays */
        fake_go_on(&fake);
        UNTIL_DONE(rc, eg_topic_reopen(t));
        assert_int_equal(rc, EAGRE_OK);
        assert_int_equal(fake.seen[EG_MSG_OPEN], opened + 1);
        assert_int_equal(m->bufs[0].base[0], 0);
        assert_int_equal(eg_topic_partition(t, 0, &same), EAGRE_OK);
        assert_ptr_equal(m, same);
    }
    /* And it may be left in the middle. */
    fake_stop(&fake);
    fake_drop_memory(&fake);
    fake_new_memory(&fake, 3333);
    fake_start(&fake);
    while (t->generation == e->generation) {
        e->retry_ns = 0;
        eg_session_check(e, INT64_MAX);
    }
    int released = fake.seen[EG_MSG_RELEASE];
    fake.act[EG_MSG_BUFFERS] = FAKE_STALL;
    while (sem_trywait(&fake.stalled) != 0)
        assert_int_equal(eg_topic_reopen(t), EAGRE_E_WOULD_BLOCK);
    fake_go_on(&fake);
    eg_topic_close(t);
    assert_int_equal(list(), EAGRE_OK);
    assert_int_equal(fake.seen[EG_MSG_RELEASE], released + 1); /* one grant of the new instance, none of the old */
    assert_int_equal(e->held_count, 0);
}

struct closing {
    pthread_t thread;
    _Atomic int done;
};

/* A poll that does not wait returns at once, also while another thread waits for the daemon. */
static void *lists(void *arg) {
    struct closing *c = arg;
    list();
    c->done = 1;
    return NULL;
}

static void test_a_poll_while_another_thread_waits(void **state) {
    (void)state;
    struct closing other = {.done = 0};
    struct eg_late *late = NULL;
    uint32_t bell;
    assert_int_equal(eg_client_attach(e), EAGRE_OK);
    fake.act[EG_MSG_TOPIC_LIST] = FAKE_STALL;
    pthread_create(&other.thread, NULL, lists, &other);
    fake_wait_stalled(&fake);
    assert_int_equal(eg_session_check(e, 0), EAGRE_OK);
    assert_int_equal(eg_bell_get_late(e, &late, 0, &bell, NULL), EAGRE_E_WOULD_BLOCK);
    assert_int_equal(other.done, 0);
    fake_go_on(&fake);
    pthread_join(other.thread, NULL);
    eg_session_give_up(e, &late);
}

/* Mappings of this process that the fake's buffers lie behind. */
static int mapped_buffers(void) {
    char line[512];
    int n = 0;
    FILE *f = fopen("/proc/self/maps", "r");
    while (fgets(line, sizeof(line), f) != NULL)
        n += strstr(line, "memfd:buffer") != NULL;
    fclose(f);
    return n;
}

/* Slots 0 .. name buffers 1, 2, 1: 0 is nobody's any more. */
static void test_buffers_that_no_slot_names_are_unmapped(void **state) {
    (void)state;
    struct eg_topic *t = open_ok(EG_ROLE_PRODUCER, NULL);
    struct eg_partition_map *m = NULL;
    assert_int_equal(eg_topic_partition(t, 0, &m), EAGRE_OK);
    int before = mapped_buffers();
    uint8_t *used = m->bufs[0].base;
    for (uint32_t i = 0; i < FAKE_SLOTS; i++)
        eg_store_relaxed(&m->ring->slot[i].word, eg_slot_make(i, i, EG_SLOT_OPEN));
    eg_topic_used_by(m, &used);
    eg_topic_trim(t);
    assert_int_equal(mapped_buffers(), before);
    eg_store_relaxed(&m->ring->slot[0].word, eg_slot_make(3, 1, EG_SLOT_OPEN));
    eg_topic_trim(t);
    assert_int_equal(mapped_buffers(), before); /* this handle is in it */
    assert_ptr_equal(m->bufs[0].base, used);
    used = m->bufs[1].base;
    eg_topic_trim(t);
    assert_int_equal(mapped_buffers(), before - 1);
    assert_true(m->bufs[0].base == NULL && m->bufs[0].fd == -1 && m->bufs[0].ready_to == 0);
    eg_store_relaxed(&m->ring->slot[2].word, eg_slot_make(5, 0xffff, EG_SLOT_OPEN)); /* a lie */
    assert_int_equal(m->ops->fetch_buffer(m, 0), EAGRE_OK);
    assert_true(m->bufs[0].base != NULL && m->bufs[2].base == NULL);
    eg_topic_close(t);
}

int main(void) {
    const struct CMUnitTest tests[] = {
#define EACH(t) cmocka_unit_test_setup_teardown(t, setup, teardown)
        EACH(test_the_limit_of_a_request),
        EACH(test_a_late_grant_is_given_back),
        EACH(test_a_late_bell),
        EACH(test_a_lost_attach),
        EACH(test_a_late_buffer),
        EACH(test_a_daemon_that_dies_with_it),
        EACH(test_a_successor_that_hangs),
        EACH(test_another_instance_that_hangs),
        EACH(test_a_poll_while_another_thread_waits),
        EACH(test_buffers_that_no_slot_names_are_unmapped),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
