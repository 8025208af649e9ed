/* A member of a group whose daemon is late, says nonsense, or dies at the worst moment. */
#include "fake_daemon.h"

#include "client/exchange.h"
#include "client/group.h"
#include "eagre/admin.h"
#include "sys/clock.h"

#define SHORT_NS (20 * EG_NS_PER_MS)

static struct fake fake;
static eagre_t *e;
static eagre_consumer_t *c;
static int fds_before;
static char events[64]; /* "a2 r1" */

static void note(char what, size_t n) {
    snprintf(events + strlen(events), sizeof(events) - strlen(events), "%s%c%zu", events[0] != '\0' ? " " : "", what, n);
}
static void revoked(eagre_consumer_t *of, const eagre_topic_partition_t *list, size_t n, void *ctx) {
    (void)of, (void)list, (void)ctx;
    note('r', n);
}
static void assigned(eagre_consumer_t *of, const eagre_topic_partition_t *list, size_t n, void *ctx) {
    (void)ctx;
    note('a', n);
    for (size_t i = 0; i < n; i++) /* there is nothing to be read here */
        assert_int_equal(eagre_consumer_pause(of, list[i].topic, list[i].partition), EAGRE_OK);
}
static void lost(eagre_consumer_t *of, const eagre_topic_partition_t *list, size_t n, void *ctx) {
    (void)of, (void)list, (void)ctx;
    note('l', n);
}

static void open_consumer(const char *instance_id, int auto_commit) {
    const eagre_rebalance_callbacks_t callbacks = {revoked, assigned, lost, NULL};
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    o.group_id = "g";
    o.group_instance_id = instance_id;
    o.enable_auto_commit = auto_commit;
    assert_int_equal(eagre_consumer_open(e, &o, &c), EAGRE_OK);
    assert_int_equal(eagre_consumer_on_rebalance(c, &callbacks), EAGRE_OK);
}

static int setup(void **state) {
    (void)state;
    fake_begin(&fake);
    fds_before = fake_open_fds();
    fake.partitions = 8;
    eg_store_release(&fake.status_map->partitions, 8);
    fake.committed = 7;
    events[0] = '\0';
    if (eagre_open(fake.path, &e) != EAGRE_OK)
        return -1;
    open_consumer(NULL, 0);
    return 0;
}

static int teardown(void **state) {
    (void)state;
    eg_request_limit_ns = 10 * EG_NS_PER_S;
    eagre_consumer_close(c);
    assert_int_equal(eagre_close(e), EAGRE_OK);
    fake_stop(&fake);
    fake_start(&fake);
    assert_int_equal(fake_open_fds(), fds_before);
    fake_end(&fake);
    return 0;
}

static int subscribe(void) { return eagre_consumer_subscribe(c, (const char *const[]){"t"}, 1); }

/* The daemon gives it these partitions. */
static void give(uint32_t parts) {
    fake.given = parts;
    atomic_fetch_add(&fake.member_map->version, 1);
}

static int poll_once(void) {
    eagre_record_t r;
    size_t n;
    return eagre_consumer_poll(c, &r, 1, 0, &n);
}

static void poll_well(void) {
    int rc = poll_once();
    if (rc != EAGRE_OK)
        fail_msg("poll: %s, '%s'", eagre_status_name(rc), eagre_error_detail());
}

static size_t count(void) {
    size_t n;
    assert_int_equal(eagre_consumer_assignment(c, NULL, 0, &n), EAGRE_OK);
    return n;
}

/* Poll, without waiting, until it has so many and the daemon knows it. */
static void poll_until(size_t n) {
    uint32_t version = eg_load_relaxed(&fake.member_map->version);
    for (int i = 0; i < 20000 && (count() != n || fake.applied != version); i++) {
        poll_well();
        poll(NULL, 0, 1);
    }
    assert_int_equal(count(), n);
    assert_int_equal(fake.applied, version);
}

static void join(uint32_t parts) {
    assert_int_equal(subscribe(), EAGRE_OK);
    give(parts);
    poll_until((size_t)__builtin_popcount(parts));
}

