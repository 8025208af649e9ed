/* The daemon is killed in the middle of creating, altering and deleting topics, and of burying a client. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>

#include <cmocka.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <unistd.h>

#include "eagre/admin.h"
#include "eagre/consumer.h"
#include "eagre/producer.h"
#include "system/harness.h"

#define LIMIT 60000 /* ms */

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != EAGRE_OK)                                                                    \
            fail_msg("%s: %s", #call, eagre_error_detail());                                       \
    } while (0)

static struct eg_test_bus b;
static eagre_t *e;

static void start_with(const char *point) {
    char fault[64];
    snprintf(fault, sizeof(fault), "EAGRE_FAULT=%s=kill", point);
    eg_bus_init(&b);
    assert_int_equal(eg_bus_try_start(&b, (const char *const[]){fault, NULL}, NULL), 0);
    OK(eagre_open(b.socket, &e));
}

static void restart_after_kill(void) {
    assert_int_equal(eg_bus_wait(&b), 128 + SIGKILL);
    eg_bus_start(&b, NULL);
}

static void finish(void) {
    OK(eagre_close(e));
    assert_int_equal(eg_bus_stop(&b), 0);
    eg_bus_remove(&b);
}

static size_t count_topics(void) {
    eagre_topic_entry_t *list;
    size_t n;
    OK(eagre_topic_list(e, &list, &n));
    free(list);
    return n;
}

static int produce(eagre_producer_t *p, int32_t partition, const char *text) {
    eagre_message_t m = {.value = text, .value_len = strlen(text), .partition = partition};
    return eagre_produce(p, &m, NULL, NULL);
}

static void a_topic_committed_is_there_afterwards(void **state) {
    static const char *const points[] = {"create.committed", "create.kept"};
    const eagre_setting_t settings[] = {{"segment.bytes", "64K"}, {"partitions", "3"}};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        eagre_producer_t *p;
        start_with(points[i]);
        assert_int_not_equal(eagre_topic_create(e, "t", settings, 2), EAGRE_OK);
        restart_after_kill();
        assert_int_equal(count_topics(), 1);
        OK(eagre_producer_open(e, "t", NULL, &p));
        assert_int_equal(eagre_producer_partitions(p), 3);
        for (int32_t k = 0; k < 3; k++)
            OK(produce(p, k, "x"));
        eagre_producer_close(p);
        finish();
    }
}

static void a_topic_grown_has_its_partitions_afterwards(void **state) {
    const eagre_setting_t small = {"segment.bytes", "64K"}, more = {"partitions", "5"};
    eagre_producer_t *p;
    (void)state;
    start_with("alter.committed");
    OK(eagre_topic_create(e, "t", &small, 1));
    OK(eagre_producer_open(e, "t", NULL, &p));
    OK(produce(p, 0, "before"));
    assert_int_not_equal(eagre_topic_alter(e, "t", &more, 1), EAGRE_OK);
    restart_after_kill();
    assert_int_equal(count_topics(), 1); /* it answers again */
    assert_int_equal(eagre_producer_partitions(p), 5);
    for (int32_t k = 0; k < 5; k++)
        OK(produce(p, k, "after"));
    eagre_producer_close(p);
    finish();
}

/* The new partition must not take the place of one that is only taken over after it. */
static void a_topic_that_is_cut_off_takes_nothing_from_others(void **state) {
    const eagre_setting_t small = {"segment.bytes", "64K"}, more = {"partitions", "2"};
    eagre_producer_t *p;
    eagre_consumer_t *c;
    eagre_record_t record;
    size_t n;
    (void)state;
    start_with("alter.committed");
    OK(eagre_topic_create(e, "a", &small, 1));
    OK(eagre_topic_create(e, "b", &small, 1));
    OK(eagre_producer_open(e, "b", NULL, &p));
    OK(produce(p, 0, "before"));
    assert_int_not_equal(eagre_topic_alter(e, "a", &more, 1), EAGRE_OK);
    restart_after_kill();
    OK(produce(p, 0, "after"));
    OK(eagre_consumer_open(e, NULL, &c));
    OK(eagre_consumer_assign(c, "b", 0));
    OK(eagre_consumer_seek(c, "b", 0, EAGRE_OFFSET_BEGINNING));
    OK(eagre_consumer_poll(c, &record, 1, LIMIT, &n));
    assert_int_equal(n, 1);
    assert_int_equal(record.offset, 0);
    assert_memory_equal(record.value, "before", 6);
    eagre_consumer_close(c);
    eagre_producer_close(p);
    finish();
}

static void a_topic_deleted_is_gone_for_everybody_afterwards(void **state) {
    static const char *const points[] = {"delete.committed", "delete.marked"};
    const eagre_setting_t small = {"segment.bytes", "64K"};
    (void)state;
    for (size_t i = 0; i < 2; i++) {
        eagre_producer_t *p;
        eagre_consumer_t *c;
        eagre_record_t record;
        size_t n;
        start_with(points[i]);
        OK(eagre_topic_create(e, "t", &small, 1));
        OK(eagre_producer_open(e, "t", NULL, &p));
        OK(eagre_consumer_open(e, NULL, &c));
        OK(eagre_consumer_assign(c, "t", 0));
        OK(produce(p, 0, "x"));
        OK(eagre_consumer_poll(c, &record, 1, LIMIT, &n));
        assert_int_not_equal(eagre_topic_delete(e, "t"), EAGRE_OK);
        restart_after_kill();
        assert_int_equal(count_topics(), 0);
        int rc;
        while ((rc = produce(p, 0, "y")) == EAGRE_OK || eagre_status_is_retriable(rc)) {}
        assert_int_equal(rc, EAGRE_E_TOPIC_DELETED);
        while ((rc = eagre_consumer_poll(c, &record, 1, LIMIT, &n)) == EAGRE_OK && n > 0) {}
        assert_int_equal(rc, EAGRE_E_TOPIC_DELETED);
        eagre_consumer_close(c);
        eagre_producer_close(p);
        OK(eagre_topic_create(e, "t", &small, 1)); /* and the name is free */
        finish();
    }
}

