/*
 * The daemon is killed, and stopped, at each of its steps with groups. Members that are alive notice nothing but a
 * pause: what they have been given flows on while it is away, nobody is put out, and behind it each record was delivered
 * to the group exactly once, for no member died.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>

#include "client/session.h"
#include "eagre/admin.h"
#include "sys/clock.h"
#include "system/harness_group.h"

#define MEMBERS 4
#define SHARE 3 /* this one is of a share group */
#define RECORDS 2000

static const char *const points[] = {
    "member.joined", "member.out",    "member.removed",  "group.given",     "group.told",
    "group.freed",   "group.cleared", "group.collected", "group.committed", "share.kept"};
#define POINTS (sizeof(points) / sizeof(points[0]))

static struct member m[MEMBERS];
static bool subscribed[MEMBERS];
static int64_t sent[PARTS];
static uint8_t got[2][PARTS][RECORDS]; /* by the group, by the share group */
static bool stops, is_away;

/* ---- members -------------------------------------------------------------------------------------------------- */

static bool may_fail(int rc) {
    return rc == EAGRE_OK || rc == EAGRE_E_NO_DAEMON || rc == EAGRE_E_TIMED_OUT ||
           rc == EAGRE_E_WOULD_BLOCK;
}

static void poll_one(size_t i, int32_t timeout_ms) {
    eagre_record_t r[16];
    size_t n;
    int rc = eagre_consumer_poll(m[i].c, r, 16, timeout_ms, &n);
    if (rc != EAGRE_OK && !(is_away && rc == EAGRE_E_NO_DAEMON))
        fail_msg("member %zu: %s", i, eagre_error_detail());
    for (size_t k = 0; k < n; k++) {
        assert_true(r[k].offset < sent[r[k].partition]);
        got[i == SHARE][r[k].partition][r[k].offset]++;
    }
    for (size_t k = 0; k < m[i].event_count; k++)
        if (m[i].events[k].what == 'l')
            fail_msg("member %zu was put out", i);
    m[i].event_count = 0;
}

static void poll_all(void) {
    for (size_t i = 0; i < MEMBERS; i++)
        if (subscribed[i])
            poll_one(i, 1);
}

static void subscribe(size_t i) {
    const char *const topics[] = {"four"};
    int rc = eagre_consumer_subscribe(m[i].c, topics, 1);
    if (!may_fail(rc))
        fail_msg("member %zu: %s", i, eagre_error_detail());
    subscribed[i] = rc == EAGRE_OK;
}

static void produce(int32_t partition) {
    eagre_message_t message = {.value = "x", .value_len = 1, .partition = partition};
    int64_t offset;
    OK(eagre_produce(p, &message, NULL, &offset));
    assert_int_equal(offset, sent[partition]);
    sent[partition]++;
    assert_true(sent[partition] < RECORDS);
}

/* ---- the daemon ----------------------------------------------------------------------------------------------------- */

/* It has come to the point. */
static bool away(void) {
    siginfo_t info = {0};
    if (!is_away && bus->pid != 0 &&
        waitid(P_PID, (id_t)bus->pid, &info, WEXITED | WSTOPPED | WNOHANG | WNOWAIT) == 0 &&
        info.si_pid != 0) {
        assert_int_equal(info.si_code, stops ? CLD_STOPPED : CLD_KILLED);
        is_away = true;
    }
    return is_away;
}

static void bring_back(void) {
    if (stops) {
        kill(bus->pid, SIGCONT);
        assert_int_equal(waitid(P_PID, (id_t)bus->pid, &(siginfo_t){0}, WSTOPPED | WNOHANG), 0);
    } else {
        if (bus->pid != 0)
            assert_int_equal(eg_bus_wait(bus), 128 + SIGKILL);
        eg_bus_start(bus, NULL);
    }
    is_away = false;
}

