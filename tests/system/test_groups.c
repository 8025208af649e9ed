/*
 * Members of groups, as their applications see it: who reads what, what callbacks say and when, how one comes, goes,
 * and is put out.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <unistd.h>

#include "client/session.h"
#include "eagre/admin.h"
#include "harness_group.h"
#include "sys/clock.h"

static const char *const four[] = {"four"};

/* The events of a member, and no others: "a4 r2". */
static void assert_events(const struct member *m, const char *wanted) {
    char text[EVENTS * 4] = "";
    for (size_t i = 0; i < m->event_count; i++)
        snprintf(text + strlen(text), sizeof(text) - strlen(text), "%s%c%zu", i > 0 ? " " : "", m->events[i].what,
                 m->events[i].n);
    assert_string_equal(text, wanted);
}

static uint32_t generation(struct member *m) {
    eagre_member_info_t info;
    OK(eagre_consumer_member(m->c, &info));
    assert_int_not_equal(info.member, 0);
    return info.generation;
}

static void members_share_the_partitions(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    struct member *both[] = {&a, &b};
    m_join(&a, &o);
    m_settle(both, (size_t[]){4}, 1);
    m_join(&b, &o);
    m_settle(both, (size_t[]){2, 2}, 2);
    assert_int_equal(m_parts(&a) ^ m_parts(&b), 15);
    m_produce(1000);
    m_take(both, 2, 4 * 1000);
    OK(eagre_consumer_commit(b.c, NULL, 0, EG_TEST_LIMIT_MS));
    m_close(&b);
    m_settle(both, (size_t[]){4}, 1);
    m_produce(10); /* a goes on where b's commit was: m_poll looks at each offset */
    m_take(both, 1, a.records + 4 * 10);
    assert_true(a.no_polls);
    m_close(&a);
}

static void groups_read_independently(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member m[3] = {0};
    const char *const names[] = {"one", "two", "three"};
    m_produce(100);
    for (int i = 0; i < 3; i++) {
        o.group_id = names[i];
        m_join(&m[i], &o);
    }
    for (int i = 0; i < 3; i++) {
        m_take((struct member *[]){&m[i]}, 1, 400);
        OK(eagre_consumer_commit(m[i].c, NULL, 0, EG_TEST_LIMIT_MS));
    }
    for (int i = 0; i < 3; i++)
        m_close(&m[i]);
}

static void more_members_than_partitions(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member m[6] = {0};
    struct member *all[6];
    for (int i = 0; i < 6; i++) {
        all[i] = &m[i];
        m_join(&m[i], &o);
    }
    int64_t until = eg_mono_ns() + EG_TEST_LIMIT_MS * EG_NS_PER_MS;
    size_t idle = 0, having = 0;
    for (uint32_t bits = 0; bits != 15 || having != 4;) {
        assert_true(eg_mono_ns() < until);
        bits = 0;
        having = 0;
        for (size_t i = 0; i < 6; i++) {
            m_poll(&m[i], 1);
            bits |= m_parts(&m[i]);
            having += m_count(&m[i]);
            idle = m_count(&m[i]) == 0 ? i : idle;
        }
    }
    m_produce(10);
    m_take(all, 6, 40);
    assert_int_equal(m[idle].records, 0);
    for (size_t i = 0; i < 6; i++) {
        if (i == idle)
            continue;
        OK(eagre_consumer_commit(m[i].c, NULL, 0, EG_TEST_LIMIT_MS));
        m_close(&m[i]);
    }
    m_settle((struct member *[]){&m[idle]}, (size_t[]){4}, 1);
    m_close(&m[idle]);
}

/* ---- callbacks ----------------------------------------------------------------------------------------------- */

