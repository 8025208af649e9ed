/*
 * What clients see of a daemon that is stopped, killed, replaced or started again: their timeouts are kept, what is
 * left of the ring is used, nothing is lost, repeated or mixed up, and afterwards all goes on.
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
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "client/session.h"
#include "harness_client.h"
#include "sys/clock.h"

#define RECORDS_A_SEGMENT 960 /* of 8 bytes, in 64 KiB */
#define MUCH_LESS_MS 60000    /* than a request's limit, which is LIMIT_NS here: no machine is that slow */
#define LIMIT_NS (600 * EG_NS_PER_S)

static eagre_producer_t *producer(const char *topic, int32_t max_block_ms) {
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    eagre_producer_t *by;
    o.max_block_ms = max_block_ms;
    OK(eagre_producer_open(e, topic, &o, &by));
    return by;
}

static eagre_consumer_t *consumer(const char *topic, eagre_offset_reset_t reset) {
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    eagre_consumer_t *of;
    o.auto_offset_reset = reset;
    OK(eagre_consumer_open(e, &o, &of));
    OK(eagre_consumer_assign(of, topic, EAGRE_PARTITION_ALL));
    return of;
}

static void make_topic(const char *name, const char *setting, const char *value) {
    const eagre_setting_t settings[] = {{"segment.bytes", "64K"}, {setting, value}};
    OK(eagre_topic_create(e, name, settings, 2));
}

static int put(eagre_producer_t *by, int32_t partition, uint64_t number, int64_t *offset) {
    eagre_message_t m = {.value = &number, .value_len = sizeof(number), .partition = partition};
    return eagre_produce(by, &m, NULL, offset);
}

static uint64_t number_of(const eagre_record_t *r) {
    uint64_t number;
    assert_int_equal(r->value_len, sizeof(number));
    memcpy(&number, r->value, sizeof(number));
    return number;
}

static uint64_t next_number(eagre_consumer_t *of) {
    eagre_record_t r;
    size_t n;
    OK(eagre_consumer_poll(of, &r, 1, EG_TEST_LIMIT_MS, &n));
    assert_int_equal(n, 1);
    return number_of(&r);
}

static void freeze(void) { kill(bus->pid, SIGSTOP); }
static void thaw(void) { kill(bus->pid, SIGCONT); }

static void replace_memory(void) {
    pid_t keeper = eg_bus_keeper(bus);
    eg_bus_kill(bus);
    kill(keeper, SIGKILL);
    eg_wait_gone(keeper);
    eg_bus_start(bus, NULL);
}

/* ---- stopped ------------------------------------------------------------------------------------------- */

static void a_stopped_daemon_costs_a_producer_its_timeout_only(void **state) {
    (void)state;
    make_topic("two", "partitions", "2");
    eagre_producer_t *never = producer("two", 0), *shortly = producer("two", 20), *waits = producer("two", EG_TEST_LIMIT_MS);
    int64_t start = eg_mono_ns();
    int rc;
    freeze();
    REFUSED(put(never, 1, 1, NULL), EAGRE_E_WOULD_BLOCK, "is it stopped?");
    REFUSED(put(shortly, 1, 1, NULL), EAGRE_E_TIMED_OUT, "is it stopped?");
    eagre_producer_close(shortly);
    assert_true(eg_mono_ns() - start < MUCH_LESS_MS * EG_NS_PER_MS);
    thaw();
    while ((rc = put(never, 1, 1, NULL)) == EAGRE_E_WOULD_BLOCK) {} /* the answer comes to a later call */
    OK(rc);
    OK(put(waits, 0, 1, NULL));
    eagre_producer_close(waits);
    eagre_producer_close(never);
}

static bool has_pinned(void *ctx) {
    eagre_topic_info_t *info;
    (void)ctx;
    OK(eagre_topic_describe(e, "t", &info));
    bool yes = info->partitions[0].pinned_bytes > 0;
    eagre_topic_info_free(info);
    return yes;
}

