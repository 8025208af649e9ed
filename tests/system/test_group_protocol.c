/* Groups' coordinator over the raw protocol: members that do what they should, and members that do not. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "eagre/error.h"
#include "harness_member.h"
#include "harness_user.h"
#include "sys/atomic.h"
#include "sys/clock.h"

#define MEMBERS 12
static struct eg_test_bus *b;
static struct eg_raw tool; /* a connection for what is not a member's */
static struct eg_raw_member m[MEMBERS];

static const char *const t1[] = {"t1", NULL};
static const char *const t2[] = {"t2", NULL};
static const char *const both[] = {"t1", "t2", NULL};

static int setup(void **state) {
    eg_setup_bus_stopped(state);
    eg_rm_forget_all();
    b = *state;
    eg_bus_open_to_all(b);
    eg_bus_start(b, "--socket.mode=0666", "--memory.max=1G", NULL);
    eg_raw_connect(&tool, b->socket);
    eg_raw_hello(&tool, NULL);
    eg_raw_topic(&tool, "t1", 4);
    eg_raw_topic(&tool, "t2", 8);
    for (size_t i = 0; i < MEMBERS; i++)
        m[i].r.fd = m[i].page_fd = -1;
    return 0;
}

static int teardown(void **state) {
    for (size_t i = 0; i < MEMBERS; i++)
        eg_rm_close(&m[i]);
    eg_raw_close(&tool);
    return eg_teardown_bus(state);
}

static void join(size_t i, const struct eg_join_options *o, const char *const *names) {
    eg_rm_connect(&m[i], b->socket);
    if (eg_rm_join(&m[i], "g", o) != 0 || eg_rm_subscribe(&m[i], names, 0) != 0)
        fail_msg("member %zu: %s", i, m[i].r.detail);
}

static long long figure(const char *name) {
    char value[64];
    eg_raw_figure(&tool, name, value, sizeof(value));
    return atoll(value);
}

static struct eg_rm_group describe(void) {
    struct eg_rm_group g;
    assert_int_equal(eg_rm_describe(&tool, "g", &g), 0);
    return g;
}

/* The state follows what members say with the daemon's next round. */
static bool is_stable(void *ctx) {
    (void)ctx;
    return describe().state == EG_GROUP_STABLE;
}
static bool is_empty(void *ctx) {
    (void)ctx;
    return describe().state == EG_GROUP_EMPTY;
}
static bool is_out(void *ctx) {
    struct eg_raw_member *of = ctx;
    return eg_load_acquire(&of->page->state) != EG_MEMBER_IN;
}

/* ---- what they should do ----------------------------------------------------------------------------------------- */

static void members_come_and_go(void **state) {
    (void)state;
    join(0, NULL, both);
    eg_rm_settle(m, 1, "g", 12);
    join(1, NULL, both);
    eg_rm_settle(m, 2, "g", 12);
    assert_true(m[0].count == 6 && m[1].count == 6);
    join(2, NULL, t1);
    join(3, NULL, t2);
    eg_rm_settle(m, 4, "g", 12);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(m[i].count, 3);
    eg_wait_until(is_stable, NULL, "the group is stable");
    uint32_t generation = describe().generation;
    assert_int_equal(eg_rm_leave(&m[1], 0), 0);
    eg_rm_forget(&m[1]);
    eg_rm_settle(m, 4, "g", 12);
    assert_true(describe().generation > generation);
    /* It is not a member any more. */
    assert_int_equal(eg_rm_ask_sync(&m[1], 0, 0), EAGRE_E_FENCED);
    for (size_t i = 0; i < 4; i++)
        if (i != 1)
            assert_int_equal(eg_rm_leave(&m[i], 0), 0);
    eg_wait_until(is_empty, NULL, "the group is empty");
    assert_int_equal(figure("members"), 0);
    assert_int_equal(figure("groups"), 1);
}