/* ---- late ------------------------------------------------------------------------------------------------- */

static int list(void) {
    eagre_topic_entry_t *topics = NULL;
    size_t n = 0;
    int rc = eagre_topic_list(e, &topics, &n);
    if (rc == EAGRE_OK)
        free(topics);
    return rc;
}

/* Else the group has a member that nobody is. */
static void test_a_late_join_is_given_back(void **state) {
    (void)state;
    fake.act[EG_MSG_GROUP_JOIN] = FAKE_STALL;
    eg_request_limit_ns = SHORT_NS;
    assert_int_equal(subscribe(), EAGRE_E_TIMED_OUT);
    fake_go_on(&fake);
    eg_request_limit_ns = 10 * EG_NS_PER_S;
    assert_int_equal(list(), EAGRE_OK);
    assert_int_equal(list(), EAGRE_OK); /* it was sent before this one */
    assert_int_equal(fake.seen[EG_MSG_GROUP_LEAVE], 1);
    assert_int_equal(e->member_count, 0);
}

/* Its place is kept. */
static void test_a_late_join_of_a_static_member(void **state) {
    (void)state;
    eagre_consumer_close(c);
    open_consumer("static", 0);
    fake.act[EG_MSG_GROUP_JOIN] = FAKE_STALL;
    eg_request_limit_ns = SHORT_NS;
    assert_int_equal(subscribe(), EAGRE_E_TIMED_OUT);
    fake_go_on(&fake);
    eg_request_limit_ns = 10 * EG_NS_PER_S;
    assert_int_equal(list(), EAGRE_OK);
    assert_int_equal(list(), EAGRE_OK);
    assert_int_equal(fake.seen[EG_MSG_GROUP_LEAVE], 1);
    assert_int_equal(fake.leave_how, 1);
}

/* Poll until the daemon has been told a wish so many times. */
static void poll_until_wished(int times) {
    for (int i = 0; i < 20000 && fake.seen[EG_MSG_GROUP_SUBSCRIBE] < times; i++) {
        poll_well();
        poll(NULL, 0, 1);
    }
    assert_int_equal(fake.seen[EG_MSG_GROUP_SUBSCRIBE], times);
}

/* The daemon may have heard it all the same. */
static void test_a_subscribe_that_failed_is_taken_back(void **state) {
    (void)state;
    join(1);
    fake.act[EG_MSG_GROUP_SUBSCRIBE] = FAKE_STALL;
    eg_request_limit_ns = SHORT_NS;
    assert_int_equal(eagre_consumer_subscribe(c, (const char *const[]){"u"}, 1), EAGRE_E_TIMED_OUT);
    fake_go_on(&fake);
    eg_request_limit_ns = 10 * EG_NS_PER_S;
    poll_until_wished(3);
    assert_string_equal(fake.wish, "t");
    assert_string_equal(events, "a1");
}

/* One of them may be open to us only now. */
static void test_what_matches_is_said_with_each_change_of_topics(void **state) {
    (void)state;
    assert_int_equal(eagre_consumer_subscribe(c, (const char *const[]){"^[abc]$"}, 1), EAGRE_OK);
    assert_int_equal(fake.wished, 3);
    atomic_fetch_add(&fake.member_map->topics, 1);
    poll_until_wished(2);
    assert_int_equal(fake.wished, 3);
}

/* Another daemon does not know what the one before was told. */
static void test_a_wish_in_parts_begins_again(void **state) {
    enum { NAMES = 400, LENGTH = 240 };
    static char names[NAMES][LENGTH + 1];
    const char *list_of[NAMES];
    (void)state;
    for (int i = 0; i < NAMES; i++) {
        snprintf(names[i], sizeof(names[i]), "%0*d", LENGTH, i);
        list_of[i] = names[i];
    }
    fake.parts_lost = true;
    assert_int_equal(eagre_consumer_subscribe(c, list_of, NAMES), EAGRE_OK);
    assert_int_equal(fake.wished, NAMES);
    assert_int_equal(fake.seen[EG_MSG_GROUP_SUBSCRIBE], 4);
}

