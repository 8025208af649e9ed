/*
 * Committed offsets, as applications see them: what auto-commit commits and when, what commits refuse, where members
 * begin, and that a synchronous commit survives everything.
 */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "client/group.h"
#include "harness_group.h"
#include "sys/clock.h"

static const char *const four[] = {"four"};

/* Poll until a partition has given records; how many. */
static size_t poll_some(struct member *m, eagre_record_t *r, size_t max, int32_t *partition) {
    size_t n = 0;
    int64_t until = eg_mono_ns() + EG_TEST_LIMIT_MS * EG_NS_PER_MS;
    while (n == 0 && eg_mono_ns() < until)
        OK(eagre_consumer_poll(m->c, r, max, 100, &n));
    assert_int_not_equal(n, 0);
    *partition = r[0].partition;
    return n;
}

static void join_with_all(struct member *m, const eagre_consumer_options_t *o) {
    m_join(m, o);
    m_settle((struct member *[]){m}, (size_t[]){PARTS}, 1);
}

/* ---- auto-commit ----------------------------------------------------------------------------------------------- */

static void a_poll_commits_what_the_one_before_returned(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0};
    eagre_record_t r[8];
    int32_t first, second;
    o.enable_auto_commit = 1;
    join_with_all(&a, &o);
    m_produce(100);
    size_t n = poll_some(&a, r, 8, &first);
    assert_int_equal(m_committed(&a, first), 0); /* where auto.offset.reset put it: no record is covered */
    size_t k = poll_some(&a, r, 3, &second);
    assert_int_equal(m_committed(&a, first), n);
    if (second != first)
        assert_int_equal(m_committed(&a, second), 0);
    OK(eagre_consumer_seek(a.c, "four", second, 50)); /* in its place */
    poll_some(&a, r, 1, &first);
    if (first != second)
        assert_int_equal(m_committed(&a, second), 50);
    assert_true(k > 0);
    m_close(&a);
}

static void what_was_returned_is_committed_at_the_end(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    eagre_record_t r[8];
    int32_t part, other;
    o.enable_auto_commit = 1;
    join_with_all(&a, &o);
    m_produce(100);
    size_t n = poll_some(&a, r, 8, &part);
    m_close(&a);
    join_with_all(&b, &o);
    b.records = 0;
    assert_int_equal(b.events[0].n, PARTS);
    int64_t at;
    assert_int_equal(m_committed(&b, part) >= (int64_t)n, 1);
    OK(eagre_consumer_position(b.c, "four", part, &at));
    assert_true(at >= (int64_t)n);
    n = poll_some(&b, r, 8, &other);
    int64_t end = r[n - 1].offset + 1;
    OK(eagre_consumer_unsubscribe(b.c));
    assert_int_equal(m_committed(&b, other), end);
    m_close(&b);
}

static void commits_are_the_applications_without_auto_commit(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0};
    m_produce(10);
    m_join(&a, &o);
    m_take((struct member *[]){&a}, 1, 40);
    for (int i = 0; i < 5; i++)
        m_poll(&a, 1);
    for (int32_t i = 0; i < PARTS; i++)
        assert_int_equal(m_committed(&a, i), -1);
    m_close(&a);
    struct member b = {0};
    m_join(&b, &o);
    m_take((struct member *[]){&b}, 1, 40); /* all again */
    m_close(&b);
}

/* "latest" is a place, too: what is produced before anybody comes back is the group's. */
static void a_reset_position_is_committed_at_once(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    o.enable_auto_commit = 1;
    o.auto_offset_reset = EAGRE_RESET_LATEST;
    m_produce(10);
    join_with_all(&a, &o);
    assert_int_equal(a.records, 0);
    for (int32_t i = 0; i < PARTS; i++)
        assert_int_equal(m_committed(&a, i), 10);
    m_close(&a);
    m_produce(10);
    m_join(&b, &o);
    m_take((struct member *[]){&b}, 1, 40);
    m_close(&b);
}

/* ---- commits ------------------------------------------------------------------------------------------------------ */

