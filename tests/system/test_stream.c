/*
 * What a user does: producers and consumers in processes of their own through a real daemon, across
 * its death, its clean stop, a ring that turns, memory that runs out, forks and epoll.
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
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/wait.h>
#include <unistd.h>

#include "eagre/admin.h"
#include "eagre/consumer.h"
#include "eagre/producer.h"
#include "harness.h"

#define OK(call)                                                                                   \
    do {                                                                                           \
        if ((call) != EAGRE_OK)                                                                    \
            fail_msg("%s: %s", #call, eagre_error_detail());                                       \
    } while (0)
#define IS(call, status)                                                                           \
    do {                                                                                           \
        int got_ = (call);                                                                         \
        if (got_ != (status))                                                                      \
            fail_msg("%s: %s, not %s: %s", #call, eagre_status_name(got_),                         \
                     eagre_status_name(status), eagre_error_detail());                             \
    } while (0)
#define SAYS(text)                                                                                 \
    do {                                                                                           \
        if (strstr(eagre_error_detail(), (text)) == NULL)                                          \
            fail_msg("\"%s\" does not say \"%s\"", eagre_error_detail(), (text));                  \
    } while (0)

static struct eg_test_bus *bus;
static eagre_t *e;

static void make_topic(const char *name, const char *segment, const char *partitions) {
    const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", segment}, {"partitions", partitions}};
    OK(eagre_topic_create(e, name, settings, 3));
}

static int setup(void **state) {
    eg_setup_bus(state);
    bus = *state;
    OK(eagre_open(bus->socket, &e));
    make_topic("t", "64K", "1");
    return 0;
}

static int teardown(void **state) {
    eagre_close(e);
    e = NULL;
    return eg_teardown_bus(state);
}

static eagre_producer_t *producer_of(const char *topic, int32_t max_block_ms) {
    eagre_producer_options_t o = EAGRE_PRODUCER_OPTIONS_INIT;
    eagre_producer_t *p;
    o.max_block_ms = max_block_ms;
    OK(eagre_producer_open(e, topic, &o, &p));
    return p;
}

static eagre_producer_t *producer(int32_t max_block_ms) { return producer_of("t", max_block_ms); }

static eagre_consumer_t *consumer(eagre_offset_reset_t reset) {
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    eagre_consumer_t *c;
    o.auto_offset_reset = reset;
    OK(eagre_consumer_open(e, &o, &c));
    OK(eagre_consumer_assign(c, "t", EAGRE_PARTITION_ALL));
    return c;
}

static int put(eagre_producer_t *p, const void *value, size_t n, int64_t *offset) {
    eagre_message_t m = {.value = value, .value_len = n, .partition = 0};
    return eagre_produce(p, &m, NULL, offset);
}

static int put_number(eagre_producer_t *p, uint64_t number) { return put(p, &number, sizeof(number), NULL); }

/* The next record, as it lies in the log. */
static eagre_record_t next(eagre_consumer_t *c) {
    eagre_record_t r;
    size_t n = 0;
    OK(eagre_consumer_poll(c, &r, 1, EG_TEST_LIMIT_MS, &n));
    if (n != 1)
        fail_msg("no record came");
    return r;
}

static uint64_t next_number(eagre_consumer_t *c) {
    eagre_record_t r = next(c);
    uint64_t number;
    assert_int_equal(r.value_len, sizeof(number));
    memcpy(&number, r.value, sizeof(number));
    return number;
}

/* Run f in a process of its own; it returns the exit status. */
static pid_t process(int (*f)(void)) {
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        for (int fd = 3; fd < 1000; fd++)
            close(fd);
        _exit(f());
    }
    return pid;
}

/* ---- sizes ---------------------------------------------------------------------------------------- */