static void test_a_join_that_a_daemon_took_along(void **state) {
    (void)state;
    fake.act[EG_MSG_GROUP_JOIN] = FAKE_CLOSE;
    assert_int_equal(subscribe(), EAGRE_OK);
    assert_int_equal(fake.seen[EG_MSG_GROUP_JOIN], 2);
    assert_int_equal(fake.attach_members, 0); /* the first one leaves */
    assert_int_equal(e->member_count, 1);
    fake_stop(&fake);
    fake_start(&fake);
    assert_int_equal(list(), EAGRE_OK);
    assert_int_equal(fake.attach_members, 1);
}

/* Each step of taking over what is given, with an answer that is late: no poll waits, and what it has is read on. */
static void test_no_poll_waits(void **state) {
    static const uint16_t steps[] = {EG_MSG_OPEN, EG_MSG_GROUP_SYNC, EG_MSG_BUFFERS};
    (void)state;
    assert_int_equal(subscribe(), EAGRE_OK);
    for (size_t i = 0; i < 3; i++) {
        uint32_t before = (uint32_t)count();
        fake.act[steps[i]] = FAKE_STALL;
        give((2u << i) - 1);
        for (int k = 0; sem_trywait(&fake.stalled) != 0; k++) {
            assert_true(k < 20000);
            poll_well();
            poll(NULL, 0, 1);
        }
        for (int k = 0; k < 100; k++)
            poll_well();
        assert_int_equal(count(), before);
        int64_t position;
        assert_int_equal(eagre_consumer_position(c, "t", 0, &position), before == 0 ? EAGRE_E_STATE : EAGRE_OK);
        assert_true(before == 0 || position == 7);
        fake_go_on(&fake);
        poll_until(before + 1);
    }
    assert_string_equal(events, "a1 a1 a1");
}

/* Overtaken while it is taken over. */
static void test_a_version_that_is_past(void **state) {
    (void)state;
    join(3);
    fake.act[EG_MSG_BUFFERS] = FAKE_STALL;
    give(12);
    for (int k = 0; sem_trywait(&fake.stalled) != 0; k++) {
        assert_true(k < 20000);
        poll_well();
        poll(NULL, 0, 1);
    }
    assert_string_equal(events, "a2 r2");
    give(1);
    fake_go_on(&fake);
    poll_until(1);
    assert_string_equal(events, "a2 r2 a1"); /* the two that were on their way were never its own */
}

static void test_a_list_in_pages(void **state) {
    (void)state;
    fake.parts_a_page = 1;
    join(3);
    assert_string_equal(events, "a2");
    give(2);
    poll_until(1);
    assert_string_equal(events, "a2 r1");
    give(3);
    poll_until(2);
    assert_string_equal(events, "a2 r1 a1");
}

/* ---- nonsense ------------------------------------------------------------------------------------------------ */

static void test_answers_that_are_nonsense(void **state) {
    static const int acts[] = {FAKE_GARBLE_SHORT, FAKE_GARBLE_LONG, FAKE_GARBLE_ID, FAKE_GARBLE_TYPE, FAKE_GARBLE_STATUS};
    (void)state;
    for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
        fake.act[EG_MSG_GROUP_JOIN] = acts[i];
        int rc = subscribe();
        assert_true(rc == EAGRE_E_PROTOCOL || rc == EAGRE_E_NO_DAEMON);
        assert_null(c->group->page);
    }
    fake.act[EG_MSG_GROUP_JOIN] = FAKE_NO_FDS;
    assert_int_equal(subscribe(), EAGRE_E_PROTOCOL);
    assert_non_null(strstr(eagre_error_detail(), "group 'g'"));
    fake.member_map->member++;
    assert_int_equal(subscribe(), EAGRE_E_PROTOCOL);
    fake.member_map->member--;
    join(3);
    for (size_t i = 0; i < sizeof(acts) / sizeof(acts[0]); i++) {
        int rc = EAGRE_OK;
        fake.act[EG_MSG_GROUP_SYNC] = acts[i];
        give(1);
        for (int k = 0; k < 20000 && rc == EAGRE_OK && fake.act[EG_MSG_GROUP_SYNC] != FAKE_ANSWER; k++) {
            rc = poll_once();
            poll(NULL, 0, 1);
        }
        for (int k = 0; k < 20000 && (count() != 1 || fake.applied != eg_load_relaxed(&fake.member_map->version)); k++) {
            rc = poll_once(); /* says so, perhaps, and asks again */
            assert_true(rc == EAGRE_OK || rc == EAGRE_E_PROTOCOL);
            poll(NULL, 0, 1);
        }
        give(3);
        poll_until(2);
    }
}