static void a_commit_never_covers_what_poll_has_not_returned(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0};
    eagre_record_t r[8];
    int32_t part;
    join_with_all(&a, &o);
    m_produce(100);
    size_t n = poll_some(&a, r, 8, &part);
    eagre_topic_partition_t one = {"four", part, (int64_t)n + 1, NULL};
    REFUSED(eagre_consumer_commit(a.c, &one, 1, 0), EAGRE_E_INVALID, "group 'g': topic 'four' partition");
    REFUSED(eagre_consumer_commit_async(a.c, &one, 1), EAGRE_E_INVALID, "poll comes to next");
    one.offset = -1;
    REFUSED(eagre_consumer_commit(a.c, &one, 1, 0), EAGRE_E_INVALID, "offset -1");
    eagre_topic_partition_t two[] = {{"four", part, 1, NULL}, {"four", 9, 1, NULL}};
    REFUSED(eagre_consumer_commit(a.c, two, 2, 0), EAGRE_E_STATE, "partition 9");
    assert_int_equal(m_committed(&a, part), -1); /* all or nothing */
    one.offset = (int64_t)n;
    OK(eagre_consumer_commit(a.c, &one, 1, EG_TEST_LIMIT_MS));
    assert_int_equal(m_committed(&a, part), n);
    one.offset = 1; /* back, if it likes */
    OK(eagre_consumer_commit_async(a.c, &one, 1));
    assert_int_equal(m_committed(&a, part), 1);
    m_close(&a);
}

static int64_t cell(struct member *m, int32_t partition) {
    return eg_load_acquire(eg_assigned_find(m->c, "four", partition)->cell);
}

/* The daemon would not believe it, so neither kind of commit may claim it. */
static void behind_the_end_is_no_place(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    eagre_topic_partition_t one = {"four", 0, 5000, NULL};
    eagre_record_t r[8];
    size_t n;
    o.enable_auto_commit = 1;
    join_with_all(&a, &o);
    m_produce(10);
    m_take((struct member *[]){&a}, 1, 40);
    m_close(&a);
    o.auto_offset_reset = EAGRE_RESET_NONE;
    join_with_all(&b, &o);
    OK(eagre_consumer_seek(b.c, "four", 0, 5000));
    REFUSED(eagre_consumer_commit(b.c, NULL, 0, EG_TEST_LIMIT_MS), EAGRE_E_INVALID, "behind the log's end, which is 10");
    REFUSED(eagre_consumer_commit_async(b.c, NULL, 0), EAGRE_E_INVALID, "group 'g': topic 'four' partition 0: offset 5000");
    REFUSED(eagre_consumer_commit(b.c, &one, 1, EG_TEST_LIMIT_MS), EAGRE_E_INVALID, "5000");
    REFUSED(eagre_consumer_commit_async(b.c, &one, 1), EAGRE_E_INVALID, "5000");
    one.offset = 9;
    OK(eagre_consumer_commit(b.c, &one, 1, EG_TEST_LIMIT_MS));
    for (int i = 0; i < 8; i++)
        REFUSED(eagre_consumer_poll(b.c, r, 8, 0, &n), EAGRE_E_OFFSET_OUT_OF_RANGE, "four");
    assert_int_equal(cell(&b, 0), 9);
    OK(eagre_consumer_seek(b.c, "four", 0, 12));
    for (int i = 0; i < 8; i++)
        REFUSED(eagre_consumer_poll(b.c, r, 8, 0, &n), EAGRE_E_OFFSET_OUT_OF_RANGE, "four");
    assert_int_equal(cell(&b, 0), 9);
    m_produce(5); /* now it is one */
    OK(eagre_consumer_commit(b.c, NULL, 0, EG_TEST_LIMIT_MS));
    assert_int_equal(m_committed(&b, 0), 12);
    OK(eagre_consumer_seek(b.c, "four", 0, 3)); /* in its place, without a record */
    OK(eagre_consumer_pause(b.c, "four", 0));
    OK(eagre_consumer_poll(b.c, r, 8, 0, &n));
    assert_int_equal(cell(&b, 0), 3);
    OK(eagre_consumer_seek(b.c, "four", 0, 12));
    OK(eagre_consumer_poll(b.c, r, 8, 0, &n));
    OK(eagre_consumer_seek(b.c, "four", 0, 4000));
    OK(eagre_consumer_unsubscribe(b.c));
    assert_int_equal(m_committed(&b, 0), 12);
    OK(eagre_consumer_assign(b.c, "four", 0));
    OK(eagre_consumer_seek(b.c, "four", 0, 4000));
    REFUSED(eagre_consumer_commit(b.c, NULL, 0, EG_TEST_LIMIT_MS), EAGRE_E_INVALID, "offset 4000");
    m_close(&b);
}