static void the_largest_and_the_empty_record(void **state) {
    (void)state;
    const size_t largest = 65536 / 8 - 32;
    char *bytes = malloc(largest + 1);
    eagre_producer_t *p = producer(0);
    eagre_consumer_t *c = consumer(EAGRE_RESET_EARLIEST);
    memset(bytes, 'x', largest + 1);
    OK(put(p, bytes, largest, NULL));
    IS(put(p, bytes, largest + 1, NULL), EAGRE_E_RECORD_TOO_LARGE);
    SAYS("topic 't'");
    SAYS("8160");
    OK(put(p, "", 0, NULL));
    OK(put(p, NULL, 0, NULL));
    eagre_record_t r = next(c);
    assert_int_equal(r.value_len, largest);
    assert_memory_equal(r.value, bytes, largest);
    r = next(c);
    assert_true(r.value != NULL && r.value_len == 0 && r.key == NULL);
    r = next(c);
    assert_true(r.value == NULL && r.offset == 2);
    eagre_consumer_close(c);
    eagre_producer_close(p);
    free(bytes);
}

static void key_value_headers_timestamp(void **state) {
    (void)state;
    eagre_producer_t *p = producer(EG_TEST_LIMIT_MS);
    eagre_consumer_t *c = consumer(EAGRE_RESET_EARLIEST);
    const eagre_header_t headers[] = {{"trace", 5, "abc", 3}, {"empty", 5, "", 0}, {"null", 4, NULL, 0}};
    eagre_message_t m = {"k", 1, "v", 1, headers, 3, 1234567890123456789, EAGRE_PARTITION_ANY};
    OK(eagre_produce(p, &m, NULL, NULL));
    eagre_record_t r = next(c);
    eagre_header_t h;
    assert_int_equal(r.timestamp_ns, 1234567890123456789);
    assert_memory_equal(r.key, "k", 1);
    assert_memory_equal(r.value, "v", 1);
    OK(eagre_record_header(&r, 0, &h));
    assert_int_equal(h.name_len, 5);
    assert_memory_equal(h.name, "trace", 5);
    assert_memory_equal(h.value, "abc", 3);
    OK(eagre_record_header(&r, 1, &h));
    assert_true(h.value != NULL && h.value_len == 0);
    OK(eagre_record_header(&r, 2, &h));
    assert_true(h.value == NULL);
    IS(eagre_record_header(&r, 3, &h), EAGRE_E_INVALID);
    eagre_consumer_close(c);
    eagre_producer_close(p);
}

static void a_key_finds_its_partition(void **state) {
    (void)state;
    make_topic("keyed", "64K", "8");
    eagre_producer_t *p;
    int32_t partition;
    OK(eagre_producer_open(e, "keyed", NULL, &p));
    for (int i = 0; i < 100; i++) {
        char key[16];
        int n = snprintf(key, sizeof(key), "key-%d", i);
        eagre_message_t m = {.key = key, .key_len = (size_t)n, .partition = EAGRE_PARTITION_ANY};
        OK(eagre_produce(p, &m, &partition, NULL));
        assert_int_equal(partition, eagre_partition_for_key(key, (size_t)n, 8));
    }
    eagre_message_t m = {.partition = 8};
    IS(eagre_produce(p, &m, NULL, NULL), EAGRE_E_UNKNOWN_PARTITION);
    SAYS("topic 'keyed' has partitions 0 to 7, not 8");
    eagre_producer_close(p);
    IS(eagre_producer_open(e, "nowhere", NULL, &p), EAGRE_E_UNKNOWN_TOPIC);
    SAYS("nowhere");
}

/* ---- batches and claims ------------------------------------------------------------------------------ */

static void a_batch_comes_as_one(void **state) {
    (void)state;
    eagre_producer_t *p = producer(EG_TEST_LIMIT_MS);
    eagre_consumer_t *c = consumer(EAGRE_RESET_EARLIEST);
    eagre_message_t m[50];
    uint64_t numbers[50];
    int64_t first = -1;
    for (uint64_t i = 0; i < 50; i++) {
        numbers[i] = i;
        m[i] = (eagre_message_t){.value = &numbers[i], .value_len = 8};
    }
    OK(put_number(p, 77));
    OK(eagre_produce_batch(p, 0, m, 50, &first));
    assert_int_equal(first, 1);
    assert_int_equal(next_number(c), 77);
    for (uint64_t i = 0; i < 50; i++)
        assert_int_equal(next_number(c), i);
    IS(eagre_produce_batch(p, 0, m, 0, NULL), EAGRE_E_INVALID);
    eagre_consumer_close(c);
    eagre_producer_close(p);
}