/* A partition that cannot be opened is told of, does not keep the others, and is tried again. */
static void test_a_partition_that_cannot_be_opened(void **state) {
    (void)state;
    assert_int_equal(subscribe(), EAGRE_OK);
    fake.act[EG_MSG_BUFFERS] = FAKE_REFUSE;
    give(3);
    int rc = EAGRE_OK;
    for (int k = 0; k < 20000 && rc == EAGRE_OK; k++) {
        rc = poll_once();
        poll(NULL, 0, 1);
    }
    assert_int_equal(rc, EAGRE_E_LIMIT);
    assert_non_null(strstr(eagre_error_detail(), "group 'g': topic 't' partition 0: no more"));
    assert_int_equal(count(), 1);
    poll_until(2); /* and the daemon was told meanwhile */
    assert_string_equal(events, "a1 a1");
}

static void test_a_clamped_offset_is_told(void **state) {
    (void)state;
    fake.offset_flags = EG_OFFSET_CLAMPED;
    assert_int_equal(subscribe(), EAGRE_OK);
    give(1);
    int rc = EAGRE_OK;
    for (int k = 0; k < 20000 && rc == EAGRE_OK; k++) {
        rc = poll_once();
        poll(NULL, 0, 1);
    }
    assert_int_equal(rc, EAGRE_E_OFFSET_OUT_OF_RANGE);
    assert_non_null(strstr(eagre_error_detail(), "group 'g': topic 't' partition 0: a crash of the host"));
    assert_int_equal(count(), 1);
    poll_until(1); /* once */
}

/* ---- out ------------------------------------------------------------------------------------------------------- */

static void put_out(uint32_t state) {
    eg_store_release(&fake.member_map->state, state);
    atomic_fetch_add(&fake.member_map->rings, 1);
}

static void test_a_commit_that_waits_is_told(void **state) {
    (void)state;
    join(3);
    assert_int_equal(eagre_consumer_commit(c, NULL, 0, 1000), EAGRE_OK);
    assert_int_equal(eg_load_acquire(&fake.member_map->cell[10]), 7);
    fake.never_stores = true;
    assert_int_equal(eagre_consumer_commit(c, NULL, 0, 20), EAGRE_E_TIMED_OUT);
    put_out(EG_MEMBER_OUT);
    assert_int_equal(eagre_consumer_commit(c, NULL, 0, 1000), EAGRE_E_FENCED);
    eg_store_release(&fake.member_map->state, EG_MEMBER_IN); /* of the next one */
    fake.given = 0;
}