static void metadata_comes_back(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0};
    char text[5000], long_one[4098];
    int64_t offset;
    m_produce(10);
    m_join(&a, &o);
    m_take((struct member *[]){&a}, 1, 40);
    memset(long_one, 'x', 4097);
    long_one[4097] = '\0';
    eagre_topic_partition_t list[PARTS];
    for (int32_t i = 0; i < PARTS; i++)
        list[i] = (eagre_topic_partition_t){"four", i, 5 + i, i == 3 ? NULL : i == 2 ? long_one : "worked"};
    REFUSED(eagre_consumer_commit(a.c, list, PARTS, EG_TEST_LIMIT_MS), EAGRE_E_INVALID, "metadata");
    long_one[4096] = '\0';
    OK(eagre_consumer_commit(a.c, list, PARTS, EG_TEST_LIMIT_MS));
    OK(eagre_consumer_committed(a.c, "four", 0, &offset, text, sizeof(text)));
    assert_string_equal(text, "worked");
    OK(eagre_consumer_committed(a.c, "four", 2, &offset, text, sizeof(text)));
    assert_string_equal(text, long_one);
    OK(eagre_consumer_committed(a.c, "four", 2, &offset, text, 3));
    assert_string_equal(text, "xx");
    assert_int_equal(offset, 7);
    OK(eagre_consumer_committed(a.c, "four", 3, &offset, text, sizeof(text)));
    assert_string_equal(text, "");
    assert_int_equal(offset, 8);
    list[0].offset = 9;
    list[0].metadata = "later";
    OK(eagre_consumer_commit_async(a.c, list, 1));
    OK(eagre_consumer_committed(a.c, "four", 0, &offset, text, sizeof(text)));
    assert_string_equal(text, "later");
    assert_int_equal(offset, 9);
    m_close(&a);
}

static void who_comes_next_goes_on_there(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    m_produce(10);
    m_join(&a, &o);
    m_take((struct member *[]){&a}, 1, 40);
    for (int32_t i = 0; i < PARTS; i++) {
        eagre_topic_partition_t one = {"four", i, 2 * i, NULL};
        OK(eagre_consumer_commit_async(a.c, &one, 1));
    }
    m_close(&a);
    m_join(&b, &o);
    m_take((struct member *[]){&b}, 1, 40 - 2 * (1 + 2 + 3)); /* from those offsets: m_poll looks */
    m_close(&b);
}

/* ---- no offset ------------------------------------------------------------------------------------------------------ */

static void no_offset_is_an_error_that_says_what_to_do(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    eagre_record_t r[64];
    size_t n, errors = 0, records = 0;
    m_produce(10);
    m_join(&a, &o);
    m_take((struct member *[]){&a}, 1, 40);
    for (int32_t i = 0; i < PARTS - 1; i++) {
        eagre_topic_partition_t one = {"four", i, 4, NULL};
        OK(eagre_consumer_commit_async(a.c, &one, 1));
    }
    m_close(&a);
    o.auto_offset_reset = EAGRE_RESET_UNSET;
    m_join(&b, &o);
    while (errors < 3 || records < 6 * (PARTS - 1)) { /* the others go on */
        int rc = eagre_consumer_poll(b.c, r, 64, 10, &n);
        records += n;
        if (rc == EAGRE_OK)
            continue;
        errors++;
        assert_int_equal(rc, EAGRE_E_NO_OFFSET);
        const char *const says[] = {"group 'g'", "topic 'four' partition 3", "auto.offset.reset is not set", "seek",
                                    "eagre group seek g --topic four:3"};
        for (size_t i = 0; i < sizeof(says) / sizeof(says[0]); i++)
            if (strstr(eagre_error_detail(), says[i]) == NULL)
                fail_msg("'%s' is not in: %s", says[i], eagre_error_detail());
    }
    assert_int_equal(records, 6 * (PARTS - 1));
    eagre_topic_partition_t one = {"four", 3, 0, NULL};
    REFUSED(eagre_consumer_commit(b.c, &one, 1, 0), EAGRE_E_INVALID, "seek first");
    OK(eagre_consumer_commit(b.c, NULL, 0, EG_TEST_LIMIT_MS)); /* but for that one */
    assert_int_equal(m_committed(&b, 3), -1);
    assert_int_equal(m_committed(&b, 0), 10);
    OK(eagre_consumer_seek(b.c, "four", 3, EAGRE_OFFSET_BEGINNING));
    for (records = 0; records < 10; records += n)
        OK(eagre_consumer_poll(b.c, r, 64, 10, &n));
    OK(eagre_consumer_commit(b.c, NULL, 0, EG_TEST_LIMIT_MS));
    assert_int_equal(m_committed(&b, 3), 10);
    m_close(&b);
}

/* ---- partitions assigned by hand -------------------------------------------------------------------------------------- */