static void a_claim_is_written_in_place(void **state) {
    (void)state;
    eagre_producer_t *p = producer(EG_TEST_LIMIT_MS);
    eagre_consumer_t *c = consumer(EAGRE_RESET_EARLIEST);
    eagre_claim_t claim;
    eagre_record_t r;
    size_t n;
    OK(eagre_producer_claim(p, 0, 2, 10, &claim));
    memcpy(claim.key, "ab", 2);
    memcpy(claim.value, "0123456789", 10);
    IS(put_number(p, 1), EAGRE_E_STATE);
    OK(eagre_consumer_poll(c, &r, 1, 0, &n));
    assert_int_equal(n, 0);
    claim.value_len = 4;
    OK(eagre_producer_commit(p, &claim));
    r = next(c);
    assert_int_equal(r.value_len, 4);
    assert_memory_equal(r.key, "ab", 2);
    assert_memory_equal(r.value, "0123", 4);
    OK(eagre_producer_claim(p, 0, SIZE_MAX, 100, &claim));
    OK(eagre_producer_abort(p, &claim));
    IS(eagre_producer_commit(p, &claim), EAGRE_E_STATE);
    OK(put_number(p, 5));
    r = next(c);
    assert_int_equal(r.offset, 2); /* offset 1 was given up */
    eagre_consumer_close(c);
    eagre_producer_close(p);
}

/* ---- positions ---------------------------------------------------------------------------------------- */

static void positions(void **state) {
    (void)state;
    eagre_producer_t *p = producer(EG_TEST_LIMIT_MS);
    eagre_consumer_t *c = consumer(EAGRE_RESET_LATEST);
    int64_t at;
    for (uint64_t i = 0; i < 100; i++)
        OK(put_number(p, i));
    OK(eagre_consumer_lag(c, "t", 0, &at));
    assert_int_equal(at, 100);
    OK(eagre_consumer_seek(c, "t", 0, EAGRE_OFFSET_BEGINNING));
    assert_int_equal(next_number(c), 0);
    OK(eagre_consumer_seek(c, "t", 0, 42));
    assert_int_equal(next_number(c), 42);
    OK(eagre_consumer_position(c, "t", 0, &at));
    assert_int_equal(at, 43);
    OK(eagre_consumer_seek_tail(c, "t", 0, 3));
    assert_int_equal(next_number(c), 97);
    OK(eagre_consumer_end_offset(c, "t", 0, &at));
    assert_int_equal(at, 100);
    OK(eagre_consumer_seek(c, "t", 0, EAGRE_OFFSET_END));
    OK(put_number(p, 100));
    assert_int_equal(next_number(c), 100);
    OK(eagre_consumer_pause(c, "t", 0));
    OK(put_number(p, 101));
    eagre_record_t r;
    size_t n;
    OK(eagre_consumer_poll(c, &r, 1, 0, &n));
    assert_int_equal(n, 0);
    OK(eagre_consumer_resume(c, "t", 0));
    assert_int_equal(next_number(c), 101);
    IS(eagre_consumer_seek(c, "t", 1, 0), EAGRE_E_STATE);
    IS(eagre_consumer_assign(c, "t", 1), EAGRE_E_UNKNOWN_PARTITION);
    eagre_consumer_close(c);
    eagre_producer_close(p);
}

/* Turn the ring more than once; numbers from `from`, returns behind the last. */
static uint64_t turn(eagre_producer_t *p, uint64_t from) {
    uint64_t i = from;
    for (; i < from + 4000; i++) /* of 64 bytes: four segments */
        OK(put_number(p, i));
    return i;
}