/* A daemon that will come to no good at the nth time that it is at the point. */
static void restart_with(const char *point, int n) {
    char fault[64];
    eg_bus_kill(bus);
    snprintf(fault, sizeof(fault), "EAGRE_FAULT=%s@%d=%s", point, n, stops ? "stop" : "kill");
    int status = eg_bus_try_start(bus, (const char *const[]){fault, NULL}, NULL);
    is_away = bus->pid == 0;
    assert_int_equal(status, is_away ? 128 + SIGKILL : 0);
}

/* ---- what brings it there -------------------------------------------------------------------------------------------- */

static void nothing(void) {}
static void another_joins(void) { subscribe(2); }
static void a_commit(void) {
    if (!may_fail(eagre_consumer_commit(m[0].c, NULL, 0, 300)))
        fail_msg("%s", eagre_error_detail());
}
static void one_leaves(void) {
    if (!subscribed[1])
        return;
    OK(eagre_consumer_unsubscribe(m[1].c));
    subscribed[1] = false;
}
static void it_comes_back(void) { subscribe(1); }
static void a_share_member_joins(void) { subscribe(SHARE); }
static void it_leaves(void) {
    if (!subscribed[2])
        return;
    OK(eagre_consumer_unsubscribe(m[2].c));
    subscribed[2] = false;
}

static void (*const steps[])(void) = {
    nothing, another_joins, a_commit, one_leaves, a_share_member_joins, it_comes_back, it_leaves};

static bool reach(void) {
    for (size_t i = 0; i < sizeof(steps) / sizeof(steps[0]) && !away(); i++) {
        steps[i]();
        for (int32_t k = 0; k < PARTS; k++)
            produce(k);
        int64_t until = eg_mono_ns() + 100 * EG_NS_PER_MS;
        while (!away() && eg_mono_ns() < until)
            poll_all();
    }
    return away();
}

/* ---- what must hold ---------------------------------------------------------------------------------------------------- */

/* What is produced now reaches those who have its partition. */
static void data_flows(bool eager) {
    eagre_topic_partition_t list[PARTS];
    size_t n, flowing = 0;
    for (size_t i = 0; i < MEMBERS; i++) {
        if (!subscribed[i])
            continue;
        poll_one(i, 0); /* this may take something away still */
        OK(eagre_consumer_assignment(m[i].c, list, PARTS, &n));
        for (size_t k = 0; k < n; k++) {
            int32_t partition = list[k].partition;
            int64_t offset = sent[partition],
                    limit = eg_mono_ns() + EG_TEST_LIMIT_MS * EG_NS_PER_MS;
            produce(partition);
            while (got[i == SHARE][partition][offset] == 0) {
                poll_one(i, 10);
                if (eg_mono_ns() > limit)
                    fail_msg("member %zu: nothing comes of partition %d while the daemon is away",
                             i, partition);
            }
            flowing++;
        }
    }
    assert_true(eager || flowing > 0);
    assert_true(is_away);
}

static bool is_stable(const char *group, size_t members) {
    eagre_group_info_t *info;
    OK(eagre_group_describe(e, group, &info));
    bool stable = info->state == EAGRE_GROUP_STABLE && info->member_count == members;
    eagre_group_info_free(info);
    return stable;
}

/* Three members have all partitions among them. */
static bool settled(void) {
    uint32_t all = 0;
    size_t count = 0, members = 0;
    for (size_t i = 0; i < SHARE; i++) {
        if (!subscribed[i])
            continue;
        members++;
        all |= m_parts(&m[i]);
        count += m_count(&m[i]);
        if (m_count(&m[i]) == 0)
            return false;
    }
    return count == PARTS && all == (1u << PARTS) - 1 && is_stable("g", members);
}

static void settle(void) {
    int64_t limit = eg_mono_ns() + EG_TEST_LIMIT_MS * EG_NS_PER_MS;
    do {
        for (size_t i = 0; i < MEMBERS; i++)
            if (!subscribed[i])
                subscribe(i);
        poll_all();
        if (eg_mono_ns() > limit)
            fail_msg("the group does not settle");
    } while (!settled());
}