static void by_hand(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    int64_t at;
    m_produce(10);
    m_open(&a, &o);
    OK(eagre_consumer_assign(a.c, "four", EAGRE_PARTITION_ALL));
    m_take((struct member *[]){&a}, 1, 40);
    eagre_topic_partition_t one = {"four", 1, 6, "by hand"};
    OK(eagre_consumer_commit(a.c, &one, 1, EG_TEST_LIMIT_MS));
    assert_int_equal(m_committed(&a, 1), 6);
    assert_int_equal(m_committed(&a, 2), -1);
    OK(eagre_consumer_unassign(a.c, "four", 1));
    OK(eagre_consumer_assign(a.c, "four", 1));
    OK(eagre_consumer_position(a.c, "four", 1, &at));
    assert_int_equal(at, 6);
    m_join(&b, &o);
    REFUSED(eagre_consumer_commit(a.c, &one, 1, EG_TEST_LIMIT_MS), EAGRE_E_GROUP_ACTIVE, "group 'g'");
    m_close(&b);
    OK(eagre_consumer_commit(a.c, NULL, 0, EG_TEST_LIMIT_MS));
    assert_int_equal(m_committed(&a, 2), 10);
    assert_int_equal(m_committed(&a, 1), 6);
    m_close(&a);
}

static void by_hand_with_auto_commit(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0}, b = {0};
    o.enable_auto_commit = 1;
    o.auto_commit_interval_ms = 20;
    m_produce(10);
    m_open(&a, &o);
    OK(eagre_consumer_assign(a.c, "four", 0));
    m_take((struct member *[]){&a}, 1, 10);
    int64_t until = eg_mono_ns() + EG_TEST_LIMIT_MS * EG_NS_PER_MS;
    while (m_committed(&a, 0) != 10 && eg_mono_ns() < until)
        m_poll(&a, 10);
    assert_int_equal(m_committed(&a, 0), 10);
    m_join(&b, &o);
    m_produce(1);
    m_settle((struct member *[]){&b}, (size_t[]){PARTS}, 1);
    eagre_record_t r[8];
    size_t n, told = 0;
    for (int i = 0; i < 200 && told < 2; i++)
        told += eagre_consumer_poll(a.c, r, 8, 1, &n) == EAGRE_E_GROUP_ACTIVE;
    assert_int_equal(told, 1); /* once */
    m_close(&b);
    m_close(&a);
}

/* ---- what survives what ------------------------------------------------------------------------------------------------- */

static eagre_producer_t *on_disk(void) {
    const eagre_setting_t settings[] = {{"storage", "disk"}, {"segment.bytes", "64K"}};
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    eagre_producer_t *by;
    OK(eagre_topic_create(e, "kept", settings, 2));
    o.acks = EAGRE_ACKS_DISK;
    OK(eagre_producer_open(e, "kept", &o, &by));
    for (int i = 0; i < 10; i++)
        OK(eg_put(by, "record"));
    return by;
}

static void replace_memory(void) {
    pid_t keeper = eg_bus_keeper(bus);
    eg_bus_kill(bus);
    kill(keeper, SIGKILL);
    eg_wait_gone(keeper);
    eg_bus_start(bus, NULL);
}

static void a_synchronous_commit_survives_all(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0};
    eagre_record_t r[4];
    int64_t offset;
    int32_t part;
    eagre_producer_close(on_disk());
    m_open(&a, &o);
    OK(eagre_consumer_subscribe(a.c, (const char *const[]){"kept"}, 1));
    assert_int_equal(poll_some(&a, r, 4, &part), 4);
    OK(eagre_consumer_commit(a.c, NULL, 0, EG_TEST_LIMIT_MS));
    replace_memory();
    OK(eagre_consumer_committed(a.c, "kept", 0, &offset, NULL, 0));
    assert_int_equal(offset, 4);
    /* The instance is another one, which knows no members. This one may read what it still has; then it is told, joins
     * anew and goes on where it committed. */
    size_t n;
    REFUSED(eagre_consumer_commit(a.c, NULL, 0, 0), EAGRE_E_FENCED, "group 'g'");
    while (a.event_count < 3)
        OK(eagre_consumer_poll(a.c, r, 4, 0, &n));
    assert_int_equal(a.events[1].what, 'l');
    assert_int_equal(a.events[2].what, 'a');
    for (int64_t next = n > 0 ? r[n - 1].offset + 1 : 4; next < 10;) {
        n = poll_some(&a, r, 4, &part);
        for (size_t i = 0; i < n; i++)
            assert_int_equal(r[i].offset, next++);
    }
    m_close(&a);
}