static void cooperative_members_keep_what_they_may(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {.commits = true}, b = {0};
    struct member *both[] = {&a, &b};
    m_join(&a, &o);
    m_settle(both, (size_t[]){4}, 1);
    m_produce(5);
    m_take(both, 1, 20);
    uint32_t kept = 0;
    m_join(&b, &o);
    while (m_count(&b) != 2) {
        m_poll(&a, 1);
        kept = m_parts(&a);
        assert_true(m_count(&a) >= 2);
        m_poll(&b, 1);
        assert_int_equal(m_parts(&a) & m_parts(&b), 0);
    }
    assert_events(&a, "a4 r2");
    assert_events(&b, "a2");
    assert_int_equal(a.events[1].parts, b.events[0].parts);
    assert_int_equal(kept ^ b.events[0].parts, 15);
    assert_int_equal(b.records, 0); /* a had committed them in its callback */
    m_close(&b);
    assert_events(&b, "a2 r2");
    m_close(&a);
}

static void eager_members_give_all_up_first(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {.commits = true}, b = {0};
    struct member *both[] = {&a, &b};
    o.partition_assignment_strategy = "range,roundrobin";
    m_join(&a, &o);
    m_settle(both, (size_t[]){4}, 1);
    m_produce(5);
    m_take(both, 1, 20);
    m_join(&b, &o);
    while (a.event_count < 3 || m_count(&b) != 2) {
        m_poll(&a, 1);
        m_poll(&b, 1);
    }
    assert_events(&a, "a4 r4 a2");
    assert_events(&b, "a2");
    assert_int_equal(m_parts(&a), 3); /* range: neighbours, in the order of their ids */
    assert_int_equal(m_parts(&b), 12);
    assert_int_equal(a.records + b.records, 20);
    m_close(&b);
    m_close(&a);
}

/* ---- what a member is subscribed to --------------------------------------------------------------------------- */

static void make(const char *name, const char *partitions) {
    const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", "64K"}, {"partitions", partitions}};
    OK(eagre_topic_create(e, name, settings, 3));
}

static void patterns_follow_topics(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0};
    struct member *one[] = {&a};
    const char *const wish[] = {"^log[.][a-z]+$", "four"};
    m_open(&a, &o);
    REFUSED(eagre_consumer_subscribe(a.c, (const char *const[]){"^a("}, 1), EAGRE_E_INVALID, "^a(");
    OK(eagre_consumer_subscribe(a.c, wish, 2));
    m_settle(one, (size_t[]){4}, 1);
    make("log.x", "2");
    make("log.7", "2");
    m_settle(one, (size_t[]){6}, 1);
    make("log.y", "1");
    m_settle(one, (size_t[]){7}, 1);
    const eagre_setting_t grown[] = {{"partitions", "5"}};
    OK(eagre_topic_alter(e, "log.y", grown, 1));
    m_settle(one, (size_t[]){11}, 1);
    OK(eagre_topic_delete(e, "log.x"));
    m_settle(one, (size_t[]){9}, 1);
    OK(eagre_consumer_subscribe(a.c, wish, 1)); /* less */
    m_settle(one, (size_t[]){5}, 1);
    m_close(&a);
}

static void a_pattern_may_wait_for_its_first_topic(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0};
    m_open(&a, &o);
    OK(eagre_consumer_subscribe(a.c, (const char *const[]){"^later"}, 1));
    for (int i = 0; i < 3; i++)
        m_poll(&a, 1);
    make("later", "3");
    m_settle((struct member *[]){&a}, (size_t[]){3}, 1);
    m_close(&a);
}

static void new_partitions_come_to_the_group(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    struct member *both[] = {&a, &b};
    m_join(&a, &o);
    m_join(&b, &o);
    m_settle(both, (size_t[]){2, 2}, 2);
    const eagre_setting_t grown[] = {{"partitions", "8"}};
    OK(eagre_topic_alter(e, "four", grown, 1));
    m_settle(both, (size_t[]){4, 4}, 2);
    m_close(&b);
    m_close(&a);
}

static void a_deleted_topic_goes_quietly(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0};
    struct member *one[] = {&a};
    make("gone", "2");
    m_open(&a, &o);
    OK(eagre_consumer_subscribe(a.c, (const char *const[]){"four", "gone"}, 2));
    m_settle(one, (size_t[]){6}, 1);
    OK(eagre_topic_delete(e, "gone"));
    m_settle(one, (size_t[]){4}, 1); /* m_poll takes no error */
    assert_events(&a, "a6 r2");
    make("gone", "1");
    m_settle(one, (size_t[]){5}, 1);
    m_produce(3);
    m_take(one, 1, 12);
    m_close(&a);
}