static void who_falls_behind_is_told(void **state) {
    (void)state;
    eagre_producer_t *p = producer(-1);
    eagre_consumer_t *none = consumer(EAGRE_RESET_NONE);
    eagre_consumer_t *earliest = consumer(EAGRE_RESET_EARLIEST);
    eagre_consumer_t *latest = consumer(EAGRE_RESET_LATEST);
    eagre_record_t r;
    size_t n;
    int64_t start;
    IS(eagre_consumer_poll(none, &r, 1, 0, &n), EAGRE_E_OFFSET_OUT_OF_RANGE); /* no position yet */
    OK(eagre_consumer_seek(none, "t", 0, EAGRE_OFFSET_BEGINNING));
    uint64_t end = turn(p, 0);
    IS(eagre_consumer_poll(none, &r, 1, 0, &n), EAGRE_E_OFFSET_OUT_OF_RANGE);
    SAYS("topic 't': partition 0: offset 0 is not in the log any more");
    OK(eagre_consumer_beginning_offset(none, "t", 0, &start));
    assert_true(start > 0);
    OK(eagre_consumer_seek(none, "t", 0, start));
    assert_int_equal(next_number(none), start);
    /* The log may have moved on since: earliest is wherever it begins now, and then there is no gap. */
    uint64_t number = next_number(earliest);
    assert_true(number >= (uint64_t)start);
    while (++number < end)
        assert_int_equal(next_number(earliest), number);
    OK(eagre_consumer_poll(latest, &r, 1, 0, &n));
    assert_int_equal(n, 0);
    OK(put_number(p, end));
    assert_int_equal(next_number(latest), end);
    eagre_consumer_close(latest);
    eagre_consumer_close(earliest);
    eagre_consumer_close(none);
    eagre_producer_close(p);
}

static void a_slow_reader_sees_no_byte_change_and_stops_nobody(void **state) {
    (void)state;
    eagre_producer_t *p = producer(EG_TEST_LIMIT_MS);
    eagre_consumer_t *c = consumer(EAGRE_RESET_EARLIEST);
    eagre_record_t r[100];
    size_t n;
    for (uint64_t i = 0; i < 100; i++)
        OK(put_number(p, i));
    OK(eagre_consumer_poll(c, r, 100, 0, &n));
    assert_int_equal(n, 100);
    for (uint64_t at = 100, k = 0; k < 5; k++)
        at = turn(p, at);
    for (uint64_t i = 0; i < 100; i++)
        assert_memory_equal(r[i].value, &i, sizeof(i));
    eagre_consumer_close(c);
    eagre_producer_close(p);
}

/* ---- the daemon dies, or is stopped ---------------------------------------------------------------------- */

static void a_crash_of_the_daemon_is_not_noticed(void **state) {
    (void)state;
    eagre_producer_t *p = producer(EG_TEST_LIMIT_MS);
    eagre_consumer_t *c = consumer(EAGRE_RESET_EARLIEST);
    uint64_t sent = 1, seen = 0;
    OK(put_number(p, 0));
    for (int crash = 0; crash < 3; crash++) {
        eg_bus_kill(bus);
        for (int i = 0; i < 50; i++, sent++) /* without a daemon */
            OK(put_number(p, sent));
        while (seen < sent)
            assert_int_equal(next_number(c), seen++);
        eg_bus_start(bus, NULL);
        for (int i = 0; i < 3000; i++) { /* the ring turns: the new one prepares segments */
            OK(put_number(p, sent++));
            assert_int_equal(next_number(c), seen++);
        }
    }
    eagre_consumer_close(c);
    eagre_producer_close(p);
}

static void a_ring_used_up_without_a_daemon_says_so_and_goes_on_after(void **state) {
    (void)state;
    eagre_producer_t *p = producer(0), *waits = producer(EG_TEST_LIMIT_MS);
    uint64_t i = 0;
    int rc;
    OK(put_number(p, i++));
    eg_bus_kill(bus);
    while ((rc = put_number(p, i)) == EAGRE_OK)
        i++;
    assert_true(rc == EAGRE_E_NO_DAEMON || rc == EAGRE_E_WOULD_BLOCK);
    SAYS("topic 't' partition 0");
    SAYS("is away for");
    assert_true(i > 1000);
    eg_bus_start(bus, NULL);
    OK(put_number(waits, i));
    eagre_producer_close(waits);
    eagre_producer_close(p);
}