static void test_who_is_out_joins_again(void **state) {
    (void)state;
    join(3);
    put_out(EG_MEMBER_OUT);
    assert_int_equal(poll_once(), EAGRE_E_FENCED);
    assert_int_equal(count(), 0);
    assert_string_equal(events, "a2 l2");
    assert_int_equal(e->member_count, 0);
    eg_store_release(&fake.member_map->state, EG_MEMBER_IN);
    give(1);
    poll_until(1);
    assert_int_equal(fake.seen[EG_MSG_GROUP_JOIN], 2);
    assert_int_equal(fake.seen[EG_MSG_GROUP_SUBSCRIBE], 2);
    put_out(EG_MEMBER_TAKEN);
    for (int i = 0; i < 3; i++)
        assert_int_equal(poll_once(), EAGRE_E_FENCED);
    eg_store_release(&fake.member_map->state, EG_MEMBER_IN);
    assert_int_equal(poll_once(), EAGRE_E_FENCED); /* until it subscribes */
    assert_int_equal(fake.seen[EG_MSG_GROUP_JOIN], 2);
    assert_int_equal(subscribe(), EAGRE_OK);
    assert_int_equal(fake.seen[EG_MSG_GROUP_JOIN], 3);
}

/* Only the daemon knows it: its page says nothing. */
static void test_who_is_denied_joins_again(void **state) {
    eagre_member_info_t info;
    int rc = EAGRE_OK;
    (void)state;
    join(3);
    fake.act[EG_MSG_GROUP_COMMIT] = FAKE_FENCE;
    assert_int_equal(eagre_consumer_commit(c, NULL, 0, 1000), EAGRE_E_FENCED);
    assert_int_equal(eagre_consumer_commit_async(c, NULL, 0), EAGRE_E_FENCED);
    assert_int_equal(eagre_consumer_member(c, &info), EAGRE_OK);
    assert_int_equal(info.member, 0);
    poll_well(); /* the commit has said it */
    assert_int_equal(strncmp(events, "a2 l2", 5), 0);
    poll_until(2);
    assert_int_equal(fake.seen[EG_MSG_GROUP_LEAVE], 1);
    fake.act[EG_MSG_GROUP_SYNC] = FAKE_FENCE;
    give(7);
    for (int k = 0; k < 20000 && rc == EAGRE_OK; k++) {
        rc = poll_once();
        poll(NULL, 0, 1);
    }
    assert_int_equal(rc, EAGRE_E_FENCED);
    poll_until(3);
    fake.act[EG_MSG_GROUP_SUBSCRIBE] = FAKE_FENCE;
    assert_int_equal(subscribe(), EAGRE_OK);
    poll_until(3);
    assert_string_equal(events, "a2 l2 a2 l2 a3 l3 a3");
    assert_int_equal(fake.seen[EG_MSG_GROUP_JOIN], 4);
    assert_int_equal(fake.seen[EG_MSG_GROUP_LEAVE], 3);
    assert_int_equal(e->member_count, 1);
}

/* A daemon that knows only half of it, and thinks that it is still there. */
static void test_who_is_out_leaves(void **state) {
    (void)state;
    join(3);
    fake.leave_how = 7;
    put_out(EG_MEMBER_OUT);
    assert_int_equal(poll_once(), EAGRE_E_FENCED);
    eg_store_release(&fake.member_map->state, EG_MEMBER_IN);
    poll_until(2);
    assert_int_equal(fake.seen[EG_MSG_GROUP_LEAVE], 1);
    assert_int_equal(fake.leave_how, 0);
}

static void test_a_commit_that_the_daemon_refuses(void **state) {
    (void)state;
    join(1);
    fake.act[EG_MSG_GROUP_COMMIT] = FAKE_BEYOND;
    assert_int_equal(eagre_consumer_commit(c, NULL, 0, 1000), EAGRE_E_OFFSET_OUT_OF_RANGE);
    assert_non_null(strstr(eagre_error_detail(), "group 'g': no such offset"));
    assert_int_equal(eagre_consumer_commit(c, NULL, 0, 1000), EAGRE_OK);
}

static void test_how_it_leaves(void **state) {
    (void)state;
    join(1);
    eagre_consumer_close(c);
    assert_int_equal(fake.leave_how, 0);
    assert_string_equal(events, "a1 r1");
    open_consumer("static", 1);
    join(1);
    eagre_consumer_close(c);
    assert_int_equal(fake.leave_how, 1);
    open_consumer("static", 1);
    join(1);
    assert_int_equal(eagre_consumer_unsubscribe(c), EAGRE_OK);
    assert_int_equal(fake.leave_how, 0);
    assert_int_equal(fake.seen[EG_MSG_GROUP_LEAVE], 3);
}