static void what_subscribe_refuses(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    eagre_consumer_t *of;
    OK(eagre_consumer_open(e, NULL, &of));
    REFUSED(eagre_consumer_subscribe(of, four, 1), EAGRE_E_INVALID, "group_id");
    REFUSED(eagre_consumer_commit(of, NULL, 0, 0), EAGRE_E_INVALID, "group_id");
    eagre_consumer_close(of);
    o.partition_assignment_strategy = "sticky";
    REFUSED(eagre_consumer_open(e, &o, &of), EAGRE_E_INVALID_CONFIG, "sticky");
    o.partition_assignment_strategy = "range";
    m_join(&a, &o);
    REFUSED(eagre_consumer_assign(a.c, "four", 0), EAGRE_E_STATE, "group 'g'");
    REFUSED(eagre_consumer_subscribe(a.c, (const char *const[]){"nowhere"}, 1), EAGRE_E_UNKNOWN_TOPIC, "nowhere");
    m_settle((struct member *[]){&a}, (size_t[]){4}, 1); /* as before */
    o.partition_assignment_strategy = "roundrobin";
    m_open(&b, &o);
    REFUSED(eagre_consumer_subscribe(b.c, four, 1), EAGRE_E_INVALID_CONFIG, "group 'g'");
    OK(eagre_consumer_assign(b.c, "four", 0));
    REFUSED(eagre_consumer_subscribe(b.c, four, 1), EAGRE_E_STATE, "by hand");
    m_close(&b);
    OK(eagre_consumer_unsubscribe(a.c));
    assert_int_equal(m_count(&a), 0);
    assert_events(&a, "a4 r4");
    OK(eagre_consumer_assign(a.c, "four", 0)); /* its own master again */
    m_close(&a);
}

/* ---- put out ---------------------------------------------------------------------------------------------------- */

static void wait_for_all(struct member *m) {
    struct member *one[] = {m};
    m_settle(one, (size_t[]){4}, 1);
}

static void who_does_not_poll_is_put_out(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    struct member *both[] = {&a, &b};
    eagre_record_t r[64];
    size_t n;
    o.max_poll_interval_ms = 2000;
    m_join(&a, &o);
    o.max_poll_interval_ms = 300000;
    m_join(&b, &o);
    m_settle(both, (size_t[]){2, 2}, 2);
    m_produce(10);
    m_take(both, 2, 40);
    size_t events = a.event_count;
    wait_for_all(&b); /* a has stopped */
    for (int32_t i = 0; i < PARTS; i++)
        assert_int_equal(m_committed(&b, i), -1);
    REFUSED(eagre_consumer_commit_async(a.c, NULL, 0), EAGRE_E_FENCED, "group 'g'");
    REFUSED(eagre_consumer_commit(a.c, NULL, 0, EG_TEST_LIMIT_MS), EAGRE_E_FENCED, "max.poll.interval.ms");
    for (int32_t i = 0; i < PARTS; i++)
        assert_int_equal(m_committed(&b, i), -1);
    assert_int_equal(a.event_count, events);
    OK(eagre_consumer_poll(a.c, r, 64, 0, &n)); /* it was told by the commit */
    assert_int_equal(a.event_count, events + 1);
    assert_int_equal(a.events[events].what, 'l');
    assert_int_equal(a.events[events].n, 2);
    /* That poll may have joined anew already, and be given nothing yet. */
    int rc = eagre_consumer_commit(a.c, (eagre_topic_partition_t[]){{"four", 0, 1, NULL}}, 1, 0);
    assert_true(rc == EAGRE_E_FENCED || rc == EAGRE_E_STATE);
    assert_int_equal(m_committed(&b, 0), -1);
    b.next[0] = b.next[1] = b.next[2] = b.next[3] = 10;
    while (m_count(&a) != 2) { /* and joins anew by itself; a poll that waits is no stop */
        OK(eagre_consumer_poll(a.c, r, 64, 1, &n));
        OK(eagre_consumer_poll(b.c, r, 64, 1, &n));
    }
    m_close(&b);
    m_close(&a);
}

