/*
 * Members die, stop and fork; the daemon dies, stops and is replaced while members are given partitions: what is read and
 * committed meanwhile, and what they notice.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <glob.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <unistd.h>

#include "harness_group.h"
#include "sys/clock.h"

#define RECORDS 20000 /* of a partition, at most */
#define WORKERS 4

/* What processes say of themselves, in memory that they share. */
struct worker {
    _Atomic uint32_t parts; /* bits: what it has */
    _Atomic uint32_t polls, fenced, lost, revoked, assigned;
    _Atomic bool leave, left;
    _Atomic uint8_t seen[PARTS][RECORDS];
};

static struct worker *workers; /* of the children */
static int32_t first_max_poll_ms; /* of worker 0 */
static bool by_auto_commit;
static pid_t pids[WORKERS]; /* 0: none */

static int setup(void **state) {
    workers = mmap(NULL, WORKERS * sizeof(*workers), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
    assert_true(workers != MAP_FAILED);
    first_max_poll_ms = 300000;
    by_auto_commit = false;
    return eg_setup_groups(state);
}

/* ---- a process that is a member ---------------------------------------------------------------------------------- */

static void set_parts(eagre_consumer_t *of, struct worker *w) {
    eagre_topic_partition_t list[PARTS];
    size_t n;
    uint32_t bits = 0;
    CHECK(eagre_consumer_assignment(of, list, PARTS, &n) == EAGRE_OK && n <= PARTS);
    for (size_t i = 0; i < n; i++)
        bits |= 1u << list[i].partition;
    w->parts = bits;
}

static void was_assigned(eagre_consumer_t *of, const eagre_topic_partition_t *list, size_t n, void *ctx) {
    (void)of, (void)list;
    ((struct worker *)ctx)->assigned += (uint32_t)n;
}

static void was_revoked(eagre_consumer_t *of, const eagre_topic_partition_t *list, size_t n, void *ctx) {
    struct worker *w = ctx;
    w->revoked += (uint32_t)n;
    for (size_t i = 0; i < n; i++)
        w->parts &= ~(1u << list[i].partition);
    if (!by_auto_commit)
        CHECK(eagre_consumer_commit_async(of, NULL, 0) == EAGRE_OK);
}

static void was_lost(eagre_consumer_t *of, const eagre_topic_partition_t *list, size_t n, void *ctx) {
    (void)of, (void)list;
    ((struct worker *)ctx)->lost += (uint32_t)n;
    ((struct worker *)ctx)->parts = 0;
}

static void work(int ready, int number) {
    struct worker *w = &workers[number];
    const eagre_rebalance_callbacks_t callbacks = {was_revoked, was_assigned, was_lost, w};
    const char *const topics[] = {"four"};
    eagre_consumer_options_t o = m_options();
    eagre_t *own;
    eagre_consumer_t *of;
    eagre_record_t r[32];
    o.enable_auto_commit = by_auto_commit;
    if (number == 0)
        o.max_poll_interval_ms = first_max_poll_ms;
    pid_t parent = getppid();
    CHECK(eagre_open(bus->socket, &own) == EAGRE_OK);
    CHECK(eagre_consumer_open(own, &o, &of) == EAGRE_OK);
    CHECK(eagre_consumer_on_rebalance(of, &callbacks) == EAGRE_OK);
    CHECK(eagre_consumer_subscribe(of, topics, 1) == EAGRE_OK);
    eg_say(ready);
    while (!w->leave && getppid() == parent) {
        size_t n;
        int rc = eagre_consumer_poll(of, r, 32, 50, &n);
        if (rc == EAGRE_E_FENCED)
            w->fenced++;
        else
            CHECK(rc == EAGRE_OK || rc == EAGRE_E_NO_DAEMON);
        for (size_t i = 0; i < n; i++)
            w->seen[r[i].partition][r[i].offset]++;
        set_parts(of, w);
        w->polls++;
    }
    eagre_consumer_close(of);
    CHECK(eagre_close(own) == EAGRE_OK);
    w->left = true;
}

struct wish {
    int first, count; /* workers */
    uint32_t parts;   /* together, each at one of them */
    size_t most, least; /* that one has */
};

static bool have(void *ctx) {
    const struct wish *wish = ctx;
    uint32_t all = 0;
    for (int i = wish->first; i < wish->first + wish->count; i++) {
        uint32_t parts = workers[i].parts;
        size_t n = (size_t)__builtin_popcount(parts);
        if ((all & parts) != 0 || n > wish->most || n < wish->least)
            return false;
        all |= parts;
    }
    return all == wish->parts;
}

/* Until these workers have all four partitions. */
static void wait_for(int first, int count) {
    struct wish wish = {first, count, 15, (size_t)(PARTS + count - 1) / (size_t)count, PARTS / (size_t)count};
    eg_wait_until(have, &wish, "the workers have the partitions");
}

struct end {
    int count;        /* of workers */
    uint32_t records; /* of each partition */
};

static bool all_seen(void *ctx) {
    const struct end *end = ctx;
    for (int part = 0; part < PARTS; part++)
        for (uint32_t i = 0; i < end->records; i++) {
            bool any = false;
            for (int w = 0; w < end->count && !any; w++)
                any = workers[w].seen[part][i] != 0;
            if (!any)
                return false;
        }
    return true;
}

static void wait_for_records(int count, uint32_t records) {
    struct end end = {count, records};
    eg_wait_until(all_seen, &end, "each record was seen");
}

static uint32_t repeated(int count, uint32_t records) {
    uint32_t n = 0;
    for (int part = 0; part < PARTS; part++)
        for (uint32_t i = 0; i < records; i++) {
            uint32_t times = 0;
            for (int w = 0; w < count; w++)
                times += workers[w].seen[part][i];
            n += times - (times > 0);
        }
    return n;
}

static bool has_left(void *ctx) { return ((struct worker *)ctx)->left; }

static void leave(int number) {
    workers[number].leave = true;
    eg_wait_until(has_left, &workers[number], "the worker has closed its consumer");
}

static pid_t start(int number) {
    pids[number] = eg_start(work, number);
    return pids[number];
}

static void kill_worker(int number) {
    kill(pids[number], SIGKILL);
    assert_int_equal(eg_wait_exit(pids[number]), 128 + SIGKILL);
    pids[number] = 0;
}

static int teardown(void **state) {
    for (int i = 0; i < WORKERS; i++)
        if (pids[i] != 0)
            kill_worker(i);
    int rc = eg_teardown_groups(state);
    munmap(workers, WORKERS * sizeof(*workers));
    return rc;
}

/* ---- members that end ---------------------------------------------------------------------------------------------- */

static void others_go_on_for_the_dead(void **state) {
    (void)state;
    by_auto_commit = true;
    start(0);
    start(1);
    wait_for(0, 2);
    m_produce(2000);
    wait_for_records(2, 2000);
    kill_worker(0);
    wait_for(1, 1);
    m_produce(2000);
    wait_for_records(2, 4000);
    /* The dead one had committed all but its last poll. */
    if (repeated(2, 4000) > 32)
        fail_msg("%u records came again", repeated(2, 4000));
    start(2);
    wait_for(1, 2);
    leave(1);
    wait_for(2, 1);
    m_produce(100);
    wait_for_records(3, 4100);
    if (repeated(3, 4100) > 32)
        fail_msg("%u records came again", repeated(3, 4100));
    assert_int_equal(workers[1].lost + workers[2].lost, 0);
}

static void without_commits_all_comes_again(void **state) {
    (void)state;
    start(0);
    wait_for(0, 1);
    m_produce(500);
    wait_for_records(1, 500);
    kill_worker(0);
    start(1);
    wait_for(1, 1);
    memset(workers[0].seen, 0, sizeof(workers[0].seen));
    wait_for_records(2, 500);
    assert_int_equal(repeated(2, 500), 0);
}

struct counted {
    _Atomic uint32_t *count;
    uint32_t at_least;
};

static bool reached(void *ctx) { return *((struct counted *)ctx)->count >= ((struct counted *)ctx)->at_least; }

static void a_stopped_member_is_put_out_and_told(void **state) {
    (void)state;
    by_auto_commit = true;
    first_max_poll_ms = 1000;
    pid_t first = start(0);
    start(1);
    wait_for(0, 2);
    m_produce(100);
    wait_for_records(2, 100);
    kill(first, SIGSTOP);
    wait_for(1, 1);
    m_produce(100);
    wait_for_records(2, 200); /* the other one has all that comes */
    struct counted told = {&workers[0].fenced, workers[0].fenced + 1};
    uint32_t lost = workers[0].lost;
    kill(first, SIGCONT);
    eg_wait_until(reached, &told, "the member is told that it is out");
    assert_true(workers[0].lost > lost);
    wait_for(0, 2); /* it is in again */
    m_produce(100);
    wait_for_records(2, 300);
    assert_int_equal(workers[1].lost + workers[1].fenced, 0);
}

/* ---- a daemon that ends ----------------------------------------------------------------------------------------------- */

static void assert_quiet(const struct member *m, size_t events) {
    if (m->event_count != events)
        fail_msg("%zu callbacks, not %zu", m->event_count, events);
}

static void a_restart_is_not_noticed(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    struct member *both[] = {&a, &b};
    o.enable_auto_commit = 1;
    m_join(&a, &o);
    m_join(&b, &o);
    m_settle(both, (size_t[]){2, 2}, 2);
    size_t events[] = {a.event_count, b.event_count};
    m_produce(100);
    eg_bus_kill(bus);
    m_produce(100);
    m_take(both, 2, 800); /* without a daemon */
    eg_bus_start(bus, NULL);
    m_produce(100);
    m_take(both, 2, 1200);
    for (int i = 0; i < 50; i++) {
        m_poll(&a, 1);
        m_poll(&b, 1);
    }
    assert_quiet(&a, events[0]);
    assert_quiet(&b, events[1]);
    m_close(&b); /* membership goes on, too */
    m_settle(both, (size_t[]){4}, 1);
    m_produce(1);
    m_take(both, 1, 1204 - b.records);
    m_close(&a);
}

/* b has joined, a does not know it yet; then the daemon is away, and another one goes on. */
static void a_restart_in_the_middle_of_a_rebalance(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {.commits = false}, b = {0};
    struct member *both[] = {&a, &b};
    o.enable_auto_commit = 1;
    m_join(&a, &o);
    m_settle(both, (size_t[]){4}, 1);
    m_produce(10);
    m_join(&b, &o);
    m_poll(&b, 10);
    eg_bus_kill(bus);
    m_produce(10);
    m_take(both, 1, 80); /* a goes on with all of it */
    assert_int_equal(m_count(&a), 4);
    m_poll(&b, 1);
    assert_int_equal(m_count(&b), 0);
    eg_bus_start(bus, NULL);
    m_settle(both, (size_t[]){2, 2}, 2);
    m_produce(10);
    m_take(both, 2, 120); /* once each: a's commits were taken before b got its partitions */
    m_close(&b);
    m_close(&a);
}

static void *start_again(void *arg) {
    eg_bus_start(bus, NULL);
    return arg;
}

/* Who leaves while there is no daemon is not a member of the next one; who tries to come waits for it. */
static void leaving_and_coming_without_a_daemon(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    struct member *both[] = {&a, &b};
    eagre_consumer_t *second;
    m_join(&a, &o);
    m_join(&b, &o);
    m_settle(both, (size_t[]){2, 2}, 2);
    OK(eagre_consumer_open(b.e, NULL, &second)); /* so that its process stays a client */
    OK(eagre_consumer_assign(second, "four", 0));
    eg_bus_kill(bus);
    eagre_consumer_close(b.c);
    eg_bus_start(bus, NULL);
    eagre_record_t r;
    size_t n;
    for (int i = 0; i < 200 && m_count(&a) != 4; i++) {
        m_poll(&a, 20);
        OK(eagre_consumer_poll(second, &r, 1, 20, &n)); /* the client says which members it is */
    }
    assert_int_equal(m_count(&a), 4);
    eagre_consumer_close(second);
    OK(eagre_close(b.e));

    pthread_t thread;
    struct member late = {0};
    m_open(&late, &o);
    eg_bus_kill(bus);
    REFUSED(eagre_consumer_subscribe(late.c, (const char *const[]){"four"}, 1), EAGRE_E_NO_DAEMON, "group 'g'");
    assert_int_equal(pthread_create(&thread, NULL, start_again, NULL), 0);
    pthread_join(thread, NULL);
    OK(eagre_consumer_subscribe(late.c, (const char *const[]){"four"}, 1));
    m_settle((struct member *[]){&a, &late}, (size_t[]){2, 2}, 2);
    m_close(&late);
    m_close(&a);
}

/* The list of members is lost, the memory is not: who lives is told that it is none, and comes again. */
static void without_its_list_nobody_is_a_member(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    struct member *both[] = {&a, &b};
    char path[128];
    glob_t files;
    m_join(&a, &o);
    m_settle(both, (size_t[]){4}, 1);
    m_produce(10);
    m_take(both, 1, 40);
    OK(eagre_consumer_commit(a.c, NULL, 0, EG_TEST_LIMIT_MS));
    eg_bus_kill(bus);
    snprintf(path, sizeof(path), "%s/members/*.mdb", bus->data);
    assert_int_equal(glob(path, 0, NULL, &files), 0);
    assert_int_equal(files.gl_pathc, 1);
    assert_int_equal(unlink(files.gl_pathv[0]), 0);
    globfree(&files);
    eg_bus_start(bus, NULL);
    m_join(&b, &o);
    int rc = EAGRE_OK;
    int64_t until = eg_mono_ns() + EG_TEST_LIMIT_MS * EG_NS_PER_MS;
    while (rc == EAGRE_OK && eg_mono_ns() < until) {
        eagre_record_t r;
        size_t n;
        rc = eagre_consumer_poll(a.c, &r, 1, 10, &n);
        assert_int_equal(n, 0);
    }
    assert_int_equal(rc, EAGRE_E_FENCED);
    m_settle(both, (size_t[]){2, 2}, 2);
    m_produce(10);
    m_take(both, 2, 80); /* each once */
    m_close(&b);
    m_close(&a);
}

/* A rebalance waits for a daemon that is stopped; who polls does not. */
static void polls_do_not_wait_for_a_stopped_daemon(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    struct member *both[] = {&a, &b};
    o.enable_auto_commit = 1;
    m_join(&a, &o);
    m_settle(both, (size_t[]){4}, 1);
    m_produce(400);
    m_join(&b, &o); /* a's version moves ... */
    eagre_record_t r[1];
    size_t n;
    OK(eagre_consumer_poll(b.c, r, 1, 20, &n));
    kill(bus->pid, SIGSTOP);
    int64_t start = eg_mono_ns();
    while (a.records < 4 * 400) /* ... and each poll finds that, asks once, and reads on */
        m_poll(&a, 0);
    m_poll(&a, 10);
    m_poll(&b, 10);
    assert_true(eg_mono_ns() - start < EG_TEST_LIMIT_MS * EG_NS_PER_MS);
    assert_int_equal(m_count(&a), 4);
    kill(bus->pid, SIGCONT);
    m_settle(both, (size_t[]){2, 2}, 2);
    assert_int_equal(a.records + b.records, 4 * 400);
    m_close(&b);
    m_close(&a);
}

/* All at once: members come and go, the daemon dies, records flow. */
static void restarts_among_rebalances(void **state) {
    (void)state;
    by_auto_commit = true;
    uint32_t records = 0;
    for (int i = 0; i < 2; i++)
        start(i);
    wait_for(0, 2);
    for (int round = 0; round < 3; round++) {
        m_produce(300);
        records += 300;
        start(2);
        eg_bus_kill(bus);
        m_produce(100);
        records += 100;
        eg_bus_start(bus, NULL);
        wait_for(0, 3);
        kill(bus->pid, SIGKILL);
        kill_worker(2);
        workers[2].parts = 0;
        eg_bus_kill(bus);
        eg_bus_start(bus, NULL);
        wait_for(0, 2);
        wait_for_records(3, records);
    }
    assert_int_equal(workers[0].lost + workers[1].lost, 0);
    assert_int_equal(workers[0].fenced + workers[1].fenced, 0);
    if (repeated(3, records) > 3 * 32)
        fail_msg("%u records came again", repeated(3, records));
}

/* ---- fork ---------------------------------------------------------------------------------------------------------------- */

static struct member parent_member;

static void forked(int ready, int extra) {
    struct member *m = &parent_member;
    const char *const topics[] = {"four"};
    eagre_topic_partition_t list[PARTS];
    eagre_member_info_t info;
    eagre_record_t r;
    int64_t offset;
    size_t n;
    (void)extra;
    CHECK(eagre_consumer_poll(m->c, &r, 1, 0, &n) == EAGRE_E_FORKED);
    CHECK(eagre_consumer_subscribe(m->c, topics, 1) == EAGRE_E_FORKED);
    CHECK(eagre_consumer_unsubscribe(m->c) == EAGRE_E_FORKED);
    CHECK(eagre_consumer_on_rebalance(m->c, NULL) == EAGRE_E_FORKED);
    CHECK(eagre_consumer_assignment(m->c, list, PARTS, &n) == EAGRE_E_FORKED);
    CHECK(eagre_consumer_member(m->c, &info) == EAGRE_E_FORKED);
    CHECK(eagre_consumer_commit(m->c, NULL, 0, 0) == EAGRE_E_FORKED);
    CHECK(eagre_consumer_commit_async(m->c, NULL, 0) == EAGRE_E_FORKED);
    CHECK(eagre_consumer_committed(m->c, "four", 0, &offset, NULL, 0) == EAGRE_E_FORKED);
    eagre_consumer_close(m->c);
    CHECK(eagre_close(m->e) == EAGRE_OK);
    CHECK(m->event_count == 1); /* nothing is revoked here */
    eg_say(ready);
}

static void a_fork_child_leaves_its_parent_alone(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member *m = &parent_member;
    *m = (struct member){0};
    o.enable_auto_commit = 1;
    m_join(m, &o);
    m_settle(&m, (size_t[]){4}, 1);
    m_produce(10);
    m_take(&m, 1, 40); /* the last of it is not committed yet */
    int64_t before[PARTS];
    for (int32_t i = 0; i < PARTS; i++)
        before[i] = m_committed(m, i);
    pid_t child = eg_start(forked, 0);
    for (int32_t i = 0; i < PARTS; i++)
        assert_int_equal(m_committed(m, i), before[i]);
    for (int i = 0; i < 20; i++)
        m_poll(m, 1);
    kill(child, SIGKILL);
    assert_int_equal(eg_wait_exit(child), 128 + SIGKILL);
    m_produce(10);
    m_take(&m, 1, 80);
    assert_quiet(m, 1);
    m_poll(m, 0);
    for (int32_t i = 0; i < PARTS; i++)
        assert_int_equal(m_committed(m, i), 20);
    m_close(m);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(int argc, char **argv) {
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        TEST(others_go_on_for_the_dead),
        TEST(without_commits_all_comes_again),
        TEST(a_stopped_member_is_put_out_and_told),
        TEST(a_restart_is_not_noticed),
        TEST(a_restart_in_the_middle_of_a_rebalance),
        TEST(leaving_and_coming_without_a_daemon),
        TEST(without_its_list_nobody_is_a_member),
        TEST(polls_do_not_wait_for_a_stopped_daemon),
        TEST(restarts_among_rebalances),
        TEST(a_fork_child_leaves_its_parent_alone),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