static void handles_go_on_in_the_next_instance(void **state) {
    (void)state;
    eagre_producer_t *p = producer(EG_TEST_LIMIT_MS);
    eagre_consumer_t *c = consumer(EAGRE_RESET_LATEST);
    int64_t before, after;
    OK(put(p, "a", 1, &before));
    next(c);
    assert_int_equal(eg_bus_stop(bus), 0); /* the memory is gone */
    eagre_record_t r;
    size_t n;
    IS(eagre_consumer_poll(c, &r, 1, 10, &n), EAGRE_E_NO_DAEMON);
    eg_bus_start(bus, NULL);
    OK(put(p, "b", 1, &after));
    assert_int_equal(after, before + 1); /* no offset twice, and none lost by a clean stop */
    r = next(c);
    assert_int_equal(r.offset, after);
    assert_memory_equal(r.value, "b", 1);
    eagre_consumer_close(c);
    eagre_producer_close(p);
}

static void a_deleted_topic_is_gone_for_who_uses_it(void **state) {
    (void)state;
    eagre_producer_t *p = producer(EG_TEST_LIMIT_MS);
    eagre_consumer_t *c = consumer(EAGRE_RESET_EARLIEST);
    eagre_record_t r;
    size_t n;
    OK(put_number(p, 1));
    next(c);
    OK(eagre_topic_delete(e, "t"));
    IS(put_number(p, 2), EAGRE_E_TOPIC_DELETED);
    IS(eagre_consumer_poll(c, &r, 1, EG_TEST_LIMIT_MS, &n), EAGRE_E_TOPIC_DELETED);
    eagre_consumer_close(c);
    eagre_producer_close(p);
}

static void *delete_topic(void *arg) {
    OK(eagre_topic_delete(e, "t"));
    return arg;
}

/* Pinned and awake all the time, it never looks at the slot by itself. */
static void a_spinning_consumer_learns_it_too(void **state) {
    (void)state;
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    eagre_consumer_t *c;
    eagre_record_t r;
    size_t n;
    pthread_t thread;
    o.wait = EAGRE_WAIT_YIELD;
    o.auto_offset_reset = EAGRE_RESET_EARLIEST;
    eagre_producer_t *p = producer(EG_TEST_LIMIT_MS);
    OK(put_number(p, 1));
    eagre_producer_close(p);
    OK(eagre_consumer_open(e, &o, &c));
    OK(eagre_consumer_assign(c, "t", 0));
    next(c);
    OK(eagre_consumer_poll(c, &r, 1, 0, &n));
    assert_int_equal(pthread_create(&thread, NULL, delete_topic, NULL), 0);
    IS(eagre_consumer_poll(c, &r, 1, EG_TEST_LIMIT_MS, &n), EAGRE_E_TOPIC_DELETED);
    pthread_join(thread, NULL);
    eagre_consumer_close(c);
}

/* The request itself finds out that the instance was replaced: its grant counts once. */
static void a_single_writer_opens_in_the_next_instance(void **state) {
    (void)state;
    const eagre_setting_t settings[] = {{"storage", "memory"}, {"segment.bytes", "64K"}, {"writers", "single"}};
    eagre_producer_t *p;
    OK(eagre_topic_create(e, "s", settings, 3));
    for (int i = 0; i < 3; i++) {
        OK(eagre_producer_open(e, "s", NULL, &p));
        OK(put_number(p, 1));
        eagre_producer_close(p);
        assert_int_equal(eg_bus_stop(bus), 0);
        eg_bus_start(bus, NULL);
    }
}

static void new_partitions_are_found(void **state) {
    (void)state;
    eagre_producer_t *p = producer(EG_TEST_LIMIT_MS);
    const eagre_setting_t more = {"partitions", "3"};
    eagre_message_t m = {.value = "x", .value_len = 1, .partition = 2};
    IS(eagre_produce(p, &m, NULL, NULL), EAGRE_E_UNKNOWN_PARTITION);
    OK(eagre_topic_alter(e, "t", &more, 1));
    OK(eagre_produce(p, &m, NULL, NULL));
    eagre_consumer_t *c = consumer(EAGRE_RESET_EARLIEST);
    assert_int_equal(next(c).partition, 2);
    eagre_consumer_close(c);
    eagre_producer_close(p);
}