/* The daemon dies, its memory is kept: what is in the page is found by the next one. */
static void a_store_survives_the_daemon(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0};
    m_produce(10);
    m_join(&a, &o);
    m_take((struct member *[]){&a}, 1, 40);
    OK(eagre_consumer_commit_async(a.c, NULL, 0));
    eg_bus_kill(bus);
    REFUSED(eagre_consumer_commit(a.c, NULL, 0, 0), EAGRE_E_NO_DAEMON, "group 'g'");
    eg_bus_start(bus, NULL);
    for (int32_t i = 0; i < PARTS; i++)
        assert_int_equal(m_committed(&a, i), 10);
    OK(eagre_consumer_commit(a.c, NULL, 0, EG_TEST_LIMIT_MS));
    m_poll(&a, 0);
    assert_int_equal(a.event_count, 1); /* it has not noticed anything */
    m_close(&a);
}

static void *start_again(void *arg) {
    eg_bus_start(bus, NULL);
    return arg;
}

static void a_commit_waits_for_the_next_daemon(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0};
    pthread_t thread;
    m_produce(10);
    m_join(&a, &o);
    m_take((struct member *[]){&a}, 1, 40);
    eg_bus_kill(bus);
    assert_int_equal(pthread_create(&thread, NULL, start_again, NULL), 0);
    OK(eagre_consumer_commit(a.c, NULL, 0, -1));
    pthread_join(thread, NULL);
    replace_memory(); /* it is in the database */
    int64_t offset;
    int rc = eagre_consumer_committed(a.c, "four", 0, &offset, NULL, 0);
    assert_true(rc == EAGRE_OK || rc == EAGRE_E_NO_OFFSET || rc == EAGRE_E_UNKNOWN_TOPIC);
    m_close(&a);
}

static void a_stopped_daemon_costs_its_timeout(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0};
    m_produce(10);
    m_join(&a, &o);
    m_take((struct member *[]){&a}, 1, 40);
    int64_t start = eg_mono_ns();
    kill(bus->pid, SIGSTOP);
    REFUSED(eagre_consumer_commit(a.c, NULL, 0, 0), EAGRE_E_TIMED_OUT, "group 'g'");
    REFUSED(eagre_consumer_commit(a.c, NULL, 0, 20), EAGRE_E_TIMED_OUT, "database");
    OK(eagre_consumer_commit_async(a.c, NULL, 0));
    m_poll(&a, 0);
    m_poll(&a, 20);
    assert_true(eg_mono_ns() - start < EG_TEST_LIMIT_MS * EG_NS_PER_MS);
    kill(bus->pid, SIGCONT);
    OK(eagre_consumer_commit(a.c, NULL, 0, EG_TEST_LIMIT_MS));
    m_close(&a);
}

static void a_member_of_nothing_commits_nothing(void **state) {
    (void)state;
    eagre_consumer_options_t o = m_options();
    struct member a = {0};
    m_open(&a, &o);
    OK(eagre_consumer_commit(a.c, NULL, 0, EG_TEST_LIMIT_MS));
    OK(eagre_consumer_subscribe(a.c, four, 1));
    OK(eagre_consumer_commit(a.c, NULL, 0, EG_TEST_LIMIT_MS));
    eagre_topic_partition_t one = {"four", 0, 0, NULL};
    REFUSED(eagre_consumer_commit(a.c, &one, 1, 0), EAGRE_E_STATE, "not assigned");
    m_close(&a);
}

#define TEST(f) cmocka_unit_test_setup_teardown(f, eg_setup_groups, eg_teardown_groups)

int main(int argc, char **argv) {
    if (argc > 1)
        cmocka_set_test_filter(argv[1]);
    const struct CMUnitTest tests[] = {
        TEST(a_poll_commits_what_the_one_before_returned),
        TEST(what_was_returned_is_committed_at_the_end),
        TEST(commits_are_the_applications_without_auto_commit),
        TEST(a_reset_position_is_committed_at_once),
        TEST(a_commit_never_covers_what_poll_has_not_returned),
        TEST(behind_the_end_is_no_place),
        TEST(metadata_comes_back),
        TEST(who_comes_next_goes_on_there),
        TEST(no_offset_is_an_error_that_says_what_to_do),
        TEST(by_hand),
        TEST(by_hand_with_auto_commit),
        TEST(a_synchronous_commit_survives_all),
        TEST(a_store_survives_the_daemon),
        TEST(a_commit_waits_for_the_next_daemon),
        TEST(a_stopped_daemon_costs_its_timeout),
        TEST(a_member_of_nothing_commits_nothing),
    };
    return cmocka_run_group_tests(tests, NULL, NULL);
}