/* A slot gets another buffer because `holder` reads the old one; `late` has not got it yet. */
static uint64_t swap_a_buffer(eagre_consumer_t *holder) {
    uint64_t i = 0;
    OK(put(p, 0, i++, NULL));
    assert_int_equal(next_number(holder), 0);
    while (!has_pinned(NULL))
        for (int k = 0; k < 100; k++)
            OK(put(p, 0, i++, NULL));
    for (int k = 0; k < 5 * RECORDS_A_SEGMENT; k++) /* into it, and past it */
        OK(put(p, 0, i++, NULL));
    return i;
}

static void a_stopped_daemon_costs_a_consumer_its_timeout_only(void **state) {
    (void)state;
    eagre_consumer_t *holder = consumer("t", EAGRE_RESET_EARLIEST), *late = consumer("t", EAGRE_RESET_EARLIEST);
    eagre_consumer_t *bell = consumer("t", EAGRE_RESET_LATEST);
    eagre_record_t r[64];
    uint64_t end = swap_a_buffer(holder), expected = 0;
    size_t n;
    OK(eagre_consumer_seek(bell, "t", 0, EAGRE_OFFSET_END));
    int64_t start = eg_mono_ns();
    freeze();
    do { /* what lies in the buffers that it has */
        OK(eagre_consumer_poll(late, r, 64, 0, &n));
        for (size_t i = 0; i < n; i++) {
            if (expected != 0)
                assert_int_equal(number_of(&r[i]), expected);
            expected = number_of(&r[i]) + 1;
        }
    } while (n > 0);
    assert_true(expected < end);
    OK(eagre_consumer_poll(late, r, 64, 20, &n));
    assert_int_equal(n, 0);
    OK(eagre_consumer_poll(bell, r, 64, 20, &n)); /* its first sleep: needs a bell */
    assert_int_equal(n, 0);
    eagre_consumer_close(holder);
    assert_true(eg_mono_ns() - start < MUCH_LESS_MS * EG_NS_PER_MS);
    thaw();
    while (expected < end) {
        uint64_t number = next_number(late);
        if (expected != 0)
            assert_int_equal(number, expected);
        expected = number + 1;
    }
    OK(put(p, 0, end, NULL));
    assert_int_equal(next_number(bell), end);
    eagre_consumer_close(bell);
    eagre_consumer_close(late);
}

/* ---- killed ---------------------------------------------------------------------------------------------- */

static void *start_again(void *arg) {
    eg_bus_start(bus, NULL);
    return arg;
}

static void the_ring_that_is_left_is_used_up_exactly(void **state) {
    (void)state;
    make_topic("four", "ring.segments", "4");
    eagre_producer_t *by = producer("four", 20), *waits = producer("four", EG_TEST_LIMIT_MS);
    eagre_consumer_t *of = consumer("four", EAGRE_RESET_EARLIEST);
    pthread_t thread;
    uint64_t i = 0;
    int rc;
    eg_bus_kill(bus);
    while ((rc = put(by, 0, i, NULL)) == EAGRE_OK)
        i++;
    assert_int_equal(i, 4 * RECORDS_A_SEGMENT);
    assert_int_equal(rc, EAGRE_E_NO_DAEMON);
    assert_non_null(strstr(eagre_error_detail(), "is away for"));
    for (uint64_t k = 0; k < i; k++)
        assert_int_equal(next_number(of), k);
    assert_int_equal(pthread_create(&thread, NULL, start_again, NULL), 0);
    OK(put(waits, 0, i, NULL)); /* waits until it is back */
    assert_int_equal(next_number(of), i);
    pthread_join(thread, NULL);
    OK(put(by, 0, i + 1, NULL));
    assert_int_equal(next_number(of), i + 1);
    eagre_consumer_close(of);
    eagre_producer_close(waits);
    eagre_producer_close(by);
}

