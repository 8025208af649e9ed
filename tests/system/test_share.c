/* Share groups, with a real daemon: several members of one partition, each record one member's until it is done. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness_group.h"
#include "sys/atomic.h"
#include "sys/clock.h"

#define LIMIT_NS (EG_TEST_LIMIT_MS * EG_NS_PER_MS)
#define RECORDS 2000 /* a partition, at most */

/* What processes tell each other. */
static struct board {
    _Atomic uint32_t accepted[PARTS][RECORDS];
    _Atomic uint32_t all, stop, refused, held;
    _Atomic uint32_t go;
} *board;

static int setup_with(void **state, const char *lock_ms) {
    const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", "1M"}, {"partitions", "4"}};
    eg_client_setup();
    eg_setup_bus_stopped(state);
    bus = *state;
    eg_bus_start(bus, "--group.share.record.lock.duration.ms", lock_ms, "--group.share.delivery.count.limit", "3",
                 "--group.share.partition.max.record.locks", "256", NULL);
    OK(eagre_open(bus->socket, &e));
    OK(eagre_topic_create(e, "four", settings, 3));
    OK(eagre_producer_open(e, "four", NULL, &p));
    board = mmap(NULL, sizeof(*board), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_ptr_not_equal(board, MAP_FAILED);
    return 0;
}
static int setup(void **state) { return setup_with(state, "30000"); }
static int setup_hasty(void **state) { return setup_with(state, "300"); }
static int teardown(void **state) {
    munmap(board, sizeof(*board));
    return eg_teardown_groups(state);
}

static eagre_consumer_options_t options(void) {
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    o.group_id = "q";
    o.group_type = EAGRE_GROUP_SHARE;
    o.auto_offset_reset = EAGRE_RESET_EARLIEST;
    return o;
}

static eagre_consumer_options_t explicit_options(void) {
    eagre_consumer_options_t o = options();
    o.share_explicit_ack = 1;
    return o;
}

/* It has all partitions. */
static void settle(struct member *m, size_t parts) {
    int64_t until = eg_mono_ns() + LIMIT_NS;
    eagre_record_t r;
    size_t n;
    while (m_count(m) != parts) {
        OK(eagre_consumer_poll(m->c, &r, 1, 1, &n));
        if (n > 0)
            fail_msg("a record comes too early");
        if (eg_mono_ns() > until)
            fail_msg("the member has %zu partitions", m_count(m));
    }
}

static void put_to(int32_t partition, int n) {
    for (int i = 0; i < n; i++) {
        eagre_message_t message = {.value = "value", .value_len = 5, .partition = partition};
        OK(eagre_produce(p, &message, NULL, NULL));
    }
}

/* Until there is something; how many came. */
static size_t get(struct member *m, eagre_record_t *r, size_t max) {
    size_t n = 0;
    for (int64_t until = eg_mono_ns() + LIMIT_NS; n == 0 && eg_mono_ns() < until;)
        OK(eagre_consumer_poll(m->c, r, max, 1000, &n));
    return n;
}

static size_t get_at_once(struct member *m, eagre_record_t *r, size_t max) {
    size_t n;
    OK(eagre_consumer_poll(m->c, r, max, 0, &n));
    return n;
}

static int ack(struct member *m, const eagre_record_t *r, eagre_acknowledge_t how) {
    return eagre_consumer_acknowledge(m->c, "four", r->partition, r->offset, how);
}

static uint32_t count_of(struct member *m, const eagre_record_t *r) {
    uint32_t n = 0;
    OK(eagre_consumer_delivery_count(m->c, r, &n));
    return n;
}

static eagre_group_offset_t offset_of(const char *group, int32_t partition) {
    static char metadata[256];
    eagre_group_offset_t *list, out = {.committed = -2};
    size_t n;
    OK(eagre_group_offsets(e, group, &list, &n));
    for (size_t i = 0; i < n; i++)
        if (list[i].partition == partition) {
            out = list[i];
            snprintf(metadata, sizeof(metadata), "%s", list[i].metadata);
        }
    free(list);
    out.metadata = metadata;
    return out;
}

/* ---- in one process ---------------------------------------------------------------------------------------- */

static void each_record_is_one_members(void **state) {
    (void)state;
    struct member m[3] = {0};
    eagre_consumer_options_t o = options();
    static uint8_t seen[PARTS][500];
    uint32_t all = 0, none = 0;
    memset(seen, 0, sizeof(seen));
    for (int i = 0; i < 3; i++) {
        m_join(&m[i], &o);
        settle(&m[i], PARTS);
    }
    m_produce(500);
    for (uint32_t i = 0; none < 20; i++) {
        eagre_record_t r[7];
        size_t n = get_at_once(&m[i % 3], r, 1 + i % 7);
        none = n == 0 ? none + 1 : 0;
        for (size_t k = 0; k < n; k++) {
            assert_int_equal(seen[r[k].partition][r[k].offset]++, 0);
            assert_int_equal(count_of(&m[i % 3], &r[k]), 1);
            all++;
        }
    }
    assert_int_equal(all, PARTS * 500);
    for (int32_t i = 0; i < PARTS; i++)
        assert_int_equal(offset_of("q", i).committed, 500);
    assert_non_null(strstr(offset_of("q", 0).metadata, "in-flight=0 "));
    for (int i = 0; i < 3; i++)
        m_close(&m[i]);
}

static void acknowledged_released_rejected(void **state) {
    (void)state;
    struct member a = {0}, b = {0};
    eagre_consumer_options_t o = explicit_options();
    eagre_record_t r[8], again[8];
    m_join(&a, &o);
    m_join(&b, &o);
    settle(&a, PARTS);
    settle(&b, PARTS);
    put_to(1, 5);
    assert_int_equal(get(&a, r, 8), 5);
    assert_int_equal(get_at_once(&b, again, 8), 0);
    OK(ack(&a, &r[0], EAGRE_ACK_ACCEPT));
    REFUSED(ack(&a, &r[0], EAGRE_ACK_ACCEPT), EAGRE_E_STATE, "not (any more)");
    REFUSED(ack(&b, &r[1], EAGRE_ACK_ACCEPT), EAGRE_E_STATE, "not (any more)"); /* not its own */
    REFUSED(ack(&a, &r[1], (eagre_acknowledge_t)7), EAGRE_E_INVALID, "no way 7");
    REFUSED(eagre_consumer_acknowledge(a.c, "four", 9, 0, EAGRE_ACK_ACCEPT), EAGRE_E_STATE, "partition 9");
    OK(ack(&a, &r[1], EAGRE_ACK_REJECT));
    OK(ack(&a, &r[2], EAGRE_ACK_RELEASE));
    assert_int_equal(offset_of("q", 1).committed, 2);
    assert_int_equal(get(&b, again, 8), 1); /* the released one */
    assert_int_equal(again[0].offset, 2);
    assert_int_equal(count_of(&b, &again[0]), 2);
    OK(ack(&b, &again[0], EAGRE_ACK_RELEASE));
    assert_int_equal(get(&a, again, 8), 1); /* an explicit member keeps what it has, over polls */
    assert_int_equal(again[0].offset, 2);
    assert_int_equal(count_of(&a, &again[0]), 3);
    REFUSED(eagre_consumer_delivery_count(a.c, &r[3], &(uint32_t){0}), EAGRE_E_STATE, "last poll");
    OK(ack(&a, &again[0], EAGRE_ACK_RELEASE)); /* thrice was the limit */
    assert_int_equal(get_at_once(&b, again, 8), 0);
    OK(ack(&a, &r[3], EAGRE_ACK_ACCEPT));
    assert_int_equal(offset_of("q", 1).committed, 4);
    assert_non_null(strstr(offset_of("q", 1).metadata, "in-flight=1 "));
    assert_non_null(strstr(offset_of("q", 1).metadata, "redelivered=2 "));
    assert_non_null(strstr(offset_of("q", 1).metadata, "archived=1 rejected=1"));
    OK(ack(&a, &r[4], EAGRE_ACK_ACCEPT));
    REFUSED(eagre_consumer_seek(a.c, "four", 1, 0), EAGRE_E_STATE, "eagre group seek");
    REFUSED(eagre_consumer_commit(a.c, NULL, 0, 1000), EAGRE_E_STATE, "acknowledged, not committed");
    m_close(&a);
    m_close(&b);
}

static void who_closes_gives_back(void **state) {
    (void)state;
    struct member a = {0}, b = {0};
    eagre_consumer_options_t o = options(), x = explicit_options();
    eagre_record_t r[8];
    m_join(&a, &o);
    m_join(&b, &x);
    settle(&a, PARTS);
    settle(&b, PARTS);
    put_to(0, 6);
    assert_int_equal(get(&b, r, 3), 3);
    OK(ack(&b, &r[1], EAGRE_ACK_ACCEPT));
    assert_int_equal(get(&a, r, 8), 3);
    m_close(&b);
    size_t n = get(&a, r, 8);
    assert_int_equal(n, 2);
    assert_int_equal(r[0].offset, 0);
    assert_int_equal(r[1].offset, 2);
    assert_int_equal(count_of(&a, &r[0]), 2);
    OK(eagre_consumer_unsubscribe(a.c)); /* what the last poll returned is not accepted by that */
    m_join(&b, &x);
    assert_int_equal(get(&b, r, 8), 2);
    assert_int_equal(count_of(&b, &r[0]), 3);
    m_close(&a);
    m_close(&b);
}

static void groups_do_not_see_each_other(void **state) {
    (void)state;
    struct member q = {0}, other = {0}, plain = {0};
    eagre_consumer_options_t o = options(), o2 = options(), o3 = m_options();
    eagre_record_t r[64];
    long long memory = eg_figure("memory.committed");
    o2.group_id = "q2";
    m_join(&q, &o);
    m_join(&other, &o2);
    m_join(&plain, &o3);
    settle(&q, PARTS);
    settle(&other, PARTS);
    m_settle((struct member *[]){&plain}, (size_t[]){PARTS}, 1);
    put_to(2, 40);
    assert_int_equal(get(&q, r, 64), 40);
    assert_int_equal(get(&other, r, 64), 40);
    m_take((struct member *[]){&plain}, 1, 40);
    assert_int_equal(get_at_once(&q, r, 64), 0);
    REFUSED(eagre_group_put(e, "q", EAGRE_GROUP_SHARE, &(eagre_topic_partition_t){.topic = "four", .partition = 2}, 1),
            EAGRE_E_GROUP_ACTIVE, "q");
    m_close(&q);
    /* An empty one can be set anew; what was in flight is forgotten. */
    OK(eagre_group_put(e, "q", EAGRE_GROUP_SHARE, &(eagre_topic_partition_t){.topic = "four", .partition = 2, .offset = 30}, 1));
    m_join(&q, &o);
    assert_int_equal(get(&q, r, 64), 10);
    assert_int_equal(r[0].offset, 30);
    assert_int_equal(count_of(&q, &r[0]), 1);
    assert_int_equal(get_at_once(&other, r, 64), 0);
    m_close(&q);
    m_close(&other);
    m_close(&plain);
    OK(eagre_group_delete(e, "q"));
    m_join(&q, &o); /* as if it had never been */
    assert_int_equal(get(&q, r, 64), 40);
    m_close(&q);
    assert_true(eg_figure("memory.committed") > memory);
    OK(eagre_group_delete(e, "q"));
    OK(eagre_group_delete(e, "q2"));
    assert_int_equal(eg_figure("memory.committed"), memory); /* nothing is left of them */
}

static void where_a_group_begins(void **state) {
    (void)state;
    struct member m = {0};
    eagre_consumer_options_t o = options();
    eagre_record_t r[64];
    put_to(0, 10);
    o.auto_offset_reset = EAGRE_RESET_UNSET; /* Kafka's share groups: latest */
    m_join(&m, &o);
    settle(&m, PARTS);
    put_to(0, 3);
    assert_int_equal(get(&m, r, 64), 3);
    assert_int_equal(r[0].offset, 10);
    assert_int_equal(get_at_once(&m, r, 64), 0);
    /* A new partition of a topic that it reads: from its beginning. */
    const eagre_setting_t more = {"partitions", "5"};
    eagre_producer_t *other;
    OK(eagre_topic_alter(e, "four", &more, 1));
    OK(eagre_producer_open(e, "four", NULL, &other));
    eagre_message_t message = {.value = "early", .value_len = 5, .partition = 4};
    OK(eagre_produce(other, &message, NULL, NULL));
    assert_int_equal(get(&m, r, 64), 1);
    assert_int_equal(r[0].partition, 4);
    eagre_producer_close(other);
    m_close(&m);
    o.auto_offset_reset = EAGRE_RESET_NONE;
    o.group_id = "q3";
    m_join(&m, &o);
    int rc = EAGRE_OK;
    size_t n;
    for (int64_t until = eg_mono_ns() + LIMIT_NS; rc == EAGRE_OK && eg_mono_ns() < until;)
        rc = eagre_consumer_poll(m.c, r, 64, 10, &n);
    REFUSED(rc, EAGRE_E_NO_OFFSET, "eagre group seek q3");
    m_close(&m);
}

static void its_time_is_over(void **state) {
    (void)state;
    struct member a = {0}, b = {0};
    eagre_consumer_options_t o = explicit_options();
    eagre_record_t r[8], mine[8];
    m_join(&a, &o);
    m_join(&b, &o);
    settle(&a, PARTS);
    settle(&b, PARTS);
    put_to(3, 2);
    assert_int_equal(get(&a, mine, 8), 2);
    OK(ack(&a, &mine[0], EAGRE_ACK_ACCEPT));
    assert_int_equal(get(&b, r, 8), 1); /* nobody does anything but wait */
    assert_int_equal(r[0].offset, 1);
    assert_int_equal(count_of(&b, &r[0]), 2);
    REFUSED(ack(&a, &mine[1], EAGRE_ACK_ACCEPT), EAGRE_E_STATE, "lock.duration");
    assert_int_equal(offset_of("q", 3).committed, 1);
    OK(ack(&b, &r[0], EAGRE_ACK_ACCEPT));
    assert_int_equal(offset_of("q", 3).committed, 2);
    m_close(&a);
    m_close(&b);
}

/* ---- processes ---------------------------------------------------------------------------------------------- */

static eagre_consumer_t *child_member(eagre_t **own, eagre_consumer_options_t o) {
    const char *const topics[] = {"four"};
    eagre_consumer_t *of;
    CHECK(eagre_open(bus->socket, own) == EAGRE_OK);
    CHECK(eagre_consumer_open(*own, &o, &of) == EAGRE_OK);
    CHECK(eagre_consumer_subscribe(of, topics, 1) == EAGRE_OK);
    return of;
}

static void work(int ready, int extra) {
    (void)extra;
    eg_close_except(ready);
    eagre_t *own;
    eagre_consumer_t *of = child_member(&own, explicit_options());
    eg_say(ready);
    while (eg_load_acquire(&board->stop) == 0) {
        eagre_record_t r[10];
        size_t n;
        int rc = eagre_consumer_poll(of, r, 10, 10, &n);
        CHECK(rc == EAGRE_OK || rc == EAGRE_E_NO_DAEMON);
        for (size_t i = 0; i < n; i++) {
            CHECK(eagre_consumer_acknowledge(of, "four", r[i].partition, r[i].offset, EAGRE_ACK_ACCEPT) == EAGRE_OK);
            atomic_fetch_add(&board->accepted[r[i].partition][r[i].offset], 1);
            atomic_fetch_add(&board->all, 1);
        }
    }
    eagre_consumer_close(of);
    CHECK(eagre_close(own) == EAGRE_OK);
    _exit(0);
}

static bool all_are_accepted(void *ctx) { return atomic_load(&board->all) >= *(uint32_t *)ctx; }

static void check_each_once(uint32_t each) {
    for (int part = 0; part < PARTS; part++)
        for (uint32_t i = 0; i < each; i++)
            assert_int_equal(atomic_load(&board->accepted[part][i]), 1);
}

static void each_record_once_by_processes(void **state) {
    (void)state;
    uint32_t wanted = PARTS * RECORDS;
    pid_t pid[4];
    for (int i = 0; i < 4; i++)
        pid[i] = eg_start(work, 0);
    m_produce(RECORDS);
    eg_wait_until(all_are_accepted, &wanted, "each record is accepted");
    eg_store_release(&board->stop, 1);
    for (int i = 0; i < 4; i++)
        assert_int_equal(eg_wait_exit(pid[i]), 0);
    check_each_once(RECORDS);
    for (int32_t i = 0; i < PARTS; i++)
        assert_int_equal(offset_of("q", i).committed, RECORDS);
}

/* Takes what there is, says how many, and acknowledges one when it is told to go on. */
static void hold(int ready, int extra) {
    eg_close_except(ready);
    eagre_t *own;
    eagre_consumer_t *of = child_member(&own, explicit_options());
    eagre_record_t r[16];
    size_t n = 0;
    while (n == 0)
        CHECK(eagre_consumer_poll(of, r, (size_t)extra, 10, &n) == EAGRE_OK);
    CHECK(n == (size_t)extra);
    atomic_fetch_add(&board->held, (uint32_t)n);
    eg_say(ready);
    while (eg_load_acquire(&board->go) == 0)
        usleep(1000);
    int rc = eagre_consumer_acknowledge(of, "four", r[0].partition, r[0].offset, EAGRE_ACK_ACCEPT);
    atomic_fetch_add(&board->refused, rc == EAGRE_E_STATE);
    _exit(0);
}

static void what_the_killed_had_comes_back(void **state) {
    (void)state;
    struct member m = {0};
    eagre_consumer_options_t o = explicit_options();
    eagre_record_t r[16];
    m_join(&m, &o);
    settle(&m, PARTS);
    put_to(0, 8);
    pid_t pid = eg_start(hold, 5);
    assert_int_equal(get(&m, r, 16), 3);
    assert_int_equal(get_at_once(&m, r, 16), 0);
    int64_t killed = eg_mono_ns();
    kill(pid, SIGKILL);
    assert_int_equal(get(&m, r, 16), 5); /* long before their time is over */
    print_message("redelivered %lld us after SIGKILL\n", (long long)((eg_mono_ns() - killed) / 1000));
    assert_true(eg_mono_ns() - killed < 20 * EG_NS_PER_S); /* 30 s would be group.share.record.lock.duration.ms */
    for (int i = 0; i < 5; i++) {
        assert_int_equal(r[i].offset, i);
        assert_int_equal(count_of(&m, &r[i]), 2);
        OK(ack(&m, &r[i], EAGRE_ACK_ACCEPT));
    }
    assert_int_equal(offset_of("q", 0).committed, 5);
    assert_int_equal(eg_wait_exit(pid), 128 + SIGKILL);
    m_close(&m);
}

static void who_is_stopped_for_too_long_cannot_acknowledge(void **state) {
    (void)state;
    struct member m = {0};
    eagre_consumer_options_t o = explicit_options();
    eagre_record_t r[16];
    put_to(0, 4);
    pid_t pid = eg_start(hold, 4);
    kill(pid, SIGSTOP);
    eg_store_release(&board->go, 1);
    m_join(&m, &o);
    assert_int_equal(get(&m, r, 16), 4);
    assert_int_equal(count_of(&m, &r[0]), 2);
    kill(pid, SIGCONT);
    assert_int_equal(eg_wait_exit(pid), 0);
    assert_int_equal(board->refused, 1);
    OK(ack(&m, &r[0], EAGRE_ACK_ACCEPT));
    m_close(&m);
}

/* The daemon is killed while one member holds records and others take them; meanwhile one of the members ends. */
static void a_daemon_that_comes_and_goes(void **state) {
    (void)state;
    struct member m = {0};
    eagre_consumer_options_t o = explicit_options();
    eagre_record_t r[16], kept[16];
    m_join(&m, &o);
    settle(&m, PARTS);
    put_to(0, 12);
    pid_t pid = eg_start(hold, 5);
    assert_int_equal(get(&m, kept, 2), 2);
    eg_bus_kill(bus);
    size_t n = 0;
    OK(eagre_consumer_poll(m.c, r, 3, 0, &n)); /* data keeps flowing */
    assert_int_equal(n, 3);
    for (int i = 0; i < 3; i++)
        OK(ack(&m, &r[i], EAGRE_ACK_ACCEPT));
    OK(ack(&m, &kept[1], EAGRE_ACK_RELEASE));
    kill(pid, SIGKILL);
    assert_int_equal(eg_wait_exit(pid), 128 + SIGKILL);
    eg_bus_start(bus, "--group.share.delivery.count.limit", "3", NULL);
    uint32_t again = 0, fresh = 0;
    bool seen[12] = {false};
    for (int64_t until = eg_mono_ns() + LIMIT_NS; again + fresh < 8 && eg_mono_ns() < until;) {
        int rc = eagre_consumer_poll(m.c, r, 16, 100, &n);
        assert_true(rc == EAGRE_OK || rc == EAGRE_E_NO_DAEMON);
        for (size_t i = 0; i < n; i++) {
            assert_false(seen[r[i].offset]);
            seen[r[i].offset] = true;
            again += count_of(&m, &r[i]) == 2;
            fresh += count_of(&m, &r[i]) == 1;
            OK(ack(&m, &r[i], EAGRE_ACK_ACCEPT));
        }
    }
    assert_int_equal(again, 6); /* of the dead one, and the released one */
    assert_int_equal(fresh, 2);
    OK(ack(&m, &kept[0], EAGRE_ACK_ACCEPT)); /* held all the time */
    int64_t until = eg_mono_ns() + LIMIT_NS;
    eagre_group_offset_t *list;
    int rc;
    while ((rc = eagre_group_offsets(e, "q", &list, &n)) == EAGRE_E_NO_DAEMON && eg_mono_ns() < until) {}
    OK(rc);
    free(list);
    assert_int_equal(offset_of("q", 0).committed, 12);
    m_close(&m);
}

static void a_kill_storm(void **state) {
    (void)state;
    uint32_t wanted = PARTS * RECORDS;
    pid_t pid[4];
    for (int i = 0; i < 4; i++)
        pid[i] = eg_start(work, 0);
    for (int round = 0; round < 8; round++) {
        m_produce(RECORDS / 8);
        if (round == 4) {
            eg_bus_kill(bus);
            eg_bus_start(bus, NULL);
        }
        kill(pid[round % 4], SIGKILL);
        assert_int_equal(eg_wait_exit(pid[round % 4]), 128 + SIGKILL);
        pid[round % 4] = eg_start(work, 0);
    }
    wanted -= 8 * 2; /* who died between its acknowledgement and its note; checked below */
    eg_wait_until(all_are_accepted, &wanted, "each record is accepted");
    for (int64_t until = eg_mono_ns() + LIMIT_NS;;) {
        uint32_t done = 0;
        for (int32_t i = 0; i < PARTS; i++)
            done += offset_of("q", i).committed == RECORDS;
        if (done == PARTS)
            break;
        if (eg_mono_ns() > until)
            fail_msg("%u of %u partitions are done", done, PARTS);
        usleep(10000);
    }
    eg_store_release(&board->stop, 1);
    for (int i = 0; i < 4; i++)
        assert_int_equal(eg_wait_exit(pid[i]), 0);
    uint32_t missing = 0;
    for (int part = 0; part < PARTS; part++)
        for (int i = 0; i < RECORDS; i++) {
            assert_true(atomic_load(&board->accepted[part][i]) <= 1);
            missing += atomic_load(&board->accepted[part][i]) == 0;
        }
    assert_true(missing <= 8); /* one a death */
}

/* With files: the start of the group survives a stop and the memory's end. */
static void a_clean_stop_keeps_what_is_done(void **state) {
    (void)state;
    struct member m = {0};
    eagre_consumer_options_t o = explicit_options();
    eagre_producer_t *of_disk;
    eagre_record_t r[16];
    const char *const topics[] = {"disk"};
    OK(eagre_topic_create(e, "disk", NULL, 0));
    OK(eagre_producer_open(e, "disk", NULL, &of_disk));
    for (int i = 0; i < 6; i++)
        OK(eagre_produce(of_disk, &(eagre_message_t){.value = "value", .value_len = 5, .partition = 0}, NULL, NULL));
    eagre_producer_close(of_disk);
    m_open(&m, &o);
    OK(eagre_consumer_subscribe(m.c, topics, 1));
    assert_int_equal(get(&m, r, 16), 6);
    for (int i = 0; i < 4; i++)
        OK(eagre_consumer_acknowledge(m.c, "disk", 0, i == 3 ? 5 : i, EAGRE_ACK_ACCEPT));
    m_close(&m);
    assert_int_equal(eg_bus_stop(bus), 0);
    eg_bus_start(bus, NULL);
    m_open(&m, &o);
    OK(eagre_consumer_subscribe(m.c, topics, 1));
    assert_int_equal(get(&m, r, 16), 3); /* from the first that was not done */
    assert_int_equal(r[0].offset, 3);
    m_close(&m);
}

/* What the ring has let go is read from files: in turn by two, up to the window where one is held. */
static void from_files(void **state) {
    (void)state;
    enum { ALL = 3000 };
    const eagre_setting_t settings[] = {{"segment.bytes", "64K"}, {"ring.segments", "3"}};
    const char *const topics[] = {"files"};
    struct member m[2] = {0};
    eagre_consumer_options_t o = explicit_options();
    eagre_producer_t *by;
    static uint8_t seen[ALL];
    char value[200] = {0};
    eagre_record_t r[64];
    int64_t held = -1, top = -1;
    uint32_t all = 0, nothing = 0;
    memset(seen, 0, sizeof(seen));
    OK(eagre_topic_create(e, "files", settings, 2));
    OK(eagre_producer_open(e, "files", NULL, &by));
    for (int i = 0; i < ALL; i++)
        OK(eagre_produce(by, &(eagre_message_t){.value = value, .value_len = sizeof(value), .partition = 0}, NULL, NULL));
    eagre_producer_close(by);
    for (int i = 0; i < 2; i++) {
        m_open(&m[i], &o);
        OK(eagre_consumer_subscribe(m[i].c, topics, 1));
    }
    for (int64_t turn = 0, until = eg_mono_ns() + LIMIT_NS; all < ALL - (held >= 0) && eg_mono_ns() < until; turn++) {
        size_t n;
        OK(eagre_consumer_poll(m[turn % 2].c, r, 64, nothing > 0 ? 1 : 0, &n));
        for (size_t i = 0; i < n; i++) {
            assert_int_equal(seen[r[i].offset]++, 0);
            assert_int_equal(r[i].value_len, sizeof(value));
            top = r[i].offset > top ? r[i].offset : top;
            if (r[i].offset == 100) {
                held = 100;
                continue;
            }
            all++;
            OK(eagre_consumer_acknowledge(m[turn % 2].c, "files", 0, r[i].offset, EAGRE_ACK_ACCEPT));
        }
        nothing = n == 0 && all > 0 ? nothing + 1 : 0;
        if (nothing > 6 && held == 100) { /* as far as the window goes */
            assert_int_equal(top, 100 + 256 - 1);
            int rc = eagre_consumer_acknowledge(m[0].c, "files", 0, 100, EAGRE_ACK_ACCEPT);
            if (rc != EAGRE_OK)
                OK(eagre_consumer_acknowledge(m[1].c, "files", 0, 100, EAGRE_ACK_ACCEPT));
            held = -1;
            all++;
        }
    }
    assert_int_equal(all, ALL);
    assert_int_equal(offset_of("q", 0).committed, ALL);
    m_close(&m[0]);
    m_close(&m[1]);
}

int main(int argc, char **argv) {
#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)
    const struct CMUnitTest tests[] = {
        TEST(each_record_is_one_members),
        TEST(acknowledged_released_rejected),
        TEST(who_closes_gives_back),
        TEST(groups_do_not_see_each_other),
        TEST(where_a_group_begins),
        cmocka_unit_test_setup_teardown(its_time_is_over, setup_hasty, teardown),
        TEST(each_record_once_by_processes),
        TEST(what_the_killed_had_comes_back),
        cmocka_unit_test_setup_teardown(who_is_stopped_for_too_long_cannot_acknowledge, setup_hasty, teardown),
        TEST(a_daemon_that_comes_and_goes),
        TEST(a_kill_storm),
        TEST(a_clean_stop_keeps_what_is_done),
        TEST(from_files),
    };
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    return cmocka_run_group_tests(tests, NULL, NULL);
}