static void poll_says_once_that_it_is_out(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    eagre_record_t r;
    size_t n;
    o.max_poll_interval_ms = 2000;
    m_join(&a, &o);
    wait_for_all(&a);
    o.max_poll_interval_ms = 300000;
    m_join(&b, &o);
    wait_for_all(&b);
    REFUSED(eagre_consumer_poll(a.c, &r, 1, 0, &n), EAGRE_E_FENCED, "poll joins again");
    assert_events(&a, "a4 l4");
    REFUSED(eagre_consumer_commit(a.c, NULL, 0, 0), EAGRE_E_FENCED, "group 'g'");
    while (m_count(&a) != 2) {
        m_poll(&a, 1);
        m_poll(&b, 1);
    }
    m_close(&b);
    m_close(&a);
}

/* Longer than max.poll.interval.ms, in one poll. */
static void who_waits_in_poll_is_not_stuck(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0};
    o.max_poll_interval_ms = 1000;
    m_join(&a, &o);
    wait_for_all(&a);
    uint32_t before = generation(&a);
    m_poll(&a, 2500);
    m_poll(&a, 0);
    assert_int_equal(generation(&a), before);
    assert_events(&a, "a4");
    m_close(&a);
}

/* ---- static members ------------------------------------------------------------------------------------------------ */

static void a_static_member_comes_back_to_its_partitions(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0}, again = {0};
    struct member *both[] = {&a, &b};
    m_join(&a, &o);
    o.group_instance_id = "machine-7";
    m_join(&b, &o);
    m_settle(both, (size_t[]){2, 2}, 2);
    m_produce(10);
    m_take(both, 2, 40);
    uint32_t parts = m_parts(&b), before = generation(&a);
    OK(eagre_consumer_commit(b.c, NULL, 0, EG_TEST_LIMIT_MS));
    m_close(&b);
    size_t events = a.event_count;
    m_join(&again, &o);
    struct member *now[] = {&a, &again};
    m_settle(now, (size_t[]){2, 2}, 2);
    assert_int_equal(m_parts(&again), parts);
    assert_int_equal(generation(&a), before);
    assert_int_equal(a.event_count, events);
    assert_int_equal(again.records, 0);
    m_close(&again);
    m_close(&a);
}

static void two_with_one_instance_id(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    eagre_record_t r;
    size_t n;
    o.group_instance_id = "machine-7";
    m_join(&a, &o);
    wait_for_all(&a);
    m_join(&b, &o);
    wait_for_all(&b);
    for (int i = 0; i < 3; i++) {
        REFUSED(eagre_consumer_poll(a.c, &r, 1, 0, &n), EAGRE_E_FENCED, "machine-7");
        REFUSED(eagre_consumer_commit(a.c, NULL, 0, 0), EAGRE_E_FENCED, "machine-7");
    }
    assert_events(&a, "a4 l4");
    m_poll(&b, 0);
    assert_int_equal(m_count(&b), 4);
    OK(eagre_consumer_subscribe(a.c, four, 1));
    wait_for_all(&a);
    REFUSED(eagre_consumer_poll(b.c, &r, 1, 0, &n), EAGRE_E_FENCED, "machine-7");
    m_close(&b);
    m_poll(&a, 0);
    assert_int_equal(m_count(&a), 4); /* b's going is none of its business */
    m_close(&a);
}

/* ---- answers that come late ------------------------------------------------------------------------------------------- */

static void stop_the_daemon(eagre_consumer_t *of, const eagre_topic_partition_t *list, size_t n, void *ctx) {
    bool *was = ctx;
    (void)of, (void)list, (void)n;
    if (!*was)
        kill(bus->pid, SIGSTOP);
    *was = true;
}

static size_t given_up;

static void count_revoked(eagre_consumer_t *of, const eagre_topic_partition_t *list, size_t n, void *ctx) {
    (void)of, (void)list, (void)ctx;
    given_up += n;
}