static void new_handles_are_told_and_old_ones_go_on(void **state) {
    (void)state;
    eagre_producer_t *fresh;
    eagre_t *other;
    eagre_consumer_t *of = consumer("t", EAGRE_RESET_EARLIEST);
    OK(put(p, 0, 0, NULL));
    eg_bus_kill(bus);
    REFUSED(eagre_open(bus->socket, &other), EAGRE_E_NO_DAEMON, "no eagred answers");
    REFUSED(eagre_producer_open(e, "t", NULL, &fresh), EAGRE_E_NO_DAEMON, "eagred");
    OK(put(p, 0, 1, NULL));
    assert_int_equal(next_number(of), 0);
    eg_bus_start(bus, NULL);
    OK(eagre_producer_open(e, "t", NULL, &fresh));
    OK(put(fresh, 0, 2, NULL));
    OK(put(p, 0, 3, NULL));
    for (uint64_t i = 1; i < 4; i++)
        assert_int_equal(next_number(of), i);
    eagre_producer_close(fresh);
    eagre_consumer_close(of);
}

struct sleeper {
    eagre_consumer_t *of;
    uint64_t got;
};

static void *sleep_for_one(void *arg) {
    struct sleeper *s = arg;
    s->got = next_number(s->of);
    return NULL;
}

static void a_sleeping_consumer_is_woken_after_a_restart(void **state) {
    (void)state;
    struct sleeper s = {.of = consumer("t", EAGRE_RESET_LATEST)};
    pthread_t thread;
    OK(eagre_consumer_seek(s.of, "t", 0, EAGRE_OFFSET_END));
    assert_int_equal(pthread_create(&thread, NULL, sleep_for_one, &s), 0);
    for (int i = 0; i < 3; i++) {
        eg_bus_kill(bus);
        eg_bus_start(bus, NULL);
    }
    OK(put(p, 0, 77, NULL));
    pthread_join(thread, NULL);
    assert_int_equal(s.got, 77);
    eagre_consumer_close(s.of);
}

static void a_claim_outlives_the_daemon(void **state) {
    (void)state;
    eagre_claim_t claim;
    eagre_consumer_t *of = consumer("t", EAGRE_RESET_EARLIEST);
    eagre_producer_t *other = producer("t", EG_TEST_LIMIT_MS);
    uint64_t number = 4;
    OK(eagre_producer_claim(p, 0, SIZE_MAX, sizeof(number), &claim));
    memcpy(claim.value, &number, sizeof(number));
    OK(put(other, 0, 5, NULL));
    for (int i = 0; i < 2; i++) {
        eg_bus_kill(bus);
        eg_bus_start(bus, NULL);
        OK(put(other, 0, 6 + (uint64_t)i, NULL));
    }
    OK(eagre_producer_commit(p, &claim));
    for (uint64_t i = 4; i < 8; i++)
        assert_int_equal(next_number(of), i);
    eagre_producer_close(other);
    eagre_consumer_close(of);
}

static void a_single_writer_keeps_its_right(void **state) {
    (void)state;
    make_topic("single", "writers", "single");
    eagre_producer_t *by = producer("single", EG_TEST_LIMIT_MS), *second;
    eagre_consumer_t *of = consumer("single", EAGRE_RESET_EARLIEST);
    eagre_t *other;
    OK(eagre_open(bus->socket, &other));
    for (uint64_t i = 0; i < 5; i++) {
        OK(put(by, 0, i, NULL));
        eg_bus_kill(bus);
        eg_bus_start(bus, NULL);
        REFUSED(eagre_producer_open(other, "single", NULL, &second), EAGRE_E_BUSY, "writers=single");
        REFUSED(eagre_producer_open(e, "single", NULL, &second), EAGRE_E_BUSY, "writers=single");
        assert_int_equal(next_number(of), i);
    }
    eagre_producer_close(by);
    OK(eagre_producer_open(other, "single", NULL, &second));
    OK(put(second, 0, 5, NULL));
    assert_int_equal(next_number(of), 5);
    eagre_producer_close(second);
    OK(eagre_close(other));
    eagre_consumer_close(of);
}