/* ---- waiting -------------------------------------------------------------------------------------------------- */

static int produce_one(void) {
    eagre_t *own;
    eagre_producer_t *p;
    if (eagre_open(bus->socket, &own) || eagre_producer_open(own, "t", NULL, &p) || put_number(p, 9))
        return 1;
    eagre_producer_close(p);
    return eagre_close(own);
}

static void a_descriptor_for_epoll(void **state) {
    (void)state;
    eagre_consumer_t *c = consumer(EAGRE_RESET_EARLIEST);
    int fd, ep = epoll_create1(EPOLL_CLOEXEC), got = 0;
    OK(eagre_consumer_fd(c, &fd));
    struct epoll_event ev = {.events = EPOLLIN}, out;
    assert_int_equal(epoll_ctl(ep, EPOLL_CTL_ADD, fd, &ev), 0);
    pid_t pid = 0;
    for (int rounds = 0; got < 3 && rounds < 10000; rounds++) {
        assert_int_equal(epoll_wait(ep, &out, 1, EG_TEST_LIMIT_MS), 1);
        eagre_record_t r[8];
        size_t n;
        do {
            OK(eagre_consumer_poll(c, r, 8, 0, &n));
            got += (int)n;
        } while (n > 0);
        if (pid != 0 && got > 0) {
            assert_int_equal(eg_wait_exit(pid), 0);
            pid = 0;
        }
        if (pid == 0 && got < 3)
            pid = process(produce_one);
        if (got > 0 && pid == 0)
            break;
    }
    if (pid != 0)
        assert_int_equal(eg_wait_exit(pid), 0);
    assert_true(got > 0);
    close(ep);
    eagre_consumer_close(c);
}

static void every_strategy_gets_its_record(void **state) {
    (void)state;
    for (eagre_wait_t wait = EAGRE_WAIT_SLEEP; wait <= EAGRE_WAIT_SPIN; wait++) {
        eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
        eagre_consumer_t *c;
        o.wait = wait;
        OK(eagre_consumer_open(e, &o, &c));
        OK(eagre_consumer_assign(c, "t", 0));
        pid_t pid = process(produce_one);
        assert_int_equal(next_number(c), 9);
        assert_int_equal(eg_wait_exit(pid), 0);
        eagre_consumer_close(c);
    }
}

/* Where membarrier is forbidden everything works by fences. */
static int without_membarrier(void) {
    setenv("EAGRE_NO_MEMBARRIER", "1", 1);
    eagre_t *own;
    eagre_producer_t *p;
    eagre_consumer_t *c;
    eagre_record_t r;
    size_t n;
    if (eagre_open(bus->socket, &own) || eagre_producer_open(own, "t", NULL, &p) ||
        eagre_consumer_open(own, NULL, &c) || eagre_consumer_assign(c, "t", 0))
        return 1;
    for (uint64_t i = 0; i < 5000; i++)
        if (put_number(p, i) || eagre_consumer_poll(c, &r, 1, EG_TEST_LIMIT_MS, &n) || n != 1 ||
            memcmp(r.value, &i, 8) != 0)
            return 2;
    return 0;
}

static void without_membarrier_it_works_by_fences(void **state) {
    (void)state;
    assert_int_equal(eg_wait_exit(process(without_membarrier)), 0);
}

/* ---- fork ------------------------------------------------------------------------------------------------------- */