static size_t not_got(void) {
    size_t missing = 0;
    for (size_t g = 0; g < 2; g++)
        for (size_t k = 0; k < PARTS; k++)
            for (int64_t i = 0; i < sent[k]; i++) {
                missing += got[g][k][i] == 0;
                if (got[g][k][i] > 1)
                    fail_msg("partition %zu offset %lld came %u times to the %s", k, (long long)i,
                             got[g][k][i], g == 0 ? "group" : "share group");
            }
    return missing;
}

static void all_is_there_once(void) {
    eagre_group_offset_t *list;
    size_t n;
    int64_t limit = eg_mono_ns() + EG_TEST_LIMIT_MS * EG_NS_PER_MS;
    while (not_got() > 0) {
        poll_all();
        if (eg_mono_ns() > limit)
            fail_msg("%zu records do not come", not_got());
    }
    for (size_t i = 0; i < SHARE; i++)
        OK(eagre_consumer_commit(m[i].c, NULL, 0, EG_TEST_LIMIT_MS));
    OK(eagre_group_offsets(e, "g", &list, &n));
    assert_int_equal(n, PARTS);
    for (size_t i = 0; i < n; i++)
        assert_int_equal(list[i].committed, sent[list[i].partition]);
    free(list);
}

/* ---- one round ------------------------------------------------------------------------------------------------------------ */

static void open_all(bool eager) {
    for (size_t i = 0; i < MEMBERS; i++) {
        eagre_consumer_options_t o = m_options();
        o.enable_auto_commit = 1;
        o.partition_assignment_strategy = eager ? "range" : NULL;
        o.group_id = i == SHARE ? "s" : "g";
        o.group_type = i == SHARE ? EAGRE_GROUP_SHARE : EAGRE_GROUP_CONSUMER;
        m[i] = (struct member){0};
        m_open(&m[i], &o);
    }
    memset(sent, 0, sizeof(sent));
    memset(got, 0, sizeof(got));
    memset(subscribed, 0, sizeof(subscribed));
}

static void round_of(const char *point, int at, bool stop, bool eager) {
    void *state = NULL;
    int64_t limit = eg_mono_ns() + EG_TEST_LIMIT_MS * EG_NS_PER_MS;
    stops = stop;
    is_away = false;
    eg_setup_groups(&state);
    open_all(eager);
    subscribe(0);
    subscribe(1);
    while (m_count(&m[0]) != 2 || m_count(&m[1]) != 2) {
        poll_all();
        if (eg_mono_ns() > limit)
            fail_msg("the group does not settle at first");
    }
    for (int32_t k = 0; k < PARTS; k++)
        produce(k); /* from now on it has what it needs for that */
    poll_all();
    restart_with(point, at);
    if (!reach())
        fail_msg("the daemon never came to %s for the %d. time", point, at);
    data_flows(eager);
    bring_back();
    settle();
    for (int32_t k = 0; k < PARTS; k++)
        produce(k);
    all_is_there_once();
    for (size_t i = 0; i < MEMBERS; i++)
        m_close(&m[i]);
    eg_teardown_groups(&state);
}

static void all_points(bool stop, bool eager) {
    for (size_t i = 0; i < POINTS; i++)
        round_of(points[i], 1, stop, eager);
}

static void killed(void **state) {
    (void)state;
    all_points(false, false);
}
static void killed_in_an_eager_rebalance(void **state) {
    (void)state;
    all_points(false, true);
}
static void stopped(void **state) {
    (void)state;
    all_points(true, false);
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed),
        cmocka_unit_test(killed_in_an_eager_rebalance),
        cmocka_unit_test(stopped),
    };
    eg_request_limit_ns = EG_NS_PER_S; /* who asks a daemon that is stopped waits so long */
    return cmocka_run_group_tests_name("fault/groups", tests, NULL, NULL);
}
