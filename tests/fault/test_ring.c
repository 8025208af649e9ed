/*
 * The daemon is killed at each named step of a slot's reuse. Producer and consumer live on, a
 * successor takes the ring over, and nothing is lost, repeated or changed.
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
#include <unistd.h>

#include "eagre/admin.h"
#include "eagre/consumer.h"
#include "eagre/producer.h"
#include "system/harness.h"

#define PAYLOAD 1000u
#define RECORDS 3000 /* some 50 segments */
#define WAIT_MS 20 /* then looks whether the daemon is dead */

static struct {
    eagre_t *e;
    eagre_producer_t *p;
    eagre_consumer_t *c, *holder; /* the holder keeps a record in its hands for a long time */
    int64_t produced, consumed;
    eagre_record_t held;
    uint8_t copy[PAYLOAD];
    bool holds;
} x;

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != EAGRE_OK)                                                                    \
            fail_msg("%s: %s", #call, eagre_error_detail());                                       \
    } while (0)

static bool is_dead(struct eg_test_bus *b) {
    siginfo_t info = {0};
    return waitid(P_PID, (id_t)b->pid, &info, WEXITED | WNOHANG | WNOWAIT) == 0 &&
           info.si_pid == b->pid;
}

static void fill(uint8_t *payload, int64_t offset) {
    for (size_t i = 0; i < PAYLOAD; i++)
        payload[i] = (uint8_t)((uint64_t)offset * 31 + i);
}

/* After a call in vain: if the daemon was killed, start another. A swapped buffer is to be had from one only. */
static void revive(struct eg_test_bus *b, int rc) {
    if (rc != EAGRE_OK && !eagre_status_is_retriable(rc))
        fail_msg("%s", eagre_error_detail());
    if (!is_dead(b))
        return;
    assert_int_equal(eg_bus_wait(b), 128 + SIGKILL);
    if (x.holds)
        assert_memory_equal(x.held.value, x.copy, PAYLOAD);
    eg_bus_start(b, NULL);
}

static void consume_all(struct eg_test_bus *b) {
    eagre_record_t records[32];
    uint8_t expected[PAYLOAD];
    size_t n;
    while (x.consumed < x.produced) {
        int rc = eagre_consumer_poll(x.c, records, 32, WAIT_MS, &n);
        if (rc != EAGRE_OK || n == 0)
            revive(b, rc);
        for (size_t i = 0; i < n; i++, x.consumed++) {
            fill(expected, x.consumed);
            assert_int_equal(records[i].offset, x.consumed);
            assert_int_equal(records[i].value_len, PAYLOAD);
            assert_memory_equal(records[i].value, expected, PAYLOAD);
        }
    }
}

static void check_held(void) {
    if (x.holds)
        assert_memory_equal(x.held.value, x.copy, PAYLOAD);
}

/* Take a record and keep it: its segment cannot be reused in place. */
static void hold_one(struct eg_test_bus *b) {
    size_t n = 0;
    check_held();
    x.holds = false;
    OK(eagre_consumer_seek(x.holder, "t", 0, x.produced - 1));
    while (n == 0) {
        int rc = eagre_consumer_poll(x.holder, &x.held, 1, WAIT_MS, &n);
        if (rc != EAGRE_OK || n == 0)
            revive(b, rc);
    }
    memcpy(x.copy, x.held.value, PAYLOAD);
    x.holds = true;
}

static void produce_one(struct eg_test_bus *b) {
    uint8_t payload[PAYLOAD];
    int64_t offset;
    int rc;
    fill(payload, x.produced);
    eagre_message_t m = {.value = payload, .value_len = PAYLOAD, .partition = 0};
    while ((rc = eagre_produce(x.p, &m, NULL, &offset)) != EAGRE_OK)
        revive(b, rc);
    assert_int_equal(offset, x.produced);
    x.produced++;
}

static void kill_at(const char *point, int nth, bool hold) {
    const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", "64K"}};
    eagre_producer_options_t options = EAGRE_PRODUCER_OPTIONS_INIT;
    struct eg_test_bus b;
    char fault[64];
    options.max_block_ms = WAIT_MS;
    memset(&x, 0, sizeof(x));
    snprintf(fault, sizeof(fault), "EAGRE_FAULT=%s@%d=kill", point, nth);
    eg_bus_init(&b);
    assert_int_equal(eg_bus_try_start(&b, (const char *const[]){fault, NULL}, NULL), 0);
    OK(eagre_open(b.socket, &x.e));
    OK(eagre_topic_create(x.e, "t", settings, 2));
    OK(eagre_producer_open(x.e, "t", &options, &x.p));
    OK(eagre_consumer_open(x.e, NULL, &x.c));
    OK(eagre_consumer_assign(x.c, "t", 0));
    OK(eagre_consumer_seek(x.c, "t", 0, 0));
    OK(eagre_consumer_open(x.e, NULL, &x.holder));
    OK(eagre_consumer_assign(x.holder, "t", 0));
    pid_t first = b.pid;
    while (x.produced < RECORDS) {
        produce_one(&b);
        if (hold && x.produced % 200 == 1)
            hold_one(&b);
        if (x.produced % 20 == 0)
            consume_all(&b);
    }
    consume_all(&b);
    check_held();
    if (b.pid == first)
        fail_msg("%s was not reached %d times", point, nth);
    eagre_consumer_close(x.holder);
    eagre_consumer_close(x.c);
    eagre_producer_close(x.p);
    OK(eagre_close(x.e));
    assert_int_equal(eg_bus_stop(&b), 0);
    eg_bus_remove(&b);
}

static void killed_in_the_middle_of_reuse(void **state) {
    static const char *const points[] = {"retire.marked", "retire.scanned", "retire.reset",
                                         "retire.zero_half", "ready.before"};
    (void)state;
    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        kill_at(points[i], 1, false);
        kill_at(points[i], 4, false);
    }
}

static void killed_while_a_reader_holds_the_segment(void **state) {
    static const char *const points[] = {"retire.marked", "retire.scanned", "retire.reset",
                                         "retire.swapped", "ready.before"};
    (void)state;
    for (size_t i = 0; i < sizeof(points) / sizeof(points[0]); i++) {
        kill_at(points[i], 1, true);
        kill_at(points[i], 5, true);
    }
}

int main(void) {
    const struct CMUnitTest tests[] = {
        cmocka_unit_test(killed_in_the_middle_of_reuse),
        cmocka_unit_test(killed_while_a_reader_holds_the_segment),
    };
    return cmocka_run_group_tests_name("fault/ring", tests, NULL, NULL);
}