/* Another client does it while we have not noticed the restart yet. */
static void topics_that_come_and_go_meanwhile(void **state) {
    (void)state;
    make_topic("gone", "partitions", "1");
    eagre_producer_t *by = producer("gone", 20);
    eagre_consumer_t *of = consumer("gone", EAGRE_RESET_EARLIEST);
    eagre_record_t r;
    eagre_t *other;
    size_t n;
    OK(put(by, 0, 0, NULL));
    eg_bus_kill(bus);
    eg_bus_start(bus, NULL);
    OK(eagre_open(bus->socket, &other));
    OK(eagre_topic_delete(other, "gone"));
    const eagre_setting_t small = {"segment.bytes", "64K"};
    OK(eagre_topic_create(other, "gone", &small, 1)); /* of the same name, and another one */
    OK(eagre_topic_create(other, "come", &small, 1));
    REFUSED(put(by, 0, 1, NULL), EAGRE_E_TOPIC_DELETED, "topic 'gone'");
    REFUSED(eagre_consumer_poll(of, &r, 1, EG_TEST_LIMIT_MS, &n), EAGRE_E_TOPIC_DELETED, "topic 'gone'");
    eagre_producer_close(by);
    eagre_consumer_close(of);
    by = producer("come", 20);
    OK(put(by, 0, 1, NULL));
    eagre_producer_close(by);
    OK(eagre_close(other));
}

/* ---- other memory -------------------------------------------------------------------------------------------- */

static void memory_that_is_gone_is_not_mixed_with_the_new(void **state) {
    (void)state;
    eagre_consumer_t *strict = consumer("t", EAGRE_RESET_NONE), *lenient = consumer("t", EAGRE_RESET_EARLIEST);
    eagre_claim_t claim;
    eagre_record_t r;
    int64_t before, after;
    size_t n;
    int rc;
    OK(eagre_consumer_seek(strict, "t", 0, 0));
    for (uint64_t i = 0; i < 10; i++)
        OK(put(p, 0, i, &before));
    assert_int_equal(next_number(strict), 0);
    assert_int_equal(next_number(lenient), 0);
    eagre_producer_t *claims = producer("t", 20);
    OK(eagre_producer_claim(claims, 0, SIZE_MAX, 8, &claim));
    replace_memory();
    eagre_topic_info_t *info; /* somebody of this instance notices it */
    OK(eagre_topic_describe(e, "t", &info));
    eagre_topic_info_free(info);
    REFUSED(eagre_producer_commit(claims, &claim), EAGRE_E_NO_DAEMON, "the record is lost");
    uint64_t old = 1;
    while ((rc = eagre_consumer_poll(strict, &r, 1, 1, &n)) == EAGRE_OK)
        if (n == 1) /* what is left of the old memory comes first */
            assert_int_equal(number_of(&r), old++);
    assert_int_equal(rc, EAGRE_E_OFFSET_OUT_OF_RANGE);
    eagre_producer_t *by = producer("t", EG_TEST_LIMIT_MS);
    OK(put(by, 0, 100, &after));
    assert_true(after > before);
    uint64_t number;
    for (old = 1; (number = next_number(lenient)) != 100; old++)
        assert_int_equal(number, old);
    OK(eagre_consumer_seek(strict, "t", 0, EAGRE_OFFSET_BEGINNING));
    assert_int_equal(next_number(strict), 100);
    eagre_producer_close(by);
    eagre_producer_close(claims);
    eagre_consumer_close(lenient);
    eagre_consumer_close(strict);
}

static void a_clean_stop_is_told_to_who_polls_without_waiting(void **state) {
    (void)state;
    eagre_consumer_t *of = consumer("t", EAGRE_RESET_EARLIEST);
    eagre_claim_t claim;
    eagre_record_t r;
    size_t n;
    int rc;
    OK(put(p, 0, 0, NULL));
    assert_int_equal(next_number(of), 0);
    OK(eagre_producer_claim(p, 0, SIZE_MAX, 8, &claim));
    assert_int_equal(eg_bus_stop(bus), 0);
    REFUSED(eagre_consumer_poll(of, &r, 1, 0, &n), EAGRE_E_NO_DAEMON, "before a daemon answers");
    REFUSED(eagre_producer_commit(p, &claim), EAGRE_E_NO_DAEMON, "the record is lost");
    eg_bus_start(bus, NULL);
    OK(put(p, 0, 1, NULL));
    for (n = 0; n == 0;) {
        rc = eagre_consumer_poll(of, &r, 1, 0, &n);
        assert_true(rc == EAGRE_OK || rc == EAGRE_E_NO_DAEMON);
    }
    assert_int_equal(number_of(&r), 1);
    eagre_consumer_close(of);
}