static void a_fork_child_is_told(void **state) {
    (void)state;
    eagre_producer_t *p = producer(EG_TEST_LIMIT_MS);
    eagre_consumer_t *c = consumer(EAGRE_RESET_EARLIEST);
    OK(put_number(p, 1));
    fflush(NULL);
    pid_t pid = fork();
    if (pid == 0) {
        eagre_record_t r;
        size_t n;
        eagre_claim_t claim;
        eagre_producer_t *p2;
        eagre_t *own;
        int rc = put_number(p, 2) != EAGRE_E_FORKED ? 1
                 : eagre_consumer_poll(c, &r, 1, 0, &n) != EAGRE_E_FORKED ? 2
                 : eagre_producer_claim(p, 0, 0, 1, &claim) != EAGRE_E_FORKED ? 3
                 : eagre_producer_open(e, "t", NULL, &p2) != EAGRE_E_FORKED ? 4
                 : eagre_topic_delete(e, "t") != EAGRE_E_FORKED ? 5
                                                               : 0;
        eagre_producer_close(p); /* frees memory only */
        eagre_consumer_close(c);
        if (rc == 0 && (eagre_open(bus->socket, &own) != EAGRE_OK ||
                        eagre_producer_open(own, "t", NULL, &p2) != EAGRE_OK || put_number(p2, 2) != EAGRE_OK))
            rc = 6;
        _exit(rc);
    }
    int status;
    assert_int_equal(waitpid(pid, &status, 0), pid);
    assert_true(WIFEXITED(status));
    assert_int_equal(WEXITSTATUS(status), 0);
    assert_int_equal(next_number(c), 1);
    assert_int_equal(next_number(c), 2); /* by the child's own instance */
    OK(put_number(p, 3));
    assert_int_equal(next_number(c), 3); /* ours goes on */
    IS(eagre_close(e), EAGRE_E_STATE);
    eagre_consumer_close(c);
    eagre_producer_close(p);
}

/* ---- memory -------------------------------------------------------------------------------------------------------- */

static void memory_max_is_a_refusal_with_figures(void **state) {
    (void)state;
    struct eg_test_bus small;
    eagre_t *other;
    eg_bus_init(&small);
    eg_bus_start(&small, "--memory.max=2MiB", NULL);
    OK(eagre_open(small.socket, &other));
    const eagre_setting_t large[] = {{"segment.bytes", "1MiB"}};
    IS(eagre_topic_create(other, "large", large, 1), EAGRE_E_NO_MEMORY);
    SAYS("topic 'large' needs");
    SAYS("memory.max");
    const eagre_setting_t fits[] = {{"storage", "memory"}, {"segment.bytes", "64K"}};
    int n = 0, rc;
    char name[16];
    do {
        snprintf(name, sizeof(name), "fits-%d", n++);
    } while ((rc = eagre_topic_create(other, name, fits, 2)) == EAGRE_OK && n < 100);
    assert_int_equal(rc, EAGRE_E_NO_MEMORY);
    assert_true(n > 3);
    OK(eagre_topic_delete(other, "fits-0"));
    OK(eagre_topic_create(other, name, fits, 2)); /* room again, without a restart */
    OK(eagre_close(other));
    eg_bus_remove(&small);
}

/* A process that may map little is told what stopped it. */
static int with_little_address_space(void) {
    struct rlimit little = {64 << 20, 64 << 20};
    eagre_t *own;
    eagre_producer_t *p;
    eagre_message_t m = EAGRE_MESSAGE_INIT;
    if (eagre_open(bus->socket, &own) || setrlimit(RLIMIT_AS, &little) != 0)
        return 1;
    int rc = eagre_producer_open(own, "big", NULL, &p);
    if (rc == EAGRE_OK)
        rc = eagre_produce(p, &m, NULL, NULL);
    if (rc != EAGRE_E_NO_MEMORY && rc != EAGRE_E_SYSTEM)
        return 2;
    return strstr(eagre_error_detail(), "ulimit -v") != NULL ? 0 : 3;
}

static void a_process_with_little_address_space_is_told(void **state) {
    (void)state;
    make_topic("big", "64M", "1");
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
    skip();
#endif
    assert_int_equal(eg_wait_exit(process(with_little_address_space)), 0);
}

static void *start_again(void *arg) {
    eg_bus_start(bus, NULL);
    return arg;
}

/* The first record of a partition that no daemon hands out: it waits as for room. */
static void a_producer_waits_for_the_daemon(void **state) {
    (void)state;
    make_topic("two", "64K", "2");
    eagre_producer_t *now = producer_of("two", 0), *waits = producer_of("two", EG_TEST_LIMIT_MS);
    eg_bus_kill(bus);
    IS(put_number(now, 1), EAGRE_E_NO_DAEMON);
    SAYS("topic 'two'");
    pthread_t thread;
    assert_int_equal(pthread_create(&thread, NULL, start_again, NULL), 0);
    OK(put_number(waits, 1));
    pthread_join(thread, NULL);
    eagre_producer_close(waits);
    eagre_producer_close(now);
}