/* One who has been told to give a partition up keeps it until it says that it has. */
static void nothing_is_given_before_it_is_given_up(void **state) {
    (void)state;
    join(0, NULL, t1);
    eg_rm_settle(m, 1, "g", 4);
    join(1, NULL, t1);
    while (eg_load_acquire(&m[0].page->version) == m[0].version) {}
    uint32_t version = eg_rm_learn(&m[0]); /* two are missing there */
    assert_int_equal(m[0].count, 2);
    /* It has not said so: the other one has a version, and nothing in it. */
    for (int i = 0; i < 20; i++) {
        eg_rm_follow(&m[1]);
        assert_int_equal(m[1].count, 0);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    assert_int_equal(describe().state, EG_GROUP_REBALANCING);
    /* Saying something old again changes nothing. */
    assert_int_equal(eg_rm_ask_sync(&m[0], m[0].version, 0), 0);
    assert_int_equal(eg_rm_ask_sync(&m[0], 0, 0), 0);
    eg_rm_follow(&m[1]);
    assert_int_equal(m[1].count, 0);
    m[0].version = version;
    assert_int_equal(eg_rm_ask_sync(&m[0], version, 0), 0);
    eg_rm_settle(m, 2, "g", 4);
    assert_int_equal(m[1].count, 2);
}

/* Eager: all of it is given up before anything is given. */
static void eager_ones_give_up_everything(void **state) {
    (void)state;
    const struct eg_join_options range = {.strategy = {EG_ASSIGN_RANGE, EG_ASSIGN_ROUND_ROBIN}};
    join(0, &range, t2);
    join(1, &range, t2);
    eg_rm_settle(m, 2, "g", 8);
    assert_string_equal(describe().assignor, "range");
    join(2, &range, t2);
    while (eg_load_acquire(&m[0].page->version) == m[0].version || eg_load_acquire(&m[1].page->version) == m[1].version) {}
    m[0].version = eg_rm_learn(&m[0]);
    assert_int_equal(m[0].count, 0);
    assert_int_equal(eg_rm_ask_sync(&m[0], m[0].version, 0), 0);
    for (int i = 0; i < 20; i++) { /* the second one has not given up its own */
        eg_rm_follow(&m[0]);
        eg_rm_follow(&m[2]);
        assert_true(m[0].count == 0 && m[2].count == 0);
        nanosleep(&(struct timespec){.tv_nsec = 1000000}, NULL);
    }
    eg_rm_settle(m, 3, "g", 8);
    /* What they have in common decides: only the second of the first ones'. */
    const struct eg_join_options other = {.strategy = {EG_ASSIGN_NUMA, EG_ASSIGN_ROUND_ROBIN}};
    join(3, &other, t2);
    eg_rm_settle(m, 4, "g", 8);
    assert_string_equal(describe().assignor, "roundrobin");
    eg_rm_connect(&m[4], b->socket);
    assert_int_equal(eg_rm_join(&m[4], "g", NULL), EAGRE_E_INVALID_CONFIG);
    assert_non_null(strstr(m[4].r.detail, "partition.assignment.strategy"));
}

static void commits_go_with_the_partition(void **state) {
    (void)state;
    join(0, NULL, t1);
    eg_rm_settle(m, 1, "g", 4);
    for (size_t i = 0; i < 4; i++)
        eg_rm_commit(&m[0], i, 0); /* there are no records; more would be beyond the end */
    join(1, NULL, t1);
    eg_rm_settle(m, 2, "g", 4);
    for (size_t i = 0; i < 2; i++)
        assert_true(m[1].part[i].committed == 0);
    /* Cells of before are for nobody. */
    assert_int_equal(eg_rm_leave(&m[0], 0), 0);
    eg_rm_forget(&m[0]);
    eg_rm_settle(m, 2, "g", 4);
    for (size_t i = 0; i < 4; i++)
        assert_true(m[1].part[i].committed == 0);
}

static void static_members_keep_their_own(void **state) {
    (void)state;
    const struct eg_join_options a = {.instance_id = "a"}, z = {.instance_id = "z"};
    join(0, &a, t2);
    join(1, &z, t2);
    eg_rm_settle(m, 2, "g", 8);
    eg_wait_until(is_stable, NULL, "the group is stable");
    uint32_t generation = describe().generation, had[4];
    for (size_t i = 0; i < 4; i++)
        had[i] = m[0].part[i].partition;
    uint64_t id = m[0].id;
    /* Away and back: no generation. */
    assert_int_equal(eg_rm_leave(&m[0], 1), 0);
    assert_int_equal(describe().members, 2);
    assert_int_equal(eg_rm_ask_sync(&m[0], 0, 0), EAGRE_E_FENCED);
    assert_int_equal(eg_rm_join(&m[0], "g", &a), 0);
    assert_int_equal(eg_rm_subscribe(&m[0], t2, 0), 0);
    assert_true(m[0].id != id);
    eg_rm_settle(m, 2, "g", 8);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(m[0].part[i].partition, had[i]);
    assert_int_equal(describe().generation, generation);
    /* A second one takes the place of the first. */
    eg_rm_connect(&m[2], b->socket);
    assert_int_equal(eg_rm_join(&m[2], "g", &a), 0);
    assert_int_equal(eg_load_acquire(&m[0].page->state), EG_MEMBER_TAKEN);
    assert_int_equal(eg_rm_ask_sync(&m[0], 0, 0), EAGRE_E_FENCED);
    assert_int_equal(eg_rm_subscribe(&m[2], t2, 0), 0);
    eg_rm_close(&m[0]);
    eg_rm_settle(m, 3, "g", 8);
    assert_int_equal(m[2].count, 4);
    assert_int_equal(describe().generation, generation + 1); /* the first may not know it yet */
    assert_int_equal(m[1].generation, generation);           /* nobody else is told */
    /* Back on another connection, and not back in time. */
    eg_rm_close(&m[2]);
    const struct eg_join_options soon = {.instance_id = "a", .session_ms = 100};
    join(3, &soon, t2);
    eg_rm_settle(m, 4, "g", 8);
    assert_int_equal(m[3].count, 4);
    assert_int_equal(eg_rm_leave(&m[3], 1), 0);
    eg_rm_forget(&m[3]);
    eg_rm_settle(m, 4, "g", 8);
    assert_int_equal(m[1].count, 8);
    assert_int_equal(describe().members, 1);
}

/* ---- ends ----------------------------------------------------------------------------------------------------------- */

/* A process that has members, until it is killed. */
static pid_t start_process(size_t members, int ready[2]) {
    assert_int_equal(pipe(ready), 0);
    pid_t pid = fork();
    assert_true(pid >= 0);
    if (pid != 0) {
        close(ready[1]);
        return pid;
    }
    setenv("CMOCKA_TEST_ABORT", "1", 1); /* a failure ends the child; it does not go on with the other tests */
    static struct eg_raw_member own[MEMBERS];
    for (size_t i = 0; i < members; i++) {
        eg_rm_connect(&own[i], b->socket);
        if (eg_rm_join(&own[i], "g", NULL) != 0 || eg_rm_subscribe(&own[i], both, 0) != 0)
            _exit(1);
    }
    if (write(ready[1], "", 1) != 1)
        _exit(1);
    for (;;)
        for (size_t i = 0; i < members; i++)
            eg_rm_follow(&own[i]);
}

static void the_dead_give_up_at_once(void **state) {
    (void)state;
    int ready[2];
    char byte;
    join(0, NULL, both);
    pid_t pid = start_process(3, ready);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    while (m[0].count != 3) {
        eg_rm_follow(&m[0]);
        assert_true(m[0].count == 12 || m[0].count <= 12);
    }
    eg_wait_until(is_stable, NULL, "the group is stable");
    long long rebalances = figure("rebalances");
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(eg_wait_exit(pid), 128 + SIGKILL);
    eg_rm_settle(m, 1, "g", 12);
    assert_int_equal(figure("rebalances"), rebalances + 1); /* one for the three */
    assert_int_equal(figure("members"), 1);
}

static void who_does_not_poll_is_out(void **state) {
    (void)state;
    const struct eg_join_options brief = {.max_poll_ms = 200};
    join(0, NULL, t1);
    eg_rm_settle(m, 1, "g", 4);
    join(1, &brief, t1);
    eg_rm_settle(m, 2, "g", 4);
    eg_rm_commit(&m[1], 0, 0);
    uint32_t partition = m[1].part[0].partition;
    eg_wait_until(is_out, &m[1], "the member that does not poll is put out");
    assert_int_equal(eg_load_acquire(&m[1].page->state), EG_MEMBER_OUT);
    assert_int_equal(eg_rm_ask_sync(&m[1], m[1].version, 0), EAGRE_E_FENCED);
    /* What it still stores is for nobody; what it committed before counts. */
    eg_rm_close(&m[1]);
    eg_rm_settle(m, 2, "g", 4);
    for (size_t i = 0; i < 4; i++)
        if (m[0].part[i].partition == partition)
            assert_true(m[0].part[i].committed == 0);
}

static void who_does_not_give_up_is_out(void **state) {
    (void)state;
    const struct eg_join_options brief = {.max_poll_ms = 300};
    join(0, &brief, t1);
    eg_rm_settle(m, 1, "g", 4);
    join(1, NULL, t1);
    while (!is_out(&m[0])) /* it polls, and that is all */
        atomic_fetch_add_explicit(&m[0].page->polls, 1, memory_order_relaxed);
    eg_rm_close(&m[0]);
    eg_rm_settle(m, 2, "g", 4);
    /* One that does everything in its own time stays. */
    join(2, &brief, t1);
    int64_t end = eg_mono_ns() + 900 * EG_NS_PER_MS;
    while (eg_mono_ns() < end)
        eg_rm_settle(m, 3, "g", 4);
    assert_int_equal(eg_load_acquire(&m[2].page->state), EG_MEMBER_IN);
}

/* ---- topics --------------------------------------------------------------------------------------------------------- */

static void alter_partitions(const char *name, const char *partitions) {
    eg_raw_begin(&tool, EG_MSG_TOPIC_ALTER);
    eg_enc_str(&tool.enc, name);
    eg_enc_u16(&tool.enc, 1);
    eg_enc_str(&tool.enc, "partitions");
    eg_enc_str(&tool.enc, partitions);
    assert_int_equal(eg_raw_ask(&tool), 0);
}

static void delete_topic(const char *name) {
    eg_raw_begin(&tool, EG_MSG_TOPIC_DELETE);
    eg_enc_str(&tool.enc, name);
    assert_int_equal(eg_raw_ask(&tool), 0);
}

static void topics_grow_come_and_go(void **state) {
    (void)state;
    static const char *const pattern[] = {"t1", "t2", "not-there", NULL};
    join(0, NULL, both);
    eg_rm_connect(&m[1], b->socket);
    assert_int_equal(eg_rm_join(&m[1], "g", NULL), 0);
    assert_int_equal(eg_rm_subscribe(&m[1], pattern, 0), EAGRE_E_UNKNOWN_TOPIC);
    assert_int_equal(eg_rm_subscribe(&m[1], pattern, 4), 0);
    eg_rm_settle(m, 2, "g", 12);
    alter_partitions("t1", "7");
    eg_rm_settle(m, 2, "g", 15);
    uint32_t word = eg_load_acquire(&m[1].page->topics), other = eg_load_acquire(&m[0].page->topics);
    eg_raw_topic(&tool, "not-there", 2);
    assert_true(eg_load_acquire(&m[1].page->topics) != word); /* it looks again */
    assert_true(eg_load_acquire(&m[0].page->topics) == other);
    assert_int_equal(eg_rm_subscribe(&m[1], pattern, 4), 0);
    eg_rm_settle(m, 2, "g", 17);
    delete_topic("t1");
    eg_rm_settle(m, 2, "g", 10);
    uint32_t generation = describe().generation;
    eg_raw_topic(&tool, "nobodys", 2);
    eg_rm_settle(m, 2, "g", 10);
    assert_int_equal(describe().generation, generation);
    eg_raw_topic(&tool, "t1", 3); /* the name is subscribed, the topic is a new one */
    eg_rm_settle(m, 2, "g", 13);
}

/* More than one message can hold; and a list that changes while it is read is read again. */
static void long_lists_come_in_pages(void **state) {
    static const char *const large[] = {"t1", "large1", "large2", "large3", "large4", NULL};
    (void)state;
    for (int i = 1; i <= 4; i++)
        eg_raw_topic(&tool, large[i], 1000);
    join(0, NULL, large);
    eg_rm_settle(m, 1, "g", 4004);
    assert_int_equal(eg_rm_ask_sync(&m[0], m[0].version, 0), 0);
    eg_dec_u64(&m[0].r.dec);
    assert_int_equal(eg_dec_u8(&m[0].r.dec), 1);
    assert_int_equal(eg_rm_ask_sync(&m[0], m[0].version, 4003), 0);
    eg_dec_u64(&m[0].r.dec);
    assert_int_equal(eg_dec_u8(&m[0].r.dec), 0);
    assert_int_equal(eg_dec_u16(&m[0].r.dec), 1);
    assert_int_equal(eg_rm_ask_sync(&m[0], m[0].version, UINT32_MAX), 0);
    join(1, NULL, large);
    eg_rm_settle(m, 2, "g", 4004);
}

/* ---- a daemon that is killed ------------------------------------------------------------------------------------------ */

static void restart(void) {
    eg_raw_close(&tool);
    eg_bus_kill(b);
    eg_bus_start(b, "--socket.mode=0666", "--memory.max=1G", NULL);
    eg_raw_connect(&tool, b->socket);
    eg_raw_hello(&tool, NULL);
}

static void members_outlive_the_daemon(void **state) {
    (void)state;
    const struct eg_join_options a = {.instance_id = "a"};
    join(0, &a, both);
    join(1, NULL, both);
    join(2, NULL, both);
    eg_rm_settle(m, 3, "g", 12);
    eg_rm_commit(&m[1], 0, 0);
    assert_int_equal(eg_rm_leave(&m[0], 1), 0); /* away */
    eg_wait_until(is_stable, NULL, "the group is stable");
    uint32_t generation = describe().generation, partition = m[1].part[0].partition;
    restart();
    for (size_t i = 0; i < 3; i++)
        assert_int_equal(eg_rm_reconnect(&m[i], b->socket, false), 0);
    assert_int_equal(describe().members, 3);
    assert_int_equal(eg_rm_join(&m[0], "g", &a), 0);
    eg_rm_settle(m, 3, "g", 12);
    assert_int_equal(describe().generation, generation);
    assert_int_equal(m[1].part[0].partition, partition);
    /* In the middle of a rebalance. */
    join(3, NULL, both);
    while (eg_load_acquire(&m[1].page->version) == m[1].version) {}
    uint32_t version = eg_rm_learn(&m[1]);
    restart();
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(eg_rm_reconnect(&m[i], b->socket, false), 0);
    m[1].version = version;
    eg_rm_settle(m, 4, "g", 12);
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(m[i].count, 3);
    /* One does not know that it is a member: the answer was lost. */
    restart();
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(eg_rm_reconnect(&m[i], b->socket, i == 2), 0);
    eg_rm_close(&m[2]);
    eg_rm_settle(m, 4, "g", 12);
    /* Everything is new: no members, and no generation twice. */
    generation = describe().generation;
    eg_raw_close(&tool);
    assert_int_equal(eg_bus_stop(b), 0);
    eg_bus_start(b, "--socket.mode=0666", NULL);
    eg_raw_connect(&tool, b->socket);
    eg_raw_hello(&tool, NULL);
    assert_int_equal(describe().members, 0);
    assert_true(describe().generation >= generation);
    for (size_t i = 0; i < 4; i++)
        eg_rm_close(&m[i]);
    join(0, NULL, both);
    eg_rm_settle(m, 1, "g", 12);
    assert_true(m[0].generation > generation);
}

static void the_dead_are_found_after_a_restart(void **state) {
    (void)state;
    int ready[2];
    char byte;
    join(0, NULL, both);
    pid_t pid = start_process(2, ready);
    assert_int_equal(read(ready[0], &byte, 1), 1);
    close(ready[0]);
    while (m[0].count != 4)
        eg_rm_follow(&m[0]);
    eg_wait_until(is_stable, NULL, "the group is stable");
    eg_raw_close(&tool);
    eg_bus_kill(b);
    assert_int_equal(kill(pid, SIGKILL), 0);
    assert_int_equal(eg_wait_exit(pid), 128 + SIGKILL);
    eg_bus_start(b, "--socket.mode=0666", NULL);
    eg_raw_connect(&tool, b->socket);
    eg_raw_hello(&tool, NULL);
    assert_int_equal(eg_rm_reconnect(&m[0], b->socket, false), 0);
    eg_rm_settle(m, 1, "g", 12);
}

/* ---- what they should not do ------------------------------------------------------------------------------------------- */

static void others_members_and_nonsense(void **state) {
    (void)state;
    join(0, NULL, t1);
    join(1, NULL, t1);
    eg_rm_settle(m, 2, "g", 4);
    uint64_t own = m[1].id;
    const uint64_t wrong[] = {m[0].id, 0, UINT64_MAX, own + 1, own - 1, own ^ (1ull << 40)};
    for (size_t i = 0; i < sizeof(wrong) / sizeof(wrong[0]); i++) {
        m[1].id = wrong[i];
        assert_int_equal(eg_rm_ask_sync(&m[1], 0, 0), EAGRE_E_FENCED);
        assert_int_equal(eg_rm_subscribe(&m[1], t2, 0), EAGRE_E_FENCED);
        eg_raw_begin(&m[1].r, EG_MSG_GROUP_LEAVE);
        eg_enc_u64(&m[1].r.enc, wrong[i]);
        eg_enc_u8(&m[1].r.enc, 0);
        assert_int_equal(eg_raw_ask(&m[1].r), EAGRE_E_FENCED);
    }
    m[1].id = own;
    assert_int_equal(eg_rm_ask_sync(&m[1], m[1].version + 1, 0), EAGRE_E_INVALID);
    assert_int_equal(eg_rm_ask_sync(&m[1], UINT32_MAX, 0), EAGRE_E_INVALID);
    eg_rm_settle(m, 2, "g", 4);
    /* Before it is a client. */
    eg_raw_begin(&tool, EG_MSG_GROUP_SYNC);
    eg_enc_u64(&tool.enc, own);
    eg_enc_u64(&tool.enc, 0);
    assert_int_equal(eg_raw_ask(&tool), EAGRE_E_FENCED);
    /* Names of groups. */
    char name[400];
    memset(name, 'x', sizeof(name));
    name[300] = '\0';
    eg_rm_connect(&m[2], b->socket);
    const char *const names[] = {"", name, "a\nb", "caf\xc3\xa9"};
    for (size_t i = 0; i < 4; i++)
        assert_int_equal(eg_rm_join(&m[2], names[i], NULL), EAGRE_E_INVALID);
    const struct eg_join_options share = {.type = EG_GROUP_SHARE};
    assert_int_equal(eg_rm_join(&m[2], "g", &share), EAGRE_E_INVALID_CONFIG);
    assert_non_null(strstr(m[2].r.detail, "group.type"));
    assert_int_equal(eg_rm_join(&m[2], "any: name, really", NULL), 0);
    /* What the daemon writes to a page it does not read back. */
    memset(m[2].page, 0xff, sizeof(*m[2].page));
    assert_int_equal(eg_rm_subscribe(&m[2], t1, 0), 0);
    assert_int_equal(eg_rm_ask_sync(&m[2], 0, 0), 0);
}

static void broken_messages(void **state) {
    (void)state;
    static const uint16_t types[] = {EG_MSG_GROUP_JOIN,  EG_MSG_GROUP_SUBSCRIBE, EG_MSG_GROUP_SYNC, EG_MSG_GROUP_LEAVE,
                                     EG_MSG_GROUP_COMMIT, EG_MSG_GROUP_LIST,      EG_MSG_GROUP_DESCRIBE,
                                     EG_MSG_GROUP_DELETE};
    join(0, NULL, t1);
    eg_rm_settle(m, 1, "g", 4);
    for (size_t i = 0; i < sizeof(types) / sizeof(types[0]); i++) {
        eg_rm_connect(&m[1], b->socket);
        eg_raw_begin(&m[1].r, types[i]);
        eg_enc_u32(&m[1].r.enc, UINT32_MAX);
        eg_enc_u8(&m[1].r.enc, 9);
        assert_int_equal(eg_raw_ask(&m[1].r), EAGRE_E_PROTOCOL);
        eg_rm_close(&m[1]);
    }
    /* Strategies that there are not; more than there may be; none. */
    static const uint8_t lists[][6] = {{1, 99}, {5, 1, 2, 3, 4, 1}, {0}};
    for (size_t i = 0; i < 3; i++) {
        eg_rm_connect(&m[1], b->socket);
        struct eg_enc *e = &m[1].r.enc;
        eg_raw_begin(&m[1].r, EG_MSG_GROUP_JOIN);
        eg_enc_str(e, "g");
        eg_enc_u8(e, 0);
        eg_enc_str(e, "");
        eg_enc_str(e, "");
        for (uint8_t k = 0; k <= lists[i][0]; k++)
            eg_enc_u8(e, lists[i][k]);
        for (int k = 0; k < 4; k++)
            eg_enc_u32(e, 1000);
        assert_int_equal(eg_raw_ask(&m[1].r), EAGRE_E_PROTOCOL);
        eg_rm_close(&m[1]);
    }
    eg_rm_settle(m, 1, "g", 4);
}

/* A member can name a thousand topics; parts that never end cost no more than that. */
static void too_many_topics(void **state) {
    (void)state;
    join(0, NULL, t1);
    int rc = 0;
    for (int part = 0; part < 12 && rc == 0; part++) {
        eg_raw_begin(&m[0].r, EG_MSG_GROUP_SUBSCRIBE);
        eg_enc_u64(&m[0].r.enc, m[0].id);
        eg_enc_u8(&m[0].r.enc, part == 0 ? 1 : 0);
        eg_enc_u16(&m[0].r.enc, 100);
        for (int i = 0; i < 100; i++)
            eg_enc_str(&m[0].r.enc, "t2");
        rc = eg_raw_ask(&m[0].r);
    }
    assert_int_equal(rc, EAGRE_E_LIMIT);
    eg_rm_settle(m, 1, "g", 4); /* it has what it subscribed before */
    static const char *const twice[] = {"t2", "t2", "t1", NULL};
    assert_int_equal(eg_rm_subscribe(&m[0], twice, 0), 0);
    eg_rm_settle(m, 1, "g", 12);
}

static void limits(void **state) {
    (void)state;
    eg_raw_close(&tool);
    assert_int_equal(eg_bus_stop(b), 0);
    eg_bus_start(b, "--members.max.per.uid=3", "--groups.max=2", NULL);
    eg_raw_connect(&tool, b->socket);
    eg_raw_hello(&tool, NULL);
    eg_rm_connect(&m[0], b->socket);
    static struct eg_raw_member same[4]; /* of one client */
    for (int i = 0; i < 3; i++) {
        same[i] = m[0];
        same[i].page_fd = -1;
        assert_int_equal(eg_rm_join(&same[i], "g", NULL), 0);
    }
    same[3] = m[0];
    same[3].page_fd = -1;
    assert_int_equal(eg_rm_join(&same[3], "another", NULL), EAGRE_E_LIMIT);
    assert_non_null(strstr(same[3].r.detail, "members.max.per.uid=3"));
    struct eg_rm_group g;
    assert_int_equal(eg_rm_describe(&tool, "another", &g), EAGRE_E_UNKNOWN_GROUP);
    assert_int_equal(eg_rm_leave(&same[0], 0), 0);
    assert_int_equal(eg_rm_join(&same[3], "another", NULL), 0);
    assert_int_equal(eg_rm_leave(&same[1], 0), 0);
    assert_int_equal(eg_rm_join(&same[1], "third", NULL), EAGRE_E_LIMIT);
    assert_non_null(strstr(same[1].r.detail, "groups.max=2"));
    /* Deleted only without members. */
    eg_raw_begin(&tool, EG_MSG_GROUP_DELETE);
    eg_enc_str(&tool.enc, "another");
    assert_int_equal(eg_raw_ask(&tool), EAGRE_E_GROUP_ACTIVE);
    assert_int_equal(eg_rm_leave(&same[3], 0), 0);
    eg_raw_begin(&tool, EG_MSG_GROUP_DELETE);
    eg_enc_str(&tool.enc, "another");
    assert_int_equal(eg_raw_ask(&tool), 0);
    assert_int_equal(eg_rm_describe(&tool, "another", &g), EAGRE_E_UNKNOWN_GROUP);
    assert_int_equal(eg_rm_join(&same[1], "third", NULL), 0);
    assert_int_equal(figure("groups"), 2);
    for (size_t i = 0; i < 4; i++) {
        same[i].r.fd = -1;
        eg_rm_close(&same[i]);
    }
}

static int as_another_user(void *ctx) {
    static struct eg_raw_member own;
    struct eg_rm_group g;
    const struct eg_test_bus *at = ctx;
    eg_rm_connect(&own, at->socket);
    if (eg_rm_join(&own, "g", NULL) != EAGRE_E_PERMISSION)
        return 1;
    eg_raw_begin(&own.r, EG_MSG_GROUP_DELETE);
    eg_enc_str(&own.r.enc, "g");
    if (eg_raw_ask(&own.r) != EAGRE_E_PERMISSION)
        return 2;
    if (eg_rm_describe(&own.r, "g", &g) != 0 || g.members != 1) /* everybody may look */
        return 3;
    return eg_rm_join(&own, "mine", NULL) == 0 ? 0 : 4;
}

static void groups_belong_to_users(void **state) {
    (void)state;
    if (geteuid() != 0)
        skip();
    join(0, NULL, t1);
    assert_int_equal(eg_as_user_status(EG_USER_A, as_another_user, b), 0);
}

/* Members that come and go without a pause: the others keep what they have, and are served. */
static void a_flood_of_joins(void **state) {
    (void)state;
    join(0, NULL, t2);
    eg_rm_connect(&m[1], b->socket);
    for (int i = 0; i < 300; i++) {
        assert_int_equal(eg_rm_join(&m[1], "g", NULL), 0);
        assert_int_equal(eg_rm_subscribe(&m[1], t2, 0), 0);
        eg_rm_follow(&m[0]);
        assert_int_equal(eg_rm_leave(&m[1], 0), 0);
    }
    eg_rm_forget(&m[1]);
    eg_rm_settle(m, 1, "g", 8);
    assert_true(figure("rebalances") < 320); /* each change is not one of its own */
    assert_int_equal(figure("members"), 1);
}

int main(int argc, char **argv) {
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        cmocka_unit_test_setup_teardown(members_come_and_go, setup, teardown),
        cmocka_unit_test_setup_teardown(nothing_is_given_before_it_is_given_up, setup, teardown),
        cmocka_unit_test_setup_teardown(eager_ones_give_up_everything, setup, teardown),
        cmocka_unit_test_setup_teardown(commits_go_with_the_partition, setup, teardown),
        cmocka_unit_test_setup_teardown(static_members_keep_their_own, setup, teardown),
        cmocka_unit_test_setup_teardown(the_dead_give_up_at_once, setup, teardown),
        cmocka_unit_test_setup_teardown(who_does_not_poll_is_out, setup, teardown),
        cmocka_unit_test_setup_teardown(who_does_not_give_up_is_out, setup, teardown),
        cmocka_unit_test_setup_teardown(topics_grow_come_and_go, setup, teardown),
        cmocka_unit_test_setup_teardown(long_lists_come_in_pages, setup, teardown),
        cmocka_unit_test_setup_teardown(members_outlive_the_daemon, setup, teardown),
        cmocka_unit_test_setup_teardown(the_dead_are_found_after_a_restart, setup, teardown),
        cmocka_unit_test_setup_teardown(others_members_and_nonsense, setup, teardown),
        cmocka_unit_test_setup_teardown(broken_messages, setup, teardown),
        cmocka_unit_test_setup_teardown(too_many_topics, setup, teardown),
        cmocka_unit_test_setup_teardown(limits, setup, teardown),
        cmocka_unit_test_setup_teardown(groups_belong_to_users, setup, teardown),
        cmocka_unit_test_setup_teardown(a_flood_of_joins, setup, teardown),
    };
    return cmocka_run_group_tests_name("system/group_protocol", tests, NULL, NULL);
}