/* A process that dies with `claims` places taken and not published. */
static void die_with_claims(int claims) {
    pid_t pid = fork();
    if (pid == 0) {
        eagre_t *own;
        eagre_producer_t *p[8];
        eagre_claim_t claim;
        if (eagre_open(b.socket, &own) != EAGRE_OK)
            _exit(1);
        for (int i = 0; i < claims; i++)
            if (eagre_producer_open(own, "t", NULL, &p[i]) != EAGRE_OK ||
                eagre_producer_claim(p[i], 0, SIZE_MAX, 10, &claim) != EAGRE_OK)
                _exit(1);
        kill(getpid(), SIGKILL);
    }
    assert_int_equal(eg_wait_exit(pid), 128 + SIGKILL);
}

static void a_burial_cut_off_is_gone_on_with(void **state) {
    static const char *const points[] = {"repair.claim_k", "repair.claim_k@3", "owner.freed"};
    const eagre_setting_t small = {"segment.bytes", "64K"};
    (void)state;
    for (size_t i = 0; i < 3; i++) {
        eagre_producer_t *p;
        eagre_consumer_t *c;
        eagre_record_t record;
        size_t n;
        start_with(points[i]);
        OK(eagre_topic_create(e, "t", &small, 1));
        OK(eagre_producer_open(e, "t", NULL, &p));
        OK(eagre_consumer_open(e, NULL, &c));
        OK(eagre_consumer_assign(c, "t", 0));
        OK(eagre_consumer_seek(c, "t", 0, 0));
        OK(produce(p, 0, "before"));
        die_with_claims(4);
        restart_after_kill();
        OK(produce(p, 0, "after"));
        OK(eagre_consumer_poll(c, &record, 1, LIMIT, &n));
        assert_int_equal(record.offset, 0);
        OK(eagre_consumer_poll(c, &record, 1, LIMIT, &n));
        assert_int_equal(n, 1);
        assert_memory_equal(record.value, "after", 5);
        assert_int_equal(record.offset, 5); /* four offsets were skipped */
        eagre_consumer_close(c);
        eagre_producer_close(p);
        finish();
    }
}

/* Granted, then it died: who asks its successor again is granted it once. */
static void an_opening_is_granted_once(void **state) {
    const eagre_setting_t settings[] = {{"segment.bytes", "64K"}, {"writers", "single"}};
    eagre_producer_t *p, *q;
    eagre_t *another;
    (void)state;
    start_with("open.granted@2");
    OK(eagre_topic_create(e, "t", settings, 2));
    OK(eagre_producer_open(e, "t", NULL, &p));
    eagre_producer_close(p);
    assert_int_equal(eagre_producer_open(e, "t", NULL, &p), EAGRE_E_NO_DAEMON);
    restart_after_kill();
    OK(eagre_open(b.socket, &another));
    OK(eagre_producer_open(e, "t", NULL, &p)); /* not refused because of itself */
    assert_int_equal(eagre_producer_open(another, "t", NULL, &q), EAGRE_E_BUSY);
    OK(produce(p, 0, "x"));
    eagre_producer_close(p);
    OK(eagre_producer_open(another, "t", NULL, &q));
    eagre_producer_close(q);
    OK(eagre_close(another));
    finish();
}

/* Told that one handle is closed, then it died: its successor must not take it for two. */
static void a_closing_counts_once(void **state) {
    const eagre_setting_t settings[] = {{"segment.bytes", "64K"}, {"partitions", "2"}};
    eagre_producer_t *p, *q;
    (void)state;
    start_with("release.done");
    OK(eagre_topic_create(e, "t", settings, 2));
    OK(eagre_producer_open(e, "t", NULL, &p));
    OK(eagre_producer_open(e, "t", NULL, &q));
    OK(produce(p, 0, "x"));
    eagre_producer_close(q);
    restart_after_kill();
    OK(produce(p, 1, "x")); /* whose buffers the daemon hands out now */
    eagre_producer_close(p);
    finish();
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(a_topic_committed_is_there_afterwards),
        cmocka_unit_test(a_topic_grown_has_its_partitions_afterwards),
        cmocka_unit_test(a_topic_that_is_cut_off_takes_nothing_from_others),
        cmocka_unit_test(a_topic_deleted_is_gone_for_everybody_afterwards),
        cmocka_unit_test(a_burial_cut_off_is_gone_on_with),
        cmocka_unit_test(an_opening_is_granted_once),
        cmocka_unit_test(a_closing_counts_once),
    };
    return cmocka_run_group_tests_name("fault/topics", tests, NULL, NULL);
}