/* A process that may not call membarrier cannot go on with clients that rely on it. */
static void a_daemon_without_membarrier_refuses_memory_that_had_one(void **state) {
    const char *const none[] = {"EAGRE_NO_MEMBARRIER=1", NULL};
    (void)state;
    eg_bus_kill(bus);
    assert_int_not_equal(eg_bus_try_start(bus, none, NULL), 0);
    char *log = eg_bus_log(bus);
    assert_non_null(strstr(log, "membarrier(2) is not available"));
    free(log);
    OK(put(p, 0, 5, NULL));
    eg_bus_start(bus, NULL); /* nothing is lost by the attempt */
    eagre_consumer_t *of = consumer("t", EAGRE_RESET_EARLIEST);
    assert_int_equal(next_number(of), 5);
    eagre_consumer_close(of);
    assert_int_equal(eg_bus_stop(bus), 0);
    assert_int_equal(eg_bus_try_start(bus, none, NULL), 0); /* new memory: all use fences */
    OK(put(p, 0, 6, NULL));
    eg_bus_kill(bus);
    assert_int_equal(eg_bus_try_start(bus, none, NULL), 0);
}

/* ---- descriptors for epoll -------------------------------------------------------------------------------------- */

/* Whatever happens, an armed descriptor becomes readable when there is something. Arms it again. */
static uint64_t epoll_next(int ep, eagre_consumer_t *of) {
    struct epoll_event out;
    eagre_record_t r;
    uint64_t number = UINT64_MAX;
    size_t n;
    while (number == UINT64_MAX) {
        assert_int_equal(epoll_wait(ep, &out, 1, EG_TEST_LIMIT_MS), 1);
        do {
            int rc = eagre_consumer_poll(of, &r, 1, 0, &n);
            if (rc != EAGRE_E_NO_DAEMON)
                OK(rc);
            if (n == 1)
                number = number_of(&r);
        } while (n == 1);
    }
    return number;
}

static void a_descriptor_works_across_restarts(void **state) {
    (void)state;
    eagre_consumer_t *of = consumer("t", EAGRE_RESET_EARLIEST);
    int fd, ep = epoll_create1(EPOLL_CLOEXEC);
    struct epoll_event ev = {.events = EPOLLIN};
    OK(eagre_consumer_fd(of, &fd));
    assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
    for (uint64_t i = 0; i < 6; i++) {
        OK(put(p, 0, i, NULL));
        assert_int_equal(epoll_next(ep, of), i);
        if (i % 3 == 0) {
            eg_bus_kill(bus);
            eg_bus_start(bus, NULL);
        } else if (i % 3 == 1) {
            assert_int_equal(eg_bus_stop(bus), 0);
            eg_bus_start(bus, NULL);
        } else {
            eg_bus_kill(bus); /* away for a while */
            OK(put(p, 0, 1000 + i, NULL));
            assert_int_equal(epoll_next(ep, of), 1000 + i);
            eg_bus_start(bus, NULL);
        }
    }
    close(ep);
    eagre_consumer_close(of);
}

/* ---- again and again ------------------------------------------------------------------------------------------------ */

static struct {
    _Atomic uint64_t seen;
    _Atomic int stop;
    uint64_t sent;
    _Atomic int rc;
} load;

/* As far ahead as the ring holds it, for the consumer is to see each one. */
static void *produce_on(void *arg) {
    int64_t last = -1, offset;
    while (load.stop == 0 && load.rc == EAGRE_OK) {
        if (load.sent - load.seen > RECORDS_A_SEGMENT) {
            sched_yield();
            continue;
        }
        load.rc = put(p, 0, load.sent, &offset);
        if (load.rc == EAGRE_OK && offset != last + 1)
            load.rc = EAGRE_E_INTERNAL;
        last = offset;
        load.sent++;
    }
    return arg;
}