/* ---- several at once --------------------------------------------------------------------------------------------------- */

#define EACH 20000

static int produce_many(void) {
    eagre_t *own;
    eagre_producer_t *p;
    if (eagre_open(bus->socket, &own) || eagre_producer_open(own, "many", NULL, &p))
        return 1;
    for (uint64_t i = 0; i < EACH; i++) {
        uint64_t value[2] = {(uint64_t)getpid(), i};
        eagre_message_t m = {.value = value, .value_len = sizeof(value), .partition = (int32_t)(i % 2)};
        if (eagre_produce(p, &m, NULL, NULL) != EAGRE_OK)
            return 2;
    }
    eagre_producer_close(p);
    return eagre_close(own);
}

static void many_producers_each_in_order(void **state) {
    (void)state;
    /* A ring that holds all of it: nothing may be lost. */
    make_topic("many", "2M", "2");
    eagre_consumer_options_t o = EAGRE_CONSUMER_OPTIONS_INIT;
    eagre_consumer_t *c;
    o.auto_offset_reset = EAGRE_RESET_NONE;
    OK(eagre_consumer_open(e, &o, &c));
    OK(eagre_consumer_assign(c, "many", EAGRE_PARTITION_ALL));
    for (int i = 0; i < 2; i++)
        OK(eagre_consumer_seek(c, "many", i, EAGRE_OFFSET_BEGINNING));
    pid_t pid[3];
    uint64_t expected[3][2] = {{0, 1}, {0, 1}, {0, 1}}, got = 0;
    int64_t offset[2] = {0, 0};
    for (int i = 0; i < 3; i++)
        pid[i] = process(produce_many);
    while (got < 3 * EACH) {
        eagre_record_t r[64];
        size_t n = 0;
        OK(eagre_consumer_poll(c, r, 64, EG_TEST_LIMIT_MS, &n));
        assert_true(n > 0);
        for (size_t k = 0; k < n; k++, got++) {
            uint64_t value[2];
            int who = 0, part = r[k].partition;
            memcpy(value, r[k].value, sizeof(value));
            while (who < 3 && (uint64_t)pid[who] != value[0])
                who++;
            assert_true(who < 3);
            assert_int_equal(value[1], expected[who][part]);
            expected[who][part] += 2;
            assert_int_equal(r[k].offset, offset[part]++);
        }
    }
    for (int i = 0; i < 3; i++)
        assert_int_equal(eg_wait_exit(pid[i]), 0);
    eagre_consumer_close(c);
}

#define T(f) cmocka_unit_test_setup_teardown(f, setup, teardown)

int main(void) {
    const struct CMUnitTest tests[] = {
        T(the_largest_and_the_empty_record),
        T(key_value_headers_timestamp),
        T(a_key_finds_its_partition),
        T(a_batch_comes_as_one),
        T(a_claim_is_written_in_place),
        T(positions),
        T(who_falls_behind_is_told),
        T(a_slow_reader_sees_no_byte_change_and_stops_nobody),
        T(a_crash_of_the_daemon_is_not_noticed),
        T(a_ring_used_up_without_a_daemon_says_so_and_goes_on_after),
        T(handles_go_on_in_the_next_instance),
        T(a_producer_waits_for_the_daemon),
        T(a_deleted_topic_is_gone_for_who_uses_it),
        T(a_spinning_consumer_learns_it_too),
        T(a_single_writer_opens_in_the_next_instance),
        T(new_partitions_are_found),
        T(a_descriptor_for_epoll),
        T(every_strategy_gets_its_record),
        T(without_membarrier_it_works_by_fences),
        T(a_fork_child_is_told),
        T(memory_max_is_a_refusal_with_figures),
        T(a_process_with_little_address_space_is_told),
        T(many_producers_each_in_order),
    };
    return cmocka_run_group_tests_name("stream", tests, NULL, NULL);
}