static bool is_second_generation(void *ctx) {
    eagre_group_info_t *info;
    (void)ctx;
    OK(eagre_group_describe(e, "g", &info));
    bool is = info->generation >= 2;
    eagre_group_info_free(info);
    return is;
}

/* The daemon hears it when nobody waits for the answer any more. */
static void a_subscribe_that_failed_changes_nothing(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    struct member *both[] = {&a, &b};
    int64_t limit = eg_request_limit_ns;
    make("two", "2");
    m_join(&a, &o);
    wait_for_all(&a);
    kill(bus->pid, SIGSTOP);
    eg_request_limit_ns = 50 * EG_NS_PER_MS;
    REFUSED(eagre_consumer_subscribe(a.c, (const char *const[]){"two"}, 1), EAGRE_E_TIMED_OUT, "group 'g'");
    eg_request_limit_ns = limit;
    kill(bus->pid, SIGCONT);
    m_join(&b, &o);
    m_settle(both, (size_t[]){2, 2}, 2);
    assert_int_equal(m_parts(&a) ^ m_parts(&b), 15);
    m_produce(10);
    m_take(both, 2, 40);
    m_close(&b);
    m_close(&a);
}

/* The next question is of the same kind: the answer that has come is not its own. */
static void the_answer_to_an_acknowledgement_is_no_assignment(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    bool stopped = false;
    const eagre_rebalance_callbacks_t callbacks = {count_revoked, stop_the_daemon, NULL, &stopped};
    struct member a = {0}, b = {0};
    struct member *both[] = {&a, &b};
    given_up = 0;
    m_open(&a, &o);
    OK(eagre_consumer_on_rebalance(a.c, &callbacks));
    OK(eagre_consumer_subscribe(a.c, four, 1));
    m_settle(both, (size_t[]){4}, 1); /* now it acknowledges, and nobody hears it */
    kill(bus->pid, SIGCONT);
    m_join(&b, &o);
    eg_wait_until(is_second_generation, NULL, "second generation");
    m_settle(both, (size_t[]){2, 2}, 2);
    assert_int_equal(given_up, 2);
    m_close(&b);
    m_close(&a);
}

/* ---- epoll ------------------------------------------------------------------------------------------------------------ */

static void the_descriptor_tells_of_a_rebalance(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    int fd, ep = epoll_create1(EPOLL_CLOEXEC);
    m_join(&a, &o);
    wait_for_all(&a);
    OK(eagre_consumer_fd(a.c, &fd));
    struct epoll_event event = {.events = EPOLLIN};
    assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &event), 0);
    m_join(&b, &o);
    while (m_count(&a) != 2) { /* poll only when it says so */
        assert_int_equal(epoll_wait(ep, &event, 1, EG_TEST_LIMIT_MS), 1);
        m_poll(&a, 0);
    }
    while (m_count(&b) != 2) {
        m_poll(&b, 1);
        m_poll(&a, 0);
    }
    close(ep);
    m_close(&b);
    m_close(&a);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, eg_setup_groups, eg_teardown_groups)

int main(int argc, char **argv) {
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        TEST(members_share_the_partitions),
        TEST(groups_read_independently),
        TEST(more_members_than_partitions),
        TEST(cooperative_members_keep_what_they_may),
        TEST(eager_members_give_all_up_first),
        TEST(patterns_follow_topics),
        TEST(a_pattern_may_wait_for_its_first_topic),
        TEST(new_partitions_come_to_the_group),
        TEST(a_deleted_topic_goes_quietly),
        TEST(what_subscribe_refuses),
        TEST(who_does_not_poll_is_put_out),
        TEST(poll_says_once_that_it_is_out),
        TEST(who_waits_in_poll_is_not_stuck),
        TEST(a_static_member_comes_back_to_its_partitions),
        TEST(two_with_one_instance_id),
        TEST(a_subscribe_that_failed_changes_nothing),
        TEST(the_answer_to_an_acknowledgement_is_no_assignment),
        TEST(the_descriptor_tells_of_a_rebalance),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