static void twenty_restarts_under_load(void **state) {
    (void)state;
    eagre_consumer_t *of = consumer("t", EAGRE_RESET_EARLIEST);
    pthread_t thread;
    int64_t beginning = 0, end = 0, now;
    eagre_record_t r[64];
    memset(&load, 0, sizeof(load));
    assert_int_equal(pthread_create(&thread, NULL, produce_on, NULL), 0);
    for (int restart = 0; restart < 20; restart++) {
        uint64_t until = load.seen + 2 * RECORDS_A_SEGMENT + (uint64_t)restart * 37;
        while (load.seen < until && load.rc == EAGRE_OK) {
            size_t n;
            OK(eagre_consumer_poll(of, r, 64, EG_TEST_LIMIT_MS, &n));
            assert_true(n > 0);
            for (size_t i = 0; i < n; i++) {
                assert_int_equal(r[i].offset, load.seen + i);
                assert_int_equal(number_of(&r[i]), load.seen + i);
            }
            load.seen += n;
        }
        OK(eagre_consumer_beginning_offset(of, "t", 0, &now));
        assert_true(now >= beginning);
        beginning = now;
        OK(eagre_consumer_end_offset(of, "t", 0, &now));
        assert_true(now >= end && now >= (int64_t)load.seen);
        end = now;
        OK(eagre_consumer_position(of, "t", 0, &now));
        assert_int_equal(now, load.seen);
        eg_bus_kill(bus);
        eg_bus_start(bus, NULL);
    }
    load.stop = 1;
    pthread_join(thread, NULL);
    if (load.rc != EAGRE_OK)
        fail_msg("the producer: %s", eagre_status_name(load.rc));
    while (load.seen < load.sent)
        assert_int_equal(next_number(of), load.seen++);
    eagre_consumer_close(of);
}

#define T(f) cmocka_unit_test_setup_teardown(f, eg_setup_client, eg_teardown_client)

/* What it has mapped is of the past, and nobody will ever read what it writes there. */
static void a_producer_whose_topic_went_with_the_instance_says_so(void **state) {
    const eagre_setting_t settings[] = {{"flush.ms", "3600000"}};
    (void)state;
    OK(eagre_topic_create(e, "gone", settings, 1));
    eagre_producer_t *by = producer("gone", EG_TEST_LIMIT_MS);
    OK(put(by, 0, 1, NULL));
    replace_memory();
    OK(eagre_topic_delete(e, "gone"));
    assert_int_equal(eagre_producer_flush(by, -1), EAGRE_E_TOPIC_DELETED);
    for (uint64_t i = 0; i < 3; i++)
        REFUSED(put(by, 0, 2, NULL), EAGRE_E_TOPIC_DELETED, "gone");
    eagre_claim_t claim;
    REFUSED(eagre_producer_claim(by, 0, SIZE_MAX, 8, &claim), EAGRE_E_TOPIC_DELETED, "gone");
    eagre_producer_close(by);
}

int main(void) {
    eg_request_limit_ns = LIMIT_NS;
    const struct CMUnitTest tests[] = {
        T(a_stopped_daemon_costs_a_producer_its_timeout_only),
        T(a_stopped_daemon_costs_a_consumer_its_timeout_only),
        T(the_ring_that_is_left_is_used_up_exactly),
        T(new_handles_are_told_and_old_ones_go_on),
        T(a_sleeping_consumer_is_woken_after_a_restart),
        T(a_claim_outlives_the_daemon),
        T(a_single_writer_keeps_its_right),
        T(topics_that_come_and_go_meanwhile),
        T(memory_that_is_gone_is_not_mixed_with_the_new),
        T(a_producer_whose_topic_went_with_the_instance_says_so),
        T(a_clean_stop_is_told_to_who_polls_without_waiting),
        T(a_daemon_without_membarrier_refuses_memory_that_had_one),
        T(a_descriptor_works_across_restarts),
        T(twenty_restarts_under_load),
    };
    return cmocka_run_group_tests_name("restart", tests, NULL, NULL);
}