/* A daemon that hangs costs who closes a second at most; the next one is told what it is then. */
static void test_leaving_a_daemon_that_hangs(void **state) {
    (void)state;
    join(1);
    fake.act[EG_MSG_GROUP_LEAVE] = FAKE_DIE_LATE;
    eagre_consumer_close(c);
    fake_go_on(&fake);
    assert_int_equal(list(), EAGRE_OK);
    assert_int_equal(fake.attach_members, 0);
    open_consumer(NULL, 0);
}

/* One that was just told that we are a member still. */
static void test_leaving_while_it_attaches(void **state) {
    (void)state;
    for (int how = 0; how < 2; how++) {
        join(1);
        fake_stop(&fake);
        fake_start(&fake);
        fake.act[EG_MSG_ATTACH] = FAKE_STALL;
        for (int k = 0; sem_trywait(&fake.stalled) != 0; k++) {
            assert_true(k < 10000);
            assert_int_equal(eg_session_check(e, 0), EAGRE_E_NO_DAEMON);
            poll(NULL, 0, 1);
        }
        if (how == 0)
            assert_int_equal(eagre_consumer_unsubscribe(c), EAGRE_OK);
        else
            eagre_consumer_close(c);
        fake_go_on(&fake);
        assert_int_equal(list(), EAGRE_OK);
        assert_int_equal(fake.attach_members, 0);
        assert_int_equal(fake.attach_held, 0); /* nor of what it read */
    }
    open_consumer(NULL, 0);
}

/* Nor is one that takes no requests, and goes on later, to count us for ever. */
static void test_leaving_a_daemon_that_hears_nothing(void **state) {
    (void)state;
    join(1);
    fake.act[EG_MSG_TOPIC_LIST] = FAKE_STALL;
    eg_request_limit_ns = SHORT_NS;
    assert_int_equal(list(), EAGRE_E_TIMED_OUT);
    for (bool full = false; !full;) {
        struct eg_late *late = NULL;
        uint32_t bell;
        assert_int_equal(eg_bell_get_late(e, &late, 0, &bell, NULL), EAGRE_E_WOULD_BLOCK);
        full = late == NULL; /* it was not even sent */
        eg_session_give_up(e, &late);
    }
    assert_int_equal(eagre_consumer_unsubscribe(c), EAGRE_OK);
    fake_go_on(&fake);
    eg_request_limit_ns = 10 * EG_NS_PER_S;
    assert_int_equal(list(), EAGRE_OK);
    assert_int_equal(fake.attach_members, 0);
    assert_int_equal(fake.seen[EG_MSG_ATTACH], 2);
    assert_int_equal(fake.seen[EG_MSG_GROUP_LEAVE], 0);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv) {
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        TEST(test_a_late_join_is_given_back),
        TEST(test_a_late_join_of_a_static_member),
        TEST(test_a_subscribe_that_failed_is_taken_back),
        TEST(test_what_matches_is_said_with_each_change_of_topics),
        TEST(test_a_wish_in_parts_begins_again),
        TEST(test_a_join_that_a_daemon_took_along),
        TEST(test_no_poll_waits),
        TEST(test_a_version_that_is_past),
        TEST(test_a_list_in_pages),
        TEST(test_answers_that_are_nonsense),
        TEST(test_a_partition_that_cannot_be_opened),
        TEST(test_a_clamped_offset_is_told),
        TEST(test_a_commit_that_waits_is_told),
        TEST(test_who_is_out_joins_again),
        TEST(test_who_is_denied_joins_again),
        TEST(test_who_is_out_leaves),
        TEST(test_a_commit_that_the_daemon_refuses),
        TEST(test_how_it_leaves),
        TEST(test_leaving_a_daemon_that_hangs),
        TEST(test_leaving_while_it_attaches),
        TEST(test_leaving_a_daemon_that_hears_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
